//! The evaluator: Casbin decides, we name the clause and the reason.
//!
//! A permit needs both Casbin's allow and our own reading of the clause; where the two differ the answer is a denial.

use crate::ask::{Ask, ClauseRef, Decision, Denial, Grant, Reason};
use crate::compile::Compiled;
use crate::document::{Clause, Who};
use crate::duty::{Capabilities, SignIn, check_reference, check_step_up};
use crate::engines;
use crate::gate::{GateError, Probe, ROLE_SEPARATOR};
use crate::memo::Memo;
use crate::rows::BREAK_GLASS;
use crate::time::utc_text;
use crate::yaml::nearest;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::terms::Effect;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Most remembered engine verdicts of one evaluator; at the limit all are forgotten.
const CACHE_MAX: usize = 4_096;

/// A term of a clause that an ask does not meet.
pub(crate) struct Missing {
    pub(crate) reason: Reason,
    pub(crate) what: String,
}

/// Decides asks on one agreement version. Immutable: a new version gets a new evaluator.
pub struct Evaluator {
    compiled: Arc<Compiled>,
    terms_hash: Hash,
    capabilities: Capabilities,
    /// Roles that the document names: others make no difference.
    roles: BTreeSet<String>,
    /// Times at which a row begins or ends to hold: between two of them no verdict changes.
    edges: Vec<u64>,
    cache: Mutex<BTreeMap<(Probe, usize), bool>>,
}

impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evaluator({} version {})", self.agreement(), self.version())
    }
}

impl Evaluator {
    /// Builds the evaluator of a compiled agreement, for an executor that can fulfil `capabilities`. Rows that the engine
    /// does not take are refused here, not when they are first needed.
    pub fn new(compiled: impl Into<Arc<Compiled>>, capabilities: Capabilities) -> Result<Self, GateError> {
        let compiled: Arc<Compiled> = compiled.into();
        engines::of(&compiled)?;
        let clauses = &compiled.document.clauses;
        let role = |c: &Clause| if let Who::Org { role, .. } = &c.who { role.clone() } else { None };
        let roles = clauses.iter().filter_map(role).collect();
        let edges: BTreeSet<u64> = clauses.iter().flat_map(|c| [c.valid.from_ms, c.valid.until_ms]).collect();
        Ok(Self {
            terms_hash: compiled.terms_hash(),
            capabilities,
            roles,
            edges: edges.into_iter().collect(),
            cache: Mutex::default(),
            compiled,
        })
    }

    /// The agreement.
    pub fn agreement(&self) -> &AgreementId {
        &self.compiled.document.agreement
    }
    /// Its version.
    pub fn version(&self) -> u64 {
        self.compiled.document.version
    }
    /// The compiled agreement it was built from.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }
    /// What the executor it was built for can fulfil.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    /// Hash of the agreed terms.
    pub fn terms_hash(&self) -> &Hash {
        &self.terms_hash
    }

    /// Decides an ask on this agreement alone. [`AgreementSet::decide`] also minds the others' prohibitions.
    pub fn decide(&self, ask: &Ask) -> Decision {
        decide(&[self], ask, None)
    }

    fn reference(&self, c: &Clause) -> ClauseRef {
        ClauseRef {
            agreement: self.agreement().clone(),
            version: self.version(),
            clause: c.id.clone(),
            text: c.text.clone(),
        }
    }

    /// What the engine is asked, but for the time.
    fn probe(&self, ask: &Ask, clause: Option<&str>) -> Probe {
        let held: Vec<&str> = ask.roles.intersection(&self.roles).map(String::as_str).collect();
        let bar = ROLE_SEPARATOR.to_string();
        Probe {
            clause: clause.map(str::to_owned),
            org: ask.consumer.org(),
            user: format!("{bar}{}{bar}", held.join(&bar)),
            act: act(ask).to_owned(),
            purp: ask.purpose.clone(),
            t: String::new(),
        }
    }

    /// Casbin's verdict, remembered for as long as no row begins or ends to hold.
    fn casbin(&self, ask: &Ask, clause: Option<&str>) -> Result<bool, GateError> {
        let span = self.edges.partition_point(|e| *e <= ask.at_ms);
        let key = (self.probe(ask, clause), span);
        if let Some(v) = self.cache.lock().ok().and_then(|c| c.get(&key).copied()) {
            return Ok(v);
        }
        let probe = Probe { t: utc_text(ask.at_ms).ok_or(GateError::Value("time"))?, ..key.0.clone() };
        let gate = engines::of(&self.compiled)?;
        let verdict = if clause.is_some() { gate.allows(&probe) } else { gate.prohibits(&probe) }?;
        if let Ok(mut cache) = self.cache.lock() {
            if cache.len() >= CACHE_MAX {
                cache.clear();
            }
            cache.insert(key, verdict);
        }
        Ok(verdict)
    }

    /// The prohibition that matches, by our own reading.
    fn prohibited(&self, ask: &Ask) -> Option<Denial> {
        let c = self.compiled.document.clauses.iter().find(|c| !c.grants() && missing(c, ask).is_empty())?;
        Some(Denial {
            reason: Reason::Prohibited,
            clause: Some(self.reference(c)),
            missing: None,
            text: format!("clause {} prohibits it: \"{}\"", c.id, c.text),
            next: "nothing permits this; do not ask again".to_owned(),
        })
    }

    /// The denial where Casbin finds a prohibition that our own reading did not, or fails.
    fn engine_prohibits(&self, ask: &Ask) -> Option<Denial> {
        match self.casbin(ask, None) {
            Ok(false) => None,
            Ok(true) => Some(engine_denial("a prohibition matches that cannot be named")),
            Err(e) => Some(engine_denial(&e.to_string())),
        }
    }

    /// A clause whose every term is met: permitted unless Casbin differs, a duty cannot be kept or a reference is missing.
    fn grant(&self, index: usize, c: &Clause, ask: &Ask, sign_in: Option<&SignIn>) -> Decision {
        match self.casbin(ask, Some(&c.id)) {
            Ok(true) => {}
            Ok(false) => return deny(engine_denial("the policy engine does not confirm the clause")),
            Err(e) => return deny(engine_denial(&e.to_string())),
        }
        if let Some(kind) = self.capabilities.first_missing_of(c) {
            return deny(Denial {
                reason: Reason::UnfulfillableDuty,
                clause: Some(self.reference(c)),
                missing: Some(format!("the duty {kind}")),
                text: format!(
                    "clause {} (\"{}\") has the duty {kind}, which the provider's executor cannot fulfil",
                    c.id, c.text
                ),
                next: format!("ask the provider for an executor that fulfils {kind}, or rely on another clause"),
            });
        }
        if let Err(what) = check_reference(&c.duties, ask.case.as_deref()) {
            return deny(Denial {
                reason: Reason::Reference,
                clause: Some(self.reference(c)),
                text: format!("clause {} (\"{}\") needs {what}", c.id, c.text),
                next: format!("ask again with {what}"),
                missing: Some(what),
            });
        }
        if let Err(what) = check_step_up(&c.duties, sign_in, ask.at_ms) {
            return deny(Denial {
                reason: Reason::StepUp,
                clause: Some(self.reference(c)),
                text: format!("clause {} (\"{}\") needs {what}", c.id, c.text),
                next: "sign in again with that strength, then ask again".to_owned(),
                missing: Some(what),
            });
        }
        Decision::Permit(Arc::new(Grant {
            clause: self.reference(c),
            index,
            effect: c.effect,
            evidence: c.evidence.clone(),
            duties: c.duties.clone(),
            until_ms: c.valid.until_ms,
            terms_hash: self.terms_hash,
            rows_hash: self.compiled.terms.rows_hash,
        }))
    }
}

/// All agreements that are active between two agencies for one dataset (public ones on it included).
#[derive(Clone)]
pub struct AgreementSet {
    dataset: DatasetId,
    consumer: AgencyId,
    evaluators: Vec<Arc<Evaluator>>,
    memo: Arc<Memo>,
}

impl std::fmt::Debug for AgreementSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AgreementSet({}, {}, {:?})", self.dataset, self.consumer, self.evaluators)
    }
}

impl AgreementSet {
    /// Gathers evaluators; those of another dataset or another consumer are left out. Order does not matter.
    pub fn new(dataset: DatasetId, consumer: AgencyId, evaluators: impl IntoIterator<Item = Arc<Evaluator>>) -> Self {
        let fits = |e: &Arc<Evaluator>| {
            let d = &e.compiled.document;
            d.target == dataset && d.assignee.as_ref().is_none_or(|a| *a == consumer)
        };
        let mut evaluators: Vec<_> = evaluators.into_iter().filter(fits).collect();
        evaluators.sort_by(|a, b| (a.agreement(), a.version()).cmp(&(b.agreement(), b.version())));
        let edges: BTreeSet<u64> = evaluators.iter().flat_map(|e| e.edges.iter().copied()).collect();
        Self { dataset, consumer, evaluators, memo: Arc::new(Memo::new(edges.into_iter().collect())) }
    }

    /// The dataset.
    pub fn dataset(&self) -> &DatasetId {
        &self.dataset
    }
    /// The evaluators, by agreement.
    pub fn evaluators(&self) -> &[Arc<Evaluator>] {
        &self.evaluators
    }

    /// Decides an ask: prohibitions of every agreement win, then exactly one clause must permit.
    pub fn decide(&self, ask: &Ask) -> Decision {
        self.decide_for(ask, None)
    }

    /// The same for a person who signed in, so that a clause with the duty step-up can permit.
    pub fn decide_for(&self, ask: &Ask, sign_in: Option<&SignIn>) -> Decision {
        if ask.consumer != self.consumer {
            return deny(no_agreement(ask));
        }
        let decided = || decide(&self.evaluators.iter().map(Arc::as_ref).collect::<Vec<_>>(), ask, sign_in);
        // How fresh a sign-in is changes with every ask.
        if sign_in.is_some() { decided() } else { self.memo.decision(ask, decided) }
    }
}

fn deny(d: Denial) -> Decision {
    Decision::Deny(Box::new(d))
}

fn engine_denial(why: &str) -> Denial {
    Denial {
        reason: Reason::EvaluationError,
        clause: None,
        missing: None,
        text: format!("the policy could not be evaluated: {why}"),
        next: "the provider's operator must look at this".to_owned(),
    }
}

fn no_agreement(ask: &Ask) -> Denial {
    Denial {
        reason: Reason::NoAgreement,
        clause: None,
        missing: Some("an active agreement".to_owned()),
        text: format!("no active agreement lets {} use this dataset", ask.consumer.org()),
        next: "propose an agreement, or ask whether one is suspended".to_owned(),
    }
}

fn act(ask: &Ask) -> &'static str {
    if ask.break_glass { BREAK_GLASS } else { ask.action.word() }
}

/// The terms of a clause that an ask does not meet, in the order action, override, party, role, purpose, time.
pub(crate) fn missing(c: &Clause, ask: &Ask) -> Vec<Missing> {
    let mut out = Vec::new();
    let mut miss = |reason, what: String| out.push(Missing { reason, what });
    if !c.actions.contains(&ask.action) {
        let words: Vec<&str> = c.actions.iter().map(|a| a.word()).collect();
        miss(Reason::Action, format!("the action {}", words.join(" or ")));
    }
    match (c.effect, ask.break_glass) {
        (Effect::Permit, true) => miss(Reason::BreakGlass, "an ordinary request, not an override".to_owned()),
        (Effect::BreakGlass, false) => miss(Reason::BreakGlass, "an override (break-glass)".to_owned()),
        _ => {}
    }
    if let Who::Org { org, role } = &c.who {
        if *org != ask.consumer {
            miss(Reason::Party, format!("a request by {}", org.org()));
        }
        if let Some(r) = role.as_ref().filter(|r| !ask.roles.contains(*r)) {
            miss(Reason::Role, format!("the role {r}"));
        }
    }
    if let Some(p) = c.purpose.as_ref().filter(|p| **p != ask.purpose) {
        miss(Reason::Purpose, format!("the purpose {p}"));
    }
    if ask.at_ms < c.valid.from_ms {
        miss(Reason::NotYet, format!("a time from {}", c.valid.texts().0));
    } else if ask.at_ms >= c.valid.until_ms {
        miss(Reason::Expired, format!("a time before {}", c.valid.texts().1));
    }
    out
}

/// The rule of PROTOCOL 6: prohibitions of all win; one clause decides; all else is denied.
fn decide(all: &[&Evaluator], ask: &Ask, sign_in: Option<&SignIn>) -> Decision {
    if let Err(e) = ask.check() {
        let next = "correct the request".to_owned();
        return deny(Denial { reason: Reason::BadRequest, clause: None, missing: None, text: e, next });
    }
    if let Some(d) = all.iter().find_map(|e| e.prohibited(ask)) {
        return deny(d);
    }
    let named = |e: &&&Evaluator| ask.agreement.as_ref().is_none_or(|a| a == e.agreement());
    let chosen: Vec<&Evaluator> = all.iter().filter(named).copied().collect();
    if chosen.is_empty() {
        return deny(no_agreement(ask));
    }
    let grants =
        chosen.iter().flat_map(|e| e.compiled.document.clauses.iter().enumerate().map(move |(i, c)| (*e, i, c)));
    let candidates: Vec<(&Evaluator, usize, &Clause)> =
        grants.filter(|(_, _, c)| c.grants() && ask.clause.as_ref().is_none_or(|n| *n == c.id)).collect();
    if candidates.is_empty() {
        return deny(unknown_clause(&chosen, ask));
    }
    let matching: Vec<_> = candidates.iter().filter(|(_, _, c)| missing(c, ask).is_empty()).copied().collect();
    match one_of(&matching) {
        // Casbin has the last word. That it allows the clause says that no row of the same agreement prohibits it.
        Some((e, i, c)) => match all.iter().filter(|o| !std::ptr::eq(**o, e)).find_map(|o| o.engine_prohibits(ask)) {
            Some(denial) => deny(denial),
            None => e.grant(i, c, ask, sign_in),
        },
        None if matching.is_empty() => deny(nearest_denial(&candidates, ask)),
        None => Decision::Ambiguous { clauses: matching.iter().map(|(e, _, c)| e.reference(c)).collect() },
    }
}

/// The only one; clauses with a duty that cannot be fulfilled do not count beside one without.
fn one_of<'a>(matching: &[(&'a Evaluator, usize, &'a Clause)]) -> Option<(&'a Evaluator, usize, &'a Clause)> {
    let able: Vec<_> = matching.iter().filter(|(e, _, c)| e.capabilities.first_missing_of(c).is_none()).collect();
    match (matching, able.as_slice()) {
        ([one], _) => Some(*one),
        (_, [one]) => Some(**one),
        _ => None,
    }
}

fn unknown_clause(chosen: &[&Evaluator], ask: &Ask) -> Denial {
    let known: Vec<&str> = chosen
        .iter()
        .flat_map(|e| e.compiled.document.clauses.iter())
        .filter(|c| c.grants())
        .map(|c| c.id.as_str())
        .collect();
    let given = ask.clause.as_deref().unwrap_or_default();
    let near = nearest(given, &known).map_or_else(String::new, |n| format!(", nearest is {n}"));
    Denial {
        reason: Reason::UnknownClause,
        clause: None,
        missing: Some("a clause that grants something".to_owned()),
        text: format!("no clause {given} grants anything (there are {}{near})", known.join(", ")),
        next: "name one of these clauses, or none".to_owned(),
    }
}

/// The denial that names the clause with the fewest unmet terms and the first of them.
fn nearest_denial(candidates: &[(&Evaluator, usize, &Clause)], ask: &Ask) -> Denial {
    let scored = candidates.iter().map(|(e, _, c)| (missing(c, ask), *e, *c));
    let Some((unmet, e, c)) = scored.min_by_key(|(m, _, _)| m.len()) else { return no_agreement(ask) };
    let all: Vec<&str> = unmet.iter().map(|m| m.what.as_str()).collect();
    let named = if ask.clause.is_some() { "the named clause" } else { "the nearest clause" };
    Denial {
        reason: unmet.first().map_or(Reason::EvaluationError, |m| m.reason),
        clause: Some(e.reference(c)),
        missing: unmet.first().map(|m| m.what.clone()),
        text: format!("no clause covers this; {named} is {} (\"{}\"), which needs {}", c.id, c.text, all.join(" and ")),
        next: format!("ask with {}, if that is true", all.join(" and ")),
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
