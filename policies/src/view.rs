//! What a consumer sees of a row under a clause: fields that are not open are gone, altered ones are altered.
//!
//! Pure: the executor gives the row, the ledger's time and its secret for pseudonyms. It must apply a view **after** it
//! has chosen the rows and marked whose they are, and must refuse filters on [`View::altered`] fields, which would find
//! the true values. Rows come in the order of their keys, also where a key is altered: the order of two rows is told.

use crate::decimal::Decimal;
use crate::duty::{Coarse, Cut, Duty};
use crate::filter::canonical_json;
use crate::time::utc_text;
use concordat_protocol::hash::hmac_sha256;
use concordat_protocol::ids::AgreementId;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What stands for a masked value.
pub const MASK: &str = "***";

/// How one field is altered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Mask { keep_last: usize },
    Pseudonym { per: Option<Cut> },
    Coarse(Coarse),
}

/// What a clause shows of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    agreement: AgreementId,
    open: Option<BTreeSet<String>>,
    ways: BTreeMap<String, Way>,
}

/// What makes pseudonyms: the provider's secret and the ledger's time.
#[derive(Clone, Copy)]
pub struct Pseudonyms<'a> {
    /// The provider's secret, 32 random bytes that it keeps; whoever has it finds the values by trying.
    pub key: &'a [u8; 32],
    /// Ledger time, milliseconds.
    pub at_ms: u64,
}

impl View {
    /// The view of a clause's duties.
    pub fn of(agreement: &AgreementId, duties: &[Duty]) -> Self {
        let (mut open, mut ways) = (None, BTreeMap::new());
        for duty in duties {
            let way = match duty {
                Duty::Fields { allow } => {
                    open = Some(allow.iter().cloned().collect());
                    continue;
                }
                Duty::Mask { keep_last, .. } => Way::Mask { keep_last: usize::try_from(*keep_last).unwrap_or(0) },
                Duty::Pseudonymise { per, .. } => Way::Pseudonym { per: *per },
                Duty::Coarsen { how, .. } => Way::Coarse(how.clone()),
                _ => continue,
            };
            ways.extend(duty.altered().into_iter().map(|f| (f.to_owned(), way.clone())));
        }
        Self { agreement: agreement.clone(), open, ways }
    }

    /// Whether a field is shown, altered or not.
    pub fn shows(&self, field: &str) -> bool {
        self.open.as_ref().is_none_or(|o| o.contains(field))
    }

    /// Whether every field that is shown is shown as it is.
    pub fn is_plain(&self) -> bool {
        self.altered().next().is_none()
    }

    /// Fields that are shown altered.
    pub fn altered(&self) -> impl Iterator<Item = &str> {
        self.ways.keys().map(String::as_str).filter(|f| self.shows(f))
    }

    /// The row as the consumer sees it. A value that cannot be altered as agreed is left out; null stays null.
    pub fn apply(&self, row: &Map<String, Value>, with: Pseudonyms<'_>) -> Map<String, Value> {
        let shown = row.iter().filter(|(f, _)| self.shows(f));
        let altered = |(field, value): (&String, &Value)| {
            let value = match self.ways.get(field) {
                None => value.clone(),
                Some(_) if value.is_null() => Value::Null,
                Some(Way::Mask { keep_last }) => mask(value, *keep_last),
                Some(Way::Pseudonym { per }) => self.pseudonym(field, value, *per, with)?,
                Some(Way::Coarse(how)) => coarse(value, how)?,
            };
            Some((field.clone(), value))
        };
        shown.filter_map(altered).collect()
    }

    /// The same value of the same field has the same pseudonym in one agreement and period, and nowhere else.
    fn pseudonym(&self, field: &str, value: &Value, per: Option<Cut>, with: Pseudonyms<'_>) -> Option<Value> {
        let period = match per {
            None => String::new(),
            Some(cut) => cut_time(&utc_text(with.at_ms)?, cut)?,
        };
        let value = canonical_json(value);
        let parts = ["concordat/pseudonym", self.agreement.as_str(), field, &period, &value];
        let parts: Vec<&[u8]> = parts.iter().flat_map(|p| [p.as_bytes(), b"\0"]).collect();
        let tag = hmac_sha256(with.key, &parts);
        Some(Value::String(format!("p-{}", hex::encode(&tag[..16]))))
    }
}

fn mask(value: &Value, keep_last: usize) -> Value {
    let last = value.as_str().filter(|_| keep_last > 0).and_then(|s| {
        let count = s.chars().count();
        (count >= 2 * keep_last).then(|| s.chars().skip(count - keep_last).collect::<String>())
    });
    Value::String(format!("{MASK}{}", last.unwrap_or_default()))
}

fn coarse(value: &Value, how: &Coarse) -> Option<Value> {
    match how {
        Coarse::Time { to } => cut_time(value.as_str()?, *to).map(Value::String),
        Coarse::Text { first } => {
            let first = usize::try_from(*first).unwrap_or(usize::MAX);
            Some(Value::String(value.as_str()?.chars().take(first).collect()))
        }
        Coarse::Number { step } => {
            let text = match value {
                Value::String(s) => s.clone(),
                Value::Number(n) => n.to_string(),
                _ => return None,
            };
            let down = Decimal::read(&text)?.floor_to(Decimal::step(step)?)?;
            match value {
                Value::String(_) => Some(Value::String(down.to_string())),
                _ => match down.whole() {
                    Some(whole) => Some(Value::Number(whole.into())),
                    None => Number::from_f64(down.to_string().parse().ok()?).map(Value::Number),
                },
            }
        }
    }
}

/// The beginning of the hour, day, month or year (UTC) in which a time lies, as text of one form.
pub fn cut_time(time: &str, to: Cut) -> Option<String> {
    let time: Timestamp = time.parse().ok()?;
    let form = match to {
        Cut::Hour => "%Y-%m-%dT%H:00:00Z",
        Cut::Day => "%Y-%m-%dT00:00:00Z",
        Cut::Month => "%Y-%m-01T00:00:00Z",
        Cut::Year => "%Y-01-01T00:00:00Z",
    };
    Some(time.strftime(form).to_string())
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
