//! The role map's hash on the ledger: this broker records the map it uses, and vouches for nobody's roles while the
//! ledger names another one. So an auditor finds out under which map a role was given.

use super::Issuer;
use crate::gateway::Gateway;
use crate::gateway::watch::LedgerWatch;
use crate::http::AppState;
use crate::ledger::LedgerError;
use concordat_protocol::acts::ActBody;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::node::RoleMapView;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tracing::{info, warn};

/// How often file and ledger are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long the own node may take to show what the ledger took.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Why the roles of people do not count now.
#[derive(Debug, Error)]
pub enum NotRecorded {
    /// Another map, or none, is the agency's newest on the ledger.
    #[error("the role map in use ({used}) is not the one on the ledger ({recorded}): roles of people count once it is")]
    Other {
        /// SHA-256 of the map in use, hexadecimal.
        used: String,
        /// SHA-256 of the newest on the ledger, or `none`.
        recorded: String,
    },
    /// The own node.
    #[error("whether the role map is on the ledger cannot be seen: {0}")]
    Ledger(#[from] LedgerError),
}

impl NotRecorded {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        "role-map-not-recorded"
    }
}

/// What the ledger says of the map in use: its newest row, if that is this map.
pub async fn in_force(watch: &LedgerWatch, agency: &AgencyId, used: &str) -> Result<RoleMapView, NotRecorded> {
    let maps = watch.role_maps(agency).await?;
    match maps.last() {
        Some(newest) if hex::encode(newest.sha256) == used => Ok(newest.clone()),
        other => {
            let recorded = other.map_or_else(|| "none".to_owned(), |m| hex::encode(m.sha256));
            Err(NotRecorded::Other { used: used.to_owned(), recorded })
        }
    }
}

/// What to do about the map in use.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is the agency's newest.
    InForce(u64),
    /// It is to be recorded under this number.
    Record(u64),
    /// Another broker of the agency recorded another map since this one was read: that is not overwritten.
    Overtaken(u64),
}

/// Decides about one map. Each that is read is recorded at most once, so that two brokers with two files do not
/// overwrite each other for ever: the last file that changed wins, and the other broker vouches for nobody.
#[derive(Debug, Default)]
struct Plan {
    used: Option<Hash>,
    /// The newest number on the ledger when the map was first looked at.
    base: u64,
}

impl Plan {
    fn next(&mut self, used: Hash, newest: Option<&RoleMapView>) -> Next {
        let number = newest.map_or(0, |m| m.number);
        if self.used != Some(used) {
            *self = Self { used: Some(used), base: number };
        }
        if newest.is_some_and(|m| m.sha256 == used) {
            self.base = number;
            return Next::InForce(number);
        }
        if number > self.base { Next::Overtaken(number) } else { Next::Record(number + 1) }
    }
}

/// Follows the file and the ledger, and records the map.
pub struct Recorder {
    issuer: Arc<Issuer>,
    gateway: Gateway,
    watch: LedgerWatch,
    agency: AgencyId,
    plan: Plan,
    said: String,
}

impl Recorder {
    /// Starts one where people of the agency sign in.
    pub fn start(state: &AppState) {
        let Some(issuer) = state.issuer.clone() else { return };
        let (gateway, watch, agency) = (state.gateway.clone(), state.watch.clone(), state.cfg.agency.clone());
        let recorder = Self { issuer, gateway, watch, agency, plan: Plan::default(), said: String::new() };
        tokio::spawn(recorder.run());
    }

    /// Runs without end.
    async fn run(mut self) {
        let mut every = tokio::time::interval(EVERY);
        loop {
            every.tick().await;
            if let Err(e) = self.issuer.reload() {
                self.say(format!("{e}; the role map read before stays in use"));
            } else {
                let done = self.step().await;
                done.unwrap_or_else(|e| self.say(format!("the role map cannot be recorded yet: {e}")));
            }
        }
    }

    async fn step(&mut self) -> Result<(), LedgerError> {
        if self.watch.now().is_none() {
            return Ok(());
        }
        let map = self.issuer.role_map();
        let maps = self.watch.role_maps(&self.agency).await?;
        match self.plan.next(map.hash(), maps.last()) {
            Next::InForce(_) => self.said.clear(),
            Next::Overtaken(number) => self.say(format!(
                "role map {number} of this agency is another one, recorded by another broker: nobody gets a role here \
                 until the files are the same"
            )),
            Next::Record(number) => {
                let body = ActBody::RoleMap { number, sha256: map.hash() };
                let (index, entry) = self.gateway.desk().submit(body).await?;
                info!(role_map = map.sha256(), number, operation = %OpRef(index), "the role map is on the ledger");
                self.watch.reach(entry.height, SEEN_WITHIN).await;
            }
        }
        Ok(())
    }

    /// Warns, once of each trouble.
    fn say(&mut self, what: String) {
        if self.said != what {
            warn!("{what}");
            self.said = what;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(number: u64, fill: u8) -> RoleMapView {
        let agency = AgencyId::new("court").unwrap();
        RoleMapView { agency, number, sha256: [fill; 32], index: number, height: number, tick_ms: 0 }
    }

    #[test]
    fn a_map_is_recorded_once_and_another_broker_s_is_not_overwritten() {
        let mut plan = Plan::default();
        assert_eq!(plan.next([1; 32], None), Next::Record(1));
        assert_eq!(plan.next([1; 32], None), Next::Record(1), "the ledger did not take it yet");
        assert_eq!(plan.next([1; 32], Some(&row(1, 1))), Next::InForce(1));
        assert_eq!(plan.next([1; 32], Some(&row(2, 9))), Next::Overtaken(2));
        assert_eq!(plan.next([1; 32], Some(&row(3, 8))), Next::Overtaken(3));
        assert_eq!(plan.next([2; 32], Some(&row(3, 8))), Next::Record(4), "the file changed here");
        assert_eq!(plan.next([2; 32], Some(&row(4, 7))), Next::Overtaken(4), "somebody was quicker");
        assert_eq!(Plan::default().next([2; 32], Some(&row(4, 7))), Next::Record(5), "after a restart");
    }
}
