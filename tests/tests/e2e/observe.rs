//! What operators look at: health, metrics, logs, errors.

use crate::World;
use crate::queries::{stops, with};
use concordat_tests::harness::{SOON, lines_with, until};
use serde_json::json;

pub fn health_and_metrics_answer(world: &World) {
    let city = world.shared();
    city.api("court", "clerk").query(&stops()).is(200);
    for agency in ["court", "grid", "police", "transport"] {
        let api = city.api(agency, "operator");
        api.get("/livez").is(200);
        let ready = api.get("/readyz").is(200);
        for check in ["node", "comet", "nats", "store", "writer"] {
            assert!(ready.body.to_string().contains(&format!("\"{check}\"")), "{check} in {}", ready.body);
        }
        let metrics = api.get("/metrics").is(200).text_body();
        for name in ["concordat_build_info", "concordat_ledger_head_age_seconds", "concordat_http_answers_total"] {
            assert!(metrics.contains(name), "{agency}: {name}");
        }
    }
    let court = city.api("court", "operator").get("/metrics").text_body();
    assert!(court.contains("concordat_decisions_total{action=\"query\",effect=\"permit\""), "{court}");
    assert!(court.contains("concordat_query_duration_seconds_count{stage=\"total\"}"), "{court}");
    let police = city.api("police", "operator").get("/metrics").text_body();
    for stage in ["admit", "prepare", "store", "order", "release"] {
        let name = format!("concordat_executor_stage_seconds{{stage=\"{stage}\"}} ");
        let line = police.lines().find_map(|l| l.strip_prefix(&name)).expect(stage);
        assert!(line.parse::<f64>().is_ok_and(|seconds| seconds > 0.0), "{stage}: {line}");
    }
}

pub fn a_request_id_goes_through_all_processes(world: &World) {
    let city = world.shared();
    let id = "e2e-request-7319";
    let answer = city.api("court", "clerk").query_with(&stops(), &[("x-request-id", id)]).is(200);
    assert_eq!((answer.request_id.as_str(), answer.text("request_id").as_str()), (id, id));
    for (agency, process) in [("court", "broker"), ("police", "executor")] {
        until(&format!("the id in {agency}'s {process}.log"), SOON, || {
            let log = city.log(agency, process);
            if lines_with(&log, id).is_empty() { Err(format!("{} bytes without it", log.len())) } else { Ok(()) }
        });
    }
    for agency in ["grid", "transport"] {
        assert!(lines_with(&city.log(agency, "executor"), id).is_empty(), "{agency} has nothing to do with it");
    }
}

pub fn errors_are_problems(world: &World) {
    let city = world.shared();
    let clerk = city.api("court", "clerk");
    let cases = [
        (clerk.query(&with(stops(), json!({"purpose": "purp:profiling"}))), 403),
        (clerk.query(&with(stops(), json!({"where": {"problm": {"eq": 1}}}))), 422),
        (clerk.post_bytes("/v1/queries", "application/json", b"{".to_vec()), 400),
        (clerk.post_bytes("/v1/queries", "application/json", vec![b' '; 32 << 20]), 413),
        (clerk.get("/v1/nothing"), 404),
        (clerk.get("/v1/operations/op:99999999"), 404),
        (clerk.get("/v1/operations/newest"), 400),
        (clerk.get("/v1/agreements/AGR-2026-0000"), 404),
        (clerk.post_bytes("/admin/v1/acts", "application/cbor", vec![1]), 403),
        (city.api("court", "operator").post_bytes("/admin/v1/acts", "application/cbor", vec![1]), 422),
    ];
    for (answer, status) in cases {
        let answer = answer.is(status);
        assert_eq!(answer.content_type, "application/problem+json", "{}", answer.body);
        for member in ["code", "title", "detail", "request_id", "side", "type"] {
            assert!(!answer.text(member).is_empty() && !answer.body[member].is_null(), "{member} in {}", answer.body);
        }
        assert_eq!(answer.body["status"], status);
        assert!(answer.body["retry"].is_boolean());
    }
}
