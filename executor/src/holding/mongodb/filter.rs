//! Filters as MongoDB's documents, over `{_id: KEY, f: {FIELD: order key}, doc: {FIELD: JSON text}, v: version}`.
//!
//! Only order keys are compared (text, whole numbers, booleans), so that every store compares alike.
//! Names come from checked field names: they have neither `$` nor a dot.

use mongodb::bson::{Bson, Document, doc};

use crate::query::{Cond, Filter, Key, Op, after_prefix};

/// The document of an exact filter.
pub(super) fn filter(f: &Filter) -> Document {
    let all = |parts: &[Filter]| parts.iter().map(|p| Bson::Document(filter(p))).collect::<Vec<_>>();
    match f {
        Filter::All => doc! {},
        Filter::And(parts) if parts.is_empty() => doc! {},
        Filter::And(parts) => doc! {"$and": all(parts)},
        Filter::Or(parts) if parts.is_empty() => nothing(),
        Filter::Or(parts) => doc! {"$or": all(parts)},
        Filter::Not(part) => doc! {"$nor": [filter(part)]},
        Filter::Cond(c) => cond(c),
    }
}

fn nothing() -> Document {
    doc! {"_id": {"$in": Vec::<Bson>::new()}}
}

fn cond(c: &Cond) -> Document {
    let operators = match &c.op {
        Op::Eq(s) => doc! {"$eq": bson(s.key())},
        Op::Ne(s) => doc! {"$ne": bson(s.key())},
        Op::In(list) => doc! {"$in": list.iter().map(|s| bson(s.key())).collect::<Vec<_>>()},
        Op::Range { from, to } => {
            let mut ends = Document::new();
            if let Some(s) = from {
                ends.insert("$gte", bson(s.key()));
            }
            if let Some(s) = to {
                ends.insert("$lt", bson(s.key()));
            }
            ends
        }
        Op::Prefix(p) => {
            let mut ends = doc! {"$gte": p};
            if let Some(end) = after_prefix(p) {
                ends.insert("$lt", end);
            }
            ends
        }
        Op::Exists(wanted) => doc! {"$exists": *wanted},
        // Plans are exact before they reach a store: a condition it cannot decide passes no row.
        Op::Near(_) => return nothing(),
    };
    let mut out = Document::new();
    out.insert(path(&c.field), operators);
    out
}

/// Where a field's order key is.
pub(super) fn path(field: &str) -> String {
    format!("f.{field}")
}

/// An order key as it is kept.
pub(super) fn bson(key: &Key) -> Bson {
    match key {
        Key::Bool(b) => Bson::Boolean(*b),
        Key::Int(n) => Bson::Int64(*n),
        Key::Text(t) => Bson::String(t.clone()),
    }
}
