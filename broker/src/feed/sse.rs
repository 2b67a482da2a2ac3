//! Server-sent events: `id` is the cursor, `event: message`, `data` the message. A stream that ends says why with
//! `event: closed` and a problem.
//!
//! With `ack=true` a reader that comes again acknowledges everything up to and with its `Last-Event-ID`, and nothing else:
//! only that says that the messages arrived. Without it somebody has to POST to `/acks`; after 256 deliveries that are not
//! acknowledged the stream waits, and says so in a comment.

use super::{Cursor, FeedError, Message, Subscription, Subscriptions};
use crate::http::Problem;
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Messages taken at once.
const PAGE: usize = 100;
/// How long one look for messages waits.
const WAIT: Duration = Duration::from_secs(1);

/// One reader.
struct Reader {
    subs: Subscriptions,
    sub: Arc<Subscription>,
    after: Option<Cursor>,
    queue: VecDeque<Message>,
    /// To be acknowledged as soon as it is known here: after a restart it may have to be fetched first.
    ack: Option<Cursor>,
    seeks: u64,
    told_to_wait: bool,
    ended: bool,
    request_id: String,
}

fn place(m: &Message) -> Cursor {
    Cursor { sub_seq: m.sub_seq, index: m.index }
}

fn message(m: &Message) -> Event {
    // A message is strings, numbers and JSON: it always serializes.
    let data = serde_json::to_string(m).unwrap_or_default();
    Event::default().id(place(m).to_string()).event("message").data(data)
}

impl Reader {
    fn closed(&mut self, e: FeedError) -> Event {
        self.ended = true;
        let mut problem = Problem::from(e);
        problem.request_id.clone_from(&self.request_id);
        Event::default().event("closed").data(serde_json::to_string(&problem).unwrap_or_default())
    }

    async fn next(&mut self) -> Option<Event> {
        let mut stopping = self.subs.parts.stopping.clone();
        loop {
            if self.ended {
                return None;
            }
            // Also between two messages of one page: what is suspended now is not handed on now.
            if let Err(e) = self.subs.permitted(&self.sub) {
                return Some(self.closed(e));
            }
            let seeks = self.sub.with(|i| i.seeks);
            if seeks != self.seeks {
                (self.seeks, self.after, self.ack) = (seeks, None, None);
                self.queue.clear();
            }
            if let Some(m) = self.queue.pop_front() {
                self.after = Some(place(&m));
                return Some(message(&m));
            }
            if let Some(cursor) = self.ack
                && self.subs.ack(&self.sub, cursor).await.is_ok()
            {
                self.ack = None;
            }
            let (subs, sub) = (self.subs.clone(), self.sub.clone());
            let found = tokio::select! {
                found = subs.messages(&sub, self.after, PAGE, WAIT) => found,
                // The process stops: clients come again by themselves.
                _ = stopping.wait_for(|s| *s) => return None,
            };
            match found {
                Err(e) => return Some(self.closed(e)),
                Ok(found) if found.is_empty() => {
                    let full = self.sub.with(|i| i.is_full());
                    if full && !std::mem::replace(&mut self.told_to_wait, full) {
                        let text =
                            "waiting for acknowledgement: POST the last id as cursor to /acks, then more is fetched";
                        return Some(Event::default().comment(text));
                    }
                }
                Ok(found) => {
                    self.told_to_wait = false;
                    self.queue.extend(found);
                }
            }
        }
    }
}

/// The events of a subscription after a place.
pub(super) fn events(
    subs: Subscriptions,
    sub: Arc<Subscription>,
    after: Option<Cursor>,
    ack: bool,
    request_id: String,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let seeks = sub.with(|i| i.seeks);
    let (queue, ack) = (VecDeque::new(), after.filter(|_| ack));
    let reader = Reader { subs, sub, after, queue, ack, seeks, told_to_wait: false, ended: false, request_id };
    futures::stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (Ok(event), reader)) })
}

/// The response.
pub(super) fn response(
    subs: Subscriptions,
    sub: Arc<Subscription>,
    after: Option<Cursor>,
    ack: bool,
    request_id: String,
) -> Response {
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    let mut response = Sse::new(events(subs, sub, after, ack, request_id)).keep_alive(alive).into_response();
    // Proxies that collect answers would hold events back.
    response.headers_mut().insert(header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

impl Subscriptions {
    /// The response of server-sent events of a subscription after a place.
    pub fn events(&self, sub: Arc<Subscription>, after: Option<Cursor>, ack: bool) -> Response {
        response(self.clone(), sub, after, ack, String::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_event_is_one_id_one_kind_and_one_line_of_data() {
        let data = serde_json::json!({"text": "two\nlines\r and: a colon"}).as_object().unwrap().clone();
        let m =
            Message { sub_seq: 12, index: 3, seq: 40, id: "r".into(), time: None, data, hidden: 1, altered: vec![] };
        let stream = futures::stream::iter([Ok::<_, Infallible>(message(&m))]);
        let body = Sse::new(stream).into_response().into_body();
        let text = String::from_utf8(axum::body::to_bytes(body, 9_999).await.unwrap().to_vec()).unwrap();
        let mut lines: Vec<&str> = text.lines().filter(|l| !l.is_empty()).collect();
        lines.sort_unstable();
        assert_eq!((lines.len(), lines[1], lines[2]), (3, "event: message", "id: 12.3"), "{text}");
        let json: serde_json::Value = serde_json::from_str(lines[0].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&json["data"]["text"], &json["sub_seq"]), (&"two\nlines\r and: a colon".into(), &12.into()));
        assert_eq!("12.3".parse::<Cursor>(), Ok(place(&m)), "a Last-Event-ID is a cursor");
    }
}
