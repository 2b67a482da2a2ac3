//! Subscriptions that a consumer creates itself, at a provider that keeps to the contract and at one that lies.

use super::*;
use concordat_broker::feed::NewAsk;
use concordat_broker::gateway::{Ask, GatewayError};
use concordat_executor::admit::{Signatures, read_request, verify_call};
use concordat_executor::decide::denied;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::session::{Denied, QueryCall};
use concordat_protocol::subscribe::{FeedStart, NewSubscription, SubscribeCommand, SubscribeReply, Subscribed};
use futures::StreamExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A provider that keeps to the contract: only signed commands of a session's consumer, one number a name and terms.
#[derive(Default)]
struct Provider {
    names: BTreeMap<String, (NewSubscription, u64)>,
    deleted: Vec<u64>,
    /// Answers with these instead.
    lie: Option<SubscribeReply>,
}

impl Provider {
    fn reply(&mut self, city_sessions: &[concordat_protocol::node::SessionView], bytes: &[u8]) -> SubscribeReply {
        let call: QueryCall = cbor::decode(bytes).unwrap();
        let request = read_request(&call).unwrap();
        let session = city_sessions.iter().find(|s| s.session == request.session).expect("an open session");
        let grid = AgencyId::new("grid").unwrap();
        let call_ok =
            verify_call(&call, request, "city", &grid, session, &Signatures::default()).expect("a signed command");
        assert_eq!(call_ok.request.dataset.as_str(), DATASET);
        if let Some(lie) = &self.lie {
            return lie.clone();
        }
        match cbor::decode(&call.query).unwrap() {
            SubscribeCommand::Create { body } => {
                assert!(body.actor.starts_with("psn:") && body.roles == ["planner"]);
                let next = (SUBSCRIPTION << 32) + 1 + self.names.len() as u64;
                let (kept, number) = self.names.entry(body.name.clone()).or_insert((body.clone(), next)).clone();
                if kept != body {
                    return SubscribeReply::Denied { body: denied(0, "exists", "other terms") };
                }
                SubscribeReply::Subscribed { body: subscribed(number) }
            }
            SubscribeCommand::Delete { subscription } => {
                self.names.retain(|_, (_, n)| *n != subscription);
                self.deleted.push(subscription);
                SubscribeReply::Deleted { subscription }
            }
        }
    }
}

fn subscribed(subscription: u64) -> Subscribed {
    Subscribed {
        subscription,
        agreement: "AGR-2026-0143".into(),
        version: 1,
        clause: "F1".into(),
        handle: SUBSCRIPTION,
        max_lag_ms: 2_000,
        fields: vec!["mw".into(), "time".into()],
    }
}

async fn provider(city: &City) -> Arc<Mutex<Provider>> {
    let this = Arc::new(Mutex::new(Provider::default()));
    let (nats, serve, state) = (city.nats.connect("grid").await, this.clone(), city.node.state.clone());
    let mut calls = nats.subscribe("q.*.GRID.feed").await.unwrap();
    nats.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = calls.next().await {
            assert_eq!(message.subject.as_str(), "q.TRANSPORT.GRID.feed");
            let sessions = state.lock().unwrap().sessions.clone();
            let reply = serve.lock().unwrap().reply(&sessions, &message.payload);
            nats.publish(message.reply.unwrap(), cbor::encode(&reply).into()).await.unwrap();
        }
    });
    this
}

fn ask(name: &str) -> NewAsk {
    NewAsk {
        dataset: DatasetId::new(DATASET).unwrap(),
        name: name.into(),
        agreement: "AGR-2026-0143".into(),
        clause: String::new(),
        purpose: "purp:grid-dispatch".into(),
        case: String::new(),
        filter: json!({"mw": {"gt": 5}}).as_object().cloned(),
        fields: vec!["time".into(), "mw".into()],
        from: FeedStart::Earliest {},
        caller: "planner-1".into(),
        roles: vec!["planner".into()],
        actor: "psn:1".into(),
        request_id: "r-1".into(),
    }
}

fn by() -> Ask {
    Ask {
        dataset: DatasetId::new(DATASET).unwrap(),
        query: Default::default(),
        purpose: String::new(),
        case: String::new(),
        clause: String::new(),
        caller: "planner-1".into(),
        roles: vec!["planner".into()],
        actor: "psn:1".into(),
        justification: None,
        request_id: "r-2".into(),
        idempotency: None,
    }
}

async fn consumers(city: &City) -> Vec<String> {
    let js = async_nats::jetstream::new(city.nats.connect("exchange").await);
    let stream = js.get_stream("TRANSPORT").await.unwrap();
    let mut names: Vec<String> = stream.consumer_names().map(|n| n.unwrap()).collect().await;
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_is_created_once_survives_restarts_and_is_deleted_everywhere() {
    let Some(city) = City::start().await else { return };
    let (gateway, mut subs, grid) = (city.gateway().await, city.follower().await, provider(&city).await);
    default_one(&subs).await;
    let (sub, is_new) = until("created", async || subs.create(&gateway, ask("mine")).await.ok()).await;
    assert!(is_new);
    let id = sub.id();
    assert_eq!(id, format!("grid-{}", (SUBSCRIPTION << 32) + 1));
    assert_eq!(subs.get("mine").unwrap().id(), id, "its name and its id are the same subscription");
    assert_eq!(subs.get(&id).unwrap().name(), Some("mine"));
    assert_eq!(consumers(&city).await, ["GRID-17".to_owned(), format!("GRID-{}", (SUBSCRIPTION << 32) + 1)]);
    let (again, is_new) = subs.create(&gateway, ask("mine")).await.unwrap();
    assert_eq!((again.id(), is_new), (id.clone(), false));
    let other = NewAsk { fields: vec!["mw".into()], ..ask("mine") };
    let refused = subs.create(&gateway, other).await.err().unwrap();
    assert!(matches!(&refused, FeedError::Gateway(GatewayError::Denied { denied, .. }) if denied.reason == "exists"));
    // A process that died between the provider's answer and its own note repeats all of it.
    drop((sub, again, subs));
    subs = city.follower().await;
    until("taken up again", async || subs.get("mine").ok()).await;
    let sub = subs.get(&id).unwrap();
    subs.permitted(&sub).unwrap();
    let refused = subs.delete(&gateway, &*default_one(&subs).await, by()).await.err().unwrap();
    assert_eq!(refused.code(), "default-subscription");
    subs.delete(&gateway, &sub, by()).await.unwrap();
    assert_eq!(grid.lock().unwrap().deleted, [(SUBSCRIPTION << 32) + 1]);
    assert_eq!(consumers(&city).await, ["GRID-17"]);
    assert!(matches!(subs.get(&id), Err(FeedError::Unknown(_))));
    assert!(matches!(subs.messages(&sub, None, 1, Duration::ZERO).await, Err(FeedError::Unknown(_))));
    drop((sub, subs));
    subs = city.follower().await;
    default_one(&subs).await;
    assert!(subs.get("mine").is_err(), "it does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_provider_s_answer_is_taken_only_as_the_ledger_has_it() {
    let Some(city) = City::start().await else { return };
    let (gateway, subs, grid) = (city.gateway().await, city.follower().await, provider(&city).await);
    default_one(&subs).await;
    let lie = |reply| grid.lock().unwrap().lie = Some(reply);
    let number = (SUBSCRIPTION << 32) + 9;
    lie(SubscribeReply::Subscribed { body: Subscribed { max_lag_ms: 60_000, ..subscribed(number) } });
    let refused = until("an answer", async || match subs.create(&gateway, ask("mine")).await {
        Err(FeedError::Proof { sentence, .. }) => Some(sentence),
        _ => None,
    })
    .await;
    assert!(refused.contains("bound 2000 ms, not 17 and 60000 ms"), "{refused}");
    let no = Denied { missing: "role".into(), clause: "F1".into(), ..denied(0, "role", "for planners only") };
    lie(SubscribeReply::Denied { body: no });
    let refused = subs.create(&gateway, ask("mine")).await.err().unwrap();
    let problem = concordat_broker::http::Problem::from(refused);
    assert_eq!((problem.status.as_u16(), problem.clause.as_str(), problem.missing.as_str()), (403, "F1", "role"));
    assert!(problem.next.contains("bring what is missing"), "{}", problem.next);
    assert!(subs.get("mine").is_err());
    for (bad, field) in [
        (NewAsk { name: "No Spaces".into(), ..ask("x") }, "name"),
        (NewAsk { name: "grid-17".into(), ..ask("x") }, "name"),
        (NewAsk { agreement: "AGR-2026-0999".into(), ..ask("x") }, "agreement"),
        (NewAsk { fields: vec!["mw".into(), "mw".into()], ..ask("x") }, "select"),
    ] {
        let refused = subs.create(&gateway, bad).await.err().unwrap();
        assert!(matches!(&refused, FeedError::Bad { field: f, .. } if *f == field), "{field}: {refused}");
    }
}
