//! `query run`

use super::Ctx;
use crate::args::QueryRun;
use crate::failure::Failure;
use crate::output::table;
use serde_json::{Value, json};

/// The body of a query as the gateway takes it.
pub fn body(q: &QueryRun) -> Result<Value, Failure> {
    let filter: Value = serde_json::from_str(&q.filter).map_err(|e| Failure::usage(format!("--where: {e}")))?;
    let mut body = json!({"dataset": q.dataset, "purpose": q.purpose, "where": filter});
    let members = [
        ("select", (!q.select.is_empty()).then(|| json!(q.select))),
        ("clause", q.clause.as_ref().map(|v| json!(v))),
        ("case", q.case.as_ref().map(|v| json!(v))),
        ("order", q.order.as_ref().map(|v| json!(v))),
        ("limit", q.limit.map(|v| json!(v))),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    Ok(body)
}

/// Runs the query; rows on stdout, where it is recorded on stderr.
pub async fn run(ctx: &Ctx, q: &QueryRun) -> Result<(), Failure> {
    let api = ctx.api("clerk")?;
    let answer = api.query(&body(q)?, q.idempotency_key.as_deref()).await?;
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    let columns: Vec<String> = match rows.first().and_then(Value::as_object) {
        Some(first) if q.select.is_empty() => first.keys().cloned().collect(),
        _ => q.select.clone(),
    };
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    ctx.out.result(&answer, || if rows.is_empty() { "no rows".into() } else { table(&rows, &columns) });
    let word = |k: &str| answer[k].as_str().map_or_else(|| answer[k].to_string(), str::to_owned);
    ctx.out.say(format!(
        "{} rows, clause {}, {} at height {}",
        rows.len(),
        word("clause"),
        word("operation"),
        word("height")
    ));
    if let Some(file) = &q.receipt {
        super::op::fetch_receipt(&api, &word("operation"), file).await?;
        ctx.out.say(format!("receipt: {}", file.display()));
    }
    Ok(())
}
