//! Names on the streams, one place for all who use them.
//!
//! In an agency's own account `PUB_<DATASET>` keeps its published envelopes. In the exchange the feed stream of a
//! consumer is named like its account; its subjects are `feed.<PROVIDER>.<CONSUMER>.<subscription>`.

use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::subscribe::SUBSCRIBE_TOKEN;

/// Prefix under which a consumer reaches the JetStream API of the exchange.
pub const EXCHANGE_API: &str = "XJS.API";

/// Stream of a dataset's envelopes in its owner's account.
pub fn publish_stream(dataset: &DatasetId) -> String {
    format!("PUB_{}", dataset.token().to_ascii_uppercase())
}

/// Subject of a dataset's envelopes in its owner's account.
pub fn publish_subject(dataset: &DatasetId) -> String {
    format!("pub.{}", dataset.token())
}

/// Subject to which a provider appends, in its own account.
pub fn feed_append(consumer: &AgencyId, subscription: u64) -> String {
    format!("feed.{}.{subscription}", consumer.account())
}

/// The same subject in the exchange.
pub fn feed_subject(provider: &AgencyId, consumer: &AgencyId, subscription: u64) -> String {
    format!("feed.{}.{}.{subscription}", provider.account(), consumer.account())
}

/// Durable consumer of a subscription on the consumer's feed stream.
pub fn feed_consumer(provider: &AgencyId, subscription: u64) -> String {
    format!("{}-{subscription}", provider.account())
}

/// Name of a subscription to applications: `grid-17`. Numbers are unique at one provider only.
pub fn subscription_name(provider: &AgencyId, subscription: u64) -> String {
    format!("{provider}-{subscription}")
}

/// Subject under which a consumer asks a provider for a subscription; it arrives as `q.<CONSUMER>.<PROVIDER>.feed`.
pub fn subscribe_subject(provider: &AgencyId) -> String {
    format!("query.{}.{SUBSCRIBE_TOKEN}", provider.account())
}

/// Subject under which an agency asks the exchange manager; it arrives as `xm.<AGENCY>.feed`.
pub const EXCHANGE_ASK: &str = "exchange.feed";

/// What the exchange manager listens to; the second token is the asking agency's account.
pub const EXCHANGE_SERVES: &str = "xm.*.feed";

/// Subject under which an executor tells its own broker how its deliveries stand, in the agency's own account; JSON.
pub const EXECUTOR_FEEDS: &str = "executor.feeds";

/// Subject under which an executor tells its own broker where the time of its queries goes; JSON.
pub const EXECUTOR_STAGES: &str = "executor.stages";
