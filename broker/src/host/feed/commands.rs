//! What consumers ask of the feeds: subscriptions of their own, and an end to them.
//!
//! A command comes like a query, signed under a session, and is decided like the feed that it asks for. It is answered
//! when it is durable.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

use super::created::{Created, CreatedTerms, Creating, Life, start_text};
use super::error::FeedError;
use super::evidence::Clause;
use super::redaction::{Lens, TooWide, filter_json};
use super::subscription::End;
use super::{FeedStoreError, Feeds, place};
use crate::host::hosted::refuse_feed;
use crate::streams::publish_stream;
use async_nats::jetstream;
use concordat_executor::decide::{denied, from_policy, named_clause, role_name};
use concordat_executor::policies::ask::{Ask, Decision, Grant};
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::step::{Reason, refuse};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::limits::{SUBSCRIPTION_NAME_MAX, SUBSCRIPTIONS_PER_CONSUMER};
use concordat_protocol::session::{Denied, Request};
use concordat_protocol::subscribe::{NewSubscription, SubscribeCommand, SubscribeReply, Subscribed};
use concordat_protocol::terms::Action;
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::{info, warn};

/// The purpose of who names none: public data asks for none.
const NO_PURPOSE: &str = "purp:none";
/// Longest pseudonym, bytes.
const ACTOR_MAX: usize = 256;

/// Who asks, as admission found it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The consumer, from the session.
    pub consumer: AgencyId,
    /// The signed request: dataset, clause, purpose, case.
    pub request: Request,
    /// First tick at which the session is over, milliseconds.
    pub session_expires_ms: u64,
}

fn bad(reason: &str, detail: impl Into<String>) -> Denied {
    denied(codes::BAD_VALUE, reason, detail)
}

fn busy(detail: String) -> Denied {
    Denied { retry: 1, ..denied(codes::BUSY, "provider-busy", detail) }
}

impl From<FeedStoreError> for Refusal {
    fn from(e: FeedStoreError) -> Self {
        warn!(code = e.code(), error = %e, "a command waits");
        Self(busy("the provider cannot store it now: ask again later".into()))
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self(denied)
    }
}

/// A denial, for `?`.
struct Refusal(Denied);

type Answer = Result<SubscribeReply, Refusal>;

impl Feeds {
    /// Carries out a command, canonical [`SubscribeCommand`] bytes. Asking again changes nothing.
    pub async fn command(&self, asked: &Asked, document: &[u8]) -> SubscribeReply {
        let Ok(_permit) = self.working.acquire().await else {
            return SubscribeReply::Denied { body: busy("the executor stops".into()) };
        };
        match self.carry_out(asked, document).await {
            Ok(reply) => reply,
            Err(Refusal(body)) => {
                info!(consumer = %asked.consumer, reason = body.reason, detail = body.detail, "subscription denied");
                SubscribeReply::Denied { body }
            }
        }
    }

    async fn carry_out(&self, asked: &Asked, document: &[u8]) -> Answer {
        let now_ms = self.setup.view.borrow().now_ms().ok_or_else(|| refuse(Reason::StaleLedger))?;
        if asked.session_expires_ms <= now_ms {
            return Err(refuse(Reason::SessionExpired).into());
        }
        if asked.request.not_after_ms < now_ms {
            return Err(refuse(Reason::RequestExpired).into());
        }
        if let Some(denied) = refuse_feed(&self.setup.cfg) {
            return Err(denied.into());
        }
        let command: SubscribeCommand =
            cbor::decode(document).map_err(|e| denied(codes::NOT_CANONICAL, "bad-command", e.to_string()))?;
        match command {
            SubscribeCommand::Create { body } => self.create(asked, body, now_ms).await,
            SubscribeCommand::Delete { subscription } => self.delete(&asked.consumer, subscription).await,
        }
    }

    async fn create(&self, asked: &Asked, body: NewSubscription, now_ms: u64) -> Answer {
        let request = &asked.request;
        check_shape(&body)?;
        if asked.consumer == self.setup.cfg.agency {
            return Err(bad("own-feed", "an agency does not subscribe to itself: read the dataset's stream").into());
        }
        let doc = self.docs.get(&request.dataset).ok_or_else(|| {
            let known: Vec<&str> = self.docs.keys().map(|d| d.as_str()).collect();
            let detail = format!("dataset: {} is no feed of this agency; it has {}", request.dataset, known.join(", "));
            denied(codes::UNKNOWN_DATASET, "no-feed", detail)
        })?;
        let roles: BTreeSet<String> = body.roles.iter().map(|r| role_name(r)).collect();
        let (ask, grant) = self.decide(asked, roles, now_ms)?;
        let filter = filter_json(&body.filter).map_err(|e| too_wide(&grant, &e))?;
        let (lens, filter) = narrowed(&grant, doc, &filter, &body.fields)?;
        let handle = self.handle(&grant)?;
        let stream_seq = self.start(doc, &body).await?;
        let terms = CreatedTerms {
            dataset: request.dataset.clone(),
            agreement: grant.clause.agreement.clone(),
            clause: grant.clause.clause.clone(),
            purpose: ask.purpose.clone(),
            case: ask.case,
            filter,
            fields: body.fields.clone(),
            from: start_text(&body.from),
        };
        let clause = Clause {
            subscription: 0,
            handle,
            consumer: asked.consumer.clone(),
            name: format!("{}/{}", terms.agreement, terms.clause),
            purpose: ask.purpose,
            rows_hash: grant.rows_hash,
            max_lag_ms: lens.max_lag_ms,
            dataset: request.dataset.to_string(),
            sentence: grant.clause.text.clone(),
            seal_ms: super::evidence::seal_ms(&grant.duties),
        };
        let wanted = Created {
            subscription: 0,
            consumer: asked.consumer.clone(),
            name: body.name,
            actor: body.actor,
            roles: ask.roles,
            version: grant.clause.version,
            handle,
            terms,
        };
        let made = self.store.create(wanted, (request.session, request.n), stream_seq, clause).await?;
        self.created(made, &grant, handle, &lens)
    }

    /// The answer to a wish that the store has dealt with.
    fn created(&self, made: Creating, grant: &Grant, handle: u64, lens: &Lens) -> Answer {
        let created = match made {
            Creating::New(created) => {
                let (number, consumer, name) = (created.subscription, &created.consumer, &created.name);
                info!(subscription = number, %consumer, name, clause = created.terms.clause, "subscription created");
                self.changed.send_replace(());
                created
            }
            Creating::Same(created) => created,
            Creating::Taken(created) => {
                let detail = format!(
                    "name: {} is subscription {} with other terms: delete it first, or take another name",
                    created.name, created.subscription
                );
                return Err(bad("exists", detail).into());
            }
            Creating::Replayed => {
                let detail = "this request made a subscription that is over: sign a new request";
                return Err(denied(codes::REPLAY, "replay", detail).into());
            }
            Creating::Full => {
                let detail = format!("a consumer may have {SUBSCRIPTIONS_PER_CONSUMER} subscriptions here: delete one");
                return Err(bad("too-many", detail).into());
            }
        };
        let body = Subscribed {
            subscription: created.subscription,
            agreement: grant.clause.agreement.to_string(),
            version: grant.clause.version,
            clause: grant.clause.clause.clone(),
            handle,
            max_lag_ms: lens.max_lag_ms,
            fields: lens.fields().map(str::to_owned).collect(),
        };
        Ok(SubscribeReply::Subscribed { body })
    }

    /// The clause that permits it, decided as it will be before every append.
    fn decide(&self, asked: &Asked, roles: BTreeSet<String>, now_ms: u64) -> Result<(Ask, Grant), Denied> {
        let request = &asked.request;
        let (agreement, clause) = named_clause(&request.clause)?;
        let purpose = if request.purpose.is_empty() { NO_PURPOSE.to_owned() } else { request.purpose.clone() };
        let ask = Ask {
            consumer: asked.consumer.clone(),
            roles,
            action: Action::Subscribe,
            break_glass: false,
            purpose,
            agreement,
            clause,
            case: Some(request.case.clone()).filter(|c| !c.is_empty()),
            at_ms: now_ms,
        };
        let policies = self.setup.view.borrow().policies.clone();
        match policies.set(&request.dataset, &asked.consumer).decide(&ask) {
            Decision::Permit(grant) => Ok((ask, Arc::unwrap_or_clone(grant))),
            other => Err(from_policy(other)),
        }
    }

    fn handle(&self, grant: &Grant) -> Result<u64, Denied> {
        let policies = self.setup.view.borrow().policies.clone();
        policies
            .handle(&grant.clause.agreement, grant.clause.version, grant.index)
            .ok_or_else(|| busy("the agreement changes just now: ask again".into()))
    }

    async fn start(&self, doc: &Arc<DatasetDoc>, body: &NewSubscription) -> Result<u64, Denied> {
        let js = jetstream::new(self.setup.nats.clone());
        let found = match js.get_stream(publish_stream(&doc.id)).await {
            Ok(stream) => place::before(&stream, &body.from).await,
            Err(e) => Err(FeedError::Streams(e.to_string())),
        };
        found.map_err(|e| {
            warn!(dataset = %doc.id, error = %e, "where a subscription begins cannot be found");
            busy("the provider's stream cannot be read now, or nothing was published yet: ask again later".into())
        })
    }

    async fn delete(&self, consumer: &AgencyId, number: u64) -> Answer {
        if number >> 32 == 0 {
            let detail = format!(
                "subscription {number} is the clause's own and lasts as long as its agreement: pause it at your own \
                 broker, or let one side suspend or revoke the agreement"
            );
            return Err(bad("default-subscription", detail).into());
        }
        let found = self.store.created_by_number(number).await?.filter(|(c, _)| c.consumer == *consumer);
        let Some((created, life)) = found else {
            let detail = format!("subscription {number} is none that this consumer created here: list your own");
            return Err(bad("unknown-subscription", detail).into());
        };
        if life == Life::Live {
            // First the task: nothing more leaves while the store writes.
            self.end(number, End::Deleted);
            self.store.end_created(number, Life::Deleted).await?;
            self.changed.send_replace(());
            info!(subscription = number, %consumer, name = created.name, "subscription deleted");
        }
        Ok(SubscribeReply::Deleted { subscription: number })
    }
}

fn check_shape(body: &NewSubscription) -> Result<(), Denied> {
    let named = body.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !named || body.name.is_empty() || body.name.len() > SUBSCRIPTION_NAME_MAX {
        return Err(bad("bad-name", "name: 1 to 64 of a-z, 0-9 and - are needed"));
    }
    if body.actor.len() > ACTOR_MAX {
        return Err(bad("bad-actor", format!("actor: at most {ACTOR_MAX} bytes")));
    }
    if !body.fields.is_sorted_by(|a, b| a < b) {
        return Err(bad("bad-fields", "fields: must be sorted, each once"));
    }
    Ok(())
}

fn of_clause(grant: &Grant, denied: Denied) -> Denied {
    Denied {
        clause: format!("{}/{}", grant.clause.agreement, grant.clause.clause),
        clause_text: grant.clause.text.clone(),
        ..denied
    }
}

fn too_wide(grant: &Grant, e: &TooWide) -> Denied {
    let missing = match e {
        TooWide::Filter(_) => return bad(e.code(), e.to_string()),
        TooWide::AlteredInFilter(field) => format!("a filter without {field}"),
        TooWide::HiddenInFilter { field, .. } | TooWide::Field { field, .. } => format!("field {field}"),
    };
    of_clause(grant, Denied { missing, ..denied(codes::CLAUSE, e.code(), e.to_string()) })
}

/// What the subscription shows, and its filter in one way of writing.
fn narrowed(
    grant: &Grant,
    doc: &DatasetDoc,
    filter: &serde_json::Value,
    fields: &[String],
) -> Result<(Lens, serde_json::Value), Denied> {
    let lens = Lens::of(grant, doc).map_err(|e| {
        let detail = format!("clause {} cannot be delivered as a feed: {e}", grant.clause.clause);
        of_clause(grant, denied(codes::CLAUSE, e.code(), detail))
    })?;
    let own = Lens::own_filter(filter, doc).map_err(|e| too_wide(grant, &e))?;
    let narrow = lens.narrow(filter, fields, doc).map_err(|e| too_wide(grant, &e))?;
    Ok((narrow, own.to_json()))
}
