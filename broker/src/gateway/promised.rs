//! Responses that came before their record: what is checked before rows are handed on under a promise (PROTOCOL 9).
//!
//! Everything that a released response proves is proven here too, but the entry on the ledger. In its place stands the
//! provider's signed promise, with which the ledger can be asked to end such releases.

use super::check::{Checked, Expected, ProofError, check_unrecorded};
use concordat_protocol::cbor;
use concordat_protocol::keys::{Signature, Statement, Suite};
use concordat_protocol::limits::HEAD_STALE_MS;
use concordat_protocol::ops::Op;
use concordat_protocol::session::{Promised, ReleasePromise};
use concordat_protocol::terms::{Effect, Evidence, Status, Terms};

fn fail<T>(sentence: impl Into<String>) -> Result<T, ProofError> {
    Err(ProofError { check: "promise", sentence: sentence.into() })
}

/// Checks all but the sealed content. `now_ms` is ledger time here: the newest tick and what passed since.
pub fn check_promised(x: &Expected<'_>, p: &Promised, now_ms: u64) -> Result<(Checked, ReleasePromise), ProofError> {
    let checked = check_unrecorded(x, &p.released)?;
    let said: ReleasePromise = match cbor::decode(&p.promise) {
        Ok(said) => said,
        Err(e) => return fail(format!("the promise does not decode: {e}")),
    };
    let Op::BreakGlass { handle, session, n, .. } = &checked.op else {
        return fail("only an override may come before its record");
    };
    let place = (said.session, said.n, said.handle);
    let same = said.chain == x.chain
        && said.provider == x.request.provider
        && place == (*session, *n, *handle)
        && said.request_hash == x.request.hash()
        && said.op_hash == p.released.ticket.op_hash;
    if !same {
        return fail("it promises another operation than the one that came");
    }
    signed(x, p, &said)?;
    bound(x, *handle, &said, now_ms)?;
    Ok((checked, said))
}

/// The key was checked with the release: role, owner, not revoked.
fn signed(x: &Expected<'_>, p: &Promised, said: &ReleasePromise) -> Result<(), ProofError> {
    let Some(key) = x.key else { return fail("its key is not on the ledger") };
    // The ledger takes a complaint with a signature of 64 bytes alone.
    if p.promise_signature.0.len() != 64 {
        return fail("its signature has not 64 bytes");
    }
    let signature =
        Signature { suite: Suite::Ed25519, ed25519: p.promise_signature.clone(), pq: cbor::Bytes::default() };
    match key.key.verify_full(Statement::Promise, &said.chain, &p.promise, &signature) {
        Ok(()) => Ok(()),
        Err(e) => fail(e.to_string()),
    }
}

/// The clause allows it now, within the bound that was agreed.
fn bound(x: &Expected<'_>, handle: u64, said: &ReleasePromise, now_ms: u64) -> Result<(), ProofError> {
    let found = x.agreements.iter().find_map(|a| Some((a, a.handles.iter().position(|h| *h == handle)?)));
    let Some((view, at)) = found else { return fail("its handle is of no agreement on the ledger") };
    let terms: Option<Terms> = cbor::decode(&view.terms).ok();
    let Some(clause) = terms.and_then(|t| t.clauses.get(at).cloned()) else { return fail("its terms do not decode") };
    if clause.effect != Effect::BreakGlass || clause.evidence != (Evidence::Bounded { max_lag_ms: said.max_lag_ms }) {
        return fail(format!("{} does not allow a record {} ms later", clause.id, said.max_lag_ms));
    }
    if view.status != Status::Active || view.bounded_suspended != 0 {
        return fail(format!("nothing is released before its record under {} now", view.agreement));
    }
    // A later time would put the record off for ever; an earlier one binds the provider alone.
    if said.delivered_ms > now_ms.saturating_add(HEAD_STALE_MS) {
        return fail("it names a time of release that has not come");
    }
    Ok(())
}

#[cfg(test)]
#[path = "promised_tests.rs"]
mod tests;
