//! `feed tail`, `feed stats`, and how a subscription is followed.

use super::Ctx;
use super::sse::{Event, Parser};
use crate::args::feeds::TailOptions;
use crate::context::{Api, failure_of, segment};
use crate::failure::{Exit, Failure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Silence after which a pull stops unless told otherwise, seconds.
const IDLE_S: u64 = 5;
/// How often a stream looks at its clock.
const STEP: Duration = Duration::from_millis(500);
/// A stream that says nothing for so long, not even a comment, is opened again.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Messages after which a stream acknowledges.
const ACK_EVERY: u64 = 256;
/// Waits before a broken stream is opened again, milliseconds.
const BACKOFF: [u64; 4] = [250, 1_000, 2_000, 5_000];

/// `feed tail`
pub async fn tail(ctx: &Ctx, subscription: Option<&str>, how: &TailOptions) -> Result<(), Failure> {
    let api = ctx.api("operator")?;
    let id = match subscription {
        Some(id) => id.to_owned(),
        None => only_one(&api).await?,
    };
    let mut follower =
        Follower { ctx, api, path: format!("/v1/subscriptions/{}", segment(&id)), how, seen: 0, last: Instant::now() };
    if how.follow {
        follower.follow().await?
    } else {
        follower.pull().await?
    }
    ctx.out.say(format!("{} messages of subscription {id}", follower.seen));
    Ok(())
}

async fn only_one(api: &Api) -> Result<String, Failure> {
    let all = api.get("/v1/subscriptions").await?;
    let list = all["subscriptions"].as_array().cloned().unwrap_or_default();
    match &list[..] {
        [one] => Ok(text_of(&one["id"])),
        [] => {
            let next = "this agency follows no feed: an active agreement with a subscribe clause makes one, or `subscription create`";
            Err(Failure::new(Exit::NotFound, "no-subscription", next))
        }
        _ => {
            let ids = list.iter().map(|s| text_of(&s["id"])).collect::<Vec<_>>().join(", ");
            Err(Failure::usage(format!("name one of the subscriptions: {ids}")))
        }
    }
}

struct Follower<'a> {
    ctx: &'a Ctx,
    api: Api,
    path: String,
    how: &'a TailOptions,
    seen: u64,
    /// When something came last.
    last: Instant,
}

impl Follower<'_> {
    fn over(&self, idle: Option<u64>) -> bool {
        self.how.max.is_some_and(|m| self.seen >= m)
            || idle.is_some_and(|s| self.last.elapsed() >= Duration::from_secs(s))
    }

    fn show(&mut self, m: &Value) {
        let text = || format!("{} {} {}", m["time"].as_str().unwrap_or("-"), text_of(&m["id"]), m["data"]);
        self.ctx.out.result(m, text);
        (self.seen, self.last) = (self.seen + 1, Instant::now());
    }

    async fn acknowledge(&self, cursor: &str) -> Result<(), Failure> {
        self.api.post(&format!("{}/acks", self.path), &json!({"cursor": cursor})).await.map(drop)
    }

    /// Pages, each asked for.
    async fn pull(&mut self) -> Result<(), Failure> {
        let (idle, mut after) = (Some(self.how.idle.unwrap_or(IDLE_S)), String::new());
        while !self.over(idle) {
            let want = self.how.max.map_or(256, |m| (m - self.seen).min(256));
            let page = self.api.get(&format!("{}/messages?max={want}&wait=1{after}", self.path)).await?;
            let messages = page["messages"].as_array().cloned().unwrap_or_default();
            messages.iter().for_each(|m| self.show(m));
            if messages.is_empty() {
                continue;
            }
            if self.how.ack {
                self.acknowledge(&text_of(&page["cursor"])).await?;
            } else {
                after = format!("&after={}", text_of(&page["cursor"]));
            }
        }
        Ok(())
    }

    /// One stream of events after the other, each behind the last event seen.
    async fn follow(&mut self) -> Result<(), Failure> {
        let (mut at, mut acked, mut broken) = (None::<String>, 0, 0);
        while !self.over(self.how.idle) {
            let seen = self.seen;
            let ended = self.stream(&mut at, &mut acked).await;
            if self.how.ack
                && let Some(cursor) = &at
                && acked < self.seen
            {
                self.acknowledge(cursor).await?;
                acked = self.seen;
            }
            match ended {
                Ok(()) => {}
                Err(e) if e.exit == Exit::Unavailable => self.ctx.out.say(format!("{e}; opening it again")),
                Err(e) => return Err(e),
            }
            broken = if self.seen > seen { 0 } else { broken + 1 };
            if !self.over(self.how.idle) {
                tokio::time::sleep(Duration::from_millis(BACKOFF[broken.min(BACKOFF.len() - 1)])).await;
            }
        }
        Ok(())
    }

    /// One stream until it breaks off or enough was seen.
    async fn stream(&mut self, at: &mut Option<String>, acked: &mut u64) -> Result<(), Failure> {
        let mut response = self.api.events(&format!("{}/events", self.path), at.as_deref()).await?;
        let cut =
            |e: String| Failure::new(Exit::Unavailable, "stream-cut", format!("the stream of events broke off ({e})"));
        let (mut parser, mut heard) = (Parser::default(), Instant::now());
        loop {
            match tokio::time::timeout(STEP, response.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    heard = Instant::now();
                    for event in parser.push(&piece).map_err(cut)? {
                        if self.how.max.is_some_and(|m| self.seen >= m) {
                            break;
                        }
                        self.event(event, at)?;
                    }
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(e)) => return Err(cut(e.to_string())),
                Err(_) if heard.elapsed() > SILENT_MAX => return Err(cut("nothing was heard for a minute".into())),
                Err(_) => {}
            }
            if self.over(self.how.idle) {
                return Ok(());
            }
            let due = self.seen - *acked;
            if self.how.ack
                && let Some(cursor) = at.as_deref()
                && (due >= ACK_EVERY || due > 0 && self.last.elapsed() >= STEP)
            {
                self.acknowledge(cursor).await?;
                *acked = self.seen;
            }
        }
    }

    fn event(&mut self, event: Event, at: &mut Option<String>) -> Result<(), Failure> {
        let json = |text: &str| {
            serde_json::from_str::<Value>(text)
                .map_err(|e| Failure::new(Exit::Failed, "gateway-answer", format!("an event's data is no JSON: {e}")))
        };
        match event.name.as_str() {
            "" | "message" => {
                self.show(&json(&event.data)?);
                *at = event.id.or(at.take());
                Ok(())
            }
            // The gateway says why it ends: what may pass is waited for.
            "closed" => {
                let problem = json(&event.data)?;
                let status = problem["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(503);
                Err(failure_of(status, problem))
            }
            _ => {
                self.ctx.out.say(format!("{}: {}", event.name, event.data));
                Ok(())
            }
        }
    }
}

/// A JSON value as plain text.
pub fn text_of(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}
