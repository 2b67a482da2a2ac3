//! A subscription as applications see it.

use super::refused::Refused;
use super::subscription::{HELD, Inner, Resync, Subscription, start_word, time};
use concordat_protocol::terms::Status;
use serde_json::{Value, json};

/// The state's word and, where it is not just active, a sentence that says what to do. `tick_ms`: ledger time.
fn state(sub: &Subscription, i: &Inner, tick_ms: u64) -> (&'static str, String) {
    let t = &i.terms;
    if i.ending {
        return (
            "ended",
            format!("its deletion has begun and {} has not confirmed it: DELETE it again", sub.key.provider),
        );
    }
    match t.status {
        Status::Active if tick_ms >= t.until_ms && tick_ms > 0 => {
            return ("ended", format!("clause {} of {} has expired", t.clause, t.agreement));
        }
        Status::Active => {}
        Status::Suspended => {
            return ("suspended", format!("{} is suspended: it goes on when it is active again", t.agreement));
        }
        Status::Revoked => return ("revoked", format!("{} was revoked: what waited is gone", t.agreement)),
        _ => {
            let next = "a newer version took its place: see GET /v1/agreements; what waits can still be read";
            return ("ended", format!("{} version {} is {}: {next}", t.agreement, t.version, t.status));
        }
    }
    if let Some((by, ms)) = &i.paused {
        return ("paused", format!("by {by} at {}: POST /v1/subscriptions/{}:resume", time(*ms), t.id));
    }
    if i.open.is_some() {
        return ("opening", format!("the exchange has not opened it yet: {}", i.counts.last_error));
    }
    if i.is_full() {
        let next = "acknowledge with POST /v1/subscriptions/{id}/acks";
        return (
            "waiting-for-acknowledgement",
            format!("{HELD} deliveries are held and none is acknowledged, more are fetched after that: {next}"),
        );
    }
    ("active", String::new())
}

fn time_or_null(ms: u64) -> Value {
    if ms == 0 { Value::Null } else { Value::from(time(ms)) }
}

/// The JSON of a subscription. `tick_ms`: ledger time.
pub(super) fn view(sub: &Subscription, tick_ms: u64) -> Value {
    sub.with(|i| {
        let (t, acked, (state, why)) = (&i.terms, i.buffer.acked(), state(sub, i, tick_ms));
        let seeking =
            i.buffer.seeking().or_else(|| i.seek.as_ref().filter(|_| i.resync == Resync::Hard).map(|s| s.start));
        let mut out = json!({
            "id": t.id, "subscription": sub.key.number, "provider": sub.key.provider, "dataset": t.expected.dataset,
            "agreement": t.agreement, "version": t.version, "clause": t.clause, "state": state, "why": why,
            "max_lag_ms": t.expected.max_lag_ms.last().copied().unwrap_or(0), "created": sub.created.is_some(),
            "last_sub_seq": i.buffer.last(), "anchored_sub_seq": i.anchored, "acked_sub_seq": acked.sub_seq,
            "pending": i.buffer.pending(), "held": i.buffer.held_count(), "seeking": seeking.map(start_word),
            "handed_on": i.counts.handed_on,
            "invalid": i.counts.invalid, "duplicates": i.counts.duplicates, "missing": i.counts.missing,
            "unanchored": i.counts.unanchored, "last_success": time_or_null(i.counts.last_ok_ms),
            "last_error": i.counts.last_error, "last_failure": time_or_null(i.counts.last_error_ms),
            "paused_by": i.paused.as_ref().map(|(by, _)| by), "paused_at": i.paused.as_ref().map(|(_, ms)| time(*ms)),
        });
        let members = out.as_object_mut().zip(sub.created.as_ref());
        if let Some((members, c)) = members {
            let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
            members.extend([
                ("name".to_owned(), json!(c.name)),
                ("where".to_owned(), json(&c.filter)),
                ("select".to_owned(), json(&c.fields)),
                ("purpose".to_owned(), json!(c.purpose)),
                ("case".to_owned(), json!(c.case)),
                ("created_by".to_owned(), json!(c.created_by)),
                ("created_at".to_owned(), json!(time(c.created_ms))),
            ]);
        }
        out
    })
}

/// The JSON of a refused delivery; its bytes as base64 where they are there.
pub(super) fn refused(r: &Refused) -> Value {
    use base64::Engine;
    let bytes = r.bytes.as_ref().map(|b| base64::engine::general_purpose::STANDARD.encode(b));
    json!({
        "n": r.n, "time": time(r.at_ms), "place": r.place, "check": r.check, "sentence": r.sentence, "size": r.size,
        "sha256": r.sha256, "bytes": bytes,
    })
}
