//! The role map that a request names, held against the consumer's rows on the ledger: roles that no recorded map made are
//! nobody's roles.

#![allow(clippy::result_large_err, reason = "a denial is as usual an outcome as an answer")]

use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use concordat_executor::decide::denied;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::RoleMapView;
use concordat_protocol::session::Denied;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long after a newer map was recorded requests made under the one before it still count, ledger milliseconds: as
/// long as they may be on their way.
const OVERLAP_MS: u64 = 60_000;
/// How long a map that is not known here yet is waited for: the consumer's node may be a block ahead.
const AHEAD: Duration = Duration::from_millis(500);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(25);

/// How a named map stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    InForce,
    /// A newer one is in force.
    Past,
    /// The agency did not record it, as far as this node knows.
    Unknown,
}

fn standing(maps: &[RoleMapView], named: &Hash, tick_ms: u64) -> Standing {
    let Some((newest, before)) = maps.split_last() else { return Standing::Unknown };
    if newest.sha256 == *named {
        return Standing::InForce;
    }
    let last = before.last().is_some_and(|m| m.sha256 == *named);
    if last && tick_ms < newest.tick_ms.saturating_add(OVERLAP_MS) {
        return Standing::InForce;
    }
    if before.iter().any(|m| m.sha256 == *named) { Standing::Past } else { Standing::Unknown }
}

/// The maps of consumers, as of one state of governance.
#[derive(Debug, Default)]
pub(super) struct RoleMaps {
    known: Mutex<BTreeMap<AgencyId, Arc<Vec<RoleMapView>>>>,
    /// One caller at a time waits for a block, so that nobody keeps workers busy with maps that never come.
    waits: Mutex<()>,
}

impl RoleMaps {
    /// Forgets them; called when governance changed.
    pub(super) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The denial of a request that names a map which is not in force; blocks.
    pub(super) fn refuse(
        &self,
        node: &NodeClient,
        consumer: &AgencyId,
        named: &Hash,
        tick_ms: u64,
    ) -> Result<Option<Denied>, LedgerError> {
        let mut found = standing(&self.of(node, consumer)?, named, tick_ms);
        if found == Standing::Unknown
            && let Ok(_turn) = self.waits.try_lock()
        {
            let end = Instant::now() + AHEAD;
            while found == Standing::Unknown && Instant::now() < end {
                std::thread::sleep(LOOK);
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(consumer);
                found = standing(&self.of(node, consumer)?, named, tick_ms);
            }
        }
        let why = match found {
            Standing::InForce => return Ok(None),
            Standing::Past => "is not its newest one on the ledger any more",
            Standing::Unknown => "is not on the ledger",
        };
        let detail = format!(
            "the role map {} that made the roles {why}: {consumer}'s gateway records the map it uses, then its people ask again",
            hex::encode(&named[..8])
        );
        Ok(Some(denied(codes::CLAUSE, "role-map", detail)))
    }

    fn of(&self, node: &NodeClient, consumer: &AgencyId) -> Result<Arc<Vec<RoleMapView>>, LedgerError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(maps) = known().get(consumer) {
            return Ok(maps.clone());
        }
        let maps = tokio::runtime::Handle::current().block_on(node.role_maps(consumer))?;
        let maps = Arc::new(maps);
        known().insert(consumer.clone(), maps.clone());
        Ok(maps)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(number: u64, fill: u8, tick_ms: u64) -> RoleMapView {
        let agency = AgencyId::new("court").unwrap();
        RoleMapView { agency, number, sha256: [fill; 32], index: number, height: number, tick_ms }
    }

    #[test]
    fn the_newest_map_counts_and_the_one_before_it_for_a_moment() {
        let maps = [row(1, 1, 0), row(2, 2, 1_000), row(3, 3, 100_000)];
        let at = |fill: u8, tick_ms: u64| standing(&maps, &[fill; 32], tick_ms);
        assert_eq!(at(3, 100_000), Standing::InForce);
        assert_eq!(at(2, 159_999), Standing::InForce, "on its way when the newer one came");
        assert_eq!(at(2, 160_000), Standing::Past);
        assert_eq!(at(1, 100_000), Standing::Past);
        assert_eq!(at(9, 100_000), Standing::Unknown);
        assert_eq!(standing(&[], &[1; 32], 0), Standing::Unknown, "an agency that recorded none");
        let back = [row(1, 1, 0), row(2, 2, 5), row(3, 1, 9)];
        assert_eq!(standing(&back, &[1; 32], 900_000), Standing::InForce, "recorded again");
    }
}
