//! One run of a check: the real runner with a source that is watched, until everything came and the source is quiet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{ADAPTER, FakeBroker, Rig, config};
use crate::client::BrokerClient;
use crate::contract::{AdapterError, Batch, Checkpoint, Next, Source};
use crate::dead_letter::{DeadLetters, list};
use crate::runner::{Progress, run};

/// Times a source must say that it has nothing more, after everything came.
const QUIET: u64 = 3;
/// Longest time that the kit lets a source be idle.
const IDLE_MAX: Duration = Duration::from_millis(50);

/// What was seen of a source.
#[derive(Debug, Default)]
pub struct Seen {
    /// Reads that gave nothing and said that there is nothing.
    pub quiet: AtomicU64,
    /// A batch had more rows than were asked for.
    pub greedy: AtomicBool,
}

/// A source that is watched, and that is never idle for long.
struct Watched {
    inner: Box<dyn Source>,
    seen: Arc<Seen>,
    /// Dropped with the source: a run that was killed may leave it in the middle of a read, on its thread.
    _gone: oneshot::Sender<()>,
}

impl Source for Watched {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let mut batch = self.inner.read(from, max)?;
        if batch.rows() > max {
            self.seen.greedy.store(true, Ordering::Relaxed);
        }
        if let Next::Idle(time) = batch.next {
            batch.next = Next::Idle(time.min(IDLE_MAX));
            if batch.rows() == 0 {
                self.seen.quiet.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        self.inner.ack(durable)
    }
}

/// When a run is killed, if it is.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// It goes on until everything came and the source is quiet.
    Settled,
    /// The same, or there is a dead letter more than so many: rows that became one do not come.
    Told(usize),
    /// It is killed as soon as the broker has seen so many posts.
    Posts(u64),
}

/// How a run ended: killed or stopped, or by itself.
pub type Ended = Result<Option<Progress>, AdapterError>;

/// Runs a rig's source against the broker. `scratch` keeps the dead letters over the runs of one check.
pub async fn drive(
    rig: &mut dyn Rig,
    broker: &FakeBroker,
    scratch: &Path,
    until: Until,
    patience: Duration,
) -> Result<(Ended, Arc<Seen>), String> {
    let seen = Arc::new(Seen::default());
    let (alive, gone) = oneshot::channel();
    let source = Watched {
        inner: crate::apart(|| rig.open()).map_err(|e| format!("it did not open: {e}"))?,
        seen: Arc::clone(&seen),
        _gone: alive,
    };
    let ended = observed(source, rig, broker, scratch, until, patience).await?;
    // A process that was killed has no threads either: the next one finds nobody at its files.
    match tokio::time::timeout(patience, gone).await {
        Ok(_) => Ok((ended, seen)),
        Err(_) => Err("its read never ends".to_owned()),
    }
}

/// Runs the source until what `until` says.
async fn observed(
    source: Watched,
    rig: &mut dyn Rig,
    broker: &FakeBroker,
    scratch: &Path,
    until: Until,
    patience: Duration,
) -> Result<Ended, String> {
    let seen = Arc::clone(&source.seen);
    let client = BrokerClient::new(broker.url(), broker.token()).map_err(|e| e.to_string())?;
    let mut dead = DeadLetters::open(scratch, ADAPTER).map_err(|e| e.to_string())?;
    let (stop, stopping) = watch::channel(false);
    let config = config();
    let begun = Instant::now();
    let expected = rig.expected().len();
    let settled = async {
        let (mut count, mut quiet) = (broker.count(), 0);
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if broker.count() != count {
                (count, quiet) = (broker.count(), seen.quiet.load(Ordering::Relaxed));
            }
            let still = seen.quiet.load(Ordering::Relaxed) >= quiet + QUIET;
            match until {
                Until::Posts(n) if broker.posts() >= n || (count >= expected && still) => return,
                Until::Settled | Until::Told(_) if count >= expected && still => return,
                Until::Told(before) if still && self::dead(scratch).is_ok_and(|now| now > before) => return,
                _ if begun.elapsed() > patience => return,
                _ => {}
            }
        }
    };
    let running = run(source, &client, &mut dead, &config, stopping, |_| {});
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended.map(Some),
        () = settled => match until {
            // Killed: the future is dropped where it stands.
            Until::Posts(_) => Ok(None),
            Until::Settled | Until::Told(_) => {
                let _ = stop.send(true);
                tokio::time::timeout(patience, running).await.map_err(|_| "it does not stop when asked".to_owned())?.map(Some)
            }
        },
    };
    Ok(ended)
}

/// What is wrong with what came, if anything: each expected event once, nothing else, and the dead letters.
pub fn faults(rig: &dyn Rig, broker: &FakeBroker, scratch: &Path) -> Result<(), String> {
    let mut counts: std::collections::BTreeMap<String, i64> =
        rig.expected().into_iter().map(|name| (name, 0)).collect();
    let mut strange = Vec::new();
    for event in broker.events() {
        let name = rig.name(&event);
        match counts.get_mut(&name) {
            Some(count) => *count += 1,
            None => strange.push(name),
        }
    }
    let some = |list: &[String]| list.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let lost: Vec<String> = counts.iter().filter(|(_, n)| **n == 0).map(|(name, _)| name.clone()).collect();
    let twice: Vec<String> = counts.iter().filter(|(_, n)| **n > 1).map(|(name, _)| name.clone()).collect();
    let mut wrong = Vec::new();
    for (list, what) in [(&lost, "lost"), (&twice, "came more than once"), (&strange, "came and should not have")] {
        if !list.is_empty() {
            wrong.push(format!("{} {what} ({})", list.len(), some(list)));
        }
    }
    let dead = dead(scratch)?;
    if dead != rig.dead() {
        wrong.push(format!("{dead} dead letters instead of {}", rig.dead()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// How many dead letters there are.
pub fn dead(scratch: &Path) -> Result<usize, String> {
    list(&DeadLetters::path(scratch, ADAPTER)).map(|all| all.len()).map_err(|e| e.to_string())
}
