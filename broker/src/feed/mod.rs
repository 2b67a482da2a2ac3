//! Feeds, the consumer side.
