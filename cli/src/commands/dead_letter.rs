//! `dead-letter`: rows that adapters refused, from the node's own folder.

use super::adapter::{now, person};
use super::op::lines;
use super::{Ctx, dead_letter_replay};
use crate::args::{DeadLetter as Command, Which};
use crate::failure::{Exit, Failure};
use concordat_adapters::dead_letter::{self, DeadLetter, DeadLetters, Settled};
use concordat_adapters::status::class;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

const SUFFIX: &str = ".dead.jsonl";

/// Names of the adapters that have refused something.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let files = entries.filter_map(|e| e.ok().and_then(|e| e.file_name().into_string().ok()));
    let mut names: Vec<String> = files.filter_map(|n| n.strip_suffix(SUFFIX).map(str::to_owned)).collect();
    names.sort();
    names
}

/// An adapter that is not there is an error.
fn known(dir: &Path, adapter: &str) -> Result<(), Failure> {
    let folder = dir.join("adapters");
    if folder.join(format!("{adapter}.yaml")).is_file() || names(&folder).iter().any(|n| n == adapter) {
        return Ok(());
    }
    let text = format!("there is no adapter {adapter} in {}: see `concordat adapter status`", folder.display());
    Err(Failure::new(Exit::NotFound, "unknown-adapter", text))
}

/// Dead letters of one adapter; one that refused nothing has none.
fn of(dir: &Path, adapter: &str) -> Result<Vec<DeadLetter>, Failure> {
    known(dir, adapter)?;
    let folder = dir.join("adapters");
    Ok(dead_letter::list(&DeadLetters::path(&folder, adapter))?)
}

/// How many dead letters of each class (the first word of the rule) an adapter has.
pub fn classes(dir: &Path, adapter: &str) -> Result<BTreeMap<String, u64>, Failure> {
    let mut found = BTreeMap::new();
    for letter in dead_letter::list(&DeadLetters::path(&dir.join("adapters"), adapter))? {
        *found.entry(class(&letter.rule).to_owned()).or_default() += 1;
    }
    Ok(found)
}

fn row(adapter: &str, l: &DeadLetter) -> Value {
    json!({"adapter": adapter, "id": l.id, "at": l.at, "dataset": l.dataset, "file": l.file, "row": l.row, "line": l.line,
           "column": l.column, "field": l.field, "rule": l.rule, "message": l.message, "truncated": l.truncated,
           "attempts": l.attempts, "tried_at": l.tried_at})
}

fn list(ctx: &Ctx, dir: &Path, adapter: Option<&str>, limit: usize) -> Result<(), Failure> {
    let adapters = adapter.map_or_else(|| names(&dir.join("adapters")), |a| vec![a.to_owned()]);
    let mut rows = Vec::new();
    for name in &adapters {
        rows.extend(of(dir, name)?.iter().map(|l| row(name, l)));
    }
    rows.sort_by(|a, b| a["at"].as_str().cmp(&b["at"].as_str()));
    let all = rows.len();
    let mut rows = rows.split_off(all.saturating_sub(limit));
    if ctx.out.format == crate::output::Format::Table {
        for r in &mut rows {
            r["id"] = json!(r["id"].as_str().unwrap_or_default().chars().take(12).collect::<String>());
        }
    }
    ctx.out.list(&rows, &["adapter", "id", "at", "file", "line", "column", "rule", "message"]);
    ctx.out.say(format!("{} of {all} dead letters", rows.len()));
    Ok(())
}

/// `dead-letter list --gone`
fn gone(ctx: &Ctx, dir: &Path, adapter: Option<&str>, limit: usize) -> Result<(), Failure> {
    let folder = dir.join("adapters");
    let adapters = adapter.map_or_else(|| names(&folder), |a| vec![a.to_owned()]);
    let mut rows = Vec::new();
    for name in &adapters {
        known(dir, name)?;
        for line in dead_letter::gone(&folder, name)? {
            let mut row = serde_json::to_value(&line).unwrap_or_default();
            row["adapter"] = json!(name);
            rows.push(row);
        }
    }
    rows.sort_by(|a, b| a["at"].as_str().cmp(&b["at"].as_str()));
    let rows = rows.split_off(rows.len().saturating_sub(limit));
    ctx.out.list(&rows, &["adapter", "id", "at", "what", "by", "file", "row", "rule", "reason"]);
    Ok(())
}

/// The dead letters that a command is about: one by its id, all, or those of a rule.
pub(super) fn chosen(dir: &Path, adapter: &str, which: &Which) -> Result<Vec<DeadLetter>, Failure> {
    let mut letters = of(dir, adapter)?;
    if let Some(id) = &which.id {
        return Ok(vec![find(&letters, adapter, id)?.clone()]);
    }
    if let Some(rule) = &which.rule {
        letters.retain(|l| l.rule == *rule || class(&l.rule) == rule);
    }
    Ok(letters)
}

/// `dead-letter discard`
fn discard(ctx: &Ctx, dir: &Path, adapter: &str, which: &Which, (reason, yes): (&str, bool)) -> Result<(), Failure> {
    if reason.trim().is_empty() {
        return Err(Failure::usage("--reason says why, for those who ask later: it is empty"));
    }
    let letters = chosen(dir, adapter, which)?;
    if !yes {
        let text = format!("{} rows would be deleted, which cannot be undone: say --yes", letters.len());
        return Err(Failure::usage(text));
    }
    let why = Settled::Discarded(reason.to_owned());
    let settled = letters.into_iter().map(|l| (l.id, why.clone())).collect();
    let left = dead_letter::settle(&dir.join("adapters"), adapter, &settled, (&person(), &now()))?;
    ctx.out.result(&json!({"adapter": adapter, "discarded": left, "reason": reason}), || {
        format!("{adapter}: {left} dead letters discarded; `concordat dead-letter list {adapter} --gone` says so")
    });
    Ok(())
}

/// The one dead letter whose id begins so.
fn find<'a>(letters: &'a [DeadLetter], adapter: &str, id: &str) -> Result<&'a DeadLetter, Failure> {
    let mut found = letters.iter().filter(|l| !id.is_empty() && l.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let text = format!("{adapter} has no dead letter {id}: see `concordat dead-letter list {adapter}`");
            Err(Failure::new(Exit::NotFound, "unknown-dead-letter", text))
        }
        _ => Err(Failure::usage(format!("more than one id begins with {id}: give more of it"))),
    }
}

fn show(ctx: &Ctx, dir: &Path, adapter: &str, id: &str, raw: bool) -> Result<(), Failure> {
    let letters = of(dir, adapter)?;
    let letter = find(&letters, adapter, id)?;
    let unreadable =
        || Failure::new(Exit::Failed, "dead-letter", "its original bytes are not base64: the file was edited");
    let bytes = letter.original().ok_or_else(unreadable)?;
    if raw {
        let mut out = std::io::stdout();
        return Ok(out.write_all(&bytes).and_then(|()| out.flush())?);
    }
    let mut value = row(adapter, letter);
    let text = std::str::from_utf8(&bytes).ok();
    (value["raw"], value["text"]) = (json!(letter.raw), json!(text));
    ctx.out.result(&value, || {
        let mut head = row(adapter, letter);
        head["original"] = json!(text.map_or_else(
            || format!("{} bytes that are no UTF-8: see --raw", bytes.len()),
            |t| t.trim_end().to_owned()
        ));
        lines(&head)
    });
    if letter.truncated {
        ctx.out.say("the row was longer than is kept: only its beginning is here");
    }
    Ok(())
}

/// Runs a `dead-letter` command.
pub async fn run(ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    match command {
        Command::List { adapter, limit, gone: false } => list(ctx, &dir, adapter.as_deref(), *limit),
        Command::List { adapter, limit, gone: true } => gone(ctx, &dir, adapter.as_deref(), *limit),
        Command::Show { adapter, id, raw } => show(ctx, &dir, adapter, id, *raw),
        Command::Replay { adapter, which, dry_run } => {
            dead_letter_replay::replay(ctx, &dir, adapter, which, *dry_run).await
        }
        Command::Discard { adapter, which, reason, yes } => discard(ctx, &dir, adapter, which, (reason, *yes)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_adapters::contract::{Origin, Reject};

    #[test]
    fn letters_are_found_by_the_beginning_of_their_id() {
        let dir = tempfile::tempdir().unwrap();
        let reject = |line: u64, rule: &str| Reject {
            origin: Origin::row("x.csv", line),
            line,
            column: 3,
            field: None,
            rule: rule.into(),
            message: "m".into(),
            raw: format!("{line},\u{e9}\n").into_bytes(),
            truncated: false,
        };
        let mut letters = DeadLetters::open(&dir.path().join("adapters"), "load").unwrap();
        let rejects = [reject(2, "time.nonexistent"), reject(5, "time.format"), reject(9, "csv.quote")];
        letters.append(&rejects, "ds:grid/load@1", "2026-01-01T00:00:00Z").unwrap();
        let kept = of(dir.path(), "load").unwrap();
        let found = find(&kept, "load", &kept[1].id[..16]).unwrap();
        assert_eq!((found.line, found.original().unwrap()), (5, "5,\u{e9}\n".as_bytes().to_vec()));
        assert_eq!(find(&kept, "load", "zz").unwrap_err().exit, Exit::NotFound);
        assert_eq!(find(&kept, "load", "").unwrap_err().exit, Exit::NotFound);
        assert_eq!(of(dir.path(), "other").unwrap_err().exit, Exit::NotFound);
        assert_eq!(classes(dir.path(), "load").unwrap(), BTreeMap::from([("csv".into(), 1), ("time".into(), 2)]));
        assert!(classes(dir.path(), "other").unwrap().is_empty());
    }
}
