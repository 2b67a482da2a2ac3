//! One function for every decoder that meets bytes from outside. `cargo fuzz` calls them without end, `cargo test`
//! (`tests/fuzz.rs`) for a bounded while: neither may panic, and what is read has exactly these bytes as its encoding.

use concordat_protocol::access::{ACCESS_DECODE_MAX, AccessEntry, AccessList};
use concordat_protocol::acts::{Act, ActBody};
use concordat_protocol::c2sp::{self, Note, NoteSignature, TileId, TreeHead, VerifierKey};
use concordat_protocol::cbor::{Canon, decode, encode};
use concordat_protocol::evidence::{
    CheckpointView, DisputeView, EpochView, LeavesProof, NamedOp, SignedEpoch, TimeStamp,
};
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId, OpRef, WriterId};
use concordat_protocol::keys::{KemKey, KeyId, PublicKey, Signature};
use concordat_protocol::leaves::Redacted;
use concordat_protocol::message::{
    Envelope, EnvelopeHeader, Event, PlainReader, Record, RedactedEnvelope, parse_ijson,
};
use concordat_protocol::node::{
    AgreementView, EntryProof, Frame, HeadView, KeyView, LeafProof, NodeReply, NodeRequest, SessionLeaf, WriterView,
};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tags, Tx};
use concordat_protocol::receipt::{Checkpoint, Cosign, Path, Receipt};
use concordat_protocol::runs::{RunProof, RunView};
use concordat_protocol::seal::{ENCAPSULATION_LEN, SealReceiver};
use concordat_protocol::session::{
    Content, Denied, FeedItem, Promise, QueryCall, QueryReply, Release, Released, Request, SignedRequest, Ticket,
};
use concordat_protocol::subscribe::{
    ExchangeCommand, ExchangeReply, NewSubscription, SubscribeCommand, SubscribeReply,
};
use concordat_protocol::terms::{ClauseTerms, Evidence, Quota, Terms};
use concordat_protocol::tree::{AdjacentProof, Frontier, SortedProof};
use concordat_protocol::trust::{EpochBody, KeyLine, Trust};
use concordat_protocol::verify::{comet, verify, verify_access, verify_block};
use std::sync::LazyLock;

/// Reads bytes, and says whether they were a value. Panics if the value has another encoding than these bytes.
pub type Decoder = fn(&[u8]) -> bool;

/// A name and what it reads.
pub type Named = (&'static str, Decoder);

/// The trust file of the vectors.
static TRUST: LazyLock<Trust> =
    LazyLock::new(|| Trust::from_json(include_str!("../../vectors/receipt/trust.json")).expect("vectors"));

fn canonical<T: Canon>(bytes: &[u8]) -> bool {
    let Ok(value) = decode::<T>(bytes) else { return false };
    assert!(encode(&value) == bytes, "two encodings of one value");
    true
}

macro_rules! types {
    ($($t:ident),* $(,)?) => { &[$((stringify!($t), canonical::<$t> as Decoder)),*] };
}

/// What the ledger reads from transactions and keeps in its log.
const LEDGER: &[Named] = types!(Tx, Op, Tags, Batch, LogEntry, RunView, RunProof);
/// Decisions of agencies.
const ACTS: &[Named] = types!(Act, ActBody, SignedEpoch, EpochBody, Terms, ClauseTerms, Evidence, Quota);
/// A query and its answer.
const QUERIES: &[Named] =
    types!(Request, SignedRequest, QueryCall, QueryReply, Ticket, Release, Released, Content, Denied);
/// A feed and the commands about it.
const FEEDS: &[Named] = types!(
    Envelope,
    EnvelopeHeader,
    Record,
    RedactedEnvelope,
    Promise,
    FeedItem,
    NewSubscription,
    SubscribeCommand,
    SubscribeReply,
    ExchangeCommand,
    ExchangeReply
);
/// Questions to a node and its answers.
const NODE: &[Named] = types!(
    NodeRequest,
    NodeReply,
    Frame,
    HeadView,
    WriterView,
    KeyView,
    AgreementView,
    SessionLeaf,
    LeafProof,
    EntryProof
);
/// Checkpoints, epochs, disputes.
const EVIDENCE: &[Named] =
    types!(Checkpoint, Cosign, CheckpointView, EpochView, KeyLine, NamedOp, DisputeView, LeavesProof, TimeStamp);
/// Keys, signatures, proofs.
const PARTS: &[Named] = types!(PublicKey, Signature, KeyId, Redacted, Path, Frontier, AdjacentProof, SortedProof);

const RECEIPT: &[Named] = &[("Receipt", receipt)];
const ACCESS: &[Named] = &[("AccessList", access), ("AccessEntry", canonical::<AccessEntry>)];
const TRUST_FILE: &[Named] = &[("trust.json", trust_file)];
const COMET: &[Named] = &[("block", block), ("answers", answers)];
const EVENT: &[Named] = &[("Event", event), ("I-JSON", ijson), ("plain", plain)];
const TEXT: &[Named] = &[
    ("AgencyId", id::<AgencyId>),
    ("AgreementId", id::<AgreementId>),
    ("DatasetId", id::<DatasetId>),
    ("WriterId", id::<WriterId>),
    ("operation", operation),
    ("public key", public_key),
];
const C2SP: &[Named] = &[
    ("TreeHead", id::<TreeHead>),
    ("TileId", id::<TileId>),
    ("Note", id::<Note>),
    ("NoteSignature", note_signature),
    ("VerifierKey", verifier_key),
    ("bundle", bundle),
];
const SEALED: &[Named] = &[("encapsulation", encapsulation), ("sealed", sealed)];

/// All decoders by fuzz target.
pub const GROUPS: &[(&str, &[Named])] = &[
    ("ledger", LEDGER),
    ("acts", ACTS),
    ("queries", QUERIES),
    ("feeds", FEEDS),
    ("node", NODE),
    ("evidence", EVIDENCE),
    ("parts", PARTS),
    ("receipt", RECEIPT),
    ("access", ACCESS),
    ("trust", TRUST_FILE),
    ("comet", COMET),
    ("event", EVENT),
    ("text", TEXT),
    ("c2sp", C2SP),
    ("sealed", SEALED),
];

/// Gives bytes to every decoder of a fuzz target.
#[allow(dead_code)] // The bounded run counts what is read, and calls the decoders itself.
pub fn run(target: &str, bytes: &[u8]) {
    let group = GROUPS.iter().find(|(name, _)| *name == target).map(|(_, decoders)| *decoders);
    for (_, decoder) in group.expect("a target of GROUPS") {
        decoder(bytes);
    }
}

fn receipt(bytes: &[u8]) -> bool {
    let read = canonical::<Receipt>(bytes);
    assert!(Receipt::from_bytes(bytes).is_ok() == read || bytes.len() > 1 << 20);
    if read {
        let _ = verify(bytes, &TRUST, None);
    }
    read
}

fn access(bytes: &[u8]) -> bool {
    let read = bytes.len() <= ACCESS_DECODE_MAX && canonical::<AccessList>(bytes);
    if read {
        let _ = verify_access(bytes, &TRUST);
    }
    read
}

/// The file is for people too: other spaces and orders are the same file, but what is written is read again alike.
fn trust_file(bytes: &[u8]) -> bool {
    let Some(trust) = text(bytes).and_then(|t| Trust::from_json(t).ok()) else { return false };
    let _ = trust.check();
    assert!(Trust::from_json(&trust.to_json()).is_ok_and(|again| again == trust), "trust.json reads back otherwise");
    true
}

fn text(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok()
}

/// A header and validators side by side, as a receipt holds them: the first two bytes say where the second begins.
fn block(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let at = usize::from(u16::from_be_bytes(*len)).min(rest.len());
    verify_block(&rest[..at], &rest[at..], &TRUST).is_ok()
}

/// Two answers of CometBFT's RPC, with a line feed between them.
fn answers(bytes: &[u8]) -> bool {
    let Some((commit, validators)) = text(bytes).and_then(|t| t.split_once('\n')) else { return false };
    comet::pack(commit, validators).is_ok_and(|p| !p.header.is_empty())
}

fn event(bytes: &[u8]) -> bool {
    let Ok(event) = Event::parse(bytes) else { return false };
    let kept = event.to_bytes().expect("an event that was read is written");
    // RFC 8785 can be longer than what was read; then the limit refuses it.
    if let Ok(again) = Event::parse(&kept) {
        assert!(again == event && again.to_bytes().is_ok_and(|b| b == kept), "an event reads back otherwise");
    }
    true
}

fn ijson(bytes: &[u8]) -> bool {
    parse_ijson(bytes).is_ok()
}

/// The fast reader of the adapters: whatever it takes for plain is JSON to the strict one too.
fn plain(bytes: &[u8]) -> bool {
    let Some(mut reader) = PlainReader::new(bytes) else { return false };
    reader.space();
    let read = reader.object(false, |r, _| r.value().map(drop)).is_some();
    reader.space();
    read && reader.at_end()
}

fn id<T: core::str::FromStr + core::fmt::Display>(bytes: &[u8]) -> bool {
    let Some(t) = text(bytes) else { return false };
    let Ok(id) = t.parse::<T>() else { return false };
    assert!(id.to_string() == t, "a name has two spellings");
    true
}

fn operation(bytes: &[u8]) -> bool {
    let Some(op) = text(bytes).and_then(|t| t.parse::<OpRef>().ok()) else { return false };
    op.to_string().parse::<OpRef>() == Ok(op)
}

fn public_key(bytes: &[u8]) -> bool {
    let Some(key) = text(bytes).and_then(|t| PublicKey::from_text(t).ok()) else { return false };
    assert!(PublicKey::from_text(&key.to_text()).is_ok_and(|again| again == key));
    true
}

fn note_signature(bytes: &[u8]) -> bool {
    let Some(line) = text(bytes).and_then(|t| t.parse::<NoteSignature>().ok()) else { return false };
    assert!(line.to_string().trim_end().parse() == Ok(line));
    true
}

fn verifier_key(bytes: &[u8]) -> bool {
    let Some(key) = text(bytes).and_then(|t| t.parse::<VerifierKey>().ok()) else { return false };
    assert!(key.to_string().parse() == Ok(key));
    true
}

/// What a witness reads of a log: leaves with their lengths.
fn bundle(bytes: &[u8]) -> bool {
    c2sp::read_bundle(bytes).is_ok_and(|leaves| leaves.iter().map(|l| l.len() + 2).sum::<usize>() == bytes.len())
}

/// The consumer's key of the vectors.
static KEM: LazyLock<KemKey> = LazyLock::new(|| KemKey::from_seed([0x51; 32]).expect("a seed"));

fn encapsulation(bytes: &[u8]) -> bool {
    let receiver = SealReceiver::new(&KEM, bytes, "city-1", "session/70000", 0);
    assert!(receiver.is_err() || bytes.len() == ENCAPSULATION_LEN);
    receiver.is_ok()
}

/// Nothing that was not sealed for this number and header opens.
fn sealed(bytes: &[u8]) -> bool {
    static RECEIVER: LazyLock<SealReceiver> = LazyLock::new(|| {
        SealReceiver::new(&KEM, &[7; ENCAPSULATION_LEN], "city-1", "session/70000", 0).expect("an encapsulation")
    });
    RECEIVER.open(23, b"header", bytes).is_ok()
}
