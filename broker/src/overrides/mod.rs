//! Overrides (break-glass) at an agency's broker: which uses wait for a review, reviewing them, and telling operators of a
//! provider that somebody overrode.

mod review;
mod watch;

pub(crate) use review::TABLES;
pub use review::{Review, ReviewError, Reviewed, Reviews};
pub use watch::OverrideWatch;

use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::{AgreementView, ReviewDue};

/// Whether an agency is a party of the agreement that a review is due under.
pub fn is_party(agency: &AgencyId, due: &ReviewDue, agreements: &[AgreementView]) -> bool {
    let terms = |v: &AgreementView| concordat_protocol::cbor::decode::<concordat_protocol::terms::Terms>(&v.terms).ok();
    agreements
        .iter()
        .filter(|v| v.agreement == due.agreement)
        .filter_map(terms)
        .any(|t| t.assigner == *agency || t.assignee.as_ref() == Some(agency))
}
