//! SCRAM (RFC 5802, RFC 7677) as Kafka speaks it: no channel binding, and the password as it is written.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Most rounds of the key derivation that a server may ask for.
const ROUNDS_MAX: u32 = 1_000_000;

/// The hash that both sides use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn mac(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text)
    }

    fn digest(self, bytes: &[u8]) -> digest::Digest {
        match self {
            Self::Sha256 => digest::digest(&digest::SHA256, bytes),
            Self::Sha512 => digest::digest(&digest::SHA512, bytes),
        }
    }

    fn salted(self, password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Zeroizing<Vec<u8>> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut key = Zeroizing::new(vec![0; length]);
        pbkdf2::derive(algorithm, rounds, salt, password, &mut key);
        key
    }
}

/// A login that has begun.
pub(crate) struct Scram {
    hash: Hash,
    nonce: String,
    /// The first message without its header.
    bare: String,
}

/// What the server must answer to the last message.
pub(crate) struct Expected(hmac::Tag);

/// 18 random bytes as text.
pub(crate) fn nonce() -> Result<String, String> {
    let mut bytes = [0; 18];
    rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(STANDARD.encode(bytes))
}

impl Scram {
    /// Begins a login of a user.
    pub(crate) fn new(hash: Hash, user: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self { hash, bare: format!("n={user},r={nonce}"), nonce }
    }

    /// The first message.
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The second message, as the answer to the server's first one.
    pub(crate) fn second(&self, server: &[u8], password: &str) -> Result<(String, Expected), String> {
        let bad = || "its answer is none of SCRAM".to_owned();
        let server = std::str::from_utf8(server).map_err(|_| bad())?;
        let part = |name: &str| server.split(',').find_map(|p| p.strip_prefix(name)).ok_or_else(bad);
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("it answers another login than ours".to_owned());
        }
        let salt = STANDARD.decode(salt).map_err(|_| bad())?;
        let rounds: NonZeroU32 = rounds.parse().map_err(|_| bad())?;
        if rounds.get() > ROUNDS_MAX {
            return Err(format!("it asks for more than {ROUNDS_MAX} rounds"));
        }
        let salted = self.hash.salted(password.as_bytes(), &salt, rounds);
        let end = format!("c=biws,r={nonce}");
        let all = format!("{},{server},{end}", self.bare);
        let client = self.hash.mac(&salted, b"Client Key");
        let signature = self.hash.mac(self.hash.digest(client.as_ref()).as_ref(), all.as_bytes());
        let proof: Vec<u8> = client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let theirs = self.hash.mac(self.hash.mac(&salted, b"Server Key").as_ref(), all.as_bytes());
        Ok((format!("{end},p={}", STANDARD.encode(proof)), Expected(theirs)))
    }
}

impl Expected {
    /// Whether the server knows the password too.
    pub(crate) fn is(&self, server: &[u8]) -> bool {
        let said = std::str::from_utf8(server).ok().and_then(|text| text.split(',').find_map(|p| p.strip_prefix("v=")));
        let said = said.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        verify_slices_are_equal(&said, self.0.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let scram = Scram::new(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (second, expected) = scram.second(server, "pencil").unwrap();
        assert_eq!(
            second,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(expected.is(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        for other in [&b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G0="[..], b"e=other-error", b"", b"v="] {
            assert!(!expected.is(other));
        }
    }

    #[test]
    fn what_a_server_may_not_ask_is_refused() {
        let scram = Scram::new(Hash::Sha512, "a=b,c", "abc".to_owned());
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=abc");
        for server in
            ["", "r=abc,s=AA==,i=4096", "r=xyz1,s=AA==,i=4096", "r=abc1,s=AA==,i=0", "r=abc1,s=AA==,i=2000000"]
        {
            assert!(scram.second(server.as_bytes(), "p").is_err(), "{server}");
        }
    }
}
