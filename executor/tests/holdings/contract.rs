//! What every store does.

use concordat_executor::holding::{Expect, HoldingError, Plan, PutReport, Rows, Version};
use concordat_executor::limits::MAX_PUT_ROWS;
use concordat_executor::query::{Filter, Order, parse_filter};
use serde_json::{Map, Value, json};

use crate::{FIELDS, Store, numbered, row, rows, small, spec};

fn plan(filter: Value) -> Plan {
    Plan::new(&small().id, parse_filter(&filter, &small().fields, "").unwrap())
}

fn keys(found: &Rows) -> Vec<&str> {
    found.rows.iter().map(|r| r.key.as_str()).collect()
}

fn puts_are_whole_and_repeats_change_nothing(store: &Store) {
    let (h, spec) = (&store.holding, small());
    h.ensure_dataset(&spec).unwrap();
    let put = |v: Value| h.put_many(&spec.id, &rows(v));
    let batch =
        json!([{"id": "a", "s": "x\"'%;\\_"}, {"id": "b", "d-x": 0.1, "t": "2017-03-14T02:00:00+02:00", "i": null}]);
    assert_eq!(put(batch.clone()).unwrap(), PutReport { inserted: 2, updated: 0, unchanged: 0 });
    assert_eq!(put(batch).unwrap(), PutReport { inserted: 0, updated: 0, unchanged: 2 });
    assert_eq!(put(json!([{"id": "a", "s": "y"}, {"id": "a", "s": "z"}])).unwrap().updated, 2);
    assert_eq!(put(json!([{"id": "c"}, {"id": "d", "i": "1"}])).unwrap_err().code(), "holding.type");
    assert_eq!(put(json!([{"id": "c"}, {"id": "d", "nosuch": "1"}])).unwrap_err().code(), "holding.unknown-field");
    assert_eq!(h.get(&spec.id, "c").unwrap(), None);
    assert_eq!(Value::Object(h.get(&spec.id, "a").unwrap().unwrap()), json!({"id": "a", "s": "z"}));
    let b = h.get(&spec.id, "b").unwrap().unwrap();
    assert_eq!(Value::Object(b), json!({"id": "b", "d-x": 0.1, "t": "2017-03-14T02:00:00+02:00", "i": null}));
    let many = vec![Map::new(); MAX_PUT_ROWS + 1];
    assert_eq!(h.put_many(&spec.id, &many).unwrap_err().code(), "holding.too-large");
    assert_eq!(h.put_many("ds:no/such@1", &[]).unwrap_err().code(), "holding.unknown-dataset");
    assert!(h.health().unwrap().datasets == 1);
}

fn pages_follow_each_other_without_gap_or_repeat(store: &Store) {
    let h = &store.holding;
    h.ensure_dataset(&small()).unwrap();
    let all: Vec<_> = (0..250).map(|n| json!({"id": format!("k{n:03}"), "i": n % 7})).collect();
    h.put_many(&small().id, &rows(Value::Array(all))).unwrap();
    for (filter, order) in [
        (json!({}), Order::Key),
        (json!({}), Order::KeyDescending),
        (json!({"i": {"in": [1, 3]}}), Order::Key),
        (json!({"i": {"ne": 1}}), Order::KeyDescending),
    ] {
        let mut p = plan(filter);
        (p.order, p.limit) = (order, 13);
        p.select = Some(vec!["i".into()]);
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = h.query(&p).unwrap();
            assert!(page.rows.iter().all(|r| r.doc.keys().eq(["i"])));
            seen.extend(page.rows.iter().map(|r| r.key.clone()));
            match page.next_after() {
                Some(key) => p.after = Some(key.to_string()),
                None => break,
            }
        }
        let mut wanted: Vec<String> =
            (0..250).filter(|n| p.filter.matches(&row(json!({"i": n % 7})))).map(|n| format!("k{n:03}")).collect();
        if order == Order::KeyDescending {
            wanted.reverse();
        }
        assert_eq!(seen, wanted);
        assert_eq!(h.count(&small().id, &p.filter).unwrap(), wanted.len() as u64);
    }
}

fn a_page_too_long_ends_early_and_loses_nothing(store: &Store) {
    let h = &store.holding;
    let spec = spec(&["id"], &FIELDS, &[]);
    h.ensure_dataset(&spec).unwrap();
    let all: Vec<_> = (0..30).map(|n| json!({"id": format!("k{n:02}"), "s": "x".repeat(200_000)})).collect();
    h.put_many(&spec.id, &rows(Value::Array(all))).unwrap();
    let mut p = plan(json!({}));
    let first = h.query(&p).unwrap();
    assert!(first.rows.len() < 30 && first.next_after().is_some());
    p.after = first.next_after().map(String::from);
    let second = h.query(&p).unwrap();
    assert_eq!((second.next_after(), first.rows.len() + second.rows.len()), (None, 30));
}

fn constants_and_keys_are_data(store: &Store) {
    let h = &store.holding;
    h.ensure_dataset(&small()).unwrap();
    let evil = "'); DROP TABLE d1; --$1 {$gt: \"\"}";
    h.put_many(&small().id, &rows(json!([{"id": evil, "s": evil, "key": "k", "xmin": 7}, {"id": "x"}]))).unwrap();
    for f in [
        json!({"s": evil}),
        json!({"s": {"in": [evil, "\"]"]}}),
        json!({"s": {"prefix": "'); DROP"}}),
        json!({"key": "k", "xmin": 7}),
    ] {
        assert_eq!(keys(&h.query(&plan(f)).unwrap()), [evil]);
    }
    assert!(h.get(&small().id, evil).unwrap().is_some());
    let mut p = plan(json!({}));
    p.select = Some(vec!["s' || key || '".into()]);
    assert_eq!(h.query(&p).unwrap_err().code(), "holding.plan");
    p.select = None;
    p.limit = 0;
    assert_eq!(h.query(&p).unwrap_err().code(), "holding.plan");
    assert_eq!(h.count(&small().id, &Filter::All).unwrap(), 2);
}

fn rows_survive_reopening_and_a_spec_only_grows(store: &Store) {
    let old = small();
    store.holding.ensure_dataset(&old).unwrap();
    store.holding.put_many(&old.id, &rows(json!([{"id": "a", "i": 5}]))).unwrap();
    let h = (store.reopen)();
    assert_eq!(h.spec(&old.id).unwrap(), old);
    assert_eq!(h.count(&old.id, &Filter::All).unwrap(), 1);
    let mut grown = FIELDS.to_vec();
    grown.insert(1, ("extra", concordat_executor::query::FieldType::Decimal));
    let new = spec(&["id"], &grown, &[&["b"], &["extra"]]);
    h.ensure_dataset(&new).unwrap();
    h.put_many(&new.id, &rows(json!([{"id": "b", "extra": "7.0"}]))).unwrap();
    let by_extra = Plan::new(&new.id, parse_filter(&json!({"extra": 7}), &new.fields, "").unwrap());
    assert_eq!(keys(&h.query(&by_extra).unwrap()), ["b"]);
    assert_eq!(h.ensure_dataset(&old).unwrap_err().code(), "holding.spec-conflict");
    let mut other = new.clone();
    other.key = vec!["s".into()];
    assert_eq!(h.ensure_dataset(&other).unwrap_err().code(), "holding.spec-conflict");
    other.indexes = vec![vec!["nowhere".into()]];
    assert_eq!(h.ensure_dataset(&other).unwrap_err().code(), "holding.spec");
    assert_eq!((store.reopen)().spec(&old.id).unwrap(), new);
}

fn an_index_answers_equality_ranges_and_lists(store: &Store) {
    let h = &store.holding;
    h.ensure_dataset(&small()).unwrap();
    let all: Vec<_> = (0..5_000).map(numbered).collect();
    h.put_many(&small().id, &rows(Value::Array(all))).unwrap();
    for filter in [
        json!({"i": 4711}),
        json!({"i": {"in": [1, 2, 3]}}),
        json!({"i": {"range": {"from": 10, "to": 20}}}),
        json!({"s": {"eq": "s5"}, "b": {"exists": false}}),
        json!({"d-x": "49.6"}),
        json!({"id": {"in": ["k00001", "k00002"]}}),
        json!({"lat": {"near": {"lon": "lon", "at": {"lat": 44.97, "lon": -93.2}, "metres": 50}}}),
    ] {
        let explained = h.explain(&plan(filter.clone())).unwrap();
        assert!(explained.contains(store.indexed), "{filter}: {explained}");
    }
    // The proof that the word is no constant: nothing indexes this one.
    let scan = h.explain(&plan(json!({"key": "x"}))).unwrap();
    assert!(!scan.contains(store.indexed), "{scan}");
}

fn a_write_happens_only_where_the_record_is_as_expected(store: &Store) {
    let (h, id) = (&store.holding, small().id);
    h.ensure_dataset(&small()).unwrap();
    let write = |n: i64, expect: &Expect| h.write(&id, &row(json!({"id": "a", "i": n})), expect);
    let none = Expect::Version(Version::read("00"));
    for expect in [&Expect::Present, &none] {
        assert_eq!(write(0, expect).unwrap_err(), HoldingError::Conflict { key: "a".into(), found: None });
    }
    let first = write(1, &Expect::Absent).unwrap();
    assert_eq!((first.key.as_str(), &first.before), ("a", &None));
    let one = first.now.unwrap();
    let again = write(2, &Expect::Absent).unwrap_err();
    assert_eq!(
        (again.code(), again),
        ("holding.conflict", HoldingError::Conflict { key: "a".into(), found: Some(one.clone()) })
    );
    let second = write(2, &Expect::Version(one.clone())).unwrap();
    assert_eq!(second.before, Some(one.clone()));
    let two = second.now.unwrap();
    assert_ne!(one, two);
    assert_eq!(write(3, &Expect::Version(one.clone())).unwrap_err().code(), "holding.conflict");
    assert_eq!(h.delete(&id, "a", &Expect::Version(one)).unwrap_err().code(), "holding.conflict");
    assert_eq!(h.get(&id, "a").unwrap().unwrap()["i"], json!(2));
    assert_eq!(keys(&h.query(&plan(json!({"i": 2}))).unwrap()), ["a"], "the index follows");
    let gone = h.delete(&id, "a", &Expect::Version(two.clone())).unwrap();
    assert_eq!((gone.before, gone.now), (Some(two), None));
    assert_eq!(h.get(&id, "a").unwrap(), None);
    assert_eq!(h.delete(&id, "a", &Expect::Any).unwrap().before, None);
    assert_eq!(h.delete(&id, "a", &Expect::Present).unwrap_err().code(), "holding.conflict");
    assert_eq!(h.write(&id, &row(json!({"i": 1})), &Expect::Any).unwrap_err().code(), "holding.no-key");
}

fn of_many_writers_who_saw_the_same_version_one_wins(store: &Store) {
    let (h, id) = (&store.holding, small().id);
    h.ensure_dataset(&small()).unwrap();
    for round in 0..5 {
        let created: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = (0..4)
                .map(|n| {
                    s.spawn(move || {
                        h.write(&small().id, &row(json!({"id": format!("r{round}"), "i": n})), &Expect::Absent)
                    })
                })
                .collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(created.iter().filter(|r| r.is_ok()).count(), 1, "{created:?}");
        let seen = created.into_iter().find_map(Result::ok).and_then(|w| w.now).unwrap();
        let changed: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = (10..14)
                .map(|n| {
                    let expect = Expect::Version(seen.clone());
                    s.spawn(move || h.write(&small().id, &row(json!({"id": format!("r{round}"), "i": n})), &expect))
                })
                .collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let won: Vec<_> = changed.iter().flatten().collect();
        assert_eq!(won.len(), 1, "{changed:?}");
        assert!(changed.iter().flatten().all(|w| w.before.as_ref() == Some(&seen)));
        assert!(changed.iter().filter_map(|r| r.as_ref().err()).all(|e| e.code() == "holding.conflict"), "{changed:?}");
    }
    assert_eq!(h.count(&id, &Filter::All).unwrap(), 5);
}

fn the_forgotten_are_gone_and_the_others_stay(store: &Store) {
    let (h, id) = (&store.holding, small().id);
    h.ensure_dataset(&small()).unwrap();
    let all: Vec<_> = (0..50).map(|n| json!({"id": format!("k{n}"), "s": format!("person {}", n % 5)})).collect();
    h.put_many(&id, &rows(Value::Array(all))).unwrap();
    assert_eq!(h.forget(&id, "s", &|t| t == "person 3").unwrap(), 10);
    assert_eq!(h.count(&id, &Filter::All).unwrap(), 40);
    assert!(h.query(&plan(json!({"s": "person 3"}))).unwrap().rows.is_empty());
    assert_eq!(h.forget(&id, "s", &|t| t == "person 3").unwrap(), 0);
    assert_eq!(h.forget(&id, "nothing", &|_| true).unwrap_err().code(), "holding.plan");
}

fn distances_are_the_same_everywhere(store: &Store) {
    let (h, id) = (&store.holding, small().id);
    h.ensure_dataset(&small()).unwrap();
    let grid: Vec<_> = (0..900)
        .map(|n| json!({"id": format!("k{n:03}"), "lat": format!("{:.4}", 44.9 + f64::from(n / 30) * 0.002), "lon": -93.3 + f64::from(n % 30) * 0.003}))
        .collect();
    let grid = rows(Value::Array(grid));
    h.put_many(&id, &grid).unwrap();
    let near = json!({"lat": {"near": {"lon": "lon", "at": {"lat": "44.93", "lon": -93.26}, "metres": 1500}}});
    for filter in [
        near.clone(),
        json!({"not": near.clone()}),
        json!({"or": [near.clone(), {"id": "k000"}]}),
        json!({"and": [near, {"id": {"prefix": "k4"}}]}),
    ] {
        let mut p = plan(filter);
        p.limit = 37;
        p.select = Some(vec!["id".into()]);
        let wanted: Vec<&str> =
            grid.iter().filter(|r| p.filter.matches(r)).map(|r| r["id"].as_str().unwrap()).collect();
        assert!(wanted.len() > 20);
        assert_eq!(h.count(&id, &p.filter).unwrap(), wanted.len() as u64);
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = h.query(&p).unwrap();
            assert!(page.rows.iter().all(|r| r.doc.keys().eq(["id"])), "only what was asked");
            seen.extend(page.rows.iter().map(|r| r.key.clone()));
            match page.next_after() {
                Some(key) => p.after = Some(key.to_owned()),
                None => break,
            }
        }
        assert_eq!(seen, wanted);
    }
}

fn many_read_while_one_writes(store: &Store) {
    let (h, id) = (&store.holding, small().id);
    h.ensure_dataset(&small()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // A batch is seen whole or not at all.
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(h.count(&small().id, &Filter::All).unwrap() % 10, 0)));
        }
        for n in 0..10 {
            let batch: Vec<_> = (0..10).map(|m| json!({"id": format!("{n}-{m}")})).collect();
            h.put_many(&id, &rows(Value::Array(batch))).unwrap();
        }
    });
    assert_eq!(h.count(&id, &Filter::All).unwrap(), 100);
}

fn keys_of_several_fields_are_ordered_by_their_text(store: &Store) {
    use concordat_executor::query::FieldType::{Integer, String, Timestamp};
    let h = &store.holding;
    let spec = spec(&["a", "n", "t"], &[("a", String), ("n", Integer), ("t", Timestamp)], &[]);
    h.ensure_dataset(&spec).unwrap();
    let all = rows(json!([
        {"a": "x|", "n": 10, "t": "2017-03-14T00:00:00.25Z"}, {"a": "x", "n": 9, "t": "2017-03-14T02:00:00+02:00"},
        {"a": "é\\", "n": 10, "t": "2017-03-14T00:00:00Z"}, {"a": "x", "n": 10, "t": "2017-03-14T00:00:00Z"},
    ]));
    h.put_many(&spec.id, &all).unwrap();
    let found = h.query(&Plan::new(&spec.id, Filter::All)).unwrap();
    let wanted = [
        "x\\||10|2017-03-14T00:00:00.25Z",
        "x|10|2017-03-14T00:00:00Z",
        "x|9|2017-03-14T00:00:00Z",
        "é\\\\|10|2017-03-14T00:00:00Z",
    ];
    assert_eq!(keys(&found), wanted);
    assert_eq!(h.get(&spec.id, wanted[0]).unwrap().unwrap(), all[0]);
}

macro_rules! contract {
    ($($store:ident: $make:path => [$($name:ident),* $(,)?];)*) => {
        $(mod $store {
            $(#[test]
            fn $name() {
                if let Some(store) = $make() {
                    super::$name(&store);
                }
            })*
        })*
    };
}

macro_rules! every_store {
    ($($name:ident),* $(,)?) => {
        contract! {
            sqlite: crate::sqlite => [$($name,)* an_index_answers_equality_ranges_and_lists, of_many_writers_who_saw_the_same_version_one_wins];
            postgres: crate::postgres::fresh => [$($name,)* an_index_answers_equality_ranges_and_lists, of_many_writers_who_saw_the_same_version_one_wins];
            mongodb: crate::mongo::fresh => [$($name),*];
            // FerretDB has neither: it scans, and it replaces in two steps.
            mongodb_itself: crate::mongo::itself => [an_index_answers_equality_ranges_and_lists, of_many_writers_who_saw_the_same_version_one_wins];
        }
    };
}

every_store![
    puts_are_whole_and_repeats_change_nothing,
    pages_follow_each_other_without_gap_or_repeat,
    a_page_too_long_ends_early_and_loses_nothing,
    constants_and_keys_are_data,
    rows_survive_reopening_and_a_spec_only_grows,
    a_write_happens_only_where_the_record_is_as_expected,
    the_forgotten_are_gone_and_the_others_stay,
    distances_are_the_same_everywhere,
    many_read_while_one_writes,
    keys_of_several_fields_are_ordered_by_their_text,
];
