#![allow(clippy::unwrap_used)]
use super::*;

fn item(sub_seq: u64) -> NewItem {
    NewItem {
        sub_seq,
        place: 30 + sub_seq,
        lens: [7; 32],
        root: [sub_seq as u8; 32],
        delivered_ms: 1_000 + sub_seq,
        messages: 2,
        bytes: vec![sub_seq as u8; 3].into(),
        subjects: vec![sub_seq as u8; 32],
    }
}

fn detail() -> Detail {
    Detail { op: b"op".to_vec(), subjects: vec![[5; 32]], ..Detail::default() }
}

fn round(numbers: &[u64], stream_seq: u64) -> Round {
    let items: Vec<NewItem> = numbers.iter().copied().map(item).collect();
    let last_sub_seq = numbers.last().copied().unwrap_or_default();
    Round { items, stream_seq, last_sub_seq, clause: None }
}

fn numbers(unsent: &[Unsent]) -> Vec<u64> {
    unsent.iter().map(|u| u.sub_seq).collect()
}

#[tokio::test]
async fn after_a_crash_the_same_bytes_are_there_until_they_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("executor/feeds.sqlite");
    let store = FeedStore::open(&path).unwrap();
    assert_eq!(store.standing(7, 0).await.unwrap(), Standing::default());
    store.keep(7, round(&[1, 2, 3], 40)).await.unwrap();
    store.keep(8, round(&[1], 5)).await.unwrap();
    store.appended(7, 1, true).unwrap();
    store.keep_clause(7, "{}".into()).await.unwrap();
    drop(store);
    let store = FeedStore::open(&path).unwrap();
    let at = store.standing(7, 0).await.unwrap();
    assert_eq!((at.stream_seq, at.last_sub_seq, at.delivered_messages), (40, 3, 6));
    let want = |n: u64| Unsent { sub_seq: n, place: 30 + n, lens: [7; 32], bytes: vec![n as u8; 3].into() };
    assert_eq!(at.unsent, [want(2), want(3)]);
    assert_eq!(at.open.iter().map(|o| o.sub_seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(store.keep(7, round(&[3], 41)).await.is_err(), "a number is never given twice");
    assert_eq!(store.standing(7, 0).await.unwrap().stream_seq, 40, "a refused write changes nothing");
}

#[tokio::test]
async fn what_is_anchored_is_settled_and_unsent_bytes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = FeedStore::open(&dir.path().join("f.sqlite")).unwrap();
    store.keep(7, round(&[1, 2, 3], 40)).await.unwrap();
    store.appended(7, 1, true).unwrap();
    store.operation(7, 2, [9; 32], [1; 32], detail()).await.unwrap();
    assert_eq!(store.standing(7, 0).await.unwrap().ops, [OpenOp { last_sub_seq: 2, op_hash: [9; 32] }]);
    store.anchored(7, 2, 90).await.unwrap();
    let at = store.standing(7, 2).await.unwrap();
    assert!(at.ops.is_empty());
    assert_eq!(at.open.iter().map(|o| o.sub_seq).collect::<Vec<_>>(), [3]);
    assert_eq!(numbers(&at.unsent), [2, 3], "2 is anchored, but may not be appended yet");
}

#[tokio::test]
async fn withdrawn_items_are_not_sent_but_anchored_and_the_stream_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FeedStore::open(&dir.path().join("f.sqlite")).unwrap();
    store.keep(7, round(&[1, 2, 3], 40)).await.unwrap();
    store.withdraw(7, 2, 31).await.unwrap();
    let at = store.standing(7, 0).await.unwrap();
    assert_eq!((numbers(&at.unsent), at.stream_seq, at.last_sub_seq, at.open.len()), (vec![1], 31, 3, 3));
}

#[tokio::test]
async fn without_evidence_nothing_is_left_of_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let store = FeedStore::open(&dir.path().join("f.sqlite")).unwrap();
    store.keep(7, round(&[1, 2], 40)).await.unwrap();
    store.appended(7, 1, false).unwrap();
    let at = store.standing(7, 0).await.unwrap();
    assert_eq!((numbers(&at.unsent), at.open.len()), (vec![2], 1));
}

#[tokio::test]
async fn a_store_of_the_first_version_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "CREATE TABLE subscription (subscription INTEGER PRIMARY KEY, stream_seq INTEGER NOT NULL, last_sub_seq INTEGER NOT NULL) STRICT;
         CREATE TABLE item (subscription INTEGER NOT NULL, sub_seq INTEGER NOT NULL, root BLOB NOT NULL,
           delivered_ms INTEGER NOT NULL, messages INTEGER NOT NULL, bytes BLOB, PRIMARY KEY (subscription, sub_seq)) STRICT, WITHOUT ROWID;
         INSERT INTO subscription VALUES (7, 40, 1);
         INSERT INTO item VALUES (7, 1, zeroblob(32), 5, 2, x'01');",
    )
    .unwrap();
    drop(old);
    let store = FeedStore::open(&path).unwrap();
    store.keep(7, round(&[2], 41)).await.unwrap();
    let at = store.standing(7, 0).await.unwrap();
    assert_eq!((numbers(&at.unsent), at.stream_seq), (vec![1, 2], 41));
}
