//! A provider without a node: it releases on proof alone, and denies everything else that a host may hand over.

use crate::comet::block;
use crate::world::{Spec, TICK, planted, trust, trust_of, vals};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgreementId;
use concordat_protocol::node::StoreRoots;
use concordat_protocol::ops::{LogEntry, log_key};
use concordat_protocol::receipt::{Path, app_hash};
use concordat_protocol::terms::Status;
use concordat_protocol::tree::empty_root;
use concordat_protocol::verify::hosted::{Handed, Stored, may_release};

const WITHIN: u64 = 10_000;
const NOW: u64 = TICK + 900;
const OP: Hash = [21; 32];
const TERMS: Hash = [22; 32];

fn stored() -> Stored {
    Stored {
        writer: "police/executor".into(),
        op_hash: OP,
        agreement: AgreementId::new("AGR-2026-0142").unwrap(),
        version: 1,
        terms_hash: TERMS,
        seen_height: 13,
    }
}

/// What the chain holds: an entry and an agreement, under a header that is really signed.
struct Chain {
    spec: Spec,
    entry: LogEntry,
    key: &'static str,
    status: Status,
    terms_hash: Hash,
}

impl Default for Chain {
    fn default() -> Self {
        let entry = LogEntry {
            height: 12,
            tick_ms: TICK,
            writer: "police/executor".into(),
            incarnation: 1,
            seq: 900,
            op_hash: OP,
            verdict: Verdict::Accepted,
            code: codes::OK,
        };
        let key = "agreement/AGR-2026-0142/0000000001";
        Self { spec: Spec::default(), entry, key, status: Status::Active, terms_hash: TERMS }
    }
}

impl Chain {
    fn handed(&self) -> Handed {
        let value =
            ((3u64, (self.status, self.terms_hash)), ((0u64, 0u64), (Vec::<(String, Hash)>::new(), vec![5u64])));
        let (log, entry) = planted("log", log_key(29).to_vec(), encode(&self.entry), 29, 37);
        let (meta, leaf) = planted("meta", self.key.as_bytes().to_vec(), encode(&value), 4, 21);
        let roots = StoreRoots { heads: [1; 32], log, meta, runs: empty_root() };
        let packed = block(&self.spec, &app_hash(&roots));
        Handed {
            header: packed.header,
            validators: packed.validators,
            roots,
            index: 29,
            entry: self.entry.clone(),
            log_path: Path::of(entry.index, entry.size, &entry.path).unwrap(),
            agreement: leaf.value,
            agreement_path: Path::of(leaf.index, leaf.size, &leaf.path).unwrap(),
        }
    }
}

fn refused(stored: &Stored, handed: &Handed) -> &'static str {
    may_release(&trust(), stored, handed, NOW, WITHIN).expect_err("must be denied").check
}

fn denied(change: impl FnOnce(&mut Chain)) -> &'static str {
    let mut chain = Chain::default();
    change(&mut chain);
    refused(&stored(), &chain.handed())
}

#[test]
fn what_the_ledger_accepted_under_an_active_agreement_may_leave() {
    let proven = may_release(&trust(), &stored(), &Chain::default().handed(), NOW, WITHIN).unwrap();
    assert_eq!((proven.height, proven.epoch), (13, 0));
}

#[test]
fn what_the_ledger_says_otherwise_is_denied() {
    assert_eq!(denied(|c| (c.entry.verdict, c.entry.code) = (Verdict::Refused, codes::REVOKED)), "verdict");
    assert_eq!(denied(|c| c.entry.verdict = Verdict::Uncovered), "verdict");
    for status in [Status::Proposed, Status::Suspended, Status::Revoked, Status::Superseded, Status::Rejected] {
        assert_eq!(denied(|c| c.status = status), "agreement", "{status:?}");
    }
    assert_eq!(denied(|c| c.terms_hash = [9; 32]), "agreement");
    assert_eq!(denied(|c| c.key = "agreement/AGR-2026-0142/0000000002"), "agreement", "another version is active");
    assert_eq!(denied(|c| c.entry.op_hash = [9; 32]), "entry");
    assert_eq!(denied(|c| c.entry.writer = "grid/executor".into()), "entry", "another agency copied the operation");
    assert_eq!(denied(|c| c.entry.height = 13), "log_path", "the header is not later than the entry");
}

#[test]
fn a_host_that_forges_gets_nothing_released() {
    let good = Chain::default().handed();
    let forged = |change: fn(&mut Handed)| {
        let mut handed = good.clone();
        change(&mut handed);
        refused(&stored(), &handed)
    };
    // A refusal shown as accepted.
    let mut shown = Chain::default();
    shown.entry.verdict = Verdict::Refused;
    let mut shown = shown.handed();
    shown.entry.verdict = Verdict::Accepted;
    assert_eq!(refused(&stored(), &shown), "log_path");
    // A suspended agreement shown as the active one.
    let mut shown = Chain { status: Status::Suspended, ..Chain::default() }.handed();
    shown.agreement = good.agreement.clone();
    assert_eq!(refused(&stored(), &shown), "agreement");
    assert_eq!(forged(|h| h.index = 28), "log_path");
    assert_eq!(forged(|h| h.entry.tick_ms += 1), "log_path");
    assert_eq!(forged(|h| h.roots.log = [7; 32]), "app_hash");
    assert_eq!(forged(|h| h.roots.meta = [7; 32]), "app_hash");
    assert_eq!(forged(|h| h.agreement = Bytes::default()), "agreement");
    assert_eq!(forged(|h| h.header.clear()), "header");
    assert_eq!(forged(|h| h.validators.clear()), "validators");
    // No byte of the header is free.
    for at in (0..good.header.len()).step_by(7) {
        let mut handed = good.clone();
        handed.header[at] ^= 1;
        assert!(may_release(&trust(), &stored(), &handed, NOW, WITHIN).is_err(), "byte {at}");
    }
}

#[test]
fn too_few_votes_other_validators_and_an_older_header_are_no_proof() {
    assert_eq!(denied(|c| c.spec.signers = vec![0, 1]), "commit");
    assert_eq!(denied(|c| c.spec.vals = vals("b")), "validators");
    let others = may_release(&trust_of(&vals("b")), &stored(), &Chain::default().handed(), NOW, WITHIN);
    assert_eq!(others.unwrap_err().check, "validators");
    let later = Stored { seen_height: 14, ..stored() };
    assert_eq!(refused(&later, &Chain::default().handed()), "rollback");
}

#[test]
fn a_release_leaves_soon_after_its_block_or_never() {
    let handed = Chain::default().handed();
    let at = |now| may_release(&trust(), &stored(), &handed, now, WITHIN).map_err(|e| e.check);
    assert!(at(TICK + WITHIN).is_ok() && at(TICK - 50).is_ok());
    assert_eq!(at(TICK + WITHIN + 1).unwrap_err(), "late");
    assert_eq!(at(0).unwrap_err(), "late", "a clock that stands still knows nothing");
}
