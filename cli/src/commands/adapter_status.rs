//! `adapter check` and `adapter status`: what an adapter would do, and where it stands. Nothing is published.

use super::Ctx;
use super::adapter::connector;
use super::adapter_try::{first_rows, refused};
use super::dead_letter::classes;
use crate::context::{Api, segment};
use crate::failure::{Exit, Failure};
use crate::output::table;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_adapters::contract::{Connector, Level, Record};
use concordat_adapters::document::{Common, Subject};
use concordat_adapters::{runner, status as told};
use concordat_broker::host::load_datasets;
use concordat_broker::intake::Checker;
use concordat_policies::dataset::DatasetDoc;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

/// Bad rows that are shown one by one.
const SHOWN: usize = 10;
/// Kinds whose rows a check may read: looking at a file takes nothing from anybody.
const FILES: [&str; 2] = ["file", "file-drop"];
/// A run that has not written its status for so many seconds is not there any more.
const SILENT_S: i64 = 15;

/// What a dry run found.
#[derive(Debug, Default)]
struct Tried {
    good: u64,
    rules: BTreeMap<String, u64>,
    bad: Vec<Value>,
    sample: Option<Value>,
}

impl Tried {
    fn refuse(&mut self, rule: &str, line: u64, column: u64, field: Option<&str>, message: &str) {
        *self.rules.entry(rule.to_owned()).or_default() += 1;
        if self.bad.len() < SHOWN {
            self.bad.push(json!({"line": line, "column": column, "field": field, "rule": rule, "message": message}));
        }
    }

    /// Good rows as the broker's intake would see them.
    fn judge(&mut self, records: &[Record], checker: Option<&Checker>) -> Result<(), Failure> {
        let bad = refused(checker, records)?;
        for (n, rule, message) in &bad {
            let line = records.get(*n).map_or(0, |r| r.origin.line);
            self.refuse(rule, line, 1, None, message);
        }
        self.good += (records.len() - bad.len()) as u64;
        if let (None, Some(r)) = (&self.sample, records.first()) {
            self.sample = Some(json!({"id": r.id, "time": r.time, "data": r.data}));
        }
        Ok(())
    }
}

/// Tries the first rows of a source.
fn try_rows(dir: &Path, connector: &dyn Connector, checker: Option<&Checker>, max: u64) -> Result<Tried, Failure> {
    let mut tried = Tried::default();
    first_rows(connector, dir, max, |records, rejects| {
        for r in &rejects {
            tried.refuse(&r.rule, r.line, r.column, r.field.as_deref(), &r.message);
        }
        tried.judge(&records, checker)
    })?;
    Ok(tried)
}

/// What the mapping and the dataset's document do not agree on.
fn warnings(common: &Common, doc: Option<&DatasetDoc>) -> Vec<String> {
    let Some(doc) = doc else {
        return vec![format!(
            "{}: no document in datasets/ describes it: rows were not held against its schema; `concordat dataset register -f FILE --install`",
            common.into
        )];
    };
    let mut found = Vec::new();
    let key: Vec<&str> = common.key.iter().map(|k| k.value.as_str()).collect();
    if key != doc.key {
        found.push(format!("key: the adapter makes ids of {key:?}, the dataset's key is {:?}", doc.key));
    }
    let (ours, time) = (common.time.as_ref().map(|t| &t.value), doc.time.as_ref().map(|t| &t.field));
    if ours != time {
        found.push(format!("time: the adapter takes {ours:?}, the dataset says {time:?}"));
    }
    let theirs = doc.subject.as_ref().map(|s| s.field.as_str());
    match &common.subject {
        Some(Subject::Field { field, .. }) if theirs != Some(field) => {
            found.push(format!("subject: the adapter says {field}, the dataset {}", theirs.unwrap_or("none")));
        }
        Some(Subject::None) if theirs.is_some() => {
            found.push(format!("subject: the adapter says none, the dataset {}", theirs.unwrap_or_default()));
        }
        _ => {}
    }
    for (field, class) in &common.sensitive {
        if doc.field(field).and_then(|f| f.sensitive.as_ref()) != Some(class) {
            found.push(format!("sensitive: the adapter says that {field} is {class}, the dataset does not"));
        }
    }
    found
}

/// `adapter check`
pub fn check(ctx: &Ctx, name: &str, rows: u64) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let connector = connector(&dir, name)?;
    let common = connector.common();
    let docs = load_datasets(&dir)?;
    let doc = docs.iter().find(|d| d.id == common.into);
    let checker = doc.map(Checker::new).transpose();
    let checker = checker.map_err(|e| Failure::usage(e.to_string()))?;
    let findings = connector.check(&dir);
    let broken = findings.iter().filter(|f| f.level == Level::Fail).count();
    let reads = FILES.contains(&common.kind.value.as_str()) && broken == 0;
    let tried = if reads { Some(try_rows(&dir, &*connector, checker.as_ref(), rows)?) } else { None };
    let warnings = warnings(common, doc);
    let mut value = json!({"adapter": name, "kind": common.kind.value, "into": common.into, "findings": findings,
        "warnings": warnings});
    let mut bad = 0;
    if let Some(tried) = &tried {
        bad = tried.rules.values().sum::<u64>();
        (value["rows"], value["good"], value["bad"]) = (json!(tried.good + bad), json!(tried.good), json!(bad));
        (value["rules"], value["first_bad"]) = (json!(tried.rules), json!(tried.bad));
        value["sample"] = json!(tried.sample);
    }
    ctx.out.result(&value, || {
        let rows: Vec<Value> = findings
            .iter()
            .map(|f| json!({"check": f.name, "result": f.level, "found": f.sentence, "next": f.next}))
            .collect();
        let mut text =
            format!("{name} goes into {}\n\n{}", common.into, table(&rows, &["check", "result", "found", "next"]));
        if let Some(tried) = &tried {
            text.push_str(&format!(
                "\n\n{} rows tried: {} good, {bad} would be dead letters",
                tried.good + bad,
                tried.good
            ));
            text.push_str(&tried.sample.as_ref().map_or_else(String::new, |s| format!("\nfirst: {s}")));
            if !tried.bad.is_empty() {
                let columns = ["line", "column", "field", "rule", "message"];
                text.push_str(&format!("\n\n{}", table(&tried.bad, &columns)));
            }
        }
        text
    });
    warnings.iter().for_each(|w| ctx.out.say(format!("warning: {w}")));
    if broken > 0 {
        let text = format!("{broken} of {} checks failed: see `next`", findings.len());
        return Err(Failure::new(Exit::Failed, "check-failed", text));
    }
    match (bad, tried.map_or(0, |t| t.good)) {
        (0, _) => Ok(()),
        (n, 0) => Err(Failure::new(
            Exit::Failed,
            "no-good-row",
            format!("all {n} rows would be dead letters: correct the mapping"),
        )),
        (n, _) => Err(Failure::new(
            Exit::Partial,
            "bad-rows",
            format!("{n} rows would be dead letters: correct the source or the mapping"),
        )),
    }
}

/// What a kept checkpoint says: the row of a file, or that it is not this adapter's. Those of other kinds are their own.
fn checkpoint(kind: &str, path: &str, bytes: &[u8]) -> (Value, String) {
    if bytes.is_empty() {
        return (json!(0), "start".into());
    }
    if kind != "file" {
        return (Value::Null, "ok".into());
    }
    let place: Value = serde_json::from_slice(bytes).unwrap_or_default();
    match (place["v"].as_u64(), place["file"].as_str(), place["row"].as_u64()) {
        (Some(1), Some(file), Some(row)) if file == path => (json!(row), "ok".into()),
        (Some(1), Some(file), Some(_)) => (Value::Null, format!("of another file, {file}")),
        _ => (Value::Null, "unreadable".into()),
    }
}

/// What the run says of itself, and what is wrong with that.
fn run_of(row: &mut Value, dir: &Path, name: &str) {
    let folder = dir.join("adapters");
    let paused = runner::paused(&folder, name);
    let said = told::status(&folder, name).ok().flatten();
    if let Some(said) = &said {
        let age =
            said.updated_at.parse::<jiff::Timestamp>().map(|at| jiff::Timestamp::now().as_second() - at.as_second());
        let silent = age.as_ref().is_ok_and(|s| *s > SILENT_S);
        let over = matches!(said.phase.as_str(), "done" | "stopped" | "failed");
        (row["heartbeat_at"], row["heartbeat_age_s"]) = (json!(said.updated_at), json!(age.ok()));
        row["phase"] = json!(if silent && !over { "silent" } else { said.phase.as_str() });
        (row["last_error"], row["failures"]) = (json!(said.last_error), json!(said.failures));
        (row["newest_event"], row["notes"]) = (json!(said.newest_event), json!(said.notes));
        if silent && !over {
            row["problem"] = json!(format!("no heartbeat since {}: its process is gone", said.updated_at));
        } else if said.phase == "failed" {
            row["problem"] = json!(said.last_error);
        }
    }
    if let Some(paused) = paused {
        row["paused"] = json!({"at": paused.at, "by": paused.by});
        if said.is_none_or(|s| s.phase != "paused") {
            row["phase"] = json!("paused");
        }
    }
}

fn age_s(path: &Path) -> Option<u64> {
    let changed = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
    SystemTime::now().duration_since(changed).ok().map(|d| d.as_secs())
}

/// One adapter's row. Members that could not be had are null, and `problem` says why.
async fn row(dir: &Path, name: &str, docs: &[DatasetDoc], api: &Api) -> Result<Value, Failure> {
    let dead = classes(dir, name)?;
    let connector = match connector(dir, name) {
        Ok(connector) => connector,
        Err(e) => return Ok(json!({"adapter": name, "dead_letters": dead, "problem": e.message})),
    };
    let (common, place) = (connector.common(), connector.place());
    let kind = common.kind.value.as_str();
    let doc = docs.iter().find(|d| d.id == common.into);
    let feed = doc.is_some_and(DatasetDoc::is_feed);
    let mut row = json!({"adapter": name, "kind": kind, "into": common.into, "dead_letters": dead, "source": place});
    row["mode"] = match doc {
        None => Value::Null,
        Some(_) if feed => json!("publish"),
        Some(_) => json!("load"),
    };
    run_of(&mut row, dir, name);
    if FILES.contains(&kind) {
        row["source_age_s"] = json!(age_s(&dir.join(&place)));
        if row["source_age_s"].is_null() {
            row["problem"] = json!(format!("{place} is not there"));
        }
    }
    if doc.is_none() {
        row["problem"] = json!(format!("no document in datasets/ describes {}", common.into));
    }
    if feed {
        match api.get(&format!("/v1/intake/{}", segment(name))).await {
            Ok(at) => {
                let bytes = STANDARD.decode(at["checkpoint"].as_str().unwrap_or_default()).unwrap_or_default();
                let (place, word) = checkpoint(kind, &place, &bytes);
                row["batch_no"] = at["batch_no"].clone();
                (row["row"], row["checkpoint"]) = (place, json!(word));
            }
            Err(e) => {
                row["problem"] = json!(format!("position unknown: {}", e.message.lines().next().unwrap_or_default()))
            }
        }
    }
    Ok(row)
}

/// `adapter status`
pub async fn status(ctx: &Ctx, name: Option<&str>) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let names = match name {
        Some(name) => {
            connector(&dir, name)?;
            vec![name.to_owned()]
        }
        None => documents(&dir),
    };
    let (docs, api) = (load_datasets(&dir)?, ctx.api("adapter")?);
    let mut rows = Vec::new();
    for name in &names {
        rows.push(row(&dir, name, &docs, &api).await?);
    }
    let problems = rows.iter().filter(|r| r["problem"].is_string()).count();
    if ctx.out.format == crate::output::Format::Table {
        for r in &mut rows {
            let classes = r["dead_letters"].as_object().cloned().unwrap_or_default();
            let words: Vec<String> = classes.iter().map(|(class, n)| format!("{class} {n}")).collect();
            r["dead_letters"] = if words.is_empty() { json!("none") } else { json!(words.join(", ")) };
            r["age"] = r["source_age_s"].as_u64().map_or(Value::Null, |s| json!(age(s)));
        }
    }
    let columns = [
        "adapter",
        "kind",
        "into",
        "mode",
        "phase",
        "batch_no",
        "row",
        "checkpoint",
        "source",
        "age",
        "dead_letters",
        "problem",
    ];
    ctx.out.list(&rows, &columns);
    if problems == 0 {
        return Ok(());
    }
    let exit = if problems == rows.len() { Exit::Unavailable } else { Exit::Partial };
    Err(Failure::new(
        exit,
        "adapter-problem",
        format!("{problems} of {} adapters have a problem: see the last column", rows.len()),
    ))
}

fn age(s: u64) -> String {
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// Names of the documents in adapters/.
fn documents(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("adapters")) else { return vec![] };
    let files = entries.filter_map(|e| e.ok().and_then(|e| e.file_name().into_string().ok()));
    let mut names: Vec<String> = files.filter_map(|n| n.strip_suffix(".yaml").map(str::to_owned)).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ADAPTER: &str = "adapter: load\nkind: file\npath: data/x.csv\nformat: {csv: {columns: [t, mw]}}\ninto: ds:grid/load@1\nmap:\n  t: {type: timestamp, zone: UTC}\n  mw: {type: decimal}\nkey: [t]\ntime: t\n";
    const DATASET: &str = "dataset: ds:grid/load@1\ntitle: t\nkind: feed\nschema: schemas/load@1.json\nkey: [t]\ntime: {field: t, zone: UTC}\nsubject: none\nsensitive: {}\n";
    const SCHEMA: &str = r#"{"type":"object","properties":{"t":{"type":"string","format":"date-time"},"mw":{"type":"string","format":"decimal","maxLength":4}},"required":["t"],"additionalProperties":false}"#;

    #[test]
    fn a_dry_run_names_rows_by_the_adapters_rules_and_by_the_schema() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let csv = "t,mw\n2026-01-01T00:00:00,1.5\nyesterday,1\n2026-01-01T01:00:00,123456.5\n2026-01-01T02:00:00,2\n";
        std::fs::write(dir.path().join("data/x.csv"), csv).unwrap();
        let connector = concordat_adapters::parse(ADAPTER).unwrap();
        let doc = DatasetDoc::parse(DATASET, SCHEMA).unwrap();
        let checker = Checker::new(&doc).unwrap();
        let tried = try_rows(dir.path(), &*connector, Some(&checker), 100).unwrap();
        assert_eq!((tried.good, tried.rules.values().sum::<u64>()), (2, 2), "{:?}", tried.rules);
        let lines: Vec<(u64, &str)> =
            tried.bad.iter().map(|b| (b["line"].as_u64().unwrap(), b["rule"].as_str().unwrap())).collect();
        assert!(lines[0].0 == 3 && lines[0].1.starts_with("time."), "{lines:?}");
        assert_eq!(lines[1], (4, "broker.schema"));
        assert_eq!(try_rows(dir.path(), &*connector, None, 1).unwrap().good, 1, "only so many rows");
        let common = connector.common();
        assert!(warnings(common, Some(&doc)).is_empty() && warnings(common, None)[0].contains("dataset register"));
    }

    #[test]
    fn a_checkpoint_is_readable_or_said_not_to_be() {
        let read = |bytes: &[u8]| checkpoint("file", "data/x.csv", bytes);
        assert_eq!(read(b""), (json!(0), "start".into()));
        assert_eq!(read(br#"{"v":1,"file":"data/x.csv","row":7,"chain":"00"}"#), (json!(7), "ok".into()));
        assert_eq!(read(br#"{"v":1,"file":"b.csv","row":7,"chain":"00"}"#).1, "of another file, b.csv");
        assert_eq!(read(b"x").1, "unreadable");
        assert_eq!(checkpoint("mqtt", "", b"x").1, "ok");
    }
}
