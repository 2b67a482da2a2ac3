//! Listens for calls of consumers: each is verified by a task of its own, outside the loop. Queries go to the loop,
//! commands about subscriptions to the feeds.

use super::HostError;
use super::calls::{Sessions, admit};
use super::feed::{Asked, Feeds};
use super::fetch::Fetcher;
use super::job::Job;
use super::lead::Lead;
use super::query_loop::{Host, Message};
use crate::config::NodeConfig;
use concordat_protocol::cbor::{self, Canon};
use concordat_protocol::session::QueryReply;
use concordat_protocol::subscribe::{SUBSCRIBE_TOKEN, SubscribeReply};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// What answering a call takes.
#[derive(Clone)]
pub(super) struct Listener {
    cfg: Arc<NodeConfig>,
    nats: async_nats::Client,
    fetcher: Arc<Fetcher>,
    feeds: Arc<Feeds>,
    sessions: Arc<Sessions>,
    messages: mpsc::Sender<Message>,
    lead: Arc<Lead>,
}

impl Listener {
    /// A listener for a host and its loop.
    pub(super) fn new(host: &Host, sessions: &Arc<Sessions>, messages: &mpsc::Sender<Message>) -> Self {
        Self {
            cfg: host.cfg.clone(),
            nats: host.nats.clone(),
            fetcher: host.fetcher.clone(),
            feeds: host.feeds.clone(),
            sessions: sessions.clone(),
            messages: messages.clone(),
            lead: host.lead.clone(),
        }
    }

    /// Listens from now on, in a task of its own.
    pub(super) async fn listen(self) -> Result<(), HostError> {
        let subject = format!("q.*.{}.>", self.cfg.agency.account());
        // No group: the server would hand calls to a former executor that stands still. It gets them too, and answers none.
        let subscribed = self.nats.subscribe(subject).await;
        let mut calls = subscribed.map_err(|e| HostError::Nats(e.to_string()))?;
        tokio::spawn(async move {
            while let Some(message) = calls.next().await {
                let Some(reply) = message.reply.clone().filter(|_| self.lead.holds()) else { continue };
                let (this, arrived) = (self.clone(), Instant::now());
                tokio::spawn(async move { this.take(message, reply, arrived).await });
            }
        });
        Ok(())
    }

    async fn take(&self, message: async_nats::Message, reply: async_nats::Subject, arrived: Instant) {
        let mut tokens = message.subject.split('.');
        let via = tokens.nth(1).unwrap_or_default().to_owned();
        let command = tokens.next_back() == Some(SUBSCRIBE_TOKEN);
        let cfg = &self.cfg;
        match admit(&message.payload, &via, &cfg.chain, &cfg.agency, &self.sessions, &self.fetcher).await {
            Ok((job, request_id)) if command => {
                info!(request_id, consumer = %job.consumer, "subscription command");
                answer_to(&self.nats, &self.lead, reply, &self.command(job).await).await;
            }
            Ok((job, request_id)) => {
                let (session, n) = (job.call.request.session, job.call.request.n);
                info!(request_id, session, n, consumer = %job.consumer, "query");
                let _ = self.messages.send(Message::Call(Box::new(job), reply, arrived)).await;
            }
            Err(body) => {
                warn!(via, reason = body.reason, detail = body.detail, "call not admitted");
                if command {
                    answer_to(&self.nats, &self.lead, reply, &SubscribeReply::Denied { body }).await;
                } else {
                    answer_to(&self.nats, &self.lead, reply, &QueryReply::Denied { body }).await;
                }
            }
        }
    }

    async fn command(&self, job: Job) -> SubscribeReply {
        let (request, session_expires_ms) = (job.call.request, job.call.session_expires_ms);
        let asked = Asked { consumer: job.consumer, request, session_expires_ms };
        self.feeds.command(&asked, &job.query).await
    }
}

/// Sends an answer; a lost one is asked for again. Who is not at work any more sends none.
pub(super) async fn answer_to<T: Canon>(
    nats: &async_nats::Client,
    lead: &Lead,
    subject: async_nats::Subject,
    reply: &T,
) {
    if !lead.holds() {
        return warn!("an answer is not sent: another executor may be at work");
    }
    if let Err(e) = nats.publish(subject, cbor::encode(reply).into()).await {
        warn!(error = %e, "an answer could not be sent: the consumer asks again");
    }
}
