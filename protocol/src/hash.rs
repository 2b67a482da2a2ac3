//! SHA-256, the one hash of everything hashed or signed here.

use hmac::{Hmac, KeyInit, Mac};
use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// Bytes that are put together on the stack: almost everything hashed here is a leaf, a node or a salt.
const SHORT: usize = 256;

/// The initial state (FIPS 180-4, section 5.3.3).
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 of the concatenation of `parts`.
#[must_use]
#[inline]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut block = [0; SHORT];
    let mut at = 0;
    for part in parts {
        match block.get_mut(at..at + part.len()) {
            Some(room) => room.copy_from_slice(part),
            None => return long(parts),
        }
        at += part.len();
    }
    short(&mut block, at).unwrap_or_else(|| long(parts))
}

/// HMAC-SHA256 (RFC 2104) of the concatenation of `parts` under a key of 32 bytes.
#[must_use]
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> Hash {
    hmac_sha256_of(key, parts)
}

/// HMAC-SHA256 (RFC 2104) under a secret of any length, as others' formats have it.
#[must_use]
pub fn hmac_sha256_of(secret: &[u8], parts: &[&[u8]]) -> Hash {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// SHA-256 of what comes piece by piece, such as a file.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

fn long(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Pads what stands in the first `len` bytes (FIPS 180-4, section 5.1.1) and hashes it in one go; none if there is no
/// room for the padding.
fn short(block: &mut [u8; SHORT], len: usize) -> Option<Hash> {
    *block.get_mut(len)? = 0x80;
    let end = (len + 9).next_multiple_of(64);
    block.get_mut(end - 8..end)?.copy_from_slice(&(len as u64 * 8).to_be_bytes());
    let (blocks, _) = block.get(..end)?.as_chunks::<64>();
    let mut state = START;
    compress256(&mut state, blocks);
    let mut out = [0; 32];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{SHORT, hmac_sha256, long, sha256};

    #[test]
    fn hashes_the_concatenation() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(sha256(&[b"abc"])), abc);
        assert_eq!(hex::encode(sha256(&[b"a", b"", b"bc"])), abc);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(sha256(&[])), empty);
    }

    #[test]
    fn a_keyed_hash_is_that_of_the_rfc() {
        // RFC 4231, test case 1, whose key of 20 bytes is padded with zeros to a block as HMAC does.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let found = hex::encode(hmac_sha256(&key, &[b"Hi ", b"There"]));
        assert_eq!(found, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn the_short_way_is_the_long_way_at_every_length() {
        let bytes: Vec<u8> = (0..2 * SHORT).map(|i| (i * 7) as u8).collect();
        for len in 0..bytes.len() {
            let (left, right) = bytes[..len].split_at(len / 3);
            assert_eq!(sha256(&[left, right]), long(&[left, right]), "{len}");
        }
    }
}
