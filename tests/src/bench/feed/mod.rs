//! Feeds: publishing, verifying, latency from posting to hand-on, and fan-out, each beside plain NATS in the same run.

mod fanout;
mod latency;
mod lines;
mod post;
mod raw;
pub mod receive;
mod verify;

use super::chain::Programs;
use super::city::City;
use super::failed::BenchError;
use super::process::{CpuMeter, peak_mb};
use super::report::{Results, percentile};
use concordat_broker::host::connect_streams;
use concordat_protocol::ids::DatasetId;
use lines::LINE;
use post::Poster;
use std::time::{Duration, Instant};

/// Who publishes, who follows.
const PROVIDER: &str = "grid";
const CONSUMER: &str = "transport";
/// Published as fast as it goes; nobody but the benchmark's reader follows it.
const FAST: &str = "bench";
/// Published at a pace and followed under the benchmark's agreement.
const PACED: &str = "paced";
const AGREEMENT: &str = "AGR-2026-0902";
const PURPOSE: &str = "purp:bench";
/// Lines of a batch.
const BATCH: usize = 256;
/// Batches in flight: what an adapter may have.
const FLIGHTS: usize = 16;

/// A dataset's document; `NAME` is its name.
const DATASET_FILE: &str = "dataset: ds:grid/NAME@1
title: What the benchmark publishes
kind: feed
schema: schemas/NAME@1.json
key: [seq]
time: {field: time, zone: UTC}
subject: none
sensitive: {}
retention: {stream: 1d}
indexes: []
";

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "A feeder's reading",
  "type": "object",
  "properties": {
    "feeder": {"type": "string"},
    "kv": {"type": "string", "format": "decimal"},
    "mvar": {"type": "string", "format": "decimal"},
    "mw": {"type": "string", "format": "decimal"},
    "remark": {"type": "string"},
    "seq": {"type": "string"},
    "time": {"type": "string", "format": "date-time"}
  },
  "required": ["feeder", "mw", "seq", "time"],
  "additionalProperties": false
}
"#;

const DOCUMENT: &str = r#"agreement: AGR-2026-0902
version: 1
paper: {title: "Benchmark", sha256: "0000000000000000000000000000000000000000000000000000000000000902"}
assigner: org:grid
assignee: org:transport
target: ds:grid/paced@1
valid: {from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}
approvals: {assigner: [legal, data-steward], assignee: [legal]}
clauses:
- id: F1
  text: The benchmark may follow the readings; the remark stays hidden.
  effect: permit
  assignee: {org: org:transport}
  actions: [subscribe]
  evidence: {bounded: {max_lag: 2s}}
  purpose: purp:bench
  legal_basis: "Measuring the system"
  duties:
  - {type: fields, allow: [feeder, kv, mvar, mw, seq, time]}
"#;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Amount {
    /// Messages of each measurement of throughput at most, and how long it may take.
    messages: u64,
    seconds: u64,
    /// Seconds of each measurement of latency.
    paced: u64,
    /// Messages that each of the subscriptions gets.
    fanout: u64,
}

const WHOLE: Amount = Amount { messages: 1_000_000, seconds: 25, paced: 22, fanout: 20_000 };
const QUICK: Amount = Amount { messages: 20_000, seconds: 2, paced: 2, fanout: 512 };

/// Measures all of it.
pub async fn run(quick: bool, programs: &Programs, results: &mut Results) -> Result<(), BenchError> {
    let amount = if quick { QUICK } else { WHOLE };
    settings(results, amount);
    let bench = Bench::up(programs).await?;
    bench.publishing(amount, results).await?;
    bench.city.agree(AGREEMENT, DOCUMENT, PROVIDER, CONSUMER).await?;
    bench.latencies(amount, results).await?;
    bench.fan_out(amount, results).await?;
    for (kind, pids) in bench.city.groups() {
        let most = pids.into_iter().map(peak_mb).fold(0.0, f64::max);
        results.add(&format!("memory_{kind}_feed"), most, "MB", None);
    }
    Ok(())
}

fn settings(results: &mut Results, a: Amount) {
    results.set(
        "feed",
        format!(
            "messages of {LINE} B JSON with 7 fields, {BATCH} a batch over HTTP, {FLIGHTS} in flight; throughput over \
             {} messages or {} s; latency over {} s",
            a.messages, a.seconds, a.paced
        ),
    );
}

/// The city with the benchmark's feeds.
struct Bench {
    city: City,
    nats: async_nats::Client,
    fast: Poster,
    paced: Poster,
}

impl Bench {
    async fn up(programs: &Programs) -> Result<Self, BenchError> {
        let city = City::plain(&programs.concordat).await?;
        let files = [FAST, PACED].map(|name| {
            let document = (format!("datasets/{name}.yaml"), DATASET_FILE.replace("NAME", name));
            [document, (format!("schemas/{name}@1.json"), SCHEMA.to_owned())]
        });
        city.with_files(PROVIDER, files.as_flattened()).await?;
        let config = city.config(PROVIDER)?;
        let nats = connect_streams(&config, "bench").await.map_err(|e| BenchError::refused("the streams", e))?;
        let (addr, token) = city.gateway(PROVIDER, "adapter")?;
        let [fast, paced] = [FAST, PACED].map(|name| Poster::new(addr.clone(), &token, name));
        Ok(Self { city, nats, fast, paced })
    }

    /// The provider's own stream of what is published as fast as it goes.
    fn stream(&self) -> Result<String, BenchError> {
        let dataset = DatasetId::new(format!("ds:{PROVIDER}/{FAST}@1"));
        dataset
            .map(|d| format!("PUB_{}", d.token().to_ascii_uppercase()))
            .map_err(|e| BenchError::refused("the dataset", e))
    }

    async fn publishing(&self, a: Amount, results: &mut Results) -> Result<(), BenchError> {
        let js = async_nats::jetstream::new(self.nats.clone());
        // The first batches warm everything up and show how large an envelope is.
        self.fast.flood(a.messages / 20, Duration::from_secs(a.seconds)).await?;
        let size = raw::newest_size(&js, &self.stream()?).await?;
        results.set("envelope", format!("{size} B for {BATCH} messages"));
        let (envelopes, within) = (a.messages / BATCH as u64, Duration::from_secs(a.seconds));
        let single = raw::singles(&js, a.messages / 20, within).await?;
        let raw = raw::envelopes(&js, envelopes, size, within, false).await?;
        results.add("raw_envelopes", raw, "messages/s", None);
        let (rate, cpu) = self.metered(self.fast.flood(a.messages, within)).await?;
        results.add("publish_signed", rate.per_second(), "messages/s", Some("raw_envelopes"));
        results.add("publish_single", single, "messages/s", Some("publish_signed"));
        super::rows::cpu_rows(results, "publish_signed", &cpu);
        let raw = raw::envelopes(&js, envelopes, size, within, true).await?;
        results.add("raw_envelopes_read", raw, "messages/s", None);
        let key = verify::envelope_key(&self.city.config(PROVIDER)?)?;
        let reader = verify::Reader::start(&js, &self.stream()?, key).await?;
        let begun = Instant::now();
        let (rate, cpu) = self.metered(self.fast.flood(a.messages, within)).await?;
        let verified = reader.finish(rate.messages).await?;
        let per_second = verified as f64 / begun.elapsed().as_secs_f64();
        results.add("publish_verified", per_second, "messages/s", Some("raw_envelopes_read"));
        super::rows::cpu_rows(results, "publish_verified", &cpu);
        Ok(())
    }

    async fn latencies(&self, a: Amount, results: &mut Results) -> Result<(), BenchError> {
        let js = async_nats::jetstream::new(self.nats.clone());
        let length = Duration::from_secs(a.paced);
        let raw = raw::latency(&js, length).await?;
        both(results, "raw_feed", &raw, None);
        let subscription = receive::default_subscription(&self.city, AGREEMENT).await?;
        let meter = CpuMeter::start(self.city.groups());
        let found = latency::paced(&self.city, &self.paced, &[subscription], latency::FULL, length).await?;
        let cpu = meter.stop();
        both(results, "feed", &found, Some("raw_feed"));
        super::rows::cpu_rows(results, "feed_1000", &cpu);
        Ok(())
    }

    async fn fan_out(&self, a: Amount, results: &mut Results) -> Result<(), BenchError> {
        let first = receive::default_subscription(&self.city, AGREEMENT).await?;
        let mut all = vec![first];
        let alone = fanout::flood(&self.city, &self.paced, &all, a.fanout).await?;
        results.add("fanout_1_msgs", alone, "messages/s", None);
        all.extend(receive::create(&self.city, fanout::SUBSCRIPTIONS - 1).await?);
        let meter = CpuMeter::start(self.city.groups());
        let many = fanout::flood(&self.city, &self.paced, &all, a.fanout).await?;
        let cpu = meter.stop();
        results.add("fanout_50_msgs", many, "messages/s", Some("fanout_1_msgs"));
        super::rows::cpu_rows(results, "fanout_50", &cpu);
        let length = Duration::from_secs(a.paced / 2);
        let found = latency::paced(&self.city, &self.paced, &all, latency::FANOUT, length).await?;
        both(results, "fanout_50", &found, Some("feed"));
        Ok(())
    }

    async fn metered<T>(
        &self,
        job: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<(T, Vec<(String, f64)>), BenchError> {
        let meter = CpuMeter::start(self.city.groups());
        let done = job.await?;
        Ok((done, meter.stop()))
    }
}

/// The two latency rows `NAME_p50_ms` and `NAME_p99_ms`.
fn both(results: &mut Results, name: &str, samples: &[f64], baseline: Option<&str>) {
    for (tag, share) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
        let base = baseline.map(|b| format!("{b}_{tag}"));
        results.add(&format!("{name}_{tag}"), percentile(samples, share), "ms", base.as_deref());
    }
}
