//! Pure schedules: how fast to publish and how long to wait after a failure. Time is passed in.

use crate::contract::BATCH_RECORDS_MAX;
use crate::document::Pace;

const BACKOFF_FIRST_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 10_000;
/// Longest wait that a `Retry-After` is believed for.
const RETRY_AFTER_MAX_MS: u64 = 60_000;

/// Wait before retry number `attempt` (from 0): 100 ms, doubled each time, at most 10 s; what the
/// broker asked for when that is longer.
pub fn backoff_ms(attempt: u32, retry_after_ms: Option<u64>) -> u64 {
    let own =
        BACKOFF_FIRST_MS.saturating_mul(1_u64.checked_shl(attempt.min(20)).unwrap_or(u64::MAX)).min(BACKOFF_MAX_MS);
    own.max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS))
}

/// Most rows to pull at once: small enough at a slow pace that rows leave about ten times a second.
pub fn pull_max(pace: Pace) -> usize {
    match pace {
        Pace::Max => BATCH_RECORDS_MAX,
        Pace::RowsPerSecond(rows) => (rows as usize / 10).clamp(1, BATCH_RECORDS_MAX),
    }
}

/// Wait before the next rows may leave, when `rows` have left since the start `elapsed_ms` ago.
pub fn pace_wait_ms(pace: Pace, rows: u64, elapsed_ms: u64) -> u64 {
    match pace {
        Pace::Max => 0,
        Pace::RowsPerSecond(rate) => (rows.saturating_mul(1_000) / u64::from(rate.max(1))).saturating_sub(elapsed_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_ceiling() {
        let waits: Vec<u64> = (0..9).map(|n| backoff_ms(n, None)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(backoff_ms(u32::MAX, None), 10_000);
        assert_eq!(backoff_ms(0, Some(2_500)), 2_500);
        assert_eq!(backoff_ms(8, Some(1)), 10_000);
        assert_eq!(backoff_ms(0, Some(u64::MAX)), 60_000);
    }

    #[test]
    fn pace_is_kept_over_time() {
        let pace = Pace::RowsPerSecond(200);
        assert_eq!(pull_max(pace), 20);
        assert_eq!(pull_max(Pace::RowsPerSecond(1)), 1);
        assert_eq!(pull_max(Pace::RowsPerSecond(1_000_000)), BATCH_RECORDS_MAX);
        assert_eq!(pace_wait_ms(pace, 0, 0), 0);
        assert_eq!(pace_wait_ms(pace, 200, 400), 600);
        assert_eq!(pace_wait_ms(pace, 200, 1_500), 0);
        assert_eq!(pace_wait_ms(Pace::Max, 1 << 40, 0), 0);
    }
}
