//! Subscriptions beside the default ones: what a consumer's broker asks of a provider and of the exchange.
//!
//! A command to a provider travels as the query document of a [`crate::session::QueryCall`] (canonical bytes in place of
//! JSON), so that it is signed under the session like a query. It discloses nothing and takes no entry of its own: what
//! is delivered under the subscription is promised and anchored.

use crate::cbor::Bytes;
use crate::ids::AgencyId;
use crate::session::Denied;
use crate::{canon_enum, canon_struct};

/// Last token of the subject that takes these commands; no dataset's token ends without a version.
pub const SUBSCRIBE_TOKEN: &str = "feed";

/// Number of the `k`-th subscription (from 1) that a consumer created under a clause: it says by itself which clause it
/// is, so that the ledger and the exchange need not be told. The default subscription has the handle itself as number.
/// None where the handle does not fit, which the ledger does not reach.
#[must_use]
pub const fn numbered(handle: u64, k: u32) -> Option<u64> {
    if handle == 0 || handle >> 31 != 0 || k == 0 {
        return None;
    }
    Some(handle << 32 | k as u64)
}

/// Created subscriptions have numbers from here on, default ones below.
pub const CREATED_FROM: u64 = 1 << 32;

/// The handle under which a subscription was created.
#[must_use]
pub const fn handle_of(subscription: u64) -> u64 {
    if subscription >> 32 == 0 { subscription } else { subscription >> 32 }
}

canon_enum! {
    /// Where a new subscription begins in the provider's own stream.
    pub enum FeedStart {
        /// With the oldest envelope that is kept.
        1 => Earliest {},
        /// With what is published from now on.
        2 => Latest {},
        /// With the envelope that holds this sequence number of the dataset, or the oldest kept after it.
        3 => Sequence { seq: u64 },
        /// With the first envelope that was stored at this time or later, milliseconds since 1970.
        4 => Time { ms: u64 },
    }
}

canon_struct! {
    /// What a new subscription asks for; it can only be less than its clause opens.
    pub struct NewSubscription {
        /// The consumer's own name of it, 1 to 64 of `a-z 0-9 -`: the same name and terms again are the same subscription.
        pub name: String,
        /// Pseudonym of the person or application that asks.
        pub actor: String,
        /// Its roles, which the consumer's broker vouches for.
        pub roles: Vec<String>,
        /// A filter of the query language, JSON; empty for every row that the clause opens.
        pub filter: Bytes,
        /// Fields, sorted; empty for all that the clause opens.
        pub fields: Vec<String>,
        /// Where it begins.
        pub from: FeedStart,
    }
}

canon_enum! {
    /// What a consumer asks of a provider's executor.
    pub enum SubscribeCommand {
        /// A subscription of its own under a clause.
        1 => Create { body: NewSubscription },
        /// An end to one. What was delivered is still anchored.
        2 => Delete { subscription: u64 },
    }
}

canon_struct! {
    /// A subscription as its provider keeps it.
    pub struct Subscribed {
        /// Its number at the provider.
        pub subscription: u64,
        /// `AGR-2026-0143`
        pub agreement: String,
        /// The agreement's version.
        pub version: u64,
        /// The clause's id.
        pub clause: String,
        /// The clause's handle on the ledger.
        pub handle: u64,
        /// The clause's bound, milliseconds; 0 where the clause asks for no evidence.
        pub max_lag_ms: u64,
        /// The fields that are shown, sorted.
        pub fields: Vec<String>,
    }
}

canon_enum! {
    /// The executor's answer to a [`SubscribeCommand`].
    pub enum SubscribeReply {
        /// It is there, and durable at the provider.
        1 => Subscribed { body: Subscribed },
        /// Nothing more is delivered under this number.
        2 => Deleted { subscription: u64 },
        /// No.
        3 => Denied { body: Denied },
    }
}

canon_enum! {
    /// What an agency asks of the exchange manager for its own feed stream. Who asks is the subject's word, which the
    /// streams' server puts there.
    pub enum ExchangeCommand {
        /// A durable consumer for a subscription of a provider, under the clause with this handle.
        1 => Open { provider: AgencyId, subscription: u64, handle: u64 },
        /// An end to it, and to what is left of its items.
        2 => Close { provider: AgencyId, subscription: u64 },
        /// Items again from this place of the feed stream on; 1 is the oldest that is kept.
        3 => Seek { provider: AgencyId, subscription: u64, place: u64 },
    }
}

canon_enum! {
    /// The exchange manager's answer.
    pub enum ExchangeReply {
        /// It is so.
        1 => Done {},
        /// A stable word and a sentence that says what to do.
        2 => Refused { code: String, detail: String },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_says_its_clause() {
        assert_eq!(
            (handle_of(17), handle_of(numbered(17, 1).unwrap()), handle_of(numbered(17, u32::MAX).unwrap())),
            (17, 17, 17)
        );
        assert_ne!(numbered(17, 1), numbered(17, 2));
        assert_ne!(numbered(1, 17), numbered(17, 1));
        assert_eq!((numbered(0, 1), numbered(17, 0), numbered(1 << 31, 1)), (None, None, None));
    }
}
