//! The typed filter, its meaning, and what can be told about it without running it.
//!
//! # Meaning
//! Two-valued, everywhere: a condition holds or it does not.
//! A field that is missing, null or not of its type has *no value*:
//! - `eq`, `in`, `range`, `prefix` hold only where there is a value;
//! - `ne` is exactly "not `eq`", so it holds where there is no value;
//! - `exists: true` holds where there is a value, `exists: false` where there is none;
//! - `not` is plain negation: `not {range}` holds where there is no value.
//!
//! `range` is half-open: `from` is included, `to` is not. Text compares by code points, decimals
//! as numbers, timestamps as instants, `false` before `true`.
//!
//! `bbox` and `time` are read as ranges. `near` looks at two fields and holds only where both have a value: stores narrow
//! by a box around the circle ([`Filter::coarse`]), the evaluator here decides.

use serde_json::{Map, Value, json};

use super::fields::FieldType;
use super::near::Near;
use super::value::{Key, Scalar};

/// A filter over the rows of one dataset.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Holds for every row.
    All,
    /// Every part holds.
    And(Vec<Filter>),
    /// At least one part holds.
    Or(Vec<Filter>),
    /// The part does not hold.
    Not(Box<Filter>),
    /// One condition on one field.
    Cond(Cond),
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Cond {
    /// The field's name, known to the dataset.
    pub field: String,
    /// Its type.
    pub ty: FieldType,
    /// The operator with its constants.
    pub op: Op,
}

/// An operator with its constants, which are of the field's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Equal.
    Eq(Scalar),
    /// Not equal, or no value.
    Ne(Scalar),
    /// Equal to one of the list.
    In(Vec<Scalar>),
    /// At or after `from`, before `to`; one may be open.
    Range {
        /// Included lower end.
        from: Option<Scalar>,
        /// Excluded upper end.
        to: Option<Scalar>,
    },
    /// Text that begins with this.
    Prefix(String),
    /// There is a value (`true`) or none (`false`).
    Exists(bool),
    /// A place at most so far away; the condition's field is the latitude.
    Near(Box<Near>),
}

/// The span of instants to which a filter confines a timestamp field, in nanoseconds since 1970:
/// `from` included, `to` not; `None` is open. `to <= from` means that no row can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Included lower end.
    pub from: Option<i128>,
    /// Excluded upper end.
    pub to: Option<i128>,
}

impl Bounds {
    const OPEN: Self = Self { from: None, to: None };

    /// The length in nanoseconds, if closed at both ends (0 when nothing fits).
    pub fn span(&self) -> Option<u128> {
        Some((self.to? - self.from?).max(0).unsigned_abs())
    }
}

impl Filter {
    /// The conjunction, flattened; of nothing, [`Filter::All`].
    pub fn all_of(parts: impl IntoIterator<Item = Filter>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::All => {}
                Self::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Self::All,
            1 => flat.remove(0),
            _ => Self::And(flat),
        }
    }

    /// Whether the row passes (see the module for the exact meaning).
    pub fn matches(&self, row: &Map<String, Value>) -> bool {
        match self {
            Self::All => true,
            Self::And(parts) => parts.iter().all(|p| p.matches(row)),
            Self::Or(parts) => parts.iter().any(|p| p.matches(row)),
            Self::Not(part) => !part.matches(row),
            Self::Cond(c) => c.matches(row),
        }
    }

    /// The parts of the top-level conjunction: every matching row passes each of them.
    pub fn conjuncts(&self) -> Vec<&Filter> {
        match self {
            Self::All => Vec::new(),
            Self::And(parts) => parts.iter().flat_map(Self::conjuncts).collect(),
            other => vec![other],
        }
    }

    /// The finite list of values to which the filter confines the field, if it does: by `eq` or
    /// `in` in the top-level conjunction, or in every branch of an `or`.
    pub fn named_values(&self, field: &str) -> Option<Vec<&Value>> {
        match self {
            Self::And(parts) => parts.iter().filter_map(|p| p.named_values(field)).min_by_key(Vec::len),
            Self::Or(parts) => {
                let lists: Option<Vec<_>> = parts.iter().map(|p| p.named_values(field)).collect();
                lists.map(|l| l.into_iter().flatten().collect())
            }
            Self::Cond(c) if c.field == field => match &c.op {
                Op::Eq(s) => Some(vec![s.value()]),
                Op::In(list) => Some(list.iter().map(Scalar::value).collect()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the filter names the field: see [`Filter::named_values`].
    pub fn names_field(&self, field: &str) -> bool {
        self.named_values(field).is_some()
    }

    /// Every constant that the filter compares with the field by `eq`, `ne` or `in`, anywhere:
    /// for marking the subjects whom a query asked about, found or not.
    pub fn mentioned_values(&self, field: &str) -> Vec<&Value> {
        let mut found = Vec::new();
        self.visit(&mut |c| {
            if c.field == field {
                match &c.op {
                    Op::Eq(s) | Op::Ne(s) => found.push(s.value()),
                    Op::In(list) => found.extend(list.iter().map(Scalar::value)),
                    _ => {}
                }
            }
        });
        found
    }

    /// The names of all fields the filter looks at, sorted.
    pub fn fields(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |c| {
            names.push(c.field.as_str());
            if let Op::Near(near) = &c.op {
                names.push(near.lon.as_str());
            }
        });
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every condition, wherever it stands.
    pub fn conditions(&self) -> Vec<&Cond> {
        let mut all = Vec::new();
        self.visit(&mut |c| all.push(c));
        all
    }

    /// Whether every store carries the whole filter out by itself.
    pub fn is_exact(&self) -> bool {
        let mut exact = true;
        self.visit(&mut |c| exact &= !matches!(c.op, Op::Near(_)));
        exact
    }

    /// An exact filter that passes at least the rows that this one passes; the same where this one is exact.
    pub fn coarse(&self) -> Filter {
        match self {
            exact if exact.is_exact() => exact.clone(),
            Self::And(parts) => Self::all_of(parts.iter().map(Self::coarse)),
            Self::Or(parts) => {
                let parts: Vec<Filter> = parts.iter().map(Self::coarse).collect();
                if parts.contains(&Self::All) { Self::All } else { Self::Or(parts) }
            }
            Self::Cond(Cond { field, op: Op::Near(near), .. }) => near.around(field),
            _ => Self::All,
        }
    }

    /// The span to which the filter confines a timestamp field; an `or` counts from its earliest
    /// branch to its latest. Sound: no matching row lies outside.
    pub fn bounds(&self, field: &str) -> Bounds {
        match self {
            Self::And(parts) => parts.iter().fold(Bounds::OPEN, |acc, p| {
                let b = p.bounds(field);
                Bounds { from: acc.from.max(b.from), to: [acc.to, b.to].into_iter().flatten().min() }
            }),
            Self::Or(parts) => parts.iter().map(|p| p.bounds(field)).reduce(hull).unwrap_or(Bounds::OPEN),
            Self::Cond(c) if c.field == field && c.ty == FieldType::Timestamp => c.bounds(),
            _ => Bounds::OPEN,
        }
    }

    /// Whether the filter confines the timestamp field to a span of at most `nanos` nanoseconds
    /// (the duty `require-filter: {time: 24h}`).
    pub fn bounded_within(&self, field: &str, nanos: u128) -> bool {
        self.bounds(field).span().is_some_and(|span| span <= nanos)
    }

    /// The filter as JSON, with operators spelled out; parsing it gives the same filter.
    pub fn to_json(&self) -> Value {
        let list = |parts: &[Filter]| parts.iter().map(Self::to_json).collect::<Vec<_>>();
        match self {
            Self::All => json!({}),
            Self::Or(parts) => json!({"or": list(parts)}),
            Self::Not(part) => json!({"not": part.to_json()}),
            Self::Cond(c) => {
                let mut map = Map::new();
                map.insert(c.field.clone(), c.op.to_json());
                Value::Object(map)
            }
            Self::And(parts) => {
                let parts = list(parts);
                merged(&parts).unwrap_or_else(|| json!({"and": parts}))
            }
        }
    }

    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Cond)) {
        match self {
            Self::All => {}
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|p| p.visit(see)),
            Self::Not(part) => part.visit(see),
            Self::Cond(c) => see(c),
        }
    }
}

impl Cond {
    fn matches(&self, row: &Map<String, Value>) -> bool {
        if let Op::Near(near) = &self.op {
            return near.matches(&self.field, row);
        }
        let key = row.get(&self.field).and_then(|v| Key::of(self.ty, v));
        let Some(key) = key else {
            return matches!(self.op, Op::Ne(_) | Op::Exists(false));
        };
        match &self.op {
            Op::Eq(s) => key == *s.key(),
            Op::Ne(s) => key != *s.key(),
            Op::In(list) => list.iter().any(|s| key == *s.key()),
            Op::Range { from, to } => {
                from.as_ref().is_none_or(|f| key >= *f.key()) && to.as_ref().is_none_or(|t| key < *t.key())
            }
            Op::Prefix(p) => matches!(&key, Key::Text(t) if t.starts_with(p.as_str())),
            Op::Exists(wanted) => *wanted,
            Op::Near(_) => false,
        }
    }

    fn bounds(&self) -> Bounds {
        let at = |s: &Scalar| match s.key() {
            Key::Int(n) => Some(i128::from(*n)),
            _ => None,
        };
        let point = |s: &Scalar| Bounds { from: at(s), to: at(s).map(|n| n + 1) };
        match &self.op {
            Op::Eq(s) => point(s),
            Op::In(list) => list.iter().map(point).reduce(hull).unwrap_or(Bounds::OPEN),
            Op::Range { from, to } => Bounds { from: from.as_ref().and_then(at), to: to.as_ref().and_then(at) },
            _ => Bounds::OPEN,
        }
    }
}

impl Op {
    fn to_json(&self) -> Value {
        match self {
            Self::Eq(s) => json!({"eq": s.value()}),
            Self::Ne(s) => json!({"ne": s.value()}),
            Self::In(list) => {
                json!({"in": list.iter().map(Scalar::value).collect::<Vec<_>>()})
            }
            Self::Range { from, to } => {
                let mut ends = Map::new();
                for (name, end) in [("from", from), ("to", to)] {
                    if let Some(s) = end {
                        ends.insert(name.into(), s.value().clone());
                    }
                }
                json!({"range": ends})
            }
            Self::Prefix(p) => json!({"prefix": p}),
            Self::Exists(b) => json!({"exists": b}),
            Self::Near(near) => near.to_json(),
        }
    }
}

fn hull(a: Bounds, b: Bounds) -> Bounds {
    Bounds { from: a.from.zip(b.from).map(|(x, y)| x.min(y)), to: a.to.zip(b.to).map(|(x, y)| x.max(y)) }
}

// One object where no member is named twice and the order of the parts survives the sorting of
// members.
fn merged(parts: &[Value]) -> Option<Value> {
    let mut map = Map::new();
    let mut last = String::new();
    for part in parts {
        let (name, value) = part.as_object()?.iter().next()?;
        if *name <= last {
            return None;
        }
        last.clone_from(name);
        map.insert(name.clone(), value.clone());
    }
    Some(Value::Object(map))
}
