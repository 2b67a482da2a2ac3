//! Whether a clause permits a write, and how its duties confine it.

use super::WriteAsk;
use crate::decide::{QueryDocument, denied, from_policy, named_clause};
use crate::holding::DatasetSpec;
use crate::query::{Filter, parse_filter};
use concordat_policies::ask::{Ask, Decision, Grant};
use concordat_policies::duty::{Duty, row_filters};
use concordat_policies::evaluate::AgreementSet;
use concordat_policies::view::View;
use concordat_protocol::codes;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::session::{Denied, Request};
use concordat_protocol::terms::Action;
use std::sync::Arc;

/// A permitted write, before anybody looked at the record.
#[derive(Debug, Clone)]
pub struct PermittedWrite {
    /// The clause and what comes with it.
    pub grant: Grant,
    /// What the record has to satisfy, before where there is one, and afterwards.
    pub rows: Filter,
}

impl PermittedWrite {
    /// A denial under this clause.
    pub(super) fn lacks(&self, what: &str, reason: &str, detail: String) -> Denied {
        lacks(&self.grant, what, reason, detail)
    }
}

fn lacks(grant: &Grant, what: &str, reason: &str, detail: String) -> Denied {
    Denied {
        clause: format!("{}/{}", grant.clause.agreement, grant.clause.clause),
        clause_text: grant.clause.text.clone(),
        missing: what.to_owned(),
        ..denied(codes::CLAUSE, reason, detail)
    }
}

/// Decides a write. `tick_ms` is ledger time.
///
/// # Errors
/// No clause permits it, or a duty of the clause is not met or cannot be met by a write.
pub fn decide_write(
    request: &Request,
    consumer: &AgencyId,
    document: &QueryDocument,
    ask: &WriteAsk,
    set: &AgreementSet,
    spec: &DatasetSpec,
    tick_ms: u64,
) -> Result<PermittedWrite, Denied> {
    let (agreement, clause) = named_clause(&request.clause)?;
    let asked = Ask {
        consumer: consumer.clone(),
        roles: document.roles.clone(),
        action: ask.action,
        break_glass: false,
        purpose: request.purpose.clone(),
        agreement,
        clause,
        case: Some(request.case.clone()).filter(|c| !c.is_empty()),
        at_ms: tick_ms,
    };
    let grant = match set.decide_for(&asked, document.sign_in.as_ref()) {
        Decision::Permit(grant) => Arc::unwrap_or_clone(grant),
        other => return Err(from_policy(other)),
    };
    // A write is addressed by key, so `require-filter` is met; quotas are the ledger's; the policy saw to references and to
    // how the person signed in.
    for duty in &grant.duties {
        match duty {
            Duty::Fields { allow } => open_fields(&grant, ask, spec, allow)?,
            Duty::Reference { .. }
            | Duty::RequireFilter { .. }
            | Duty::RowFilter { .. }
            | Duty::Delay { .. }
            | Duty::Quota { .. }
            | Duty::SealAccess { .. }
            | Duty::StepUp { .. }
            | Duty::Mask { .. }
            | Duty::Pseudonymise { .. }
            | Duty::Coarsen { .. } => {}
            other => {
                let detail = format!("the duty {} cannot be met by a write", other.kind());
                return Err(lacks(&grant, other.kind().word(), "unfulfillable-duty", detail));
            }
        }
    }
    let view = View::of(&grant.clause.agreement, &grant.duties);
    let touched = |f: &&String| ask.data.contains_key(f.as_str());
    if let Some(altered) = view.altered().map(str::to_owned).collect::<Vec<_>>().iter().find(touched) {
        let detail = format!("the clause shows {altered} altered: it cannot be written");
        return Err(lacks(&grant, &format!("a write without {altered}"), "altered-field", detail));
    }
    let parsed = row_filters(&grant.duties, tick_ms).iter().map(|f| parse_filter(f, &spec.fields, "/where")).collect();
    let parsed: Result<Vec<Filter>, _> = parsed;
    let rows =
        parsed.map_err(|e| lacks(&grant, "a row filter this dataset has fields for", "row-filter", e.to_string()))?;
    Ok(PermittedWrite { rows: Filter::all_of(rows), grant })
}

/// Only open fields are written; a deletion takes all of them.
fn open_fields(grant: &Grant, ask: &WriteAsk, spec: &DatasetSpec, allow: &[String]) -> Result<(), Denied> {
    let closed = |f: &&str| !allow.iter().any(|a| a == f);
    let (closed, what) = match ask.action {
        Action::Delete => (spec.fields.iter().map(|(name, _)| name).find(closed), "deleting needs every field open"),
        _ => (ask.data.keys().map(String::as_str).find(closed), "write open fields only"),
    };
    let Some(closed) = closed else { return Ok(()) };
    let detail = format!("the clause does not open the field {closed}: {what} ({})", allow.join(", "));
    Err(lacks(grant, &format!("field {closed}"), "fields", detail))
}
