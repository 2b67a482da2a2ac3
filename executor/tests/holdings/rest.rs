//! An agency's own HTTP service as a dataset: a real server here, its rows in memory, and SQLite with the same rows.
//!
//! Longer than 400 lines: the service that answers stands beside what it is asked, and both change together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use concordat_executor::holding::{
    DatasetSpec, Expect, Holding, HoldingSetup, Plan, RestPaging, RestSetup, SqliteHolding, SqliteOptions, WithRest,
    open,
};
use concordat_executor::query::{Filter, Order, TotalsQuery, parse_filter};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::agree::{all_totals, any_filter, any_row};
use crate::{row, rows, small};

const SECRET: &str = "Bearer hunter2";

/// What the service has, and what it was asked.
#[derive(Default)]
struct Kept {
    rows: Mutex<Vec<Map<String, Value>>>,
    asked: Mutex<Vec<BTreeMap<String, String>>>,
    headers: Mutex<Vec<HeaderMap>>,
    pages: AtomicUsize,
}

struct Service {
    address: String,
    kept: Arc<Kept>,
    _runtime: tokio::runtime::Runtime,
}

type Asked = Query<BTreeMap<String, String>>;

/// Rows of the member `where`, those whose fields equal the parameters, a page of them.
async fn list(State(kept): State<Arc<Kept>>, Query(asked): Asked, headers: HeaderMap) -> Response {
    kept.asked.lock().unwrap().push(asked.clone());
    kept.headers.lock().unwrap().push(headers.clone());
    kept.pages.fetch_add(1, Ordering::SeqCst);
    if headers.get("authorization").is_none_or(|a| a != SECRET) {
        return (StatusCode::UNAUTHORIZED, "hunter2 is wrong").into_response();
    }
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let paging = ["page", "skip", "per"];
    let all: Vec<Value> = kept.rows.lock().unwrap().iter().map(|r| json!({"at": {"s": r.get("s")}, "in": r})).collect();
    let fits = |row: &&Value| {
        let told = asked.iter().filter(|(name, _)| !paging.contains(&name.as_str()));
        told.clone().all(|(name, value)| row["in"].get(name.trim_end_matches("Is")).is_some_and(|v| text(v) == *value))
    };
    let number = |name: &str| asked.get(name).and_then(|n| n.parse::<usize>().ok());
    let per = number("per").unwrap_or(usize::MAX);
    let skip = number("skip").unwrap_or_else(|| number("page").map_or(0, |p| (p - 1) * per));
    let found: Vec<Value> = all.iter().filter(fits).skip(skip).take(per).cloned().collect();
    axum::Json(json!({"data": {"items": found}})).into_response()
}

async fn one(State(kept): State<Arc<Kept>>, Path(id): Path<String>) -> Response {
    let rows = kept.rows.lock().unwrap();
    match rows.iter().find(|r| r["id"] == json!(id)) {
        Some(row) => axum::Json(json!(row)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn says(Path(status): Path<u16>) -> Response {
    (StatusCode::from_u16(status).unwrap(), "hunter2").into_response()
}

async fn fault(Path(word): Path<String>) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, [("x-road-error", word)], "{}").into_response()
}

/// A list by addresses of the next page.
async fn chain(State(kept): State<Arc<Kept>>, Path(n): Path<usize>) -> Response {
    let rows = kept.rows.lock().unwrap();
    let next = (n + 1 < rows.len()).then(|| format!("../chain/{}", n + 1));
    axum::Json(json!({"items": [rows[n]], "links": {"next": next}})).into_response()
}

fn service(given: Vec<Map<String, Value>>) -> Service {
    let kept = Arc::new(Kept::default());
    *kept.rows.lock().unwrap() = given;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let app = Router::new()
        .route("/list", get(list))
        .route("/one/{id}", get(one))
        .route("/says/{status}", get(says))
        .route("/fault/{word}", get(fault))
        .route("/chain/{n}", get(chain))
        .route("/here", get(|| async { Redirect::temporary("/one/a") }))
        .route("/away", get(|| async { Redirect::temporary("http://localhost:1/one/a") }))
        .route("/never", get(std::future::pending::<()>))
        .route("/text", get(|| async { "hunter2, no JSON" }))
        .with_state(Arc::clone(&kept));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await });
    Service { address, kept, _runtime: runtime }
}

impl Service {
    /// The list: fields in a part of a row, two of them told.
    fn list(&self) -> RestSetup {
        let fields: Vec<String> = small().fields.iter().map(|(n, _)| n.to_owned()).collect();
        let mut setup = RestSetup::new(format!("{}/list", self.address));
        setup.headers = [("Authorization".to_owned(), SECRET.to_owned())].into();
        setup.rows = "$.data.items".into();
        setup.fields = fields.iter().map(|f| (f.clone(), format!("in.{f}"))).collect();
        setup.fields.insert("s".into(), "at.s".into());
        setup.push_down =
            [("id", "id"), ("s", "sIs"), ("i", "i"), ("b", "bIs")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        setup
    }

    fn simple(&self, path: &str) -> RestSetup {
        RestSetup::new(format!("{}{path}", self.address))
    }
}

fn beside(setup: RestSetup) -> WithRest {
    beside_for(setup, Duration::from_secs(30)).unwrap()
}

fn beside_for(setup: RestSetup, timeout: Duration) -> Result<WithRest, concordat_executor::holding::HoldingError> {
    let dir = tempfile::tempdir().unwrap();
    let inner = SqliteHolding::open(&dir.path().join("h.sqlite"), SqliteOptions::default()).unwrap();
    // The folder goes, the file stays open.
    let services = [(small().id, setup)].into();
    WithRest::new(Box::new(inner), &services, None, timeout)
}

fn filter(json: Value) -> Filter {
    parse_filter(&json, &small().fields, "").unwrap()
}

fn plan(json: Value) -> Plan {
    Plan::new(&small().id, filter(json))
}

fn docs(holding: &dyn Holding, plan: &Plan) -> Vec<Value> {
    holding.query(plan).unwrap().rows.into_iter().map(|r| Value::Object(r.doc)).collect()
}

/// As the service hands a row out: no nulls, and decimals as text.
fn plain(row: &Map<String, Value>) -> Map<String, Value> {
    let decimal = |name: &str| ["d-x", "lat", "lon"].contains(&name);
    row.iter()
        .filter(|(_, v)| !v.is_null())
        .map(|(n, v)| (n.clone(), if decimal(n) && v.is_number() { json!(v.to_string()) } else { v.clone() }))
        .collect()
}

#[test]
fn random_queries_are_answered_as_sqlite_answers_them() {
    let service = service(vec![]);
    let mut setup = service.list();
    setup.paging = RestPaging::Number { parameter: "page".into(), first: 1, size: Some("per".into()), rows: 7 };
    let rest = beside(setup);
    let store = crate::sqlite().unwrap();
    let spec = DatasetSpec { indexes: vec![], ..small() };
    rest.ensure_dataset(&spec).unwrap();
    let input = (proptest::collection::vec(any_row(), 1..30), proptest::collection::vec(any_filter(), 20));
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let rounds = AtomicUsize::new(0);
    let result = runner.run(&input, |(all, filters)| {
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        let id = format!("ds:x/small@{round}");
        let mut all: Vec<_> = all.iter().map(plain).collect();
        all.iter_mut().enumerate().for_each(|(n, r)| drop(r.insert("id".into(), json!(format!("{n:03}")))));
        store.holding.ensure_dataset(&DatasetSpec { id: id.clone(), ..spec.clone() }).unwrap();
        store.holding.put_many(&id, &all).unwrap();
        // The service lists in an order of its own.
        *service.kept.rows.lock().unwrap() = all.iter().rev().cloned().collect();
        let wheres = filters.iter().filter_map(|f| parse_filter(f, &spec.fields, "").ok());
        let told = [json!({"s": "a"}), json!({"i": {"in": [1, 0]}, "b": true}), json!({"id": {"in": ["001", "002"]}})];
        for filter in wheres.chain(told.map(filter)) {
            for order in [Order::Key, Order::KeyDescending] {
                let mut theirs = Plan { order, limit: 4, ..Plan::new(&id, filter.clone()) };
                let mut ours = Plan { dataset: spec.id.clone(), ..theirs.clone() };
                loop {
                    let (a, b) = (store.holding.query(&theirs).unwrap(), rest.query(&ours).unwrap());
                    proptest::prop_assert_eq!((&a.rows, a.end), (&b.rows, b.end), "{:?}", filter);
                    let Some(next) = a.next_after() else { break };
                    theirs.after = Some(next.to_owned());
                    ours.after.clone_from(&theirs.after);
                }
            }
            let counts = (store.holding.count(&id, &filter).unwrap(), rest.count(&spec.id, &filter).unwrap());
            proptest::prop_assert_eq!(counts.0, counts.1, "{:?}", filter);
        }
        let first = parse_filter(&filters[0], &spec.fields, "").unwrap_or(Filter::All);
        for json in all_totals() {
            let asked = TotalsQuery::parse(&json!({"dataset": spec.id, "aggregate": json}), &spec.fields).unwrap();
            let a = store.holding.aggregate(&id, &first, &asked.totals).unwrap();
            proptest::prop_assert_eq!(a, rest.aggregate(&spec.id, &first, &asked.totals).unwrap(), "{}", json);
        }
        for row in &all {
            let key = row["id"].as_str().unwrap();
            let found = rest.get(&spec.id, key).unwrap();
            proptest::prop_assert_eq!(found.as_ref(), Some(row));
        }
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn equalities_go_to_the_service_and_nothing_else() {
    let service = service(rows(json!([{"id": "a", "s": "x", "i": 1}, {"id": "b", "s": "x", "i": 2}, {"id": "c"}])));
    let rest = beside(service.list());
    rest.ensure_dataset(&small()).unwrap();
    let asked = |json: Value| {
        service.kept.asked.lock().unwrap().clear();
        let found = docs(&rest, &plan(json)).len();
        let asked = std::mem::take(&mut *service.kept.asked.lock().unwrap());
        let asked: Vec<String> =
            asked.iter().map(|q| q.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")).collect();
        (found, asked.join(" "))
    };
    assert_eq!(asked(json!({"s": "x", "i": {"range": {"from": 2}}})), (1, "sIs=x".into()));
    assert_eq!(asked(json!({"s": "x", "i": 2})), (1, "i=2&sIs=x".into()));
    assert_eq!(asked(json!({"id": {"in": ["a", "c", "a"]}})), (2, "id=a id=c".into()));
    assert_eq!(asked(json!({"or": [{"id": "a"}, {"id": "b"}]})), (2, "id=a id=b".into()));
    assert_eq!(asked(json!({"not": {"s": "x"}})), (1, String::new()));
    assert_eq!(asked(json!({"or": [{"s": "x"}, {"i": 5}]})), (2, String::new()));
    assert_eq!(asked(json!({"s": "x&sIs=y#"})), (0, "sIs=x&sIs=y#".into()));
    assert!(rest.explain(&plan(json!({"i": 7}))).unwrap().ends_with("/list?i=7"));
}

#[test]
fn what_is_too_wide_names_the_field_that_would_bound_it() {
    let many: Vec<_> = (0..30).map(|n| row(json!({"id": format!("k{n:02}"), "s": format!("s{}", n % 3)}))).collect();
    let service = service(many);
    for paging in [
        RestPaging::None,
        RestPaging::Number { parameter: "page".into(), first: 1, size: Some("per".into()), rows: 4 },
        RestPaging::Offset { parameter: "skip".into(), size: Some("per".into()), rows: 4 },
    ] {
        let mut setup = service.list();
        (setup.rows_max, setup.paging) = (Some(12), paging);
        setup.push_down.retain(|f, _| f == "id" || f == "s");
        let rest = beside(setup);
        rest.ensure_dataset(&small()).unwrap();
        assert_eq!(docs(&rest, &plan(json!({"s": "s1"}))).len(), 10);
        service.kept.pages.store(0, Ordering::SeqCst);
        let e = rest.query(&plan(json!({"i": {"exists": false}}))).unwrap_err();
        assert_eq!((e.code(), e.retry()), ("holding.too-much", false));
        assert!(e.to_string().contains("name id or s by one value"), "{e}");
        assert!(service.kept.pages.load(Ordering::SeqCst) <= 4, "no more is read than shows it");
    }
    // What the service must be told, it is not asked without.
    let mut setup = service.list();
    setup.require = vec!["s".into()];
    let rest = beside(setup);
    rest.ensure_dataset(&small()).unwrap();
    service.kept.pages.store(0, Ordering::SeqCst);
    let e = rest.count(&small().id, &filter(json!({"id": "k01"}))).unwrap_err();
    assert!(e.to_string().contains("name s by one value"), "{e}");
    assert_eq!(service.kept.pages.load(Ordering::SeqCst), 0);
    assert_eq!(rest.count(&small().id, &filter(json!({"s": {"in": ["s1", "s2"]}}))).unwrap(), 20);
    let mut narrow = service.list();
    narrow.bytes_max = Some(1_024);
    let rest = beside(narrow);
    rest.ensure_dataset(&small()).unwrap();
    let e = rest.query(&plan(json!({}))).unwrap_err();
    assert!(e.code() == "holding.too-much" && e.to_string().contains("1024 bytes"), "{e}");
}

#[test]
fn a_record_of_its_own_address_is_one_row_or_none() {
    let service = service(rows(json!([{"id": "a/b", "s": "x"}, {"id": "..", "s": "dots"}])));
    let rest = beside(service.simple("/one/{id}"));
    rest.ensure_dataset(&small()).unwrap();
    assert_eq!(docs(&rest, &plan(json!({"id": "a/b"}))), [json!({"id": "a/b", "s": "x"})]);
    assert!(docs(&rest, &plan(json!({"id": "a/b", "s": "y"}))).is_empty());
    assert!(docs(&rest, &plan(json!({"id": "nobody"}))).is_empty());
    assert_eq!(rest.get(&small().id, "a/b").unwrap().unwrap()["s"], "x");
    assert_eq!(rest.get(&small().id, "c").unwrap(), None);
    for wide in [json!({}), json!({"s": "x"}), json!({"id": ".."}), json!({"id": ""})] {
        let e = rest.query(&plan(wide)).unwrap_err();
        assert_eq!(e.code(), "holding.too-much", "{e}");
    }
}

#[test]
fn next_pages_are_followed_and_redirects_only_at_home() {
    let service = service(rows(json!([{"id": "a"}, {"id": "b"}, {"id": "c"}])));
    let mut setup = service.simple("/chain/0");
    (setup.rows, setup.paging) = ("$.items".into(), RestPaging::Next(vec!["links".into(), "next".into()]));
    let rest = beside(setup);
    rest.ensure_dataset(&small()).unwrap();
    assert_eq!(rest.count(&small().id, &Filter::All).unwrap(), 3);
    let rest = beside(service.simple("/here"));
    rest.ensure_dataset(&small()).unwrap();
    assert_eq!(docs(&rest, &plan(json!({}))), [json!({"id": "a"})]);
    let rest = beside(service.simple("/away"));
    rest.ensure_dataset(&small()).unwrap();
    let e = rest.query(&plan(json!({}))).unwrap_err();
    assert!(e.code() == "holding.store" && e.to_string().contains("redirect to another server"), "{e}");
}

#[test]
fn errors_have_their_class_and_repeat_nothing() {
    let service = service(vec![]);
    let error = |setup: RestSetup, timeout: Duration| {
        let rest = beside_for(setup, timeout).unwrap();
        rest.ensure_dataset(&small()).unwrap();
        let e = rest.query(&plan(json!({"s": "Canary"}))).unwrap_err();
        let text = e.to_string();
        assert!(!text.contains("hunter2") && !text.contains("Canary") && !text.contains("/says"), "{text}");
        (e.code(), e.retry(), text)
    };
    let long = Duration::from_secs(30);
    for (status, code, retry) in [
        (401, "holding.access", false),
        (403, "holding.access", false),
        (404, "holding.store", false),
        (429, "holding.unreachable", true),
        (500, "holding.store", false),
        (503, "holding.unreachable", true),
        (504, "holding.timeout", false),
    ] {
        let mut setup = service.simple(&format!("/says/{status}"));
        setup.push_down = [("s".to_owned(), "s".to_owned())].into();
        let (found, again, text) = error(setup, long);
        assert_eq!((found, again), (code, retry), "{status}: {text}");
    }
    // The service answers 401 without the header; its own words stay there.
    let mut setup = service.list();
    setup.headers = [("Authorization".to_owned(), "Bearer other".to_owned())].into();
    assert_eq!(error(setup, long).0, "holding.access");
    assert_eq!(error(service.simple("/text"), long).0, "holding.store");
    assert_eq!(error(service.simple("/never"), Duration::from_millis(200)).0, "holding.timeout");
    let (code, retry, _) = error(RestSetup::new("http://127.0.0.1:1/x"), long);
    assert_eq!((code, retry), ("holding.unreachable", true));
    let (code, _, text) = error(service.simple("/fault/Server.ServerProxy.AccessDenied"), long);
    assert!(code == "holding.access" && text.contains("AccessDenied"), "{text}");
    assert_eq!(error(service.simple("/fault/Server.ClientProxy.NetworkError"), long).0, "holding.unreachable");
}

#[test]
fn x_road_headers_are_sent_with_an_id_of_each_message() {
    let service = service(vec![]);
    let mut setup = service.list();
    setup.headers.insert("X-Road-Client".into(), "FI/GOV/2296962-1/court".into());
    let rest = beside(setup);
    rest.ensure_dataset(&small()).unwrap();
    for _ in 0..2 {
        rest.query(&plan(json!({}))).unwrap();
    }
    let headers = service.kept.headers.lock().unwrap();
    let of = |n: usize, name: &str| headers[n][name].to_str().unwrap().to_owned();
    assert_eq!(of(0, "x-road-client"), "FI/GOV/2296962-1/court");
    assert_eq!(of(0, "x-road-id").len(), 36);
    assert_ne!(of(0, "x-road-id"), of(1, "x-road-id"));
}

#[test]
fn nothing_is_written_and_other_datasets_are_the_stores() {
    let service = service(vec![]);
    let dir = tempfile::tempdir().unwrap();
    let mut setup = HoldingSetup::new(format!("sqlite:{}", dir.path().join("h.sqlite").display()));
    setup.services = [(small().id, service.list())].into();
    let holding = open(&setup, Arc::new(jiff_now)).unwrap();
    holding.ensure_dataset(&small()).unwrap();
    let (id, given) = (small().id, row(json!({"id": "a"})));
    for e in [
        holding.put_many(&id, std::slice::from_ref(&given)).unwrap_err(),
        holding.write(&id, &given, &Expect::Any).unwrap_err(),
        holding.delete(&id, "a", &Expect::Any).unwrap_err(),
        holding.forget(&id, "id", &|_| true).unwrap_err(),
    ] {
        assert_eq!(e.code(), "holding.read-only");
    }
    assert!(!holding.may_write(&id).unwrap());
    let own = DatasetSpec { id: "ds:x/own@1".into(), ..small() };
    holding.ensure_dataset(&own).unwrap();
    holding.put_many(&own.id, std::slice::from_ref(&given)).unwrap();
    assert_eq!(holding.get(&own.id, "a").unwrap(), Some(given));
    assert!(holding.may_write(&own.id).unwrap());
    assert_eq!(holding.health().unwrap().datasets, 2);
}

fn jiff_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[test]
fn a_setup_that_makes_no_sense_is_named() {
    let refused = |change: &dyn Fn(&mut RestSetup)| {
        let mut setup = RestSetup::new("https://a.example/x");
        change(&mut setup);
        match beside_for(setup, Duration::from_secs(1)) {
            Ok(rest) => rest.ensure_dataset(&small()).unwrap_err().to_string(),
            Err(e) => e.to_string(),
        }
    };
    let told = |s: &mut RestSetup, field: &str| drop(s.push_down.insert(field.into(), "p".into()));
    for (change, words) in [
        (&(|s: &mut RestSetup| s.url = "http://a.example/x".into()) as &dyn Fn(&mut RestSetup), "plain_http"),
        (&|s: &mut RestSetup| s.url = "https://me:hunter2@a.example/x".into(), "no user and no password"),
        (&|s: &mut RestSetup| s.url = "https://{id}.example/x".into(), "stands in the path"),
        (&|s: &mut RestSetup| s.url = "https://a.example/x?id={id}".into(), "stands in the path"),
        (&|s: &mut RestSetup| s.rows = "$.a[0]".into(), "a path is"),
        (&|s: &mut RestSetup| told(s, "iD"), "did you mean id?"),
        (&|s: &mut RestSetup| told(s, "d-x"), "only texts, whole numbers and booleans"),
        (&|s: &mut RestSetup| told(s, "t"), "only texts, whole numbers and booleans"),
        (&|s: &mut RestSetup| s.require = vec!["i".into()], "say it under `push_down`"),
        (&|s: &mut RestSetup| s.rows_max = Some(20_000), "limits"),
    ] {
        let text = refused(change);
        assert!(text.contains(words) && !text.contains("hunter2"), "{words}: {text}");
    }
}
