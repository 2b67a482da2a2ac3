//! Figures with what they mean: rows for programs, a page for people.

use super::failed::BenchError;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// Version of the results file.
pub const VERSION: u64 = 1;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// The row of the same run that it is compared with.
    pub baseline: Option<String>,
    /// The figure divided by the baseline's.
    pub ratio: Option<f64>,
}

/// Where it was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Processor.
    pub cpu: String,
    /// Cores the program may use.
    pub cores: usize,
    /// Memory, MB.
    pub memory_mb: u64,
    /// Kernel.
    pub kernel: String,
    /// Load average of one minute when the run began: what else ran.
    pub load_before: f64,
}

/// The results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Format version, 1.
    pub version: u64,
    /// When, UTC.
    pub date: String,
    /// Which commit; `+` marks changes on top.
    pub commit: String,
    /// What was typed.
    pub command: String,
    /// Whether it was the short run, which proves nothing but that the bench works.
    pub quick: bool,
    /// Whether the program was built with optimisation.
    pub release: bool,
    /// Where.
    pub machine: Machine,
    /// Settings of what was measured.
    pub settings: Vec<(String, String)>,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Results {
    /// An empty results file for a run that begins now.
    pub fn begin(command: String, quick: bool) -> Self {
        Self {
            version: VERSION,
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit(),
            command,
            quick,
            release: !cfg!(debug_assertions),
            machine: machine(),
            settings: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a figure and prints it, as a ratio to `baseline` where that was measured.
    pub fn add(&mut self, name: &str, value: f64, unit: &str, baseline: Option<&str>) {
        let found = baseline.and_then(|b| self.rows.iter().find(|r| r.name == b)).filter(|b| b.value > 0.0);
        let row = Row {
            name: name.to_owned(),
            value: rounded(value),
            unit: unit.to_owned(),
            baseline: found.map(|b| b.name.clone()),
            ratio: found.map(|b| rounded(value / b.value)),
        };
        println!("{}", line(&row));
        self.rows.push(row);
    }

    /// Notes a setting.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// Writes the results as JSON to `out`, and as a page beside it.
    pub fn write(&self, out: &Path) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| BenchError::refused("the results", e))?;
        let page = out.with_extension("md");
        for (path, text) in [(out, text + "\n"), (page.as_path(), self.page())] {
            std::fs::write(path, text).map_err(|e| BenchError::io(format!("writing {}", path.display()), e))?;
        }
        Ok(())
    }

    /// Reads a results file.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        read_json(path)
    }

    fn page(&self) -> String {
        let m = &self.machine;
        let mut page = format!(
            "# Benchmarks\n\nWritten by `{}` on {} at commit {}{}. Absolute figures move with the machine; the ratios are to a \
             baseline of the same run on the same machine.\n\n\
             Machine: {} cores of {}, {} MB memory, Linux {}; load average {:.2} when the run began. The load generator, all \
             validators and all servers share these cores.\n\n| figure | value | unit | ratio | to |\n|---|---:|---|---:|---|\n",
            self.command,
            self.date,
            self.commit,
            if self.quick { " (the short run: it only shows that the bench works)" } else { "" },
            m.cores,
            m.cpu,
            m.memory_mb,
            m.kernel,
            m.load_before,
        );
        let (means, figures): (Vec<&Row>, Vec<&Row>) =
            self.rows.iter().partition(|r| r.name.starts_with("cpu_") || r.name.starts_with("memory_"));
        figures.iter().for_each(|row| page.push_str(&table_line(row)));
        page.push_str("\n## What it took\n\n| means | value | unit | ratio | to |\n|---|---:|---|---:|---|\n");
        means.iter().for_each(|row| page.push_str(&table_line(row)));
        page.push_str("\n## Settings\n\n");
        for (name, value) in &self.settings {
            page.push_str(&format!("- {name}: {value}\n"));
        }
        page.push_str(MEANING);
        page
    }
}

const MEANING: &str = "
## What the figures mean

- `ordered_ops_*`: operations a second whose accepted verdicts came back to their writers, each a `query` of about 64 bytes with one
  tag under an active agreement, in batches of 64 KB with one signature each, at most two open batches a writer. `kvstore_ops_*`
  is CometBFT's own key-value store on the same settings: one operation of the same size a transaction, no signature, no
  agreement, nothing written to disk by the application.
- `commit_latency_*`: from handing in a batch of one operation to its accepted verdict, one at a time on an idle ledger, four
  validators up. `commit_latency_3_of_4v_*`: with another validator killed.
- `chain_bytes_per_op`: bytes of CometBFT's blocks, headers and commits included, divided by the operations in them;
  `chain_op_bytes` is the operation itself, the rest is a batch's signature and a block's own. `ledger_store_bytes_per_op` is the
  application's file: entries, tiles, history, subject runs.
- `list_1000_*`: the 1,000 operations under one tag of a subject run of a million entries: proven by the node, checked by whoever asks,
  and the paths of the 1,000 entries in the log. `list_1000_ms` is what the node takes for both.
- `receipt_bytes`, `receipt_verify_ms`: a final receipt of a strict query in a city of four agencies, and checking it offline.
- `memory_growth_1v_per_million`: by how much the application's resident memory grew a million operations under load.
- `cold_restart_seconds`: application and CometBFT killed, started, and the next block made. `replay_*`: the same with the application's
  file removed, until it has read the whole chain again.
- `tessera_appends`: entries a second of the same size that a transparency log in Go (Tessera on POSIX files, its conformance
  server) has sequenced, 1,024 on their way at a time. It signs no entry and judges none.
- `query_strict_4v`: queries a second by key through the consumer's gateway, one record and one ledger operation each, the rows
  released after the ledger accepted the operation. `holding_lookups` reads the same records from the provider's store
  with the same query, without policy, evidence or network: what the evidence costs. `query_strict_4v_keys` asks for many keys
  in one query.
- `query_strict_4v_stage_*`: where the mean query of that load spends its time; `gateway`, `streams`, `executor`, `ledger` and `release`
  add up to `total`. `gateway`: signing, verifying and storing at the consumer; `streams`: on its way there and back; `executor`:
  verifying the call, waiting for a worker, deciding, reading, sealing, storing the response; `ledger`: until its verdict is seen at the provider,
  batch and block; `release`: marked durably and sent. Names with a second word are parts of these.
- `revocation_to_last_release*`: from sending a signed suspension, under the load of 128 clients, to the last answer with data that came
  to a client; the worst of ten rounds, `_p50` their median. `_blocks`: by how many blocks the last released operation stands behind the
  newest block at the time of sending. `_3_of_4v`: with a third agency's validator killed.
- `bounded_*`: an override (break-glass) through the consumer's gateway, one at a time, whose record is promised; `store_*` is the same
  query straight to the provider's store. `disk_sync_p50_ms`: 4 KiB appended to a file there and synced. An override waits for two such
  syncs: nothing leaves the provider, and nothing the consumer's gateway, before it is on disk what left.
- `revocation_to_last_release*`: from handing in a suspension to the last release under load, the worst of ten; `*_blocks` how many
  blocks the last released operation stands behind the height at which the suspension was handed in.
- `decision_cold_us`: the first decision on an ask, with 1,000 agreements of one dataset loaded; `decision_cached_ns`: the same ask
  again. `agreements_10000_mb`: what 10,000 agreements of four clauses take, documents and policy engines included.
- `publish_signed`: messages a second of 256 B from bytes posted over HTTP to durable: read, checked against the schema, hashed in
  salted leaves, signed and synced, 256 a batch, 16 batches in flight. `raw_envelopes` is plain JetStream: as many messages of an
  envelope's size, as many in flight, synced as well. `publish_single` syncs each message for itself, 1,000 in flight.
- `publish_verified`: the same until a reader of the stream has verified each envelope; `raw_envelopes_read` is plain JetStream
  until a reader has got them all.
- `feed_*_ms`: at 1,000 messages a second, from posting a message at the provider to its hand-on to the consumer's application:
  signed, redacted, promised, sealed, synced three times, verified. Batches are posted by the clock; where one waits for the broker,
  its time runs. `raw_feed_*_ms` is plain JetStream at the same pace, published to received.
- `fanout_50_msgs`: messages a second handed on to 50 subscriptions of one feed in all, until each has every message; `fanout_1_msgs`
  is one subscription. `fanout_50_*_ms`: latency as above at 200 messages a second, 50 times each.
- `csv_rows`, `csv_wide_rows`: rows a second of a CSV file from the start of `concordat adapter run --once` to its end, after the
  broker's last durable acknowledgement: parsed, mapped to seven typed fields (33 in the wide file), posted, checked against the schema,
  hashed, signed, synced. `*_plain` is a CSV reader alone in the same run, which has every field and does nothing with it.
- `csv_2gb_rows`: a file of 2 GB, likewise.
- `postgres_rows`: the first load of a table by `sql-poll`, likewise; `_plain` is PostgreSQL's own client copying the table out as text.
- `mqtt_messages`: messages of QoS 1 that waited in mosquitto, likewise, acknowledged to it after the broker's own acknowledgement;
  `_plain` is `mosquitto_sub` taking as many.
- `postgres_change_*_ms`: from before an `INSERT` to the message at the application of another agency that follows the feed, one change at
  a time, by logical replication; beside `feed_*_ms`, which begins at the broker.
- `memory_adapter_*`: largest resident memory of the adapter's process in that run.
- `memory_*`: largest resident memory of the process of that kind, under the load of the row it names.
- `cpu_*`: percent of one core over the measured stretch, all processes of the kind together.
";

fn table_line(row: &Row) -> String {
    let ratio = row.ratio.map_or(String::new(), shown);
    let to = row.baseline.as_deref().unwrap_or_default();
    format!("| {} | {} | {} | {ratio} | {to} |\n", row.name, shown(row.value), row.unit)
}

fn line(row: &Row) -> String {
    let to = match (&row.ratio, &row.baseline) {
        (Some(ratio), Some(baseline)) => format!("   {} x {baseline}", shown(*ratio)),
        _ => String::new(),
    };
    format!("{:<40} {:>10} {:<14}{to}", row.name, shown(row.value), row.unit)
}

/// Three figures are enough for anything measured here.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let step = 10f64.powf(value.abs().log10().floor() - 2.0);
    let value = (value / step).round() * step;
    format!("{value:.6}").parse().unwrap_or(value)
}

fn shown(value: f64) -> String {
    if value >= 100.0 { thousands(value.round() as u64) } else { format!("{value}") }
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let head = digits.len() % 3;
    let mut parts: Vec<&str> = if head > 0 { vec![&digits[..head]] } else { Vec::new() };
    parts.extend((head..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    parts.join(",")
}

/// The value below which a share of the samples lies.
pub fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// Reads a JSON file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, BenchError> {
    let file = path.display().to_string();
    let text = std::fs::read(path).map_err(|e| BenchError::File { file: file.clone(), why: e.to_string() })?;
    serde_json::from_slice(&text).map_err(|e| BenchError::File { file, why: e.to_string() })
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let clean = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| s.is_empty());
    if clean { commit } else { commit + "+" }
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, v)| v.trim()).to_owned()
    };
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    Machine {
        cpu: after(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mb: memory.split(' ').next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_shown_for_people() {
        assert_eq!(
            [rounded(54_321.0), rounded(0.012_345), rounded(99.96), rounded(0.0)],
            [54_300.0, 0.0123, 100.0, 0.0]
        );
        assert_eq!(
            [shown(54_300.0), shown(1.25), shown(1_234_567.0), shown(100.0)],
            ["54,300", "1.25", "1,234,567", "100"]
        );
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(&samples, 0.5), percentile(&samples, 0.99), percentile(&[], 0.5)), (50.0, 99.0, 0.0));
    }

    #[test]
    fn a_row_has_its_ratio_only_to_a_baseline_of_the_same_run() {
        let mut r = Results::begin("x".into(), true);
        r.add("base", 10_000.0, "ops/s", None);
        r.add("ours", 25_000.0, "ops/s", Some("base"));
        r.add("alone", 5.0, "ops/s", Some("not measured"));
        assert_eq!((r.rows[1].ratio, r.rows[2].baseline.clone()), (Some(2.5), None));
        let text = serde_json::to_string(&r).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), r);
        assert!(r.page().contains("| ours | 25,000 | ops/s | 2.5 | base |"), "{}", r.page());
    }
}
