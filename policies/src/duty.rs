//! Duties: what must hold or happen when a clause is used. Data only; who fulfils each is said by [`DutyKind`].
//!
//! `reference` and `step-up` are checked here; filters and fields are the executor's; quotas are the ledger's (per person
//! the executor's). A duty that the executor cannot fulfil denies its clause.

pub use crate::capabilities::Capabilities;
pub(crate) use crate::conditions::pattern;
pub use crate::conditions::{PATTERN_BYTES_MAX, SignIn, check_reference, check_step_up};
use crate::filter;
use crate::time::utc_text;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::terms::{Per, Quota, QuotaBy, QuotaUnit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

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
        /// Values are shown as asterisks, with their last characters if wanted ([`crate::view`]).
        Mask = "mask",
        /// Values are replaced by keyed pseudonyms ([`crate::view`]).
        Pseudonymise = "pseudonymise",
        /// Values are rounded down or cut short ([`crate::view`]).
        Coarsen = "coarsen",
        /// The consumer deletes what it received. Its gateway would have to.
        Retention = "retention",
        /// The person has signed in strongly a short while ago. Checked here.
        StepUp = "step-up",
        /// Only rows of some age are visible. The executor adds it to the filter ([`row_filters`]).
        Delay = "delay",
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

/// How a value is made coarser. Each way is for one type of value; others are left out of the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Coarse {
    /// A time becomes the beginning of its hour, day, month or year (UTC).
    Time {
        /// The unit.
        to: Cut,
    },
    /// A number is rounded down to a multiple of this decimal.
    Number {
        /// As text, above 0, like `0.01`.
        step: String,
    },
    /// A text is cut to its first characters.
    Text {
        /// How many, at least 1.
        first: u64,
    },
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
    /// Values of these fields are shown as `***`.
    Mask {
        /// Which.
        fields: Vec<String>,
        /// How many of the last characters are shown after it, of values at least twice as long.
        keep_last: u64,
    },
    /// Values of these fields are replaced by pseudonyms of the agreement.
    Pseudonymise {
        /// Which.
        fields: Vec<String>,
        /// After this calendar unit they change; none: never, within the agreement.
        #[serde(skip_serializing_if = "Option::is_none")]
        per: Option<Cut>,
    },
    /// Values of a field are made coarser.
    Coarsen {
        /// Which.
        field: String,
        /// How.
        #[serde(flatten)]
        how: Coarse,
    },
    /// The consumer deletes what it received.
    Retention {
        /// Within so many milliseconds.
        keep_ms: u64,
    },
    /// The person has signed in with a strength, not long ago.
    StepUp {
        /// The strength, as the issuer names it (`acr` of OpenID Connect).
        level: String,
        /// Milliseconds.
        within_ms: u64,
    },
    /// Rows are visible only when they are so old.
    Delay {
        /// The time field.
        field: String,
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
            Self::Mask { .. } => DutyKind::Mask,
            Self::Pseudonymise { .. } => DutyKind::Pseudonymise,
            Self::Coarsen { .. } => DutyKind::Coarsen,
            Self::Retention { .. } => DutyKind::Retention,
            Self::StepUp { .. } => DutyKind::StepUp,
            Self::Delay { .. } => DutyKind::Delay,
        }
    }

    /// The fields whose values a consumer sees altered (mask, pseudonymise, coarsen). A filter on one of them would
    /// find its true value: whoever applies the duty refuses such filters.
    pub fn altered(&self) -> Vec<&str> {
        match self {
            Self::Mask { fields, .. } | Self::Pseudonymise { fields, .. } => {
                fields.iter().map(String::as_str).collect()
            }
            Self::Coarsen { field, .. } => vec![field],
            _ => Vec::new(),
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
            Self::Delay { field, .. } => vec![field],
            other => other.altered(),
        }
    }
}

/// The filters that confine rows at a time (ledger time, milliseconds): those of `row-filter` as written, and one a
/// `delay`. In the query language; all of them hold for every visible row.
pub fn row_filters(duties: &[Duty], at_ms: u64) -> Vec<Value> {
    let filter = |d: &Duty| match d {
        Duty::RowFilter { filter } => Some(filter.clone()),
        Duty::Delay { field, for_ms } => {
            // A time that cannot be written hides everything.
            let end = utc_text(at_ms.saturating_sub(*for_ms)).unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned());
            let mut named = serde_json::Map::new();
            named.insert(field.clone(), serde_json::json!({"range": {"to": end}}));
            Some(Value::Object(named))
        }
        _ => None,
    };
    duties.iter().filter_map(filter).collect()
}

#[cfg(test)]
#[path = "duty_tests.rs"]
mod tests;
