//! A write that is carried out once: asked for again, after other writes and after a restart, it only tells what it did.

use std::time::Duration;

use concordat_executor::holding::{Expect, Fate, Once, Version};
use concordat_protocol::hash::Hash;
use serde_json::{Value, json};

use crate::{Store, row, small};

fn once(id: u8, i: Option<i64>, expect: Expect) -> Once {
    Once { id: [id; 32], key: "a".into(), row: i.map(|i| row(json!({"id": "a", "i": i}))), expect }
}

fn check(store: &Store) {
    let (h, id) = (&store.holding, small().id);
    h.ensure_dataset(&small()).unwrap();
    assert!(h.may_write(&id).unwrap());
    let value = || h.get(&id, "a").unwrap().map_or(Value::Null, |r| r["i"].clone());
    let version = |i: i64| h.write(&id, &row(json!({"id": "a", "i": i})), &Expect::Any).unwrap().now.unwrap();

    let insert = once(1, Some(1), Expect::Absent);
    assert_eq!((h.apply(&id, &insert).unwrap(), value()), (Fate::Done, json!(1)));
    assert_eq!((h.apply(&id, &insert).unwrap(), value()), (Fate::Done, json!(1)), "told, not done again");

    // Others bring back what was there before: the write is still not repeated.
    let one: Version = version(1);
    let change = once(2, Some(2), Expect::Version(one.clone()));
    assert_eq!((h.apply(&id, &change).unwrap(), value()), (Fate::Done, json!(2)));
    assert_eq!(version(1), one);
    let again = (store.reopen)();
    again.ensure_dataset(&small()).unwrap();
    assert_eq!((again.apply(&id, &change).unwrap(), value()), (Fate::Done, json!(1)), "nor after a restart");
    assert_eq!(again.void(&id, &change).unwrap(), Fate::Done, "what is done cannot be forbidden");

    // What does not fit is over for good, also when it would fit later.
    let late = once(3, Some(3), Expect::Version(Version::read("00")));
    assert_eq!((h.apply(&id, &late).unwrap(), value()), (Fate::Void, json!(1)));
    let fits = once(3, Some(3), Expect::Version(one.clone()));
    assert_eq!((h.apply(&id, &fits).unwrap(), value()), (Fate::Void, json!(1)));

    // What was forbidden is never done.
    let forbidden = once(4, Some(4), Expect::Version(one.clone()));
    assert_eq!(h.void(&id, &forbidden).unwrap(), Fate::Void);
    assert_eq!((h.apply(&id, &forbidden).unwrap(), value()), (Fate::Void, json!(1)));

    // A deletion leaves alone what came after it.
    let delete = once(5, None, Expect::Version(one));
    assert_eq!((h.apply(&id, &delete).unwrap(), value()), (Fate::Done, Value::Null));
    assert_eq!((h.apply(&id, &delete).unwrap(), value()), (Fate::Done, Value::Null));
    version(1);
    assert_eq!((h.apply(&id, &delete).unwrap(), value()), (Fate::Done, json!(1)));
    assert_eq!(h.apply(&id, &once(6, None, Expect::Present)).unwrap(), Fate::Done);
    assert_eq!(h.apply(&id, &once(7, None, Expect::Present)).unwrap(), Fate::Void);

    // A load over a written row does not make the write undone.
    let insert = once(8, Some(8), Expect::Absent);
    assert_eq!(h.apply(&id, &insert).unwrap(), Fate::Done);
    h.put_many(&id, &[row(json!({"id": "a", "i": 9}))]).unwrap();
    h.delete(&id, "a", &Expect::Any).unwrap();
    assert_eq!((h.apply(&id, &insert).unwrap(), value()), (Fate::Done, Value::Null));

    // What is ended is forgotten once it is old enough, and nothing else: the others are still told.
    let over = |ids: &[Hash]| Ok(ids.iter().map(|id| [1, 2].contains(&id[0])).collect());
    assert_eq!(h.forget_writes(Duration::from_secs(3_600), &over).unwrap(), 0, "too young");
    assert_eq!(h.forget_writes(Duration::ZERO, &over).unwrap(), 2);
    assert_eq!(h.forget_writes(Duration::ZERO, &over).unwrap(), 0);
    assert_eq!(h.apply(&id, &forbidden).unwrap(), Fate::Void);
    assert_eq!((h.apply(&id, &delete).unwrap(), value()), (Fate::Done, Value::Null));
    // The store says nothing of the first one any more.
    assert_eq!((h.apply(&id, &once(1, Some(1), Expect::Absent)).unwrap(), value()), (Fate::Done, json!(1)));

    let other = Once { key: "b".into(), ..once(9, Some(1), Expect::Any) };
    assert_eq!(h.apply(&id, &other).unwrap_err().code(), "holding.plan");
}

crate::on_every_store!(check);
