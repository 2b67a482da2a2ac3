//! The delivering side of one subscription. Nothing is appended that the newest view does not permit.

use super::View;
use super::append::Appender;
use super::cache::Entry;
use super::error::{FeedError, streams};
use super::evidence::seal_ms;
use super::item::{Maker, Sealer};
use super::redaction::Lens;
use super::source::{Behind, Source};
use super::store::{NewItem, Open, Round, Standing, Unsent};
use super::subscription::{End, RETRY, Shared};
use super::supervise::Delivery;
use concordat_executor::policies::ask::Decision;
use concordat_executor::policies::time::utc_text;
use concordat_executor::policies::view::Pseudonyms;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgreementId;
use concordat_protocol::keys::KeyId;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Longest wait for room in the consumer's stream.
const FULL_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a message that is held back, before the ledger's time is asked again.
const HOLD_MAX: Duration = Duration::from_secs(5);

/// What the newest view permits.
pub(super) struct Permit {
    pub(super) lens: Arc<Lens>,
    now_ms: u64,
}

/// Whether and how a subscription may be delivered to now.
pub(super) struct Guard {
    shared: Arc<Shared>,
    delivery: Delivery,
    view: watch::Receiver<View>,
    /// The lens of the clause it was made for: agreement, version, position.
    lens: Option<((AgreementId, u64, usize), Arc<Lens>)>,
    /// Whether the clause changed since the store was told.
    moved: bool,
}

impl Guard {
    /// Asked before every append, so that a revocation stops it at once.
    pub(super) fn permit(&mut self) -> Result<Permit, FeedError> {
        if let Some(end) = *self.shared.ended.borrow() {
            return Err(FeedError::Ended(end.why()));
        }
        let view = self.view.borrow().clone();
        let paused = |why: String| Err(FeedError::Paused(why));
        if !self.shared.setup.lead.holds() {
            return paused("another executor is at work".into());
        }
        if self.view.has_changed().is_err() {
            return paused("the host stops".into());
        }
        let Some(now_ms) = view.now_ms() else { return paused("the ledger stands still".into()) };
        let d = &self.delivery;
        let decision = view.policies.set(&d.doc.id, &d.consumer).decide(&d.ask(now_ms));
        let Decision::Permit(grant) = &decision else {
            let denial = decision.denial();
            return paused(
                denial.map_or_else(|| "not permitted".into(), |d| format!("{}: {}", d.reason.word(), d.text)),
            );
        };
        let (agreement, version) = (&grant.clause.agreement, grant.clause.version);
        let Some(handle) = view.policies.handle(agreement, version, grant.index) else {
            return paused("the clause has no handle on the ledger".into());
        };
        let mut clause = self.shared.clause();
        if d.pinned && handle != clause.handle {
            return paused(End::Superseded.why().into());
        }
        if view.policies.bounded_suspended(agreement, version) {
            return paused("bounded evidence is suspended for this agreement: both sides must resume it".into());
        }
        let key = (agreement.clone(), version, grant.index);
        let lens = match &self.lens {
            Some((of, lens)) if *of == key => lens.clone(),
            _ => match d.lens(grant) {
                Ok(lens) => self.lens.insert((key, Arc::new(lens))).1.clone(),
                Err(why) => return paused(why),
            },
        };
        let dataset = d.doc.id.as_str();
        if handle != clause.handle || lens.max_lag_ms != clause.max_lag_ms || clause.dataset != dataset {
            (clause.handle, clause.rows_hash, clause.max_lag_ms) = (handle, grant.rows_hash, lens.max_lag_ms);
            clause.dataset = dataset.to_owned();
            (clause.sentence, clause.seal_ms) = (grant.clause.text.clone(), seal_ms(&grant.duties));
            self.shared.set_clause(clause);
            self.moved = true;
        }
        let lag_ms = self.shared.unanchored(|u| u.lag_ms(now_ms));
        if lens.max_lag_ms > 0 && lag_ms > lens.max_lag_ms {
            let (is, agreed) = (lag_ms / 1_000, lens.max_lag_ms / 1_000);
            return paused(format!("evidence lags behind by {is} s, {agreed} s are agreed"));
        }
        Ok(Permit { lens, now_ms })
    }

    /// Whether items made under another version of the clause must show what the newest one opens.
    pub(super) fn fits(&self, item: &Unsent, permit: &Permit) -> bool {
        self.delivery.pinned || item.lens == permit.lens.id()
    }
}

/// What was made of envelopes.
struct Items {
    items: Vec<NewItem>,
    /// Envelopes that were dealt with.
    taken: usize,
    /// Until when the next one is held back, ledger time in milliseconds.
    held_until: Option<u64>,
}

/// The delivering side.
pub(super) struct Work {
    shared: Arc<Shared>,
    guard: Guard,
    source: Arc<Source>,
    appender: Appender,
    stream_seq: u64,
    last_sub_seq: u64,
    /// The consumer's key and the governance it was read at.
    sealer: Option<(KeyId, u64, Sealer)>,
}

impl Work {
    pub(super) fn new(shared: Arc<Shared>, delivery: Delivery, source: Arc<Source>, standing: Standing) -> Self {
        let appender = Appender::new(shared.clone(), &delivery.consumer, standing.unsent);
        let view = shared.setup.view.clone();
        Self {
            guard: Guard { shared: shared.clone(), delivery, view, lens: None, moved: false },
            shared,
            source,
            appender,
            stream_seq: standing.stream_seq,
            last_sub_seq: standing.last_sub_seq,
            sealer: None,
        }
    }

    /// Delivers until the subscription ends or the host stops.
    pub(super) async fn run(mut self) {
        let (mut said, mut full) = (String::new(), RETRY);
        let mut ended = self.shared.ended.subscribe();
        loop {
            let Err(e) = self.deliver(&mut full).await;
            let why = e.to_string();
            if said != why {
                warn!(subscription = self.shared.number, error = why, "delivery stops");
                said = why.clone();
            }
            let (state, wait) = match &e {
                FeedError::Ended(_) => return,
                FeedError::Paused(_) => ("paused", RETRY),
                FeedError::Full(_) => ("full", full),
                _ => ("waiting", RETRY),
            };
            self.shared.tell(|p| (p.state, p.why) = (state, why));
            match e {
                FeedError::Paused(_) => {
                    let changed = tokio::select! {
                        changed = tokio::time::timeout(wait, self.guard.view.changed()) => changed,
                        _ = ended.changed() => continue,
                    };
                    if changed.is_ok_and(|c| c.is_err()) {
                        return;
                    }
                    continue;
                }
                FeedError::Full(_) => full = (full * 2).min(FULL_MAX),
                // What was sealed and not kept must not be sealed again under the same number.
                _ => self.sealer = None,
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = ended.changed() => {}
            }
            if matches!(e, FeedError::Store(_)) {
                self.reload().await;
            }
        }
    }

    /// Nobody knows what a failed write left: the store says it.
    async fn reload(&mut self) {
        let anchored = self.shared.progress().anchored_sub_seq;
        match self.shared.reload(anchored).await {
            Ok(standing) => {
                (self.stream_seq, self.last_sub_seq) = (standing.stream_seq, standing.last_sub_seq);
                self.appender.unsent = standing.unsent.into();
            }
            Err(e) => warn!(subscription = self.shared.number, error = %e, "the store cannot be read"),
        }
    }

    async fn deliver(&mut self, full: &mut Duration) -> Result<Infallible, FeedError> {
        self.guard.permit()?;
        self.append().await?;
        *full = RETRY;
        info!(subscription = self.shared.number, from = self.stream_seq + 1, "delivering");
        let mut behind: Option<Behind> = None;
        let mut ended = self.shared.ended.subscribe();
        loop {
            self.shared.tell(|p| (p.state, p.why) = ("delivering", String::new()));
            let view = &mut self.guard.view;
            let entries = tokio::select! {
                entries = self.source.next(self.stream_seq + 1, &mut behind) => entries?,
                changed = view.changed() => {
                    changed.map_err(streams)?;
                    self.guard.permit()?;
                    continue;
                }
                _ = ended.changed() => {
                    self.guard.permit()?;
                    continue;
                }
            };
            let mut rest = &entries[..];
            while !rest.is_empty() {
                self.refresh_key().await?;
                let (taken, held_until) = self.make(rest).await?;
                let reached = self.stream_seq;
                self.append().await?;
                if self.stream_seq != reached {
                    // Some of it was withdrawn: it is read again.
                    break;
                }
                rest = rest.get(taken..).unwrap_or_default();
                if let Some(due_ms) = held_until {
                    self.hold(due_ms).await?;
                }
            }
        }
    }

    /// Waits until what the duty delay holds back is of age, or the clause is another. Nothing but the message's own time
    /// says when that is, so a restart changes nothing: it is read again from its place.
    async fn hold(&mut self, due_ms: u64) -> Result<(), FeedError> {
        let lens = self.guard.permit()?.lens.id();
        let until = utc_text(due_ms).unwrap_or_else(|| "for ever".to_owned());
        let why = format!("the duty delay holds the next messages back: {until}");
        self.shared.tell(|p| (p.state, p.why) = ("held", why));
        let mut ended = self.shared.ended.subscribe();
        loop {
            let permit = self.guard.permit()?;
            let left = due_ms.saturating_sub(permit.now_ms);
            if left == 0 || permit.lens.id() != lens {
                self.shared.tell(|p| (p.state, p.why) = ("delivering", String::new()));
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left).min(HOLD_MAX)) => {}
                changed = self.guard.view.changed() => changed.map_err(streams)?,
                _ = ended.changed() => {}
            }
        }
    }

    /// The consumer's sealing key.
    async fn refresh_key(&mut self) -> Result<(), FeedError> {
        let (setup, consumer) = (&self.shared.setup, &self.guard.delivery.consumer);
        let rev = self.guard.view.borrow().meta_rev;
        if self.sealer.as_ref().is_some_and(|(_, at, _)| *at == rev) {
            return Ok(());
        }
        let kem = setup.node.active_key(consumer, KeyRole::Kem, None).await?;
        let kem = kem.ok_or_else(|| FeedError::NoKem(consumer.to_string()))?;
        match &mut self.sealer {
            Some((id, at, _)) if *id == kem.key.key_id() => *at = rev,
            _ => {
                let sealer = Sealer::new(&kem.key, &setup.cfg.chain, self.shared.number, self.last_sub_seq)?;
                self.sealer = Some((kem.key.key_id(), rev, sealer));
            }
        }
        Ok(())
    }

    /// Redacts, promises, seals and keeps; only then may anything be appended. Returns how many envelopes it dealt with,
    /// and until when the one behind them is held back, if it is.
    async fn make(&mut self, entries: &[Arc<Entry>]) -> Result<(usize, Option<u64>), FeedError> {
        let permit = self.guard.permit()?;
        let Items { items, taken, held_until } = tokio::task::block_in_place(|| self.items(entries, &permit))?;
        let last = taken.checked_sub(1).and_then(|i| entries.get(i));
        let Some(last_place) = last.map(|e| e.place) else { return Ok((0, held_until)) };
        let last_sub_seq = self.last_sub_seq + items.len() as u64;
        let clause = if self.guard.moved {
            let body = serde_json::to_string(&self.shared.clause());
            Some(body.map_err(|e| FeedError::Library(e.to_string()))?)
        } else {
            None
        };
        let round = Round { items, stream_seq: last_place, last_sub_seq, clause };
        self.shared.store.keep(self.shared.number, round.clone()).await?;
        self.guard.moved = false;
        (self.stream_seq, self.last_sub_seq) = (last_place, last_sub_seq);
        let messages: u64 = round.items.iter().map(|i| i.messages).sum();
        let anchors = permit.lens.max_lag_ms > 0;
        for i in round.items {
            let (sub_seq, root, delivered_ms, messages) = (i.sub_seq, i.root, i.delivered_ms, i.messages);
            if anchors {
                self.shared.unanchored(|u| u.push(Open { sub_seq, root, delivered_ms, messages }));
            }
            self.appender.unsent.push_back(Unsent { sub_seq, place: i.place, lens: i.lens, bytes: i.bytes });
        }
        let unsent = self.appender.unsent.len();
        self.shared.tell(|p| {
            (p.stream_seq, p.last_sub_seq, p.unsent) = (last_place, last_sub_seq, unsent);
            p.delivered_messages += messages;
        });
        Ok((taken, held_until))
    }

    /// Items of envelopes in their order, up to the first that is held back.
    fn items(&mut self, entries: &[Arc<Entry>], permit: &Permit) -> Result<Items, FeedError> {
        let setup = self.shared.setup.clone();
        let maker = Maker {
            chain: &setup.cfg.chain,
            provider: &setup.cfg.agency,
            subscription: self.shared.number,
            max_lag_ms: permit.lens.max_lag_ms,
            key: &setup.release_key,
        };
        let Some((_, _, sealer)) = self.sealer.as_mut() else {
            return Err(FeedError::NoKem(self.guard.delivery.consumer.to_string()));
        };
        let dataset = self.guard.delivery.doc.id.clone();
        let (mut items, lens): (Vec<NewItem>, Hash) = (Vec::with_capacity(entries.len()), permit.lens.id());
        let key = setup.people.pseudonym_key();
        let with = Pseudonyms { key: &key, at_ms: permit.now_ms };
        for (taken, entry) in entries.iter().enumerate() {
            let Some(shown) = entry.shown(&permit.lens, with) else { continue };
            if shown.due_ms > permit.now_ms {
                return Ok(Items { items, taken, held_until: Some(shown.due_ms) });
            }
            let sub_seq = self.last_sub_seq + items.len() as u64 + 1;
            let item = maker.seal(&shown.plain, shown.root, sub_seq, permit.now_ms, sealer)?;
            items.push(NewItem {
                sub_seq,
                place: entry.place,
                lens,
                root: shown.root,
                delivered_ms: permit.now_ms,
                messages: shown.messages,
                bytes: cbor::encode(&item).into(),
                subjects: setup.people.ids(&dataset, &shown.subjects).concat(),
            });
        }
        Ok(Items { items, taken: entries.len(), held_until: None })
    }

    /// Appends what waits. Items that show more than the clause opens now are made anew under new numbers.
    async fn append(&mut self) -> Result<(), FeedError> {
        let result = self.appender.append(&mut self.guard).await;
        let unsent = self.appender.unsent.len();
        self.shared.tell(|p| p.unsent = unsent);
        let Some(first) = result? else { return Ok(()) };
        let (from, back) = (first.sub_seq, first.place.saturating_sub(1));
        warn!(subscription = self.shared.number, from, "the clause opens less now: items that wait are made anew");
        self.shared.store.withdraw(self.shared.number, from, back).await?;
        self.appender.unsent.clear();
        self.stream_seq = back;
        Ok(())
    }
}
