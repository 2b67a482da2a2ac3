//! From a request and the agreements to a plan for the store, or a denial with its reason.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

use crate::decide_totals;
use crate::holding::Plan;
use crate::query::{Fields, Filter, Query, Totals, read_json};
use concordat_policies::ask::{Ask, Decision, Denial, Grant};
use concordat_policies::duty::{Duty, Need, SignIn, row_filters};
use concordat_policies::evaluate::AgreementSet;
use concordat_policies::view::View;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::session::{Denied, Request};
use concordat_protocol::terms::Action;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The query document of a request: the query itself, and who asks on the consumer's side.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryDocument {
    /// `dataset`, `where`, `select`, `order`, `limit`; or `dataset`, `where`, `aggregate`.
    pub query: Value,
    /// Roles of the person, as the consumer's gateway vouches for them (`role:clerk`).
    pub roles: BTreeSet<String>,
    /// The person's pseudonym.
    pub actor: String,
    /// Whether each row says which version of the record it is.
    pub versions: bool,
    /// Whether the person overrides, and why.
    pub break_glass: Option<BreakGlass>,
    /// How and when the person signed in, as the consumer's gateway vouches for it.
    pub sign_in: Option<SignIn>,
    /// Hash of the role map that made the roles; none where a token of the consumer's own has them.
    pub role_map: Option<Hash>,
}

/// An override, as the query document says it: `break_glass: {justification: "..."}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlass {
    /// Why, in the person's words; a clause may not ask for it.
    pub justification: Option<String>,
}

/// Longest name of a sign-in's strength, bytes.
const LEVEL_BYTES_MAX: usize = 200;
/// Longest justification, bytes.
pub const JUSTIFICATION_BYTES_MAX: usize = 2_000;

impl BreakGlass {
    fn read(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("break_glass: must be an object: {\"justification\": \"...\"}")?;
        if let Some(other) = object.keys().find(|k| *k != "justification") {
            return Err(format!("break_glass.{other}: unknown; there is justification"));
        }
        let justification = match object.get("justification") {
            None => None,
            Some(Value::String(text)) if fits_as_justification(text) => Some(text.clone()),
            Some(_) => {
                let rule = format!("1 to {JUSTIFICATION_BYTES_MAX} bytes of text without control characters");
                return Err(format!("break_glass.justification: {rule}"));
            }
        };
        Ok(Self { justification })
    }
}

/// Whether a text may stand as a justification or a review: not blank, not too long, no control characters but line ends.
pub fn fits_as_justification(text: &str) -> bool {
    let strange = |c: char| c.is_control() && c != '\n' && c != '\t';
    !text.trim().is_empty() && text.len() <= JUSTIFICATION_BYTES_MAX && !text.contains(strange)
}

/// A denial the executor finds by itself.
pub fn denied(code: u16, reason: &str, detail: impl Into<String>) -> Denied {
    Denied {
        code,
        reason: reason.into(),
        detail: detail.into(),
        clause: String::new(),
        clause_text: String::new(),
        missing: String::new(),
        clauses: vec![],
        operation: None,
        retry: 0,
    }
}

impl QueryDocument {
    /// Reads the document; unknown members are left to the query parser, which refuses them.
    pub fn read(bytes: &[u8]) -> Result<Self, Denied> {
        let bad = |detail: String| denied(codes::BAD_VALUE, "bad-query", detail);
        let mut value = read_json(bytes).map_err(|e| bad(e.to_string()))?;
        let object = value.as_object_mut().ok_or_else(|| bad("the query document must be a JSON object".into()))?;
        let nonce = object.remove("nonce").and_then(|v| v.as_str().map(str::len)).unwrap_or_default();
        if nonce < 32 {
            return Err(bad("nonce: 16 random bytes in hex are needed, so that the hash tells nothing".into()));
        }
        let roles = match object.remove("roles") {
            Some(Value::Array(list)) => list.iter().filter_map(|r| r.as_str()).map(role_name).collect(),
            None => BTreeSet::new(),
            Some(_) => return Err(bad("roles: must be a list of names".into())),
        };
        let actor = object.remove("actor").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let break_glass = object.remove("break_glass").map(|v| BreakGlass::read(&v)).transpose().map_err(bad)?;
        let versions = match object.remove("include") {
            None => false,
            Some(list) if list == serde_json::json!(["version"]) => true,
            Some(_) => return Err(bad("include: must be [\"version\"]".into())),
        };
        let sign_in = object.remove("sign_in").map(|v| read_sign_in(&v)).transpose().map_err(bad)?;
        // Which map made the roles; the shell holds it against the ledger.
        let role_map = match object.remove("role_map") {
            None => None,
            Some(v) => match v.as_str().and_then(sha256_of) {
                Some(hash) => Some(hash),
                None => return Err(bad("role_map: must be a SHA-256 in hex".into())),
            },
        };
        Ok(Self { query: value, roles, actor, versions, break_glass, sign_in, role_map })
    }
}

/// A hash in lower-case hexadecimal.
fn sha256_of(text: &str) -> Option<Hash> {
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    hex::decode(text).ok().filter(|_| lower)?.try_into().ok()
}

/// A sign-in as the query document says it: `sign_in: {level: "urn:example:mfa", at_ms: 1774000000000}`.
fn read_sign_in(value: &Value) -> Result<SignIn, String> {
    let members = value.as_object().map_or(0, serde_json::Map::len);
    match (value["level"].as_str(), value["at_ms"].as_u64()) {
        (Some(level), Some(at_ms)) if members == 2 && level.len() <= LEVEL_BYTES_MAX => {
            Ok(SignIn { level: level.to_owned(), at_ms })
        }
        _ => Err(format!("sign_in: must be {{\"level\": text of at most {LEVEL_BYTES_MAX} bytes, \"at_ms\": number}}")),
    }
}

/// A role by its full name: `role:clerk`.
pub fn role_name(role: &str) -> String {
    if role.starts_with("role:") { role.to_owned() } else { format!("role:{role}") }
}

/// A permitted query with the plan that fulfils its duties.
#[derive(Debug, Clone)]
pub struct Permitted {
    /// The clause and what comes with it.
    pub grant: Grant,
    /// What the store is asked, row filter and projection included.
    pub plan: Plan,
    /// The filter as it was asked, without the clause's own.
    pub asked: Filter,
    /// How the rows are shown, once it is noted whose they are.
    pub view: View,
    /// The totals that are asked for instead of rows.
    pub totals: Option<Totals>,
}

/// Decides a query and plans it. `tick_ms` is ledger time.
pub fn decide(
    request: &Request,
    consumer: &AgencyId,
    document: &QueryDocument,
    set: &AgreementSet,
    fields: &Fields,
    tick_ms: u64,
) -> Result<Permitted, Denied> {
    let (agreement, clause) = named_clause(&request.clause)?;
    let ask = Ask {
        consumer: consumer.clone(),
        roles: document.roles.clone(),
        action: Action::Query,
        break_glass: document.break_glass.is_some(),
        purpose: request.purpose.clone(),
        agreement,
        clause,
        case: Some(request.case.clone()).filter(|c| !c.is_empty()),
        at_ms: tick_ms,
    };
    let grant = match set.decide_for(&ask, document.sign_in.as_ref()) {
        Decision::Permit(grant) => Arc::unwrap_or_clone(grant),
        other => return Err(from_policy(other)),
    };
    justified(&grant, document)?;
    if decide_totals::asked(&document.query) {
        let view = View::of(&grant.clause.agreement, &grant.duties);
        return decide_totals::plan(grant, view, request, &document.query, fields, tick_ms);
    }
    let bad_query = |e: crate::query::QueryError| denied(codes::BAD_VALUE, e.code(), e.to_string());
    let query = Query::parse(&document.query, fields).map_err(bad_query)?;
    if query.dataset != request.dataset.as_str() {
        return Err(denied(codes::BAD_VALUE, "bad-query", "dataset: the query names another dataset than the request"));
    }
    decide_totals::refuse_rows(&grant)?;
    let asked = query.filter.clone();
    let view = View::of(&grant.clause.agreement, &grant.duties);
    let plan = fulfil(&grant, &view, query, fields, tick_ms)?;
    Ok(Permitted { grant, plan, asked, view, totals: None })
}

/// The duty `justification`: who overrides says why.
fn justified(grant: &Grant, document: &QueryDocument) -> Result<(), Denied> {
    let said = document.break_glass.as_ref().is_some_and(|b| b.justification.is_some());
    if said || !grant.duties.contains(&Duty::Justification) {
        return Ok(());
    }
    let wanted = "a justification".to_owned();
    let detail = "the clause asks why: say so in break_glass.justification; it is kept and reviewed".to_owned();
    Err(lacking(grant, wanted, "justification", detail))
}

/// The agreement and the clause that a request relies on: `AGR-2026-0142/C1`, `C1` or nothing.
pub fn named_clause(name: &str) -> Result<(Option<AgreementId>, Option<String>), Denied> {
    match name.split_once('/') {
        _ if name.is_empty() => Ok((None, None)),
        None => Ok((None, Some(name.to_owned()))),
        Some((agreement, clause)) => {
            let agreement =
                AgreementId::new(agreement).map_err(|e| denied(codes::BAD_VALUE, "bad-clause", e.to_string()))?;
            Ok((Some(agreement), Some(clause.to_owned())))
        }
    }
}

/// The denial of a decision that is no permit.
pub fn from_policy(decision: Decision) -> Denied {
    let clauses = match &decision {
        Decision::Ambiguous { clauses } => clauses.iter().map(|c| format!("{}/{}", c.agreement, c.clause)).collect(),
        _ => vec![],
    };
    let Some(Denial { reason, clause, missing, text, next }) = decision.denial() else {
        return denied(codes::CLAUSE, "no-decision", "the policy gave no decision");
    };
    let (name, sentence) = clause.map(|c| (format!("{}/{}", c.agreement, c.clause), c.text)).unwrap_or_default();
    Denied {
        code: reason.code(),
        reason: reason.word().into(),
        detail: if next.is_empty() { text } else { format!("{text}: {next}") },
        clause: name,
        clause_text: sentence,
        missing: missing.unwrap_or_default(),
        clauses,
        operation: None,
        retry: 0,
    }
}

/// A denial of what a clause permits, were it not for one term.
pub(crate) fn lacking(grant: &Grant, what: String, reason: &str, detail: String) -> Denied {
    Denied {
        clause: format!("{}/{}", grant.clause.agreement, grant.clause.clause),
        clause_text: grant.clause.text.clone(),
        missing: what,
        ..denied(codes::CLAUSE, reason, detail)
    }
}

/// Turns the grant's duties into the plan: what the filter must name, which rows and fields exist at all.
pub(crate) fn fulfil(grant: &Grant, view: &View, query: Query, fields: &Fields, tick_ms: u64) -> Result<Plan, Denied> {
    let missing = |what: String, reason: &str, detail: String| lacking(grant, what, reason, detail);
    let asked: Vec<String> = query.filter.fields().into_iter().map(str::to_owned).collect();
    let mut plan = Plan::from(query);
    // A filter on such a field would find the values that the clause does not show.
    if let Some(altered) = view.altered().find(|f| asked.iter().any(|a| a == f)) {
        let detail = format!("the clause shows {altered} altered: leave it out of `where`");
        return Err(missing(format!("a filter without {altered}"), "altered-field", detail));
    }
    let row_filter = |filter: &Value| {
        let wanted = || "a row filter this dataset has fields for".to_owned();
        let parsed = crate::query::parse_filter(filter, fields, "/where");
        parsed.map_err(|e| missing(wanted(), "row-filter", e.to_string()))
    };
    let row_filters = row_filters(&grant.duties, tick_ms).iter().map(row_filter).collect::<Result<Vec<_>, _>>()?;
    for duty in &grant.duties {
        match duty {
            Duty::RequireFilter { any_of } if !any_of.iter().any(|need| satisfied(need, &plan.filter)) => {
                let wanted = any_of.iter().map(need_text).collect::<Vec<_>>().join(" or ");
                let detail = format!("the filter must name {wanted}: add it to `where`");
                return Err(missing(wanted, "require-filter", detail));
            }
            Duty::Fields { allow } => {
                let open: BTreeSet<&str> = allow.iter().map(String::as_str).collect();
                let hidden = asked.iter().chain(plan.select.iter().flatten()).find(|f| !open.contains(f.as_str()));
                if let Some(hidden) = hidden {
                    let detail =
                        format!("the clause does not open the field {hidden}: ask for {} only", allow.join(", "));
                    return Err(missing(format!("field {hidden}"), "fields", detail));
                }
                let in_schema = fields.iter().map(|(n, _)| n).filter(|n| open.contains(n)).map(str::to_owned);
                plan.select = Some(plan.select.take().unwrap_or_else(|| in_schema.collect()));
            }
            _ => {}
        }
    }
    plan.filter = Filter::all_of(row_filters.into_iter().chain([plan.filter]));
    Ok(plan)
}

fn satisfied(need: &Need, filter: &Filter) -> bool {
    match need.within_ms {
        None => filter.names_field(&need.field),
        Some(ms) => filter.bounded_within(&need.field, u128::from(ms) * 1_000_000),
    }
}

fn need_text(need: &Need) -> String {
    match need.within_ms {
        None => need.field.clone(),
        Some(ms) => format!("{} within {} h", need.field, ms / 3_600_000),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
