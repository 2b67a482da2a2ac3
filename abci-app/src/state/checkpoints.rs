//! Checkpoints (PROTOCOL 4): states that agencies cosign, so that evidence does not rest on validators and Ed25519 alone.
//!
//! They stand outside the app hash, else every cosignature would call for the next block. Where they stand is part of
//! the numbers that all of the state shares, so every node makes the same ones and judges cosignatures alike.

use concordat_protocol::acts::KeyRole;
use concordat_protocol::canon_struct;
use concordat_protocol::codes;
use concordat_protocol::evidence::NamedOp;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::KeyId;
use concordat_protocol::node::{KeyView, StoreRoots};
use concordat_protocol::ops::Op;
use concordat_protocol::receipt::{Checkpoint, Cosign, Cosignature};

use super::State;
use super::apply::Work;
use super::history::PastOp;
use super::rows::Head;
use crate::tx::{CosignTx, Parsed};

/// Log entries after which a checkpoint is due whatever the time.
pub const CHECKPOINT_ENTRIES: u64 = 65_536;
/// Checkpoints that may still be cosigned: the newest ones.
pub const CHECKPOINTS_OPEN: usize = 16;

canon_struct! {
    /// Where the last checkpoint was made; the schedule counts from there.
    pub struct Last {
        /// Its height, 0 before the first one.
        pub height: u64,
        /// Its tick, milliseconds; 0 before the first one.
        pub tick_ms: u64,
        /// Entries in the log then; before the first one those of genesis.
        pub log_size: u64,
    }
}

canon_struct! {
    /// A checkpoint that may still be cosigned.
    pub struct Open {
        /// The state.
        pub checkpoint: Checkpoint,
        /// Who cosigned it, sorted.
        pub cosigners: Vec<AgencyId>,
    }
}

canon_struct! {
    /// Where the checkpoints stand.
    pub struct Checkpoints {
        /// The newest one.
        pub last: Last,
        /// The newest [`CHECKPOINTS_OPEN`], oldest first.
        pub open: Vec<Open>,
    }
}

impl Checkpoints {
    /// Before genesis.
    pub const fn empty() -> Self {
        Self { last: Last { height: 0, tick_ms: 0, log_size: 0 }, open: Vec::new() }
    }

    /// Whether a checkpoint is due in a state: the log grew, and enough time passed or enough entries came.
    pub fn due(&self, tick_ms: u64, log_size: u64, every_ms: u64, every_entries: u64) -> bool {
        let grown = log_size.saturating_sub(self.last.log_size);
        grown > 0 && (tick_ms >= self.last.tick_ms.saturating_add(every_ms) || grown >= every_entries)
    }

    /// Takes a new checkpoint in; the oldest one that was open is closed.
    fn push(&mut self, checkpoint: Checkpoint) {
        self.last = Last { height: checkpoint.height, tick_ms: checkpoint.tick_ms, log_size: checkpoint.log_size };
        self.open.push(Open { checkpoint, cosigners: Vec::new() });
        if self.open.len() > CHECKPOINTS_OPEN {
            self.open.remove(0);
        }
    }

    /// The place of the open checkpoint that a cosignature is about.
    ///
    /// # Errors
    /// 312 if none is open at its height or another one is, 304 if the agency cosigned it already.
    pub fn place_of(&self, cosign: &Cosign) -> Result<usize, u16> {
        let at = self.open.iter().position(|o| o.checkpoint == cosign.checkpoint).ok_or(codes::CHECKPOINT)?;
        let done = self.open.get(at).is_some_and(|o| o.cosigners.contains(&cosign.agency));
        if done { Err(codes::STALE) } else { Ok(at) }
    }

    /// Whether an agency's cosignature of a height may still be taken.
    pub fn waits_for(&self, agency: &AgencyId, height: u64) -> bool {
        self.open.iter().any(|o| o.checkpoint.height == height && !o.cosigners.contains(agency))
    }

    /// Height of the last checkpoint but one; of the only one; 0 before the first.
    pub fn last_but_one(&self) -> u64 {
        self.open.iter().rev().nth(1).or(self.open.last()).map_or(0, |o| o.checkpoint.height)
    }
}

/// What a block brings that stands outside the app hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvidenceNews {
    /// The checkpoint that is the state after it.
    pub checkpoint: Option<Checkpoint>,
    /// Cosignatures by height of their checkpoint.
    pub cosignatures: Vec<(u64, Cosignature)>,
    /// Operations that name a session, by number of its consumer, in the order of the log.
    pub named: Vec<(u16, NamedOp)>,
}

/// The registered cosigning key with which an agency signed this; a revoked one where it is the only one.
///
/// # Errors
/// 201 if the agency has no cosigning key, 200 if none of them signed this.
pub fn cosigning_key<'a>(
    keys: impl Iterator<Item = (&'a KeyId, &'a KeyView)>,
    tx: &Parsed,
    agency: &AgencyId,
) -> Result<&'a KeyView, u16> {
    let mut found = Err(codes::UNKNOWN_KEY);
    for (id, key) in keys.filter(|(_, k)| k.agency == *agency && k.role == KeyRole::Cosign) {
        if !tx.signed_by(id, &key.key) {
            found = found.or(Err(codes::BAD_SIGNATURE));
        } else if key.revoked_ms != 0 {
            found = Ok(key);
        } else {
            return Ok(key);
        }
    }
    found
}

/// What can be said of a cosignature before its turn.
///
/// # Errors
/// 111 while this node has not computed the height yet; else the code that its block would give.
pub fn check(state: &State, tx: &Parsed, c: &CosignTx) -> Result<(), u16> {
    let key = cosigning_key(state.tables.keys.iter(), tx, &c.cosign.agency)?;
    if key.revoked_ms != 0 {
        return Err(codes::KEY_REVOKED);
    }
    if c.cosign.checkpoint.height > state.head.height {
        return Err(codes::BUSY);
    }
    state.head.checkpoints.place_of(&c.cosign).map(drop)
}

impl Work<'_> {
    /// Takes a cosignature: at most one an agency and checkpoint. It makes no entry and changes nothing under the app
    /// hash.
    pub fn cosign(&mut self, tx: &Parsed, c: &CosignTx) -> Result<(), u16> {
        let Cosign { checkpoint, agency, archived_height } = &c.cosign;
        if checkpoint.chain != self.head.chain {
            return Err(codes::WRONG_CHAIN);
        }
        if cosigning_key(self.view.keys.iter(), tx, agency)?.revoked_ms != 0 {
            return Err(codes::KEY_REVOKED);
        }
        let at = self.head.checkpoints.place_of(&c.cosign)?;
        if let Some(open) = self.head.checkpoints.open.get_mut(at) {
            open.cosigners.push(agency.clone());
            open.cosigners.sort();
        }
        let cosignature =
            Cosignature { agency: agency.clone(), archived_height: *archived_height, signature: c.signature.clone() };
        self.evidence.cosignatures.push((checkpoint.height, cosignature));
        Ok(())
    }

    /// Notes an operation that names a session, under the session's consumer. Where the session is not open at the
    /// operation's writer, the ledger refused it in nobody's name.
    pub fn note_named(&mut self, op: &Op, past: &PastOp, index: u64, op_hash: &[u8; 32]) {
        if past.consumer == 0 || past.session == 0 {
            return;
        }
        let n = op.recorded().map_or(0, |r| r.n);
        let named = NamedOp { index, session: past.session, n, kind: op.kind(), op_hash: *op_hash };
        self.evidence.named.push((past.consumer, named));
    }
}

impl Head {
    /// Makes the checkpoint that this state is, if one is due. Genesis is none: the schedule counts from it.
    pub fn checkpoint_at(&mut self, log_size: u64, roots: &StoreRoots, every_ms: u64) -> Option<Checkpoint> {
        if self.height == 0 {
            self.checkpoints.last.log_size = log_size;
            return None;
        }
        if !self.checkpoints.due(self.tick_ms, log_size, every_ms, CHECKPOINT_ENTRIES) {
            return None;
        }
        let (chain, height, tick_ms) = (self.chain.clone(), self.height, self.tick_ms);
        let checkpoint = Checkpoint { chain, height, tick_ms, log_size, roots: roots.clone() };
        self.checkpoints.push(checkpoint.clone());
        Some(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOTS: StoreRoots = StoreRoots { heads: [1; 32], log: [2; 32], meta: [3; 32], runs: [4; 32] };

    fn checkpoint(height: u64) -> Checkpoint {
        Checkpoint { chain: "c".into(), height, tick_ms: height * 10, log_size: height * 2, roots: ROOTS }
    }

    #[test]
    fn one_is_due_when_the_log_grew_and_time_passed_or_many_entries_came() {
        let mut c = Checkpoints::empty();
        c.push(checkpoint(50)); // tick 500, 100 entries
        for (tick, size, due) in [
            (9_999, 100, false), // nothing new, however long
            (599, 101, false),
            (600, 101, true),
            (501, 107, false),
            (501, 108, true), // eight entries
            (501, 99, false),
        ] {
            assert_eq!(c.due(tick, size, 100, 8), due, "tick {tick}, {size} entries");
        }
        assert!(!c.due(u64::MAX - 1, 101, u64::MAX, 8), "the interval does not wrap");
    }

    #[test]
    fn the_newest_sixteen_are_open() {
        let mut c = Checkpoints::empty();
        assert_eq!(c.last_but_one(), 0);
        (1..=20).for_each(|height| c.push(checkpoint(height)));
        let heights: Vec<u64> = c.open.iter().map(|o| o.checkpoint.height).collect();
        assert_eq!((heights, c.last.height, c.last_but_one()), ((5..=20).collect(), 20, 19));
    }
}
