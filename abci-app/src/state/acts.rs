//! Acts: who may say what, the counter rule, and where each kind goes.

use concordat_protocol::acts::{Act, ActBody, KeyRole};
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::node::KeyView;
use concordat_protocol::ops::LogEntry;

use super::apply::Work;
use super::history::PastOp;
use super::rows::Counters;
use crate::tx::{ActTx, Parsed};

/// Whether a key of this role may sign this act.
pub fn role_allows(role: KeyRole, body: &ActBody) -> bool {
    match body {
        ActBody::Approve { .. } | ActBody::Reject { .. } => role == KeyRole::Approver,
        ActBody::Suspend { .. } | ActBody::Revoke { .. } => matches!(role, KeyRole::Approver | KeyRole::Security),
        ActBody::Dataset { .. }
        | ActBody::SessionOpen { .. }
        | ActBody::SessionClose { .. }
        | ActBody::Propose { .. }
        | ActBody::Renew { .. }
        | ActBody::Dispute { .. }
        | ActBody::Complaint { .. }
        | ActBody::Equivocation { .. }
        | ActBody::Epoch { .. }
        | ActBody::Roles { .. }
        | ActBody::RoleMap { .. } => matches!(role, KeyRole::Gateway | KeyRole::Root),
        ActBody::KeyAdd { .. }
        | ActBody::KeyRevoke { .. }
        | ActBody::Reset { .. }
        | ActBody::Params { .. }
        | ActBody::Validator { .. }
        | ActBody::AgencyAdd { .. }
        | ActBody::AgencyRemove { .. }
        | ActBody::Upgrade { .. } => role == KeyRole::Root,
        ActBody::Genesis { .. } => false,
    }
}

/// Whether a registered key may sign an act: the checks that do not depend on its place in the chain.
///
/// # Errors
/// The code of the first rule that is broken.
pub fn may_sign(key: &KeyView, chain: &str, act: &Act) -> Result<(), u16> {
    if act.chain != chain {
        return Err(codes::WRONG_CHAIN);
    }
    if key.agency != act.agency {
        return Err(codes::WRONG_AGENCY);
    }
    if key.revoked_ms != 0 {
        return Err(codes::KEY_REVOKED);
    }
    if role_allows(key.role, &act.body) { Ok(()) } else { Err(codes::WRONG_ROLE) }
}

/// What a key's counter of the act's class must be.
pub fn next_counter(counters: Option<&Counters>, act: &Act) -> u64 {
    let last = counters.map_or(0, |c| if act.body.is_urgent() { c.urgent } else { c.other });
    last.saturating_add(1)
}

impl Work<'_> {
    /// An act. `Err`: it has no effect at all. `Ok(code)`: its counter is used and the log has its entry.
    pub fn act(&mut self, tx: &Parsed, a: &ActTx) -> Result<u16, u16> {
        let act = &a.act;
        let key = self.view.keys.get(&act.key_id).ok_or(codes::UNKNOWN_KEY)?.clone();
        may_sign(&key, &self.head.chain, act)?;
        let want = next_counter(self.view.counters.get(&act.key_id), act);
        if act.counter != want {
            return Err(if act.counter < want { codes::STALE } else { codes::GAP });
        }
        if !tx.signed_by(&act.key_id, &key.key) {
            return Err(codes::BAD_SIGNATURE);
        }
        let mut counters = self.view.counters.get(&act.key_id).cloned().unwrap_or(Counters { urgent: 0, other: 0 });
        if act.body.is_urgent() {
            counters.urgent = want
        } else {
            counters.other = want
        }
        self.view.counters.put(act.key_id, counters);
        let code = self.decide(a, &key).err().unwrap_or(codes::OK);
        let verdict = if code == codes::OK { Verdict::Accepted } else { Verdict::Refused };
        let entry = LogEntry {
            height: self.head.height,
            tick_ms: self.head.tick_ms,
            writer: format!("act:{}", act.agency),
            incarnation: 0,
            seq: act.counter,
            op_hash: a.hash,
            verdict,
            code,
        };
        let past = PastOp::act(self.head.tick_ms, verdict);
        self.enter(entry, past);
        Ok(code)
    }

    fn decide(&mut self, a: &ActTx, key: &KeyView) -> Result<(), u16> {
        let agency = &a.act.agency;
        match &a.act.body {
            ActBody::KeyAdd { role, label, key } => self.key_add(agency, *role, label, key),
            ActBody::KeyRevoke { key_id, compromised_since_ms } => {
                self.key_revoke(agency, key_id, *compromised_since_ms)
            }
            ActBody::Dataset { id, schema_hash } => self.dataset(agency, id, schema_hash),
            ActBody::SessionOpen { provider, keys, expires_ms } => {
                self.session_open(agency, provider, keys, *expires_ms)
            }
            ActBody::SessionClose { sessions } => self.session_close(agency, sessions),
            ActBody::Reset { writer, incarnation, .. } => self.reset(agency, writer, *incarnation),
            ActBody::Roles { roles } => self.roles(agency, roles),
            ActBody::RoleMap { number, sha256 } => self.role_map(agency, *number, sha256),
            ActBody::Propose { terms, expires_ms } => self.propose(agency, terms, *expires_ms),
            ActBody::Renew { terms, expires_ms } => self.renew(agency, terms, *expires_ms),
            ActBody::Approve { .. } => self.approve(a, key, cbor::encode(&a.signature)),
            ActBody::Reject { agreement, version, terms_hash, .. } => {
                self.reject(agency, agreement, *version, terms_hash)
            }
            ActBody::Suspend { agreement, version, .. } => self.suspend(agency, agreement, *version),
            ActBody::Revoke { agreement, version, .. } => self.revoke(agency, agreement, *version),
            ActBody::Complaint { promise, signature } => self.complaint(agency, promise, signature),
            ActBody::Genesis { .. } => Err(codes::BAD_VALUE),
            ActBody::Dispute { reference, reason } => self.dispute(agency, *reference, reason),
            ActBody::Equivocation { first, first_signature, second, second_signature } => {
                self.equivocation(agency, &[(first, first_signature), (second, second_signature)])
            }
            ActBody::Epoch { body } => self.epoch_vote(agency, body),
            body @ (ActBody::Params { .. }
            | ActBody::Validator { .. }
            | ActBody::AgencyAdd { .. }
            | ActBody::AgencyRemove { .. }
            | ActBody::Upgrade { .. }) => self.ballot(agency, body),
        }
    }
}
