//! Which denials are recorded one by one, and which are only counted (PROTOCOL 5).

use concordat_protocol::limits::DENIALS_PER_MINUTE;
use std::collections::BTreeMap;

/// Denials of the running minute, by session and reason.
#[derive(Debug, Default)]
pub struct Denials {
    minute: u64,
    counts: BTreeMap<(u64, String), u32>,
}

impl Denials {
    /// Whether this denial gets an entry of its own; counts it either way.
    pub fn record_one(&mut self, session: u64, reason: &str, now_ms: u64) -> bool {
        let minute = now_ms / 60_000;
        if minute != self.minute {
            self.minute = minute;
            self.counts.clear();
        }
        let count = self.counts.entry((session, reason.to_owned())).or_default();
        *count += 1;
        *count <= DENIALS_PER_MINUTE
    }

    /// Denials of the running minute that got no entry of their own, by session and reason.
    pub fn unrecorded(&self) -> impl Iterator<Item = (&(u64, String), u32)> {
        self.counts.iter().filter(|(_, n)| **n > DENIALS_PER_MINUTE).map(|(k, n)| (k, n - DENIALS_PER_MINUTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_minute_for_each_session_and_reason() {
        let mut d = Denials::default();
        let recorded = (0..25).filter(|_| d.record_one(1, "purpose", 100)).count();
        assert_eq!(recorded, 10);
        assert_eq!(d.unrecorded().map(|(_, n)| n).sum::<u32>(), 15);
        assert!(d.record_one(1, "role", 100) && d.record_one(2, "purpose", 100));
        assert!(d.record_one(1, "purpose", 60_100), "a new minute");
    }
}
