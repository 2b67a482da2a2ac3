//! The rows of the state's tables and the leaves by which they stand in the trees.

use concordat_protocol::acts::KeyRole;
use concordat_protocol::canon_struct;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId, WriterId};
use concordat_protocol::keys::KeyId;
use concordat_protocol::limits::SESSION_WINDOW;
use concordat_protocol::node::{AgreementView, KeyView, SessionLeaf, SessionView};
use concordat_protocol::terms::ClauseTerms;

pub use super::head::Head;
pub use super::leaf_keys::{heads_key, meta_key};

/// Milliseconds in a UTC day.
pub const DAY_MS: u64 = 86_400_000;

canon_struct! {
    /// An agency.
    pub struct AgencyRow {
        /// Its number in history, from 1.
        pub number: u64,
        /// Approval roles it always needs, sorted.
        pub roles: Vec<String>,
        /// Its validator's consensus key, empty when it has none.
        pub validator: Bytes,
        /// Its validator's power.
        pub power: u64,
        /// Its root key.
        pub root: KeyId,
        /// Its cosigning keys that are not revoked, oldest first; the last one cosigns.
        pub cosign: Vec<KeyId>,
        /// Tick at which it was removed, 0 if it was not.
        pub removed_ms: u64,
    }
}

canon_struct! {
    /// The two counters of a key.
    pub struct Counters {
        /// Last act of suspend, revoke, key-revoke.
        pub urgent: u64,
        /// Last act of any other kind.
        pub other: u64,
    }
}

canon_struct! {
    /// A writer of operations.
    pub struct WriterRow {
        /// Its key.
        pub key_id: KeyId,
        /// Its incarnation, from 1.
        pub incarnation: u64,
        /// Last sequence number taken.
        pub last_seq: u64,
        /// Hash of the last batch, zeros before the first.
        pub last_hash: Hash,
        /// Slot in the heads tree.
        pub slot: u64,
    }
}

canon_struct! {
    /// A registered dataset.
    pub struct DatasetRow {
        /// Its number in operations.
        pub number: u64,
        /// SHA-256 of its schema.
        pub schema_hash: Hash,
    }
}

canon_struct! {
    /// Where a dataset's published sequence stands.
    pub struct DatasetHead {
        /// Its name.
        pub id: DatasetId,
        /// Sequence number of the newest published message.
        pub head: u64,
        /// Slot in the heads tree.
        pub slot: u64,
    }
}

canon_struct! {
    /// An agreement version. The first `standing` approvals made it what it is; those after are being gathered.
    pub struct AgreementRow {
        /// What everyone sees.
        pub view: AgreementView,
        /// How many approvals stand.
        pub standing: u64,
        /// Proposed new dates of an active version.
        pub renewal: Option<Renewal>,
    }
}

canon_struct! {
    /// New dates for an active version, waiting for approvals.
    pub struct Renewal {
        /// Canonical terms.
        pub terms: Bytes,
        /// Their hash.
        pub terms_hash: Hash,
        /// Tick by which it must be approved.
        pub expires_ms: u64,
    }
}

canon_struct! {
    /// What a handle stands for: a clause of an agreement version, with all that an operation is checked against.
    pub struct HandleRow {
        /// The agreement.
        pub agreement: AgreementId,
        /// Its version.
        pub version: u64,
        /// The provider.
        pub assigner: AgencyId,
        /// The consumer, absent for public data.
        pub assignee: Option<AgencyId>,
        /// The clause.
        pub clause: ClauseTerms,
    }
}

canon_struct! {
    /// A session and which of its request numbers are used.
    pub struct SessionRow {
        /// Who asks.
        pub consumer: AgencyId,
        /// Who is asked.
        pub provider: AgencyId,
        /// Ed25519 public key.
        pub key: [u8; 32],
        /// First tick at which it is over.
        pub expires_ms: u64,
        /// Newest number used.
        pub newest_n: u64,
        /// One bit a number, at `n mod 4,096`: the numbers in (newest - 4,096, newest] that were used.
        pub window: Bytes,
        /// Slot in the heads tree.
        pub slot: u64,
    }
}

/// What a request number of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// New: it is used now.
    Fresh,
    /// Used before.
    Again,
    /// Behind the window: nobody can tell.
    Behind,
}

impl SessionRow {
    /// An empty window.
    pub fn empty_window() -> Bytes {
        Bytes(vec![0; SESSION_WINDOW as usize / 8])
    }

    /// Uses a number, once.
    pub fn take(&mut self, n: u64) -> Use {
        if n.saturating_add(SESSION_WINDOW) <= self.newest_n {
            return Use::Behind;
        }
        if n > self.newest_n {
            let gone = (n - self.newest_n).min(SESSION_WINDOW);
            for old in 1..=gone {
                // The numbers between the old and the new newest have not been used.
                self.set((n - gone + old) % SESSION_WINDOW, false);
            }
            self.newest_n = n;
        } else if self.bit(n % SESSION_WINDOW) {
            return Use::Again;
        }
        self.set(n % SESSION_WINDOW, true);
        Use::Fresh
    }

    /// What a number of this session is, without using it.
    pub fn used(&self, n: u64) -> Use {
        match n {
            n if n.saturating_add(SESSION_WINDOW) <= self.newest_n => Use::Behind,
            n if n <= self.newest_n && self.bit(n % SESSION_WINDOW) => Use::Again,
            _ => Use::Fresh,
        }
    }

    fn bit(&self, at: u64) -> bool {
        self.window.0.get(at as usize / 8).is_some_and(|b| b >> (at % 8) & 1 == 1)
    }

    fn set(&mut self, at: u64, on: bool) {
        if let Some(byte) = self.window.0.get_mut(at as usize / 8) {
            let mask = 1 << (at % 8);
            if on { *byte |= mask } else { *byte &= !mask }
        }
    }

    /// What the session's leaf in `heads` says.
    pub fn leaf(&self) -> SessionLeaf {
        SessionLeaf {
            consumer: self.consumer.clone(),
            provider: self.provider.clone(),
            key: self.key,
            expires_ms: self.expires_ms,
            newest_n: self.newest_n,
            window_hash: sha256(&[&self.window]),
        }
    }

    /// What the node tells of it.
    pub fn view(&self, session: u64) -> SessionView {
        SessionView {
            session,
            consumer: self.consumer.clone(),
            provider: self.provider.clone(),
            key: self.key,
            expires_ms: self.expires_ms,
            newest_n: self.newest_n,
        }
    }
}

canon_struct! {
    /// Use of a quota in one calendar period.
    pub struct QuotaRow {
        /// Which period since 1970 (hours or days of UTC).
        pub period: u64,
        /// Used in it.
        pub used: u64,
        /// Slot in the heads tree.
        pub slot: u64,
    }
}

canon_struct! {
    /// Where a subscription's anchored deliveries stand.
    pub struct SubRow {
        /// Last anchored number.
        pub last_sub_seq: u64,
        /// Slot in the heads tree.
        pub slot: u64,
    }
}

canon_struct! {
    /// A writer's first proven equivocation in an incarnation.
    pub struct EquivocationRow {
        /// Where two batches claim the same numbers.
        pub first_seq: u64,
        /// Last batch that the ledger had taken.
        pub kept: Hash,
        /// The other one.
        pub other: Hash,
        /// Height at which it came.
        pub height: u64,
    }
}

/// A quota's key: (session or 0, (agreement, clause id)), so that a session's quotas lie together.
pub type QuotaKey = (u64, (AgreementId, String));
/// A due review: (agreement, (clause id, operation)).
pub type DutyKey = (AgreementId, (String, u64));
/// A subscription: (provider, number).
pub type SubKey = (AgencyId, u64);
/// An agreement version.
pub type AgreementKey = (AgreementId, u64);

/// A leaf's key and value.
pub type Leaf = (Vec<u8>, Vec<u8>);

/// Value of an agreement's leaf: its state and hashes, not its text.
pub fn agreement_leaf(view: &AgreementView) -> Vec<u8> {
    let approvals: Vec<(String, Hash)> =
        view.approvals.iter().map(|a| (format!("{}/{}", a.agency, a.role), sha256(&[&a.act, &a.signature]))).collect();
    let state = (view.revision, (view.status, view.terms_hash));
    cbor::encode(&(state, ((view.expires_ms, u64::from(view.bounded_suspended)), (approvals, view.handles.clone()))))
}

/// Whether a key's suite fits its role (PROTOCOL 1.5).
pub fn suite_fits(role: KeyRole, key: &concordat_protocol::keys::PublicKey) -> bool {
    use concordat_protocol::keys::Suite;
    match role {
        KeyRole::Root | KeyRole::Approver | KeyRole::Cosign => key.suite == Suite::Hybrid,
        KeyRole::Kem => key.suite == Suite::XWing,
        KeyRole::Writer | KeyRole::Release => key.suite == Suite::Ed25519,
        KeyRole::Security | KeyRole::Envelope | KeyRole::Gateway => {
            matches!(key.suite, Suite::Ed25519 | Suite::Hybrid)
        }
    }
}

/// The writer that a writer key signs for: its label is the name (`executor`) or the whole id (`police/executor`).
pub fn writer_of(key: &KeyView) -> Option<WriterId> {
    let id = if key.label.contains('/') { key.label.clone() } else { format!("{}/{}", key.agency, key.label) };
    WriterId::new(id).ok().filter(|w| w.agency() == key.agency)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn session() -> SessionRow {
        let id = AgencyId::new("court").unwrap();
        SessionRow {
            consumer: id.clone(),
            provider: id,
            key: [0; 32],
            expires_ms: 0,
            newest_n: 0,
            window: SessionRow::empty_window(),
            slot: 0,
        }
    }

    proptest! {
        #[test]
        fn a_number_is_taken_once_whatever_the_order(ns in proptest::collection::vec(1u64..20_000, 1..300)) {
            let (mut row, mut seen) = (session(), BTreeSet::new());
            for n in ns {
                let newest = seen.last().copied().unwrap_or(0);
                let want = if n + SESSION_WINDOW <= newest { Use::Behind } else if seen.contains(&n) { Use::Again } else { Use::Fresh };
                prop_assert_eq!(row.take(n), want);
                if want == Use::Fresh { seen.insert(n); }
            }
        }
    }

    #[test]
    fn the_edges_of_the_window_and_of_the_numbers_hold() {
        let mut row = session();
        assert_eq!(row.take(1), Use::Fresh);
        assert_eq!(row.take(4_097), Use::Fresh);
        assert_eq!(row.take(1), Use::Behind);
        assert_eq!(row.take(2), Use::Fresh);
        assert_eq!(row.take(u64::MAX - SESSION_WINDOW), Use::Fresh);
        assert_eq!(row.take(u64::MAX - SESSION_WINDOW), Use::Again);
    }
}
