//! Keys and signatures as text in JSON: the hex of their canonical bytes.

use crate::cbor;
use crate::keys::{PublicKey, Signature};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn serialize<S: Serializer>(key: &PublicKey, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&key.to_text())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PublicKey, D::Error> {
    PublicKey::from_text(&String::deserialize(d)?).map_err(D::Error::custom)
}

/// The same for a key that may be absent.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Error, PublicKey, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(key: &Option<PublicKey>, s: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => super::serialize(key, s),
            None => s.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PublicKey>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|t| PublicKey::from_text(&t).map_err(D::Error::custom)).transpose()
    }
}

/// The same for signatures.
pub(super) mod signature {
    use super::{Deserialize, Deserializer, Error, Serializer, Signature, cbor};

    pub(in super::super) fn serialize<S: Serializer>(signature: &Signature, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(cbor::encode(signature)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Signature, D::Error> {
        let bytes = hex::decode(String::deserialize(d)?).map_err(D::Error::custom)?;
        cbor::decode(&bytes).map_err(D::Error::custom)
    }
}
