//! What people of this agency are told without asking: approvals that wait for one of its roles, agreements that expire
//! soon, reviews that are due, overrides and unfinished writes at this provider. Listed by `GET /v1/notices`, and sent by webhook and mail where
//! `notices:` of `node.yaml` names them.

mod config;
mod mail;
mod post;
mod store;

pub use config::{MailConfig, NoticesConfig, WebhookConfig};
pub use mail::{MailError, Mailer};
pub use post::{PostError, Webhook, signature};
pub(crate) use store::TABLES;
pub use store::{Channel, Outbox, Waiting};

use crate::config::NodeConfig;
use crate::host::notices::Notices as Overrides;
use crate::host::unsettled::Unsettled;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::store::{Store, StoreError};
use concordat_executor::limits::OUTCOME_WITHIN;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::node::{AgreementView, ReviewDue};
use concordat_protocol::terms::{Effect, Status, Terms};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// Newest overrides that are told.
const OVERRIDES: u32 = 200;

/// Something that people are told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Names it for ever: what has this name already is not told again.
    pub id: String,
    /// `approval`, `expires`, `review`, `break-glass` or `write`.
    pub kind: &'static str,
    /// One sentence.
    pub text: String,
    /// By when something should be done, ledger time in milliseconds.
    pub due_ms: Option<u64>,
    /// What else is known.
    pub about: Value,
}

impl Notice {
    /// For the API and the webhook.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = json!({"id": self.id, "kind": self.kind, "text": self.text, "due_ms": self.due_ms});
        if let (Some(out), Some(about)) = (out.as_object_mut(), self.about.as_object()) {
            out.extend(about.clone());
        }
        out
    }
}

fn when(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |t| t.to_string())
}

/// What the ledger's agreements mean for an agency at a ledger time. `within_ms`: how long before an end it is told.
#[must_use]
pub fn of_agreements(agency: &AgencyId, views: &[AgreementView], now_ms: u64, within_ms: u64) -> Vec<Notice> {
    let mut all = Vec::new();
    for v in views {
        let Ok(terms) = cbor::decode::<Terms>(&v.terms) else { continue };
        let roles = match agency {
            a if *a == terms.assigner => &terms.assigner_roles,
            a if Some(a) == terms.assignee.as_ref() => &terms.assignee_roles,
            _ => continue,
        };
        all.extend(approvals(agency, v, roles, now_ms));
        all.extend(expiry(v, &terms, now_ms, within_ms));
    }
    all
}

/// The roles of this agency whose approval is missing.
fn approvals(agency: &AgencyId, v: &AgreementView, roles: &[String], now_ms: u64) -> Vec<Notice> {
    // A resumption waits once somebody began it.
    let waits = match v.status {
        Status::Proposed => v.expires_ms > now_ms,
        Status::Suspended => !v.approvals.is_empty(),
        _ => false,
    };
    let given = |role: &String| v.approvals.iter().any(|a| a.agency == *agency && a.role == *role);
    let missing = roles.iter().filter(|r| waits && !given(r));
    let what = if v.status == Status::Proposed { "approve" } else { "resume" };
    let due_ms = (v.status == Status::Proposed).then_some(v.expires_ms);
    let notice = |role: &String| Notice {
        id: format!("approval/{}/{}/{}/{role}", v.agreement, v.version, v.revision),
        kind: "approval",
        text: format!(
            "{} version {} waits for {role} of {}: read it, then `concordat agreement {what} {} --role {role}`, or reject it",
            v.agreement,
            v.version,
            agency.org(),
            v.agreement
        ),
        due_ms,
        about: json!({"agreement": v.agreement, "version": v.version, "role": role}),
    };
    missing.map(notice).collect()
}

/// The end of the last clause that grants something.
fn expiry(v: &AgreementView, terms: &Terms, now_ms: u64, within_ms: u64) -> Option<Notice> {
    let grants = terms.clauses.iter().filter(|c| c.effect != Effect::Prohibit);
    let until_ms = grants.map(|c| c.until_ms).max()?;
    let soon = until_ms > now_ms && until_ms - now_ms <= within_ms;
    (v.status == Status::Active && soon).then(|| Notice {
        id: format!("expires/{}/{}/{until_ms}", v.agreement, v.version),
        kind: "expires",
        text: format!("{} version {} ends at {}: renew it, or let it end", v.agreement, v.version, when(until_ms)),
        due_ms: Some(until_ms),
        about: json!({"agreement": v.agreement, "version": v.version}),
    })
}

/// Reviews that are due under agreements of the agency.
#[must_use]
pub fn of_reviews(agency: &AgencyId, due: &[ReviewDue], views: &[AgreementView]) -> Vec<Notice> {
    let own = due.iter().filter(|d| crate::overrides::is_party(agency, d, views));
    let notice = |d: &ReviewDue| {
        let op = OpRef(d.reference);
        Notice {
            id: format!("review/{op}"),
            kind: "review",
            text: format!(
                "the override {op} under {}/{} is to be reviewed before {}; after that its clause refuses",
                d.agreement,
                d.clause,
                when(d.due_ms)
            ),
            due_ms: Some(d.due_ms),
            about: json!({"agreement": d.agreement, "clause": d.clause, "operation": op.to_string()}),
        }
    };
    own.map(notice).collect()
}

/// Overrides at this provider that are on the ledger.
fn of_overrides(found: &[crate::host::notices::Notice]) -> Vec<Notice> {
    let notice = |n: &crate::host::notices::Notice| {
        let op = OpRef(n.op?);
        let text = format!("somebody overrode (break-glass) under {}: {op}", n.decision["agreement"]);
        let mut about = n.to_json();
        about["operation"] = json!(op.to_string());
        Some(Notice { id: format!("break-glass/{op}"), kind: "break-glass", text, due_ms: None, about })
    };
    found.iter().filter_map(notice).collect()
}

/// Writes at this provider whose intent was accepted long ago and that have no outcome: (its index, its tick).
#[must_use]
pub fn of_writes(open: &[(u64, u64)], now_ms: u64) -> Vec<Notice> {
    let overdue = |at_ms: u64| u128::from(now_ms.saturating_sub(at_ms)) > OUTCOME_WITHIN.as_millis();
    let notice = |(index, at_ms): &(u64, u64)| {
        let op = OpRef(*index);
        Notice {
            id: format!("write/{op}"),
            kind: "write",
            text: format!(
                "the write {op}, accepted at {}, has no outcome yet: look at the executor and its store; it is carried out \
                 once, or declared failed, when both are back",
                when(*at_ms)
            ),
            due_ms: None,
            about: json!({"operation": op.to_string()}),
        }
    };
    open.iter().filter(|(_, at_ms)| overdue(*at_ms)).map(notice).collect()
}

/// What notices are gathered from.
#[derive(Clone)]
pub struct Sources {
    /// The agency.
    pub agency: AgencyId,
    /// The own node, a connection of its own.
    pub node: NodeClient,
    /// Overrides at this provider.
    pub overrides: Overrides,
    /// Writes at this provider.
    pub writes: Unsettled,
    /// How long before its end an agreement's expiry is told, milliseconds.
    pub within_ms: u64,
}

impl Sources {
    /// Of a node.
    #[must_use]
    pub fn of(cfg: &NodeConfig) -> Self {
        let config = cfg.notices.clone().unwrap_or_default();
        Self {
            agency: cfg.agency.clone(),
            node: NodeClient::new(cfg.node_socket()),
            overrides: Overrides::new(cfg.releases()),
            writes: Unsettled::new(cfg.releases()),
            within_ms: config.expires_within_ms(),
        }
    }

    /// What is to be told now, but for overrides.
    ///
    /// # Errors
    /// The own node does not answer.
    pub async fn current(&self) -> Result<Vec<Notice>, LedgerError> {
        let (views, head) = (self.node.agreements().await?, self.node.head().await?);
        let mut all = of_agreements(&self.agency, &views, head.tick_ms, self.within_ms);
        all.extend(of_reviews(&self.agency, &self.node.reviews().await?, &views));
        all.extend(self.overdue_writes(head.tick_ms).await.unwrap_or_default());
        Ok(all)
    }

    /// Writes that have been without an outcome for too long at a ledger time; none where the store does not say.
    pub async fn overdue_writes(&self, now_ms: u64) -> Option<Vec<Notice>> {
        let writes = self.writes.clone();
        let open = match tokio::task::spawn_blocking(move || writes.intents()).await {
            Ok(Ok(open)) => open,
            other => {
                warn!(?other, "unfinished writes cannot be told: the release store does not answer");
                return None;
            }
        };
        let overdue = of_writes(&open, now_ms);
        if let Some(first) = overdue.first() {
            warn!(writes = overdue.len(), first = first.id, "writes have no outcome");
        }
        Some(overdue)
    }

    async fn all(&self) -> Result<Vec<Notice>, LedgerError> {
        let mut all = self.current().await?;
        let overrides = self.overrides.clone();
        let found = tokio::task::spawn_blocking(move || overrides.newest(OVERRIDES)).await;
        match found {
            Ok(Ok(found)) => all.extend(of_overrides(&found)),
            other => warn!(?other, "overrides cannot be told: the release store does not answer"),
        }
        Ok(all)
    }
}

/// Milliseconds since 1970 by this machine's clock: for attempts, which no rule rests on.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sends notices for as long as the process runs.
pub struct Sender {
    sources: Sources,
    outbox: Outbox,
    channels: BTreeMap<Channel, Arc<dyn Deliver>>,
    every: Duration,
    failing: bool,
}

/// A way to tell somebody.
pub trait Deliver: Send + Sync {
    /// Tells one notice; an error is tried again later.
    fn deliver<'a>(&'a self, notice: &'a Value) -> futures::future::BoxFuture<'a, Result<(), String>>;
}

impl Sender {
    /// A sender of what `node.yaml` names; none where it names nothing.
    ///
    /// # Errors
    /// A secret that cannot be read, or an address that is none.
    pub fn of(cfg: &NodeConfig, store: &Store) -> Result<Option<Self>, crate::config::ConfigError> {
        let Some(config) = &cfg.notices else { return Ok(None) };
        let mut channels: BTreeMap<Channel, Arc<dyn Deliver>> = BTreeMap::new();
        if let Some(webhook) = &config.webhook {
            channels.insert(Channel::Webhook, Arc::new(Webhook::new(webhook, &cfg.dir)?));
        }
        if let Some(mail) = &config.mail {
            channels.insert(Channel::Mail, Arc::new(Mailer::new(mail, &cfg.agency, &cfg.dir)?));
        }
        let outbox = Outbox::new(store.clone(), config.retry_ms, config.attempts);
        let every = Duration::from_millis(config.every_ms);
        Ok((!channels.is_empty()).then(|| Self { sources: Sources::of(cfg), outbox, channels, every, failing: false }))
    }

    /// Gathers and sends, again and again.
    pub async fn run(mut self) {
        loop {
            match self.round(now_ms()).await {
                Ok(()) => self.failing = false,
                Err(e) if !self.failing => {
                    warn!(error = %e, "notices are not told now");
                    self.failing = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.every).await;
        }
    }

    /// Keeps what is new, then sends what is due.
    async fn round(&self, now_ms: u64) -> Result<(), String> {
        let found = self.sources.all().await.map_err(|e| e.to_string());
        let failed = |e: StoreError| e.to_string();
        for channel in self.channels.keys() {
            let found = found.as_ref().map_or(&[][..], Vec::as_slice);
            self.outbox.keep(*channel, found, now_ms).await.map_err(failed)?;
        }
        for waiting in self.outbox.due(now_ms).await.map_err(failed)? {
            let Some(channel) = self.channels.get(&waiting.channel) else { continue };
            let told = channel.deliver(&waiting.notice).await;
            match &told {
                Ok(()) => info!(id = waiting.id, channel = waiting.channel.word(), "notice told"),
                Err(e) => warn!(id = waiting.id, channel = waiting.channel.word(), error = %e, "notice not told"),
            }
            self.outbox.tried(&waiting, told.err(), now_ms).await.map_err(failed)?;
        }
        found.map(drop)
    }
}

#[cfg(test)]
mod tests;
