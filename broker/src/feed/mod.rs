//! Feeds, the consumer's side: deliveries are pulled from the exchange, checked, and handed on to applications, which
//! acknowledge them. Only then are they acknowledged upstream.
//!
//! A subscription comes with an agreement (the default one of a clause), or this agency created it. Each has a task of its
//! own: one whose application is dead, or whose provider sends nonsense, delays no other.

mod ask;
mod buffer;
mod check;
pub mod complaint;
mod create;
mod double;
mod duties;
mod error;
pub mod http;
mod look;
mod manage;
mod pull;
mod refused;
mod seek;
mod sse;
mod store;
mod subscription;
mod terms;
#[cfg(test)]
mod tests;
mod view;

use crate::config::NodeConfig;
use crate::gateway::watch::LedgerWatch;
use crate::host::policy::{Documents, load_documents};
use crate::keys::{KeyFileError, KeyFolder};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::streams::EXCHANGE_API;
use concordat_protocol::keys::KemKey;
use concordat_protocol::node::AgreementView;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

pub use buffer::{Acked, Buffer, Cursor, Held, Offer, Start};
pub use check::{Expected, FeedProofError, Message, messages, promise, read, unseal};
pub use create::NewAsk;
pub use duties::Altering;
pub use error::FeedError;
pub use refused::Refused;
pub use seek::SeekTo;
pub use store::{Created, Key};
pub use subscription::{Counts, Subscription};
pub use terms::FeedTerms;

use store::Shelf;

/// How often a reader that waits looks whether it may still read.
const LOOK: Duration = Duration::from_millis(500);

/// What the consumer's side needs.
pub struct FeedSetup {
    /// Configuration.
    pub cfg: Arc<NodeConfig>,
    /// What the own node says.
    pub watch: LedgerWatch,
    /// The own node, a connection of its own.
    pub node: crate::ledger::node_client::NodeClient,
    /// The streams, as the agency's own user.
    pub nats: async_nats::Client,
    /// The broker's store.
    pub store: Store,
    /// Metrics.
    pub metrics: Metrics,
    /// Where promises go that were not kept.
    pub complaints: tokio::sync::mpsc::Sender<complaint::Complaint>,
}

struct Parts {
    setup: FeedSetup,
    shelf: Shelf,
    kem: KemKey,
    js: async_nats::jetstream::Context,
    all: Mutex<BTreeMap<Key, Arc<Subscription>>>,
    /// One at a time makes subscriptions of what ledger and store say. This agency's documents, as they were read last:
    /// what a hash stands for never changes.
    refreshing: tokio::sync::Mutex<Documents>,
    /// A delivery waits for a document.
    lacking: AtomicBool,
    stopping: watch::Receiver<bool>,
}

impl Parts {
    /// Ledger time now, milliseconds: the newest tick and monotonic time since.
    fn now_ms(&self) -> u64 {
        let now = self.setup.watch.now();
        now.map_or(0, |n| n.tick_ms.saturating_add(n.at.elapsed().as_millis() as u64))
    }
}

/// A subscription's key and terms, and what was asked for where this agency created it.
type Wanted = (Key, FeedTerms, Option<Created>);

/// All subscriptions of this agency. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    parts: Arc<Parts>,
}

impl Subscriptions {
    /// Starts pulling for every subscription that the ledger's agreements give this agency, and for those that it
    /// created. Neither ledger nor streams need be up yet.
    pub fn start(setup: FeedSetup) -> Result<Self, KeyFileError> {
        let kem = KeyFolder::of(&setup.cfg).kem()?;
        let js = async_nats::jetstream::with_prefix(setup.nats.clone(), EXCHANGE_API);
        let shelf = Shelf::new(setup.store.clone());
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            crate::stop_signal().await;
            stop.send_replace(true);
            stop.closed().await;
        });
        let (all, refreshing, lacking) = (Mutex::default(), Default::default(), AtomicBool::new(false));
        let this = Self { parts: Arc::new(Parts { setup, shelf, kem, js, all, refreshing, lacking, stopping }) };
        tokio::spawn(this.clone().supervise());
        tokio::spawn(look::observe(this.clone()));
        Ok(this)
    }

    fn all(&self) -> Vec<Arc<Subscription>> {
        self.parts.all.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Newest ledger time, milliseconds.
    fn tick_ms(&self) -> u64 {
        self.parts.setup.watch.now().map_or(0, |n| n.tick_ms)
    }

    /// Deliveries that did not prove themselves, without their bytes: evidence against the provider.
    pub async fn refused(&self, sub: &Subscription) -> Result<Vec<Refused>, FeedError> {
        Ok(self.parts.shelf.all_refused(&sub.key).await?)
    }

    /// One of them with its bytes.
    pub async fn refused_one(&self, sub: &Subscription, n: u64) -> Result<Option<Refused>, FeedError> {
        Ok(self.parts.shelf.one_refused(&sub.key, n).await?)
    }

    fn at(&self, key: &Key) -> Option<Arc<Subscription>> {
        self.parts.all.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// A subscription by its id, by the name it was created with, or by its number where only one has it.
    pub fn get(&self, name: &str) -> Result<Arc<Subscription>, FeedError> {
        let all = self.all();
        let of = |fits: &dyn Fn(&Subscription) -> bool| {
            let mut found = all.iter().filter(|s| fits(s));
            found.next().filter(|_| found.next().is_none()).cloned()
        };
        let found = of(&|s| s.id() == name)
            .or_else(|| of(&|s| s.name() == Some(name)))
            .or_else(|| of(&|s| s.key.number.to_string() == name));
        found.ok_or_else(|| FeedError::Unknown(name.chars().take(80).collect()))
    }

    /// Follows the agreements for ever.
    async fn supervise(self) {
        let setup = &self.parts.setup;
        while let Err(e) = self.parts.shelf.prepare().await {
            warn!(error = %e, "feeds wait for the store");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let (mut height, mut rev, mut said) = (0, None, String::new());
        loop {
            setup.watch.reach(height + 1, Duration::from_secs(1)).await;
            let Some(now) = setup.watch.now() else { continue };
            height = now.height.max(height);
            if rev == Some(now.meta_rev) && !self.parts.lacking.swap(false, Ordering::Relaxed) {
                continue;
            }
            match self.refresh().await {
                Ok(()) => rev = Some(now.meta_rev),
                Err(e) => {
                    if said != e.to_string() {
                        said = e.to_string();
                        warn!(error = said, "subscriptions wait");
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// What agreements give, and what was created, with the terms of each.
    fn wanted(&self, views: &[AgreementView], created: &[Created], documents: &Documents) -> Vec<Wanted> {
        let cfg = &self.parts.setup.cfg;
        let mut wanted: Vec<Wanted> =
            terms::default_ones(views, cfg, documents).into_iter().map(|(key, terms)| (key, terms, None)).collect();
        for created in created {
            match terms::created_one(views, cfg, created, documents) {
                Some(terms) => wanted.push((created.key.clone(), terms, Some(created.clone()))),
                None => warn!(name = created.name, "no agreement on the ledger has this subscription's clause"),
            }
        }
        wanted
    }

    /// Makes a subscription of each clause that gives one, and of each that was created.
    async fn refresh(&self) -> Result<(), FeedError> {
        let mut documents = self.parts.refreshing.lock().await;
        let views = self.parts.setup.watch.agreements().await?;
        let created = self.parts.shelf.created().await?;
        let mut wanted = self.wanted(&views, &created, &documents);
        if wanted.iter().any(|(_, terms, _)| terms.expected.altering.lacks()) {
            let dir = self.parts.setup.cfg.dir.clone();
            documents.extend(tokio::task::spawn_blocking(move || load_documents(&dir)).await.unwrap_or_default());
            wanted = self.wanted(&views, &created, &documents);
        }
        for (key, terms, created) in wanted {
            if let Some(known) = self.at(&key) {
                known.take_terms(terms);
                continue;
            }
            let kept = self.parts.shelf.kept(&key).await?;
            let from = kept.as_ref().map_or(1, |k| k.acked.sub_seq + 1);
            info!(subscription = terms.id, agreement = terms.agreement, status = %terms.status, from, "subscription");
            if created.is_none() {
                self.parts.shelf.opened(&key, kept.as_ref().map(|k| k.acked).unwrap_or_default()).await?;
            }
            let made = Arc::new(Subscription::new(key.clone(), terms, created, kept.as_ref()));
            self.parts.all.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made.clone());
            tokio::spawn(pull::run(self.parts.clone(), made));
        }
        Ok(())
    }

    /// Refuses unless the clause holds now at this agency's own node, and nobody paused it.
    pub fn permitted(&self, sub: &Subscription) -> Result<(), FeedError> {
        let now = self.parts.setup.watch.fresh().map_err(FeedError::StaleLedger)?;
        sub.readable(now.tick_ms)
    }

    /// At most `max` messages after a place (by default after what is acknowledged). Waits up to `wait` for the first.
    pub async fn messages(
        &self,
        sub: &Subscription,
        after: Option<Cursor>,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Message>, FeedError> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let news = sub.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            self.permitted(sub)?;
            let found = sub.with(|i| {
                let found = i.buffer.after(after, max);
                i.counts.handed_on += found.len() as u64;
                found
            });
            let now = tokio::time::Instant::now();
            if !found.is_empty() || now >= until {
                let dataset = sub.terms().expected.dataset.to_string();
                self.parts.setup.metrics.feed_messages.with_label_values(&[&dataset]).inc_by(found.len() as u64);
                return Ok(found);
            }
            // The ledger may come to a standstill, or the clause to its end, without a word.
            let _ = tokio::time::timeout_at(until.min(now + LOOK), news).await;
        }
    }

    /// Acknowledges everything up to and with a place: durable here first, then upstream.
    pub async fn ack(&self, sub: &Subscription, cursor: Cursor) -> Result<Acked, FeedError> {
        let _one = sub.acking.lock().await;
        let found = sub.with(|i| i.buffer.ack_to(cursor));
        let (to, place) = found.ok_or_else(|| FeedError::Cursor(cursor.to_string()))?;
        self.parts.shelf.acked(&sub.key, to, place).await?;
        let (done, acked) = sub.with(|i| {
            i.seek = None;
            (i.buffer.ack(to), i.buffer.acked())
        });
        for held in done {
            // A lost acknowledgement brings the delivery again, and it is then known as done.
            if let Err(e) = held.ack.ack().await {
                warn!(subscription = sub.id(), error = %e, "acknowledgement not sent");
            }
        }
        sub.room.notify_one();
        Ok(acked)
    }
}
