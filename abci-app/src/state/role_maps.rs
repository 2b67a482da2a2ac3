//! Which map turns the claims of an agency's people into roles: its hash, recorded by the agency each time it changes.
//!
//! Every number keeps its row and its leaf, so that an auditor can prove which map was in force at an operation: the last
//! one whose act stands before it in the log.

use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::limits::ROLE_MAPS_PER_DAY;
use concordat_protocol::node::RoleMapView;

use super::State;
use super::apply::Work;

/// Milliseconds of a UTC day.
const DAY_MS: u64 = 86_400_000;

impl Work<'_> {
    /// Records a role map of the agency under the next number; the one in force is not recorded again, and a day takes so many.
    pub fn role_map(&mut self, agency: &AgencyId, number: u64, sha256: &Hash) -> Result<(), u16> {
        let own = self.view.role_maps.range((agency.clone(), 0), (agency.clone(), u64::MAX));
        let own: Vec<&RoleMapView> = own.map(|(_, row)| row).collect();
        let last = own.iter().max_by_key(|row| row.number);
        let next = last.map_or(0, |row| row.number).saturating_add(1);
        if number != next || last.is_some_and(|row| row.sha256 == *sha256) {
            return Err(codes::BAD_VALUE);
        }
        let today = self.head.tick_ms / DAY_MS;
        if own.iter().filter(|row| row.tick_ms / DAY_MS == today).count() >= ROLE_MAPS_PER_DAY {
            return Err(codes::QUOTA);
        }
        let (index, head) = (self.next_index(), &self.head);
        let (height, tick_ms) = (head.height, head.tick_ms);
        let row = RoleMapView { agency: agency.clone(), number, sha256: *sha256, index, height, tick_ms };
        self.view.role_maps.put((agency.clone(), number), row);
        Ok(())
    }
}

impl State {
    /// All role maps of an agency, by number.
    pub fn role_maps(&self, agency: &AgencyId) -> Vec<RoleMapView> {
        let own = (agency.clone(), 0)..=(agency.clone(), u64::MAX);
        self.tables.role_maps.range(own).map(|(_, row)| row.clone()).collect()
    }
}
