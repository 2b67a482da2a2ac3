//! `adapter check` and `adapter status`: what an adapter would do, and where it stands. Nothing is published.

use super::Ctx;
use super::adapter::plan;
use super::dead_letter::classes;
use crate::context::{Api, segment};
use crate::failure::{Exit, Failure};
use crate::output::table;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_adapters::client::event_lines;
use concordat_adapters::contract::{Record, Row};
use concordat_adapters::file;
use concordat_adapters::plan::Plan;
use concordat_broker::host::load_datasets;
use concordat_broker::intake::{Checker, IntakeError};
use concordat_policies::dataset::DatasetDoc;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Bad rows that are shown one by one.
const SHOWN: usize = 10;
/// Rows of one batch, as they would be published.
const BATCH: usize = 256;

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
    fn judge(&mut self, records: &mut Vec<Record>, checker: Option<&Checker>) -> Result<(), Failure> {
        let all = records.len() as u64;
        let lines = match checker.map(|c| c.read(&event_lines(records.iter()))) {
            Some(Err(IntakeError::Lines(lines))) => lines,
            Some(Err(e)) if all > 0 => return Err(Failure::new(Exit::Failed, e.code(), e.to_string())),
            _ => vec![],
        };
        for refused in &lines {
            let line = refused.line.checked_sub(1).and_then(|n| records.get(n)).map_or(0, |r| r.origin.line);
            self.refuse(&format!("broker.{}", refused.code), line, 1, None, &refused.message);
        }
        self.good += all - lines.len() as u64;
        if let (None, Some(r)) = (&self.sample, records.first()) {
            self.sample = Some(json!({"id": r.id, "time": r.time, "data": r.data}));
        }
        records.clear();
        Ok(())
    }
}

/// Tries the first rows of a plan's source.
fn try_rows(dir: &Path, plan: &Arc<Plan>, checker: Option<&Checker>, max: u64) -> Result<Tried, Failure> {
    let (mut tried, mut records, mut rows) = (Tried::default(), Vec::new(), 0);
    for row in file::records(dir, plan.clone())? {
        if rows == max {
            break;
        }
        rows += 1;
        match row? {
            Row::Good(record) => records.push(record),
            Row::Bad(r) => tried.refuse(&r.rule, r.line, r.column, r.field.as_deref(), &r.message),
        }
        if records.len() == BATCH {
            tried.judge(&mut records, checker)?;
        }
    }
    tried.judge(&mut records, checker)?;
    Ok(tried)
}

/// What the mapping and the dataset's document do not agree on.
fn warnings(plan: &Plan, doc: Option<&DatasetDoc>) -> Vec<String> {
    let Some(doc) = doc else {
        return vec![format!(
            "{}: no document in datasets/ describes it: rows were not held against its schema; `concordat dataset register -f FILE --install`",
            plan.dataset
        )];
    };
    let mut found = Vec::new();
    if plan.key != doc.key {
        found.push(format!("key: the adapter makes ids of {:?}, the dataset's key is {:?}", plan.key, doc.key));
    }
    let time = doc.time.as_ref().map(|t| &t.field);
    if plan.time.as_ref() != time {
        found.push(format!("time: the adapter takes {:?}, the dataset says {:?}", plan.time, time));
    }
    found
}

/// `adapter check`
pub fn check(ctx: &Ctx, name: &str, rows: u64) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let plan = Arc::new(plan(&dir, name)?);
    let docs = load_datasets(&dir)?;
    let doc = docs.iter().find(|d| d.id == plan.dataset);
    let checker = doc.map(Checker::new).transpose();
    let checker = checker.map_err(|e| Failure::usage(e.to_string()))?;
    let tried = try_rows(&dir, &plan, checker.as_ref(), rows)?;
    let (bad, warnings) = (tried.rules.values().sum::<u64>(), warnings(&plan, doc));
    let value = json!({"adapter": plan.adapter, "into": plan.dataset, "file": plan.path, "columns": plan.columns.len(),
        "rows": tried.good + bad, "good": tried.good, "bad": bad, "rules": tried.rules, "first_bad": tried.bad,
        "sample": tried.sample, "warnings": warnings});
    ctx.out.result(&value, || {
        let head = format!(
            "{}: {} has the {} expected columns and goes into {}\n{} rows tried: {} good, {bad} would be dead letters",
            plan.adapter,
            plan.path,
            plan.columns.len(),
            plan.dataset,
            tried.good + bad,
            tried.good
        );
        let sample = tried.sample.as_ref().map_or_else(String::new, |s| format!("\nfirst: {s}"));
        let bad = if tried.bad.is_empty() {
            String::new()
        } else {
            format!("\n\n{}", table(&tried.bad, &["line", "column", "field", "rule", "message"]))
        };
        format!("{head}{sample}{bad}")
    });
    warnings.iter().for_each(|w| ctx.out.say(format!("warning: {w}")));
    match (bad, tried.good) {
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

/// What a kept checkpoint says: the row, or that it is not this adapter's.
fn checkpoint(plan: &Plan, bytes: &[u8]) -> (Value, String) {
    if bytes.is_empty() {
        return (json!(0), "start".into());
    }
    let place: Value = serde_json::from_slice(bytes).unwrap_or_default();
    match (place["v"].as_u64(), place["file"].as_str(), place["row"].as_u64()) {
        (Some(1), Some(file), Some(row)) if file == plan.path => (json!(row), "ok".into()),
        (Some(1), Some(file), Some(_)) => (Value::Null, format!("of another file, {file}")),
        _ => (Value::Null, "unreadable".into()),
    }
}

fn age_s(path: &Path) -> Option<u64> {
    let changed = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
    SystemTime::now().duration_since(changed).ok().map(|d| d.as_secs())
}

/// One adapter's row. Members that could not be had are null, and `problem` says why.
async fn row(dir: &Path, name: &str, docs: &[DatasetDoc], api: &Api) -> Result<Value, Failure> {
    let dead = classes(dir, name)?;
    let plan = match plan(dir, name) {
        Ok(plan) => plan,
        Err(e) => return Ok(json!({"adapter": name, "dead_letters": dead, "problem": e.message})),
    };
    let doc = docs.iter().find(|d| d.id == plan.dataset);
    let feed = doc.is_some_and(DatasetDoc::is_feed);
    let mut row = json!({"adapter": name, "kind": "file", "into": plan.dataset, "dead_letters": dead,
                         "source": plan.path, "source_age_s": age_s(&dir.join(&plan.path))});
    row["mode"] = match doc {
        None => Value::Null,
        Some(_) if feed => json!("publish"),
        Some(_) => json!("load"),
    };
    if row["source_age_s"].is_null() {
        row["problem"] = json!(format!("{} is not there", plan.path));
    }
    if doc.is_none() {
        row["problem"] = json!(format!("no document in datasets/ describes {}", plan.dataset));
    }
    if feed {
        match api.get(&format!("/v1/intake/{}", segment(&plan.adapter))).await {
            Ok(at) => {
                let bytes = STANDARD.decode(at["checkpoint"].as_str().unwrap_or_default()).unwrap_or_default();
                let (place, word) = checkpoint(&plan, &bytes);
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
            plan(&dir, name)?;
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
        let plan = Arc::new(Plan::parse(ADAPTER).unwrap());
        let doc = DatasetDoc::parse(DATASET, SCHEMA).unwrap();
        let checker = Checker::new(&doc).unwrap();
        let tried = try_rows(dir.path(), &plan, Some(&checker), 100).unwrap();
        assert_eq!((tried.good, tried.rules.values().sum::<u64>()), (2, 2), "{:?}", tried.rules);
        let lines: Vec<(u64, &str)> =
            tried.bad.iter().map(|b| (b["line"].as_u64().unwrap(), b["rule"].as_str().unwrap())).collect();
        assert!(lines[0].0 == 3 && lines[0].1.starts_with("time."), "{lines:?}");
        assert_eq!(lines[1], (4, "broker.schema"));
        assert_eq!(try_rows(dir.path(), &plan, None, 1).unwrap().good, 1, "only so many rows");
        assert!(warnings(&plan, Some(&doc)).is_empty() && warnings(&plan, None)[0].contains("dataset register"));
    }

    #[test]
    fn a_checkpoint_is_readable_or_said_not_to_be() {
        let plan = Plan::parse(ADAPTER).unwrap();
        assert_eq!(checkpoint(&plan, b""), (json!(0), "start".into()));
        assert_eq!(checkpoint(&plan, br#"{"v":1,"file":"data/x.csv","row":7,"chain":"00"}"#), (json!(7), "ok".into()));
        assert_eq!(checkpoint(&plan, br#"{"v":1,"file":"b.csv","row":7,"chain":"00"}"#).1, "of another file, b.csv");
        assert_eq!(checkpoint(&plan, b"x").1, "unreadable");
    }
}
