#![allow(clippy::unwrap_used)]
use super::*;
use crate::gateway::asked::AHEAD;
use crate::gateway::records::{QueryRecord, Records};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{Signature, Suite};
use concordat_protocol::node::{StoreRoots, session_leaf_key};
use concordat_protocol::receipt::{Checkpoint, Cosignature};

fn shelf() -> (tempfile::TempDir, Shelf, Records) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("b.sqlite")).unwrap();
    (dir, Shelf::new(store.clone()), Records::new(store))
}

fn view(height: u64, log_size: u64) -> CheckpointView {
    let roots = StoreRoots { heads: [1; 32], log: [2; 32], meta: [3; 32], runs: [4; 32] };
    let checkpoint = Checkpoint { chain: "c".into(), height, tick_ms: height * 1_000, log_size, roots };
    CheckpointView { checkpoint, cosignatures: vec![] }
}

fn kept(height: u64, log_size: u64) -> KeptCheckpoint {
    KeptCheckpoint { view: view(height, log_size), header: vec![1], validators: vec![2], last: false }
}

fn leaves(height: u64, sessions: &[u64]) -> LeavesProof {
    let leaf = |s: &u64| LeafProof {
        key: session_leaf_key(*s).into(),
        value: vec![*s as u8].into(),
        index: 0,
        size: 1,
        path: vec![],
    };
    let roots = view(height, 0).checkpoint.roots;
    LeavesProof { height, roots, keys: vec![], sessions: sessions.iter().map(leaf).collect() }
}

fn cosigned(height: u64, log_size: u64) -> CheckpointView {
    let signature = Signature { suite: Suite::Hybrid, ed25519: vec![0; 64].into(), pq: vec![0; 3_309].into() };
    let c = Cosignature { agency: AgencyId::new("court").unwrap(), archived_height: 0, signature };
    CheckpointView { cosignatures: vec![c], ..view(height, log_size) }
}

#[tokio::test]
async fn what_was_asked_is_known_before_and_after_its_answer() {
    let (_dir, shelf, records) = shelf();
    records.asked(7, 1).await.unwrap();
    records.asked(7, 2).await.unwrap();
    let answered = QueryRecord { session: 7, n: 2, op: Some(40), released: Some(vec![1]), ..Default::default() };
    records.keep(answered, None).await.unwrap();
    // Kept by a release that did not write down what it asked.
    records.keep(QueryRecord { session: 6, n: 9, ..Default::default() }, None).await.unwrap();
    let found = shelf.places(vec![(7, 1), (7, 2), (7, 3), (6, 9)]).await.unwrap();
    let asked = Place { asked: true, released: None };
    assert_eq!(found, [asked, Place { released: Some(40), ..asked }, Place::default(), asked]);
}

#[tokio::test]
async fn what_may_have_been_asked_before_a_crash_is_not_disputed() {
    let (dir, shelf, records) = shelf();
    let places = vec![(7, 300), (7, 301), (7, 300 + AHEAD), (7, 301 + AHEAD), (8, 1)];
    for n in 1..=300 {
        records.asked(7, n).await.unwrap();
    }
    let asked = |found: Vec<Place>| found.iter().map(|p| p.asked).collect::<Vec<_>>();
    assert_eq!(asked(shelf.places(places.clone()).await.unwrap()), [true, false, false, false, false]);
    let again = Shelf::new(Store::open(&dir.path().join("b.sqlite")).unwrap());
    let found = asked(again.places(places).await.unwrap());
    assert_eq!(found[..2], [true, true], "nothing that was asked, and what may have been");
    assert_eq!(found[3..], [false, false], "no more than what runs ahead");
}

#[tokio::test]
async fn a_dispute_is_kept_until_the_ledger_has_it() {
    let (_dir, shelf, _) = shelf();
    let accused = Accused { index: 40, reason: "not asked".into() };
    shelf.compared(50, vec![(7, 40)], vec![accused]).await.unwrap();
    assert_eq!(shelf.named_from().await.unwrap(), 50);
    let unfiled = shelf.unfiled().await.unwrap();
    assert_eq!((unfiled.len(), unfiled[0].reference, unfiled[0].by.as_str()), (1, 40, "broker"));
    let again = shelf.dispute(40, "another reason".into(), "operator".into()).await.unwrap();
    assert_eq!(again, unfiled[0], "the salt of what may be on the ledger never changes");
    shelf.filed(40, 61).await.unwrap();
    assert!(shelf.unfiled().await.unwrap().is_empty());
    assert_eq!(shelf.dispute_of(40).await.unwrap().unwrap().op, Some(61));
}

#[tokio::test]
async fn sessions_are_settled_by_a_final_checkpoint_alone() {
    let (_dir, shelf, _) = shelf();
    shelf.compared(50, vec![(7, 10), (8, 48)], vec![]).await.unwrap();
    assert_eq!(shelf.unsettled(40).await.unwrap(), [7]);
    shelf.keep(kept(5, 40), Some(leaves(5, &[7]))).await.unwrap();
    let wanted = || vec![session_leaf_key(7)];
    assert_eq!(shelf.final_with(10, wanted()).await.unwrap(), None, "nobody cosigned it");
    assert_eq!(shelf.unsettled(60).await.unwrap(), [7, 8]);
    shelf.cosigned(cosigned(5, 40), true).await.unwrap();
    assert_eq!(shelf.unsettled(60).await.unwrap(), [8]);
    let (found, leaf) = shelf.final_with(10, wanted()).await.unwrap().unwrap();
    assert_eq!((found.view, leaf[0].value.0.clone(), found.last), (cosigned(5, 40), vec![7], true));
    assert_eq!(shelf.final_with(40, wanted()).await.unwrap(), None, "it covers 40 entries: 0 to 39");
    assert!(shelf.final_with(39, vec![]).await.unwrap().is_some());
    assert_eq!(shelf.final_with(10, vec![session_leaf_key(8)]).await.unwrap(), None);
}

#[tokio::test]
async fn bare_checkpoints_are_forgotten_those_with_leaves_are_not() {
    let (_dir, shelf, _) = shelf();
    shelf.keep(kept(1, 10), Some(leaves(1, &[7]))).await.unwrap();
    shelf.cosigned(cosigned(1, 10), true).await.unwrap();
    for height in 2..30 {
        shelf.keep(kept(height, 10), None).await.unwrap();
    }
    let heights: Vec<u64> = shelf.newest().await.unwrap().iter().map(|k| k.view.checkpoint.height).collect();
    assert_eq!(heights, (14..30).rev().collect::<Vec<_>>());
    assert!(shelf.final_with(5, vec![session_leaf_key(7)]).await.unwrap().is_some());
}

#[tokio::test]
async fn a_stamped_checkpoint_is_kept_and_taken_first() {
    let (_dir, shelf, _) = shelf();
    let stamp = |height: i64| {
        let sql = "INSERT INTO timestamp (height, tsa, at_ms, stamp, certificates) VALUES (?1, 't', 1, x'00', x'00')";
        shelf.store.run(move |db| db.execute(sql, [height]).map(drop))
    };
    for height in 1..30 {
        shelf.keep(kept(height, 10), None).await.unwrap();
        shelf.cosigned(cosigned(height, 10), true).await.unwrap();
        if height == 2 || height == 4 {
            stamp(height as i64).await.unwrap();
        }
    }
    let found = async || shelf.final_with(5, vec![]).await.unwrap().unwrap().0.view.checkpoint.height;
    assert_eq!(found().await, 4, "the newest that was stamped");
    stamp(29).await.unwrap();
    assert_eq!(found().await, 29);
    assert_eq!(shelf.final_with(10, vec![]).await.unwrap(), None, "a stamp covers no more than its checkpoint");
}
