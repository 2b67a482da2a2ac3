//! One value of each format and kind, for the vectors and for the tests of decoders.
#![allow(dead_code)]

pub mod acts;
pub mod evidence;
pub mod node;
pub mod ops;
pub mod session;
pub mod subscribe;
pub mod terms;

use concordat_protocol::cbor::{Canon, decode, encode};
use concordat_protocol::hash::Hash;
use concordat_protocol::keys::{SigningKey, Suite};
use minicbor::Decoder;
use minicbor::data::Type;
use serde_json::Value;
use std::collections::BTreeSet;

/// The chain of all samples.
pub const CHAIN: &str = "city-1";
/// 2026-03-02 08:00 UTC.
pub const TICK: u64 = 1_772_438_400_000;
/// Day of [`TICK`].
pub const DAY: u64 = TICK / 86_400_000;

/// A value with the names of its fields, in the order of its encoding.
pub struct Sample<T> {
    /// Name and value of each field, as [`shown`].
    pub fields: Vec<(&'static str, Value)>,
    /// The value.
    pub value: T,
}

/// A struct or a variant as a [`Sample`]: the names are the compiler's, so they cannot drift from the code.
macro_rules! sample {
    ($($path:ident)::+ { $($f:ident $(: $e:expr)?),* $(,)? }) => {{
        $($(let $f = $e;)?)*
        let fields = vec![$((stringify!($f), $crate::samples::shown(&$f))),*];
        $crate::samples::Sample { fields, value: $($path)::+ { $($f),* } }
    }};
}
pub(crate) use sample;

/// A value as its encoding shows it: numbers, text, arrays, and byte strings as `h'00ff'` (RFC 8949, section 8).
pub fn shown<T: Canon>(value: &T) -> Value {
    let bytes = encode(value);
    let mut decoder = Decoder::new(&bytes);
    let out = item(&mut decoder);
    assert_eq!(decoder.position(), bytes.len());
    out
}

fn item(d: &mut Decoder<'_>) -> Value {
    match d.datatype().unwrap() {
        Type::Bytes => format!("h'{}'", hex::encode(d.bytes().unwrap())).into(),
        Type::String => d.str().unwrap().into(),
        Type::Array => (0..d.array().unwrap().unwrap()).map(|_| item(d)).collect(),
        _ => {
            let n = d.u64().unwrap();
            assert!(n < 1 << 53, "{n} is no number to every reader of JSON");
            n.into()
        }
    }
}

/// Fails unless the samples hold every kind that the decoder knows.
pub fn assert_every_kind<T: Canon>(kinds: impl IntoIterator<Item = u64>) {
    let kinds: BTreeSet<u64> = kinds.into_iter().collect();
    for k in 0..200u64 {
        let Err(error) = decode::<T>(&encode(&vec![k])) else {
            assert!(kinds.contains(&k), "kind {k} has no sample");
            continue;
        };
        assert_eq!(error.to_string().contains("unknown kind"), !kinds.contains(&k), "kind {k}: {error}");
    }
}

/// A name of any kind.
pub fn id<T: core::str::FromStr<Err: core::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A hash that is easy to recognise.
pub fn h(n: u8) -> Hash {
    [n; 32]
}

/// The Ed25519 key whose seed is 32 times `n`.
pub fn ed25519(n: u8) -> SigningKey {
    SigningKey::from_seed(Suite::Ed25519, &[n; 32]).unwrap()
}

/// The hybrid key whose seed is 64 times `n`.
pub fn hybrid(n: u8) -> SigningKey {
    SigningKey::from_seed(Suite::Hybrid, &[n; 64]).unwrap()
}

/// The public half of [`ed25519`] as sessions and writers carry it.
pub fn point(n: u8) -> [u8; 32] {
    ed25519(n).public().ed25519.0.as_slice().try_into().unwrap()
}
