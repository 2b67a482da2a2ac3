//! Which denials are recorded one by one, and which are only counted (PROTOCOL 5).

use concordat_protocol::limits::DENIALS_PER_MINUTE;
use std::collections::BTreeMap;

/// Denials of the running minute, by session and reason.
#[derive(Debug, Default)]
pub struct Denials {
    minute: u64,
    counts: BTreeMap<(u64, String), u32>,
    over: Vec<(u64, String, u64)>,
}

impl Denials {
    fn turn(&mut self, now_ms: u64) {
        let minute = now_ms / 60_000;
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        let counts = core::mem::take(&mut self.counts).into_iter().filter(|(_, n)| *n > DENIALS_PER_MINUTE);
        self.over.extend(counts.map(|((session, reason), n)| (session, reason, u64::from(n - DENIALS_PER_MINUTE))));
    }

    /// Whether this denial gets an entry of its own; counts it either way.
    pub fn record_one(&mut self, session: u64, reason: &str, now_ms: u64) -> bool {
        self.turn(now_ms);
        let count = self.counts.entry((session, reason.to_owned())).or_default();
        *count += 1;
        *count <= DENIALS_PER_MINUTE
    }

    /// Denials of minutes that are over and got no entry of their own; each is given once.
    pub fn close(&mut self, now_ms: u64) -> Vec<(u64, String, u64)> {
        self.turn(now_ms);
        core::mem::take(&mut self.over)
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
        assert!(d.record_one(1, "role", 100) && d.record_one(2, "purpose", 100));
        assert!(d.close(59_999).is_empty(), "the minute is not over");
        assert!(d.record_one(1, "purpose", 60_100), "a new minute");
        assert_eq!(d.close(60_200), [(1, "purpose".to_owned(), 15)]);
        assert!(d.close(200_000).is_empty(), "counted once");
    }
}
