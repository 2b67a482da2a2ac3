//! `subscription`: feeds of other agencies, as this agency follows them.

use super::feed::text_of;
use super::op::lines;
use super::{Ctx, feed};
use crate::args::Subscription;
use crate::args::feeds::Create;
use crate::context::segment;
use crate::failure::Failure;
use serde_json::{Value, json};

const COLUMNS: [&str; 9] =
    ["id", "provider", "dataset", "agreement", "clause", "state", "pending", "acked_sub_seq", "last_sub_seq"];

/// The body of `subscription create` as the gateway takes it.
pub fn body(c: &Create) -> Result<Value, Failure> {
    let filter = match &c.filter {
        None => None,
        Some(text) => {
            let value: Value = serde_json::from_str(text).map_err(|e| Failure::usage(format!("--where: {e}")))?;
            Some(value.is_object().then_some(value).ok_or_else(|| {
                Failure::usage("--where: must be a JSON object of conditions, '{\"zone\": \"north\"}'")
            })?)
        }
    };
    let mut body = json!({"dataset": c.dataset});
    let members = [
        ("name", c.name.as_ref().map(|v| json!(v))),
        ("agreement", c.agreement.as_ref().map(|v| json!(v))),
        ("clause", c.clause.as_ref().map(|v| json!(v))),
        ("purpose", c.purpose.as_ref().map(|v| json!(v))),
        ("case", c.case.as_ref().map(|v| json!(v))),
        ("where", filter),
        ("select", (!c.select.is_empty()).then(|| json!(c.select))),
        ("from", c.from.as_ref().map(|v| v.0.clone())),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    Ok(body)
}

/// Runs a `subscription` command.
pub async fn run(ctx: &Ctx, command: &Subscription) -> Result<(), Failure> {
    let path = |id: &str| format!("/v1/subscriptions/{}", segment(id));
    let api = ctx.api("operator")?;
    match command {
        Subscription::Create(c) => {
            let made = api.post("/v1/subscriptions", &body(c)?).await?;
            ctx.out.result(&made, || lines(&made));
            ctx.out.say(format!("next: concordat subscription tail {} --follow", text_of(&made["id"])));
        }
        Subscription::List => {
            let answer = api.get("/v1/subscriptions").await?;
            let rows = answer["subscriptions"].as_array().cloned().unwrap_or_default();
            ctx.out.list(&rows, &COLUMNS);
        }
        Subscription::Show { id } => {
            let one = api.get(&path(id)).await?;
            ctx.out.result(&one, || lines(&one));
        }
        Subscription::Tail { id, tail } => return feed::tail(ctx, Some(id), tail).await,
        Subscription::Pause { id } => changed(ctx, id, &api.post(&format!("{}:pause", path(id)), &json!({})).await?),
        Subscription::Resume { id } => changed(ctx, id, &api.post(&format!("{}:resume", path(id)), &json!({})).await?),
        Subscription::Seek { id, to } => {
            changed(ctx, id, &api.post(&format!("{}:seek", path(id)), &json!({"to": to.0})).await?);
        }
        Subscription::Ack { id, cursor } => {
            let acked = api.post(&format!("{}/acks", path(id)), &json!({"cursor": cursor})).await?;
            let shown = |k: &str| text_of(&acked[k]);
            ctx.out.result(&acked, || {
                format!("{id}: acknowledged up to and with {cursor} ({} messages)", shown("acked_messages"))
            });
        }
        Subscription::Delete { id } => {
            let gone = api.delete(&path(id)).await?;
            ctx.out.result(&gone, || format!("{id}: deleted"));
        }
        Subscription::DeadLetters { id } => {
            let answer = api.get(&format!("{}/dead-letters", path(id))).await?;
            let rows = answer["dead_letters"].as_array().cloned().unwrap_or_default();
            let columns: Vec<&str> =
                rows.first().and_then(Value::as_object).map_or(vec![], |r| r.keys().map(String::as_str).collect());
            if rows.is_empty() {
                ctx.out.say(format!("{id}: nothing was refused"));
            }
            ctx.out.list(&rows, &columns);
        }
    }
    Ok(())
}

fn changed(ctx: &Ctx, id: &str, answer: &Value) {
    ctx.out.result(answer, || match &answer["state"] {
        Value::String(state) => format!("{id}: {state}"),
        _ => lines(answer),
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn create(args: &[&str]) -> Create {
        let all = [&["concordat", "subscription", "create", "ds:grid/load@1"], args].concat();
        match Cli::try_parse_from(all).unwrap().command {
            Command::Subscription(Subscription::Create(c)) => c,
            _ => panic!("another command"),
        }
    }

    #[test]
    fn only_what_was_said_is_asked_for() {
        assert_eq!(body(&create(&[])).unwrap(), json!({"dataset": "ds:grid/load@1"}));
        let whole = create(&[
            "--name",
            "north",
            "--agreement",
            "AGR-2026-0143",
            "--clause",
            "F1",
            "--purpose",
            "purp:x",
            "--case",
            "c-1",
            "--where",
            r#"{"zone": "north"}"#,
            "--select",
            "time,mw",
            "--from",
            "seq:4",
        ]);
        let want = json!({"dataset": "ds:grid/load@1", "name": "north", "agreement": "AGR-2026-0143", "clause": "F1",
            "purpose": "purp:x", "case": "c-1", "where": {"zone": "north"}, "select": ["time", "mw"], "from": {"seq": 4}});
        assert_eq!(body(&whole).unwrap(), want);
        for bad in ["[1]", "north", "{"] {
            assert_eq!(body(&create(&["--where", bad])).unwrap_err().exit as u8, 2, "{bad}");
        }
    }
}
