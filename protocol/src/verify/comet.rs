//! CometBFT's half of a receipt: header, commit, validators. Nothing past this file sees tendermint's types.

use super::{Invalid, fail};
use crate::hash::Hash;
use crate::trust::Epoch;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tendermint::block::{Commit, CommitSig, signed_header::SignedHeader};
use tendermint::crypto::default::signature::Verifier as Zip215;
use tendermint::validator::{Info, Set};
use tendermint::vote::{SignedVote, Type, ValidatorIndex, Vote};
use tendermint_light_client_verifier::types::UntrustedBlockState;
use tendermint_light_client_verifier::{ProdVerifier, Verdict};
use tendermint_proto::Protobuf;
use tendermint_proto::v0_38::types::{SignedHeader as RawSignedHeader, ValidatorSet as RawValidatorSet};

/// Why an answer of CometBFT's RPC cannot go into a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CometBFT's answer to {call}: {rule}")]
pub struct CometError {
    /// The call.
    pub call: &'static str,
    /// What is wrong with the answer.
    pub rule: String,
}

impl CometError {
    /// Stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "comet-answer"
    }
}

/// Header with commit, and validators, as a receipt carries them: protobuf bytes in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// `SignedHeader`; votes for nil are left out.
    pub header: Vec<u8>,
    /// `ValidatorSet`; without proposer and priorities, which no hash covers.
    pub validators: Vec<u8>,
    /// The header's height.
    pub height: u64,
    /// The header's app hash: of the state after the block before.
    pub app_hash: Vec<u8>,
}

/// Packs the JSON answers of CometBFT's RPC to `/commit?height=H` and `/validators?height=H&per_page=100` (the whole
/// response or its `result`).
///
/// # Errors
/// An answer does not parse, or is not complete.
pub fn pack(commit: &str, validators: &str) -> Result<Packed, CometError> {
    let result = |call: &'static str, text: &str| {
        let bad = |e: serde_json::Error| CometError { call, rule: e.to_string() };
        let v: serde_json::Value = serde_json::from_str(text).map_err(bad)?;
        if !base64_is_whole(&v) {
            return Err(CometError { call, rule: "a signature or key is not base64".into() });
        }
        Ok::<_, CometError>(v.get("result").cloned().unwrap_or(v))
    };
    let bad = |call: &'static str| move |e: String| CometError { call, rule: e };
    let signed = result("/commit", commit)?;
    let signed =
        signed.get("signed_header").cloned().ok_or_else(|| bad("/commit")("signed_header is missing".into()))?;
    let signed: SignedHeader = serde_json::from_value(signed).map_err(|e| bad("/commit")(e.to_string()))?;
    let set = result("/validators", validators)?;
    let list = set.get("validators").cloned().ok_or_else(|| bad("/validators")("validators is missing".into()))?;
    let list: Vec<Info> = serde_json::from_value(list).map_err(|e| bad("/validators")(e.to_string()))?;
    if list.len() != signed.commit.signatures.len() {
        return Err(bad("/validators")("not all validators of this height; ask with per_page=100".into()));
    }
    pack_parts(signed, list).map_err(bad("/commit"))
}

/// Whether every signature and key is base64 to its end. The library that reads them panics on text that is cut.
fn base64_is_whole(v: &serde_json::Value) -> bool {
    use serde_json::Value;
    match v {
        Value::Array(list) => list.iter().all(base64_is_whole),
        Value::Object(map) => map.iter().all(|(name, v)| match v {
            Value::String(text) if ["signature", "value"].contains(&name.as_str()) => STANDARD.decode(text).is_ok(),
            v => base64_is_whole(v),
        }),
        _ => true,
    }
}

fn pack_parts(mut signed: SignedHeader, validators: Vec<Info>) -> Result<Packed, String> {
    for sig in &mut signed.commit.signatures {
        if sig.is_nil() {
            *sig = CommitSig::BlockIdFlagAbsent;
        }
    }
    let raw = RawValidatorSet {
        validators: validators
            .into_iter()
            .map(|v| Info { name: None, proposer_priority: 0.into(), ..v }.into())
            .collect(),
        proposer: None,
        total_voting_power: 0,
    };
    let set = Set::try_from(raw).map_err(|e| e.to_string())?;
    Ok(Packed {
        height: signed.header.height.value(),
        app_hash: signed.header.app_hash.as_bytes().to_vec(),
        header: Protobuf::<RawSignedHeader>::encode_vec(signed),
        validators: Protobuf::<RawValidatorSet>::encode_vec(set),
    })
}

/// A header with its commit and validators, decoded but not believed.
pub(super) struct Block {
    signed: SignedHeader,
    set: Set,
}

impl Block {
    /// Decodes both, and refuses bytes that are not in normal form.
    pub(super) fn read(header: &[u8], validators: &[u8]) -> Result<Self, Invalid> {
        let bad = |e: tendermint_proto::Error| {
            fail("header", format!("the header does not decode: {}", short(&e.to_string())))
        };
        let signed = <SignedHeader as Protobuf<RawSignedHeader>>::decode_vec(header).map_err(bad)?;
        if Protobuf::<RawSignedHeader>::encode_vec(signed.clone()) != header {
            return Err(fail("header", "the header is not in its normal form"));
        }
        let bad = |e: tendermint_proto::Error| {
            fail("validators", format!("the validators do not decode: {}", short(&e.to_string())))
        };
        let set = <Set as Protobuf<RawValidatorSet>>::decode_vec(validators).map_err(bad)?;
        let plain = set.validators.iter().all(|v| v.name.is_none() && v.proposer_priority.value() == 0);
        if !plain || set.proposer.is_some() || Protobuf::<RawValidatorSet>::encode_vec(set.clone()) != validators {
            return Err(fail("validators", "the validators are not in their normal form"));
        }
        Ok(Self { signed, set })
    }

    pub(super) fn chain(&self) -> &str {
        self.signed.header.chain_id.as_str()
    }

    pub(super) fn height(&self) -> u64 {
        self.signed.header.height.value()
    }

    pub(super) fn app_hash(&self) -> &[u8] {
        self.signed.header.app_hash.as_bytes()
    }

    /// The header's time, milliseconds since 1970.
    pub(super) fn time_ms(&self) -> u64 {
        u64::try_from(self.signed.header.time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
    }

    /// The validators are the epoch's, and the header names them.
    pub(super) fn check_validators(&self, epoch: &Epoch) -> Result<(), Invalid> {
        let theirs = self.set.hash();
        if !same(&theirs, &epoch.validators_hash) {
            return Err(fail(
                "validators",
                format!("these validators are not those that trust.json gives for epoch {}", epoch.n),
            ));
        }
        if theirs != self.signed.header.validators_hash {
            return Err(fail("validators", "the header names other validators"));
        }
        Ok(())
    }

    /// More than 2/3 of the power signed this header, and every signature shown verifies.
    pub(super) fn check_commit(&self) -> Result<usize, Invalid> {
        let state = UntrustedBlockState { signed_header: &self.signed, validators: &self.set, next_validators: None };
        let verifier = ProdVerifier::default();
        // verify_commit alone does not tie the header to the commit: both are needed.
        for verdict in [verifier.verify_validator_sets(&state), verifier.verify_commit(&state)] {
            match verdict {
                Verdict::Success => {}
                Verdict::NotEnoughTrust(tally) => {
                    return Err(fail(
                        "commit",
                        format!("{} of {} voting power signed, more than 2/3 is needed", tally.tallied, tally.total),
                    ));
                }
                Verdict::Invalid(detail) => return Err(fail("commit", short(&detail.to_string()))),
            }
        }
        self.check_votes()
    }

    /// The light client stops at 2/3; here the rest is checked too, so that no byte is free.
    fn check_votes(&self) -> Result<usize, Invalid> {
        let mut votes = 0;
        for (i, (sig, validator)) in self.signed.commit.signatures.iter().zip(&self.set.validators).enumerate() {
            let vote = match sig {
                CommitSig::BlockIdFlagAbsent => continue,
                CommitSig::BlockIdFlagNil { .. } => {
                    return Err(fail("commit", "a vote for no block has no place in a receipt"));
                }
                CommitSig::BlockIdFlagCommit { validator_address, .. } if *validator_address != validator.address => {
                    return Err(fail("commit", "a vote does not stand at its validator's place"));
                }
                CommitSig::BlockIdFlagCommit { .. } => vote_of(&self.signed.commit, sig, i),
            };
            let signed = vote.and_then(|v| SignedVote::from_vote(v, self.signed.header.chain_id.clone()));
            let signed = signed.ok_or_else(|| fail("commit", "a vote has no signature"))?;
            let verified = validator.verify_signature(&Zip215, &signed.sign_bytes(), signed.signature());
            verified
                .map_err(|_| fail("commit", format!("the vote of validator {} does not verify", validator.address)))?;
            votes += 1;
        }
        Ok(votes)
    }
}

fn vote_of(commit: &Commit, sig: &CommitSig, index: usize) -> Option<Vote> {
    let CommitSig::BlockIdFlagCommit { validator_address, timestamp, signature } = sig else { return None };
    Some(Vote {
        vote_type: Type::Precommit,
        height: commit.height,
        round: commit.round,
        block_id: Some(commit.block_id),
        timestamp: Some(*timestamp),
        validator_address: *validator_address,
        validator_index: ValidatorIndex::try_from(index).ok()?,
        signature: signature.clone(),
        extension: Vec::new(),
        extension_signature: None,
    })
}

fn same(theirs: &tendermint::Hash, ours: &Hash) -> bool {
    theirs.as_bytes() == ours
}

/// Library messages can hold whole dumps: the first sentence is enough.
fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(160).collect()
}
