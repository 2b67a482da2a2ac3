//! The value of a leaf, computed from its row by the leaf's key.

use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;

use super::super::Tables;
use super::super::rows::{self, meta_key};
use super::{HeadsLeaf, writer_leaf};

fn split_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}

/// The value of a meta leaf, computed from its row.
pub fn meta_value(tables: &Tables, key: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = split_key(key)?;
    match kind {
        "agency" => tables.agencies.get(&rest.parse().ok()?).map(cbor::encode),
        "key" => tables.keys.get(&rest.parse().ok()?).map(cbor::encode),
        "dataset" => tables.datasets.get(&rest.parse().ok()?).map(cbor::encode),
        "param" => tables.params.get(rest).map(cbor::encode),
        "agreement" => {
            let (id, version) = rest.split_once('/')?;
            let row = tables.agreements.get(&(id.parse().ok()?, version.parse().ok()?))?;
            (meta_key::agreement(&row.view.agreement, row.view.version) == key).then(|| rows::agreement_leaf(&row.view))
        }
        "equivocation" => {
            let (writer, incarnation) = rest.rsplit_once('/')?;
            tables.equivocations.get(&(writer.parse().ok()?, incarnation.parse().ok()?)).map(cbor::encode)
        }
        "epoch" => tables.epochs.get(&padded(rest, 10)?).map(|row| cbor::encode(&row.body)),
        "root-pending" => tables.root_pending.get(&rest.parse().ok()?).map(cbor::encode),
        "ballot" => tables.ballots.get(&hash_of(rest)?).map(cbor::encode),
        "upgrade" => tables.upgrades.get(&padded(rest, 10)?).map(cbor::encode),
        "dispute" => tables.disputes.get(&padded(rest, 20)?).map(cbor::encode),
        "role-map" => {
            let (agency, number) = rest.split_once('/')?;
            tables.role_maps.get(&(agency.parse().ok()?, padded(number, 10)?)).map(cbor::encode)
        }
        "double-promise" => {
            let (provider, rest) = rest.split_once('/')?;
            let (subscription, sub_seq) = rest.split_once('/')?;
            let sub = (provider.parse().ok()?, number(subscription)?);
            tables.double_promises.get(&(sub, padded(sub_seq, 20)?)).map(cbor::encode)
        }
        _ => None,
    }
}

/// Reads a number in the one way it is written in keys.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n: &u64| n.to_string() == text)
}

/// Reads a number with leading zeros up to this width.
fn padded(text: &str, width: usize) -> Option<u64> {
    text.parse().ok().filter(|n: &u64| format!("{n:0width$}") == text)
}

/// Reads a hash in the one way it is written in keys.
fn hash_of(text: &str) -> Option<Hash> {
    let hash: Hash = hex::decode(text).ok()?.try_into().ok()?;
    (hex::encode(hash) == text).then_some(hash)
}

/// The slot and value of a heads leaf, computed from its row.
pub fn heads_value(tables: &Tables, key: &[u8]) -> Option<HeadsLeaf> {
    let (kind, rest) = split_key(key)?;
    match kind {
        "writer" => tables.writers.get(&rest.parse().ok()?).map(writer_leaf),
        "session" => tables.sessions.get(&number(rest)?).map(|v| (v.slot, cbor::encode(&v.leaf()))),
        "dataset" => tables.dataset_heads.get(&number(rest)?).map(|v| (v.slot, cbor::encode(&v.head))),
        "quota" => {
            let (agreement, rest) = rest.split_once('/')?;
            let (clause, session) = rest.rsplit_once('/')?;
            let key = (number(session)?, (agreement.parse().ok()?, clause.to_owned()));
            tables.quotas.get(&key).map(|v| (v.slot, cbor::encode(&(v.period, v.used))))
        }
        "subscription" => {
            let (provider, subscription) = rest.split_once('/')?;
            let key = (provider.parse().ok()?, number(subscription)?);
            tables.subscriptions.get(&key).map(|v| (v.slot, cbor::encode(&v.last_sub_seq)))
        }
        _ => None,
    }
}
