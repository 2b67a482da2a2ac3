//! `adapter kinds`, `new`, `discover`, `run --dry-run` and `conform`: before anything is published.

use super::Ctx;
use super::adapter::{connector, document};
use crate::failure::{Exit, Failure, read_text};
use crate::output::{Format, table};
use concordat_adapters::client::event_lines;
use concordat_adapters::conform::{self, Verdict};
use concordat_adapters::contract::{BATCH_RECORDS_MAX, Checkpoint, Connector, Next, Record, Reject};
use concordat_broker::host::load_datasets;
use concordat_broker::intake::{Checker, IntakeError};
use concordat_policies::dataset::DatasetDoc;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a dry run waits for a source that has nothing at present.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters of an original row that the table shows.
const SHOWN_CHARS: usize = 60;

/// `adapter kinds`
pub fn kinds(ctx: &Ctx, kind: Option<&str>) -> Result<(), Failure> {
    let Some(name) = kind else {
        let rows: Vec<Value> = concordat_adapters::kinds()
            .iter()
            .map(|k| k.spec())
            .map(|s| json!({"kind": s.kind, "title": s.title, "settings": s.settings}))
            .collect();
        ctx.out.list(&rows, &["kind", "title"]);
        ctx.out.say("one kind's page and example: `concordat adapter kinds KIND`");
        return Ok(());
    };
    let spec = known(name)?;
    let value = serde_json::to_value(spec).unwrap_or_default();
    ctx.out.result(&value, || {
        let settings: Vec<Value> = spec
            .settings
            .iter()
            .map(|s| json!({"setting": s.name, "": if s.required { "required" } else { "" }, "what": s.about}))
            .collect();
        format!("{}\n{}\n\n{}", spec.readme.trim_end(), table(&settings, &["setting", "", "what"]), spec.example)
    });
    Ok(())
}

fn known(name: &str) -> Result<concordat_adapters::contract::Spec, Failure> {
    let found = concordat_adapters::kinds::kind(name).map(|k| k.spec());
    found.ok_or_else(|| {
        let all: Vec<&str> = concordat_adapters::kinds().iter().map(|k| k.spec().kind).collect();
        let text = format!("there is no kind {name}; known here: {}", all.join(", "));
        Failure::new(Exit::NotFound, "unknown-kind", text)
    })
}

/// `adapter new`
pub fn new(ctx: &Ctx, name: &str, kind: &str) -> Result<(), Failure> {
    let spec = known(kind)?;
    let path = document(&ctx.dir()?, name);
    let old = concordat_adapters::parse(spec.example).map_err(|e| Failure::usage(e.to_string()))?;
    let example =
        spec.example.replacen(&format!("adapter: {}", old.common().adapter.value), &format!("adapter: {name}"), 1);
    // The name is checked as part of a document.
    concordat_adapters::parse(&example).map_err(|e| Failure::usage(e.to_string()))?;
    write_new(&path, &example)?;
    let value = json!({"adapter": name, "kind": kind, "file": path});
    ctx.out.result(&value, || {
        format!(
            "{} is an example of `{kind}`: make it yours, then\n  concordat adapter discover {name}\n  concordat adapter check {name}\n  concordat adapter run {name} --dry-run",
            path.display()
        )
    });
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let text = format!("{} is there already: move it away first", path.display());
            Failure::new(Exit::Conflict, "exists", text)
        }
        _ => Failure::from(e),
    })?;
    Ok(file.write_all(text.as_bytes())?)
}

/// `adapter discover`
pub fn discover(ctx: &Ctx, name: &str, out: Option<&Path>) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let connector = connector(&dir, name)?;
    let found = connector.discover(&dir)?;
    let columns: Vec<Value> = found
        .columns
        .iter()
        .map(|c| {
            json!({"column": c.name, "type": c.kind.name(), "nullable": c.nullable, "key": c.key, "zone": c.zone,
                   "precision": c.zone.is_some().then(|| c.precision.name()), "personal": c.personal})
        })
        .collect();
    let dataset = connector.common().into.as_str().to_owned();
    let (id, version) = dataset.rsplit_once('@').unwrap_or((&dataset, "1"));
    let short = id.rsplit('/').next().unwrap_or(id);
    let schema = serde_json::to_string_pretty(&found.schema).unwrap_or_default() + "\n";
    if let Some(out) = out {
        write_new(&out.join(format!("schemas/{short}@{version}.json")), &schema)?;
        write_new(&out.join(format!("datasets/{short}.yaml")), &found.dataset)?;
        write_new(&out.join(format!("adapters/{name}.yaml")), &found.adapter)?;
    }
    let value = json!({"adapter": name, "sampled": found.sampled, "columns": columns, "schema": found.schema,
        "dataset": found.dataset, "document": found.adapter, "out": out});
    ctx.out.result(&value, || {
        let head = format!(
            "{} columns in {} rows\n\n{}",
            columns.len(),
            found.sampled,
            table(&columns, &["column", "type", "nullable", "key", "zone", "personal"])
        );
        match out {
            Some(out) => format!("{head}\n\ndrafts are in {}: read every line", out.display()),
            None => format!(
                "{head}\n\n--- schemas/{short}@{version}.json\n{schema}--- datasets/{short}.yaml\n{}--- adapters/{name}.yaml\n{}",
                found.dataset, found.adapter
            ),
        }
    });
    let personal: Vec<&str> = found.columns.iter().filter(|c| c.personal.is_some()).map(|c| c.name.as_str()).collect();
    if !personal.is_empty() {
        ctx.out.say(format!(
            "likely about people: {}; decide `subject` and `sensitive` before you register",
            personal.join(", ")
        ));
    }
    Ok(())
}

/// Rows of a source from its beginning, good and bad; nothing is acknowledged.
pub(super) fn first_rows(
    connector: &dyn Connector,
    dir: &Path,
    most: u64,
    mut each: impl FnMut(Vec<Record>, Vec<Reject>) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (mut source, mut place, mut seen) = (connector.open(dir)?, Checkpoint::default(), 0);
    let begun = Instant::now();
    while seen < most {
        let max = usize::try_from(most - seen).unwrap_or(BATCH_RECORDS_MAX).min(BATCH_RECORDS_MAX);
        let batch = source.read(&place, max)?;
        seen += batch.rows() as u64;
        let (next, empty) = (batch.next, batch.rows() == 0);
        place = batch.checkpoint;
        each(batch.records, batch.rejects)?;
        match next {
            Next::End => break,
            // What there is was read; a source that has given nothing yet is waited for a little.
            Next::Idle(_) if seen > 0 && empty => break,
            Next::Idle(wait) if begun.elapsed() < PATIENCE => std::thread::sleep(wait.min(Duration::from_secs(1))),
            Next::Idle(_) => break,
            Next::More => {}
        }
    }
    Ok(seen)
}

/// What the broker's intake checks messages of a dataset by; none where no document describes it.
pub(super) fn checker(doc: Option<&DatasetDoc>) -> Result<Option<Checker>, Failure> {
    doc.map(Checker::new).transpose().map_err(|e| Failure::usage(e.to_string()))
}

/// Lines that the broker's intake would refuse, by their place among `records`.
pub(super) fn refused(checker: Option<&Checker>, records: &[Record]) -> Result<Vec<(usize, String, String)>, Failure> {
    match checker.map(|c| c.read(&event_lines(records.iter()))) {
        Some(Err(IntakeError::Lines(lines))) => {
            Ok(lines.into_iter().map(|l| (l.line.saturating_sub(1), format!("broker.{}", l.code), l.message)).collect())
        }
        Some(Err(e)) if !records.is_empty() => Err(Failure::new(Exit::Failed, e.code(), e.to_string())),
        _ => Ok(vec![]),
    }
}

fn text_of(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).trim_end().to_owned()
}

/// `adapter run --dry-run`
pub fn dry_run(ctx: &Ctx, name: &str, limit: u64) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let connector = connector(&dir, name)?;
    let docs = load_datasets(&dir)?;
    let doc = docs.iter().find(|d| d.id == connector.common().into);
    let checker = checker(doc)?;
    let mut rows: Vec<Value> = Vec::new();
    first_rows(&*connector, &dir, limit, |records, rejects| {
        let bad = refused(checker.as_ref(), &records)?;
        for (n, r) in records.iter().enumerate() {
            let mut row = json!({"file": r.origin.file, "row": r.origin.row, "line": r.origin.line, "raw": text_of(&r.raw),
                                 "event": {"id": r.id, "time": r.time, "data": r.data}});
            if let Some((_, rule, message)) = bad.iter().find(|(at, _, _)| *at == n) {
                (row["rule"], row["message"], row["column"]) = (json!(rule), json!(message), json!(1));
            }
            rows.push(row);
        }
        rows.extend(rejects.iter().map(|r| {
            json!({"file": r.origin.file, "row": r.origin.row, "line": r.line, "column": r.column, "field": r.field,
                   "raw": text_of(&r.raw), "rule": r.rule, "message": r.message})
        }));
        Ok(())
    })?;
    rows.sort_by(|a, b| (a["file"].as_str(), a["row"].as_u64()).cmp(&(b["file"].as_str(), b["row"].as_u64())));
    let bad = rows.iter().filter(|r| r["rule"].is_string()).count();
    let all = rows.len();
    if ctx.out.format == Format::Table {
        rows = rows.iter().map(shown).collect();
    }
    ctx.out.list(&rows, &["where", "source row", "becomes"]);
    if doc.is_none() {
        ctx.out.say("warning: no document in datasets/ describes the dataset: rows were not held against its schema");
    }
    ctx.out.say(format!("{all} rows read, {bad} would be dead letters; nothing was published"));
    match (all, bad) {
        (_, 0) => Ok(()),
        (all, bad) if all == bad => {
            Err(Failure::new(Exit::Failed, "no-good-row", format!("all {bad} rows would be dead letters")))
        }
        _ => Err(Failure::new(Exit::Partial, "bad-rows", format!("{bad} of {all} rows would be dead letters"))),
    }
}

/// A row of the dry run for people.
fn shown(row: &Value) -> Value {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let mut place = format!("{}:{}", text("file"), row["line"]);
    if row["rule"].is_string() {
        place.push_str(&format!(":{}", row["column"]));
    }
    let becomes = if row["rule"].is_string() {
        let field = row["field"].as_str().map_or_else(String::new, |f| format!(" ({f})"));
        format!("REFUSED {}{field}: {}", text("rule"), text("message"))
    } else {
        row["event"]["data"].to_string()
    };
    let mut raw: String = text("raw").chars().take(SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text("raw").chars().count() > SHOWN_CHARS {
        raw.push('…');
    }
    json!({"where": place, "source row": raw, "becomes": becomes})
}

/// `adapter conform`
pub async fn conform(ctx: &Ctx, file: &Path, base: Option<&Path>, changes: Option<&Path>) -> Result<(), Failure> {
    let connector = concordat_adapters::parse(&read_text(file)?);
    let connector = connector.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let base = base.or(file.parent()).filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = std::env::temp_dir().join(format!("concordat-conform-{}", std::process::id()));
    let program = |path: &Path| {
        let path = path.canonicalize().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        Ok::<_, Failure>(conform::Program { path, folder: base.to_owned(), patience: conform::PATIENCE })
    };
    let kit =
        conform::kit_of(Arc::from(connector), base.to_owned(), scratch.clone(), changes.map(program).transpose()?);
    let outcomes = conform::battery(&kit, |o| ctx.out.say(format!("{} {}", o.check, word(&o.verdict)))).await;
    let _ = std::fs::remove_dir_all(scratch);
    let failed = outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Failed(_))).count();
    let rows: Vec<Value> = outcomes
        .iter()
        .map(|o| {
            let why = if let Verdict::Failed(why) = &o.verdict { Some(why) } else { None };
            json!({"check": o.check, "result": word(&o.verdict), "about": o.about, "why": why})
        })
        .collect();
    ctx.out.list(&rows, &["check", "result", "about", "why"]);
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "not-conformant", format!("{failed} of {} checks failed", outcomes.len())))
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(_) => "FAILED",
        Verdict::Skipped => "skipped",
    }
}
