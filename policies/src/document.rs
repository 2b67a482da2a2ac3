//! The agreement document: what a lawyer and an engineer both read, parsed into checked data.
//!
//! [`Agreement::parse`] refuses unknown keys and terms (line, column, nearest known word) and documents that contradict
//! themselves. What it returns is complete: the compiler after it cannot fail on a term.

use crate::duty::{Duty, DutyKind};
use crate::time::utc_text;
use crate::yaml::{Pos, YamlError};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::terms::{Action, Effect, Evidence, Quota};
use std::collections::{BTreeMap, BTreeSet};

/// The member of a group that holds the number of its rows.
const COUNT: &str = "count";

/// A paper the agreement rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// Its title.
    pub title: String,
    /// SHA-256 of the signed file.
    pub sha256: Hash,
}

/// A half-open window of ledger time, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First millisecond inside.
    pub from_ms: u64,
    /// First millisecond outside.
    pub until_ms: u64,
}

impl Window {
    /// Whether a time is inside.
    pub fn contains(&self, ms: u64) -> bool {
        self.from_ms <= ms && ms < self.until_ms
    }
    /// Whether another window lies wholly inside.
    pub fn covers(&self, other: &Self) -> bool {
        self.from_ms <= other.from_ms && other.until_ms <= self.until_ms
    }
    /// Both ends as fixed-width UTC text.
    pub(crate) fn texts(&self) -> (String, String) {
        (utc_text(self.from_ms).unwrap_or_default(), utc_text(self.until_ms).unwrap_or_default())
    }
}

/// Whom a clause speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    Any,
    /// People of one agency, in one role or in whatever role.
    Org {
        /// The agency.
        org: AgencyId,
        /// `role:clerk`; `None` is any role.
        role: Option<String>,
    },
}

/// One clause: a plain sentence and its terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    /// `C1`: a capital letter, then capitals, digits and `-`, at most 16.
    pub id: String,
    /// The sentence; of several languages, the one of [`Agreement::language`].
    pub text: String,
    /// The sentence by language; empty where the document names none.
    pub texts: BTreeMap<String, String>,
    /// Permit, prohibit or break-glass.
    pub effect: Effect,
    /// Whom it speaks of.
    pub who: Who,
    /// What they do; never empty, sorted.
    pub actions: Vec<Action>,
    /// How a release is tied to its record; [`Evidence::None`] in a prohibition.
    pub evidence: Evidence,
    /// `purp:pending-case`; `None` is any purpose (prohibitions and public data only).
    pub purpose: Option<String>,
    /// The legal basis, in the same language as `text`.
    pub legal_basis: Option<String>,
    /// The legal basis by language.
    pub legal_bases: BTreeMap<String, String>,
    /// Duties, in the document's order.
    pub duties: Vec<Duty>,
    /// The clause's window, inside the agreement's.
    pub valid: Window,
    /// Where it stands in the document.
    pub at: Pos,
}

impl Clause {
    /// The actions as the ledger's bitmask.
    pub fn action_bits(&self) -> u64 {
        self.actions.iter().fold(0, |m, a| m | a.bit())
    }
    /// The quota, if there is one.
    pub fn quota(&self) -> Option<Quota> {
        self.duties.iter().find_map(Duty::quota)
    }
    /// Within how many milliseconds a use must be reviewed; 0 where none is due.
    pub fn review_ms(&self) -> u64 {
        self.duties
            .iter()
            .find_map(|d| if let Duty::Review { within_ms } = d { Some(*within_ms) } else { None })
            .unwrap_or(0)
    }
    /// Whether the clause grants something (permit or break-glass).
    pub fn grants(&self) -> bool {
        self.effect != Effect::Prohibit
    }
}

/// A checked agreement document.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Its name.
    pub agreement: AgreementId,
    /// Its version, from 1.
    pub version: u64,
    /// The paper behind it.
    pub paper: Option<Paper>,
    /// The provider.
    pub assigner: AgencyId,
    /// The consumer; `None` for public data (`any`).
    pub assignee: Option<AgencyId>,
    /// The dataset.
    pub target: DatasetId,
    /// When it holds.
    pub valid: Window,
    /// Approval roles of the provider, sorted.
    pub assigner_roles: Vec<String>,
    /// Approval roles of the consumer, sorted; empty for public data.
    pub assignee_roles: Vec<String>,
    /// The language that prevails where the languages differ; none: all bind alike.
    pub prevails: Option<String>,
    /// The clauses, in the document's order.
    pub clauses: Vec<Clause>,
}

impl Agreement {
    /// Reads and checks a document.
    pub fn parse(yaml: &str) -> Result<Self, YamlError> {
        let doc = crate::document_raw::read(yaml)?;
        check(&doc)?;
        Ok(doc)
    }

    /// The clause with this id.
    pub fn clause(&self, id: &str) -> Option<&Clause> {
        self.clauses.iter().find(|c| c.id == id)
    }

    /// The languages of its texts, sorted; none where it does not say.
    pub fn languages(&self) -> Vec<&str> {
        self.clauses.first().map_or_else(Vec::new, |c| c.texts.keys().map(String::as_str).collect())
    }

    /// Whether the data is public (`assignee: any`).
    pub fn is_public(&self) -> bool {
        self.assignee.is_none()
    }
}

/// The rules a document must keep as a whole.
fn check(doc: &Agreement) -> Result<(), YamlError> {
    let top = Pos { line: 1, column: 1 };
    if doc.target.owner() != doc.assigner {
        let owner = doc.target.owner().org();
        return Err(YamlError::new(
            top,
            format!("target {} belongs to {owner}, so the assigner must be {owner}", doc.target),
        ));
    }
    if doc.assignee.as_ref() == Some(&doc.assigner) {
        return Err(YamlError::new(top, "assigner and assignee are the same agency"));
    }
    match (doc.is_public(), doc.assignee_roles.is_empty()) {
        (true, false) => {
            return Err(YamlError::new(
                top,
                "public data (assignee any) is approved by the assigner alone: remove approvals.assignee",
            ));
        }
        (false, true) => {
            return Err(YamlError::new(top, "approvals.assignee is missing: both sides approve an agreement"));
        }
        _ => {}
    }
    let mut ids = BTreeSet::new();
    for c in &doc.clauses {
        if !ids.insert(c.id.as_str()) {
            return Err(YamlError::new(c.at, format!("two clauses have the id {}", c.id)));
        }
        check_clause(doc, c).map_err(|e| YamlError::new(c.at, format!("clause {}: {e}", c.id)))?;
    }
    if !doc.clauses.iter().any(Clause::grants) {
        return Err(YamlError::new(
            top,
            "no clause permits anything: everything is denied without an agreement already",
        ));
    }
    for c in doc.clauses.iter().filter(|c| c.grants()) {
        if let Some(x) = doc.clauses.iter().find(|x| forbids_all_of(x, c)) {
            let said = format!("clause {} can never be used: clause {} prohibits all of it", c.id, x.id);
            return Err(YamlError::new(c.at, said));
        }
    }
    Ok(())
}

/// Whether prohibition `x` leaves nothing of the granting clause `c`.
pub(crate) fn forbids_all_of(x: &Clause, c: &Clause) -> bool {
    let who = match (&x.who, &c.who) {
        (Who::Any, _) => true,
        (Who::Org { role: None, .. }, Who::Org { .. }) => true,
        (Who::Org { role: a, .. }, Who::Org { role: b, .. }) => a == b,
        (Who::Org { .. }, Who::Any) => false,
    };
    x.effect == Effect::Prohibit
        && who
        && c.actions.iter().all(|a| x.actions.contains(a))
        && (x.purpose.is_none() || x.purpose == c.purpose)
        && x.valid.covers(&c.valid)
}

fn check_clause(doc: &Agreement, c: &Clause) -> Result<(), String> {
    if !doc.valid.covers(&c.valid) {
        return Err("its window is not inside the agreement's".to_owned());
    }
    check_who(doc, c)?;
    use DutyKind::{Coarsen, Mask, Notify, Pseudonymise};
    let mut kinds = BTreeSet::new();
    for d in &c.duties {
        let often = matches!(d.kind(), Notify | Mask | Pseudonymise | Coarsen);
        if !kinds.insert(d.kind()) && !often {
            return Err(format!("the duty {} stands twice; keep one", d.kind()));
        }
    }
    check_altered(c, &kinds)?;
    match c.effect {
        Effect::Prohibit if !c.duties.is_empty() => {
            Err("a prohibition has no duties: nothing happens under it".to_owned())
        }
        Effect::Prohibit => Ok(()),
        Effect::BreakGlass => check_break_glass(doc, c, &kinds),
        Effect::Permit => check_permit(doc, c, &kinds),
    }
}

/// Duties that alter values: each field once, of what is read one by one, and never one that a filter must name.
fn check_altered(c: &Clause, kinds: &BTreeSet<DutyKind>) -> Result<(), String> {
    let mut altered = BTreeSet::new();
    for field in c.duties.iter().flat_map(Duty::altered) {
        if !altered.insert(field) {
            return Err(format!("{field} is altered twice; keep one of mask, pseudonymise, coarsen"));
        }
    }
    if altered.is_empty() {
        return Ok(());
    }
    if c.actions.iter().any(|a| !matches!(a, Action::Query | Action::Subscribe)) {
        return Err("mask, pseudonymise and coarsen are duties of query and subscribe: split the clause".to_owned());
    }
    if kinds.contains(&DutyKind::Aggregate) {
        return Err("aggregate shows no single value to alter: leave out mask, pseudonymise, coarsen".to_owned());
    }
    let needed = c.duties.iter().filter(|d| d.kind() == DutyKind::RequireFilter).flat_map(Duty::field_names);
    match needed.into_iter().find(|f| altered.contains(f)) {
        Some(f) => Err(format!("requests must name {f}, which is shown altered: a filter would find its true value")),
        None => Ok(()),
    }
}

fn check_who(doc: &Agreement, c: &Clause) -> Result<(), String> {
    match (&c.who, &doc.assignee) {
        (Who::Any, Some(a)) if c.grants() => {
            Err(format!("assignee any grants more than the agreement has: write {{org: {}}}, with a role", a.org()))
        }
        (Who::Org { org, .. }, Some(a)) if org != a => {
            Err(format!("assignee {} is not a party: the agreement's assignee is {}", org.org(), a.org()))
        }
        (Who::Org { .. }, None) if c.grants() => Err("public data is for any: write assignee: any".to_owned()),
        _ => Ok(()),
    }
}

fn check_permit(doc: &Agreement, c: &Clause, kinds: &BTreeSet<DutyKind>) -> Result<(), String> {
    if doc.is_public() {
        return check_public(c, kinds);
    }
    if c.purpose.is_none() {
        return Err("a permit needs a purpose: add purpose: purp:..".to_owned());
    }
    let only_feed = c.actions == [Action::Subscribe];
    match c.evidence {
        Evidence::None {} => {
            return Err("evidence none is for public data (assignee any) only: write strict".to_owned());
        }
        Evidence::Bounded { .. } if !only_feed => {
            return Err(
                "bounded evidence is for subscribe alone; queries and writes are strict: split the clause".to_owned()
            );
        }
        _ => {}
    }
    check_read_duties(c, kinds)
}

fn check_read_duties(c: &Clause, kinds: &BTreeSet<DutyKind>) -> Result<(), String> {
    if kinds.contains(&DutyKind::Aggregate) && c.actions != [Action::Query] {
        return Err("aggregate is a duty of queries alone: split the clause".to_owned());
    }
    if c.duties
        .iter()
        .any(|d| matches!(d, Duty::Aggregate { group_by, .. } if group_by.iter().any(|g| g.field == COUNT)))
    {
        return Err(format!("a group has the member {COUNT} already: it cannot be grouped by a field of that name"));
    }
    if kinds.contains(&DutyKind::StepUp) && c.actions.contains(&Action::Subscribe) {
        return Err("step-up is for what a person does at once, not for subscribe: split the clause".to_owned());
    }
    if kinds.contains(&DutyKind::Delay) && c.actions.iter().any(|a| !matches!(a, Action::Query | Action::Subscribe)) {
        return Err("delay is a duty of query and subscribe: split the clause".to_owned());
    }
    if kinds.contains(&DutyKind::RequireFilter) && !c.actions.contains(&Action::Query) {
        return Err("require-filter is a duty of queries: only they have a filter".to_owned());
    }
    Ok(())
}

fn check_public(c: &Clause, kinds: &BTreeSet<DutyKind>) -> Result<(), String> {
    use DutyKind::{Aggregate, Coarsen, Delay, Fields, Mask, Pseudonymise, RequireFilter, RowFilter};
    let open = |k: &DutyKind| {
        matches!(k, RequireFilter | RowFilter | Fields | Aggregate | Mask | Pseudonymise | Coarsen | Delay)
    };
    if c.evidence != (Evidence::None {}) {
        return Err("public data (assignee any) has evidence none: nobody signs for its use".to_owned());
    }
    if let Some(a) = c.actions.iter().find(|a| !matches!(a, Action::Query | Action::Subscribe)) {
        return Err(format!("public data can be read only, not {a}"));
    }
    if let Some(k) = kinds.iter().find(|k| !open(k)) {
        return Err(format!("the duty {k} needs a known consumer; public data has none"));
    }
    check_read_duties(c, kinds)
}

fn check_break_glass(doc: &Agreement, c: &Clause, kinds: &BTreeSet<DutyKind>) -> Result<(), String> {
    if doc.is_public() {
        return Err("public data needs no break-glass".to_owned());
    }
    if c.actions != [Action::Query] {
        return Err("break-glass is for query alone".to_owned());
    }
    if c.purpose.is_none() {
        return Err("break-glass needs a purpose: add purpose: purp:..".to_owned());
    }
    if c.evidence == (Evidence::None {}) {
        return Err("break-glass needs evidence: strict or {bounded: {max_lag: ..}}".to_owned());
    }
    if matches!(&c.who, Who::Org { role: None, .. }) {
        return Err("break-glass needs a role: nobody overrides without one".to_owned());
    }
    match [DutyKind::Justification, DutyKind::Review].iter().find(|k| !kinds.contains(k)) {
        Some(k) => Err(format!("break-glass needs the duty {k}: an override is explained and reviewed")),
        None => check_read_duties(c, kinds),
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
