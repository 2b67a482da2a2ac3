//! A receipt as people and programs read it. Only for showing: what counts are the bytes.

use super::Receipt;
use crate::acts::Act;
use crate::cbor;
use crate::leaves::{LeafView, Redacted};
use crate::ops::Op;
use serde_json::{Map, Value, json};

/// JSON of a receipt. Nothing in it has been checked.
#[must_use]
pub fn to_json(r: &Receipt) -> Value {
    json!({
        "version": r.version,
        "chain": r.chain,
        "operation": format!("op:{}", r.index),
        "entry": {
            "height": r.entry.height,
            "tick_ms": r.entry.tick_ms,
            "writer": r.entry.writer,
            "incarnation": r.entry.incarnation,
            "seq": r.entry.seq,
            "op_hash": hex::encode(r.entry.op_hash),
            "verdict": r.entry.verdict.word(),
            "code": r.entry.code,
            "code_text": crate::codes::text(r.entry.code),
        },
        "content": content(r),
        "openings": r.openings.as_ref().map(openings),
        "request": r.request.as_ref().map(|p| json!({
            "session": p.request.session,
            "n": p.request.n,
            "consumer": p.session.consumer,
            "provider": p.request.provider,
            "dataset": p.request.dataset,
            "clause": p.request.clause,
            "purpose": p.request.purpose,
            "case": p.request.case,
            "request_hash": hex::encode(p.request.hash()),
            "session_key": hex::encode(p.session.key),
        })),
        "release": r.release.as_ref().map(|p| json!({
            "agency": p.key.agency,
            "key": p.key.key.key_id().to_string(),
            "revoked_ms": p.key.revoked_ms,
            "compromised_since_ms": p.key.compromised_since_ms,
        })),
        "proof": {
            "app_hash": hex::encode(super::app_hash(&r.roots)),
            "roots": {
                "heads": hex::encode(r.roots.heads),
                "log": hex::encode(r.roots.log),
                "meta": hex::encode(r.roots.meta),
                "runs": hex::encode(r.roots.runs),
            },
            "log_path_hashes": r.log_path.hashes.len(),
        },
        "status": if r.checkpoint.is_some() { "final" } else { "provisional" },
        "cosigners": r.checkpoint.iter().flat_map(|c| &c.cosignatures).map(|c| c.agency.as_str()).collect::<Vec<_>>(),
        "bytes": cbor::encode(r).len(),
    })
}

fn content(r: &Receipt) -> Value {
    if r.entry.writer.starts_with("act:") {
        return match cbor::decode::<Act>(&r.op) {
            Ok(act) => json!({"kind": act.body.kind_word(), "agency": act.agency, "counter": act.counter}),
            Err(_) => Value::Null,
        };
    }
    match cbor::decode::<Op>(&r.op) {
        Ok(op) => op_json(&op),
        Err(_) => Value::Null,
    }
}

/// JSON of an operation.
fn op_json(op: &Op) -> Value {
    let mut out = Map::from_iter([("kind".to_owned(), json!(op.kind_word()))]);
    if let Some(f) = op.recorded() {
        let tags = match f.tags {
            crate::ops::Tags::List(l) => l.len() as u64,
            crate::ops::Tags::Bulk { count, .. } => *count,
        };
        let fields = json!({"handle": f.handle, "session": f.session, "n": f.n, "day": f.day, "tags": tags});
        out.extend(fields.as_object().cloned().unwrap_or_default());
    }
    match op {
        Op::Publish { dataset, last_seq, count, root } => {
            out.extend([("dataset".to_owned(), json!(dataset)), ("last_seq".to_owned(), json!(last_seq))]);
            out.extend([("count".to_owned(), json!(count)), ("root".to_owned(), json!(hex::encode(root)))]);
        }
        Op::Deliver { handle, subscription, last_sub_seq, count, .. } => {
            out.extend([("handle".to_owned(), json!(handle)), ("subscription".to_owned(), json!(subscription))]);
            out.extend([("last_sub_seq".to_owned(), json!(last_sub_seq)), ("count".to_owned(), json!(count))]);
        }
        Op::Outcome { reference, .. }
        | Op::Withheld { reference, .. }
        | Op::Review { reference, .. }
        | Op::Annotate { reference, .. }
        | Op::Erase { reference, .. }
        | Op::Ack { reference, .. } => {
            out.insert("reference".to_owned(), json!(format!("op:{reference}")));
        }
        _ => {}
    }
    Value::Object(out)
}

fn openings(r: &Redacted) -> Value {
    let hidden = r.leaves.iter().filter(|l| matches!(l, LeafView::Hidden { .. })).count();
    let opened: Map<String, Value> = r.opened().map(|(n, v)| (n.to_owned(), json!(leaf_text(n, v)))).collect();
    json!({"opened": opened, "hidden": hidden})
}

/// A commitment leaf as text: hashes in hex, counts in digits, the rest as it stands.
pub(crate) fn leaf_text(name: &str, value: &[u8]) -> String {
    use crate::leaves::commitment as c;
    match (name, <[u8; 8]>::try_from(value)) {
        (c::COUNT | c::OPEN_BY, Ok(n)) => u64::from_be_bytes(n).to_string(),
        (c::CONSUMER | c::ACTOR | c::CLAUSE | c::PURPOSE | c::CASE | c::EVIDENCE, _) => {
            String::from_utf8(value.to_vec()).unwrap_or_else(|_| hex::encode(value))
        }
        _ => hex::encode(value),
    }
}
