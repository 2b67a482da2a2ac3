//! The checks.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::drive::{Until, dead, drive, faults};
use super::{Act, Change, FakeBroker, Kit, Rig, Verdict};
use crate::contract::{AdapterError, Batch, Checkpoint, ErrorClass, Next, Source};

/// Longest checkpoint, so that it fits a header as base64.
const CHECKPOINT_BYTES_MAX: usize = 2_900;
/// Restarts of one check at most.
const RESTARTS: u64 = 12;
/// Wait between two reads that gave nothing.
const SHORT: Duration = Duration::from_millis(20);
/// Posts that a broker which is away does not answer.
const AWAY: u64 = 6;

/// One check.
pub struct Check {
    pub name: &'static str,
    pub about: &'static str,
    kind: What,
}

#[derive(Clone, Copy)]
enum What {
    Repeatable,
    Restart,
    Posts(fn(u64) -> Act),
    Killed(fn(u64) -> Act),
    Changes(&'static [Change]),
    Refused(Change),
    Reconnect,
    Away,
}

/// All checks in their order.
pub const ALL: &[Check] = &[
    Check {
        name: "repeatable",
        about: "the same checkpoint gives the same rows, and bounded ones",
        kind: What::Repeatable,
    },
    Check { name: "restart", about: "killed at any batch, before or after it was durable", kind: What::Restart },
    Check { name: "broker-away", about: "the broker does not answer for a while", kind: What::Away },
    Check { name: "ack-lost", about: "batches are durable and their answers are lost", kind: What::Killed(lost) },
    Check { name: "back-pressure", about: "the broker asks to wait again and again", kind: What::Posts(busy) },
    Check {
        name: "poison",
        about: "a row that breaks a rule stops nothing and is kept",
        kind: What::Changes(&[Change::Poison, Change::Rows]),
    },
    Check {
        name: "equal-cursor",
        about: "many rows with one cursor value, over the pages' seams",
        kind: What::Changes(&[Change::EqualCursor, Change::Rows]),
    },
    Check {
        name: "late-row",
        about: "a row committed late, with an older time",
        kind: What::Changes(&[Change::Rows, Change::LateRow, Change::Rows]),
    },
    Check {
        name: "half-written",
        about: "nothing of what is not whole",
        kind: What::Changes(&[Change::HalfWritten, Change::Finished]),
    },
    Check {
        name: "resent",
        about: "the same once more is nothing new",
        kind: What::Changes(&[Change::Resent, Change::Rows]),
    },
    Check {
        name: "clock-skew",
        about: "times in the future hide no later rows",
        kind: What::Changes(&[Change::SkewedClock, Change::Rows]),
    },
    Check {
        name: "changed-header",
        about: "other columns are an error or dead letters, never other data",
        kind: What::Refused(Change::ChangedHeader),
    },
    Check {
        name: "schema-drift",
        about: "what the document does not know is taken right, refused or told",
        kind: What::Refused(Change::Drift),
    },
    Check { name: "reconnect", about: "a source that was away is read on", kind: What::Reconnect },
];

fn lost(n: u64) -> Act {
    if n.is_multiple_of(2) && n <= 12 { Act::DropAfter } else { Act::Serve }
}

fn busy(n: u64) -> Act {
    if n % 3 == 1 && n <= 18 { Act::Busy } else { Act::Serve }
}

/// Runs a check. An error says what went wrong.
pub async fn run(check: &Check, kit: &Kit) -> Result<Verdict, String> {
    let scratch = kit.scratch.join(check.name);
    let run = Run { kit, scratch };
    match check.kind {
        What::Repeatable => crate::apart(|| run.repeatable()),
        What::Restart => run.restart().await,
        What::Posts(script) => run.posts(script, false).await,
        What::Killed(script) => run.posts(script, true).await,
        What::Changes(changes) => run.changes(changes).await,
        What::Refused(change) => run.refused(change).await,
        What::Reconnect => run.reconnect().await,
        What::Away => run.away().await,
    }
}

struct Run<'a> {
    kit: &'a Kit,
    scratch: PathBuf,
}

/// True when two reads from one place gave other rows. A source whose rows come over time may give fewer of them at first.
fn differ(one: &Batch, other: &Batch) -> bool {
    let ids = |batch: &Batch| batch.records.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
    let (one, other) = (ids(one), ids(other));
    let short = one.len().min(other.len());
    one.get(..short) != other.get(..short)
}

fn text(error: &AdapterError) -> String {
    format!("it stopped: {error} ({}, {})", error.code(), error.class().name())
}

async fn broker(script: impl FnMut(u64) -> Act + Send + 'static) -> Result<FakeBroker, String> {
    FakeBroker::start(script).await.map_err(|e| e.to_string())
}

impl Run<'_> {
    fn rig(&self) -> Result<Box<dyn Rig>, String> {
        crate::apart(|| (self.kit.make)()).map_err(|e| format!("it could not be set up: {e}"))
    }

    /// Runs until everything came, and looks at all of it.
    async fn settle(&self, rig: &mut dyn Rig, broker: &FakeBroker) -> Result<(), String> {
        let (ended, seen) = drive(rig, broker, &self.scratch, Until::Settled, self.kit.patience).await?;
        ended.map_err(|e| text(&e))?;
        if seen.greedy.load(Ordering::Relaxed) {
            return Err("a read gave more rows than were asked for".to_owned());
        }
        let (checkpoint, _) = broker.most();
        if checkpoint > CHECKPOINT_BYTES_MAX {
            return Err(format!("a checkpoint has {checkpoint} bytes, at most {CHECKPOINT_BYTES_MAX} fit"));
        }
        faults(rig, broker, &self.scratch)
    }

    /// At every place a process reads ahead, goes back and is killed; the next one goes on there. All three times the same
    /// rows come. There is one process at a time: a queue has one reader, and a port one listener.
    fn repeatable(&self) -> Result<Verdict, String> {
        let (mut rig, mut at, mut rows) = (self.rig()?, Checkpoint::default(), 0);
        let enough = rig.expected().len() + rig.dead();
        while rows < enough {
            let mut source = self.open_at(&mut *rig, &at)?;
            let read = self.rows_after(&mut *source, &at)?;
            // What comes of it does not matter here.
            if let Ok(ahead) = source.read(&read.checkpoint, 5) {
                let _ = source.read(&ahead.checkpoint, 5);
            }
            let again = self.rows_after(&mut *source, &at)?;
            if differ(&read, &again) {
                return Err("asked once more from an earlier checkpoint, it gave other rows".to_owned());
            }
            drop(source);
            let mut source = self.open_at(&mut *rig, &at)?;
            let again = self.rows_after(&mut *source, &at)?;
            if differ(&read, &again) {
                return Err("the same checkpoint gave other rows to a new source".to_owned());
            }
            if again.rows() == 0 {
                break;
            }
            rows += again.rows();
            at = again.checkpoint;
        }
        if rows < enough {
            return Err(format!("{rows} rows came instead of {enough}"));
        }
        Ok(Verdict::Passed)
    }

    /// A new process, told what is durable as the runner does.
    fn open_at(&self, rig: &mut dyn Rig, at: &Checkpoint) -> Result<Box<dyn Source>, String> {
        let begun = Instant::now();
        let mut source = rig.open().map_err(|e| text(&e))?;
        while !at.is_start() {
            match source.ack(at) {
                Ok(()) => break,
                Err(e) => self.rest_after(&e, begun)?,
            }
        }
        Ok(source)
    }

    /// The next rows, five at most, as soon as there are any; none at the end of the source or of the kit's patience.
    fn rows_after(&self, source: &mut dyn Source, from: &Checkpoint) -> Result<Batch, String> {
        let (mut at, begun) = (from.clone(), Instant::now());
        loop {
            let batch = match source.read(&at, 5) {
                Ok(batch) => batch,
                Err(e) => {
                    self.rest_after(&e, begun)?;
                    continue;
                }
            };
            if batch.rows() > 5 {
                return Err(format!("a read gave {} rows, 5 were asked for", batch.rows()));
            }
            if batch.rows() > 0 || batch.next == Next::End || begun.elapsed() > self.kit.patience {
                return Ok(batch);
            }
            if let Next::Idle(time) = batch.next {
                std::thread::sleep(time.min(SHORT));
            }
            at = batch.checkpoint;
        }
    }

    /// Waits a little after an error that may pass, which others are not given.
    fn rest_after(&self, error: &AdapterError, begun: Instant) -> Result<(), String> {
        if error.class() != ErrorClass::Transient || begun.elapsed() > self.kit.patience {
            return Err(text(error));
        }
        std::thread::sleep(SHORT);
        Ok(())
    }

    /// Killed at every post: the answer on its way, or the batch not even taken.
    async fn restart(&self) -> Result<Verdict, String> {
        let mut rig = self.rig()?;
        let broker = broker(|n| if n.is_multiple_of(2) { Act::DropAfter } else { Act::DropBefore }).await?;
        for k in 1..=RESTARTS {
            let posts = broker.posts();
            let until = Until::Posts(posts + 1 + k % 2);
            if k > RESTARTS / 2 {
                broker.script(|n| if n % 3 == 0 { Act::DropAfter } else { Act::Serve });
            }
            let (ended, _) = drive(&mut *rig, &broker, &self.scratch, until, self.kit.patience).await?;
            let over = broker.count() >= rig.expected().len() || broker.posts() == posts;
            if ended.map_err(|e| text(&e))?.is_some() || over {
                break;
            }
        }
        broker.script(|_| Act::Serve);
        self.settle(&mut *rig, &broker).await?;
        // Once more, with nothing new: nothing may come again.
        self.settle(&mut *rig, &broker).await?;
        Ok(Verdict::Passed)
    }

    async fn posts(&self, script: fn(u64) -> Act, killed: bool) -> Result<Verdict, String> {
        let (mut rig, broker) = (self.rig()?, broker(script).await?);
        if killed {
            // One batch is durable and said so, one is durable in silence, the others are on their way when it is killed.
            broker.script(|n| match n {
                1 => Act::Serve,
                2 => Act::DropAfter,
                _ => Act::DropBefore,
            });
            let (ended, _) = drive(&mut *rig, &broker, &self.scratch, Until::Posts(3), self.kit.patience).await?;
            ended.map_err(|e| text(&e))?;
            broker.script(script);
        }
        self.settle(&mut *rig, &broker).await?;
        Ok(Verdict::Passed)
    }

    /// The broker is away when the run starts and when it is killed; the next run finds it away, then there.
    async fn away(&self) -> Result<Verdict, String> {
        let (mut rig, broker) = (self.rig()?, broker(|n| if n <= AWAY { Act::DropBefore } else { Act::Serve }).await?);
        let (ended, _) = drive(&mut *rig, &broker, &self.scratch, Until::Posts(AWAY / 2), self.kit.patience).await?;
        if ended.map_err(|e| text(&e))?.is_some() {
            return Err("it ended although nothing was taken".to_owned());
        }
        self.settle(&mut *rig, &broker).await?;
        Ok(Verdict::Passed)
    }

    /// Each change while nothing runs, then while the source was just read to its end.
    async fn changes(&self, changes: &[Change]) -> Result<Verdict, String> {
        let (mut rig, broker) = (self.rig()?, broker(|_| Act::Serve).await?);
        self.settle(&mut *rig, &broker).await.map_err(|e| format!("before anything changed: {e}"))?;
        for change in changes {
            if !rig.change(*change) {
                return Ok(Verdict::Skipped);
            }
            self.settle(&mut *rig, &broker).await.map_err(|e| format!("after {change:?}: {e}"))?;
        }
        Ok(Verdict::Passed)
    }

    /// A change that may be refused: by dead letters or by an error that a person must see to, never by silence.
    async fn refused(&self, change: Change) -> Result<Verdict, String> {
        let (mut rig, broker) = (self.rig()?, broker(|_| Act::Serve).await?);
        self.settle(&mut *rig, &broker).await.map_err(|e| format!("before anything changed: {e}"))?;
        let (before, dead_before) = (rig.expected().len(), dead(&self.scratch)?);
        if !rig.change(change) {
            return Ok(Verdict::Skipped);
        }
        let fresh = rig.expected().len() - before;
        let (ended, _) = drive(&mut *rig, &broker, &self.scratch, Until::Told(dead_before), self.kit.patience).await?;
        let stopped = match ended {
            Err(e) if e.class() == ErrorClass::Transient => {
                return Err(format!("it would be tried for ever: {}", text(&e)));
            }
            Err(_) => true,
            Ok(_) => false,
        };
        let came = broker.count() - before;
        let strange = broker.events().iter().map(|e| rig.name(e)).any(|name| !rig.expected().contains(&name));
        if strange {
            return Err("events came that are none of the source's rows".to_owned());
        }
        let buried = dead(&self.scratch)? - dead_before;
        if !stopped && came < fresh && buried == 0 {
            return Err(format!("{} of {fresh} rows vanished: no event, no dead letter, no error", fresh - came));
        }
        Ok(Verdict::Passed)
    }

    async fn reconnect(&self) -> Result<Verdict, String> {
        let (mut rig, broker) = (self.rig()?, broker(|_| Act::Serve).await?);
        self.settle(&mut *rig, &broker).await.map_err(|e| format!("before anything changed: {e}"))?;
        if !rig.change(Change::Cut) {
            return Ok(Verdict::Skipped);
        }
        let at = broker.checkpoint();
        let error = crate::apart(|| match rig.open() {
            Ok(mut source) => source.read(&at, 5).err(),
            Err(error) => Some(error),
        });
        match error {
            None => return Err("a source that cannot be reached gave no error".to_owned()),
            Some(e) if e.class() != ErrorClass::Transient => {
                return Err(format!("it would not be tried again: {}", text(&e)));
            }
            Some(_) => {}
        }
        rig.change(Change::Restored);
        rig.change(Change::Rows);
        self.settle(&mut *rig, &broker).await.map_err(|e| format!("after it was reached again: {e}"))?;
        Ok(Verdict::Passed)
    }
}
