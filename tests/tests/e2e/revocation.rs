//! Law 2: nothing is released after the suspension's place in the log.

use crate::World;
use concordat_tests::harness::{Agreement, Answer, City, runtime, until, wait};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Readers that never pause.
const READERS: usize = 48;
/// Reads that race the suspension: a quarter of them after it. `CONCORDAT_RACE_READS` sets another number.
const READS: usize = 2_000;

#[derive(Default)]
struct Race {
    over: AtomicBool,
    released: AtomicUsize,
    denied: AtomicUsize,
}

/// Releases at a provider: (index of the operation, ledger time of the release).
fn releases(city: &City, agency: &str) -> Vec<(u64, u64)> {
    let path = city.dir(agency).join("executor/releases.sqlite");
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the release store");
    let mut rows = db.prepare("SELECT op_index, released_ms FROM release WHERE state = 1").expect("the release table");
    let rows = rows.query_map([], |r| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64)));
    rows.expect("releases").map(|r| r.expect("a release")).collect()
}

/// Releases whose operation, or whose moment, lies after a suspension.
fn late(releases: &[(u64, u64)], suspended_at: u64, tick: u64) -> Vec<(u64, u64)> {
    releases.iter().copied().filter(|(op, ms)| *op > suspended_at || *ms >= tick).collect()
}

pub fn no_read_is_released_after_a_suspension(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9601", "law-two");
    agreement.activate(city);
    let body = json!({"dataset": "ds:police/stops@1", "purpose": agreement.purpose, "where": {"stop_id": {"eq": "17-089556"}}});
    let (clerk, race) = (city.api("court", "clerk"), Arc::new(Race::default()));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (clerk, race, body) = (clerk.clone(), Arc::clone(&race), body.clone());
            runtime().spawn(async move {
                let mut answers = Vec::new();
                while !race.over.load(Ordering::Relaxed) {
                    let answer: Answer = clerk.query_async(&body, &[]).await;
                    let count = if answer.status == 200 { &race.released } else { &race.denied };
                    count.fetch_add(1, Ordering::Relaxed);
                    answers.push(answer);
                }
                answers
            })
        })
        .collect();
    let reached = |count: &AtomicUsize, want: usize| {
        let now = count.load(Ordering::Relaxed);
        if now >= want { Ok(()) } else { Err(format!("{now} of {want}")) }
    };
    let reads = std::env::var("CONCORDAT_RACE_READS").ok().and_then(|n| n.parse().ok()).unwrap_or(READS);
    let within = Duration::from_secs(60 + reads as u64 / 50);
    until("reads before the suspension", within, || reached(&race.released, reads - reads / 4));
    let act = city.at("police", &["agreement", "suspend", &agreement.id, "--output", "json"]).done().json();
    until("denials after it", within, || reached(&race.denied, reads / 4));
    race.over.store(true, Ordering::Relaxed);
    let answers: Vec<Answer> = readers.into_iter().flat_map(|r| wait(r).expect("a reader")).collect();
    let suspended_at: u64 =
        act["operation"].as_str().and_then(|o| o.strip_prefix("op:")).and_then(|n| n.parse().ok()).expect("op");
    let tick = city.entry("police", suspended_at).tick_ms;

    let (released, rest): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|a| a.status == 200);
    let answered: Vec<(u64, u64)> = released.iter().map(|a| (a.op(), 0)).collect();
    assert_eq!(late(&answered, suspended_at, tick), [], "answered after op:{suspended_at}");
    assert!(rest.iter().all(|a| a.status == 403), "{:?}", rest.iter().find(|a| a.status != 403).map(|a| &a.body));
    for agency in ["court", "grid", "police", "transport"] {
        let found = releases(city, agency);
        assert_eq!(late(&found, suspended_at, tick), [], "{agency} released after op:{suspended_at}");
    }
    // The store is the one that released them, and what is looked for would be found in it.
    let known: BTreeSet<u64> = releases(city, "police").into_iter().map(|(op, _)| op).collect();
    assert!(answered.iter().all(|(op, _)| known.contains(op)), "an answer without its release");
    assert_eq!(late(&[(suspended_at + 1, tick - 1), (suspended_at - 1, tick), (1, 1)], suspended_at, tick).len(), 2);
    println!("    {} released, {} denied around op:{suspended_at}", released.len(), rest.len());
    // And it stays so.
    let said = clerk.query(&body).is(403);
    assert_eq!((said.text("reason").as_str(), &said.body["ledger_code"]), ("suspended", &json!(404)), "{}", said.body);
    city.at("police", &["agreement", "revoke", &agreement.id]).done();
    agreement.reaches(city, "police", "revoked");
    let said = clerk.query(&body).is(403);
    assert_eq!((said.text("reason").as_str(), &said.body["ledger_code"]), ("revoked", &json!(405)), "{}", said.body);
}
