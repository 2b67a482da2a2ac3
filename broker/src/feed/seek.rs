//! Pause, resume and seek: what an application decides about its own reading.

use super::buffer::{Cursor, Start};
use super::store::Seek;
use super::subscription::{Resync, Subscription};
use super::{FeedError, Subscriptions};
use std::time::Duration;
use tracing::info;

/// How long a seek waits for the exchange before it is answered; it goes on after that.
const WAIT: Duration = Duration::from_secs(5);

/// Where to read again from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// From the oldest item that the exchange keeps.
    Earliest,
    /// From what is delivered from now on; all before it counts as acknowledged.
    Latest,
    /// From the message after this one.
    Cursor(Cursor),
    /// From this delivery.
    SubSeq(u64),
    /// From the first delivery that was delivered at this time or later, milliseconds since 1970.
    Time(u64),
}

fn bad(rule: impl Into<String>) -> FeedError {
    FeedError::Bad { field: "to", rule: rule.into() }
}

impl Subscriptions {
    /// Reads again from a place. What was acknowledged moves there. Durable before anything moves, so that a process that
    /// dies in the middle of it goes on with it. Returns whether the exchange did its part already.
    pub async fn seek(&self, sub: &Subscription, to: SeekTo) -> Result<bool, FeedError> {
        let _one = sub.acking.lock().await;
        let (number, start) = match to {
            SeekTo::Earliest | SeekTo::Latest => (0, Start::First),
            SeekTo::Cursor(c) => (c.sub_seq, Start::After(c)),
            SeekTo::SubSeq(n) => (n, Start::From(n)),
            SeekTo::Time(ms) => (0, Start::Since(ms)),
        };
        match to {
            SeekTo::Cursor(_) | SeekTo::SubSeq(_) => self.is_delivered(sub, number).await?,
            SeekTo::Time(ms) if ms > self.parts.now_ms() => return Err(bad("this time has not come")),
            _ => {}
        }
        let place = match to {
            SeekTo::Latest => self.end_of_stream().await? + 1,
            _ => self.parts.shelf.place_before(&sub.key, start).await?,
        };
        let seek = Seek { start, place };
        self.parts.shelf.seek(&sub.key, &seek).await?;
        info!(subscription = sub.id(), ?start, place, "seek");
        let seeks = sub.change(|i| {
            i.begin_seek(seek);
            i.seeks
        });
        sub.room.notify_one();
        let until = tokio::time::Instant::now() + WAIT;
        loop {
            let news = sub.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let (done, fetches) = sub.with(|i| (i.seeks != seeks || i.resync != Resync::Hard, i.fetches()));
            if done || !fetches || tokio::time::timeout_at(until, news).await.is_err() {
                return Ok(done);
            }
        }
    }

    /// Refuses a number that was never delivered, since a reader would wait for it without knowing.
    async fn is_delivered(&self, sub: &Subscription, number: u64) -> Result<(), FeedError> {
        let anchored = self.parts.setup.node.subscription(&sub.key.provider, sub.key.number).await.unwrap_or(0);
        let newest = sub.with(|i| i.newest.max(i.buffer.last())).max(anchored);
        if number == 0 {
            return Err(bad("deliveries are numbered from 1"));
        }
        if number > newest + 1 {
            return Err(bad(format!("{number} was not delivered yet, the newest delivery is {newest}")));
        }
        Ok(())
    }

    /// Last place of the own feed stream.
    async fn end_of_stream(&self) -> Result<u64, FeedError> {
        let own = self.parts.setup.cfg.exchange.own.clone();
        let stream = self.parts.js.get_stream(own).await.map_err(|e| FeedError::Exchange(e.to_string()))?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Stops fetching and handing on until it is resumed; nothing is lost for as long as the exchange keeps items.
    pub async fn pause(&self, sub: &Subscription, by: &str) -> Result<(), FeedError> {
        let _one = sub.acking.lock().await;
        if sub.with(|i| i.paused.is_some()) {
            return Ok(());
        }
        let paused = Some((by.to_owned(), super::subscription::wall_ms()));
        self.parts.shelf.pause(&sub.key, paused.clone()).await?;
        info!(subscription = sub.id(), by, "paused");
        sub.change(|i| i.paused = paused);
        Ok(())
    }

    /// Goes on where it stopped.
    pub async fn resume(&self, sub: &Subscription) -> Result<(), FeedError> {
        let _one = sub.acking.lock().await;
        self.parts.shelf.pause(&sub.key, None).await?;
        info!(subscription = sub.id(), "resumed");
        sub.change(|i| i.paused = None);
        sub.room.notify_one();
        Ok(())
    }
}
