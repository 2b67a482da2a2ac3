//! What is asked and what is answered: asks, decisions, denials with their reason.

use crate::document_raw::prefixed;
use crate::duty::Duty;
use crate::time::UTC_MS_MAX;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::terms::{Action, Effect, Evidence};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most roles one actor brings.
pub const ROLES_MAX: usize = 32;

/// A request as policy sees it. All of it was authenticated by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The agency that asks.
    pub consumer: AgencyId,
    /// The actor's roles, `role:clerk`.
    pub roles: BTreeSet<String>,
    /// The action.
    pub action: Action,
    /// Whether this is an override; only then do break-glass clauses count, and only they.
    pub break_glass: bool,
    /// `purp:pending-case`.
    pub purpose: String,
    /// The agreement relied on, if the request names one.
    pub agreement: Option<AgreementId>,
    /// The clause relied on, if the request names one.
    pub clause: Option<String>,
    /// The case reference, if there is one.
    pub case: Option<String>,
    /// The ledger's newest tick, milliseconds.
    pub at_ms: u64,
}

impl Ask {
    /// Checks the shape of an ask; the error is the public message.
    pub(crate) fn check(&self) -> Result<(), String> {
        prefixed("purp:", &self.purpose).map_err(|e| format!("purpose: {e}"))?;
        if self.roles.len() > ROLES_MAX {
            return Err(format!("roles: at most {ROLES_MAX}"));
        }
        self.roles.iter().try_for_each(|r| prefixed("role:", r)).map_err(|e| format!("roles: {e}"))?;
        if self.clause.as_ref().is_some_and(|c| c.is_empty() || c.len() > 16) {
            return Err("clause: must have 1 to 16 characters; leave it out to name none".to_owned());
        }
        if self.at_ms == 0 || self.at_ms > UTC_MS_MAX {
            return Err("time: no usable ledger time".to_owned());
        }
        if self.break_glass && self.action != Action::Query {
            return Err("break-glass: an override is for query alone".to_owned());
        }
        Ok(())
    }
}

/// Why something is denied. The word is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No active agreement between the two for this dataset.
    NoAgreement,
    /// A prohibition matches.
    Prohibited,
    /// The named clause does not exist or grants nothing.
    UnknownClause,
    /// No clause (or not the named one) covers the action.
    Action,
    /// The clause is for another agency.
    Party,
    /// The clause needs a role the actor lacks.
    Role,
    /// The clause is for another purpose.
    Purpose,
    /// The clause is for overrides only, or an override was asked where it is not one.
    BreakGlass,
    /// The clause's window has not begun.
    NotYet,
    /// The clause's window is over.
    Expired,
    /// The request lacks the reference the clause asks for.
    Reference,
    /// The person has not signed in as the clause asks for.
    StepUp,
    /// The executor cannot fulfil a duty of the clause.
    UnfulfillableDuty,
    /// Several clauses match and none is named.
    Ambiguous,
    /// The request is malformed.
    BadRequest,
    /// The policy engine failed.
    EvaluationError,
}

impl Reason {
    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoAgreement => "no-agreement",
            Self::Prohibited => "prohibited",
            Self::UnknownClause => "unknown-clause",
            Self::Action => "action",
            Self::Party => "party",
            Self::Role => "role",
            Self::Purpose => "purpose",
            Self::BreakGlass => "break-glass",
            Self::NotYet => "not-yet",
            Self::Expired => "expired",
            Self::Reference => "reference",
            Self::StepUp => "step-up",
            Self::UnfulfillableDuty => "unfulfillable-duty",
            Self::Ambiguous => "ambiguous",
            Self::BadRequest => "bad-request",
            Self::EvaluationError => "evaluation-error",
        }
    }

    /// The code in the protocol's registry.
    pub fn code(self) -> u16 {
        match self {
            Self::NoAgreement => codes::NO_AGREEMENT,
            Self::NotYet => codes::NOT_YET,
            Self::Expired => codes::EXPIRED,
            Self::BadRequest => codes::BAD_VALUE,
            _ => codes::CLAUSE,
        }
    }
}

/// A clause by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClauseRef {
    /// The agreement.
    pub agreement: AgreementId,
    /// Its version.
    pub version: u64,
    /// The clause's id.
    pub clause: String,
    /// The clause's sentence.
    pub text: String,
}

/// The one clause under which something is permitted, and what comes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The clause.
    pub clause: ClauseRef,
    /// Its position in the ledger's table, from 0.
    pub index: usize,
    /// Permit or break-glass.
    pub effect: Effect,
    /// How the release is tied to its record.
    pub evidence: Evidence,
    /// The duties the executor must fulfil; all are within its capabilities. `reference` was checked.
    pub duties: Vec<Duty>,
    /// First millisecond of ledger time at which the grant holds no more.
    pub until_ms: u64,
    /// Hash of the agreed terms.
    pub terms_hash: Hash,
    /// Hash of the policy rows, for the operation's commitment.
    pub rows_hash: Hash,
}

/// A denial with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The clause that prohibits, or the one nearest to permitting.
    pub clause: Option<ClauseRef>,
    /// What is missing, in words.
    pub missing: Option<String>,
    /// The whole reason as a sentence.
    pub text: String,
    /// What to do next.
    pub next: String,
}

impl Denial {
    /// The code in the protocol's registry.
    pub fn code(&self) -> u16 {
        self.reason.code()
    }
}

/// The answer to an ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// One clause permits it.
    Permit(Arc<Grant>),
    /// Several clauses would permit it: the request must name one. Nothing is released.
    Ambiguous {
        /// The clauses to choose from.
        clauses: Vec<ClauseRef>,
    },
    /// Nothing permits it, or something prohibits it.
    Deny(Box<Denial>),
}

impl Decision {
    /// The grant, if permitted.
    pub fn grant(&self) -> Option<&Grant> {
        if let Self::Permit(g) = self { Some(g) } else { None }
    }

    /// The decision as a denial (an ambiguous one is a denial that lists the clauses); `None` if permitted.
    pub fn denial(&self) -> Option<Denial> {
        match self {
            Self::Permit(_) => None,
            Self::Deny(d) => Some((**d).clone()),
            Self::Ambiguous { clauses } => {
                let names: Vec<String> =
                    clauses.iter().map(|c| format!("{} of {} (\"{}\")", c.clause, c.agreement, c.text)).collect();
                Some(Denial {
                    reason: Reason::Ambiguous,
                    clause: None,
                    missing: Some("the clause to rely on".to_owned()),
                    text: format!("several clauses match: {}", names.join("; ")),
                    next: "name one of them in the request".to_owned(),
                })
            }
        }
    }
}
