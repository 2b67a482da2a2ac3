//! An agency's own table and view in PostgreSQL: read under a login that may do nothing else.

use std::time::Duration;

use concordat_executor::holding::{DatasetSpec, Expect, Holding, Plan, PostgresHolding, PostgresOptions};
use concordat_executor::query::{FieldType, Fields, Filter, Query, parse_filter};
use serde_json::{Map, Value, json};

use crate::postgres::{sql, unique, uri_for};
use crate::{options, row};

fn stops(id: &str) -> DatasetSpec {
    use FieldType::{Boolean, Decimal, Integer, String, Timestamp};
    let fields = [
        ("stop_id", String),
        ("time", Timestamp),
        ("precinct", String),
        ("age", Integer),
        ("lat", Decimal),
        ("searched", Boolean),
    ];
    DatasetSpec {
        id: id.into(),
        key: vec!["stop_id".into()],
        fields: Fields::new(fields.map(|(n, t)| (n.to_owned(), t)).to_vec()).unwrap(),
        indexes: vec![vec!["precinct".into()]],
    }
}

const ID: &str = "ds:police/stops@1";

struct Agency {
    table: String,
    view: String,
    login: String,
}

/// A table with more than we may see, a view of it, and a login that may read the view alone.
fn agency() -> Option<Agency> {
    uri_for("owner")?;
    let (schema, login) = (unique("agency"), unique("reader"));
    sql(&format!(
        "CREATE SCHEMA {schema};
         CREATE TABLE {schema}.stops (nr varchar PRIMARY KEY, at timestamptz, precinct text, age bigint, lat numeric, searched boolean, officer text);
         INSERT INTO {schema}.stops SELECT 's' || lpad(n::text, 5, '0'), '2017-03-14T00:00:00Z'::timestamptz + n * interval '1 minute',
           (n % 500)::text, n, n * 0.5, n % 2 = 0, 'officer ' || n FROM generate_series(1, 3000) n;
         INSERT INTO {schema}.stops VALUES ('z1', '2017-03-14T00:00:00.000250Z', NULL, 9007199254740993, 'NaN', NULL, ''),
           ('z2', 'infinity', '%_\\', -5, 1e40, true, '');
         CREATE INDEX ON {schema}.stops (precinct);
         CREATE VIEW {schema}.v_stops AS SELECT nr AS stop_id, at AS time, precinct, age, lat, searched FROM {schema}.stops;
         CREATE ROLE {login} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {login}; GRANT SELECT ON {schema}.v_stops TO {login};
         ANALYZE {schema}.stops;"
    ));
    Some(Agency { table: format!("{schema}.stops"), view: format!("{schema}.v_stops"), login })
}

fn open(a: &Agency, name: &str, options: PostgresOptions) -> PostgresHolding {
    let external = [(ID.to_owned(), name.to_owned())].into();
    PostgresHolding::open(&uri_for(&a.login).unwrap(), PostgresOptions { external, ..options }).unwrap()
}

#[test]
fn a_view_is_read_by_a_login_that_may_only_read_it() {
    let Some(a) = agency() else { return };
    let holding = open(&a, &a.view, options());
    let spec = stops(ID);
    holding.ensure_dataset(&spec).unwrap();
    let query = json!({"dataset": ID, "where": {"precinct": {"in": ["7", "8"]}, "time": {"time": "2017-03-14"}}, "select": ["stop_id", "time", "age"]});
    let plan = Plan::from(Query::parse(&query, &spec.fields).unwrap());
    let found = holding.query(&plan).unwrap();
    let docs: Vec<Value> = found.rows.iter().map(|r| Value::Object(r.doc.clone())).collect();
    assert_eq!(docs[0], json!({"stop_id": "s00007", "time": "2017-03-14T00:07:00Z", "age": 7}));
    assert_eq!(docs.len(), 6);
    assert_eq!(found.rows[0].key, "s00007");
    let explained = holding.explain(&plan).unwrap();
    assert!(explained.contains("Index Cond"), "{explained}");
    let one = holding.get(ID, "s00007").unwrap().unwrap();
    assert_eq!(
        Value::Object(one),
        json!({"stop_id": "s00007", "time": "2017-03-14T00:07:00Z", "precinct": "7", "age": 7, "lat": "3.5", "searched": false})
    );

    let given = row(json!({"stop_id": "new"}));
    assert_eq!(holding.put_many(ID, std::slice::from_ref(&given)).unwrap_err().code(), "holding.read-only");
    assert_eq!(holding.write(ID, &given, &Expect::Any).unwrap_err().code(), "holding.read-only");
    assert_eq!(holding.delete(ID, "s00007", &Expect::Any).unwrap_err().code(), "holding.read-only");
    assert_eq!(holding.forget(ID, "stop_id", &|_| true).unwrap_err().code(), "holding.read-only");
    // The login's rights are the database's to keep: a table of our own is refused, the agency's table is not seen.
    assert_eq!(
        holding.ensure_dataset(&DatasetSpec { id: "ds:police/own@1".into(), ..spec.clone() }).unwrap_err().code(),
        "holding.access"
    );
    let other = open(&a, &a.table, options()).ensure_dataset(&spec).unwrap_err();
    assert_eq!(other.code(), "holding.spec-conflict");
    assert!(other.to_string().contains("this login reads no table or view"), "{other}");
    holding.health().unwrap();
}

#[test]
fn a_column_of_another_type_is_named_with_its_cure() {
    let Some(a) = agency() else { return };
    let mut spec = stops(ID);
    let fields = [("stop_id", FieldType::String), ("age", FieldType::Timestamp)];
    spec.fields = Fields::new(fields.map(|(n, t)| (n.to_owned(), t)).to_vec()).unwrap();
    spec.indexes.clear();
    let e = open(&a, &a.view, options()).ensure_dataset(&spec).unwrap_err();
    assert!(e.to_string().contains("age is bigint; cast it to timestamptz in a view"), "{e}");
}

#[test]
fn filters_mean_the_same_over_an_agencys_columns() {
    let Some(a) = agency() else { return };
    let holding = open(&a, &a.view, options());
    let spec = stops(ID);
    holding.ensure_dataset(&spec).unwrap();
    // The last rows, as this holding hands them out, are what the evaluator judges.
    let tail = parse_filter(
        &json!({"or": [{"stop_id": {"range": {"from": "s02990"}}}, {"stop_id": {"prefix": "z"}}]}),
        &spec.fields,
        "",
    )
    .unwrap();
    let all: Vec<Map<String, Value>> =
        holding.query(&Plan::new(ID, tail.clone())).unwrap().rows.into_iter().map(|r| r.doc).collect();
    assert_eq!(all.len(), 13);
    assert_eq!(
        Value::Object(all[11].clone()),
        json!({"stop_id": "z1", "time": "2017-03-14T00:00:00.00025Z"}),
        "what is no value is left out"
    );
    for f in [
        json!({"precinct": "%_\\"}),
        json!({"precinct": {"prefix": "%"}}),
        json!({"precinct": {"exists": false}}),
        json!({"age": {"range": {"from": 2995}}}),
        json!({"age": {"range": {"to": 2995}}}),
        json!({"age": {"exists": true}}),
        json!({"not": {"age": {"range": {"from": 0}}}}),
        json!({"lat": {"range": {"from": 1}}}),
        json!({"lat": {"eq": "1e40"}}),
        json!({"lat": {"in": [1495.0, "1495.50"]}}),
        json!({"lat": {"ne": "1495"}}),
        json!({"lat": {"exists": false}}),
        json!({"time": {"range": {"from": "2017-03-14T00:00:00.000249999Z", "to": "2017-03-14T00:00:00.000250001Z"}}}),
        json!({"time": {"range": {"from": "2017-03-14T00:00:00.000250001Z"}}}),
        json!({"time": {"eq": "2017-03-14T00:00:00.00025Z"}}),
        json!({"time": {"eq": "2017-03-14T00:00:00.000250001Z"}}),
        json!({"time": {"ne": "2017-03-14T00:00:00.000250001Z"}}),
        json!({"time": {"in": ["2017-03-14T00:00:00.000250001Z", "2017-03-14T00:00:00.00025Z"]}}),
        json!({"time": {"exists": true}}),
        json!({"searched": {"ne": true}}),
        json!({"searched": {"in": [false]}}),
    ] {
        let filter = Filter::all_of([tail.clone(), parse_filter(&f, &spec.fields, "").unwrap()]);
        let wanted: Vec<_> = all.iter().filter(|r| filter.matches(r)).collect();
        let found = holding.query(&Plan::new(ID, filter.clone())).unwrap();
        assert_eq!(found.rows.iter().map(|r| &r.doc).collect::<Vec<_>>(), wanted, "{f}");
        assert_eq!(holding.count(ID, &filter).unwrap(), wanted.len() as u64, "{f}");
    }
}

#[test]
fn the_database_itself_stops_a_query_past_its_time_and_the_next_one_works() {
    let Some(a) = agency() else { return };
    let slow = unique("agency");
    sql(&format!(
        "CREATE SCHEMA {slow};
         CREATE VIEW {slow}.v AS SELECT n::text AS stop_id, now() AS time, CASE WHEN n > 1 THEN pg_sleep(60)::text ELSE '1' END AS precinct,
           n::bigint AS age, n::numeric AS lat, true AS searched FROM generate_series(1, 3) n;
         GRANT USAGE ON SCHEMA {slow} TO {login}; GRANT SELECT ON {slow}.v TO {login};",
        login = a.login
    ));
    let options = PostgresOptions { statement_timeout: Duration::from_millis(200), readers: 1, ..options() };
    let holding = open(&a, &format!("{slow}.v"), options);
    holding.ensure_dataset(&stops(ID)).unwrap();
    for _ in 0..2 {
        let e = holding.query(&Plan::new(ID, Filter::All)).unwrap_err();
        assert_eq!(e.code(), "holding.timeout", "{e}");
    }
    holding.health().unwrap();
}

#[test]
fn what_cannot_be_reached_or_read_is_told_apart_and_no_secret_is_repeated() {
    let nowhere = PostgresOptions { connect_timeout: Duration::from_millis(300), ..options() };
    let e = PostgresHolding::open("postgresql://me:hunter2@127.0.0.1:1/db", nowhere.clone()).err().unwrap();
    assert_eq!((e.code(), e.retry()), ("holding.unreachable", true));
    assert!(!e.to_string().contains("hunter2"), "{e}");
    let e = PostgresHolding::open("postgresql://me:hunter2@host:port:x/db", nowhere).err().unwrap();
    assert_eq!(e.code(), "holding.setup");
    assert!(!e.to_string().contains("hunter2"), "{e}");
    let Some(uri) = uri_for("owner") else { return };
    let e = PostgresHolding::open(&uri.replace("owner@", "nobody_known@"), options()).err().unwrap();
    assert_eq!(e.code(), "holding.unreachable", "{e}");
    let schema = PostgresOptions { schema: "a\"b".into(), ..options() };
    assert_eq!(PostgresHolding::open(&uri, schema).err().unwrap().code(), "holding.setup");
}
