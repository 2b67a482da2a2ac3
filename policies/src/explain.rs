//! Why an ask is permitted or denied, clause by clause: what is missing first, what would make it pass, whom to ask.

use crate::ask::{Ask, ClauseRef, Decision, Denial, Reason};
use crate::document::{Agreement, Clause};
use crate::duty::{Duty, SignIn, check_reference, check_step_up};
use crate::evaluate::{AgreementSet, Evaluator, missing};
use concordat_protocol::terms::Effect;
use serde::Serialize;

/// What a clause does with an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It permits it, as far as it goes: a prohibition may still win.
    Permits,
    /// It prohibits it.
    Prohibits,
    /// It is a prohibition of something else.
    DoesNotApply,
    /// Something is missing.
    Lacks,
}

/// One thing that an ask lacks under a clause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// The stable reason.
    pub reason: Reason,
    /// What is missing.
    pub what: String,
    /// Who can help.
    pub ask: String,
}

/// One clause's account of an ask.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// The clause.
    #[serde(flatten)]
    pub clause: ClauseRef,
    /// Its effect.
    pub effect: &'static str,
    /// What it does with the ask.
    pub verdict: Verdict,
    /// What is missing, the first first; empty where it permits or prohibits.
    pub missing: Vec<Lack>,
    /// What holds for an answer under it, as sentences.
    pub duties: Vec<String>,
}

/// A decision with the account of every clause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Whether it is permitted.
    pub permitted: bool,
    /// The clause that decided, `AGR-2026-0142/C1`.
    pub clause: Option<String>,
    /// The denial, if it is one.
    pub denial: Option<Denial>,
    /// Every clause of every agreement of the set, in order.
    pub clauses: Vec<Account>,
}

/// Explains an ask on all agreements of a set.
pub fn explain(set: &AgreementSet, ask: &Ask, sign_in: Option<&SignIn>) -> Explanation {
    let decision = set.decide_for(ask, sign_in);
    let name = |c: &ClauseRef| format!("{}/{}", c.agreement, c.clause);
    let denial = decision.denial();
    let clause = match &decision {
        Decision::Permit(g) => Some(name(&g.clause)),
        _ => denial.as_ref().and_then(|d| d.clause.as_ref()).map(name),
    };
    let of = |e: &Evaluator| -> Vec<Account> {
        e.compiled().document.clauses.iter().map(|c| account(e, c, ask, sign_in)).collect()
    };
    let clauses = set.evaluators().iter().flat_map(|e| of(e)).collect();
    Explanation { permitted: decision.grant().is_some(), clause, denial, clauses }
}

fn account(e: &Evaluator, c: &Clause, ask: &Ask, sign_in: Option<&SignIn>) -> Account {
    let doc = &e.compiled().document;
    let lack = |reason, what| Lack { reason, what, ask: whom(reason, doc, ask) };
    let mut lacks: Vec<Lack> = missing(c, ask).into_iter().map(|m| lack(m.reason, m.what)).collect();
    if c.grants() {
        if let Some(kind) = e.capabilities().first_missing_of(c) {
            let what = format!("an executor that fulfils the duty {kind}");
            lacks.push(lack(Reason::UnfulfillableDuty, what));
        }
        if let Err(what) = check_reference(&c.duties, ask.case.as_deref()) {
            lacks.push(lack(Reason::Reference, what));
        }
        if let Err(what) = check_step_up(&c.duties, sign_in, ask.at_ms) {
            lacks.push(lack(Reason::StepUp, what));
        }
    }
    let verdict = match (c.effect, lacks.is_empty()) {
        (Effect::Prohibit, true) => Verdict::Prohibits,
        (Effect::Prohibit, false) => Verdict::DoesNotApply,
        (_, true) => Verdict::Permits,
        (_, false) => Verdict::Lacks,
    };
    let text = c.text.clone();
    let clause = ClauseRef { agreement: e.agreement().clone(), version: e.version(), clause: c.id.clone(), text };
    let duties = c.duties.iter().map(Duty::sentence).collect();
    Account { clause, effect: c.effect.word(), verdict, missing: lacks, duties }
}

/// Who can supply what is missing. Never an advice to pretend: purposes and references are stated only if they are true.
fn whom(reason: Reason, doc: &Agreement, ask: &Ask) -> String {
    let approvers = || {
        let own = format!("{} ({})", doc.assigner.org(), doc.assigner_roles.join(", "));
        let theirs = doc.assignee.as_ref().map(|a| format!(" and {} ({})", a.org(), doc.assignee_roles.join(", ")));
        format!("those who approve for {own}{}", theirs.unwrap_or_default())
    };
    match reason {
        Reason::Role => format!("whoever gives roles at {}", ask.consumer.org()),
        Reason::Purpose | Reason::Reference => "the person who asks: state it, if it is true".to_owned(),
        Reason::StepUp => "the person who asks: sign in again".to_owned(),
        Reason::BreakGlass => {
            format!("the duty officer of {}: an override is explained and reviewed", ask.consumer.org())
        }
        Reason::UnfulfillableDuty => format!("the operator of {}'s executor", doc.assigner.org()),
        Reason::Party => "the agency that the clause names".to_owned(),
        _ => approvers(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{clerk, demo, evaluator};
    use concordat_protocol::ids::DatasetId;
    use std::sync::Arc;

    fn explained(ask: &Ask) -> Explanation {
        let e = Arc::new(evaluator(&demo("AGR-2026-0142")));
        let set = AgreementSet::new(DatasetId::new("ds:police/stops@1").unwrap(), ask.consumer.clone(), [e]);
        explain(&set, ask, None)
    }

    #[test]
    fn every_clause_says_what_is_missing_and_whom_to_ask() {
        let x = explained(&Ask { case: None, roles: ["role:planner".to_owned()].into(), ..clerk() });
        assert!(!x.permitted && x.clauses.len() == 4);
        let verdicts: Vec<_> = x.clauses.iter().map(|c| (c.clause.clause.as_str(), c.verdict)).collect();
        assert_eq!(
            verdicts,
            [("C1", Verdict::Lacks), ("S1", Verdict::Lacks), ("X1", Verdict::DoesNotApply), ("B1", Verdict::Lacks)]
        );
        let lacks = |n: usize| x.clauses[n].missing.iter().map(|m| m.reason).collect::<Vec<_>>();
        assert_eq!(lacks(0), [Reason::Role, Reason::Reference]);
        assert_eq!(lacks(1), [Reason::Purpose]);
        assert!(x.clauses[0].missing[0].ask.contains("roles at org:court"));
        let late = explained(&Ask { at_ms: 1_798_761_600_000, ..clerk() });
        assert!(late.clauses[0].missing[0].ask.contains("org:police (data-steward, legal) and org:court (legal)"));
    }

    #[test]
    fn an_explanation_says_what_the_evaluator_decides() {
        let yes = explained(&clerk());
        assert_eq!((yes.permitted, yes.clause.as_deref()), (true, Some("AGR-2026-0142/C1")));
        assert_eq!(yes.clauses[0].verdict, Verdict::Permits);
        let no = explained(&Ask { purpose: "purp:profiling".into(), ..clerk() });
        assert_eq!((no.permitted, no.denial.unwrap().reason), (false, Reason::Prohibited));
        assert_eq!(no.clauses[2].verdict, Verdict::Prohibits);
    }
}
