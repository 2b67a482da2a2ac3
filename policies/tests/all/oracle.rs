//! A naive interpreter of documents as oracle: on random documents and asks the evaluator must agree with it.
use concordat_policies::ask::{Ask, Decision, Reason};
use concordat_policies::compile::compile;
use concordat_policies::duty::Capabilities;
use concordat_policies::evaluate::{AgreementSet, Evaluator};
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::terms::Action;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const DAY: u64 = 86_400_000;
const FROM: u64 = 1_767_225_600_000; // 2026-01-01
const ROLES: [&str; 2] = ["role:a", "role:b"];
const PURPOSES: [&str; 2] = ["purp:x", "purp:y"];
const ACTIONS: [Action; 3] = [Action::Query, Action::Insert, Action::Delete];

/// A clause as plain numbers: what the oracle reads.
#[derive(Debug, Clone)]
struct Plain {
    prohibits: bool,
    breaks_glass: bool,
    role: Option<usize>,
    anybody: bool,
    actions: BTreeSet<usize>,
    purpose: Option<usize>,
    days: (u64, u64),
}

impl Plain {
    fn yaml(&self, n: usize) -> String {
        let effect = match (self.prohibits, self.breaks_glass) {
            (true, _) => "prohibit",
            (_, true) => "break-glass",
            _ => "permit",
        };
        let role = self.role.map_or(String::new(), |r| format!(", role: {}", ROLES[r]));
        let who = if self.anybody { "any".to_owned() } else { format!("{{org: org:court{role}}}") };
        let acts: Vec<String> = self.actions.iter().map(|a| ACTIONS[*a].word().to_owned()).collect();
        let purpose = self.purpose.map_or(String::new(), |p| format!(", purpose: {}", PURPOSES[p]));
        let duties =
            if self.breaks_glass { ", duties: [{type: justification}, {type: review, within: 1d}]" } else { "" };
        let day = |d: u64| format!("2026-01-{:02}T00:00:00Z", d + 1);
        format!(
            "- {{id: C{n}, text: c, effect: {effect}, assignee: {who}, actions: [{}]{purpose}, valid: {{from: {}, until: {}}}{duties}}}\n",
            acts.join(", "),
            day(self.days.0),
            day(self.days.1)
        )
    }

    fn matches(&self, a: &Ask) -> bool {
        let day = (a.at_ms - FROM) / DAY;
        let action = self.actions.iter().any(|x| ACTIONS[*x] == a.action);
        let kind = self.prohibits || self.breaks_glass == a.break_glass;
        let people =
            self.anybody || (a.consumer.as_str() == "court" && self.role.is_none_or(|r| a.roles.contains(ROLES[r])));
        let purpose = self.purpose.is_none_or(|p| PURPOSES[p] == a.purpose);
        action && kind && people && purpose && self.days.0 <= day && day < self.days.1
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Want {
    Permit(String),
    Several(Vec<String>),
    Prohibited,
    Nothing,
}

fn oracle(docs: &[Vec<Plain>], a: &Ask) -> Want {
    if docs.iter().flatten().any(|c| c.prohibits && c.matches(a)) {
        return Want::Prohibited;
    }
    let mut hits = Vec::new();
    for (d, clauses) in docs.iter().enumerate() {
        for (n, c) in clauses.iter().enumerate() {
            let named = a.clause.as_ref().is_none_or(|x| *x == format!("C{}", n + 1));
            if !c.prohibits && named && c.matches(a) {
                hits.push(format!("AGR-{}/C{}", d + 1, n + 1));
            }
        }
    }
    match hits.len() {
        0 => Want::Nothing,
        1 => Want::Permit(hits.remove(0)),
        _ => Want::Several(hits),
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let actions = proptest::collection::btree_set(0..ACTIONS.len(), 1..3);
    let days = (0u64..3, 4u64..9).prop_map(|(a, n)| (a, a + n));
    (0u8..6, proptest::option::of(0..2usize), any::<bool>(), actions, proptest::option::of(0..2usize), days).prop_map(
        |(kind, role, anybody, actions, purpose, days)| {
            let (prohibits, breaks_glass) = (kind == 0, kind == 1);
            Plain {
                prohibits,
                breaks_glass,
                role: if breaks_glass { Some(role.unwrap_or(0)) } else { role },
                anybody: prohibits && anybody,
                actions: if breaks_glass { [0].into() } else { actions },
                purpose: if prohibits { purpose } else { Some(purpose.unwrap_or(0)) },
                days,
            }
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    let roles = proptest::collection::btree_set(0..ROLES.len(), 0..=2);
    (any::<u8>(), roles, 0..3usize, 0..2usize, proptest::option::weighted(0.15, 1..5usize), 0u64..12, 0..DAY).prop_map(
        |(odd, roles, action, purpose, clause, day, ms)| Ask {
            consumer: AgencyId::new(if odd % 16 == 0 { "grid" } else { "court" }).unwrap(),
            roles: roles.into_iter().map(|r| ROLES[r].to_owned()).collect(),
            action: ACTIONS[action],
            break_glass: action == 0 && odd % 3 == 1,
            purpose: PURPOSES[purpose].to_owned(),
            agreement: None,
            clause: clause.map(|c| format!("C{c}")),
            case: None,
            at_ms: FROM + day * DAY + ms,
        },
    )
}

fn document(n: usize, clauses: &[Plain]) -> String {
    let body: String = clauses.iter().enumerate().map(|(i, c)| c.yaml(i + 1)).collect();
    format!(
        "agreement: AGR-{n}\nversion: 1\nassigner: org:police\nassignee: org:court\ntarget: ds:police/stops@1\n\
         valid: {{from: 2026-01-01T00:00:00Z, until: 2026-02-01T00:00:00Z}}\n\
         approvals: {{assigner: [legal], assignee: [legal]}}\nclauses:\n{body}"
    )
}

fn got(d: &Decision) -> Want {
    let name = |c: &concordat_policies::ask::ClauseRef| format!("{}/{}", c.agreement, c.clause);
    match d {
        Decision::Permit(g) => Want::Permit(name(&g.clause)),
        Decision::Ambiguous { clauses } => Want::Several(clauses.iter().map(name).collect()),
        Decision::Deny(d) if d.reason == Reason::Prohibited => Want::Prohibited,
        Decision::Deny(d) => {
            assert!(!matches!(d.reason, Reason::EvaluationError | Reason::BadRequest), "{}", d.text);
            Want::Nothing
        }
    }
}

/// How often each answer came: a run that never permits or never prohibits would show nothing.
#[derive(Debug, Default)]
struct Seen {
    permit: usize,
    several: usize,
    nothing: usize,
    /// Prohibited although a clause matched: what an evaluator that forgets prohibitions gets wrong.
    prohibited_over_permit: usize,
    overrides: usize,
    sets: usize,
}

impl Seen {
    fn count(&mut self, docs: &[Vec<Plain>], a: &Ask, w: &Want) {
        let granting = |c: &&Plain| !c.prohibits && c.matches(a);
        match w {
            Want::Permit(_) => {
                self.permit += 1;
                self.overrides += usize::from(a.break_glass);
            }
            Want::Several(_) => self.several += 1,
            Want::Nothing => self.nothing += 1,
            Want::Prohibited => self.prohibited_over_permit += usize::from(docs.iter().flatten().any(|c| granting(&c))),
        }
    }
}

fn compare(docs: Vec<Vec<Plain>>, asks: &[Ask], seen: &mut Seen) -> Result<(), TestCaseError> {
    let every = Capabilities(concordat_policies::duty::DutyKind::ALL.iter().copied().collect());
    let (mut used, mut evaluators) = (Vec::new(), Vec::new());
    for clauses in docs {
        // A document that contradicts itself is refused; the others must be decided rightly.
        let Ok(c) = compile(&document(used.len() + 1, &clauses)) else { continue };
        evaluators.push(Arc::new(Evaluator::new(c, every.clone()).unwrap()));
        used.push(clauses);
    }
    let Some(first) = evaluators.first() else { return Ok(()) };
    let court = AgencyId::new("court").unwrap();
    let set = AgreementSet::new(DatasetId::new("ds:police/stops@1").unwrap(), court.clone(), evaluators.clone());
    for a in asks {
        let alone = oracle(&used[..1], a);
        seen.count(&used[..1], a, &alone);
        prop_assert_eq!(got(&first.decide(a)), alone, "one agreement, {:?}", a);
        if a.consumer == court {
            seen.sets += usize::from(used.len() > 1);
            prop_assert_eq!(got(&set.decide(a)), oracle(&used, a), "set, {:?}", a);
        }
    }
    Ok(())
}

#[test]
fn the_evaluator_agrees_with_the_oracle() {
    use proptest::test_runner::{Config, TestRunner};
    let seen = std::cell::RefCell::new(Seen::default());
    let docs = proptest::collection::vec(proptest::collection::vec(plain(), 1..5), 1..3);
    let asks = proptest::collection::vec(ask(), 1..48);
    let config = Config { cases: 512, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&(docs, asks), |(docs, asks)| compare(docs, &asks, &mut seen.borrow_mut()));
    let seen = seen.into_inner();
    println!("{seen:?}");
    if let Err(e) = run {
        panic!("{e}");
    }
    let Seen { permit, several, nothing, prohibited_over_permit, overrides, sets } = seen;
    let all = [permit, several, nothing, prohibited_over_permit, overrides, sets];
    assert!(all.iter().all(|n| *n > 10), "the cases are too one-sided: {seen:?}");
}
