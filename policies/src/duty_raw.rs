//! Duties as the document writes them: every key read with its place, then sorted out by the kind of duty.

use crate::decimal::Decimal;
use crate::duty::{Coarse, Cut, Duty, DutyKind, GroupKey, Need, REFERENCE_FIELDS, pattern};
use crate::filter;
use crate::time::{DurationMs, duration_ms};
use crate::yaml::{Pos, Spanned, YamlError};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::terms::{Per, QuotaBy, QuotaUnit};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;

/// A single-key map or a word: `stop_id` or `{time: 24h}`.
struct WordOrPair(String, Option<String>);

impl<'de> Deserialize<'de> for WordOrPair {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = WordOrPair;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name, or one field with its unit like {time: 24h}")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<WordOrPair, E> {
                Ok(WordOrPair(s.to_owned(), None))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut m: A) -> Result<WordOrPair, A::Error> {
                let missing = || serde::de::Error::custom("an empty map names no field");
                let (k, v) = m.next_entry::<String, String>()?.ok_or_else(missing)?;
                if m.next_key::<String>()?.is_some() {
                    return Err(serde::de::Error::custom("one field for each entry: write a second {..} for the next"));
                }
                Ok(WordOrPair(k, Some(v)))
            }
        }
        d.deserialize_any(V)
    }
}

/// Longest time for which an access is sealed, milliseconds.
const SEAL_MS_MAX: u64 = 366 * 86_400_000;
/// Most characters that a mask leaves.
const KEEP_MAX: u64 = 16;
/// Most characters that a coarsened text keeps.
const FIRST_MAX: u64 = 64;
/// Longest retention, milliseconds.
const KEEP_MS_MAX: u64 = 36_525 * 86_400_000;
/// How long ago a sign-in may lie at most, milliseconds.
const STEP_UP_MS_MAX: u64 = 86_400_000;
/// Longest delay, milliseconds.
const DELAY_MS_MAX: u64 = 3_653 * 86_400_000;

/// A duty as the document writes it: every key of every kind, sorted out by [`RawDuty::duty`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDuty {
    r#type: Spanned<String>,
    field: Option<Spanned<String>>,
    pattern: Option<Spanned<String>>,
    any_of: Option<Spanned<Vec<Spanned<WordOrPair>>>>,
    r#where: Option<Spanned<Value>>,
    allow: Option<Spanned<Vec<Spanned<String>>>>,
    max: Option<Spanned<u64>>,
    per: Option<Spanned<String>>,
    by: Option<Spanned<String>>,
    unit: Option<Spanned<String>>,
    group_by: Option<Spanned<Vec<Spanned<WordOrPair>>>>,
    min_group: Option<Spanned<u64>>,
    to: Option<Spanned<String>>,
    within: Option<Spanned<DurationMs>>,
    r#for: Option<Spanned<DurationMs>>,
    fields: Option<Spanned<Vec<Spanned<String>>>>,
    keep_last: Option<Spanned<u64>>,
    step: Option<Spanned<Value>>,
    first: Option<Spanned<u64>>,
    keep: Option<Spanned<DurationMs>>,
    level: Option<Spanned<String>>,
}

/// The keys of a kind of duty as documents write them; those of [`required_keys`] must be there.
pub(crate) fn keys_of(kind: DutyKind) -> &'static [&'static str] {
    match kind {
        DutyKind::Reference => &["type", "field", "pattern"],
        DutyKind::RequireFilter => &["type", "any_of"],
        DutyKind::RowFilter => &["type", "where"],
        DutyKind::Fields => &["type", "allow"],
        DutyKind::Quota => &["type", "max", "per", "by", "unit"],
        DutyKind::Aggregate => &["type", "group_by", "min_group"],
        DutyKind::Justification => &["type"],
        DutyKind::Notify => &["type", "to"],
        DutyKind::Review => &["type", "within"],
        DutyKind::SealAccess => &["type", "for"],
        DutyKind::Mask => &["type", "fields", "keep_last"],
        DutyKind::Pseudonymise => &["type", "fields", "per"],
        DutyKind::Coarsen => &["type", "field", "to", "step", "first"],
        DutyKind::Retention => &["type", "keep"],
        DutyKind::StepUp => &["type", "level", "within"],
        DutyKind::Delay => &["type", "field", "for"],
    }
}

/// The keys that a kind of duty cannot do without.
pub(crate) fn required_keys(kind: DutyKind) -> &'static [&'static str] {
    match kind {
        DutyKind::Quota => &["type", "max", "per"],
        DutyKind::Mask | DutyKind::Pseudonymise => &["type", "fields"],
        DutyKind::Coarsen => &["type", "field"],
        other => keys_of(other),
    }
}

impl RawDuty {
    /// The checked duty and where it stands.
    pub(crate) fn duty(self) -> Result<(Duty, Pos), YamlError> {
        let at = Pos::of(&self.r#type);
        let kind = word(&self.r#type, "duty", DutyKind::ALL)?;
        self.refuse_foreign(kind)?;
        let need = |key: &str| YamlError::new(at, format!("the duty {kind} needs the key \"{key}\""));
        let duty = match kind {
            DutyKind::Reference => {
                reference(self.field.ok_or_else(|| need("field"))?, self.pattern.ok_or_else(|| need("pattern"))?)?
            }
            DutyKind::RequireFilter => require_filter(self.any_of.ok_or_else(|| need("any_of"))?)?,
            DutyKind::RowFilter => {
                let w = self.r#where.ok_or_else(|| need("where"))?;
                filter::check(&w.value).map_err(|e| e.at(Pos::of(&w)))?;
                Duty::RowFilter { filter: w.value }
            }
            DutyKind::Fields => Duty::Fields { allow: names(&self.allow.ok_or_else(|| need("allow"))?, "allow")? },
            DutyKind::Quota => Duty::Quota {
                max: positive(self.max.ok_or_else(|| need("max"))?)?,
                per: word(&self.per.ok_or_else(|| need("per"))?, "period", Per::ALL)?,
                by: self.by.map_or(Ok(QuotaBy::Agreement), |v| word(&v, "quota counter", QuotaBy::ALL))?,
                unit: self.unit.map_or(Ok(QuotaUnit::Operations), |v| word(&v, "quota unit", QuotaUnit::ALL))?,
            },
            DutyKind::Aggregate => aggregate(
                self.group_by.ok_or_else(|| need("group_by"))?,
                self.min_group.ok_or_else(|| need("min_group"))?,
            )?,
            DutyKind::Justification => Duty::Justification,
            DutyKind::Notify => Duty::Notify { to: agency(&self.to.ok_or_else(|| need("to"))?)? },
            DutyKind::Review => Duty::Review { within_ms: review(&self.within.ok_or_else(|| need("within"))?)? },
            DutyKind::SealAccess => {
                let span = self.r#for.ok_or_else(|| need("for"))?;
                let rule = "an access is sealed for some time, at most a year: the person must learn of it";
                Duty::SealAccess { for_ms: bounded(&span, SEAL_MS_MAX, rule)? }
            }
            DutyKind::Mask => Duty::Mask {
                fields: names(&self.fields.ok_or_else(|| need("fields"))?, "fields")?,
                keep_last: self.keep_last.map_or(Ok(0), |n| {
                    let rule = format!("keep_last is at most {KEEP_MAX}: more is hardly a mask");
                    if n.value <= KEEP_MAX { Ok(n.value) } else { Err(YamlError::new(Pos::of(&n), rule)) }
                })?,
            },
            DutyKind::Pseudonymise => Duty::Pseudonymise {
                fields: names(&self.fields.ok_or_else(|| need("fields"))?, "fields")?,
                per: self.per.map(|p| word(&p, "unit of time", Cut::ALL)).transpose()?,
            },
            DutyKind::Coarsen => Duty::Coarsen {
                field: self.field.ok_or_else(|| need("field")).and_then(|f| field_name(Pos::of(&f), &f.value))?,
                how: coarse(at, self.to, self.step, self.first)?,
            },
            DutyKind::Retention => {
                let span = self.keep.ok_or_else(|| need("keep"))?;
                Duty::Retention { keep_ms: bounded(&span, KEEP_MS_MAX, "keep is some time, at most 100 years")? }
            }
            DutyKind::StepUp => {
                let within = self.within.ok_or_else(|| need("within"))?;
                Duty::StepUp {
                    level: level(&self.level.ok_or_else(|| need("level"))?)?,
                    within_ms: bounded(&within, STEP_UP_MS_MAX, "within is some time, at most a day")?,
                }
            }
            DutyKind::Delay => {
                let span = self.r#for.ok_or_else(|| need("for"))?;
                let rule = "a delay is some time, at most 10 years";
                Duty::Delay {
                    field: self.field.ok_or_else(|| need("field")).and_then(|f| field_name(Pos::of(&f), &f.value))?,
                    for_ms: bounded(&span, DELAY_MS_MAX, rule)?,
                }
            }
        };
        Ok((duty, at))
    }

    /// A key that belongs to another kind of duty is as unknown as any other.
    fn refuse_foreign(&self, kind: DutyKind) -> Result<(), YamlError> {
        let given: [(&str, Option<Pos>); 20] = [
            ("field", self.field.as_ref().map(Pos::of)),
            ("pattern", self.pattern.as_ref().map(Pos::of)),
            ("any_of", self.any_of.as_ref().map(Pos::of)),
            ("where", self.r#where.as_ref().map(Pos::of)),
            ("allow", self.allow.as_ref().map(Pos::of)),
            ("max", self.max.as_ref().map(Pos::of)),
            ("per", self.per.as_ref().map(Pos::of)),
            ("by", self.by.as_ref().map(Pos::of)),
            ("unit", self.unit.as_ref().map(Pos::of)),
            ("group_by", self.group_by.as_ref().map(Pos::of)),
            ("min_group", self.min_group.as_ref().map(Pos::of)),
            ("to", self.to.as_ref().map(Pos::of)),
            ("within", self.within.as_ref().map(Pos::of)),
            ("for", self.r#for.as_ref().map(Pos::of)),
            ("fields", self.fields.as_ref().map(Pos::of)),
            ("keep_last", self.keep_last.as_ref().map(Pos::of)),
            ("step", self.step.as_ref().map(Pos::of)),
            ("first", self.first.as_ref().map(Pos::of)),
            ("keep", self.keep.as_ref().map(Pos::of)),
            ("level", self.level.as_ref().map(Pos::of)),
        ];
        let known = keys_of(kind);
        match given.iter().find(|(k, at)| at.is_some() && !known.contains(k)) {
            Some((k, Some(at))) => Err(YamlError::unknown(*at, &format!("key of the duty {kind}"), k, known)),
            _ => Ok(()),
        }
    }
}

/// One of a list of words, or the error that names the nearest.
pub(crate) fn word<T: Copy + fmt::Display>(v: &Spanned<String>, what: &str, all: &[T]) -> Result<T, YamlError> {
    let words: Vec<String> = all.iter().map(T::to_string).collect();
    let known: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = all.iter().find(|t| t.to_string() == v.value).copied();
    found.ok_or_else(|| YamlError::unknown(Pos::of(v), what, &v.value, &known))
}

fn reference(field: Spanned<String>, p: Spanned<String>) -> Result<Duty, YamlError> {
    if !REFERENCE_FIELDS.contains(&field.value.as_str()) {
        return Err(YamlError::unknown(Pos::of(&field), "reference", &field.value, REFERENCE_FIELDS));
    }
    pattern(&p.value).map_err(|e| YamlError::new(Pos::of(&p), e))?;
    Ok(Duty::Reference { field: field.value, pattern: p.value })
}

fn field_name(at: Pos, name: &str) -> Result<String, YamlError> {
    filter::check_field(name).map_err(|e| YamlError::new(at, e))?;
    Ok(name.to_owned())
}

fn no_repeat<T: PartialEq>(list: &[T], next: &T, at: Pos, name: &str) -> Result<(), YamlError> {
    if list.contains(next) { Err(YamlError::new(at, format!("\"{name}\" is listed twice; keep one"))) } else { Ok(()) }
}

fn not_empty<T>(list: &Spanned<Vec<T>>, what: &str) -> Result<(), YamlError> {
    if list.value.is_empty() {
        Err(YamlError::new(Pos::of(list), format!("{what} is empty; name at least one")))
    } else {
        Ok(())
    }
}

/// A list of distinct field names.
fn names(list: &Spanned<Vec<Spanned<String>>>, what: &str) -> Result<Vec<String>, YamlError> {
    not_empty(list, what)?;
    let mut out = Vec::new();
    for f in &list.value {
        let name = field_name(Pos::of(f), &f.value)?;
        no_repeat(&out, &name, Pos::of(f), &name)?;
        out.push(name);
    }
    Ok(out)
}

fn agency(to: &Spanned<String>) -> Result<AgencyId, YamlError> {
    AgencyId::from_org(&to.value).map_err(|e| YamlError::new(Pos::of(to), e.to_string()))
}

fn review(within: &Spanned<DurationMs>) -> Result<u64, YamlError> {
    bounded(within, u64::MAX, "a review within no time cannot be kept")
}

/// A length of time from 1 ms to a bound.
fn bounded(span: &Spanned<DurationMs>, max: u64, rule: &str) -> Result<u64, YamlError> {
    if (1..=max).contains(&span.value.0) { Ok(span.value.0) } else { Err(YamlError::new(Pos::of(span), rule)) }
}

/// Exactly one way of making a value coarser.
fn coarse(
    at: Pos,
    to: Option<Spanned<String>>,
    step: Option<Spanned<Value>>,
    first: Option<Spanned<u64>>,
) -> Result<Coarse, YamlError> {
    match (to, step, first) {
        (Some(to), None, None) => Ok(Coarse::Time { to: word(&to, "unit of time", Cut::ALL)? }),
        (None, Some(step), None) => {
            let text = match &step.value {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            let rule = "step is a decimal above 0 with at most 9 digits on either side of the point, like 0.01";
            Decimal::step(&text).ok_or_else(|| YamlError::new(Pos::of(&step), rule))?;
            Ok(Coarse::Number { step: text })
        }
        (None, None, Some(first)) if (1..=FIRST_MAX).contains(&first.value) => Ok(Coarse::Text { first: first.value }),
        (None, None, Some(first)) => Err(YamlError::new(Pos::of(&first), format!("first is 1 to {FIRST_MAX}"))),
        _ => {
            let rule = "the duty coarsen needs exactly one of \"to\" (a time: hour, day, month, year), \"step\" (a number), \"first\" (a text)";
            Err(YamlError::new(at, rule))
        }
    }
}

fn level(v: &Spanned<String>) -> Result<String, YamlError> {
    let ok = |c: char| c.is_ascii_alphanumeric() || ":._/-+".contains(c);
    if !v.value.is_empty() && v.value.len() <= 128 && v.value.chars().all(ok) {
        return Ok(v.value.clone());
    }
    let rule = "level is the name of a strength at the issuer (acr): 1 to 128 of letters, digits and : . _ / - +";
    Err(YamlError::new(Pos::of(v), rule))
}

fn require_filter(any_of: Spanned<Vec<Spanned<WordOrPair>>>) -> Result<Duty, YamlError> {
    not_empty(&any_of, "any_of")?;
    let mut out = Vec::new();
    for n in &any_of.value {
        let (at, WordOrPair(name, span)) = (Pos::of(n), &n.value);
        let within_ms = span.as_deref().map(duration_ms).transpose().map_err(|e| YamlError::new(at, e))?;
        if within_ms == Some(0) {
            return Err(YamlError::new(at, "a span of no time holds nothing"));
        }
        let need = Need { field: field_name(at, name)?, within_ms };
        no_repeat(&out, &need, at, name)?;
        out.push(need);
    }
    Ok(Duty::RequireFilter { any_of: out })
}

fn aggregate(group_by: Spanned<Vec<Spanned<WordOrPair>>>, min_group: Spanned<u64>) -> Result<Duty, YamlError> {
    not_empty(&group_by, "group_by")?;
    let mut out = Vec::new();
    for g in &group_by.value {
        let (at, WordOrPair(name, cut)) = (Pos::of(g), &g.value);
        let unknown = |w: &str| YamlError::unknown(at, "unit of time", w, Cut::WORDS);
        let cut = cut.as_deref().map(|w| Cut::from_word(w).ok_or_else(|| unknown(w))).transpose()?;
        let key = GroupKey { field: field_name(at, name)?, cut };
        no_repeat(&out, &key, at, name)?;
        out.push(key);
    }
    let at = Pos::of(&min_group);
    if min_group.value < 2 {
        return Err(YamlError::new(at, "min_group must be at least 2: a group of one is a single row"));
    }
    Ok(Duty::Aggregate { group_by: out, min_group: min_group.value })
}

fn positive(n: Spanned<u64>) -> Result<u64, YamlError> {
    if n.value == 0 {
        Err(YamlError::new(Pos::of(&n), "a quota of 0 permits nothing; prohibit instead"))
    } else {
        Ok(n.value)
    }
}
