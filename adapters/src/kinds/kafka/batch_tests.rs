#![allow(clippy::unwrap_used)]
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use proptest::prelude::*;

use super::*;

fn record(offset: i64, value: &str) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1_000 + offset,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Default::default(),
    }
}

fn encoded(records: &[Record]) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes.to_vec()
}

/// Writes the checksum anew after a change.
fn sealed(mut batch: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

#[test]
fn gaps_of_a_compacted_topic_are_stepped_over() {
    // Of offsets 10 to 19 two are left, and then none of 20 to 29: such batches stay, with their range.
    let mut first = encoded(&[record(10, "a"), record(15, "b")]);
    first[23..27].copy_from_slice(&9_i32.to_be_bytes());
    let mut empty = encoded(&[record(20, "c")]);
    empty.truncate(HEAD);
    empty[8..12].copy_from_slice(&(HEAD as i32 - 12).to_be_bytes());
    empty[23..27].copy_from_slice(&9_i32.to_be_bytes());
    empty[57..61].copy_from_slice(&0_i32.to_be_bytes());
    let all = [sealed(first), sealed(empty)].concat();
    let found = stretch(all.clone().into(), 12, &[]).unwrap();
    assert_eq!((found.messages.len(), found.messages[0].offset, found.next), (1, 15, 30));
    assert_eq!(found.messages[0].time_ms, Some(1_015));
    // The second one cut short: the first one counts.
    assert_eq!(stretch(all[..all.len() - 1].to_vec().into(), 12, &[]).unwrap().next, 20);
}

#[test]
fn damage_and_old_forms_are_told() {
    let good = encoded(&[record(0, "a")]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(stretch(damaged.into(), 0, &[]).unwrap_err().contains("checksum"));
    let mut old = good.clone();
    old[16] = 1;
    assert!(stretch(old.into(), 0, &[]).unwrap_err().contains("before 0.11"));
    let mut packed = good;
    packed[22] = 7;
    assert!(stretch(sealed(packed), 0, &[]).unwrap_err().contains("not known"));
}

#[test]
fn what_unpacks_to_more_than_the_bound_is_refused() {
    let mut batch = encoded(&[record(0, "a")]);
    let zeros = vec![0_u8; UNPACKED_MAX as usize + 1];
    for (number, packed) in
        [(4, zstd::encode_all(&zeros[..], 1).unwrap()), (2, snap::raw::Encoder::new().compress_vec(&zeros).unwrap())]
    {
        batch.truncate(HEAD);
        batch.extend(packed);
        let length = batch.len() as i32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[22] = number;
        assert!(stretch(sealed(batch.clone()), 0, &[]).unwrap_err().contains("more than"), "{number}");
    }
}

proptest! {
    /// A whole batch with a right checksum and any bytes behind its head, packed in any way: no panic, and bounded work.
    #[test]
    fn no_bytes_make_it_panic(
        head in prop::collection::vec(any::<u8>(), 40),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut batch = encoded(&[record(0, "a")]);
        batch.truncate(HEAD);
        batch[21..61].copy_from_slice(&head);
        batch.extend(rest);
        let length = batch.len() as i32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let sealed = sealed(batch);
        let _ = stretch(sealed.clone(), 0, &[(0, 0)]);
        for end in [0, 11, 12, 60, sealed.len() - 1] {
            let _ = stretch(sealed.slice(..end), 0, &[]);
        }
    }
}
