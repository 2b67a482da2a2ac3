//! From posting to hand-on: a few lines every few milliseconds, and when the consumer's application has each of them.

use super::FLIGHTS;
use super::lines::{Lines, number};
use super::post::{Flight, Poster};
use super::receive::Events;
use crate::city::City;
use crate::failed::BenchError;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How fast it is posted.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Lines of a batch.
    pub lines: usize,
    /// How often.
    pub every: Duration,
}

/// 1,000 messages a second.
pub const FULL: Pace = Pace { lines: 5, every: Duration::from_millis(5) };
/// 200 messages a second, ten batches as an adapter at that pace makes them, for many subscriptions each.
pub const FANOUT: Pace = Pace { lines: 20, every: Duration::from_millis(100) };

/// When each batch was posted, and what number its first message has.
struct Schedule {
    first: u64,
    lines: usize,
    posted: Vec<OnceLock<Instant>>,
}

impl Schedule {
    fn new(first: u64, pace: Pace, length: Duration) -> Self {
        let batches = (length.as_micros() / pace.every.as_micros()).max(1) as usize;
        Self { first, lines: pace.lines, posted: (0..batches).map(|_| OnceLock::new()).collect() }
    }

    fn messages(&self) -> usize {
        self.posted.len() * self.lines
    }

    /// Milliseconds from posting to `now`; none for a message that is not of this schedule.
    fn took(&self, number: u64, now: Instant) -> Option<f64> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()? / self.lines;
        Some(now.saturating_duration_since(*self.posted.get(at)?.get()?).as_secs_f64() * 1_000.0)
    }
}

/// Posts at a pace while every subscription is followed; milliseconds from posting to hand-on, of every message at every
/// subscription. Fails when one comes twice; waits for all of them.
pub async fn paced(
    city: &City,
    poster: &Poster,
    subscriptions: &[String],
    pace: Pace,
    length: Duration,
) -> Result<Vec<f64>, BenchError> {
    let batches = (length.as_micros() / pace.every.as_micros()).max(1) as u64;
    let first = poster.numbers(batches * pace.lines as u64);
    let schedule = Arc::new(Schedule::new(first, pace, length));
    let mut followers = JoinSet::new();
    for id in subscriptions {
        followers.spawn(follow(Events::open(city, id).await?, schedule.clone()));
    }
    post(poster, &schedule, pace).await?;
    let mut samples = Vec::with_capacity(schedule.messages() * subscriptions.len());
    while let Some(done) = followers.join_next().await {
        samples.extend(done.map_err(|e| BenchError::refused("an application", e))??);
    }
    Ok(samples)
}

/// The clock does not wait for acknowledgements: while the broker is slow, batches wait, and their time runs.
async fn post(poster: &Poster, schedule: &Schedule, pace: Pace) -> Result<(), BenchError> {
    let idle: Arc<Mutex<Vec<Flight>>> = Arc::new(Mutex::new((0..FLIGHTS).map(|_| poster.flight()).collect()));
    let (free, mut clock) = (Arc::new(Semaphore::new(FLIGHTS)), tokio::time::interval(pace.every));
    let (mut lines, mut flying) = (Lines::new(pace.lines), JoinSet::new());
    for (i, posted) in schedule.posted.iter().enumerate() {
        clock.tick().await;
        let _ = posted.set(Instant::now());
        let body = lines.numbered(schedule.first + (i * pace.lines) as u64, pace.lines).to_vec();
        let permit = free.clone().acquire_owned().await.map_err(|e| BenchError::refused("posting", e))?;
        let flight = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut flight = flight.unwrap_or_else(|| poster.flight());
        let (batch, idle) = (poster.next_batch(), idle.clone());
        flying.spawn(async move {
            flight.post(batch, &body).await?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(flight);
            drop(permit);
            Ok::<(), BenchError>(())
        });
        while let Some(done) = flying.try_join_next() {
            done.map_err(|e| BenchError::refused("posting", e))??;
        }
    }
    while let Some(done) = flying.join_next().await {
        done.map_err(|e| BenchError::refused("posting", e))??;
    }
    Ok(())
}

async fn follow(mut events: Events, schedule: Arc<Schedule>) -> Result<Vec<f64>, BenchError> {
    let mut samples = Vec::with_capacity(schedule.messages());
    let mut seen = vec![false; schedule.messages()];
    while samples.len() < seen.len() {
        let messages = events.next().await?;
        let now = Instant::now();
        for message in &messages {
            let Some(n) = number(message) else { continue };
            let Some(took) = schedule.took(n, now) else { continue };
            let at = (n - schedule.first) as usize;
            if std::mem::replace(&mut seen[at], true) {
                return Err(BenchError::refused("a message", format!("number {n} came twice")));
            }
            samples.push(took);
        }
    }
    events.finish().await?;
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_took_from_its_batchs_post_and_strangers_took_nothing() {
        let schedule = Schedule::new(100, FULL, Duration::from_millis(10));
        assert_eq!(schedule.messages(), 10);
        let begun = Instant::now();
        schedule.posted[1].set(begun).unwrap();
        let now = begun + Duration::from_millis(7);
        assert_eq!(schedule.took(105, now), Some(7.0));
        assert_eq!(schedule.took(109, now), Some(7.0));
        for stranger in [99, 104, 110] {
            assert_eq!(schedule.took(stranger, now), None, "{stranger}: before, not posted yet, behind");
        }
    }
}
