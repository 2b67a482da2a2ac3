//! The query language: a small JSON filter with the same meaning on every store.
//!
//! ```json
//! {"dataset": "ds:police/stops@1",
//!  "where": {"precinct": {"in": ["1", "2"]},
//!            "time": {"range": {"from": "2017-03-14T00:00:00Z", "to": "2017-03-15T00:00:00Z"}}},
//!  "select": ["stop_id", "time"], "order": "key", "limit": 100}
//! ```
//! A filter object is the conjunction of its members. A member is a field with its condition
//! (`eq ne in range prefix exists bbox near time`; a bare value is `eq`; several operators all hold), or `and`,
//! `or` (lists of filters), `not` (a filter). The meaning is in [`filter`].

pub mod decimal;
pub mod error;
pub mod fields;
pub mod filter;
pub mod near;
mod parse;
mod parse_place;
mod period;
mod schema;
mod strict;
pub mod totals;
pub mod value;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use error::{Problem, QueryError};
pub use fields::{FieldType, Fields, FieldsError, nearest};
pub use filter::{Bounds, Cond, Filter, Op};
pub use parse::{dataset_of, parse_filter, parse_select};
pub use strict::read_json;
pub use totals::{Group, Groups, Totals, TotalsQuery};
pub use value::{Key, Scalar, after_prefix};

/// The order of rows: by the dataset's key, which every store keeps the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Rising.
    #[default]
    Key,
    /// Falling.
    KeyDescending,
}

/// A checked query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The dataset's id, like `ds:police/stops@1`.
    pub dataset: String,
    /// Which rows.
    pub filter: Filter,
    /// Which fields, in the order asked; `None` is all.
    pub select: Option<Vec<String>>,
    /// In which order.
    pub order: Order,
    /// At most so many rows a page.
    pub limit: u32,
}

impl Query {
    /// Checks a query against the fields of the dataset that it names ([`dataset_of`]).
    pub fn parse(query: &Value, fields: &Fields) -> Result<Self, QueryError> {
        parse::parse_query(query, fields)
    }

    /// The query as JSON, with everything spelled out; parsing it gives the same query.
    pub fn to_json(&self) -> Value {
        let order = if self.order == Order::Key { "key" } else { "-key" };
        let mut query =
            json!({"dataset": self.dataset, "where": self.filter.to_json(), "order": order, "limit": self.limit});
        if let Some(select) = &self.select {
            query["select"] = json!(select);
        }
        query
    }
}
