//! `feed tail`

use super::Ctx;
use crate::failure::{Exit, Failure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Follows a subscription through the agency's own gateway; every message was verified there.
pub async fn tail(
    ctx: &Ctx,
    subscription: Option<&str>,
    max: Option<u64>,
    ack: bool,
    idle_s: u64,
) -> Result<(), Failure> {
    let api = ctx.api("operator")?;
    let id = match subscription {
        Some(id) => id.to_owned(),
        None => {
            let all = api.get("/v1/subscriptions").await?;
            let list = all["subscriptions"].as_array().cloned().unwrap_or_default();
            match &list[..] {
                [one] => text_of(&one["id"]),
                [] => {
                    return Err(Failure::new(
                        Exit::NotFound,
                        "no-subscription",
                        "this agency follows no feed: an active agreement with a subscribe clause makes one",
                    ));
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "name one of the subscriptions: {}",
                        list.iter().map(|s| text_of(&s["id"])).collect::<Vec<_>>().join(", ")
                    )));
                }
            }
        }
    };
    let (mut seen, mut last, mut after) = (0u64, Instant::now(), String::new());
    while max.is_none_or(|m| seen < m) && last.elapsed() < Duration::from_secs(idle_s) {
        let want = max.map_or(256, |m| (m - seen).min(256));
        let page = api.get(&format!("/v1/subscriptions/{id}/messages?max={want}&wait=1{after}")).await?;
        let messages = page["messages"].as_array().cloned().unwrap_or_default();
        for m in &messages {
            ctx.out.result(m, || format!("{} {} {}", m["time"].as_str().unwrap_or("-"), text_of(&m["id"]), m["data"]));
        }
        if messages.is_empty() {
            continue;
        }
        (seen, last) = (seen + messages.len() as u64, Instant::now());
        if ack {
            api.post(&format!("/v1/subscriptions/{id}/acks"), &json!({"cursor": page["cursor"]})).await?;
        } else {
            after = format!("&after={}", text_of(&page["cursor"]));
        }
    }
    ctx.out.say(format!("{seen} messages of subscription {id}"));
    Ok(())
}

fn text_of(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}
