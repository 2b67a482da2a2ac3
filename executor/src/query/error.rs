//! What is wrong with a query, where, and what to write instead.

use thiserror::Error;

use super::fields::FieldType;
use crate::limits;

/// A refused query: the place as a JSON pointer (RFC 6901) and the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {problem}", if pointer.is_empty() { "the query" } else { pointer.as_str() })]
pub struct QueryError {
    /// JSON pointer of the offending place; empty for the whole.
    pub pointer: String,
    /// The broken rule.
    pub problem: Problem,
}

impl QueryError {
    /// The stable code of the broken rule.
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }

    /// The nearest known word, where a word was unknown.
    pub fn nearest(&self) -> Option<&str> {
        match &self.problem {
            Problem::UnknownField { nearest, .. }
            | Problem::UnknownOperator { nearest, .. }
            | Problem::UnknownTotals { nearest, .. }
            | Problem::UnknownMember { nearest, .. } => nearest.as_deref(),
            _ => None,
        }
    }
}

/// The rules of the query language, as broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// Not JSON, a member twice, or too deep.
    #[error("not readable as JSON: {0}")]
    Json(String),
    /// Longer than the limit.
    #[error("longer than {} bytes; ask in several queries", limits::MAX_QUERY_BYTES)]
    TooLong,
    /// A member the query object does not have.
    #[error("unknown member {word:?}{}; known: dataset, where, select, order, limit", hint(.nearest))]
    UnknownMember {
        /// The word as written.
        word: String,
        /// The nearest known one.
        nearest: Option<String>,
    },
    /// A member that a query for totals does not have.
    #[error("unknown member {word:?}{}; known: dataset, where, aggregate", hint(.nearest))]
    UnknownTotals {
        /// The word as written.
        word: String,
        /// The nearest known one.
        nearest: Option<String>,
    },
    /// A field the dataset does not have.
    #[error("the dataset has no field {word:?}{}", hint(.nearest))]
    UnknownField {
        /// The word as written.
        word: String,
        /// The nearest field.
        nearest: Option<String>,
    },
    /// An operator that does not exist.
    #[error("unknown operator {word:?}{}; known: eq ne in range prefix exists bbox near time", hint(.nearest))]
    UnknownOperator {
        /// The word as written.
        word: String,
        /// The nearest operator.
        nearest: Option<String>,
    },
    /// An operator that the field's type does not have.
    #[error("{op} does not apply to a {} field; {next}", .ty.name())]
    OperatorType {
        /// The operator.
        op: &'static str,
        /// The field's type.
        ty: FieldType,
        /// What to use instead.
        next: &'static str,
    },
    /// A constant that is not of the field's type.
    #[error("field {field} is a {}: write {}", .ty.name(), example(.ty))]
    Type {
        /// The field.
        field: String,
        /// Its type.
        ty: FieldType,
    },
    /// The JSON here has another shape than the language asks.
    #[error("expected {0}")]
    Shape(&'static str),
    /// Something empty that would silently mean all or nothing.
    #[error("{0} is empty; leave it out or fill it")]
    Empty(&'static str),
    /// A range that can hold nothing.
    #[error("range.from must be before range.to (from is included, to is not)")]
    EmptyRange,
    /// A box without an inside.
    #[error("south must be below north, and west another meridian than east (west above east crosses the date line)")]
    EmptyBox,
    /// No degrees.
    #[error("degrees are from -{limit} to {limit}")]
    Degrees {
        /// The largest.
        limit: u16,
    },
    /// No distance.
    #[error("metres is a whole number from 1 to {}", limits::MAX_NEAR_METRES)]
    Metres,
    /// No zone of time.
    #[error("the zone is a name of the tz database, like \"America/Chicago\"")]
    Zone,
    /// The smallest group.
    #[error("min_group is a whole number from 1 to 1000000")]
    MinGroup,
    /// The same name twice.
    #[error("{0:?} is named twice; remove one")]
    Twice(String),
    /// More of something than allowed.
    #[error("more than {max} {what}; split the query")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Nested deeper than allowed.
    #[error("nested deeper than {} levels of and, or, not; flatten it", limits::MAX_FILTER_DEPTH)]
    TooDeep,
    /// A text constant that is too long or has a NUL character.
    #[error("a text constant is at most {} bytes, without U+0000", limits::MAX_CONSTANT_BYTES)]
    Constant,
    /// The page size.
    #[error("limit is a whole number from 1 to {}; page through more", limits::MAX_PAGE_ROWS)]
    Limit,
    /// The order.
    #[error("order is \"key\" or \"-key\" (descending); other orders are not served")]
    Order,
}

impl Problem {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "query.json",
            Self::TooLong => "query.too-long",
            Self::UnknownMember { .. } | Self::UnknownTotals { .. } => "query.unknown-member",
            Self::UnknownField { .. } => "query.unknown-field",
            Self::UnknownOperator { .. } => "query.unknown-operator",
            Self::OperatorType { .. } => "query.operator-type",
            Self::Type { .. } => "query.type",
            Self::Shape(_) => "query.shape",
            Self::Empty(_) => "query.empty",
            Self::EmptyRange => "query.empty-range",
            Self::EmptyBox => "query.empty-box",
            Self::Degrees { .. } => "query.degrees",
            Self::Metres => "query.metres",
            Self::Zone => "query.zone",
            Self::MinGroup => "query.min-group",
            Self::Twice(_) => "query.twice",
            Self::TooMany { .. } => "query.too-many",
            Self::TooDeep => "query.too-deep",
            Self::Constant => "query.constant",
            Self::Limit => "query.limit",
            Self::Order => "query.order",
        }
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default()
}

fn example(ty: &FieldType) -> &'static str {
    match ty {
        FieldType::String => "text in quotes, like \"1\"",
        FieldType::Integer => "a whole number of at most 2^53-1, like 42",
        FieldType::Decimal => "a number or a decimal in quotes, like \"44.97\"",
        FieldType::Boolean => "true or false",
        FieldType::Timestamp => "an RFC 3339 instant with its zone, like \"2017-03-14T00:00:00Z\"",
    }
}
