use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::{AdapterError, ErrorClass};
use concordat_adapters::dead_letter::{DeadLetters, list};
use concordat_adapters::document::{OnData, OnTransient, Pace};
use concordat_adapters::file::FileSource;
use concordat_adapters::plan::Plan;
use concordat_adapters::runner::{Phase, Progress, RunConfig, run};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fake_broker::{Act, FakeBroker, TOKEN};
use crate::rows_of;

const DEADLINE: Duration = Duration::from_secs(60);
const YAML: &str = "\
adapter: load
kind: file
path: in.csv
format: {csv: {columns: [time, mw]}}
into: ds:grid/load@1
map:
  time: {type: timestamp, zone: America/Chicago, fold: earlier}
  mw: {type: decimal}
key: [time]
time: time
";

/// 80 hours around the spring change, one of which does not exist, and one bad number.
fn folder() -> (tempfile::TempDir, Arc<Plan>) {
    let dir = tempfile::tempdir().unwrap();
    let mut csv = "time,mw\n".to_owned();
    for n in 0..80 {
        let mw = if n == 60 { "n/a".to_owned() } else { format!("{n}.50") };
        csv.push_str(&format!("2017-03-{:02} {:02}:00:00,{mw}\n", 11 + n / 24, n % 24));
    }
    std::fs::write(dir.path().join("in.csv"), csv).unwrap();
    (dir, Arc::new(Plan::parse(YAML).unwrap()))
}

fn config(plan: &Plan) -> RunConfig {
    let mut config = RunConfig::of(&plan.common);
    config.batch_max = 9;
    config
}

async fn go(dir: &Path, plan: &Arc<Plan>, url: &str, config: &RunConfig) -> Result<Progress, AdapterError> {
    let client = BrokerClient::new(url, TOKEN).unwrap();
    let mut dead = DeadLetters::open(dir, &plan.adapter).unwrap();
    let source = FileSource::new(dir, Arc::clone(plan));
    let (_stop, stopping) = watch::channel(false);
    let task = run(source, &client, &mut dead, config, stopping, |_| {});
    tokio::time::timeout(DEADLINE, task).await.expect("the run hangs")
}

/// What is wrong with `got` as an exactly-once, in-order delivery of `sent`.
fn faults(sent: &[String], got: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, i64> = sent.iter().map(|id| (id.as_str(), 0)).collect();
    for id in got {
        *counts.entry(id).or_insert(i64::MIN / 2) += 1;
    }
    let wrong = counts.iter().filter(|(_, n)| **n != 1);
    let mut faults: Vec<String> = wrong.map(|(id, n)| format!("{id} came {n} times")).collect();
    if faults.is_empty() && sent != got {
        faults.push("order".to_owned());
    }
    faults
}

fn sent(dir: &Path, plan: &Arc<Plan>) -> Vec<String> {
    rows_of(dir, plan).0.into_iter().map(|r| r.id).collect()
}

fn assert_delivered_once(dir: &Path, plan: &Arc<Plan>, broker: &FakeBroker, what: &str) {
    assert_eq!(faults(&sent(dir, plan), &broker.ids()), Vec::<String>::new(), "{what}");
    let dead = list(&DeadLetters::path(dir, "load")).unwrap();
    let rules: Vec<_> = dead.iter().map(|d| (d.line, d.rule.as_str())).collect();
    assert_eq!(rules, [(28, "time.nonexistent"), (62, "number.syntax")], "{what}");
}

#[test]
fn the_checker_sees_a_loss_a_duplicate_and_a_swap() {
    let sent: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let check = |got: &[&str]| faults(&sent, &got.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    assert!(check(&["a", "b", "c"]).is_empty());
    for bad in [&["a", "c"][..], &["a", "b", "b", "c"], &["a", "c", "b"], &["a", "b", "c", "d"]] {
        assert!(!check(bad).is_empty(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_file_is_published_once() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Serve).await;
    let end = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert_eq!((end.phase, end.rows, end.accepted, end.dead_letters), (Phase::Done, 80, 78, 2));
    assert_delivered_once(dir.path(), &plan, &broker, "first run");
    let event = broker.kept.lock().unwrap().events[0].clone();
    assert_eq!(event["time"], "2017-03-11T06:00:00Z");
    assert_eq!(event["data"], json!({"time": "2017-03-11T06:00:00Z", "mw": "0.5"}));
    // Running it again on the same file changes nothing.
    let again = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert_eq!((again.accepted, again.dead_letters), (0, 0));
    assert_delivered_once(dir.path(), &plan, &broker, "second run");
}

/// Kills the adapter while post number `k` is under way, taken or not, then starts a new one.
async fn kill_at(k: u64, taken: bool, careless: bool) -> (tempfile::TempDir, Arc<Plan>, FakeBroker) {
    let (dir, plan) = folder();
    let hang = if taken { Act::HangAfter } else { Act::HangBefore };
    let mut broker = FakeBroker::start(move |n, _| if n == k { hang.clone() } else { Act::Serve }).await;
    broker.kept.lock().unwrap().careless = careless;
    let task = {
        let (path, plan, url) = (dir.path().to_owned(), Arc::clone(&plan), broker.url.clone());
        tokio::spawn(async move { go(&path, &plan, &url, &config(&plan)).await })
    };
    tokio::time::timeout(DEADLINE, broker.hung.wait_for(|n| *n == 1)).await.unwrap().unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    (dir, plan, broker)
}

#[tokio::test]
async fn killed_at_any_batch_everything_is_delivered_once() {
    for k in 1..=9 {
        for taken in [false, true] {
            let (dir, plan, broker) = kill_at(k, taken, false).await;
            assert_delivered_once(dir.path(), &plan, &broker, &format!("killed at post {k}, taken: {taken}"));
        }
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|n, _| match n % 3 {
        0 => Act::DropAfter,
        1 => Act::DropBefore,
        _ => Act::Serve,
    })
    .await;
    let end = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert!(end.last_error.is_some());
    assert_delivered_once(dir.path(), &plan, &broker, "answers lost");
}

#[tokio::test]
async fn a_careless_broker_would_be_caught() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|n, _| if n == 4 { Act::DropAfter } else { Act::Serve }).await;
    broker.kept.lock().unwrap().careless = true;
    go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert!(!faults(&sent(dir.path(), &plan), &broker.ids()).is_empty());
}

#[tokio::test]
async fn refused_lines_become_dead_letters_and_the_rest_goes_on() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, lines| {
        let bad = |l: &Value| matches!(l["data"]["mw"].as_str(), Some("3.5" | "30.5"));
        let errors: Vec<Value> = (1..)
            .zip(lines)
            .filter(|(_, l)| bad(l))
            .map(|(n, _)| json!({"line": n, "code": "schema", "message": "mw: too nice"}))
            .collect();
        if errors.is_empty() { Act::Serve } else { Act::Say(422, "", json!({"errors": errors}).to_string()) }
    })
    .await;
    let end = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert_eq!((end.accepted, end.dead_letters), (76, 4));
    let dead = list(&DeadLetters::path(dir.path(), "load")).unwrap();
    let kept: Vec<_> = dead.iter().filter(|d| d.rule == "broker.schema").map(|d| d.original().unwrap()).collect();
    assert_eq!(kept, [b"2017-03-11 03:00:00,3.50\n".to_vec(), b"2017-03-12 06:00:00,30.50\n".to_vec()]);
    assert_eq!(broker.kept.lock().unwrap().last, 9);
}

#[tokio::test]
async fn the_broker_can_send_the_adapter_elsewhere() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Serve).await;
    let mut first = config(&plan);
    first.rows_max = Some(36);
    let stopped = go(dir.path(), &plan, &broker.url, &first).await.unwrap();
    assert_eq!((stopped.phase, stopped.rows), (Phase::Stopped, 36));
    // The broker is at batch 4; the second run is told that it is at 2 and learns better by 409.
    let kept = Arc::clone(&broker.kept);
    let (last, checkpoint) = {
        let kept = kept.lock().unwrap();
        (kept.last, kept.checkpoint.clone())
    };
    kept.lock().unwrap().last = 2;
    let truth = Arc::clone(&kept);
    *broker.script.lock().unwrap() = Box::new(move |_, _| {
        let mut kept = truth.lock().unwrap();
        if kept.last == 2 {
            kept.last = last;
            kept.checkpoint.clone_from(&checkpoint);
        }
        Act::Serve
    });
    go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert_delivered_once(dir.path(), &plan, &broker, "after 409");
}

#[tokio::test]
async fn errors_stop_by_their_class() {
    let cases: [(u16, &str, &str, ErrorClass); 5] = [
        (401, "", "{\"title\":\"no\"}", ErrorClass::Auth),
        (400, "", "{}", ErrorClass::Permanent),
        (409, "", "{\"batch_no\":0,\"checkpoint\":\"\"}", ErrorClass::Permanent),
        (422, "", "{\"errors\":[]}", ErrorClass::Permanent),
        (200, "", "<html>", ErrorClass::Permanent),
    ];
    for (status, extra, body, class) in cases {
        let (dir, plan) = folder();
        let broker = FakeBroker::start(move |_, _| Act::Say(status, extra, body.to_owned())).await;
        let error = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap_err();
        assert_eq!(error.class(), class, "{status}: {error}");
        assert!(!error.to_string().contains(TOKEN));
    }
}

#[tokio::test]
async fn back_pressure_reaches_the_source_and_passes() {
    let (dir, plan) = folder();
    let broker =
        FakeBroker::start(
            |n, _| if n % 2 == 1 { Act::Say(429, "retry-after: 0\r\n", "{}".into()) } else { Act::Serve },
        )
        .await;
    let end = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert!(end.last_error.unwrap().contains("429"));
    assert_delivered_once(dir.path(), &plan, &broker, "after 429");

    let mut stop = config(&plan);
    stop.on_error.transient = OnTransient::Stop;
    let busy = FakeBroker::start(|_, _| Act::Say(503, "", "{}".into())).await;
    let error = go(dir.path(), &plan, &busy.url, &stop).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "adapter.busy"));
}

#[tokio::test]
async fn a_waiting_adapter_stops_when_asked() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Say(503, "retry-after: 50\r\n", "{}".into())).await;
    let client = BrokerClient::new(&broker.url, TOKEN).unwrap();
    let mut dead = DeadLetters::open(dir.path(), "load").unwrap();
    let (stop, stopping) = watch::channel(false);
    let source = FileSource::new(dir.path(), Arc::clone(&plan));
    let config = config(&plan);
    let task = run(source, &client, &mut dead, &config, stopping, |progress| {
        if progress.phase == Phase::Waiting {
            let _ = stop.send(true);
        }
    });
    let end = tokio::time::timeout(Duration::from_secs(30), task).await.expect("it waits on").unwrap();
    assert_eq!((end.phase, end.accepted), (Phase::Stopped, 0));
}

#[tokio::test]
async fn bad_data_can_stop_the_run_and_is_kept() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Serve).await;
    let mut config = config(&plan);
    config.on_error.data = OnData::Stop;
    let error = go(dir.path(), &plan, &broker.url, &config).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Data);
    assert!(error.to_string().contains("in.csv line 28"), "{error}");
    assert_eq!(list(&DeadLetters::path(dir.path(), "load")).unwrap().len(), 1);
}

#[tokio::test]
async fn a_paced_feed_leaves_in_small_batches() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Serve).await;
    let mut config = config(&plan);
    config.pace = Pace::RowsPerSecond(400);
    config.batch_max = 256;
    go(dir.path(), &plan, &broker.url, &config).await.unwrap();
    assert_delivered_once(dir.path(), &plan, &broker, "paced");
    assert!(broker.kept.lock().unwrap().batches.iter().all(|n| *n <= 40));
}

#[tokio::test]
async fn several_batches_are_under_way_and_overtaking_does_no_harm() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Serve).await;
    let end = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert_eq!((end.accepted, end.batch_no), (78, 9));
    assert_delivered_once(dir.path(), &plan, &broker, "eight under way");
    // One at a time gives the very same batches.
    let (other, plan) = folder();
    let alone = FakeBroker::start(|_, _| Act::Serve).await;
    let mut one = config(&plan);
    one.in_flight = 1;
    go(other.path(), &plan, &alone.url, &one).await.unwrap();
    assert_eq!(alone.kept.lock().unwrap().batches, broker.kept.lock().unwrap().batches);
}

#[tokio::test]
async fn a_batch_of_which_nothing_is_left_takes_no_number() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, lines| {
        // Everything of the third batch is refused: rows 18 to 26.
        let refused = |l: &&Value| l["data"]["mw"].as_str().is_some_and(|m| (18..27).any(|n| m == format!("{n}.5")));
        let errors: Vec<Value> = (1..)
            .zip(lines)
            .filter(|(_, l)| refused(l))
            .map(|(n, _)| json!({"line": n, "code": "schema", "message": "no"}))
            .collect();
        if errors.is_empty() { Act::Serve } else { Act::Say(422, "", json!({"errors": errors}).to_string()) }
    })
    .await;
    let end = go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    assert_eq!((end.phase, end.rows, end.batch_no), (Phase::Done, 80, 8));
    let want: Vec<String> = rows_of(dir.path(), &plan)
        .0
        .into_iter()
        .filter(|r| !r.data["mw"].as_str().is_some_and(|m| (18..27).any(|n| m == format!("{n}.5"))))
        .map(|r| r.id)
        .collect();
    assert_eq!(faults(&want, &broker.ids()), Vec::<String>::new());
}

#[tokio::test]
async fn a_run_tells_how_it_went() {
    let (dir, plan) = folder();
    let broker = FakeBroker::start(|_, _| Act::Serve).await;
    go(dir.path(), &plan, &broker.url, &config(&plan)).await.unwrap();
    let status = concordat_adapters::status::status(dir.path(), "load").unwrap().unwrap();
    assert_eq!((status.phase.as_str(), status.rows, status.accepted, status.batch_no), ("done", 80, 78, 9));
    assert_eq!(status.newest_event.as_deref(), Some("2017-03-14T12:00:00Z"));
    assert_eq!(status.dead_letters.by_class, BTreeMap::from([("number".into(), 1), ("time".into(), 1)]));
    let down = FakeBroker::start(|_, _| Act::Say(401, "", "{}".into())).await;
    go(dir.path(), &plan, &down.url, &config(&plan)).await.unwrap_err();
    let status = concordat_adapters::status::status(dir.path(), "load").unwrap().unwrap();
    assert!(status.phase == "failed" && status.last_error.unwrap().contains("token"));
}
