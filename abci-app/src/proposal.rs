//! Proposals: what a block holds and in which order (PROTOCOL 2 and 3).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::limits::TICK_AHEAD_MS;

use crate::state::State;
use crate::state::acts::next_counter;
use crate::state::checkpoints::cosigning_key;
use crate::state::rows::writer_of;
use crate::tx::{ActTx, BatchTx, Content, Parsed, Place, block_size, tick_tx};

/// Most cosignatures that a proposal of this node holds.
pub const COSIGNS_MAX: usize = 16;

/// Whether a transaction may stand in a block on this state: it can be read, is for this chain, and a key that is
/// registered for its author signed it. A key that was revoked or replaced meanwhile still lets it in, to be refused
/// there: inclusion is the only way out of every mempool.
///
/// # Errors
/// The code of the first rule that is broken.
pub fn admissible(state: &State, tx: &Parsed) -> Result<(), u16> {
    match &tx.content {
        Content::Tick(_) => Err(codes::UNKNOWN_KIND),
        Content::Bad(code) => Err(*code),
        Content::Act(a) => {
            let key = state.tables.keys.get(&a.act.key_id).ok_or(codes::UNKNOWN_KEY)?;
            if a.act.chain != state.head.chain {
                return Err(codes::WRONG_CHAIN);
            }
            if key.agency != a.act.agency {
                return Err(codes::WRONG_AGENCY);
            }
            if tx.signed_by(&a.act.key_id, &key.key) { Ok(()) } else { Err(codes::BAD_SIGNATURE) }
        }
        Content::Cosign(c) => {
            if c.cosign.checkpoint.chain != state.head.chain {
                return Err(codes::WRONG_CHAIN);
            }
            cosigning_key(state.tables.keys.iter(), tx, &c.cosign.agency).map(drop)
        }
        Content::Batch(b) => {
            if b.batch.chain != state.head.chain {
                return Err(codes::WRONG_CHAIN);
            }
            let row = state.tables.writers.get(&b.batch.writer).ok_or(codes::UNKNOWN_WRITER)?;
            let current = state.tables.keys.get(&row.key_id).ok_or(codes::UNKNOWN_KEY)?;
            if tx.signed_by(&row.key_id, &current.key) || signed_by_former_key(state, tx, &b.batch.writer) {
                Ok(())
            } else {
                Err(codes::BAD_SIGNATURE)
            }
        }
    }
}

fn signed_by_former_key(state: &State, tx: &Parsed, writer: &WriterId) -> bool {
    let agency = writer.agency();
    let mut keys = state.keys_of(&agency).filter(|(_, k)| k.role == KeyRole::Writer);
    keys.any(|(id, k)| writer_of(k).as_ref() == Some(writer) && tx.signed_by(id, &k.key))
}

/// Whether a proposal keeps the rules: the tick first and alone, each transaction admissible, strictly in order.
///
/// # Errors
/// A sentence for the log.
pub fn check(state: &State, txs: &[Arc<Parsed>], now_ms: u64) -> Result<(), String> {
    let previous = state.head.tick_ms;
    let Some(Content::Tick(ms)) = txs.first().map(|tx| &tx.content) else {
        return Err("the first transaction is not a tick".into());
    };
    if *ms <= previous {
        return Err(format!("tick {ms} is not after the previous one, {previous}"));
    }
    if *ms > now_ms.saturating_add(TICK_AHEAD_MS).max(previous.saturating_add(1)) {
        return Err(format!("tick {ms} is more than {TICK_AHEAD_MS} ms ahead of this node's clock, {now_ms}"));
    }
    let mut last: Option<Place> = None;
    for (i, tx) in txs.iter().enumerate() {
        if i > 0 {
            admissible(state, tx).map_err(|code| format!("transaction {i}: {} ({code})", codes::text(code)))?;
        }
        let Some(place) = tx.place() else { return Err(format!("transaction {i} cannot be read")) };
        if last.as_ref().is_some_and(|last| *last >= place) {
            return Err(format!("transaction {i} is out of order"));
        }
        last = Some(place);
    }
    Ok(())
}

/// Makes a proposal of at most `max_bytes`: tick, acts, then batches, writer by writer in turns, and cosignatures in what
/// is left.
///
/// `overdue` tells whether a transaction that cannot be taken yet has waited long enough to be included and refused.
pub fn prepare(
    state: &State,
    waiting: Vec<Arc<Parsed>>,
    now_ms: u64,
    max_bytes: usize,
    height: u64,
    mut overdue: impl FnMut(&Hash) -> bool,
) -> Vec<Bytes> {
    let tick = Parsed::read(tick_tx(now_ms.max(state.head.tick_ms.saturating_add(1))));
    let mut left = max_bytes.saturating_sub(block_size(tick.bytes.len()));
    let mut acts: BTreeMap<Place, Arc<Parsed>> = BTreeMap::new();
    let mut batches: BTreeMap<WriterId, BTreeMap<Place, Arc<Parsed>>> = BTreeMap::new();
    let mut cosigns: BTreeMap<AgencyId, BTreeMap<Place, Arc<Parsed>>> = BTreeMap::new();
    for tx in waiting {
        let Some(place) = tx.place() else { continue };
        if admissible(state, &tx).is_err() {
            continue;
        }
        match &tx.content {
            Content::Act(_) => drop(acts.insert(place, tx)),
            Content::Batch(b) => drop(batches.entry(b.batch.writer.clone()).or_default().insert(place, tx)),
            Content::Cosign(c) => drop(cosigns.entry(c.cosign.agency.clone()).or_default().insert(place, tx)),
            Content::Tick(_) | Content::Bad(_) => {}
        }
    }
    let mut chosen: BTreeMap<Place, Bytes> = BTreeMap::new();
    choose_acts(state, acts, &mut left, &mut overdue, &mut chosen);
    let queues = batches.into_iter().map(|(writer, txs)| queue(state, &writer, txs, &mut overdue)).collect();
    choose_batches(queues, height, &mut left, &mut chosen);
    choose_cosigns(cosigns, left, &mut chosen);
    std::iter::once(tick.bytes.clone()).chain(chosen.into_values()).collect()
}

fn choose_acts(
    state: &State,
    acts: BTreeMap<Place, Arc<Parsed>>,
    left: &mut usize,
    overdue: &mut impl FnMut(&Hash) -> bool,
    chosen: &mut BTreeMap<Place, Bytes>,
) {
    let mut next: BTreeMap<(u8, [u8; 16]), u64> = BTreeMap::new();
    for (place, tx) in acts {
        let Content::Act(a) = &tx.content else { continue };
        let counter = counter_of(state, &mut next, &place, a);
        let comes = a.act.counter <= *counter || overdue(&tx.hash);
        if !comes || tx.block_size() > *left {
            continue;
        }
        if a.act.counter == *counter {
            *counter += 1;
        }
        *left -= tx.block_size();
        chosen.insert(place, tx.bytes.clone());
    }
}

fn counter_of<'a>(state: &State, next: &'a mut BTreeMap<(u8, [u8; 16]), u64>, place: &Place, a: &ActTx) -> &'a mut u64 {
    let first = next_counter(state.tables.counters.get(&a.act.key_id), &a.act);
    next.entry((place.0, place.2)).or_insert(first)
}

/// A writer's batches that may come now, in order: the next ones, stale and conflicting ones at once, gapped ones when
/// they have waited long enough.
fn queue(
    state: &State,
    writer: &WriterId,
    txs: BTreeMap<Place, Arc<Parsed>>,
    overdue: &mut impl FnMut(&Hash) -> bool,
) -> std::vec::IntoIter<(Place, Arc<Parsed>)> {
    let row = state.tables.writers.get(writer);
    let (incarnation, last, hash) = row.map_or((0, 0, [0; 32]), |r| (r.incarnation, r.last_seq, r.last_hash));
    let (mut next, mut prev) = (last.saturating_add(1), hash);
    let mut out = Vec::new();
    for (place, tx) in txs {
        let Content::Batch(b) = &tx.content else { continue };
        let BatchTx { batch, hash, .. } = &**b;
        let gapped = batch.incarnation > incarnation || batch.incarnation == incarnation && batch.first_seq > next;
        if gapped && !overdue(&tx.hash) {
            continue;
        }
        if batch.incarnation == incarnation && batch.first_seq == next && batch.prev == prev {
            (next, prev) = (batch.last_seq().saturating_add(1), *hash);
        }
        out.push((place, tx));
    }
    out.into_iter()
}

/// One batch a writer and turn, beginning with another writer at each height; one that does not fit ends its
/// writer's turns.
fn choose_batches(
    mut queues: Vec<std::vec::IntoIter<(Place, Arc<Parsed>)>>,
    height: u64,
    left: &mut usize,
    chosen: &mut BTreeMap<Place, Bytes>,
) {
    if queues.is_empty() {
        return;
    }
    let start = (height % queues.len() as u64) as usize;
    queues.rotate_left(start);
    while !queues.is_empty() {
        queues.retain_mut(|queue| match queue.next() {
            Some((place, tx)) if tx.block_size() <= *left => {
                *left -= tx.block_size();
                chosen.insert(place, tx.bytes.clone());
                true
            }
            _ => false,
        });
    }
}

/// One an agency and turn, oldest checkpoint first, until [`COSIGNS_MAX`]. One that cannot be taken is chosen too, to be
/// refused.
fn choose_cosigns(
    cosigns: BTreeMap<AgencyId, BTreeMap<Place, Arc<Parsed>>>,
    mut left: usize,
    chosen: &mut BTreeMap<Place, Bytes>,
) {
    let turns = cosigns.into_values().flat_map(|own| own.into_iter().enumerate());
    let mut turns: Vec<(usize, (Place, Arc<Parsed>))> = turns.collect();
    turns.sort_by_key(|(turn, _)| *turn);
    let mut count = 0;
    for (_, (place, tx)) in turns {
        if count < COSIGNS_MAX && tx.block_size() <= left {
            left -= tx.block_size();
            count += 1;
            chosen.insert(place, tx.bytes.clone());
        }
    }
}
