//! Batches of records as Kafka keeps them since 0.11, unpacked within bounds.
//!
//! The decoder of `kafka-protocol` is not used: it drops where a batch ends and when it was appended, sums times that a
//! sender chose without looking, and reserves what a record says of its headers, whatever that is.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::{Buf, Bytes, TryGetError};

/// Most bytes of a batch once it is unpacked.
const UNPACKED_MAX: u64 = 64 * 1024 * 1024;
/// Bytes before the length of a batch ends, and of the whole head.
const LENGTH_END: usize = 12;
const HEAD: usize = 61;
/// The only form that is read.
const MAGIC: i8 = 2;

/// What one record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its number in the partition.
    pub offset: i64,
    /// Milliseconds of Unix time, as its sender or the server gave it.
    pub time_ms: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none deletes the key.
    pub value: Option<Bytes>,
}

/// What a fetched stretch of a partition holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Messages from the wanted one on, in order.
    pub messages: Vec<Message>,
    /// Where the next stretch begins; the wanted one when not even one batch was whole.
    pub next: i64,
}

/// The head of a batch.
struct Head {
    base: i64,
    attributes: i16,
    last: i64,
    base_time: i64,
    max_time: i64,
    producer: i64,
    count: i32,
}

impl Head {
    fn read(mut batch: Bytes) -> Result<(Self, Bytes), String> {
        let short = |_: TryGetError| "a batch is cut short".to_owned();
        let base = batch.try_get_i64().map_err(short)?;
        let (_length, _epoch) = (batch.try_get_i32().map_err(short)?, batch.try_get_i32().map_err(short)?);
        let magic = batch.try_get_i8().map_err(short)?;
        if magic != MAGIC {
            return Err(format!("a batch has the form {magic} of servers before 0.11, which is not read"));
        }
        let crc = batch.try_get_u32().map_err(short)?;
        if crc != crc32c::crc32c(&batch) {
            return Err("a batch does not match its checksum".to_owned());
        }
        let attributes = batch.try_get_i16().map_err(short)?;
        let last = base.saturating_add(i64::from(batch.try_get_i32().map_err(short)?));
        let base_time = batch.try_get_i64().map_err(short)?;
        let max_time = batch.try_get_i64().map_err(short)?;
        let producer = batch.try_get_i64().map_err(short)?;
        let (_epoch, _sequence) = (batch.try_get_i16().map_err(short)?, batch.try_get_i32().map_err(short)?);
        let count = batch.try_get_i32().map_err(short)?;
        Ok((Self { base, attributes, last, base_time, max_time, producer, count }, batch))
    }

    fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// The time that the server gave the whole batch, where the topic wants that.
    fn time(&self, delta: i64) -> Option<i64> {
        let time = if self.attributes & 0x08 != 0 { self.max_time } else { self.base_time.saturating_add(delta) };
        (time >= 0).then_some(time)
    }

    fn unpacked(&self, packed: Bytes) -> Result<Bytes, String> {
        match self.attributes & 0x07 {
            0 => Ok(packed),
            1 => whole(flate2::read::MultiGzDecoder::new(packed.reader())),
            2 => snappy(packed),
            3 => whole(lz4_flex::frame::FrameDecoder::new(packed.reader())),
            4 => whole(zstd::Decoder::new(packed.reader()).map_err(damaged)?),
            other => Err(format!("a batch is packed in a way that is not known ({other})")),
        }
    }
}

fn damaged(_: impl std::error::Error) -> String {
    "a batch cannot be unpacked".to_owned()
}

fn too_large() -> String {
    format!("a batch has more than {UNPACKED_MAX} bytes once it is unpacked")
}

fn whole(packed: impl Read) -> Result<Bytes, String> {
    let mut unpacked = Vec::new();
    packed.take(UNPACKED_MAX + 1).read_to_end(&mut unpacked).map_err(damaged)?;
    if unpacked.len() as u64 > UNPACKED_MAX { Err(too_large()) } else { Ok(unpacked.into()) }
}

/// Snappy as Java writes it: a head, then blocks with their lengths; or one block without either.
fn snappy(mut packed: Bytes) -> Result<Bytes, String> {
    let mut unpacked = Vec::new();
    let mut block = |block: &[u8]| {
        let length = snap::raw::decompress_len(block).map_err(damaged)?;
        let at = unpacked.len();
        if (at + length) as u64 > UNPACKED_MAX {
            return Err(too_large());
        }
        unpacked.resize(at + length, 0);
        let room = unpacked.get_mut(at..).unwrap_or_default();
        snap::raw::Decoder::new().decompress(block, room).map(drop).map_err(damaged)
    };
    if !packed.starts_with(b"\x82SNAPPY\0") {
        block(&packed)?;
        return Ok(unpacked.into());
    }
    packed.advance(packed.len().min(16));
    while packed.has_remaining() {
        let length = packed.try_get_u32().map_err(damaged)? as usize;
        if length > packed.len() {
            return Err("a batch cannot be unpacked".to_owned());
        }
        block(&packed.split_to(length))?;
    }
    Ok(unpacked.into())
}

/// A number of Kafka's variable length.
fn number(bytes: &mut Bytes) -> Result<i64, String> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().map_err(|_| "a record is cut short".to_owned())?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a record has a number that does not end".to_owned())
}

/// Bytes with their length before them; none where that is -1.
fn bytes(from: &mut Bytes) -> Result<Option<Bytes>, String> {
    match usize::try_from(number(from)?) {
        Ok(length) if length <= from.len() => Ok(Some(from.split_to(length))),
        Ok(_) => Err("a record is cut short".to_owned()),
        Err(_) => Ok(None),
    }
}

fn record(head: &Head, from: &mut Bytes) -> Result<Message, String> {
    let mut record = bytes(from)?.ok_or("a record has no length")?;
    let _attributes = record.try_get_i8().map_err(|_| "a record is cut short".to_owned())?;
    let time_ms = head.time(number(&mut record)?);
    let offset = head.base.saturating_add(number(&mut record)?);
    let (key, value) = (bytes(&mut record)?, bytes(&mut record)?);
    // Headers follow, and are of no use here.
    Ok(Message { offset, time_ms, key, value })
}

/// True when a control record ends a transaction that was given up.
fn is_abort(record: &Message) -> bool {
    record.key.as_ref().is_some_and(|key| key.get(2..4) == Some(&[0, 0]))
}

/// The messages of a fetched stretch from `wanted` on, without those of transactions that were given up: of each such
/// transaction `aborted` says its producer and its first offset.
pub(crate) fn stretch(mut records: Bytes, wanted: i64, aborted: &[(i64, i64)]) -> Result<Stretch, String> {
    let mut aborted = aborted.to_vec();
    aborted.sort_unstable_by_key(|(_, first)| std::cmp::Reverse(*first));
    let mut given_up: BTreeSet<i64> = BTreeSet::new();
    let mut stretch = Stretch { messages: Vec::new(), next: wanted };
    // The last batch may be cut short by the bounds of the answer.
    while let Some(batch) = split(&mut records)? {
        let (head, packed) = Head::read(batch)?;
        while let Some((producer, _)) = aborted.pop_if(|(_, first)| *first <= head.last) {
            given_up.insert(producer);
        }
        stretch.next = stretch.next.max(head.last.saturating_add(1));
        if !head.is_control() && head.is_transactional() && given_up.contains(&head.producer) {
            continue;
        }
        let mut unpacked = head.unpacked(packed)?;
        for _ in 0..head.count {
            let message = record(&head, &mut unpacked)?;
            if head.is_control() {
                if is_abort(&message) {
                    given_up.remove(&head.producer);
                }
            } else if message.offset >= wanted {
                stretch.messages.push(message);
            }
        }
    }
    Ok(stretch)
}

/// The next whole batch.
fn split(records: &mut Bytes) -> Result<Option<Bytes>, String> {
    let Some(length) = records.get(8..LENGTH_END) else { return Ok(None) };
    let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    // Batches of the old form are shorter; they are told apart by their head.
    if length > i32::MAX as usize {
        return Err("a batch has no length".to_owned());
    }
    match records.len() >= LENGTH_END + length {
        true if LENGTH_END + length < HEAD => Ok(Some(records.split_to(HEAD.min(records.len())))),
        true => Ok(Some(records.split_to(LENGTH_END + length))),
        false => Ok(None),
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
