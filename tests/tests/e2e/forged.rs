//! Deliveries that do not prove themselves, sent by hand with the provider's own credentials.

use crate::World;
use crate::subscriptions::{WITHIN, all_seen, data, meter, newest};
use concordat_broker::host::feed::{Maker, Sealer};
use concordat_broker::keys::KeyFolder;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::keys::{SigningKey, Statement, Suite};
use concordat_protocol::message::{EnvelopeDraft, EnvelopeSource, Record, RedactedEnvelope, SourceState};
use concordat_protocol::session::{FeedItem, Promise};
use concordat_tests::harness::{City, Feed, exchange_streams, jetstream, streams, until, wait};
use serde_json::{Value, json};

/// The newest item of a subscription, as it stands in transport's feed stream.
fn item(city: &City, number: u64) -> FeedItem {
    let js = jetstream(exchange_streams(city));
    let subject = format!("feed.GRID.TRANSPORT.{number}");
    let raw = wait(async { js.get_stream("TRANSPORT").await.unwrap().get_last_raw_message_by_subject(&subject).await });
    cbor::decode(&raw.expect("an item").payload).expect("a feed item")
}

fn promise(item: &FeedItem) -> Promise {
    cbor::decode(&item.promise).expect("a promise")
}

/// An item with another promise, signed by `key`.
fn promised(item: &FeedItem, key: &SigningKey, chain: &str, change: impl FnOnce(&mut Promise)) -> FeedItem {
    let mut promise = promise(item);
    change(&mut promise);
    let bytes = cbor::encode(&promise);
    let signature = key.sign(Statement::Promise, chain, &bytes).ed25519;
    FeedItem { promise: bytes.into(), promise_signature: signature, ..item.clone() }
}

/// An envelope of one message, as whoever has `key` would make it.
fn envelope(city: &City, feed: &Feed, key: &SigningKey, claims: &SigningKey) -> RedactedEnvelope {
    let event = json!({"specversion": "1.0", "id": "6666", "source": feed.id, "type": "concordat.record.v1",
                       "data": {"n": 6_666, "zone": "N", "mw": "1"}});
    let draft = EnvelopeDraft {
        chain: city.chain(),
        dataset: feed.id.parse().unwrap(),
        first_seq: 1,
        source: EnvelopeSource {
            salt: [0; 16],
            state: SourceState { adapter: String::new(), batch_no: 1, checkpoint: Bytes::default() },
        },
        members: ["n", "zone", "mw", "note"].map(String::from).into(),
        records: vec![Record { secret: [1; 32], event: event.to_string().into_bytes().into() }],
    };
    let mut signed = draft.sign(key).unwrap().redact(|_, _| Some(|name: &str| name.starts_with("d/"))).unwrap();
    signed.key = claims.key_id();
    signed
}

/// What is sent, and the check that must find it.
fn forgeries(city: &City, feed: &Feed, number: u64) -> Vec<(&'static str, Vec<u8>)> {
    let (good, chain) = (item(city, number), city.chain());
    let next = promise(&good).first_sub_seq + 1;
    let (release, own) = (city.key("grid", "release"), city.key("grid", "envelope"));
    let stranger = SigningKey::generate(Suite::Ed25519).unwrap();
    let kem = KeyFolder::new(city.dir("transport").join("keys")).kem().expect("kem.key").public().clone();
    let max_lag_ms = promise(&good).max_lag_ms;
    let grid = "grid".parse().unwrap();
    let made = |signer: &SigningKey, max_lag_ms: u64, subscription: u64, inner: &RedactedEnvelope| {
        let maker = Maker { chain: &chain, provider: &grid, subscription, max_lag_ms, key: signer };
        let mut sealer = Sealer::new(&kem, &chain, number, next - 1).unwrap();
        maker.item(inner, next, promise(&good).delivered_ms, &mut sealer).unwrap().0
    };
    let genuine = envelope(city, feed, &own, &own);
    let at_next =
        |item: FeedItem| promised(&item, &release, &chain, |p| (p.first_sub_seq, p.last_sub_seq) = (next, next));
    let mut flipped = good.sealed.0.clone();
    flipped[20] ^= 1;
    let list = [
        ("item", b"not an item".to_vec()),
        ("item", cbor::encode(&good)[..100].to_vec()),
        ("promise-signature", cbor::encode(&promised(&good, &stranger, &chain, |_| {}))),
        ("release-key", cbor::encode(&made(&stranger, max_lag_ms, number, &genuine))),
        ("release-key", cbor::encode(&made(&own, max_lag_ms, number, &genuine))),
        ("promise-max-lag", cbor::encode(&made(&release, max_lag_ms + 1, number, &genuine))),
        ("promise-subscription", cbor::encode(&made(&release, max_lag_ms, number + 1, &genuine))),
        ("promise-range", cbor::encode(&promised(&good, &release, &chain, |p| p.last_sub_seq += 1))),
        // The promise of another delivery, and contents that are not the promised ones.
        ("seal", cbor::encode(&at_next(good.clone()))),
        ("seal", cbor::encode(&promised(&good, &release, &chain, |p| p.root[0] ^= 1))),
        ("seal", cbor::encode(&FeedItem { sealed: flipped.into(), ..good.clone() })),
        // Well sealed and well promised, by a provider that forges what its own publisher signed.
        (
            "envelope-signature",
            cbor::encode(&made(&release, max_lag_ms, number, &envelope(city, feed, &stranger, &own))),
        ),
        (
            "envelope-key",
            cbor::encode(&made(&release, max_lag_ms, number, &envelope(city, feed, &stranger, &stranger))),
        ),
    ];
    list.into()
}

pub fn forged_deliveries_are_refused_and_good_ones_go_on(world: &World) {
    let (city, feed) = (world.shared(), meter(world));
    let mut follower = newest(city, feed, "forged");
    let number = follower.view()["subscription"].as_u64().expect("its number");
    feed.publish(city, 6_000..6_010);
    assert_eq!(data(&follower.take(10)), all_seen(6_000..6_010));
    let before = follower.view();
    let count = |view: &Value, name: &str| view[name].as_u64().unwrap_or_else(|| panic!("{name} in {view}"));
    let js = jetstream(streams(city, "grid"));
    let append = |bytes: Vec<u8>| {
        let subject = format!("feed.TRANSPORT.{number}");
        wait(async { js.publish(subject, bytes.into()).await.unwrap().await }).expect("appended");
    };
    let forged = forgeries(city, feed, number);
    for (_, bytes) in &forged {
        append(bytes.clone());
    }
    // A replay of a good one.
    append(cbor::encode(&item_before(city, number, forged.len())));
    feed.publish(city, 6_010..6_020);
    assert_eq!(data(&follower.take(10)), all_seen(6_010..6_020), "the good ones come, and nothing else");
    follower.nothing_more();
    let view = until("every forged one is counted", WITHIN, || {
        let view = follower.view();
        let found = count(&view, "invalid") - count(&before, "invalid");
        if found == forged.len() as u64 && count(&view, "duplicates") > count(&before, "duplicates") {
            Ok(view)
        } else {
            Err(view)
        }
    });
    assert_eq!(count(&view, "missing"), count(&before, "missing"), "{view}");
    // Each is listed with the check that found it.
    let listed = follower.api.get(&follower.path("/dead-letters")).is(200).body;
    let list = listed["dead_letters"].as_array().unwrap_or_else(|| panic!("{listed}"));
    let mut found: Vec<&str> = list.iter().filter_map(|l| l["check"].as_str()).collect();
    let mut want: Vec<&str> = forged.iter().map(|(check, _)| *check).collect();
    found.sort_unstable();
    want.sort_unstable();
    assert_eq!(found, want, "{listed}");
    follower.api.delete(&follower.path(""));
}

/// The last good item: the one before these forged ones.
fn item_before(city: &City, number: u64, forged: usize) -> FeedItem {
    let js = jetstream(exchange_streams(city));
    let subject = format!("feed.GRID.TRANSPORT.{number}");
    let found = wait(async {
        let stream = js.get_stream("TRANSPORT").await.unwrap();
        let mut place = stream.get_last_raw_message_by_subject(&subject).await.unwrap().sequence;
        let mut passed = 0;
        loop {
            let raw = stream.get_raw_message(place).await.unwrap();
            if raw.subject.as_str() == subject {
                if passed == forged {
                    return raw.payload;
                }
                passed += 1;
            }
            place -= 1;
        }
    });
    cbor::decode(&found).expect("a feed item")
}
