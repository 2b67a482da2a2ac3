//! `query run`

use super::Ctx;
use crate::args::QueryRun;
use crate::failure::{Exit, Failure};
use crate::output::table;
use serde_json::{Value, json};

/// The body of a query as the gateway takes it.
pub fn body(q: &QueryRun) -> Result<Value, Failure> {
    let json = |option: &str, text: &str| -> Result<Value, Failure> {
        serde_json::from_str(text).map_err(|e| Failure::usage(format!("{option}: {e}")))
    };
    let filter = json("--where", &q.filter)?;
    let aggregate = q.aggregate.as_deref().map(|text| json("--aggregate", text)).transpose()?;
    let mut body = json!({"dataset": q.dataset, "purpose": q.purpose, "where": filter});
    let members = [
        ("select", (!q.select.is_empty()).then(|| json!(q.select))),
        ("clause", q.clause.as_ref().map(|v| json!(v))),
        ("case", q.case.as_ref().map(|v| json!(v))),
        ("order", q.order.as_ref().map(|v| json!(v))),
        ("limit", q.limit.map(|v| json!(v))),
        ("aggregate", aggregate),
        ("include", (!q.include.is_empty()).then(|| json!(q.include))),
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
    ask(ctx, "clerk", q, &body(q)?).await
}

/// Asks as a user with `role`; rows on stdout, where it is recorded on stderr.
pub async fn ask(ctx: &Ctx, role: &str, q: &QueryRun, body: &Value) -> Result<(), Failure> {
    let api = ctx.api(role)?;
    let answer = api.query(body, q.idempotency_key.as_deref()).await?;
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    // A group's labels and numbers are columns like any other, its labels first.
    let groups = rows.first().filter(|_| q.aggregate.is_some()).map(group_columns);
    let rows: Vec<Value> = if groups.is_some() { rows.iter().map(flat).collect() } else { rows };
    let columns: Vec<String> = match rows.first().and_then(Value::as_object) {
        _ if groups.is_some() => groups.unwrap_or_default(),
        Some(first) if q.select.is_empty() => first.keys().cloned().collect(),
        _ => q.select.clone(),
    };
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    ctx.out.result(&answer, || if rows.is_empty() { "no rows".into() } else { table(&rows, &columns) });
    let word = |k: &str| answer[k].as_str().map_or_else(|| answer[k].to_string(), str::to_owned);
    let what = if q.aggregate.is_some() { "groups" } else { "rows" };
    if answer["operation"].is_null() {
        let decision = word("decision");
        ctx.out.say(format!(
            "{} {what}, clause {}, its record is promised: see {decision}",
            rows.len(),
            word("clause")
        ));
        return match &q.receipt {
            Some(_) => Err(Failure::new(Exit::Partial, "not-recorded-yet", format!("no receipt yet: see {decision}"))),
            None => Ok(()),
        };
    }
    ctx.out.say(format!(
        "{} {what}, clause {}, {} at height {}",
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

/// The columns of groups, in the order in which they are read.
fn group_columns(group: &Value) -> Vec<String> {
    let names =
        |part: &str| group[part].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let numbers = ["sum", "mean"].into_iter().flat_map(|n| names(n).into_iter().map(move |f| format!("{n} {f}")));
    names("by").into_iter().chain(["count".to_owned()]).chain(numbers).collect()
}

/// A group as one flat row: its labels by field, `count`, `sum FIELD`, `mean FIELD`.
fn flat(group: &Value) -> Value {
    let part = |name: &'static str| group[name].as_object().into_iter().flatten();
    let labels = part("by").map(|(field, v)| (field.clone(), v.clone()));
    let count = [("count".to_owned(), group["count"].clone())];
    let numbers = ["sum", "mean"].into_iter().flat_map(|n| part(n).map(move |(f, v)| (format!("{n} {f}"), v.clone())));
    Value::Object(labels.chain(count).chain(numbers).collect())
}
