//! Subscriptions of a consumer's own: commands to a provider and to the exchange, and their answers.

use super::session::denied;
use super::{Sample, TICK, id, sample};
use concordat_protocol::cbor::Bytes;
use concordat_protocol::subscribe::{
    ExchangeCommand, ExchangeReply, FeedStart, NewSubscription, SubscribeCommand, SubscribeReply, Subscribed,
};

/// Handle of the clause.
pub const HANDLE: u64 = 300;
/// Number of a first subscription under it.
pub const NUMBER: u64 = HANDLE << 32 | 1;
/// The row filter.
pub const FILTER: &str = r#"{"mw":{"range":{"from":10}}}"#;

/// One of each place to begin.
pub fn starts() -> Vec<Sample<FeedStart>> {
    vec![
        sample!(FeedStart::Earliest {}),
        sample!(FeedStart::Latest {}),
        sample!(FeedStart::Sequence { seq: 8_736 }),
        sample!(FeedStart::Time { ms: TICK }),
    ]
}

/// With a filter and fields, and one that asks for all that the clause opens.
pub fn news() -> Vec<Sample<NewSubscription>> {
    vec![
        sample!(NewSubscription {
            name: "night-load".to_owned(),
            actor: "p-17".to_owned(),
            roles: vec!["role:planner".to_owned()],
            filter: Bytes(FILTER.as_bytes().to_vec()),
            fields: vec!["mw".to_owned(), "time".to_owned()],
            from: FeedStart::Time { ms: TICK },
        }),
        sample!(NewSubscription {
            name: "all".to_owned(),
            actor: "p-17".to_owned(),
            roles: Vec::<String>::new(),
            filter: Bytes::default(),
            fields: Vec::<String>::new(),
            from: FeedStart::Earliest {},
        }),
    ]
}

/// One of each command to a provider.
pub fn commands() -> Vec<Sample<SubscribeCommand>> {
    vec![
        sample!(SubscribeCommand::Create { body: news().swap_remove(0).value }),
        sample!(SubscribeCommand::Delete { subscription: NUMBER }),
    ]
}

/// As the provider keeps it; the second one's clause asks for no evidence.
pub fn kept() -> Vec<Sample<Subscribed>> {
    let with = |max_lag_ms: u64, fields: Vec<String>| {
        sample!(Subscribed {
            subscription: NUMBER,
            agreement: "AGR-2026-0143".to_owned(),
            version: 1,
            clause: "C1".to_owned(),
            handle: HANDLE,
            max_lag_ms,
            fields,
        })
    };
    vec![with(60_000, vec!["mw".to_owned(), "time".to_owned()]), with(0, vec![])]
}

/// One of each answer of a provider.
pub fn replies() -> Vec<Sample<SubscribeReply>> {
    vec![
        sample!(SubscribeReply::Subscribed { body: kept().swap_remove(0).value }),
        sample!(SubscribeReply::Deleted { subscription: NUMBER }),
        sample!(SubscribeReply::Denied { body: denied().value }),
    ]
}

/// One of each command to the exchange.
pub fn exchange_commands() -> Vec<Sample<ExchangeCommand>> {
    vec![
        sample!(ExchangeCommand::Open { provider: id("grid"), subscription: NUMBER, handle: HANDLE }),
        sample!(ExchangeCommand::Close { provider: id("grid"), subscription: NUMBER }),
        sample!(ExchangeCommand::Seek { provider: id("grid"), subscription: NUMBER, place: 1 }),
    ]
}

/// One of each answer of the exchange.
pub fn exchange_replies() -> Vec<Sample<ExchangeReply>> {
    vec![
        sample!(ExchangeReply::Done {}),
        sample!(ExchangeReply::Refused {
            code: "limit".to_owned(),
            detail: "an agency may have 1,000 subscriptions: delete one".to_owned()
        }),
    ]
}
