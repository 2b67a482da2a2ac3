//! Subscriptions of this agency's own: asked of the provider, checked against the ledger, kept, opened at the exchange.

use super::ask::{AskError, ask};
use super::store::Created;
use super::subscription::{Subscription, wall_ms};
use super::terms::{bears_out, open_clauses};
use super::{FeedError, Subscriptions};
use crate::gateway::{Ask, Gateway, GatewayError};
use concordat_protocol::ids::DatasetId;
use concordat_protocol::session::Denied;
use concordat_protocol::subscribe::{
    ExchangeCommand, FeedStart, NewSubscription, SubscribeCommand, SubscribeReply, Subscribed,
};
use concordat_protocol::terms::Status;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How long the own node may lag behind the provider's before its word counts.
const LAG: Duration = Duration::from_secs(5);
/// How long a new subscription waits for the exchange before it is answered.
const OPENED: Duration = Duration::from_secs(5);
/// Longest name.
const NAME_CHARS_MAX: usize = 64;

/// What an application asks for, authenticated by the API.
#[derive(Debug, Clone)]
pub struct NewAsk {
    /// What to follow.
    pub dataset: DatasetId,
    /// This agency's own name of it.
    pub name: String,
    /// `AGR-2026-0143`, or empty.
    pub agreement: String,
    /// The clause's id, or empty.
    pub clause: String,
    /// `purp:...`, or empty.
    pub purpose: String,
    /// Case reference, or empty.
    pub case: String,
    /// A filter of the query language.
    pub filter: Option<Map<String, Value>>,
    /// Fields, or none for all that the clause opens.
    pub fields: Vec<String>,
    /// Where it begins.
    pub from: FeedStart,
    /// Name of the caller's token.
    pub caller: String,
    /// Roles of the caller.
    pub roles: Vec<String>,
    /// The caller's pseudonym.
    pub actor: String,
    /// Request id.
    pub request_id: String,
}

fn bad(field: &'static str, rule: impl Into<String>) -> FeedError {
    FeedError::Bad { field, rule: rule.into() }
}

impl NewAsk {
    /// Checks what needs nobody else, and puts lists in order, so that the same question has the same bytes.
    fn checked(mut self) -> Result<Self, FeedError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > NAME_CHARS_MAX || !self.name.bytes().all(plain) {
            return Err(bad("name", format!("1 to {NAME_CHARS_MAX} of a-z, 0-9 and -")));
        }
        let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        let id_like = self.name.strip_prefix(self.dataset.owner().as_str()).and_then(|r| r.strip_prefix('-'));
        if number(&self.name) || id_like.is_some_and(number) {
            return Err(bad("name", "it must not look like a subscription's id or number"));
        }
        self.fields.sort();
        if self.fields.windows(2).any(|w| w[0] == w[1]) {
            return Err(bad("select", "each field once"));
        }
        self.roles.sort();
        Ok(self)
    }

    fn filter(&self) -> String {
        self.filter.as_ref().map(|f| Value::Object(f.clone()).to_string()).unwrap_or_default()
    }

    fn command(&self) -> SubscribeCommand {
        let body = NewSubscription {
            name: self.name.clone(),
            actor: self.actor.clone(),
            roles: self.roles.clone(),
            filter: self.filter().into_bytes().into(),
            fields: self.fields.clone(),
            from: self.from.clone(),
        };
        SubscribeCommand::Create { body }
    }

    /// The question as the gateway signs it, resting on this clause.
    fn signed_as(&self, clause: String) -> Ask {
        Ask {
            dataset: self.dataset.clone(),
            query: Map::new(),
            purpose: self.purpose.clone(),
            case: self.case.clone(),
            clause,
            caller: self.caller.clone(),
            roles: self.roles.clone(),
            actor: self.actor.clone(),
            request_id: self.request_id.clone(),
            idempotency: None,
            justification: None,
        }
    }
}

impl Subscriptions {
    /// Creates a subscription, or takes up one of the same name and terms. Whatever died on the way, the same again
    /// repeats all of it. True if it was not there.
    pub async fn create(&self, gateway: &Gateway, new: NewAsk) -> Result<(Arc<Subscription>, bool), FeedError> {
        let new = new.checked()?;
        let known = self.parts.shelf.named(new.name.clone()).await?;
        if known.is_some_and(|k| k.key.provider != new.dataset.owner() || k.dataset != new.dataset) {
            return Err(FeedError::Name(new.name));
        }
        let clause = self.clause(&new).await?;
        match gateway.subscribe(&new.signed_as(clause), &new.command()).await? {
            SubscribeReply::Subscribed { body } => self.adopt(new, body).await,
            SubscribeReply::Denied { body } => Err(self.denied(&new.dataset, body)),
            SubscribeReply::Deleted { .. } => Err(FeedError::Proof {
                provider: new.dataset.owner(),
                sentence: "it answers a creation with a deletion".into(),
            }),
        }
    }

    fn denied(&self, dataset: &DatasetId, denied: Denied) -> FeedError {
        GatewayError::Denied { provider: dataset.owner(), denied: Box::new(denied), id: 0 }.into()
    }

    /// The clause to rely on: the one named, or that of the agreement named if it has only one.
    async fn clause(&self, new: &NewAsk) -> Result<String, FeedError> {
        if new.agreement.is_empty() {
            return Ok(new.clause.clone());
        }
        if !new.clause.is_empty() {
            return Ok(format!("{}/{}", new.agreement, new.clause));
        }
        let views = self.parts.setup.watch.agreements().await?;
        let all = open_clauses(&views, &self.parts.setup.cfg.agency, &new.dataset);
        let ids: Vec<_> =
            all.into_iter().filter(|(a, _)| *a == new.agreement).map(|(a, c)| format!("{a}/{c}")).collect();
        match ids.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(bad(
                "agreement",
                format!("{} has no clause in force that opens {} as a feed", new.agreement, new.dataset),
            )),
            more => Err(bad("clause", format!("name one of {}", more.join(", ")))),
        }
    }

    /// Takes a subscription that a provider says it keeps, once the ledger bears it out.
    pub async fn adopt(&self, new: NewAsk, said: Subscribed) -> Result<(Arc<Subscription>, bool), FeedError> {
        let provider = new.dataset.owner();
        self.borne_out(&new.dataset, &said)
            .await
            .map_err(|sentence| FeedError::Proof { provider: provider.clone(), sentence })?;
        let key = super::Key { provider, number: said.subscription };
        let (filter, fields) = (new.filter(), Value::from(new.fields).to_string());
        let created = Created {
            key: key.clone(),
            name: new.name,
            agreement: said.agreement,
            version: said.version,
            clause: said.clause,
            handle: said.handle,
            dataset: new.dataset,
            max_lag_ms: said.max_lag_ms,
            filter,
            fields,
            purpose: new.purpose,
            case: new.case,
            created_by: new.caller,
            created_ms: wall_ms(),
            ending: false,
        };
        self.replace(&created.name, &key).await?;
        let is_new = self.parts.shelf.create(created).await?;
        self.refresh().await?;
        let sub = self.at(&key).ok_or_else(|| FeedError::Unknown(key.number.to_string()))?;
        sub.change(|i| i.ending = false);
        let opened = async {
            loop {
                let news = sub.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if sub.with(|i| i.open.is_none() || i.counts.last_error_ms > 0) {
                    return;
                }
                news.await;
            }
        };
        // If the exchange is down it is opened later: the answer says so.
        let _ = tokio::time::timeout(OPENED, opened).await;
        info!(subscription = sub.id(), name = sub.name(), is_new, "subscription created");
        Ok((sub, is_new))
    }

    /// A provider that gives a name another number has ended what had it before.
    async fn replace(&self, name: &str, key: &super::Key) -> Result<(), FeedError> {
        let Some(old) = self.parts.shelf.named(name.to_owned()).await?.filter(|old| old.key != *key) else {
            return Ok(());
        };
        let (provider, subscription) = (old.key.provider.clone(), old.key.number);
        if let Err(e) = ask(&self.parts.setup.nats, &ExchangeCommand::Close { provider, subscription }).await {
            warn!(name, subscription, error = %e, "what had this name before was not closed at the exchange");
        }
        match self.at(&old.key) {
            Some(sub) => self.forget(&sub).await,
            None => Ok(self.parts.shelf.forget(&old.key).await?),
        }
    }

    /// The own node may be a block behind the provider's.
    async fn borne_out(&self, dataset: &DatasetId, said: &Subscribed) -> Result<(), String> {
        let until = tokio::time::Instant::now() + LAG;
        loop {
            let views = self.parts.setup.watch.agreements().await.map_err(|e| e.to_string())?;
            let found = bears_out(&views, &self.parts.setup.cfg.agency, dataset, said);
            let height = self.parts.setup.watch.now().map_or(0, |n| n.height);
            if found.is_ok() || tokio::time::Instant::now() >= until {
                return found;
            }
            self.parts.setup.watch.reach(height + 1, Duration::from_secs(1)).await;
        }
    }

    /// Ends a created subscription: at its provider, at the exchange, here. Each step can be repeated.
    pub async fn delete(&self, gateway: &Gateway, sub: &Subscription, by: Ask) -> Result<(), FeedError> {
        let Some(created) = sub.created.clone() else {
            return Err(FeedError::Default(sub.id(), sub.terms().agreement.clone()));
        };
        self.parts.shelf.ending(&sub.key).await?;
        sub.change(|i| i.ending = true);
        let command = SubscribeCommand::Delete { subscription: sub.key.number };
        let clause = format!("{}/{}", created.agreement, created.clause);
        let signed =
            Ask { dataset: created.dataset.clone(), purpose: created.purpose, case: created.case, clause, ..by };
        match gateway.subscribe(&signed, &command).await? {
            SubscribeReply::Deleted { subscription } if subscription == sub.key.number => {}
            SubscribeReply::Denied { body } if self.is_over(sub, &body) => {
                info!(subscription = sub.id(), reason = body.reason, "nothing is left of it at its provider");
            }
            SubscribeReply::Denied { body } => return Err(self.denied(&created.dataset, body)),
            _ => {
                let sentence = "it does not confirm the deletion".to_owned();
                return Err(FeedError::Proof { provider: sub.key.provider.clone(), sentence });
            }
        }
        let (provider, subscription) = (sub.key.provider.clone(), sub.key.number);
        match ask(&self.parts.setup.nats, &ExchangeCommand::Close { provider, subscription }).await {
            Ok(()) => {}
            // It knows of none, so there is none.
            Err(AskError::Refused { code, detail }) if code != "unavailable" => {
                warn!(subscription = sub.id(), code, detail, "closed without the exchange");
            }
            Err(e) => return Err(FeedError::Exchange(e.to_string())),
        }
        self.forget(sub).await
    }

    /// Forgets a subscription here.
    pub async fn forget(&self, sub: &Subscription) -> Result<(), FeedError> {
        let _one = self.parts.refreshing.lock().await;
        self.parts.shelf.forget(&sub.key).await?;
        self.parts.all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&sub.key);
        sub.change(|i| {
            i.gone = true;
            i.buffer.clear();
        });
        info!(subscription = sub.id(), "subscription deleted");
        Ok(())
    }

    /// Whether a provider that does not confirm a deletion has nothing to delete.
    fn is_over(&self, sub: &Subscription, denied: &Denied) -> bool {
        let ended = matches!(sub.terms().status, Status::Revoked | Status::Superseded);
        denied.retry == 0 && (ended || denied.reason == "unknown-subscription")
    }
}
