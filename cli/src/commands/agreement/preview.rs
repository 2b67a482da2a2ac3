//! `agreement preview`: what a clause makes of rows, before and after.

use super::super::Ctx;
use super::rows::{Row, apply, dataset, rows, wanted};
use super::{compiled, now_ms};
use crate::args::agreements::Preview;
use crate::failure::{Exit, Failure};
use crate::output::table;
use concordat_policies::document::Clause;
use concordat_policies::duty::Capabilities;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Shows rows as they are and as a consumer would see them, clause by clause.
pub(super) fn preview(ctx: &Ctx, p: &Preview) -> Result<(), Failure> {
    let c = compiled(&p.file)?;
    let doc = &c.document;
    let now = now_ms(p.at.as_deref())?;
    let data = dataset(ctx, &p.rows, doc)?.ok_or_else(wanted)?;
    let rows = rows(ctx, &p.rows, Some(&data))?.ok_or_else(wanted)?;
    let wanted = |c: &&Clause| c.grants() && p.clause.as_ref().is_none_or(|id| *id == c.id);
    let clauses: Vec<&Clause> = doc.clauses.iter().filter(wanted).collect();
    if clauses.is_empty() {
        let known: Vec<&str> = doc.clauses.iter().filter(|c| c.grants()).map(|c| c.id.as_str()).collect();
        let text = format!("no such clause grants anything; there are {}", known.join(", "));
        return Err(Failure::new(Exit::NotFound, "clause", text));
    }
    let mut views = Vec::new();
    for clause in clauses {
        let shown = apply(doc, clause, &data, &rows, now)?;
        let before: Vec<&Row> = shown.chosen.iter().take(p.count).copied().collect();
        let after: Vec<&Row> = shown.seen.iter().take(p.count).collect();
        views.push(json!({
            "clause": clause.id, "text": clause.text, "rows": rows.len(), "visible": shown.chosen.len(),
            "answers": shown.seen.len(), "denied_by": Capabilities::default().first_missing_of(clause),
            "before": before, "after": after,
        }));
    }
    ctx.out.result(&Value::Array(views.clone()), || views.iter().map(text).collect::<Vec<_>>().join("\n\n"));
    Ok(())
}

fn text(v: &Value) -> String {
    let denied = v["denied_by"].as_str().map_or_else(String::new, |d| {
        format!("\nno executor of this release fulfils the duty {d}: for now every request is denied")
    });
    format!(
        "{}. {}\n{} of {} rows are visible, {} are shown{denied}\n\nbefore\n{}\n\nafter\n{}",
        v["clause"].as_str().unwrap_or_default(),
        v["text"].as_str().unwrap_or_default(),
        v["visible"],
        v["rows"],
        v["answers"],
        rows_table(&v["before"]),
        rows_table(&v["after"])
    )
}

fn rows_table(rows: &Value) -> String {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
    let columns: BTreeSet<&str> =
        rows.iter().filter_map(Value::as_object).flat_map(|r| r.keys().map(String::as_str)).collect();
    let columns: Vec<&str> = columns.into_iter().collect();
    if rows.is_empty() { "no rows".to_owned() } else { table(rows, &columns) }
}
