#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::testing::{ADAPTER, CLERK, Conduct, Fake, OPERATOR, OTHER, broker};
use concordat_protocol::cbor;
use concordat_protocol::leaves::Redacted;
use concordat_protocol::session::{Content, Denied, QueryCall, Released, Request};
use reqwest::Method;
use serde_json::{Value, json};

const BODY: &str = r#"{"dataset":"ds:police/stops@1","where":{"stop_id":"17-1"},"purpose":"purp:pending-case","case":"26-CR-1042","clause":"C1"}"#;

struct Answer {
    status: u16,
    body: Value,
    text: String,
    request_id: String,
    kind: String,
}

async fn ask(base: &str, method: Method, path: &str, token: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = reqwest::Client::new().request(method, format!("{base}{path}")).body(body.to_owned());
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let header = |n: &str| response.headers().get(n).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, request_id, kind) = (response.status().as_u16(), header("x-request-id"), header("content-type"));
    let text = response.text().await.unwrap();
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::Null), text, request_id, kind }
}

async fn query(base: &str, key: Option<&str>, body: &str) -> Answer {
    let headers: Vec<(&str, &str)> = key.map(|k| ("idempotency-key", k)).into_iter().collect();
    ask(base, Method::POST, "/v1/queries", CLERK, body, &headers).await
}

async fn get(base: &str, path: &str, token: &str) -> Answer {
    ask(base, Method::GET, path, token, "", &[]).await
}

macro_rules! fake {
    ($query_ms:expr) => {
        match Fake::start($query_ms).await {
            Some(fake) => fake,
            None => {
                eprintln!("SKIPPED: nats-server 2.15.2 was not found: run `make servers`");
                return;
            }
        }
    };
}

#[tokio::test]
async fn a_query_is_answered_after_its_record_and_can_be_explained() {
    let fake = fake!(20_000);
    let a = ask(&fake.base, Method::POST, "/v1/queries", CLERK, BODY, &[("x-request-id", "r-17")]).await;
    assert_eq!(a.status, 200, "{}", a.text);
    assert_eq!((a.request_id.as_str(), a.body["request_id"].as_str()), ("r-17", Some("r-17")));
    assert_eq!((a.body["count"].as_u64(), a.body["clause"].as_str()), (Some(2), Some("C1")));
    assert_eq!(a.body["agreement"], "AGR-2026-0142");
    let op = a.body["operation"].as_str().unwrap().to_owned();
    // The rows are, byte for byte, what the provider committed to: with the secret anyone can check it.
    let rows = a.text.split_once("\"rows\":[").unwrap().1.split_once("],\"").unwrap().0.to_owned();
    assert_eq!(rows, r#"{"stop_id":"17-1","time":"2017-03-14T00:00:00Z"},{"stop_id":"17-2"}"#);
    let secret = hex::decode(a.body["content_secret"].as_str().unwrap()).unwrap().try_into().unwrap();
    let rows = a.body["rows"].as_array().unwrap().iter().map(|r| r.to_string().into_bytes().into()).collect();
    let store = crate::store::Store::open(&fake.dir.join("broker/broker.sqlite")).unwrap();
    let kept = crate::gateway::records::Records::new(store).by_request("r-17").await.unwrap().unwrap();
    let released: Released = cbor::decode(&kept.released.unwrap()).unwrap();
    let opened: Redacted = cbor::decode(&released.openings).unwrap();
    assert_eq!(opened.get("content_root"), Some(&Content { secret, rows }.root()[..]));
    assert!(released.sealed.is_empty(), "the rows themselves are not kept");

    let shown = get(&fake.base, &format!("/v1/operations/{op}"), CLERK).await;
    assert_eq!((shown.body["verdict"].as_str(), shown.body["request"]["rows"].as_u64()), (Some("accepted"), Some(2)));
    let others = get(&fake.base, &format!("/v1/operations/{op}"), OTHER).await;
    assert!(others.body["request"].is_null(), "another clerk sees the ledger's entry, not the request");
    assert_eq!(get(&fake.base, &format!("/v1/decisions/{op}"), OTHER).await.status, 404);
    for id in [op.as_str(), "r-17"] {
        let why = get(&fake.base, &format!("/v1/decisions/{id}"), CLERK).await;
        assert_eq!(why.body["sentence"], "police released 2 rows under AGR-2026-0142/C1.", "{}", why.text);
    }
    let list = get(&fake.base, "/v1/operations?limit=1", OPERATOR).await;
    assert_eq!(list.body["operations"][0]["operation"].as_str(), Some(op.as_str()), "newest first");
    let agreement = get(&fake.base, "/v1/agreements/AGR-2026-0142", CLERK).await;
    assert_eq!(agreement.body["newest"]["clauses"][0]["id"], "C1", "{}", agreement.text);
    let metrics = get(&fake.base, "/metrics", "").await.text;
    assert!(metrics.contains(r#"concordat_decisions_total{action="query",effect="permit",reason="permitted"} 1"#));
    assert!(metrics.contains(r#"concordat_agreement_expiry_timestamp_seconds{agreement="AGR-2026-0142"}"#));
    assert!(!metrics.contains("clerk-1") && !metrics.contains("26-CR-1042"));
}

#[tokio::test]
async fn one_key_is_one_query_and_another_body_is_refused() {
    let fake = fake!(20_000);
    let first = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let again = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!((again.status, &again.text), (200, &first.text), "the same rows, operation and receipt");
    let after_restart = query(&broker(&fake.dir).await, Some("k-1"), BODY).await;
    assert_eq!((after_restart.status, &after_restart.text), (200, &first.text));
    assert_eq!((fake.ops(), fake.police.calls().len()), (1, 1), "no second operation");
    let other = query(&fake.base, Some("k-1"), &BODY.replace("17-1", "17-2")).await;
    assert_eq!((other.status, other.body["code"].as_str()), (422, Some("idempotency-key-reused")));
}

#[tokio::test]
async fn who_does_not_wait_fetches_the_same_answer_later() {
    let fake = fake!(20_000);
    let headers = [("idempotency-key", "k-1"), ("prefer", "respond-async, wait=0")];
    let ask_now = || ask(&fake.base, Method::POST, "/v1/queries", CLERK, BODY, &headers);
    let first = ask_now().await;
    assert_eq!((first.status, first.body["status"].as_str()), (202, Some("in-progress")), "{}", first.text);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let answered = loop {
        // It goes on by itself: only the last one fetches what is there.
        let again = ask_now().await;
        if again.status != 202 {
            break again;
        }
        assert!(std::time::Instant::now() < until, "no answer");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((answered.status, answered.body["count"].as_u64()), (200, Some(2)), "{}", answered.text);
    assert_eq!((fake.ops(), fake.police.calls().len()), (1, 1), "one operation");
    let no_key = ask(&fake.base, Method::POST, "/v1/queries", CLERK, BODY, &[("prefer", "respond-async")]).await;
    assert_eq!(no_key.status, 400, "{}", no_key.text);
}

#[tokio::test]
async fn a_caller_beyond_its_limit_is_told_when_and_others_are_not_held_back() {
    let fake = fake!(20_000);
    let file = fake.dir.join("node.yaml");
    let mut cfg: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    (cfg["limits"]["requests_per_second"], cfg["limits"]["request_burst"]) = (json!(1), json!(5));
    std::fs::write(&file, cfg.to_string()).unwrap();
    let base = broker(&fake.dir).await;
    let mut all = Vec::new();
    for _ in 0..8 {
        let client = reqwest::Client::new().get(format!("{base}/v1/whoami")).bearer_auth(CLERK);
        all.push(client.send().await.unwrap());
    }
    let header = |r: &reqwest::Response, n: &str| r.headers().get(n).map(|v| v.to_str().unwrap().to_owned());
    assert_eq!((all[0].status().as_u16(), header(&all[0], "ratelimit").as_deref()), (200, Some("\"caller\";r=4;t=0")));
    assert_eq!(header(&all[0], "ratelimit-policy").as_deref(), Some("\"caller\";q=5;w=5"));
    let refused = all.pop().unwrap();
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after").as_deref()), (429, Some("1")));
    assert_eq!(header(&refused, "content-type").as_deref(), Some("application/problem+json"));
    let said: Value = refused.json().await.unwrap();
    assert_eq!((said["code"].as_str(), said["retry"].as_bool()), (Some("rate-limited"), Some(true)), "{said}");
    assert_eq!(get(&base, "/v1/whoami", OTHER).await.status, 200);
    assert_eq!(get(&base, "/livez", "").await.status, 200);
}

#[tokio::test]
async fn lost_answers_are_asked_for_again_with_the_same_bytes() {
    let fake = fake!(1_000);
    *fake.police.conduct.lock().unwrap() = Conduct::Lose(1);
    let lost = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!((lost.status, lost.body["code"].as_str()), (504, Some("provider-timeout")), "{}", lost.text);
    assert_eq!((lost.body["side"].as_str(), lost.body["retry"].as_bool()), (Some("provider"), Some(true)));
    // The broker is restarted in between: the bytes were kept before they were sent.
    let answered = query(&broker(&fake.dir).await, Some("k-1"), BODY).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let calls = fake.police.calls();
    assert!(calls.len() == 2 && calls[0] == calls[1], "the same bytes");
    assert_eq!(fake.ops(), 1, "one operation");
}

#[tokio::test]
async fn a_call_without_an_answer_is_sent_again_by_itself() {
    let fake = fake!(20_000);
    *fake.police.conduct.lock().unwrap() = Conduct::Lose(1);
    let answered = query(&fake.base, None, BODY).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let calls = fake.police.calls();
    assert!(calls.len() == 2 && calls[0] == calls[1] && fake.ops() == 1);
}

#[tokio::test]
async fn what_a_restarted_provider_withholds_is_asked_anew() {
    let fake = fake!(20_000);
    *fake.police.conduct.lock().unwrap() = Conduct::WithholdFirst;
    let first = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!((fake.ops(), places(&fake).len()), (2, 2), "the withheld operation stays, the answer has its own");
    let again = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!((again.text == first.text, fake.ops()), (true, 2));
}

#[tokio::test]
async fn a_denial_names_its_clause_and_is_remembered() {
    let fake = fake!(20_000);
    let denied = Denied {
        code: 407,
        reason: "prohibited".into(),
        detail: "Never for profiling.".into(),
        clause: "AGR-2026-0142/X1".into(),
        clause_text: "Never for profiling.".into(),
        missing: String::new(),
        clauses: vec![],
        operation: Some(0),
        retry: 0,
    };
    *fake.police.conduct.lock().unwrap() = Conduct::Deny(denied);
    let a = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!((a.status, a.kind.as_str(), a.body["code"].as_str()), (403, "application/problem+json", Some("denied")));
    assert_eq!(
        (a.body["clause_text"].as_str(), a.body["operation"].as_str()),
        (Some("Never for profiling."), Some("op:0"))
    );
    assert_eq!(a.body["request_id"].as_str(), Some(a.request_id.as_str()));
    let again = query(&fake.base, Some("k-1"), BODY).await;
    assert_eq!((again.status, again.body["reason"].as_str(), fake.police.calls().len()), (403, Some("prohibited"), 1));
    let why = get(&fake.base, &format!("/v1/decisions/{}", a.request_id), CLERK).await;
    assert_eq!(why.body["sentence"], "police denied it: Never for profiling.");
}

#[tokio::test]
async fn what_does_not_prove_itself_is_not_handed_on() {
    let fake = fake!(20_000);
    *fake.police.conduct.lock().unwrap() = Conduct::Tamper(|r| *r.sealed.0.last_mut().unwrap() ^= 1);
    let a = query(&fake.base, None, BODY).await;
    assert_eq!(
        (a.status, a.body["code"].as_str(), a.body["side"].as_str()),
        (502, Some("proof-invalid"), Some("provider"))
    );
    assert!(!a.text.contains("17-1"));
    *fake.police.conduct.lock().unwrap() = Conduct::Tamper(|r| r.ticket.log_index = 0);
    let a = query(&fake.base, None, BODY).await;
    assert_eq!(a.status, 502, "an entry that is another operation: {}", a.text);
}

#[tokio::test]
async fn many_at_once_share_sessions_and_no_number_is_used_twice() {
    let fake = fake!(20_000);
    let all = futures::future::join_all((0..40).map(|_| query(&fake.base, None, BODY))).await;
    assert!(all.iter().all(|a| a.status == 200), "{:?}", all.iter().find(|a| a.status != 200).map(|a| &a.text));
    assert_eq!(fake.ops(), 40);
    let before: std::collections::BTreeSet<u64> = places(&fake).into_iter().map(|p| p.0).collect();
    let base = broker(&fake.dir).await;
    assert_eq!(query(&base, None, BODY).await.status, 200);
    let after = places(&fake);
    assert_eq!(after.len(), 41, "every (session, n) once");
    assert!(after.iter().any(|p| !before.contains(&p.0)), "a new process opens new sessions");
}

fn places(fake: &Fake) -> std::collections::BTreeSet<(u64, u64)> {
    let place = |bytes: &Vec<u8>| {
        let call: QueryCall = cbor::decode(bytes).unwrap();
        let request: Request = cbor::decode(&call.signed.request).unwrap();
        (request.session, request.n)
    };
    fake.police.calls().iter().map(place).collect()
}

#[tokio::test]
async fn doors_are_closed_to_strangers_and_bad_bodies() {
    let fake = fake!(20_000);
    let base = &fake.base;
    let post =
        |token: &'static str, path: &'static str, body: &'static str| ask(base, Method::POST, path, token, body, &[]);
    let a = post("", "/v1/queries", BODY).await;
    assert_eq!((a.status, a.body["code"].as_str()), (401, Some("unauthorized")));
    assert_eq!(post("x-token-0123456789abcdef0123456789abcd", "/v1/queries", BODY).await.status, 401);
    assert_eq!(post(ADAPTER, "/v1/queries", BODY).await.body["code"], "forbidden");
    assert_eq!(post(CLERK, "/admin/v1/acts", "x").await.status, 403);
    assert_eq!(post(OPERATOR, "/admin/v1/acts", "x").await.body["code"], "bad-act");
    assert_eq!(post("", "/v1/ledger/batches", "x").await.body["code"], "bad-batch");
    assert_eq!(post(CLERK, "/v1/nothing", "").await.body["code"], "unknown-resource");
    assert_eq!(post(CLERK, "/v1/operations", "").await.status, 405);
    let bad = [
        ("{", 400),
        (r#"{"dataset":"ds:police/stops@1","purpose":"purp:x","whre":{}}"#, 400),
        (r#"{"dataset":"ds:police/stops@1","dataset":"ds:police/stops@1","purpose":"purp:x"}"#, 400),
        (r#"{"dataset":"stops","purpose":"purp:x"}"#, 422),
        (r#"{"dataset":"ds:police/stops@1","purpose":"x"}"#, 422),
        (r#"{"dataset":"ds:court/register@1","purpose":"purp:x"}"#, 422),
        (r#"{"dataset":"ds:police/other@1","purpose":"purp:x"}"#, 404),
    ];
    for (body, status) in bad {
        let a = query(base, None, body).await;
        assert_eq!((a.status, a.kind.as_str()), (status, "application/problem+json"), "{body}: {}", a.text);
        assert_eq!(a.body["status"].as_u64(), Some(u64::from(status)));
    }
    assert!(fake.police.calls().is_empty(), "nobody was asked");
    assert_eq!(get(base, "/livez", "").await.status, 200);
    assert_eq!(get(base, "/v1/operations/op:999", CLERK).await.body["code"], "unknown-operation");
    assert_eq!(get(base, "/v1/operations?fron=1", CLERK).await.status, 400);
    assert_eq!(get(base, "/v1/ledger/status", CLERK).await.body["chain"], json!("city"));
}
