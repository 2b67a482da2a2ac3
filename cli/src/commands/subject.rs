//! `subject`: who looked at a person's records, the proof of it, and forgetting the person.

use super::Ctx;
use crate::args::{Subject, Who};
use crate::context::Api;
use crate::failure::{Exit, Failure};
use crate::output::table;
use serde_json::{Value, json};
use std::path::Path;

/// The role whose token is used where none is named.
const ROLE: &str = "operator";

/// Runs the command.
pub async fn run(ctx: &Ctx, command: &Subject) -> Result<(), Failure> {
    match command {
        Subject::Log(who) => log(ctx, who).await,
        Subject::Proof { who, out } => proof(ctx, who, out).await,
        Subject::Mandate(m) => super::mandate::run(ctx, m).await,
        Subject::Looks => super::mandate::looks(ctx).await,
        Subject::Erase { dataset, subject, keep_records, yes } => {
            if !yes {
                return Err(Failure::usage("this cannot be undone: say --yes"));
            }
            let body = json!({"dataset": dataset, "subject": subject, "keep_records": keep_records});
            erase(ctx, &body).await
        }
    }
}

fn body(who: &Who) -> Value {
    let mut body = json!({"dataset": who.dataset, "subject": who.subject});
    if let Some(from) = &who.from {
        body["from"] = json!(from);
    }
    body
}

/// The list as the provider's broker tells it.
pub async fn ask(api: &Api, dataset: &str, subject: &str) -> Result<Value, Failure> {
    api.post("/admin/v1/subjects/log", &json!({"dataset": dataset, "subject": subject})).await
}

async fn log(ctx: &Ctx, who: &Who) -> Result<(), Failure> {
    let answer = ctx.api(ROLE)?.post("/admin/v1/subjects/log", &body(who)).await?;
    ctx.out.result(&answer, || text(&answer));
    Ok(())
}

fn text(answer: &Value) -> String {
    let rows = answer["accesses"].as_array().cloned().unwrap_or_default();
    let columns = ["operation", "time", "kind", "disclosed", "consumer", "purpose", "clause", "case", "sentence"];
    let mut lines = vec![if rows.is_empty() { "nobody looked".to_owned() } else { table(&rows, &columns) }];
    let sealed = answer["sealed"]["entries"].as_array().cloned().unwrap_or_default();
    for opens in sealed.iter().filter_map(|s| s["opens"].as_str()) {
        lines.push(format!("one more access, sealed until {opens}"));
    }
    if let Some(n) = answer["may_include"].as_u64().filter(|n| *n > 0) {
        lines.push(format!("{n} operations may include this person: the provider shows no proof in or out"));
    }
    if let Some(erased) = answer["erased"].as_str() {
        lines.push(format!("erased at {erased}: what came before is forgotten"));
    }
    let to = &answer["complete_to"];
    let word = if answer["complete"] == true { "complete" } else { "NOT complete" };
    match to["time"].as_str() {
        Some(time) => {
            lines.push(format!("{word} up to {}, {time} ({})", plain(&to["operation"]), plain(&answer["status"])))
        }
        None => lines.push("no run of the ledger is closed yet: ask again later".into()),
    }
    lines.join("\n")
}

fn plain(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

async fn proof(ctx: &Ctx, who: &Who, out: &Path) -> Result<(), Failure> {
    let bytes = ctx.api(ROLE)?.post_for_bytes("/admin/v1/subjects/proof", &body(who)).await?;
    std::fs::write(out, &bytes).map_err(|e| Failure::new(Exit::Failed, "io", format!("{}: {e}", out.display())))?;
    let value = json!({"file": out, "bytes": bytes.len()});
    ctx.out.result(&value, || format!("{} ({} bytes): `concordat verify list` checks it", out.display(), bytes.len()));
    Ok(())
}

async fn erase(ctx: &Ctx, body: &Value) -> Result<(), Failure> {
    let answer = ctx.api(ROLE)?.post("/admin/v1/subjects/erase", body).await?;
    ctx.out.result(&answer, || {
        let operations = answer["operations"].as_array().map_or(0, Vec::len);
        format!("forgotten: {operations} operations recorded as erased, {} records removed", plain(&answer["records"]))
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_how_far_it_is_complete_and_what_is_sealed() {
        let empty = json!({"accesses": [], "complete": true, "status": "provisional",
            "complete_to": {"operation": "op:9", "time": "2026-01-01T00:00:00Z"}});
        assert_eq!(text(&empty), "nobody looked\ncomplete up to op:9, 2026-01-01T00:00:00Z (provisional)");
        let sealed = json!({"accesses": [], "complete": false, "status": "final", "may_include": 2,
            "sealed": {"count": 1, "entries": [{"opens": "2027-01-01T00:00:00Z"}]},
            "complete_to": {"operation": "op:9", "time": "2026-01-01T00:00:00Z"}});
        let said = text(&sealed);
        assert!(said.contains("sealed until 2027-01-01") && said.contains("2 operations may") && said.contains("NOT"));
    }
}
