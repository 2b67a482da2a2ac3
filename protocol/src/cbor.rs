//! Deterministic CBOR (RFC 8949 section 4.2.1), arrays only.
//!
//! Everything that is hashed or signed is made of unsigned and negative integers, byte strings, text strings and
//! arrays. There are no floats, maps, tags, nulls, booleans or indefinite lengths; an absent value is the empty
//! array. [`decode`] re-encodes what it read and compares, so that every value has exactly one accepted encoding.

use minicbor::data::Type;
use thiserror::Error;

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CborError {
    /// The bytes do not parse as the expected type.
    #[error("{field}: {rule}")]
    Malformed {
        /// The type or field that was being read.
        field: &'static str,
        /// What is wrong with it.
        rule: String,
    },
    /// The bytes parse, but are not the one canonical encoding.
    #[error("not canonical: re-encoding gives other bytes (RFC 8949 section 4.2.1)")]
    NotCanonical,
    /// Bytes follow the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

impl CborError {
    /// Stable code of the error, from the registry in [`crate::codes`].
    pub fn code(&self) -> u16 {
        crate::codes::NOT_CANONICAL
    }

    /// A malformed `field` that breaks `rule`.
    pub fn rule(field: &'static str, rule: impl Into<String>) -> Self {
        Self::Malformed { field, rule: rule.into() }
    }
}

/// Writer of canonical bytes.
#[derive(Debug, Default)]
pub struct Enc {
    out: Vec<u8>,
}

impl Enc {
    fn head(&mut self, major: u8, n: u64) -> &mut Self {
        let m = major << 5;
        match n {
            0..=23 => self.out.push(m | n as u8),
            24..=0xff => self.out.extend_from_slice(&[m | 24, n as u8]),
            0x100..=0xffff => {
                self.out.push(m | 25);
                self.out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(m | 26);
                self.out.extend_from_slice(&(n as u32).to_be_bytes());
            }
            _ => {
                self.out.push(m | 27);
                self.out.extend_from_slice(&n.to_be_bytes());
            }
        }
        self
    }

    /// Writes an unsigned integer in its shortest form.
    pub fn uint(&mut self, n: u64) -> &mut Self {
        self.head(0, n)
    }

    /// Writes a signed integer in its shortest form.
    pub fn int(&mut self, n: i64) -> &mut Self {
        if n >= 0 { self.head(0, n as u64) } else { self.head(1, !(n as u64)) }
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.head(2, b.len() as u64);
        self.out.extend_from_slice(b);
        self
    }

    /// Writes a text string.
    pub fn text(&mut self, s: &str) -> &mut Self {
        self.head(3, s.len() as u64);
        self.out.extend_from_slice(s.as_bytes());
        self
    }

    /// Begins an array of `n` items; the caller writes exactly `n` items after it.
    pub fn array(&mut self, n: u64) -> &mut Self {
        self.head(4, n)
    }

    /// The bytes written so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// Reader of canonical bytes, over `minicbor`.
#[derive(Debug)]
pub struct Dec<'a> {
    inner: minicbor::Decoder<'a>,
    depth: u8,
}

fn bad(field: &'static str) -> impl Fn(minicbor::decode::Error) -> CborError {
    move |e| CborError::rule(field, e.to_string())
}

impl<'a> Dec<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { inner: minicbor::Decoder::new(bytes), depth: 0 }
    }

    /// Reads an unsigned integer.
    pub fn uint(&mut self) -> Result<u64, CborError> {
        self.inner.u64().map_err(bad("unsigned integer"))
    }

    /// Reads a signed integer.
    pub fn int(&mut self) -> Result<i64, CborError> {
        self.inner.i64().map_err(bad("integer"))
    }

    /// Reads a byte string of definite length.
    pub fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        self.inner.bytes().map_err(bad("byte string"))
    }

    /// Reads a text string of definite length.
    pub fn text(&mut self) -> Result<&'a str, CborError> {
        self.inner.str().map_err(bad("text string"))
    }

    /// Reads an array header of definite length. Nesting deeper than [`crate::limits::CBOR_DEPTH_MAX`] is refused
    /// by [`Dec::nested`], which every composite type reads through.
    pub fn array(&mut self) -> Result<u64, CborError> {
        let n = self
            .inner
            .array()
            .map_err(bad("array"))?
            .ok_or_else(|| CborError::rule("array", "indefinite lengths are not allowed"))?;
        // An item takes at least one byte: a longer claim cannot be true, and must not reserve memory.
        if n > self.remaining() as u64 {
            return Err(CborError::rule("array", format!("claims {n} items, only {} bytes follow", self.remaining())));
        }
        Ok(n)
    }

    /// Reads an array header and requires exactly `n` items.
    pub fn array_of(&mut self, field: &'static str, n: u64) -> Result<(), CborError> {
        let got = self.array()?;
        if got == n { Ok(()) } else { Err(CborError::rule(field, format!("has {got} items, expected {n}"))) }
    }

    /// Runs `read` one level deeper, refusing nesting past the limit.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, CborError>) -> Result<T, CborError> {
        if self.depth >= crate::limits::CBOR_DEPTH_MAX {
            return Err(CborError::rule("array", format!("nested deeper than {}", crate::limits::CBOR_DEPTH_MAX)));
        }
        self.depth += 1;
        let out = read(self);
        self.depth -= 1;
        out
    }

    /// Whether the next item is an integer (used where an array holds one of two shapes).
    pub fn next_is_uint(&self) -> bool {
        matches!(self.inner.datatype(), Ok(Type::U8 | Type::U16 | Type::U32 | Type::U64))
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.inner.input().len() - self.inner.position()
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.inner.position()
    }
}

/// A value with exactly one encoding.
pub trait Canon: Sized {
    /// Writes the value.
    fn put(&self, e: &mut Enc);
    /// Reads the value; [`decode`] adds the check that the bytes were canonical.
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError>;
}

/// The canonical bytes of `v`.
pub fn encode<T: Canon>(v: &T) -> Vec<u8> {
    let mut e = Enc::default();
    v.put(&mut e);
    e.into_bytes()
}

/// Reads a value and refuses any bytes but its canonical encoding.
pub fn decode<T: Canon>(bytes: &[u8]) -> Result<T, CborError> {
    let mut d = Dec::new(bytes);
    let v = T::get(&mut d)?;
    if d.remaining() > 0 {
        return Err(CborError::Trailing(d.remaining()));
    }
    if encode(&v) != bytes {
        return Err(CborError::NotCanonical);
    }
    Ok(v)
}

/// A byte string of any length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bytes(pub Vec<u8>);

impl core::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "h'{}'", hex::encode(&self.0))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(v: Vec<u8>) -> Self {
        Self(v)
    }
}

impl core::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! uint_canon {
    ($($t:ty),*) => {$(
        impl Canon for $t {
            fn put(&self, e: &mut Enc) {
                e.uint(u64::from(*self));
            }
            fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
                let n = d.uint()?;
                <$t>::try_from(n).map_err(|_| CborError::rule(stringify!($t), format!("{n} is out of range")))
            }
        }
    )*};
}
uint_canon!(u8, u16, u32, u64);

impl Canon for i64 {
    fn put(&self, e: &mut Enc) {
        e.int(*self);
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.int()
    }
}

impl Canon for String {
    fn put(&self, e: &mut Enc) {
        e.text(self);
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.text().map(str::to_owned)
    }
}

impl Canon for Bytes {
    fn put(&self, e: &mut Enc) {
        e.bytes(&self.0);
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.bytes().map(|b| Self(b.to_vec()))
    }
}

impl<const N: usize> Canon for [u8; N] {
    fn put(&self, e: &mut Enc) {
        e.bytes(self);
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        let b = d.bytes()?;
        b.try_into().map_err(|_| CborError::rule("byte string", format!("has {} bytes, expected {N}", b.len())))
    }
}

impl<T: Canon> Canon for Vec<T> {
    fn put(&self, e: &mut Enc) {
        e.array(self.len() as u64);
        self.iter().for_each(|v| v.put(e));
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.nested(|d| (0..d.array()?).map(|_| T::get(d)).collect())
    }
}

impl<T: Canon> Canon for Option<T> {
    fn put(&self, e: &mut Enc) {
        match self {
            None => {
                e.array(0);
            }
            Some(v) => {
                e.array(1);
                v.put(e);
            }
        }
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.nested(|d| match d.array()? {
            0 => Ok(None),
            1 => T::get(d).map(Some),
            n => Err(CborError::rule("optional value", format!("has {n} items, expected 0 or 1"))),
        })
    }
}

impl<A: Canon, B: Canon> Canon for (A, B) {
    fn put(&self, e: &mut Enc) {
        e.array(2);
        self.0.put(e);
        self.1.put(e);
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.nested(|d| {
            d.array_of("pair", 2)?;
            Ok((A::get(d)?, B::get(d)?))
        })
    }
}

/// `BreakGlass` as documents write it: `break-glass`.
pub fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
#[path = "cbor_tests.rs"]
mod tests;
