//! The conformance kit: a battery of bad days that every adapter must survive, run against a source with the real runner
//! and a broker inside this process that fails as it is told.
//!
//! A [`Rig`] stands for the world around a source: it opens it again as a restart would, and changes what it reads. A rig
//! that cannot make a change says so, and the checks that need it are passed over and reported as such. Of a source that
//! cannot be read again (a queue, a listener) nothing else is asked: what was not acknowledged comes again from the server or
//! the sender, and two processes never read at once.

mod broker;
mod checks;
mod connector;
mod drive;
mod program;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub use broker::{Act, FakeBroker};
pub use connector::ConnectorRig;
pub use program::{PATIENCE, Program};

use crate::contract::{AdapterError, Source};
use crate::document::{OnError, Pace};
use crate::runner::{IN_FLIGHT, RunConfig};

/// Name that the kit's runs have at the kit's broker.
pub const ADAPTER: &str = "conform";
/// Dataset of the kit's runs.
pub const DATASET: &str = "ds:conform/it@1";

/// What happens to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Some good rows are added, as every day.
    Rows,
    /// More rows with one and the same cursor value than a page holds.
    EqualCursor,
    /// A row is committed now that carries an older time than rows that were read.
    LateRow,
    /// A row that breaks a rule, between good ones.
    Poison,
    /// Something is written and not finished.
    HalfWritten,
    /// What was half written is finished.
    Finished,
    /// The header or the columns are other ones than the document's.
    ChangedHeader,
    /// What was read is sent again, byte by byte the same.
    Resent,
    /// The rows get a member, or a type, that the document does not know.
    Drift,
    /// Nothing reaches the source any more.
    Cut,
    /// It is reached again.
    Restored,
    /// Rows with a time in the future are added, then rows with the right time.
    SkewedClock,
}

impl Change {
    /// The name of the change, as a program of the source's owner hears it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::EqualCursor => "equal-cursor",
            Self::LateRow => "late-row",
            Self::Poison => "poison",
            Self::HalfWritten => "half-written",
            Self::Finished => "finished",
            Self::ChangedHeader => "changed-header",
            Self::Resent => "resent",
            Self::Drift => "drift",
            Self::Cut => "cut",
            Self::Restored => "restored",
            Self::SkewedClock => "skewed-clock",
        }
    }
}

/// The world around a source. Every check gets a new one with a few dozen rows.
pub trait Rig: Send {
    /// The source, as a process that starts would open it.
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError>;

    /// What a delivered event is known by.
    fn name(&self, event: &Value) -> String {
        event["id"].as_str().unwrap_or_default().to_owned()
    }

    /// The names of all events that must have come by now, each once.
    fn expected(&self) -> Vec<String>;

    /// How many dead letters there must be by now.
    fn dead(&self) -> usize;

    /// Changes the source; false when this one cannot be changed so.
    fn change(&mut self, change: Change) -> bool;
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it must be.
    Passed,
    /// What went wrong.
    Failed(String),
    /// The rig cannot do what the check needs.
    Skipped,
}

/// One check and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Name of the check.
    pub check: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// How it went.
    pub verdict: Verdict,
}

/// Makes a new world for each check.
pub type Maker = Box<dyn Fn() -> Result<Box<dyn Rig>, AdapterError> + Send + Sync>;

/// What the battery needs.
pub struct Kit {
    /// Makes a new world for each check.
    pub make: Maker,
    /// How long a check waits for rows that do not come.
    pub patience: Duration,
    /// A folder for dead letters; each check has its own below it.
    pub scratch: PathBuf,
}

/// The run of a check: small pages and batches, so that every seam is met.
fn config() -> RunConfig {
    RunConfig {
        adapter: ADAPTER.to_owned(),
        dataset: DATASET.to_owned(),
        pace: Pace::Max,
        on_error: OnError::default(),
        batch_max: 7,
        in_flight: IN_FLIGHT,
        rows_max: None,
        once: false,
    }
}

/// Runs every check, one after the other. `told` hears of each as soon as it is over.
pub async fn battery(kit: &Kit, mut told: impl FnMut(&Outcome)) -> Vec<Outcome> {
    let mut all = Vec::new();
    for check in checks::ALL {
        let outcome = judged(check, kit).await;
        told(&outcome);
        all.push(outcome);
    }
    all
}

/// Runs one check by its name, if there is one of that name.
pub async fn one(kit: &Kit, name: &str) -> Option<Outcome> {
    let check = checks::ALL.iter().find(|check| check.name == name)?;
    Some(judged(check, kit).await)
}

async fn judged(check: &checks::Check, kit: &Kit) -> Outcome {
    let verdict = checks::run(check, kit).await.unwrap_or_else(Verdict::Failed);
    Outcome { check: check.name, about: check.about, verdict }
}

/// The kit for a source as a document describes it. It must hold a few rows or a few hundred. What `changes` can do decides
/// which checks run; a source that it does not make anew for each check is not told that anything is durable.
pub fn kit_of(
    connector: std::sync::Arc<dyn crate::contract::Connector>,
    base: PathBuf,
    scratch: PathBuf,
    changes: Option<Program>,
) -> Kit {
    let patience = Duration::from_secs(30);
    let make: Maker = Box::new(move || {
        let rig = ConnectorRig::new(connector.clone(), base.clone(), changes.clone(), patience)?;
        Ok(Box::new(rig) as Box<dyn Rig>)
    });
    Kit { make, patience, scratch }
}
