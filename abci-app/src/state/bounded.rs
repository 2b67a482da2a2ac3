//! Bounded evidence: deliveries under a promise, and what follows from a broken one (PROTOCOL 5).

use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{Signature, Statement, Suite};
use concordat_protocol::ops::Op;
use concordat_protocol::session::{Promise, ReleasePromise};
use concordat_protocol::subscribe::handle_of;
use concordat_protocol::terms::{Effect, Evidence, Status};

use super::apply::Work;
use super::ops::{Outcome, refused};
use super::rows::{AgreementKey, HandleRow, SubKey, SubRow, Use};

impl Work<'_> {
    /// The verdict on a `deliver` operation: it continues its subscription, under the clause that its number names.
    pub(super) fn deliver(&mut self, agency: &AgencyId, op: &Op) -> Outcome {
        let Op::Deliver { handle, subscription, last_sub_seq, count, day, tags, .. } = op else {
            return codes::UNKNOWN_KIND.into();
        };
        let row = match self.handle(agency, *handle) {
            Ok(row) => row.clone(),
            Err((_, code)) => return code.into(),
        };
        let consumer = row.assignee.as_ref().map_or(0, |a| self.agency_number(a));
        let said = (|| {
            tags.check().map_err(refused)?;
            self.day_fits(*day)?;
            if *count == 0 {
                return Err(refused(codes::BAD_VALUE));
            }
            if !self.same_clause(&row, handle_of(*subscription)) {
                return Err(refused(codes::CLAUSE));
            }
            let key: SubKey = (agency.clone(), *subscription);
            let anchored = self.view.subscriptions.get(&key).map_or(0, |s| s.last_sub_seq);
            if last_sub_seq.checked_sub(*count) != Some(anchored) {
                return Err(refused(codes::SUB_SEQUENCE));
            }
            let said = self.covered(&row, op, 0);
            if said.is_ok() || said.is_err_and(|(verdict, _)| verdict != Verdict::Refused) {
                self.anchor(key, *last_sub_seq);
            }
            said
        })();
        Outcome { said, consumer }
    }

    fn anchor(&mut self, key: SubKey, last_sub_seq: u64) {
        if let Some(sub) = self.view.subscriptions.edit(&key) {
            sub.last_sub_seq = last_sub_seq;
            return;
        }
        let slot = self.slot();
        self.view.subscriptions.put(key, SubRow { last_sub_seq, slot });
    }

    /// Whether a handle stands for the same clause of the same agreement, in whatever version.
    fn same_clause(&self, row: &HandleRow, handle: u64) -> bool {
        let named = self.view.handles.get(&handle);
        named.is_some_and(|n| {
            (&n.agreement, &n.assigner, &n.clause.id) == (&row.agreement, &row.assigner, &row.clause.id)
        })
    }

    /// A consumer's complaint of a promise that is due and not on the ledger. Its consequence: bounded evidence of the
    /// agreement is suspended until both sides resume it; strict releases go on.
    pub fn complaint(&mut self, agency: &AgencyId, promise: &Bytes, signature: &Bytes) -> Result<(), u16> {
        if let Ok(said) = cbor::decode::<ReleasePromise>(promise) {
            return self.release_complaint(agency, &said, promise, signature);
        }
        let said: Promise = cbor::decode(promise).map_err(|e| e.code())?;
        if said.chain != self.head.chain {
            return Err(codes::WRONG_CHAIN);
        }
        if said.max_lag_ms == 0 || said.first_sub_seq == 0 || said.first_sub_seq > said.last_sub_seq {
            return Err(codes::BAD_VALUE);
        }
        let row = self.view.handles.get(&handle_of(said.subscription)).filter(|r| r.assigner == said.provider);
        let row = row.ok_or(codes::NO_AGREEMENT)?.clone();
        if row.assignee.as_ref() != Some(agency) {
            return Err(codes::WRONG_AGENCY);
        }
        self.promised((&said.provider, said.delivered_ms), promise, signature)?;
        if self.head.tick_ms <= said.delivered_ms.saturating_add(said.max_lag_ms) {
            return Err(codes::PROMISE_NOT_DUE);
        }
        let anchored = self.view.subscriptions.get(&(said.provider.clone(), said.subscription));
        if anchored.is_some_and(|s| s.last_sub_seq >= said.last_sub_seq) {
            return Err(codes::PROMISE_KEPT);
        }
        let key = self.newest_standing(&row).ok_or(codes::NO_AGREEMENT)?;
        self.suspend_bounded(&key);
        Ok(())
    }

    /// Data was released under the promise of a record, and the request's number is not used up although the promise is
    /// due. What another operation under that number says, the consumer sees and can dispute.
    fn release_complaint(
        &mut self,
        agency: &AgencyId,
        said: &ReleasePromise,
        promise: &Bytes,
        signature: &Bytes,
    ) -> Result<(), u16> {
        if said.chain != self.head.chain {
            return Err(codes::WRONG_CHAIN);
        }
        if said.max_lag_ms == 0 || said.n == 0 {
            return Err(codes::BAD_VALUE);
        }
        let row = self.view.handles.get(&said.handle).filter(|r| r.assigner == said.provider);
        let row = row.ok_or(codes::NO_AGREEMENT)?.clone();
        if row.assignee.as_ref() != Some(agency) {
            return Err(codes::WRONG_AGENCY);
        }
        if row.clause.effect != Effect::BreakGlass || !matches!(row.clause.evidence, Evidence::Bounded { .. }) {
            return Err(codes::CLAUSE);
        }
        let session = self.view.sessions.get(&said.session);
        let session = session.filter(|s| s.provider == said.provider && s.consumer == *agency);
        let used = session.ok_or(codes::SESSION_UNKNOWN)?.used(said.n);
        self.promised((&said.provider, said.delivered_ms), promise, signature)?;
        if self.head.tick_ms <= said.delivered_ms.saturating_add(said.max_lag_ms) {
            return Err(codes::PROMISE_NOT_DUE);
        }
        match used {
            Use::Fresh => {}
            Use::Again => return Err(codes::PROMISE_KEPT),
            Use::Behind => return Err(codes::SESSION_WINDOW),
        }
        let key = self.newest_standing(&row).ok_or(codes::NO_AGREEMENT)?;
        self.suspend_bounded(&key);
        Ok(())
    }

    /// Whether a release key of the provider that was good at that time signed the promise.
    pub(super) fn promised(
        &self,
        (provider, delivered_ms): (&AgencyId, u64),
        promise: &Bytes,
        signature: &Bytes,
    ) -> Result<(), u16> {
        if signature.0.len() != 64 {
            return Err(codes::BAD_SIGNATURE);
        }
        let signature = Signature { suite: Suite::Ed25519, ed25519: signature.clone(), pq: Vec::new().into() };
        let mut keys = self.view.keys.iter().filter(|(_, k)| {
            let good = k.revoked_ms == 0 || delivered_ms < k.revoked_ms;
            k.agency == *provider && k.role == KeyRole::Release && good
        });
        let signed = keys
            .any(|(_, k)| k.key.verify_classical(Statement::Promise, &self.head.chain, promise, &signature).is_ok());
        if signed { Ok(()) } else { Err(codes::BAD_SIGNATURE) }
    }

    /// The version of the clause's agreement that is active or suspended now.
    pub(super) fn newest_standing(&self, row: &HandleRow) -> Option<AgreementKey> {
        let id = &row.agreement;
        let standing = |s: Status| matches!(s, Status::Active | Status::Suspended);
        let all = self.view.agreements.range((id.clone(), 0), (id.clone(), u64::MAX));
        all.filter(|(_, row)| standing(row.view.status)).map(|(key, _)| key.clone()).max()
    }
}
