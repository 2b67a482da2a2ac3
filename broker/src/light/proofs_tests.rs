#![allow(clippy::unwrap_used)]
use super::*;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::receipt::Receipt;
use concordat_protocol::tree::{SortedLeaf, SortedProof, inclusion_path, root};

/// A header of a real chain with what hangs under it, from the receipts' vectors.
fn signed() -> (Trust, Receipt) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/receipt");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let all: serde_json::Value = serde_json::from_str(&read("receipts.json")).unwrap();
    let hex = all["receipts"][0]["receipt"].as_str().unwrap();
    (Trust::from_json(&read("trust.json")).unwrap(), Receipt::from_bytes(&hex::decode(hex).unwrap()).unwrap())
}

fn claim(r: &Receipt, tick_ms: u64) -> Claim<'_> {
    Claim { header: &r.header, validators: &r.validators, roots: &r.roots, tick_ms }
}

fn check<T: std::fmt::Debug>(result: Result<T, Invalid>) -> &'static str {
    result.unwrap_err().check
}

#[test]
fn a_block_is_believed_by_its_signed_header_alone_and_never_an_older_one() {
    let (trust, r) = signed();
    let block = verify_block(&r.header, &r.validators, &trust).unwrap();
    let (at, next) = (block.time_ms, block.height);
    assert!(at > 1_600_000_000_000, "milliseconds since 1970");
    assert_eq!(believe(&trust, &claim(&r, at), next, at + 900), Ok(next - 1), "the same one again");
    assert_eq!(check(believe(&trust, &claim(&r, at), next + 1, at + 900)), "rollback");
    assert_eq!(check(believe(&trust, &claim(&r, at), 0, at + HEAD_STALE_MS + 1)), "time", "kept back");
    assert_eq!(check(believe(&trust, &claim(&r, at), 0, at - RELEASE_WITHIN_MS - 1)), "time", "a clock that is behind");
    for tick in [at + RELEASE_WITHIN_MS + 1, at - RELEASE_WITHIN_MS - 1, 0] {
        assert_eq!(check(believe(&trust, &claim(&r, tick), 0, at)), "tick");
    }
    let roots = StoreRoots { meta: [7; 32], ..r.roots.clone() };
    assert_eq!(check(believe(&trust, &Claim { roots: &roots, ..claim(&r, at) }, 0, at)), "app_hash");
    let mut header = r.header.0.clone();
    let last = header.len() - 9;
    header[last] ^= 1;
    assert!(believe(&trust, &Claim { header: &header, ..claim(&r, at) }, 0, at).is_err(), "a signature was changed");
}

/// A tree of leaves, its root, and a proof of each.
fn tree(leaves: &[(Vec<u8>, Vec<u8>)]) -> (Hash, Vec<LeafProof>) {
    let hashes: Vec<Hash> = leaves.iter().map(|(k, v)| value_leaf(k, v)).collect();
    let proof = |(i, (k, v)): (usize, &(Vec<u8>, Vec<u8>))| LeafProof {
        key: k.clone().into(),
        value: v.clone().into(),
        index: i as u64,
        size: leaves.len() as u64,
        path: inclusion_path(&hashes, i).unwrap(),
    };
    (root(&hashes), leaves.iter().enumerate().map(proof).collect())
}

fn entry(seq: u64, verdict: Verdict) -> LogEntry {
    let writer = "police/executor".to_owned();
    LogEntry { height: 9, tick_ms: 90, writer, incarnation: 1, seq, op_hash: [seq as u8; 32], verdict, code: 0 }
}

#[test]
fn an_altered_verdict_an_entry_of_elsewhere_and_a_log_that_is_cut_are_refused() {
    let log: Vec<(u64, LogEntry)> = (0..5).map(|i| (i, entry(i, Verdict::Refused))).collect();
    let leaves: Vec<_> = log.iter().map(|(i, e)| (log_key(*i).to_vec(), cbor::encode(e))).collect();
    let (root, proofs) = tree(&leaves);
    assert_eq!(entries(&log, &proofs, &root), Ok(()));
    let mut lied = log.clone();
    lied[3].1.verdict = Verdict::Accepted;
    assert_eq!(check(entries(&lied, &proofs, &root)), "log_path", "with the true proof");
    let mut forged = proofs.clone();
    forged[3].value = cbor::encode(&lied[3].1).into();
    assert_eq!(check(entries(&lied, &forged, &root)), "log_path", "with a proof that says the same");
    assert_eq!(check(entries(&log[..2], &proofs[1..3], &root)), "log_path");
    assert_eq!(check(entries(&log, &proofs[..4], &root)), "log_path");
    assert_eq!(in_block(&log, 9, 90), Ok(()));
    assert_eq!((check(in_block(&log, 10, 90)), check(in_block(&log, 9, 91))), ("frame", "frame"));
    for size in 1..=5 {
        let (root, proofs) = tree(&leaves[..size]);
        let last = |i: usize| last_entry(&proofs[i], i as u64, &root);
        assert_eq!(last(size - 1), Ok(()), "{size}");
        assert!((0..size - 1).all(|i| last(i).is_err()), "{size}: an earlier one is not the last");
    }
}

fn terms(version: u64) -> Terms {
    Terms {
        agreement: AgreementId::new("AGR-2026-0142").unwrap(),
        version,
        assigner: AgencyId::new("police").unwrap(),
        assignee: Some(AgencyId::new("court").unwrap()),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        assigner_roles: vec!["legal".into()],
        assignee_roles: vec!["legal".into()],
        clauses: vec![],
        yaml_hash: [1; 32],
        rows_hash: [2; 32],
        text_hash: [3; 32],
        paper_hashes: vec![[4; 32]],
        compiler_version: 1,
    }
}

fn view(version: u64, status: Status) -> AgreementView {
    let terms = terms(version);
    AgreementView {
        agreement: terms.agreement.clone(),
        version,
        revision: 4,
        status,
        terms_hash: terms.hash(),
        terms: cbor::encode(&terms).into(),
        expires_ms: 5,
        approvals: vec![],
        handles: vec![version * 10],
        bounded_suspended: 0,
    }
}

/// The leaf that the state has of a view without approvals.
fn leaf_of(v: &AgreementView) -> Vec<u8> {
    let state = (v.revision, (v.status, v.terms_hash));
    let none: Vec<(String, Hash)> = vec![];
    cbor::encode(&(state, ((v.expires_ms, u64::from(v.bounded_suspended)), (none, v.handles.clone()))))
}

#[test]
fn an_agreement_is_as_the_state_has_it_and_none_is_left_out_or_put_in() {
    let (one, two) = (view(1, Status::Superseded), view(2, Status::Suspended));
    let all: Vec<(String, Vec<u8>)> = vec![
        ("agency/court".into(), vec![1]),
        (agreement_key(&one.agreement, 1), leaf_of(&one)),
        (agreement_key(&two.agreement, 2), leaf_of(&two)),
        ("key/00".into(), vec![2]),
    ];
    let leaves: Vec<SortedLeaf> = all.iter().map(|(k, v)| SortedLeaf::new(k.as_bytes(), v)).collect();
    let meta = root(&leaves.iter().map(SortedLeaf::hash).collect::<Vec<_>>());
    let told = |prefix: &str| MetaList {
        height: 9,
        roots: StoreRoots { heads: [0; 32], log: [0; 32], meta, runs: [0; 32] },
        values: all.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(_, v)| v.clone().into()).collect(),
        list: SortedProof::prove(&leaves, prefix.as_bytes()).unwrap(),
    };
    let body = told("agreement/");
    let proven = list(&body, "agreement/", &meta).unwrap();
    assert_eq!(agreements(&[one.clone(), two.clone()], &proven), Ok(()));
    assert!(list(&told("dataset/"), "dataset/", &meta).unwrap().is_empty(), "none, and that is proven");
    // A list that leaves one out, or has another value, is none.
    let mut cut = body.clone();
    cut.list.found.pop();
    cut.values.pop();
    assert_eq!(check(list(&cut, "agreement/", &meta)), "list");
    let mut other = body.clone();
    other.values[1] = leaf_of(&view(2, Status::Active)).into();
    assert_eq!(check(list(&other, "agreement/", &meta)), "list");
    assert_eq!(check(list(&body, "agreement/", &[9; 32])), "list", "of another state");
    assert_eq!(check(list(&body, "agency/", &meta)), "list", "of another prefix");
    // What the host tells of each is held against it.
    let lies: [fn(&mut AgreementView); 6] = [
        |v| v.status = Status::Active,
        |v| v.handles = vec![77],
        |v| v.revision = 9,
        |v| v.bounded_suspended = 1,
        |v| v.terms_hash = [8; 32],
        |v| v.terms = cbor::encode(&Terms { rows_hash: [9; 32], ..terms(2) }).into(),
    ];
    for lie in lies {
        let mut lied = two.clone();
        lie(&mut lied);
        assert_eq!(check(agreements(&[one.clone(), lied], &proven)), "agreement");
    }
    assert_eq!(check(agreements(std::slice::from_ref(&one), &proven)), "agreement", "one left out");
    assert_eq!(check(agreements(&[one, two, view(3, Status::Active)], &proven)), "agreement", "one put in");
}
