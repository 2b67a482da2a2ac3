//! Duties: what must hold or happen when a clause is used. Data only; who fulfils each is said by [`DutyKind`].
//!
//! `reference` is checked here ([`check_reference`]); filters and fields are the executor's; quotas are the ledger's
//! (per person the executor's). A duty that the executor cannot fulfil denies its clause.

use crate::filter;
use crate::time::duration_text;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::terms::{Per, Quota, QuotaBy, QuotaUnit};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// Longest pattern of a `reference` duty, bytes.
pub const PATTERN_BYTES_MAX: usize = 512;
/// Largest compiled pattern, bytes.
const PATTERN_COMPILED_MAX: usize = 1 << 18;
/// The fields of a request that a `reference` duty can ask for.
pub const REFERENCE_FIELDS: &[&str] = &["case"];

macro_rules! words {
    ($(#[$m:meta])* pub enum $name:ident { $($(#[$vm:meta])* $v:ident = $w:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vm])* #[serde(rename = $w)] $v),* }
        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$v),*];
            /// The words, in order.
            pub const WORDS: &'static [&'static str] = &[$($w),*];
            /// The word documents use.
            pub fn word(self) -> &'static str {
                match self { $(Self::$v => $w),* }
            }
            /// The value a word names.
            pub fn from_word(w: &str) -> Option<Self> {
                match w { $($w => Some(Self::$v),)* _ => None }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// The kinds of duty.
    pub enum DutyKind {
        /// The request names a case (or another reference) of a given pattern. Checked here.
        Reference = "reference",
        /// The request's filter names one of some fields. The executor checks.
        RequireFilter = "require-filter",
        /// Only rows that match are visible. The executor adds it to the filter.
        RowFilter = "row-filter",
        /// Only these fields are visible. The executor redacts the rest.
        Fields = "fields",
        /// At most so many operations or records a calendar hour or day (UTC). The ledger counts.
        Quota = "quota",
        /// Only groups, never single rows. The executor groups.
        Aggregate = "aggregate",
        /// The actor states a reason. The gateway and the executor record it.
        Justification = "justification",
        /// Somebody is told at once.
        Notify = "notify",
        /// The use is reviewed in time; an overdue review refuses the clause.
        Review = "review",
        /// The person whose record it is learns at first only that there was an access. The executor seals it.
        SealAccess = "seal-access",
    }
}

words! {
    /// Calendar unit to which a time is cut when grouping.
    pub enum Cut {
        /// Hours.
        Hour = "hour",
        /// Days.
        Day = "day",
        /// Months.
        Month = "month",
        /// Years.
        Year = "year",
    }
}

/// One way to satisfy `require-filter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The field the request's filter must name.
    pub field: String,
    /// For a time field: the filter must bound it from both sides to at most this many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
}

/// One key to group by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupKey {
    /// The field.
    pub field: String,
    /// For a time field: the calendar unit it is cut to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

fn as_word<T: fmt::Display, S: serde::Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(v)
}

/// A duty as data. Its JSON form has `type` and the same keys as the document.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Duty {
    /// The request's `field` must match `pattern` (Rust regex, anchored on both ends).
    Reference {
        /// One of [`REFERENCE_FIELDS`].
        field: String,
        /// The pattern.
        pattern: String,
    },
    /// The request's filter must satisfy one of the needs.
    RequireFilter {
        /// The needs.
        any_of: Vec<Need>,
    },
    /// Rows outside this filter (query language of the project) do not exist for the consumer.
    RowFilter {
        /// The filter, as JSON.
        #[serde(rename = "where")]
        filter: Value,
    },
    /// The fields a consumer sees; all others are redacted.
    Fields {
        /// Names, in the document's order, without repeats.
        allow: Vec<String>,
    },
    /// A limit of use.
    Quota {
        /// How many.
        max: u64,
        /// In which calendar period.
        #[serde(serialize_with = "as_word")]
        per: Per,
        /// Counted by what.
        #[serde(serialize_with = "as_word")]
        by: QuotaBy,
        /// Counting what.
        #[serde(serialize_with = "as_word")]
        unit: QuotaUnit,
    },
    /// Only groups of at least `min_group` rows.
    Aggregate {
        /// Keys.
        group_by: Vec<GroupKey>,
        /// Smallest group shown.
        min_group: u64,
    },
    /// The actor states a reason.
    Justification,
    /// The agency `to` is told at once.
    Notify {
        /// Who.
        to: AgencyId,
    },
    /// Reviewed within this time.
    Review {
        /// Milliseconds.
        within_ms: u64,
    },
    /// The subject is told who asked, and why, only after this time; at once that there was an access.
    SealAccess {
        /// Milliseconds.
        for_ms: u64,
    },
}

impl Duty {
    /// The duty's kind.
    pub fn kind(&self) -> DutyKind {
        match self {
            Self::Reference { .. } => DutyKind::Reference,
            Self::RequireFilter { .. } => DutyKind::RequireFilter,
            Self::RowFilter { .. } => DutyKind::RowFilter,
            Self::Fields { .. } => DutyKind::Fields,
            Self::Quota { .. } => DutyKind::Quota,
            Self::Aggregate { .. } => DutyKind::Aggregate,
            Self::Justification => DutyKind::Justification,
            Self::Notify { .. } => DutyKind::Notify,
            Self::Review { .. } => DutyKind::Review,
            Self::SealAccess { .. } => DutyKind::SealAccess,
        }
    }

    /// The bound the ledger counts, if this is a quota.
    pub fn quota(&self) -> Option<Quota> {
        match *self {
            Self::Quota { max, per, by, unit } => Some(Quota { max, per, by, unit }),
            _ => None,
        }
    }

    /// The duty as JSON, for the executor and for the rows hash.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// The fields of the dataset that the duty names.
    pub fn field_names(&self) -> Vec<&str> {
        match self {
            Self::RequireFilter { any_of } => any_of.iter().map(|n| n.field.as_str()).collect(),
            Self::RowFilter { filter } => filter::field_names(filter),
            Self::Fields { allow } => allow.iter().map(String::as_str).collect(),
            Self::Aggregate { group_by, .. } => group_by.iter().map(|g| g.field.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// The duty as a plain sentence, part of the rendered terms.
    pub fn sentence(&self) -> String {
        match self {
            Self::Reference { field, pattern } => format!("The request must name a {field} of the form {pattern}."),
            Self::RequireFilter { any_of } => {
                let ways: Vec<String> = any_of.iter().map(Need::words).collect();
                format!("The request must name {}.", ways.join(" or "))
            }
            Self::RowFilter { filter } => {
                format!("Only rows that match {} are visible.", filter::canonical_json(filter))
            }
            Self::Fields { allow } => {
                format!("Only these fields are visible: {}. All others are removed.", allow.join(", "))
            }
            Self::Quota { max, per, by, unit } => {
                let by = if *by == QuotaBy::Session { ", in each session" } else { "" };
                format!("At most {max} {unit} a calendar {per} (UTC){by}.")
            }
            Self::Aggregate { group_by, min_group } => {
                let keys: Vec<String> = group_by.iter().map(GroupKey::words).collect();
                format!(
                    "Only totals by {} are given, and only for groups of at least {min_group} rows.",
                    keys.join(" and ")
                )
            }
            Self::Justification => "The person must state the reason.".to_owned(),
            Self::Notify { to } => format!("{} is told at once.", to.org()),
            Self::Review { within_ms } => {
                format!(
                    "Each use is reviewed within {}; an overdue review stops this clause.",
                    duration_text(*within_ms)
                )
            }
            Self::SealAccess { for_ms } => {
                format!(
                    "For {} the person concerned is told only that there was an access; then by whom and why.",
                    duration_text(*for_ms)
                )
            }
        }
    }
}

impl Need {
    /// The need in words, for sentences and reasons.
    pub fn words(&self) -> String {
        match self.within_ms {
            None => self.field.clone(),
            Some(ms) => format!("a span of {} of at most {}", self.field, duration_text(ms)),
        }
    }
}

impl GroupKey {
    fn words(&self) -> String {
        self.cut.map_or_else(|| self.field.clone(), |c| format!("{} of {}", c, self.field))
    }
}

/// The duties that an executor is able to fulfil. A clause with any other duty is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(pub BTreeSet<DutyKind>);

impl Default for Capabilities {
    /// What the executor fulfils today: reference, require-filter, row-filter, fields, quota, seal-access.
    fn default() -> Self {
        use DutyKind::{Fields, Quota, Reference, RequireFilter, RowFilter, SealAccess};
        Self([Reference, RequireFilter, RowFilter, Fields, Quota, SealAccess].into_iter().collect())
    }
}

impl Capabilities {
    /// The first duty of a list that cannot be fulfilled.
    pub fn first_missing(&self, duties: &[Duty]) -> Option<DutyKind> {
        duties.iter().map(Duty::kind).find(|k| !self.0.contains(k))
    }
}

pub(crate) fn pattern(p: &str) -> Result<Regex, String> {
    if p.len() > PATTERN_BYTES_MAX {
        return Err(format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    if !p.starts_with('^') || !p.ends_with('$') || p.ends_with("\\$") {
        return Err("the pattern must begin with ^ and end with $, so that it describes the whole reference".to_owned());
    }
    // The inside must stand by itself (`^a)|(b$` does not), and in a group, so that `^a|b$` matches no part only.
    let inside = &p[1..p.len() - 1];
    let build = |text: &str| regex::RegexBuilder::new(text).size_limit(PATTERN_COMPILED_MAX).build();
    build(inside)
        .and_then(|_| build(&format!("^(?:{inside})$")))
        .map_err(|e| format!("the pattern does not compile: {}", e.to_string().lines().last().unwrap_or_default()))
}

/// Checks every `reference` duty against the request's case reference. The error is the missing term.
pub fn check_reference(duties: &[Duty], case: Option<&str>) -> Result<(), String> {
    for d in duties {
        let Duty::Reference { field, pattern: p } = d else { continue };
        let given = if field == "case" { case } else { None };
        let ok = given.is_some_and(|g| g.len() <= 256 && pattern(p).is_ok_and(|re| re.is_match(g)));
        if !ok {
            return Err(format!("a {field} reference of the form {p}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accepts(p: &str, case: Option<&str>) -> bool {
        check_reference(&[Duty::Reference { field: "case".to_owned(), pattern: p.to_owned() }], case).is_ok()
    }

    #[test]
    fn a_pattern_describes_the_whole_reference() {
        let p = "^[0-9]{2}-[A-Z]{2}-[0-9]{4}$";
        assert!(accepts(p, Some("26-CR-1042")));
        for bad in
            [None, Some(""), Some("26-CR-10420"), Some("x26-CR-1042"), Some("26-CR-1042\n"), Some("26-CR-1042\nx")]
        {
            assert!(!accepts(p, bad), "{bad:?}");
        }
        assert!(accepts("^a|b$", Some("b")));
        assert!(!accepts("^a|b$", Some("ax")));
        assert!(!accepts("^(?m)a$", Some("a\nb")));
    }

    #[test]
    fn a_pattern_cannot_leave_its_anchors() {
        for bad in ["^a)|(b$", "a$", "^a", "^a\\$", "", "^", "$", "^($", "^(a{1000}){1000}$"] {
            assert!(pattern(bad).is_err(), "{bad}");
            assert!(!accepts(bad, Some("ax")), "{bad}");
        }
    }

    #[test]
    fn an_unknown_field_is_never_satisfied() {
        let d = Duty::Reference { field: "warrant".to_owned(), pattern: "^.*$".to_owned() };
        assert!(check_reference(&[d], Some("x")).is_err());
    }
}
