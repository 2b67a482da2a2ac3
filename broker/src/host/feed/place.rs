//! Where a new subscription begins in the own stream.

use super::error::{FeedError, streams};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use concordat_protocol::cbor;
use concordat_protocol::message::Envelope;
use concordat_protocol::subscribe::FeedStart;

/// The place behind which a subscription reads: the one before its first envelope.
pub(super) async fn before(stream: &Stream, from: &FeedStart) -> Result<u64, FeedError> {
    let state = &stream.cached_info().state;
    let (first, last) = (state.first_sequence.max(1), state.last_sequence);
    if let FeedStart::Latest {} = from {
        return Ok(last);
    }
    let mut search = Search { low: first, high: last + 1 };
    while let Some(place) = search.next() {
        search.tell(place, reached(stream, place, from).await?);
    }
    Ok(search.low - 1)
}

/// Whether the envelope at this place is one that a subscription begins with, or comes after it.
async fn reached(stream: &Stream, place: u64, from: &FeedStart) -> Result<bool, FeedError> {
    let wanted = match from {
        FeedStart::Earliest {} | FeedStart::Latest {} => return Ok(true),
        wanted => wanted,
    };
    let Some(message) = raw(stream, place).await? else { return Ok(false) };
    if let FeedStart::Time { ms } = wanted {
        return Ok(message.time.unix_timestamp_nanos() >= i128::from(*ms) * 1_000_000);
    }
    let envelope: Envelope = cbor::decode(&message.payload).map_err(|e| FeedError::Damaged(place, e.to_string()))?;
    Ok(!matches!(wanted, FeedStart::Sequence { seq } if envelope.header.last_seq() < *seq))
}

type Raw = async_nats::jetstream::message::StreamMessage;

/// A message by its place; none where it aged out meanwhile.
async fn raw(stream: &Stream, place: u64) -> Result<Option<Raw>, FeedError> {
    match stream.get_raw_message(place).await {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(streams(e)),
    }
}

/// Looks for the first place of `low..high` that is reached, which all later ones are too.
struct Search {
    low: u64,
    high: u64,
}

impl Search {
    /// The place to look at next.
    fn next(&self) -> Option<u64> {
        (self.low < self.high).then(|| self.low + (self.high - self.low) / 2)
    }

    fn tell(&mut self, place: u64, reached: bool) {
        if reached { self.high = place } else { self.low = place + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_is_reached_is_found() {
        for (first, last) in [(1u64, 0u64), (1, 1), (1, 2), (5, 12), (5, 13)] {
            for wanted in first.saturating_sub(2)..last + 3 {
                let mut search = Search { low: first, high: last + 1 };
                let mut looks = 0;
                while let Some(place) = search.next() {
                    search.tell(place, place >= wanted);
                    looks += 1;
                }
                assert_eq!(search.low, wanted.clamp(first, last + 1), "{first}..={last}, {wanted}");
                assert!(looks <= 4, "{looks}");
            }
        }
    }
}
