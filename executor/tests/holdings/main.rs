//! One contract for every store: the same calls, the same answers, the same errors.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

/// A test of each store by one function.
macro_rules! on_every_store {
    ($check:ident) => {
        #[test]
        fn sqlite() {
            $check(&crate::sqlite().unwrap());
        }

        #[test]
        fn postgres() {
            if let Some(store) = crate::postgres::fresh() {
                $check(&store);
            }
        }

        #[test]
        fn mongodb() {
            if let Some(store) = crate::mongo::fresh() {
                $check(&store);
            }
        }
    };
}
use on_every_store;

mod agree;
mod contract;
mod external;
mod lease;
mod mongo;
mod once;
mod postgres;
mod rest;

use std::time::Duration;

use concordat_executor::holding::{DatasetSpec, Holding, PostgresOptions, SqliteHolding, SqliteOptions};
use concordat_executor::query::{FieldType, Fields};
use serde_json::{Map, Value, json};

/// A store under test.
pub struct Store {
    pub holding: Box<dyn Holding>,
    /// The same store, opened once more.
    pub reopen: Box<dyn Fn() -> Box<dyn Holding>>,
    /// A word of the store's own plan where an index answers.
    pub indexed: &'static str,
    pub _keep: Option<tempfile::TempDir>,
}

pub fn options() -> PostgresOptions {
    PostgresOptions { statement_timeout: Duration::from_secs(30), ..PostgresOptions::default() }
}

pub fn sqlite() -> Option<Store> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdings.sqlite");
    let open = move || -> Box<dyn Holding> { Box::new(SqliteHolding::open(&path, SqliteOptions::default()).unwrap()) };
    Some(Store { holding: open(), reopen: Box::new(open), indexed: "SEARCH d1 USING INDEX", _keep: Some(dir) })
}

pub const FIELDS: [(&str, FieldType); 10] = [
    ("id", FieldType::String),
    ("s", FieldType::String),
    ("i", FieldType::Integer),
    ("d-x", FieldType::Decimal),
    ("b", FieldType::Boolean),
    ("t", FieldType::Timestamp),
    ("lat", FieldType::Decimal),
    ("lon", FieldType::Decimal),
    // Names that a store could have taken for itself.
    ("key", FieldType::String),
    ("xmin", FieldType::Integer),
];

pub fn spec(key: &[&str], fields: &[(&str, FieldType)], indexes: &[&[&str]]) -> DatasetSpec {
    let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    DatasetSpec {
        id: "ds:x/small@1".into(),
        key: names(key),
        fields: Fields::new(fields.iter().map(|(n, t)| (n.to_string(), *t)).collect()).unwrap(),
        indexes: indexes.iter().map(|i| names(i)).collect(),
    }
}

pub fn small() -> DatasetSpec {
    spec(&["id"], &FIELDS, &[&["s"], &["i"], &["d-x", "s"], &["t"], &["lat"]])
}

pub fn row(v: Value) -> Map<String, Value> {
    v.as_object().unwrap().clone()
}

pub fn rows(list: Value) -> Vec<Map<String, Value>> {
    serde_json::from_value(list).unwrap()
}

pub fn numbered(n: u32) -> Value {
    json!({"id": format!("k{n:05}"), "s": format!("s{}", n % 97), "i": n, "d-x": format!("{}.{}", n % 50, n % 7)})
}
