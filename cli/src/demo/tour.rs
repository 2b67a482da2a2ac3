//! The tour: every line is a check.

use super::follow::{drain, subscription};
use super::steps::{Checked, Found, Tour, expect};
use super::{crash, feed, looked};
use crate::args::StopKind;
use crate::commands::Ctx;
use crate::commands::agreement::{Side, approve_as, stop_as};
use crate::commands::sse::Parser;
use crate::context::Api;
use crate::failure::{Exit, Failure};
use crate::layout::City;
use concordat_protocol::acts::ApprovalKind;
use concordat_protocol::ids::AgreementId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The agreement of the query checks.
const STOPS: &str = "AGR-2026-0142";
/// The agreement of the feed checks.
pub const LOAD: &str = "AGR-2026-0143";
/// How long anything in a check may take.
pub const WITHIN: Duration = Duration::from_secs(30);

/// The query of checks 2 to 5: the stops of one day in the precincts that the agreement opens.
pub fn stops_query() -> Value {
    json!({
        "dataset": "ds:police/stops@1", "purpose": "purp:pending-case", "case": "26-CR-1042", "limit": 1000,
        "select": ["stop_id", "time", "problem", "citation_issued", "neighborhood"],
        "where": {"time": {"range": {"from": "2017-03-14T00:00:00Z", "to": "2017-03-15T00:00:00Z"}}},
    })
}

/// Runs all checks and ends with an error if one failed.
pub async fn run(ctx: &Ctx, city: &City) -> Result<(), Failure> {
    ctx.out.say("[6/6] tour");
    let mut tour = Tour::default();
    let court = Api::of(&city.root.join("court"), Some("clerk"), "clerk")?;
    tour.add(ctx, 1, "feed", feed::check(city).await);
    let (asked, op) = query(&court).await;
    tour.add(ctx, 2, "query", asked);
    tour.add(ctx, 3, "denied", denied(&court).await);
    tour.add(ctx, 4, "revoke", revoke(city, &court).await);
    tour.add(ctx, 5, "verify", verify(city, &court, op.as_deref()).await);
    tour.add(ctx, 6, "crash", crash::check(city).await);
    tour.add(ctx, 7, "who looked", looked::check(city, &court).await);
    tour.end()
}

fn text(v: &Value, field: &str) -> String {
    v[field].as_str().map_or_else(|| v[field].to_string(), str::to_owned)
}

/// This program, to start again.
pub fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| e.to_string())
}

async fn query(court: &Api) -> (Checked, Option<String>) {
    match ask_stops(court).await {
        Ok((found, op)) => (Ok(found), Some(op)),
        Err(e) => (Err(e), None),
    }
}

async fn ask_stops(court: &Api) -> Result<(Found, String), String> {
    let answer = court.query(&stops_query(), None).await.map_err(|e| e.to_string())?;
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    expect(rows.len() == 47, || format!("{} rows instead of 47", rows.len()))?;
    let mut fields: Vec<&String> = rows.iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys).collect();
    fields.sort();
    fields.dedup();
    let open = ["citation_issued", "neighborhood", "problem", "stop_id", "time"];
    expect(fields.iter().all(|f| open.contains(&f.as_str())), || format!("fields {fields:?} were released"))?;
    let op = text(&answer, "operation");
    let entry = court.get(&format!("/v1/operations/{op}")).await.map_err(|e| e.to_string())?;
    expect(text(&entry, "verdict") == "accepted", || format!("{op} is {} on the ledger", text(&entry, "verdict")))?;
    let height = answer["height"].as_u64().unwrap_or_default();
    let line = format!(
        "stops of 2017-03-14, case 26-CR-1042: 47 rows, {} of 13 fields, clause {}; {op} at h={height} BEFORE data",
        open.len(),
        text(&answer, "clause")
    );
    Ok((
        Found { text: line, facts: json!({"rows": rows.len(), "fields": fields, "operation": op, "height": height}) },
        op,
    ))
}

/// Asks and requires a denial; returns its problem.
async fn must_deny(court: &Api, body: &Value) -> Result<Value, String> {
    match court.query(body, None).await {
        Ok(answer) => Err(format!("{} rows were released", answer["count"])),
        Err(e) if e.exit == Exit::Denied => Ok(e.problem.unwrap_or_default()),
        Err(e) => Err(format!("expected a denial, got: {e}")),
    }
}

async fn denied(court: &Api) -> Checked {
    let mut body = stops_query();
    body["purpose"] = json!("purp:profiling");
    let problem = must_deny(court, &body).await?;
    let clause = text(&problem, "clause");
    expect(clause.ends_with("X1"), || format!("denied, but not by clause X1: {problem}"))?;
    let op = text(&problem, "operation");
    expect(op.starts_with("op:"), || format!("the denial has no record: {problem}"))?;
    let line = format!("purpose profiling: clause X1 \"{}\"  {op}", text(&problem, "clause_text"));
    Ok(Found { text: line, facts: json!({"clause": clause, "operation": op}) })
}

async fn revoke(city: &City, court: &Api) -> Checked {
    let police = Side::open(&city.root.join("police")).map_err(|e| e.to_string())?;
    let grid = Side::open(&city.root.join("grid")).map_err(|e| e.to_string())?;
    let stops = AgreementId::new(STOPS).map_err(|e| e.to_string())?;
    let load = AgreementId::new(LOAD).map_err(|e| e.to_string())?;
    let fail = |e: Failure| e.to_string();
    let act = stop_as(&police, &stops, StopKind::Suspend, "tour").await.map_err(fail)?;
    let asked = must_deny(court, &stops_query()).await;
    let stream = close_stream(city, &grid, &load).await;
    // Both go on whatever the checks found, so that the tour can be run again.
    resume(city, &police, &stops, "court").await?;
    resume(city, &grid, &load, "transport").await?;
    let problem = asked?;
    expect(
        text(&problem, "code") == "404"
            || text(&problem, "reason") == "suspended"
            || problem.to_string().contains("suspended"),
        || format!("denied for another reason: {problem}"),
    )?;
    let closed_ms = stream?;
    let height = act["height"].as_u64().unwrap_or_default();
    let line = format!(
        "police suspends h={height}: query denied; grid suspends: open stream closed {:.1} s later; both resumed",
        closed_ms as f64 / 1e3
    );
    Ok(Found { text: line, facts: json!({"height": height, "stream_closed_ms": closed_ms}) })
}

/// Suspends the feed's agreement while an application of the consumer has a stream of events open; returns after how long
/// the gateway closed it, which it must say with the reason.
async fn close_stream(city: &City, grid: &Side, load: &AgreementId) -> Result<u64, String> {
    let transport = Api::of(&city.root.join("transport"), None, "operator").map_err(|e| e.to_string())?;
    let id = text(&subscription(&transport, LOAD, WITHIN).await?, "id");
    drain(&transport, &id).await?;
    let path = format!("/v1/subscriptions/{id}/events");
    let mut stream = transport.events(&path, None).await.map_err(|e| e.to_string())?;
    let begun = Instant::now();
    stop_as(grid, load, StopKind::Suspend, "tour").await.map_err(|e| e.to_string())?;
    let mut parser = Parser::default();
    loop {
        let piece = tokio::time::timeout(WITHIN, stream.chunk()).await;
        let piece = piece.map_err(|_| "the stream stayed open after the suspension")?.map_err(|e| e.to_string())?;
        let piece = piece.ok_or("the open stream ended without saying why")?;
        for event in parser.push(&piece)? {
            expect(event.name == "closed" || event.name == "comment", || {
                format!("after the suspension came: {}", event.data)
            })?;
            if event.name == "closed" {
                expect(event.data.contains("suspended"), || format!("the stream was closed because {}", event.data))?;
                return Ok(begun.elapsed().as_millis() as u64);
            }
        }
        expect(begun.elapsed() < WITHIN, || "the stream stayed open after the suspension".into())?;
    }
}

async fn resume(city: &City, provider: &Side, agreement: &AgreementId, consumer: &str) -> Result<(), String> {
    let fail = |e: Failure| e.to_string();
    for role in ["data-steward", "legal"] {
        approve_as(provider, agreement, role, ApprovalKind::Resume).await.map_err(fail)?;
    }
    let consumer = Side::open(&city.root.join(consumer)).map_err(fail)?;
    consumer.reaches(agreement, "suspended").await.map_err(fail)?;
    approve_as(&consumer, agreement, "legal", ApprovalKind::Resume).await.map_err(fail)?;
    provider.reaches(agreement, "active").await.map_err(fail)
}

/// Runs the verifier as a process of its own in an empty folder, with only the receipt and trust.json.
fn verify_alone(folder: &Path, receipt: &[u8]) -> Result<(i32, Value, u64), String> {
    let io = |e: std::io::Error| e.to_string();
    std::fs::write(folder.join("op.receipt"), receipt).map_err(io)?;
    let begun = Instant::now();
    let mut command = Command::new(own_program()?);
    command
        .args(["verify", "receipt", "op.receipt", "--trust", "trust.json", "--output", "json"])
        .current_dir(folder)
        .env_clear();
    let out = command.output().map_err(io)?;
    let ms = begun.elapsed().as_millis() as u64;
    Ok((out.status.code().unwrap_or(-1), serde_json::from_slice(&out.stdout).unwrap_or_default(), ms))
}

async fn verify(city: &City, court: &Api, op: Option<&str>) -> Checked {
    let op = op.ok_or("there is no operation: check 2 failed")?;
    let folder = city.root.join("verify");
    let io = |e: std::io::Error| e.to_string();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).map_err(io)?;
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).map_err(io)?;
    let file = city.root.join(format!("{}.receipt", op.replace(':', "-")));
    let receipt = crate::commands::op::fetch_receipt(court, op, &file).await.map_err(|e| e.to_string())?;
    let (code, found, ms) = verify_alone(&folder, &receipt)?;
    expect(code == 0 && found["valid"] == true, || format!("the receipt is not valid: {found}"))?;
    expect(text(&found, "operation") == op && text(&found, "consumer") == "court", || {
        format!("the receipt is about something else: {found}")
    })?;
    let mut at = String::new();
    for i in (0..receipt.len()).step_by((receipt.len() / 16).max(1)) {
        let mut forged = receipt.clone();
        forged[i] ^= 1;
        let (code, found, _) = verify_alone(&folder, &forged)?;
        expect(code == Exit::ProofInvalid as i32, || format!("byte {i} flipped, exit code {code}: {found}"))?;
        at = text(&found, "check");
    }
    let _ = std::fs::remove_dir_all(&folder);
    let kib = receipt.len() as f64 / 1024.0;
    let line = format!(
        "{} offline: VALID ({}), {kib:.1} KiB, {ms} ms · one byte flipped: INVALID at {at}",
        op.replace(':', "-"),
        text(&found, "status")
    );
    Ok(Found { text: line, facts: json!({"bytes": receipt.len(), "ms": ms, "status": found["status"]}) })
}
