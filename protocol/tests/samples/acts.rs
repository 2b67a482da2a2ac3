//! Acts of every kind.

use super::{CHAIN, Sample, TICK, ed25519, h, hybrid, id, point, sample, terms};
use concordat_protocol::acts::{Act, ActBody, ApprovalKind, KeyRole, SessionKey};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::keys::{KeyId, SigningKey};

/// Seeds of the keys that sign acts.
pub const ED25519_SEED: u8 = 0x21;
/// See [`ED25519_SEED`].
pub const HYBRID_SEED: u8 = 0x22;

fn bytes(n: u8, len: usize) -> Bytes {
    vec![n; len].into()
}

/// What agencies decide day by day.
fn daily() -> Vec<Sample<ActBody>> {
    let terms = encode(&terms::query().value);
    let terms_hash = terms::query().value.hash();
    vec![
        sample!(ActBody::Genesis { genesis_hash: h(40) }),
        sample!(ActBody::KeyAdd {
            role: KeyRole::Writer,
            label: "executor".to_owned(),
            key: ed25519(0x11).public().clone()
        }),
        sample!(ActBody::KeyRevoke { key_id: KeyId([41; 16]), compromised_since_ms: TICK - 60_000 }),
        sample!(ActBody::Dataset { id: id("ds:police/stops@1"), schema_hash: h(42) }),
        sample!(ActBody::SessionOpen {
            provider: id("court"),
            keys: vec![SessionKey { key: point(0x31) }, SessionKey { key: point(0x32) }],
            expires_ms: TICK + 3_600_000
        }),
        sample!(ActBody::SessionClose { sessions: vec![7, 70_000] }),
        sample!(ActBody::Propose { terms: terms.clone().into(), expires_ms: TICK + 86_400_000 }),
        approve(),
        sample!(ActBody::Reject { agreement: id("AGR-2026-0142"), version: 1, terms_hash, reason: h(43) }),
        sample!(ActBody::Suspend { agreement: id("AGR-2026-0142"), version: 1, reason: h(44) }),
        sample!(ActBody::Revoke { agreement: id("AGR-2026-0142"), version: 1, reason: h(45) }),
        sample!(ActBody::Renew { terms: terms.into(), expires_ms: TICK + 86_400_000 }),
        sample!(ActBody::Reset { writer: id("police/executor"), incarnation: 2, lost: h(46) }),
        sample!(ActBody::Dispute { reference: 5_821, reason: h(47) }),
        sample!(ActBody::Complaint { promise: bytes(48, 3), signature: bytes(49, 64) }),
        sample!(ActBody::Equivocation {
            first: bytes(50, 3),
            first_signature: bytes(51, 64),
            second: bytes(52, 3),
            second_signature: bytes(53, 64)
        }),
        sample!(ActBody::Roles { roles: vec!["data-protection".to_owned(), "records".to_owned()] }),
        sample!(ActBody::RoleMap { number: 1, sha256: h(54) }),
    ]
}

/// The approval of [`terms::query`] for the first time.
pub fn approve() -> Sample<ActBody> {
    sample!(ActBody::Approve {
        agreement: id("AGR-2026-0142"),
        version: 1,
        revision: 1,
        what: ApprovalKind::Activate,
        terms_hash: terms::query().value.hash(),
        prev_terms_hash: [0; 32],
        role: "records".to_owned(),
        expires_ms: TICK + 86_400_000
    })
}

/// What all agencies decide together.
fn governance() -> Vec<Sample<ActBody>> {
    vec![
        sample!(ActBody::Params { name: "run_root_delay".to_owned(), value: 64 }),
        sample!(ActBody::Validator { agency: id("court"), key: point(0x33), power: 10 }),
        sample!(ActBody::AgencyAdd { agency: id("fire-brigade"), root: hybrid(0x23).public().clone() }),
        sample!(ActBody::AgencyRemove { agency: id("fire-brigade") }),
        sample!(ActBody::Upgrade { app_version: 2, at_height: 100_000 }),
        sample!(ActBody::Epoch { body: encode(&super::evidence::signed_epoch().value).into() }),
    ]
}

/// One body of each kind, by kind.
pub fn bodies() -> Vec<Sample<ActBody>> {
    let mut all = daily();
    all.extend(governance());
    all.sort_by_key(|s| s.value.kind());
    all
}

/// The act of a body by the agency `police`; its kind is its counter, so that no two are the same.
pub fn act(body: ActBody, key: &SigningKey) -> Sample<Act> {
    let counter = body.kind();
    sample!(Act { chain: CHAIN.to_owned(), agency: id("police"), key_id: key.key_id(), counter, body })
}
