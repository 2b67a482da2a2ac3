//! CometBFT's half of the synthetic city: headers, votes, and the JSON its RPC would answer.

use crate::world::{CHAIN, Spec, Val, b64};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::verify::comet::{Packed, pack};
use ed25519_dalek::Signer as _;
use serde_json::json;
use tendermint::block::header::Version;
use tendermint::block::signed_header::SignedHeader;
use tendermint::block::{Commit, CommitSig, Header, Height, Id, Round, parts};
use tendermint::validator::{Info, Set};
use tendermint::vote::{Type, ValidatorIndex, Vote};
use tendermint::{AppHash, PublicKey as CometKey, Time};

fn hash(of: &str) -> tendermint::Hash {
    tendermint::Hash::Sha256(sha256(&[of.as_bytes()]))
}

fn info(v: &Val) -> Info {
    let key = CometKey::from_raw_ed25519(v.key.verifying_key().as_bytes()).unwrap();
    Info::new(key, v.power.try_into().unwrap())
}

/// The header of the next height with its commit, by way of the JSON that CometBFT's RPC answers.
pub fn block(s: &Spec, app: &Hash) -> Packed {
    let set = Set::new(s.vals.iter().map(info).collect(), None);
    let header = Header {
        version: Version { block: 11, app: 1 },
        chain_id: CHAIN.parse().unwrap(),
        height: Height::try_from(s.height + 1).unwrap(),
        time: Time::from_unix_timestamp(1_790_000_001, 5_000_000).unwrap(),
        last_block_id: Some(block_id(hash("last"))),
        last_commit_hash: Some(hash("last commit")),
        data_hash: Some(hash("data")),
        validators_hash: set.hash(),
        next_validators_hash: set.hash(),
        consensus_hash: hash("consensus"),
        app_hash: AppHash::try_from(app.to_vec()).unwrap(),
        last_results_hash: Some(hash("results")),
        evidence_hash: Some(hash("")),
        proposer_address: set.validators[0].address,
    };
    let id = block_id(header.hash());
    let signatures = set.validators.iter().enumerate().map(|(i, v)| vote(s, v, i, id)).collect();
    let commit = Commit { height: header.height, round: Round::from(0u8), block_id: id, signatures };
    let signed = SignedHeader::new(header, commit).unwrap();
    let answer = json!({"jsonrpc": "2.0", "id": -1, "result": {"signed_header": signed, "canonical": true}});
    pack(&answer.to_string(), &validators_answer(&set)).unwrap()
}

fn validators_answer(set: &Set) -> String {
    let one = |v: &Info| {
        json!({"address": v.address, "pub_key": {"type": "tendermint/PubKeyEd25519", "value": b64(&v.pub_key.to_bytes())},
               "voting_power": v.power.value().to_string(), "proposer_priority": "-30"})
    };
    let list: Vec<_> = set.validators.iter().map(one).collect();
    json!({"block_height": "13", "validators": list, "count": "4", "total": "4"}).to_string()
}

fn block_id(hash_: tendermint::Hash) -> Id {
    Id { hash: hash_, part_set_header: parts::Header::new(1, hash("parts")).unwrap() }
}

/// The vote of the validator at place `i`: for the block if its agency is among the signers, else for none.
fn vote(s: &Spec, v: &Info, i: usize, id: Id) -> CommitSig {
    let at = s.vals.iter().position(|own| own.key.verifying_key().as_bytes()[..] == v.pub_key.to_bytes()[..]).unwrap();
    let signs = s.signers.contains(&at);
    let timestamp = Time::from_unix_timestamp(1_790_000_001, 9_000_000 + i as u32).unwrap();
    let mut vote = Vote {
        vote_type: Type::Precommit,
        height: Height::try_from(s.height + 1).unwrap(),
        round: Round::from(0u8),
        block_id: signs.then_some(id),
        timestamp: Some(timestamp),
        validator_address: v.address,
        validator_index: ValidatorIndex::try_from(i).unwrap(),
        signature: None,
        extension: vec![],
        extension_signature: None,
    };
    let message = vote.clone().into_signable_vec(CHAIN.parse().unwrap());
    vote.signature = tendermint::Signature::new(s.vals[at].key.sign(&message).to_bytes()).unwrap();
    let (validator_address, signature) = (v.address, vote.signature);
    match (signs, i % 2) {
        (true, _) => CommitSig::BlockIdFlagCommit { validator_address, timestamp, signature },
        (false, 0) => CommitSig::BlockIdFlagNil { validator_address, timestamp, signature },
        (false, _) => CommitSig::BlockIdFlagAbsent,
    }
}
