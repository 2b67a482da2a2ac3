#![allow(clippy::unwrap_used)]
use super::*;
use crate::canon_struct;
use proptest::prelude::*;

canon_struct! {
    /// Test shape.
    pub struct Shape { pub a: u64, pub b: Bytes, pub c: Vec<String>, pub d: Option<[u8; 2]>, pub e: i64 }
}

#[test]
fn other_encodings_of_the_same_value_are_refused() {
    let shape = Shape { a: 5, b: Bytes(vec![1]), c: vec!["x".into()], d: None, e: -1 };
    let good = encode(&shape);
    assert_eq!(decode::<Shape>(&good).unwrap(), shape);
    // 5 written in two bytes instead of one.
    let mut long = good.clone();
    long.splice(1..2, [0x18, 0x05]);
    assert_eq!(decode::<Shape>(&long), Err(CborError::NotCanonical));
    let mut trailing = good.clone();
    trailing.push(0);
    assert_eq!(decode::<Shape>(&trailing), Err(CborError::Trailing(1)));
    // Floats, maps, tags, null, booleans, indefinite arrays and text where bytes belong.
    for bytes in [&[0xf9, 0, 0][..], &[0xa0], &[0xc1, 0], &[0xf6], &[0xf5], &[0x9f, 0xff], &[0x60]] {
        assert!(decode::<Bytes>(bytes).is_err() && decode::<Vec<u64>>(bytes).is_err() && decode::<u64>(bytes).is_err());
    }
}

#[test]
fn an_array_that_claims_more_than_follows_reserves_nothing() {
    assert!(decode::<Vec<u64>>(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
}

proptest! {
    #[test]
    fn values_come_back(a: u64, b: Vec<u8>, c: Vec<String>, d: Option<[u8; 2]>, e: i64) {
        let v = Shape { a, b: Bytes(b), c, d, e };
        prop_assert_eq!(decode::<Shape>(&encode(&v)).unwrap(), v);
    }

    #[test]
    fn accepted_bytes_are_the_only_encoding(bytes: Vec<u8>) {
        if let Ok(v) = decode::<Shape>(&bytes) { prop_assert_eq!(encode(&v), bytes); }
    }
}
