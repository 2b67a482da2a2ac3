//! Operations, acts, terms, sessions and the node's messages.

use crate::samples::{self, acts, node, ops, session, subscribe, terms};
use crate::{Damage, apply, check, damage};
use concordat_protocol::acts::{Act, ActBody};
use concordat_protocol::cbor::{Canon, decode, encode};
use concordat_protocol::node::{
    AgreementView, EntryProof, Frame, HeadView, KeyView, NodeReply, NodeRequest, SessionLeaf, SessionView, WriterView,
};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tags, Tx};
use concordat_protocol::session::{
    Content, Denied, FeedItem, Promise, QueryCall, QueryReply, Release, ReleasePromise, Released, Request,
    SignedRequest, Ticket,
};
use concordat_protocol::subscribe::{
    ExchangeCommand, ExchangeReply, FeedStart, NewSubscription, SubscribeCommand, SubscribeReply, Subscribed,
};
use concordat_protocol::terms::{ClauseTerms, Evidence, Quota, Terms};
use proptest::prelude::*;
use std::sync::LazyLock;

/// Damages one of the values; which one is chosen by `pick`.
fn any_of<T: Canon + PartialEq>(values: &[T], pick: prop::sample::Index, by: &Damage) -> Result<(), TestCaseError> {
    check(&values[pick.index(values.len())], by).map(drop)
}

/// Bytes that were not made from a value: refused, or the one encoding of what is read.
fn arbitrary<T: Canon>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(read) = decode::<T>(bytes) {
        prop_assert_eq!(encode(&read), bytes);
    }
    Ok(())
}

macro_rules! arbitrary_as {
    ($bytes:expr; $($t:ty),* $(,)?) => { $(arbitrary::<$t>($bytes)?;)* };
}

fn every_type(bytes: &[u8]) -> Result<(), TestCaseError> {
    arbitrary_as!(bytes; Op, Tags, Batch, Tx, LogEntry, Act, ActBody, Terms, ClauseTerms, Evidence, Quota);
    arbitrary_as!(bytes; Request, SignedRequest, QueryCall, QueryReply, Ticket, Release, Content, Released, Denied, Promise, ReleasePromise, FeedItem);
    arbitrary_as!(bytes; NodeRequest, NodeReply, Frame, HeadView, WriterView, SessionView, KeyView, AgreementView, EntryProof, SessionLeaf);
    arbitrary_as!(bytes; FeedStart, NewSubscription, SubscribeCommand, Subscribed, SubscribeReply, ExchangeCommand, ExchangeReply);
    Ok(())
}

/// Arrays of small items: far more often nearly a value than plain random bytes are.
fn arrays() -> impl Strategy<Value = Vec<u8>> {
    let item = prop_oneof![
        any::<u64>().prop_map(|n| encode(&n)),
        (0u64..26).prop_map(|n| encode(&n)),
        "[a-z:/@1]{0,9}".prop_map(|s| encode(&s)),
        prop_oneof![Just(16usize), Just(32), Just(64), 0usize..4]
            .prop_map(|n| encode(&concordat_protocol::cbor::Bytes(vec![1; n]))),
    ];
    item.prop_recursive(4, 40, 12, |inner| {
        proptest::collection::vec(inner, 0..12)
            .prop_map(|items| [vec![0x80 | items.len() as u8], items.concat()].concat())
    })
}

struct Made {
    ops: Vec<Op>,
    batches: Vec<Batch>,
    txs: Vec<Tx>,
    entries: Vec<LogEntry>,
    acts: Vec<Act>,
    terms: Vec<Terms>,
    requests: Vec<NodeRequest>,
    replies: Vec<NodeReply>,
    signed: Vec<SignedRequest>,
    query_replies: Vec<QueryReply>,
    contents: Vec<Content>,
    items: Vec<FeedItem>,
}

fn values<T>(list: Vec<samples::Sample<T>>) -> Vec<T> {
    list.into_iter().map(|s| s.value).collect()
}

/// Made once: some hold signatures and sealed texts.
static MADE: LazyLock<Made> = LazyLock::new(|| {
    let key = samples::ed25519(acts::ED25519_SEED);
    Made {
        ops: values(ops::ops()),
        batches: values(ops::batches().into()),
        txs: ops::txs(),
        entries: values(ops::entries()),
        acts: acts::bodies().into_iter().map(|b| acts::act(b.value, &key).value).collect(),
        terms: values(terms::all()),
        requests: values(node::requests()),
        replies: values(node::replies()),
        signed: session::signed(),
        query_replies: vec![
            QueryReply::Released { body: session::released().value },
            QueryReply::Denied { body: session::denied().value },
            QueryReply::Written { body: session::written().value },
            QueryReply::Promised { body: session::promised().value },
        ],
        contents: session::contents(),
        items: vec![session::item().value],
    }
});

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        every_type(&bytes)?;
    }

    #[test]
    fn random_arrays(bytes in arrays()) {
        every_type(&bytes)?;
    }

    #[test]
    fn operations(by in damage(), pick: prop::sample::Index) {
        any_of(&MADE.ops, pick, &by)?;
        any_of(&MADE.batches, pick, &by)?;
        any_of(&MADE.txs, pick, &by)?;
        any_of(&MADE.entries, pick, &by)?;
    }

    #[test]
    fn acts_and_terms(by in damage(), pick: prop::sample::Index) {
        any_of(&MADE.acts, pick, &by)?;
        any_of(&MADE.terms, pick, &by)?;
    }

    #[test]
    fn sessions(by in damage(), pick: prop::sample::Index) {
        any_of(&MADE.signed, pick, &by)?;
        any_of(&MADE.query_replies, pick, &by)?;
        any_of(&MADE.contents, pick, &by)?;
        any_of(&MADE.items, pick, &by)?;
        any_of(&[session::call().value], pick, &by)?;
        any_of(&[session::ticket().value], pick, &by)?;
    }

    #[test]
    fn subscriptions(by in damage(), pick: prop::sample::Index) {
        any_of(&values(subscribe::starts()), pick, &by)?;
        any_of(&values(subscribe::news()), pick, &by)?;
        any_of(&values(subscribe::commands()), pick, &by)?;
        any_of(&values(subscribe::kept()), pick, &by)?;
        any_of(&values(subscribe::replies()), pick, &by)?;
        any_of(&values(subscribe::exchange_commands()), pick, &by)?;
        any_of(&values(subscribe::exchange_replies()), pick, &by)?;
    }

    #[test]
    fn node_messages(by in damage(), pick: prop::sample::Index) {
        any_of(&MADE.requests, pick, &by)?;
        any_of(&MADE.replies, pick, &by)?;
    }

    #[test]
    fn values_of_other_types(pick: prop::sample::Index, by in damage()) {
        let lists: [Vec<Vec<u8>>; 6] = [
            values(subscribe::commands()).iter().map(encode).collect(),
            values(subscribe::exchange_commands()).iter().map(encode).collect(),
            MADE.acts.iter().map(encode).collect(),
            MADE.replies.iter().map(encode).collect(),
            MADE.query_replies.iter().map(encode).collect(),
            MADE.terms.iter().map(encode).collect(),
        ];
        for list in lists {
            let bytes = &list[pick.index(list.len())];
            every_type(bytes)?;
            every_type(&apply(bytes, &by))?;
        }
    }
}
