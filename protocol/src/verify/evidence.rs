//! The parties' halves: opened leaves, the consumer's request, the provider's release, the content.

use super::subject::{Subject, commitment};
use super::{Invalid, Passed, bytes, fail};
use crate::acts::KeyRole;
use crate::hash::Hash;
use crate::ids::AgencyId;
use crate::keys::{Statement, signed_bytes, verify_ed25519};
use crate::leaves::{Redacted, commitment as names};
use crate::ops::Op;
use crate::receipt::{Receipt, ReleasePart, RequestPart};
use crate::session::{Content, Release};

/// Most steps from a request to the signed root: 256 requests a signature.
const REQUEST_PATH_MAX: usize = crate::limits::REQUESTS_PER_SIGNATURE.ilog2() as usize;

pub(super) struct Halves {
    pub(super) contested: bool,
}

/// The opened leaves belong to the operation's commitment.
pub(super) fn openings(r: &Receipt, op: Option<&Op>, passed: &mut Passed) -> Result<(), Invalid> {
    let Some(openings) = &r.openings else { return Ok(()) };
    let root =
        op.and_then(commitment).ok_or_else(|| fail("commitment", "this kind of entry has no commitment to open"))?;
    openings.verify(root).map_err(|e| fail("commitment", e.to_string()))?;
    let names: Vec<&str> = openings.opened().map(|(name, _)| name).collect();
    passed.add("commitment", format!("opened leaves belong to the operation: {}", names.join(", ")));
    Ok(())
}

/// Both halves, as far as the kind of the entry has them.
pub(super) fn halves(r: &Receipt, op: Option<&Op>, subject: &Subject, passed: &mut Passed) -> Result<Halves, Invalid> {
    let must = matches!(op, Some(Op::Query { .. } | Op::Intent { .. } | Op::BreakGlass { .. }));
    let fields = op.and_then(Op::recorded).filter(|f| f.n > 0);
    match (&r.request, fields) {
        (None, _) if must => return Err(fail("request_signature", "the consumer's signed request is missing")),
        (None, _) => {}
        (Some(_), None) => return Err(fail("request", "this kind of entry rests on no request")),
        (Some(part), Some(f)) => {
            session(r, part, subject.agency(), passed)?;
            if (part.request.session, part.request.n) != (f.session, f.n) {
                return Err(fail("request", "the request has another session or number than the operation"));
            }
            request(r, part, matches!(op, Some(Op::Deny { .. })), passed)?;
        }
    }
    match (&r.release, &r.request) {
        (None, _) => Ok(Halves { contested: false }),
        (Some(part), Some(request)) if must => release(r, part, request, subject.agency(), passed),
        (Some(_), _) => Err(fail("release_signature", "this kind of entry releases nothing")),
    }
}

/// The session stands in the state, between these two parties.
fn session(r: &Receipt, part: &RequestPart, provider: &AgencyId, passed: &mut Passed) -> Result<(), Invalid> {
    let root = part.session_path.root(&part.session_leaf()).map_err(|e| fail("session", e.to_string()))?;
    if root != r.roots.heads {
        return Err(fail("session", format!("session {} with this key is not in the state", part.request.session)));
    }
    if part.session.provider != *provider || part.request.provider != *provider {
        return Err(fail("session", format!("session and request must be for {provider}, who wrote the operation")));
    }
    let (n, consumer) = (part.request.session, &part.session.consumer);
    passed.add("session", format!("session {n} of {consumer} with {provider} stands in the state with its key"));
    Ok(())
}

/// The session key signed the request, and the operation commits to it.
fn request(r: &Receipt, part: &RequestPart, denied: bool, passed: &mut Passed) -> Result<(), Invalid> {
    let q = &part.request;
    if q.chain != r.chain {
        return Err(fail("chain", format!("the request is for chain {}", q.chain)));
    }
    if part.path.hashes.len() > REQUEST_PATH_MAX {
        return Err(fail("request_signature", "more requests under one signature than the protocol allows"));
    }
    let leaf = crate::tree::leaf_hash(&bytes(q));
    let root = part.path.root(&leaf).map_err(|e| fail("request_signature", e.to_string()))?;
    let message = signed_bytes(Statement::Request, &r.chain, &bytes(&root));
    verify_ed25519(&part.session.key, &message, &part.signature)
        .map_err(|_| fail("request_signature", "the session key did not sign this request"))?;
    passed.add("request_signature", format!("{} signed the request", part.session.consumer));
    let opened = r.openings.as_ref().ok_or_else(|| fail("request", "the operation's leaves are missing"))?;
    let hash = hash_leaf(opened, names::REQUEST_HASH, "request")?;
    if hash != q.hash() {
        return Err(fail("request", "the operation is about another request"));
    }
    agrees(opened, names::CONSUMER, part.session.consumer.as_str())?;
    agrees(opened, names::PURPOSE, &q.purpose)?;
    agrees(opened, names::CASE, &q.case)?;
    let clause = opened.get(names::CLAUSE).unwrap_or_default();
    let tail = clause.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let asked = q.clause.rsplit('/').next().unwrap_or_default();
    // A denial names the clause that forbade, which may be another one.
    if !denied && !asked.is_empty() && !clause.is_empty() && tail != asked.as_bytes() {
        return Err(fail("request", "the operation rests on another clause than the request named"));
    }
    passed
        .add("request", "the operation commits to this request; consumer, clause, purpose and case agree where opened");
    Ok(())
}

/// An opened text leaf equals what the request says.
fn agrees(opened: &Redacted, name: &'static str, want: &str) -> Result<(), Invalid> {
    match opened.get(name) {
        Some(value) if value != want.as_bytes() => {
            Err(fail("request", format!("the opened {name} is not the request's")))
        }
        _ => Ok(()),
    }
}

/// A leaf of 32 bytes that has to be opened.
fn hash_leaf(opened: &Redacted, name: &'static str, check: &'static str) -> Result<Hash, Invalid> {
    let value = opened.get(name).ok_or_else(|| fail(check, format!("the leaf {name} must be opened")))?;
    value.try_into().map_err(|_| fail(check, format!("the leaf {name} must have 32 bytes")))
}

/// The provider's executor signed the release, with a key that was good at the entry's tick.
fn release(
    r: &Receipt,
    part: &ReleasePart,
    request: &RequestPart,
    provider: &AgencyId,
    passed: &mut Passed,
) -> Result<Halves, Invalid> {
    let root = part.key_path.root(&part.key_leaf()).map_err(|e| fail("release_key", e.to_string()))?;
    if root != r.roots.meta {
        return Err(fail("release_key", "the release key is not in the state as shown"));
    }
    let (key, tick) = (&part.key, r.entry.tick_ms);
    if key.role != KeyRole::Release {
        return Err(fail("release_key", format!("a {} key cannot release", key.role)));
    }
    if key.agency != *provider {
        return Err(fail("release_key", format!("the release key is of {}, the operation of {provider}", key.agency)));
    }
    if key.revoked_ms != 0 && key.revoked_ms <= tick {
        return Err(fail(
            "release_key",
            format!("the release key was revoked at {} ms, before the entry ({tick} ms)", key.revoked_ms),
        ));
    }
    passed.add("release_key", format!("{provider} registered the release key, and it was not revoked at the entry"));
    let opened = r.openings.as_ref().ok_or_else(|| fail("content_root", "the operation's leaves are missing"))?;
    let content_root = hash_leaf(opened, names::CONTENT_ROOT, "content_root")?;
    let release = Release { request_hash: request.request.hash(), op_hash: r.entry.op_hash, content_root };
    key.key
        .verify_full(Statement::Release, &r.chain, &bytes(&release), &part.signature)
        .map_err(|e| fail("release_signature", format!("{provider} did not sign this release: {e}")))?;
    passed.add("release_signature", format!("{provider} signed the release of this content for this request"));
    Ok(Halves { contested: key.compromised_since_ms != 0 && key.compromised_since_ms <= tick })
}

/// The content given is the content that was released.
pub(super) fn content(r: &Receipt, content: Option<&Content>, passed: &mut Passed) -> Result<(), Invalid> {
    let Some(content) = content else { return Ok(()) };
    let opened = r.openings.as_ref().ok_or_else(|| fail("content_root", "the receipt opens no content root"))?;
    if hash_leaf(opened, names::CONTENT_ROOT, "content_root")? != content.root() {
        return Err(fail("content_root", "the content given is not what the operation records"));
    }
    let rows = content.rows.len() as u64;
    if opened.get(names::COUNT).is_some_and(|c| c != rows.to_be_bytes()) {
        return Err(fail("content_root", format!("the content has {rows} rows, the operation records another count")));
    }
    passed.add("content_root", format!("the content given ({rows} rows) is what the operation records"));
    Ok(())
}

/// The consumer, where the receipt shows it.
pub(super) fn consumer(r: &Receipt) -> Option<AgencyId> {
    let opened = || {
        let value = r.openings.as_ref()?.get(names::CONSUMER)?;
        AgencyId::new(core::str::from_utf8(value).ok()?).ok()
    };
    r.request.as_ref().map(|p| p.session.consumer.clone()).or_else(opened)
}
