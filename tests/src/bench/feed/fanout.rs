//! One feed, many subscriptions: how many messages a second arrive in all.

use super::post::Poster;
use super::receive::Follower;
use crate::city::City;
use crate::failed::BenchError;
use serde::de::IgnoredAny;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Subscriptions on the one dataset, the agreement's own among them.
pub const SUBSCRIPTIONS: usize = 50;

/// Publishes as fast as it goes; delivered messages a second of all subscriptions together, until each has all of them.
pub async fn flood(city: &City, poster: &Poster, subscriptions: &[String], messages: u64) -> Result<f64, BenchError> {
    let messages = (messages / super::BATCH as u64).max(1) * super::BATCH as u64;
    let mut followers = JoinSet::new();
    for id in subscriptions {
        let mut follower = Follower::new(city, id)?;
        followers.spawn(async move {
            let mut got = 0;
            while got < messages {
                got += follower.next::<IgnoredAny>().await?.len() as u64;
            }
            let done = Instant::now();
            follower.finish().await?;
            Ok::<_, BenchError>((got, done))
        });
    }
    let begun = Instant::now();
    poster.flood(messages, Duration::from_secs(3_600)).await?;
    let (mut all, mut last) = (0, begun);
    while let Some(done) = followers.join_next().await {
        let (got, at) = done.map_err(|e| BenchError::refused("an application", e))??;
        if got != messages {
            return Err(BenchError::refused("fan-out", format!("{got} messages came where {messages} were published")));
        }
        (all, last) = (all + got, last.max(at));
    }
    Ok(all as f64 / last.duration_since(begun).as_secs_f64())
}
