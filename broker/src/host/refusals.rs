//! Denials that are not the policy's: of a busy provider, of its store, of agreements that ended.

use super::policy::Policies;
use concordat_executor::decide::denied;
use concordat_executor::holding::HoldingError;
use concordat_protocol::codes;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::session::{Denied, Request};
use concordat_protocol::terms::Status;

/// The provider cannot answer now.
pub(super) fn busy(detail: String) -> Denied {
    Denied { retry: 1, ..denied(codes::BUSY, "provider-busy", detail) }
}

/// What the consumer is told of the provider's store: what it can do about, and of anything else only the code.
pub(super) fn store_failed(e: HoldingError) -> Denied {
    use HoldingError::{BlackOut, Busy, Timeout, TooMuch, TooWide};
    match e {
        Timeout | TooMuch { .. } | TooWide { .. } => Denied { retry: 0, ..busy(format!("{}: {e}", e.code())) },
        Busy { .. } | BlackOut { .. } => busy(format!("{}: {e}", e.code())),
        other => busy(format!("the provider's store: {}", other.code())),
    }
}

/// What no agreement in force covers is told as "suspended" or "revoked" where that is the reason.
pub(super) fn explain_inactive(denial: Denied, policies: &Policies, request: &Request, consumer: &AgencyId) -> Denied {
    let denial = explain_renewal(denial, policies);
    let nothing = denial.code == codes::NO_AGREEMENT;
    // Another agreement's nearest clause is no help to somebody whose own agreement was stopped.
    let uncovered = nothing || ["purpose", "unknown-clause"].contains(&denial.reason.as_str());
    let found = policies.why_inactive(&request.dataset, consumer, &request.purpose);
    let Some(found) = found.filter(|f| nothing || (uncovered && f.covers)) else { return denial };
    let code = match found.status {
        Status::Suspended => codes::SUSPENDED,
        Status::Revoked => codes::REVOKED,
        Status::Superseded => codes::SUPERSEDED,
        _ => codes::NO_AGREEMENT,
    };
    let detail = format!("{} is {}: {}", found.agreement, found.status, codes::text(code));
    denied(code, found.status.word(), detail)
}

/// A denial under an agreement whose renewal is not applied says so: the consumer may have read the renewed document.
fn explain_renewal(denial: Denied, policies: &Policies) -> Denied {
    let agreement = denial.clause.split_once('/').and_then(|(agreement, _)| AgreementId::new(agreement).ok());
    match agreement.as_ref().and_then(|a| policies.refused_renewal(a)) {
        Some(why) => Denied { detail: format!("{} ({why})", denial.detail), ..denial },
        None => denial,
    }
}
