//! What a consumer checks of a delivery before one byte goes to an application (PROTOCOL 5 and 8).
//!
//! Pure: keys come from this agency's own node. Every check has a name; the first that fails is reported.

use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{KemKey, Statement};
use concordat_protocol::leaves::LeafView;
use concordat_protocol::message::{Alterations, Event, RedactedEnvelope};
use concordat_protocol::node::KeyView;
use concordat_protocol::seal::SealReceiver;
use concordat_protocol::session::{FeedItem, Promise};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

use super::duties::Altering;
use crate::gateway::check::release_signature;
use crate::host::feed::scope;

/// The check that failed. Nothing of the delivery is handed on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{check}: {sentence}")]
pub struct FeedProofError {
    /// Stable name of the check.
    pub check: &'static str,
    /// What is wrong.
    pub sentence: String,
}

impl FeedProofError {
    /// Stable name of the error: the check's.
    pub fn code(&self) -> &'static str {
        self.check
    }
}

fn fail<T>(check: &'static str, sentence: impl Into<String>) -> Result<T, FeedProofError> {
    Err(FeedProofError { check, sentence: sentence.into() })
}

/// What the ledger says of the subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The chain.
    pub chain: String,
    /// Who delivers.
    pub provider: AgencyId,
    /// Number of the subscription.
    pub subscription: u64,
    /// The dataset.
    pub dataset: DatasetId,
    /// The clause: `AGR-2026-0143/F1`.
    pub clause: String,
    /// The clause's bound in each version that is or was in force, milliseconds; 0 where nothing is anchored.
    pub max_lag_ms: BTreeSet<u64>,
    /// What the clause's duties alter in each of these versions, by this agency's own documents.
    pub altering: Altering,
}

/// A message as an application gets it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Number of the delivery in its subscription.
    pub sub_seq: u64,
    /// Position in the delivery.
    pub index: u64,
    /// Sequence number in the dataset.
    pub seq: u64,
    /// The event's id; where the id is hidden, its place in the subscription.
    pub id: String,
    /// The event's time, if it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Value>,
    /// Members of `data` that are shown.
    pub data: Map<String, Value>,
    /// How many leaves are hidden; each was proven to be there by its hash.
    pub hidden: usize,
    /// Members of `data` that are shown altered. Their true values are among what is hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub altered: Vec<Altered>,
}

/// A member that is shown altered: the provider vouches for it with its promise, the publisher signed the true value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Altered {
    /// The member of `data`.
    pub field: String,
    /// The duty that altered it.
    pub duty: String,
    /// Of which clause: `AGR-2026-0143/F1`.
    pub clause: String,
}

/// Decodes an item with its promise. Nothing in them is to be believed yet.
pub fn read(bytes: &[u8]) -> Result<(FeedItem, Promise), FeedProofError> {
    let item: FeedItem = cbor::decode(bytes).or_else(|e| fail("item", format!("it does not decode: {e}")))?;
    let promise = cbor::decode(&item.promise).or_else(|e| fail("promise", format!("it does not decode: {e}")))?;
    Ok((item, promise))
}

/// Checks that the provider's release key signed this promise and that it is for this subscription. `key` is the one
/// the item names, as the own node has it.
pub fn promise(x: &Expected, item: &FeedItem, promise: &Promise, key: Option<&KeyView>) -> Result<(), FeedProofError> {
    let Some(key) = key.filter(|k| k.key.key_id() == item.release_key) else {
        return fail("release-key", "the key that signed the promise is not registered");
    };
    if key.agency != x.provider || key.role != KeyRole::Release {
        return fail("release-key", format!("the key is no release key of {}", x.provider));
    }
    if key.revoked_ms != 0 && promise.delivered_ms >= key.revoked_ms {
        return fail("release-key", "the key was revoked before the promise was made");
    }
    let Some(signature) = release_signature(&item.promise_signature) else {
        return fail("promise-signature", "it does not decode");
    };
    if let Err(e) = key.key.verify_full(Statement::Promise, &x.chain, &item.promise, &signature) {
        return fail("promise-signature", e.to_string());
    }
    if promise.chain != x.chain {
        return fail("promise-chain", format!("the promise is of chain {}", promise.chain));
    }
    if promise.provider != x.provider || promise.subscription != x.subscription {
        return fail("promise-subscription", "the promise is of another subscription");
    }
    if promise.first_sub_seq == 0 || promise.first_sub_seq != promise.last_sub_seq {
        return fail("promise-range", "an item holds one delivery, numbered from 1");
    }
    if !x.max_lag_ms.contains(&promise.max_lag_ms) {
        return fail(
            "promise-max-lag",
            format!("the promise says {} ms, the clause {:?} ms", promise.max_lag_ms, x.max_lag_ms),
        );
    }
    Ok(())
}

/// Opens the sealed envelope and checks that it is the promised one.
pub fn unseal(
    x: &Expected,
    item: &FeedItem,
    promise: &Promise,
    kem: &KemKey,
) -> Result<RedactedEnvelope, FeedProofError> {
    // An epoch is named by the last delivery before it.
    let Some(epoch) = promise.first_sub_seq.checked_sub(item.seal_n) else {
        return fail("seal", "the number of the sealing key is larger than the delivery's");
    };
    let opened = SealReceiver::new(kem, &item.encapsulation, &x.chain, &scope(x.subscription), epoch)
        .and_then(|receiver| receiver.open(item.seal_n, &item.promise, &item.sealed));
    let plain = opened.or_else(|e| fail("seal", e.to_string()))?;
    if sha256(&[&plain]) != promise.root {
        return fail("promise-root", "the envelope is not the promised one");
    }
    cbor::decode(&plain).or_else(|e| fail("envelope", format!("it does not decode: {e}")))
}

/// Checks that every message shown is an unaltered part of what the provider signed. `key` is the one the envelope
/// names, as the own node has it.
pub fn messages(
    x: &Expected,
    sub_seq: u64,
    envelope: &RedactedEnvelope,
    key: Option<&KeyView>,
) -> Result<Vec<Message>, FeedProofError> {
    let Some(key) = key.filter(|k| k.agency == x.provider && k.role == KeyRole::Envelope) else {
        return fail("envelope-key", format!("the key that signed the envelope is no envelope key of {}", x.provider));
    };
    // A key that was rotated has signed what is still in the stream; a compromised one may have signed anything.
    if key.compromised_since_ms != 0 {
        return fail("envelope-key", "the key that signed the envelope is compromised");
    }
    if envelope.header.chain != x.chain || envelope.header.dataset != x.dataset {
        return fail("envelope-dataset", format!("the envelope is of {}", envelope.header.dataset));
    }
    let shown = envelope.verify(&key.key).or_else(|e| fail("envelope-signature", e.to_string()))?;
    let altered: BTreeMap<u64, &Alterations> = envelope.altered().collect();
    if let Some(other) = altered.values().find(|a| a.clause != x.clause) {
        return fail(
            "altered-clause",
            format!("fields are altered by {}, the subscription is of {}", other.clause, x.clause),
        );
    }
    for (field, duty) in altered.values().flat_map(|a| a.duties()) {
        x.altering.check(&x.clause, field, duty)?;
    }
    let mut out = Vec::with_capacity(shown.len());
    for (index, (seq, leaves)) in shown.into_iter().enumerate() {
        let event = Event::shown(leaves).or_else(|e| fail("event", e.to_string()))?;
        let (sub_seq, index) = (sub_seq, index as u64);
        let text = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut data = event.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        let altered = altered.get(&seq).map_or_else(|| Ok(vec![]), |a| alter(&mut data, a))?;
        let hidden = leaves.leaves.iter().filter(|l| matches!(l, LeafView::Hidden { .. })).count();
        let id = text("id").unwrap_or_else(|| format!("{}-{}/{sub_seq}.{index}", x.provider, x.subscription));
        out.push(Message { sub_seq, index, seq, id, time: event.get("time").cloned(), data, hidden, altered });
    }
    Ok(out)
}

/// Puts altered members beside those that are shown as they are. No member is both: [`Alterations::check`] saw to it.
fn alter(data: &mut Map<String, Value>, by: &Alterations) -> Result<Vec<Altered>, FeedProofError> {
    let members = by.members().or_else(|e| fail("event", e.to_string()))?;
    let mut out = Vec::with_capacity(members.len());
    for (field, value, duty) in members {
        out.push(Altered { field: field.to_owned(), duty: duty.to_owned(), clause: by.clause.clone() });
        data.insert(field.to_owned(), value);
    }
    Ok(out)
}
