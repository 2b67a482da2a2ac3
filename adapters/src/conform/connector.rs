//! A rig for a source as a document describes it: it reads what there is and changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// A source that cannot be changed.
pub struct ConnectorRig {
    connector: Arc<dyn Connector>,
    base: PathBuf,
    expected: Vec<String>,
    dead: usize,
}

impl ConnectorRig {
    /// Reads the source once, from its beginning, to know what there is.
    pub fn new(connector: Arc<dyn Connector>, base: PathBuf, patience: Duration) -> Result<Self, AdapterError> {
        let mut rig = Self { connector, base, expected: Vec::new(), dead: 0 };
        let (mut source, mut at, begun) = (rig.open()?, Checkpoint::default(), Instant::now());
        loop {
            let batch = source.read(&at, 256)?;
            rig.expected.extend(batch.records.iter().map(|r| r.id.clone()));
            rig.dead += batch.rejects.len();
            let (rows, next) = (batch.rows(), batch.next);
            at = batch.checkpoint;
            if rig.expected.len() > ROWS_MAX {
                let message = format!("the source holds more than {ROWS_MAX} rows: give the kit a smaller one");
                return Err(AdapterError::source_failed(ErrorClass::Permanent, "conform.too-much", message));
            }
            match next {
                Next::End => return Ok(rig),
                Next::Idle(_) if rows == 0 && (!rig.expected.is_empty() || begun.elapsed() > patience) => {
                    return Ok(rig);
                }
                Next::Idle(time) => std::thread::sleep(time.min(Duration::from_millis(200))),
                Next::More => {}
            }
        }
    }
}

impl Rig for ConnectorRig {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(Untold(self.connector.open(&self.base)?)))
    }

    fn expected(&self) -> Vec<String> {
        self.expected.clone()
    }

    fn dead(&self) -> usize {
        self.dead
    }

    fn change(&mut self, _: Change) -> bool {
        false
    }
}
