//! Two executors of one agency on one PostgreSQL: one is at work, the other stands by. The one at work is killed, or stopped
//! and waked when the other is at work already; what is judged are the histories of who wrote, who asked and who followed.

use crate::World;
use crate::kills::{Random, number};
use crate::writes::Cases;
use concordat_broker::host::lead::Leading;
use concordat_tests::harness::{
    City, Cluster, Feed, FeedAgreement, Follower, Process, SOON, Stopped, lines_with, put, seen, until, wait,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Until another is at work, on a busy machine: the lease is three seconds.
const TAKEN_OVER: Duration = Duration::from_secs(20);

fn leading(city: &City) -> Leading {
    until("an executor is at work", SOON, || {
        Leading::read(&city.config("police")).filter(Leading::is_active).ok_or("none")
    })
}

/// The executor at work: its process, and its name at the supervisor.
fn at_work(city: &City) -> (Leading, String, Process) {
    until("the executor at work runs", SOON, || {
        let leading = leading(city);
        let pid = leading.holder.split(' ').nth(1).and_then(|p| p.parse::<u32>().ok());
        let all = city.state("police").processes;
        let found = all.into_iter().find(|p| p.process.is_some_and(|id| Some(id.pid) == pid));
        let named = found.and_then(|p| Some((p.name, Process(p.process?))));
        named.map(|(name, process)| (leading.clone(), name, process)).ok_or(leading.holder)
    })
}

/// A city whose police have two executors on a PostgreSQL.
fn city(world: &World, cluster: &Cluster) -> City {
    let city = world.place().city("executors");
    city.at("police", &["node", "down"]).done();
    let file = city.dir("police").join("node.yaml");
    put(&city.dir("police").join("keys/records.uri"), &cluster.uri());
    let before = std::fs::read_to_string(&file).unwrap();
    let more = "holding: {uri: \"file:keys/records.uri\"}\nexecutor: {processes: 2, lease_ms: 3000}\n";
    put(&file, &format!("{before}\n{more}"));
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("police");
    city
}

/// Sends a write with one key until there is an answer that lasts.
async fn sent(city: &City, cases: &Cases, line: (&str, &str, &str), body: &Value) -> Value {
    let (method, key, version) = line;
    let idempotency = format!("{method} {key} {version}");
    let quoted = format!("\"{version}\"");
    let mut headers =
        vec![("concordat-purpose", cases.agreement.purpose.as_str()), ("idempotency-key", idempotency.as_str())];
    let path = if method == "POST" { cases.path("") } else { cases.path(key) };
    if method != "POST" {
        headers.push(("if-match", &quoted));
    }
    for _ in 0..60 {
        let answer = city.api("court", "clerk").write_async(method, &path, &headers, Some(body)).await;
        match answer.status {
            200 | 201 => return answer.body,
            0 | 403 | 409 | 500.. => tokio::time::sleep(Duration::from_millis(250)).await,
            other => panic!("{key}: {other} {}", answer.body),
        }
    }
    panic!("{key} was never written")
}

struct Histories {
    inserted: BTreeMap<String, Value>,
    count: u64,
    version: String,
    published: u64,
}

/// Writes while the executor at work is taken out at a moment of `trouble`.
fn load<T>(city: &City, cases: &Cases, round: u64, done: &mut Histories, trouble: impl Future<Output = T>) -> T {
    let keys: Vec<String> = (0..10).map(|n| format!("r{round}-{n}")).collect();
    let insert = |key: String| async move {
        let body = json!({"case_no": key, "precinct": "1", "note": format!("note of {key}")});
        let answer = sent(city, cases, ("POST", &key, ""), &body).await;
        (key, answer)
    };
    let (from, mut version) = (done.count, done.version.clone());
    let counting = async {
        for n in from + 1..=from + 5 {
            let answer = sent(city, cases, ("PATCH", "k-1", &version), &json!({"note": format!("{n}")})).await;
            version = answer["version"].as_str().expect("a version").to_owned();
        }
        version
    };
    let (taken, inserted, version) =
        wait(async { futures::join!(trouble, futures::future::join_all(keys.into_iter().map(insert)), counting) });
    done.inserted.extend(inserted);
    (done.count, done.version) = (from + 5, version);
    taken
}

pub fn another_takes_over_and_a_former_one_has_no_effect(world: &World) {
    let Some(cluster) = Cluster::start("executors") else {
        return eprintln!("SKIPPED executors: PostgreSQL is not installed (Debian: postgresql)");
    };
    let city = &city(world, &cluster);
    let feed = Feed::make(city, "police", &["fenced"]).remove(0);
    let cases = Cases::new(city, "fenced-cases", "AGR-2026-9561");
    FeedAgreement::new("AGR-2026-9562", &feed, "court").activate(city);
    let mut follower = Follower::default_of(city, "court", "AGR-2026-9562");
    let seed = number("CONCORDAT_SEED", u64::from(std::process::id()) << 16 | 1);
    println!("seed {seed}");
    let (mut random, version) = (Random::new(seed), cases.version(city, "k-1"));
    let mut done = Histories { inserted: BTreeMap::new(), count: 0, version, published: 0 };
    for round in 0..number("CONCORDAT_KILLS", 4) {
        let (before, name, process) = at_work(city);
        feed.publish(city, done.published..done.published + 20);
        done.published += 20;
        let pause = Duration::from_millis(random.below(1_000));
        let zombie = load(city, &cases, round, &mut done, async {
            tokio::time::sleep(pause).await;
            if round % 2 == 0 {
                assert!(process.0.kill_hard(), "the executor at work could not be killed");
                return None;
            }
            Some(Stopped::now(city, "police", &name))
        });
        let begun = Instant::now();
        let (after, other, _) = until("another executor is at work", TAKEN_OVER, || {
            let (now, other, process) = at_work(city);
            if now.term > before.term { Ok((now, other, process)) } else { Err(now.holder) }
        });
        println!("    round {round}: {name} to {other}, term {} to {}, {:?}", before.term, after.term, begun.elapsed());
        assert_ne!(after.holder, before.holder);
        feed.publish(city, done.published..done.published + 20);
        done.published += 20;
        if let Some(zombie) = zombie {
            // It wakes in the middle of other work, finds that it is no longer at work, and starts again to stand by.
            load(city, &cases, 100 + round, &mut done, async { drop(zombie) });
            city.another("police", &name, process);
            let said = city.log("police", &name);
            assert!(!lines_with(&said, "another executor").is_empty(), "{said}");
            let now = leading(city);
            assert_ne!(now.holder, before.holder, "a former one is at work no more");
            assert!(now.term >= after.term, "{} after {}", now.term, after.term);
        }
    }
    // Each acknowledged write is there once, and each was counted once.
    for (key, answer) in &done.inserted {
        let row = cases.record(city, key).unwrap_or_else(|| panic!("{key} was acknowledged and is not there"));
        assert_eq!((&row["note"], &row["@version"]), (&json!(format!("note of {key}")), &answer["version"]));
    }
    assert_eq!(cases.record(city, "k-1").expect("the counter")["note"], done.count.to_string());
    let body = json!({"dataset": cases.dataset, "purpose": cases.agreement.purpose, "limit": 1000,
        "where": {"case_no": {"prefix": "r"}}});
    assert_eq!(city.api("court", "clerk").query(&body).is(200).rows().len(), done.inserted.len());
    let store = city.dir("police").join("executor/releases.sqlite");
    until("every accepted write is ended", SOON, || {
        let unsettled = "SELECT count(*) FROM write w JOIN release r USING (session, n) WHERE r.state = 5";
        let db = rusqlite::Connection::open(&store).map_err(|e| e.to_string())?;
        let open: i64 = db.query_row(unsettled, [], |r| r.get(0)).map_err(|e| e.to_string())?;
        if open == 0 { Ok(()) } else { Err(open.to_string()) }
    });
    // Each message of the feed came once, in order, whoever delivered it.
    let got = follower.take(usize::try_from(done.published).unwrap());
    let rows: Vec<Value> = got.iter().map(|m| m["data"].clone()).collect();
    assert_eq!(rows, (0..done.published).map(seen).collect::<Vec<_>>());
    follower.nothing_more();
    let text = city.api("police", "operator").get("/metrics").is(200).text_body();
    assert!(text.contains("concordat_executor_active 1"), "{text}");
    assert!(!text.contains("concordat_executor_term 0"), "{text}");
    city.run(&["demo", "stop"]).done();
}
