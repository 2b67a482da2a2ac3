//! The lease of the executor at work: one holder a term, and nothing is written under a term that is not the newest.

use concordat_executor::holding::{Expect, Fate, Once};
use concordat_executor::lease::Bid;
use serde_json::{Value, json};

use crate::{Store, row, small};

/// Longer than any of these tests.
const LONG: u64 = 600_000;

fn bid(holder: &str, term: Option<u64>, lease_ms: u64) -> Bid {
    Bid { holder: holder.into(), term, lease_ms, ..Bid::default() }
}

fn once(id: u8, key: &str) -> Once {
    Once { id: [id; 32], key: key.into(), row: Some(row(json!({"id": key, "s": "who"}))), expect: Expect::Any }
}

fn check(store: &Store) {
    let (old, id) = (&store.holding, small().id);
    old.ensure_dataset(&small()).unwrap();
    let new = (store.reopen)();
    new.ensure_dataset(&small()).unwrap();

    let first = old.lease(&bid("a", None, LONG)).unwrap();
    assert!(first.granted && first.lease.term == 1, "{first:?}");
    old.bind(1);
    assert_eq!(old.apply(&id, &once(1, "k1")).unwrap(), Fate::Done);
    let refused = new.lease(&bid("b", None, LONG)).unwrap();
    assert!(!refused.granted && refused.lease.holder == "a", "{refused:?}");
    assert!(old.lease(&bid("a", Some(1), LONG)).unwrap().granted, "renewed");

    // The holder is known to have died: the next one need not wait.
    let taken = new.lease(&Bid { dead: Some("a".into()), ..bid("b", None, LONG) }).unwrap();
    assert!(taken.granted && taken.lease.term == 2, "{taken:?}");
    new.bind(2);
    assert_eq!(new.apply(&id, &once(2, "k2")).unwrap(), Fate::Done);
    // It was not dead after all, and goes on: nothing it does has an effect.
    let code = |e: concordat_executor::holding::HoldingError| e.code();
    assert_eq!(old.apply(&id, &once(3, "k3")).map_err(code), Err("holding.fenced"));
    assert_eq!(old.void(&id, &once(4, "k4")).map_err(code), Err("holding.fenced"));
    assert_eq!(old.forget(&id, "s", &|_| true).map_err(code), Err("holding.fenced"));
    let late = old.lease(&bid("a", Some(1), LONG)).unwrap();
    assert!(!late.granted && late.lease.term == 2, "{late:?}");
    let value = |key: &str| new.get(&id, key).unwrap().map_or(Value::Null, |r| r["s"].clone());
    assert_eq!((value("k1"), value("k2"), value("k3")), (json!("who"), json!("who"), Value::Null));
    // What the former one was refused is still to be done by the new one, and once.
    assert_eq!(new.apply(&id, &once(3, "k3")).unwrap(), Fate::Done);
    assert_eq!(new.apply(&id, &once(4, "k4")).unwrap(), Fate::Done, "its prohibition did not count");

    // A load of records asks for no term.
    let load = (store.reopen)();
    load.ensure_dataset(&small()).unwrap();
    load.put_many(&id, &[row(json!({"id": "k9"}))]).unwrap();

    // Given back, it is free at once, and terms only grow.
    assert!(new.lease(&bid("b", Some(2), 0)).unwrap().granted);
    let back = old.lease(&bid("c", None, LONG)).unwrap();
    assert!(back.granted && back.lease.term == 3, "{back:?}");
    assert_eq!(new.apply(&id, &once(5, "k5")).map_err(code), Err("holding.fenced"));
}

crate::on_every_store!(check);

/// Many ask at once: one gets it. FerretDB compares and sets in two steps, so this asks for a MongoDB.
#[test]
fn of_many_who_ask_at_once_one_is_at_work() {
    let stores = [crate::sqlite(), crate::postgres::fresh(), crate::mongo::itself()];
    for store in stores.into_iter().flatten() {
        let handles: Vec<_> = (0..6).map(|_| (store.reopen)()).collect();
        let granted = std::thread::scope(|scope| {
            let asking: Vec<_> = handles
                .iter()
                .enumerate()
                .map(|(i, h)| scope.spawn(move || h.lease(&bid(&format!("e{i}"), None, LONG)).unwrap().granted))
                .collect();
            asking.into_iter().map(|t| t.join().unwrap()).filter(|granted| *granted).count()
        });
        assert_eq!(granted, 1);
    }
}
