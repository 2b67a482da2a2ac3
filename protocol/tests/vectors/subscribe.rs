//! Subscriptions as resources: what a consumer's broker says to a provider and to the exchange.

use crate::samples::{Sample, assert_every_kind, subscribe as made};
use crate::{kept, sampled, shape};
use concordat_protocol::cbor::Canon;
use concordat_protocol::subscribe::{
    ExchangeCommand, ExchangeReply, FeedStart, NewSubscription, SUBSCRIBE_TOKEN, SubscribeCommand, SubscribeReply,
    Subscribed,
};
use serde_json::{Value, json};

fn plain<T: Canon + PartialEq>(list: &[Sample<T>]) -> Value {
    list.iter().map(|s| sampled(&s.fields, &s.value, None)).collect()
}

/// Values of a numbered shape with their names; every kind must have a sample.
fn numbered<T: Canon + PartialEq>(list: &[Sample<T>], of: impl Fn(&T) -> (u64, &'static str)) -> Value {
    assert_every_kind::<T>(list.iter().map(|s| of(&s.value).0));
    let one = |s: &Sample<T>| {
        let (kind, name) = of(&s.value);
        let mut out = sampled(&s.fields, &s.value, Some(kind));
        out["name"] = name.into();
        out
    };
    list.iter().map(one).collect()
}

#[test]
fn subscriptions() {
    let refused = |shape: Value| shape["refused"].clone();
    kept(
        "subscriptions.json",
        &json!({
            "about": "Commands for subscriptions: to a provider as the query document of a signed call under the subject's last token `subscribe_token`, and to the exchange manager; their answers. A struct in `fields` is the array of its fields",
            "subscribe_token": SUBSCRIBE_TOKEN, "handle": made::HANDLE, "filter_text": made::FILTER,
            "starts": numbered(&made::starts(), |v| (v.kind(), v.kind_name())),
            "new_subscriptions": plain(&made::news()),
            "commands": numbered(&made::commands(), |v| (v.kind(), v.kind_name())),
            "subscribed": plain(&made::kept()),
            "replies": numbered(&made::replies(), |v| (v.kind(), v.kind_name())),
            "exchange_commands": numbered(&made::exchange_commands(), |v| (v.kind(), v.kind_name())),
            "exchange_replies": numbered(&made::exchange_replies(), |v| (v.kind(), v.kind_name())),
            "refused_starts": refused(shape::<FeedStart>("start", &[], &[
                ("8100", "kind 0"), ("8105", "kind 5"), ("820101", "earliest with a field"), ("8103", "no sequence number"),
                ("820320", "a negative number"), ("82031817", "23 in two bytes"), ("9f01ff", "indefinite length"), ("01", "no array"),
            ])),
            "refused_commands": refused(shape::<SubscribeCommand>("command", &[], &[
                ("8103", "kind 3"), ("820180", "a subscription without fields"), ("8202f6", "null"), ("82026131", "a number as text"),
                ("820280", "an array in place of a number"), ("82020100", "a byte follows"),
            ])),
            "refused_new_subscriptions": refused(shape::<NewSubscription>("new subscription", &[], &[
                ("85616161618040808101", "five fields, six items"), ("866161616180408001", "the start is no array"),
                ("86616161618060808101", "the filter is text"), ("86616161614040808101", "the roles are bytes"),
            ])),
            "refused_subscribed": refused(shape::<Subscribed>("subscribed", &[], &[
                ("80", "no fields"), ("8701613101613101018061", "cut off"),
            ])),
            "refused_replies": refused(shape::<SubscribeReply>("reply", &[], &[("8104", "kind 4"), ("8103", "a denial without its body")])),
            "refused_exchange_commands": refused(shape::<ExchangeCommand>("exchange command", &[], &[
                ("8104", "kind 4"), ("840164475249440101", "an agency in capitals"), ("8301646772696401", "open without a handle"),
                ("83026067", "no agency"), ("84036467726964011a00000001", "a place in five bytes"),
            ])),
            "refused_exchange_replies": refused(shape::<ExchangeReply>("exchange reply", &[], &[
                ("820101", "done with a field"), ("8202656c696d6974", "no sentence"), ("83024161", "a code that is no text"),
            ])),
        }),
    );
}
