//! A rig for a source as a document describes it. Alone it reads what there is and changes nothing; with a program of the
//! source's owner it changes what that can change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::program::{FRESH, Program, Told};
use super::{Change, Rig};
use crate::contract::{AdapterError, Batch, Checkpoint, Connector, ErrorClass, Next, Source};

/// Most rows that the kit reads: more would take long and show nothing new.
const ROWS_MAX: usize = 2_000;

/// A source that is never told that anything is durable: what it holds stays.
struct Untold(Box<dyn Source>);

impl Source for Untold {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        self.0.read(from, max)
    }
}

/// A source that a document describes.
pub struct ConnectorRig {
    connector: Arc<dyn Connector>,
    base: PathBuf,
    changes: Option<Program>,
    /// The program makes the source anew for each check, so that it may be told what is durable.
    renewed: bool,
    key: Vec<String>,
    expected: Vec<String>,
    dead: usize,
    /// A change that went wrong; it is told when the source is opened next.
    failed: Option<String>,
}

impl ConnectorRig {
    /// Asks the program for a new source, or reads the source once, from its beginning, to know what there is.
    pub fn new(
        connector: Arc<dyn Connector>,
        base: PathBuf,
        changes: Option<Program>,
        patience: Duration,
    ) -> Result<Self, AdapterError> {
        let key = connector.common().key.iter().map(|k| k.value.clone()).collect();
        let (renewed, expected, failed) = (false, Vec::new(), None);
        let mut rig = Self { connector, base, changes, renewed, key, expected, dead: 0, failed };
        match rig.changes.as_ref().map(|program| program.call(FRESH)).transpose().map_err(refused)?.flatten() {
            Some(told) => {
                rig.renewed = true;
                rig.take(told).map_err(refused)?;
            }
            None => rig.look(patience)?,
        }
        Ok(rig)
    }

    /// What there is. A source without rows proves nothing, so it is refused.
    fn look(&mut self, patience: Duration) -> Result<(), AdapterError> {
        self.look_through(patience)?;
        if self.expected.is_empty() && self.dead == 0 {
            let message =
                "the source holds no rows, so nothing can be seen: give the kit one with a few dozen".to_owned();
            return Err(AdapterError::source_failed(ErrorClass::Permanent, "conform.empty", message));
        }
        Ok(())
    }

    fn look_through(&mut self, patience: Duration) -> Result<(), AdapterError> {
        let (mut source, mut at, begun) = (self.open()?, Checkpoint::default(), Instant::now());
        loop {
            let batch = source.read(&at, 256)?;
            let names: Vec<String> = batch.records.iter().map(|r| self.name_of(&r.data)).collect();
            self.expected.extend(names);
            self.dead += batch.rejects.len();
            let (rows, next) = (batch.rows(), batch.next);
            at = batch.checkpoint;
            if self.expected.len() > ROWS_MAX {
                let message = format!("the source holds more than {ROWS_MAX} rows: give the kit a smaller one");
                return Err(AdapterError::source_failed(ErrorClass::Permanent, "conform.too-much", message));
            }
            match next {
                Next::End => return Ok(()),
                Next::Idle(_) if rows == 0 && (!self.expected.is_empty() || begun.elapsed() > patience) => {
                    return Ok(());
                }
                Next::Idle(time) => std::thread::sleep(time.min(Duration::from_millis(200))),
                Next::More => {}
            }
        }
    }

    /// The key's fields, which are what an id is made of and what a person can read.
    fn name_of(&self, data: &Map<String, Value>) -> String {
        let fields = self.key.iter().map(|k| format!("{k} {}", data.get(k).unwrap_or(&Value::Null)));
        fields.collect::<Vec<_>>().join(", ")
    }

    fn take(&mut self, told: Told) -> Result<(), String> {
        for row in told.expected {
            if let Some(missing) = self.key.iter().find(|k| !row.contains_key(*k)) {
                return Err(format!(
                    "the program of changes: a row of `expected` is without `{missing}`, a field of `key`"
                ));
            }
            self.expected.push(self.name_of(&row));
        }
        self.dead += told.dead;
        Ok(())
    }
}

fn refused(message: String) -> AdapterError {
    AdapterError::source_failed(ErrorClass::Permanent, "conform.changes", message)
}

impl Rig for ConnectorRig {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        if let Some(message) = &self.failed {
            return Err(refused(message.clone()));
        }
        let source = self.connector.open(&self.base)?;
        Ok(if self.renewed { source } else { Box::new(Untold(source)) })
    }

    fn name(&self, event: &Value) -> String {
        event["data"].as_object().map(|data| self.name_of(data)).unwrap_or_default()
    }

    fn expected(&self) -> Vec<String> {
        self.expected.clone()
    }

    fn dead(&self) -> usize {
        self.dead
    }

    fn change(&mut self, change: Change) -> bool {
        let Some(program) = &self.changes else { return false };
        match program.call(change.name()) {
            Ok(None) => return false,
            Ok(Some(told)) => self.failed = self.take(told).err(),
            Err(message) => self.failed = Some(message),
        }
        true
    }
}
