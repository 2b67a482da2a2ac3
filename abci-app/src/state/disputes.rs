//! What agencies accuse one another of: operations that the consumer denies, and signed statements that exclude each
//! other (PROTOCOL 3 and 5).

use concordat_protocol::acts::KeyRole;
use concordat_protocol::canon_struct;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::evidence::DisputeView;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{Signature, Statement, Suite};
use concordat_protocol::node::ReviewDue;
use concordat_protocol::ops::{Batch, batch_hash};
use concordat_protocol::session::Promise;
use concordat_protocol::subscribe::handle_of;

use super::State;
use super::apply::Work;
use super::rows::{DutyKey, EquivocationRow, writer_of};

/// Kinds of operations that name a session's request: query, intent, break-glass, deny.
const REQUESTS: std::ops::RangeInclusive<u8> = 3..=6;

canon_struct! {
    /// Two promises of a provider for one number that promise different things.
    pub struct DoublePromise {
        /// SHA-256 of the first one's bytes.
        pub first: Hash,
        /// SHA-256 of the other's.
        pub second: Hash,
        /// The consumer who showed them.
        pub agency: AgencyId,
        /// Tick at which it did, milliseconds.
        pub tick_ms: u64,
    }
}

/// A statement and its signature, as an act carries them.
type Signed<'a> = (&'a Bytes, &'a Bytes);

impl Work<'_> {
    /// The consumer denies having made the request that an operation names; once an operation.
    pub fn dispute(&mut self, agency: &AgencyId, reference: u64, reason: &Hash) -> Result<(), u16> {
        let number = self.agency_number(agency);
        let past = self.recall.op(reference).filter(|past| REQUESTS.contains(&past.kind));
        if !past.is_some_and(|past| number != 0 && past.session != 0 && past.consumer == number) {
            return Err(codes::UNKNOWN_REF);
        }
        if self.view.disputes.has(&reference) {
            return Err(codes::REF_DONE);
        }
        let (agency, tick_ms) = (agency.clone(), self.head.tick_ms);
        self.view.disputes.put(reference, DisputeView { reference, agency, reason: *reason, tick_ms });
        Ok(())
    }

    /// Two signed statements that exclude each other: promises of a provider, or batches of a writer.
    pub fn equivocation(&mut self, agency: &AgencyId, pair: &[Signed<'_>; 2]) -> Result<(), u16> {
        let [(first, _), (second, _)] = *pair;
        if first == second {
            return Err(codes::BAD_VALUE);
        }
        match (cbor::decode(first), cbor::decode(second)) {
            (Ok(one), Ok(other)) => self.double_promise(agency, pair, &one, &other),
            _ => {
                let one: Batch = cbor::decode(first).map_err(|e| e.code())?;
                let other: Batch = cbor::decode(second).map_err(|e| e.code())?;
                self.double_batch(pair, &one, &other)
            }
        }
    }

    /// Two promises for one number with different roots. A repeated delivery is the same item (ADR 10), so its promise
    /// has the same root and is none. Bounded evidence ends as after a complaint.
    fn double_promise(
        &mut self,
        agency: &AgencyId,
        pair: &[Signed<'_>; 2],
        one: &Promise,
        other: &Promise,
    ) -> Result<(), u16> {
        if one.chain != self.head.chain || other.chain != self.head.chain {
            return Err(codes::WRONG_CHAIN);
        }
        let sub = (one.provider.clone(), one.subscription);
        let ranged = |p: &Promise| p.first_sub_seq > 0 && p.first_sub_seq <= p.last_sub_seq;
        let shared = one.first_sub_seq.max(other.first_sub_seq);
        let excludes = (&other.provider, other.subscription) == (&sub.0, sub.1)
            && (ranged(one) && ranged(other))
            && shared <= one.last_sub_seq.min(other.last_sub_seq)
            && one.root != other.root;
        if !excludes {
            return Err(codes::BAD_VALUE);
        }
        let row = self.view.handles.get(&handle_of(sub.1)).filter(|row| row.assigner == sub.0);
        let row = row.ok_or(codes::NO_AGREEMENT)?.clone();
        if row.assignee.as_ref() != Some(agency) {
            return Err(codes::WRONG_AGENCY);
        }
        for (promise, (bytes, signature)) in [one, other].into_iter().zip(pair) {
            self.promised((&promise.provider, promise.delivered_ms), bytes, signature)?;
        }
        if self.view.double_promises.has(&(sub.clone(), shared)) {
            return Err(codes::REF_DONE); // so that a pair that both sides have settled is not shown again
        }
        let [first, second] = pair.map(|(bytes, _)| sha256(&[bytes]));
        let found = DoublePromise { first, second, agency: agency.clone(), tick_ms: self.head.tick_ms };
        self.view.double_promises.put((sub, shared), found);
        if let Some(key) = self.newest_standing(&row) {
            self.suspend_bounded(&key);
        }
        Ok(())
    }

    /// Two batches of a writer that claim one number: what the ledger stores when it meets the second one itself.
    fn double_batch(&mut self, pair: &[Signed<'_>; 2], one: &Batch, other: &Batch) -> Result<(), u16> {
        if one.chain != self.head.chain || other.chain != self.head.chain {
            return Err(codes::WRONG_CHAIN);
        }
        let row = self.view.writers.get(&one.writer).ok_or(codes::UNKNOWN_WRITER)?;
        let shared = one.first_seq.max(other.first_seq);
        let whole = |b: &Batch| b.first_seq > 0 && !b.ops.is_empty();
        let excludes = (&other.writer, other.incarnation) == (&one.writer, one.incarnation)
            && one.incarnation <= row.incarnation
            && (whole(one) && whole(other))
            && shared <= one.last_seq().min(other.last_seq());
        if !excludes {
            return Err(codes::BAD_VALUE);
        }
        if !pair.iter().all(|(bytes, signature)| self.written(one, bytes, signature)) {
            return Err(codes::BAD_SIGNATURE);
        }
        let at = (one.writer.clone(), one.incarnation);
        if self.view.equivocations.has(&at) {
            return Err(codes::REF_DONE);
        }
        let [first, second] = pair.map(|(bytes, _)| batch_hash(bytes));
        let taken =
            |b: &Batch, hash| self.recall.batch(&(b.writer.clone(), (b.incarnation, b.first_seq))) == Some(hash);
        let (kept, other) = if taken(other, second) { (second, first) } else { (first, second) };
        let height = self.head.height;
        self.view.equivocations.put(at, EquivocationRow { first_seq: shared, kept, other, height });
        Ok(())
    }

    /// Whether a key of the writer that is not revoked signed these bytes: with a key that leaked, anybody could.
    fn written(&self, batch: &Batch, bytes: &Bytes, signature: &Bytes) -> bool {
        let agency = batch.writer.agency();
        let signature = Signature { suite: Suite::Ed25519, ed25519: signature.clone(), pq: Vec::new().into() };
        let keys = self.view.keys.iter().map(|(_, key)| key).filter(|key| key.agency == agency && key.revoked_ms == 0);
        let mut its = keys.filter(|key| key.role == KeyRole::Writer && writer_of(key).as_ref() == Some(&batch.writer));
        its.any(|key| key.key.verify_classical(Statement::TxBatch, &batch.chain, bytes, &signature).is_ok())
    }
}

impl State {
    /// All due reviews, by agreement, clause and operation.
    pub fn reviews(&self) -> Vec<ReviewDue> {
        let due = |((agreement, (clause, reference)), due_ms): (&DutyKey, &u64)| ReviewDue {
            agreement: agreement.clone(),
            clause: clause.clone(),
            reference: *reference,
            due_ms: *due_ms,
        };
        self.tables.duties.iter().map(due).collect()
    }

    /// All disputes, by operation.
    pub fn disputes(&self) -> Vec<DisputeView> {
        self.tables.disputes.values().cloned().collect()
    }
}
