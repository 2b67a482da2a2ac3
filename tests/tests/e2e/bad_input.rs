//! What sources do wrong, and a stream that is full: it is named, nothing acknowledged is lost, the rest goes on.

use crate::World;
use crate::subscriptions::{WITHIN, data, feeds};
use concordat_protocol::cbor;
use concordat_protocol::message::Envelope;
use concordat_protocol::ops::{Op, Tx};
use concordat_tests::harness::{City, Feed, FeedAgreement, Follower, own_envelope_stream, put, row, until, wait};
use serde_json::{Value, json};

pub fn intake_names_what_it_refuses(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[3]);
    let path = feed.path("/messages");
    let api = city.api("grid", "adapter");
    let good = |n: u64| format!("{}\n", json!({"data": row(n)}));
    let lines = [
        good(1),
        "{\"data\":{\"n\":2,\"zone\":\"N\",\"mw\":2.5}}\n".into(),
        "{\"data\":{\"n\":3,\"zone\":\"N\",\"mw\":\"3\",\"volt\":7}}\n".into(),
        "{\"data\":{\"n\":4,\"zone\":\"N\"}}\n".into(),
        "not JSON\n".into(),
        "{\"data\":{\"n\":6,\"n\":7,\"zone\":\"N\",\"mw\":\"6\"}}\n".into(),
        "{\"data\":{\"n\":9007199254740993,\"zone\":\"N\",\"mw\":\"7\"}}\n".into(),
        good(8),
        format!("{{\"data\":{{\"n\":9,\"zone\":\"{}\",\"mw\":\"9\"}}}}\n", "x".repeat(262_144)),
    ];
    let post = |body: String| api.post_bytes(&path, "application/x-ndjson", body.into_bytes());
    let answer = until("intake is up", WITHIN, || {
        let answer = post(lines.concat());
        if answer.status == 503 { Err(answer.body) } else { Ok(answer) }
    });
    let said = answer.is(422);
    let errors = said.body["errors"].as_array().unwrap_or_else(|| panic!("{}", said.body));
    let found: Vec<(u64, String)> =
        errors.iter().map(|e| (e["line"].as_u64().unwrap(), e["message"].to_string())).collect();
    let want = [(2, "mw"), (3, "volt"), (4, "mw"), (5, ""), (6, "n"), (7, "n"), (9, "262")];
    assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), want.map(|(line, _)| line), "{errors:?}");
    for ((line, message), (_, word)) in found.iter().zip(want) {
        assert!(message.contains(word), "line {line} names {word}: {message}");
    }
    // Nothing of it was taken: the good ones are the first when they come alone.
    let answer = post([good(1), good(8)].concat()).is(200);
    assert_eq!((&answer.body["accepted"], &answer.body["last_seq"]), (&json!(2), &json!(2)), "{}", answer.body);
    // Too many, none, not for this caller, no such feed.
    let many: String = (0..257).map(good).collect();
    assert!(post(many).is(413).body.to_string().contains("256"));
    assert!(post(String::new()).status >= 400);
    city.api("grid", "clerk").post_bytes(&path, "application/x-ndjson", good(9).into_bytes()).is(403);
    city.api("transport", "adapter").post_bytes(&path, "application/x-ndjson", good(9).into_bytes()).is(404);
    // A batch of an adapter: its number says whether it is known.
    let headers =
        |n: &'static str| [("concordat-adapter", "hand"), ("concordat-batch", n), ("concordat-checkpoint", "AQ==")];
    let send = |n: &'static str| feed.post(city, &[row(20)], &headers(n));
    assert_eq!(send("1").is(200).body["last_seq"], 3);
    let again = send("1").is(200);
    assert_eq!(again.body["last_seq"], 3, "the same batch again is the same answer: {}", again.body);
    assert_eq!(send("3").is(409).body["batch_no"], 1);
    assert_eq!(send("2").is(200).body["last_seq"], 4);
}

/// Rows of the file, and the faults among them.
const FILE_ROWS: u64 = 60;

/// The source file, which rows of it are good, and the line and column word of each that is not.
fn file() -> (String, Vec<Value>, Vec<(u64, &'static str)>) {
    let (mut text, mut good, mut bad) = ("n,zone,mw,at\n".to_owned(), Vec::new(), Vec::new());
    for n in 0..FILE_ROWS {
        let (mut line, fault) = match n {
            7 => ("seven,N,1.5,2026-01-01 07:00:00".into(), Some("n")),
            13 => ("13,N,\"1,5\",2026-01-01 08:00:00".into(), Some("mw")),
            // Half past two of this night does not exist; half past two of the other one is twice.
            21 => ("21,N,2.5,2026-03-29 02:30:00".into(), Some("at")),
            34 => ("34,N,3.5,2025-10-26 02:30:00".into(), Some("at")),
            44 => ("44,N,4.5".into(), Some("")),
            51 => ("51,N,5.5,2026-01-01 09:00:00,more".into(), Some("")),
            _ => (format!("{n},{},{}.5,2026-01-01 10:{n:02}:00", if n % 2 == 0 { "N" } else { "S" }, n + 1), None),
        };
        line.push('\n');
        text.push_str(&line);
        match fault {
            Some(field) => bad.push((n + 2, field)),
            None => {
                good.push(json!({"n": n, "zone": if n % 2 == 0 { "N" } else { "S" }, "mw": format!("{}.5", n + 1)}))
            }
        }
    }
    (text, good, bad)
}

const ADAPTER: &str = "adapter: open
kind: file
path: data/open.csv
format: {csv: {columns: [n, zone, mw, at]}}
into: ds:grid/open@1
map:
  n: {type: integer}
  zone: {type: string}
  mw: {type: decimal}
  at: {type: timestamp, zone: Europe/Berlin}
key: [n]
pace: max
on_error: {transient: retry, data: dead-letter, auth: stop}
";

pub fn bad_rows_are_named_and_a_public_feed_shows_the_good_ones(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[2]);
    let (text, good, bad) = file();
    let dir = city.dir("grid");
    put(&dir.join("data/open.csv"), &text);
    put(&dir.join("adapters/open.yaml"), ADAPTER);
    // Nobody follows what no agreement opens.
    let ask = json!({"dataset": feed.id, "name": "open", "from": "earliest"});
    let said = city.api("court", "operator").post("/v1/subscriptions", &ask);
    assert!((400..500).contains(&said.status), "{} {}", said.status, said.body);
    let agreement = FeedAgreement::public("AGR-2026-9703", feed);
    agreement.activate(city);
    let ran = city.at("grid", &["adapter", "run", "open", "--output", "json"]);
    assert!([0, 8].contains(&ran.code), "{ran:?}");
    let said = ran.json();
    let (rows, accepted, dead) = (&said["rows"], &said["accepted"], &said["dead_letters"]);
    assert_eq!((rows, accepted, dead), (&json!(FILE_ROWS), &json!(good.len()), &json!(bad.len())), "{said}");
    let list = city.at("grid", &["dead-letter", "list", "open", "--output", "json"]).done().json();
    let list = list.as_array().or(list["dead_letters"].as_array()).unwrap_or_else(|| panic!("{list}"));
    let mut found: Vec<(u64, String)> = list
        .iter()
        .map(|l| (l["line"].as_u64().unwrap(), l["field"].as_str().unwrap_or_default().to_owned()))
        .collect();
    found.sort();
    assert_eq!(found, bad.iter().map(|(line, field)| (*line, (*field).to_owned())).collect::<Vec<_>>(), "{list:?}");
    assert!(list.iter().all(|l| !l["rule"].is_null() && !l["message"].is_null()), "{list:?}");
    // Two agencies follow, without an agreement of two.
    let from = city.rpc("grid").height();
    let mut followers = ["court", "police"].map(|agency| Follower::create(city, agency, &ask));
    for follower in &mut followers {
        assert_eq!(data(&follower.take(good.len())), good, "{}", follower.id);
        follower.nothing_more();
    }
    let view = followers[0].view();
    assert_eq!(view["max_lag_ms"], 0, "it promises nothing: {view}");
    // And takes no entry: what is delivered by others' agreements meanwhile does.
    let handle = view["subscription"].as_u64().unwrap() >> 32;
    city.at("grid", &["agreement", "revoke", &agreement.id]).done();
    for follower in &followers {
        until("the public feed ends with its agreement", WITHIN, || {
            let answer = follower.api.get(&follower.path("/messages?max=1"));
            if [403, 404].contains(&answer.status) { Ok(()) } else { Err(answer.body) }
        });
    }
    feed.publish(city, 1_000..1_001);
    assert!(delivers(city, from).iter().all(|h| *h != handle && h >> 32 != handle), "a public delivery took an entry");
}

/// Handles of the deliver operations of grid since a height.
fn delivers(city: &City, from: u64) -> Vec<u64> {
    let rpc = city.rpc("grid");
    let mut handles = Vec::new();
    for height in from..=rpc.height() {
        for tx in rpc.block(height) {
            let Ok(Tx::Batch { body, .. }) = cbor::decode::<Tx>(&tx) else { continue };
            let batch: concordat_protocol::ops::Batch = cbor::decode(&body).unwrap();
            let of = |op: &Op| if let Op::Deliver { handle, .. } = op { Some(*handle) } else { None };
            handles.extend(batch.ops.iter().filter_map(of));
        }
    }
    handles
}

/// How many messages a feed's stream holds.
fn held(city: &City, feed: &Feed) -> u64 {
    let stream = own_envelope_stream(city, feed);
    let state = &stream.cached_info().state;
    let read = |place| wait(stream.get_raw_message(place)).expect("an envelope").payload;
    (state.first_sequence..=state.last_sequence)
        .map(|place| cbor::decode::<Envelope>(&read(place)).expect("an envelope").header.count)
        .sum()
}

pub fn a_full_stream_says_so_and_keeps_what_it_acknowledged(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[4]);
    // As its owner says in the dataset's document.
    feed.write(city, "7d, stream_bytes: 40KB");
    city.killed_and_back("grid", "broker");
    feed.publish(city, 0..10);
    let mut acknowledged = 10;
    let next = |from: u64| feed.post(city, &(from..from + 20).map(row).collect::<Vec<_>>(), &[]);
    let refused = loop {
        let answer = next(acknowledged);
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 20;
        assert!(acknowledged < 10_000, "the limit is no limit");
    };
    assert!([429, 503, 507].contains(&refused.status), "{} {}", refused.status, refused.body);
    assert_eq!(refused.body["retry"], true, "{}", refused.body);
    let said = refused.body.to_string();
    assert!(said.contains("full") || said.contains("room"), "it says what is wrong and what to do: {said}");
    // It stays so, and others are not disturbed.
    assert_ne!(next(acknowledged).status, 200);
    feeds(world)[3].publish(city, 100..110);
    // Room is made: it goes on, with what was acknowledged and not a message more.
    feed.write(city, "7d, stream_bytes: 10MB");
    city.killed_and_back("grid", "broker");
    feed.publish(city, acknowledged..acknowledged + 30);
    assert_eq!(held(city, feed), acknowledged + 30);
    let path = format!("/v1/catalogue/datasets/{}", feed.id.replace('/', "%2F"));
    until("all of it is on the ledger", WITHIN, || {
        let head = city.api("court", "operator").get(&path).body["head"].clone();
        if head == acknowledged + 30 { Ok(()) } else { Err(head) }
    });
}
