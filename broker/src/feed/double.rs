//! Two promises for one delivery: what the provider said first and what it says now cannot both be kept (PROTOCOL 10).

use super::subscription::Awaited;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::hash::Hash;
use concordat_protocol::session::Promise;
use std::collections::BTreeMap;

/// Promises remembered of a subscription: several times what may be held.
const KEPT: usize = 4_096;

/// A signed promise: its bytes and 64 bytes of signature.
pub(super) type Signed = (Bytes, Bytes);

/// Promises of verified deliveries, by number. Pure.
#[derive(Debug, Default)]
pub(super) struct Promises {
    kept: BTreeMap<u64, (Hash, Signed)>,
}

impl Promises {
    /// Takes a promise in. The earlier one of the same delivery, if it promised something else; a repeated delivery is
    /// the same item and no contradiction. A contradiction is told once.
    pub fn take(&mut self, sub_seq: u64, now: &Awaited) -> Option<Signed> {
        let root = cbor::decode::<Promise>(&now.promise).ok()?.root;
        let signed = (now.promise.clone(), now.signature.clone());
        if let Some((before, first)) = self.kept.get_mut(&sub_seq) {
            if *before == root {
                return None;
            }
            *before = root;
            return Some(std::mem::replace(first, signed));
        }
        self.kept.insert(sub_seq, (root, signed));
        while self.kept.len() > KEPT {
            self.kept.pop_first();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::ids::AgencyId;

    fn promised(sub_seq: u64, root: u8, delivered_ms: u64) -> Awaited {
        let promise = Promise {
            chain: "c".into(),
            provider: AgencyId::new("grid").unwrap(),
            subscription: 9,
            first_sub_seq: sub_seq,
            last_sub_seq: sub_seq,
            root: [root; 32],
            delivered_ms,
            max_lag_ms: 1_000,
        };
        let signature = vec![root; 64].into();
        Awaited { delivered_ms, max_lag_ms: 1_000, promise: cbor::encode(&promise).into(), signature }
    }

    #[test]
    fn another_root_under_one_number_is_a_contradiction_a_repetition_is_none() {
        let mut p = Promises::default();
        let first = promised(5, 1, 10);
        assert_eq!(p.take(5, &first), None);
        assert_eq!(p.take(5, &promised(5, 1, 99)), None, "the same envelope again");
        assert_eq!(p.take(6, &promised(6, 2, 11)), None);
        let second = promised(5, 3, 12);
        assert_eq!(p.take(5, &second), Some((first.promise, first.signature)));
        assert_eq!(p.take(5, &second), None, "told once");
        (7..7 + 2 * KEPT as u64).for_each(|n| assert_eq!(p.take(n, &promised(n, 1, n)), None));
        assert_eq!(p.kept.len(), KEPT);
    }
}
