//! What is kept comes back, and no more of it than was said.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::feed::refused::REFUSED_BYTES;
use crate::feed::{Cursor, FeedProofError};

fn key(number: u64) -> Key {
    Key { provider: AgencyId::new("grid").unwrap(), number }
}

fn made(number: u64, name: &str) -> Created {
    Created {
        key: key(number),
        name: name.into(),
        agreement: "AGR-2026-0143".into(),
        version: 1,
        clause: "F1".into(),
        handle: 17,
        dataset: DatasetId::new("ds:grid/load@1").unwrap(),
        max_lag_ms: 2_000,
        filter: String::new(),
        fields: "[]".into(),
        purpose: "purp:grid-dispatch".into(),
        case: String::new(),
        created_by: "planner-1".into(),
        created_ms: 5,
        ending: false,
    }
}

async fn shelf(dir: &std::path::Path) -> Shelf {
    let shelf = Shelf::new(Store::open(&dir.join("b.sqlite")).unwrap());
    shelf.prepare().await.unwrap();
    shelf
}

#[tokio::test]
async fn a_subscription_is_kept_once_and_forgotten_whole() {
    let dir = tempfile::tempdir().unwrap();
    let s = shelf(dir.path()).await;
    let one = made(1 << 33, "mine");
    assert!(s.create(one.clone()).await.unwrap());
    s.ending(&one.key).await.unwrap();
    assert!(s.named("mine".into()).await.unwrap().unwrap().ending);
    assert!(!s.create(Created { version: 2, handle: 19, ..one.clone() }).await.unwrap(), "it was there");
    let again = s.named("mine".into()).await.unwrap().unwrap();
    assert_eq!((again.version, again.handle, again.ending, again.created_ms), (2, 19, false, 5));
    assert!(s.create(made(1 << 34, "mine")).await.is_err(), "a name stands for one");
    s.acked(&one.key, Acked { sub_seq: 3, messages: 1 }, 44).await.unwrap();
    s.index(one.key.clone(), 1, 40, 1_000).await.unwrap();
    s.forget(&one.key).await.unwrap();
    assert_eq!((s.created().await.unwrap(), s.kept(&one.key).await.unwrap()), (vec![], None));
}

#[tokio::test]
async fn a_seek_and_a_pause_survive_a_restart_and_an_acknowledgement_ends_the_seek() {
    let dir = tempfile::tempdir().unwrap();
    let (s, k) = (shelf(dir.path()).await, key(17));
    assert_eq!(s.kept(&k).await.unwrap(), None);
    s.acked(&k, Acked { sub_seq: 9, messages: 0 }, 90).await.unwrap();
    let seek = Seek { start: Start::After(Cursor { sub_seq: 4, index: 2 }), place: 7 };
    s.seek(&k, &seek).await.unwrap();
    s.pause(&k, Some(("planner-1".into(), 77))).await.unwrap();
    drop(s);
    let s = shelf(dir.path()).await;
    let kept = s.kept(&k).await.unwrap().unwrap();
    assert_eq!((kept.acked.sub_seq, kept.place, kept.seek), (9, 90, Some(seek)));
    assert_eq!(kept.paused, Some(("planner-1".into(), 77)));
    s.acked(&k, Acked { sub_seq: 5, messages: 0 }, 8).await.unwrap();
    s.pause(&k, None).await.unwrap();
    let kept = s.kept(&k).await.unwrap().unwrap();
    assert_eq!((kept.acked.sub_seq, kept.seek, kept.paused), (5, None, None));
    assert_eq!(s.kept(&Key { provider: AgencyId::new("police").unwrap(), number: 17 }).await.unwrap(), None);
}

#[tokio::test]
async fn a_seek_starts_at_the_nearest_place_before_it_never_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (s, k) = (shelf(dir.path()).await, key(17));
    for (sub_seq, place, ms) in [(1, 10, 1_000), (64, 80, 5_000), (128, 150, 9_000)] {
        s.index(k.clone(), sub_seq, place, ms).await.unwrap();
    }
    assert_eq!(s.kept(&k).await.unwrap(), None, "places alone are no position");
    for (start, place) in [
        (Start::First, 1),
        (Start::From(63), 10),
        (Start::From(64), 80),
        (Start::After(Cursor { sub_seq: 500, index: 0 }), 150),
        (Start::Since(9_000), 80),
        (Start::Since(9_001), 150),
        (Start::Since(1_000), 1),
    ] {
        assert_eq!(s.place_before(&k, start).await.unwrap(), place, "{start:?}");
    }
    s.opened(&k, Acked::default()).await.unwrap();
    assert_eq!(s.kept(&k).await.unwrap().unwrap().indexed, Some((128, 9_000)));
    s.index(k.clone(), 200, 300, 9_000 + INDEX_MS).await.unwrap();
    assert_eq!(s.place_before(&k, Start::From(130)).await.unwrap(), 150);
    assert_eq!(s.place_before(&k, Start::From(70)).await.unwrap(), 1, "items of that time are not kept any more");
}

#[tokio::test]
async fn the_newest_hundred_refused_deliveries_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (s, k) = (shelf(dir.path()).await, key(17));
    let why = FeedProofError { check: "seal", sentence: "wrong".into() };
    for i in 0..103u64 {
        s.refuse(&k, i, i, &why, &[7; 3]).await.unwrap();
    }
    s.refuse(&k, 104, 104, &why, &vec![0; REFUSED_BYTES + 1]).await.unwrap();
    let all = s.all_refused(&k).await.unwrap();
    assert_eq!((all.len(), all[0].n, all[99].n), (100, 5, 104));
    assert_eq!(s.one_refused(&k, 5).await.unwrap().unwrap().bytes, Some(vec![7; 3]));
    let large = s.one_refused(&k, 104).await.unwrap().unwrap();
    assert_eq!((large.bytes, large.size, large.sha256.len()), (None, REFUSED_BYTES as u64 + 1, 64));
    assert_eq!(s.one_refused(&k, 1).await.unwrap(), None);
}
