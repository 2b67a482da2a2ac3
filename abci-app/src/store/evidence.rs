//! Checkpoints, cosignatures, and operations that name sessions: written with their block, kept for ever.

use std::collections::BTreeMap;
use std::ops::Range;

use concordat_protocol::evidence::{CheckpointView, NamedOp};
use concordat_protocol::receipt::Checkpoint;

use super::*;
use crate::state::checkpoints::EvidenceNews;

/// Checkpoints in one answer.
const CHECKPOINTS_MAX: usize = 16;
/// Bytes of a stored [`NamedOp`]: index, session, number, kind, hash.
const NAMED_BYTES: usize = 8 + 8 + 8 + 1 + 32;

fn put_named(named: &NamedOp, out: &mut Vec<u8>) {
    for number in [named.index, named.session, named.n] {
        out.extend(number.to_be_bytes());
    }
    out.push(named.kind as u8);
    out.extend(named.op_hash);
}

fn get_named(bytes: &[u8]) -> Option<NamedOp> {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some(NamedOp {
        index: number(0)?,
        session: number(8)?,
        n: number(16)?,
        kind: u64::from(*bytes.get(24)?),
        op_hash: bytes.get(25..NAMED_BYTES)?.try_into().ok()?,
    })
}

pub(super) fn write_evidence(write: &WriteTransaction, news: &EvidenceNews) -> Result<(), redb::Error> {
    if let Some(checkpoint) = &news.checkpoint {
        write.open_table(CHECKPOINTS)?.insert(checkpoint.height, cbor::encode(checkpoint).as_slice())?;
    }
    for (height, cosignature) in &news.cosignatures {
        let mut table = write.open_table(COSIGNATURES)?;
        table.insert((*height, cosignature.agency.as_str()), cbor::encode(cosignature).as_slice())?;
    }
    let mut rows: BTreeMap<u16, (u64, Vec<u8>)> = BTreeMap::new();
    for (consumer, named) in &news.named {
        put_named(named, &mut rows.entry(*consumer).or_insert((named.index, Vec::new())).1);
    }
    for (consumer, (first, bytes)) in rows {
        write.open_table(NAMED)?.insert((u64::from(consumer), first), bytes.as_slice())?;
    }
    Ok(())
}

impl Reader<'_> {
    /// Up to 16 checkpoints from a height on with their cosignatures, oldest first; from height 0 the newest alone.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn checkpoints(&self, from_height: u64) -> Result<Vec<CheckpointView>, StoreError> {
        let (table, cosignatures) = (self.table(CHECKPOINTS)?, self.table(COSIGNATURES)?);
        let mut rows = table.range(from_height..).map_err(|e| self.store.failed(e))?;
        let newest = if from_height == 0 { rows.next_back() } else { None };
        let rest = if from_height == 0 { 0 } else { CHECKPOINTS_MAX };
        let mut out = Vec::new();
        for row in newest.into_iter().chain(rows.take(rest)) {
            let (height, value) = row.map_err(|e| self.store.failed(e))?;
            let checkpoint: Checkpoint = self.row(value.value())?;
            let height = height.value();
            let signed = cosignatures.range((height, "")..(height + 1, "")).map_err(|e| self.store.failed(e))?;
            let signed: Result<Vec<_>, StoreError> =
                signed.map(|row| self.row(row.map_err(|e| self.store.failed(e))?.1.value())).collect();
            out.push(CheckpointView { checkpoint, cosignatures: signed? });
        }
        Ok(out)
    }

    /// Up to `count` operations in a range of the log that name sessions of a consumer, and the first index that was not
    /// looked at.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn named(&self, consumer: u64, within: Range<u64>, count: u64) -> Result<(u64, Vec<NamedOp>), StoreError> {
        if within.is_empty() {
            return Ok((within.end, Vec::new()));
        }
        let table = self.table(NAMED)?;
        let mut before = table.range((consumer, 0)..=(consumer, within.start)).map_err(|e| self.store.failed(e))?;
        let first = match before.next_back() {
            Some(row) => row.map_err(|e| self.store.failed(e))?.0.value().1,
            None => within.start,
        };
        let mut out: Vec<NamedOp> = Vec::new();
        for row in table.range((consumer, first)..(consumer, within.end)).map_err(|e| self.store.failed(e))? {
            let (_, value) = row.map_err(|e| self.store.failed(e))?;
            for bytes in value.value().chunks(NAMED_BYTES) {
                let named = get_named(bytes).ok_or_else(|| self.store.damaged("an operation's row is cut off"))?;
                if out.len() as u64 == count {
                    return Ok((out.last().map_or(within.start, |n| n.index + 1), out));
                }
                if within.contains(&named.index) {
                    out.push(named);
                }
            }
        }
        Ok((within.end, out))
    }
}
