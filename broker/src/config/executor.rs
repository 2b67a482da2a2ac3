//! How many executors a node runs, and how fast one takes over from another: `executor:` in `node.yaml`.

use concordat_executor::lease::LEASE_MS;
use serde::{Deserialize, Serialize};

/// Executors of one node: one is at work, the others stand by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorConfig {
    /// Processes that the supervisor starts, 1 to 4.
    pub processes: u8,
    /// How long the one at work may be silent before another takes over, milliseconds, 1,000 to 60,000.
    pub lease_ms: u64,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { processes: 1, lease_ms: LEASE_MS }
    }
}

impl ExecutorConfig {
    /// The field that breaks its rule, and the rule.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(1..=4).contains(&self.processes) {
            return Err(("executor.processes", "is 1 to 4"));
        }
        if !(1_000..=60_000).contains(&self.lease_ms) {
            return Err(("executor.lease_ms", "is 1,000 to 60,000"));
        }
        Ok(())
    }

    /// Whether everything is as it would be without the key.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
