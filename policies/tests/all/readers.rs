//! Who can read a field is exact: on random documents and asks, a reader covers an ask if and only if some clause that
//! shows the field permits it.

use concordat_policies::ask::Ask;
use concordat_policies::compile::compile;
use concordat_policies::document::Agreement;
use concordat_policies::duty::{Capabilities, DutyKind};
use concordat_policies::evaluate::{AgreementSet, Evaluator};
use concordat_policies::readers::readers;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::terms::Action;
use proptest::prelude::*;
use std::sync::Arc;

const FROM: u64 = 1_767_225_600_000; // 2026-01-01
const DAY: u64 = 86_400_000;
const FIELDS: [&str; 2] = ["f", "g"];

#[derive(Debug, Clone)]
struct Plain {
    kind: u8,
    who: u8,
    actions: u8,
    purpose: u8,
    days: (u64, u64),
    shows: u8,
}

impl Plain {
    fn yaml(&self, n: usize, public: bool) -> String {
        let (prohibits, breaks) = (self.kind < 4, self.kind == 4 && !public);
        let effect = if prohibits {
            "prohibit"
        } else if breaks {
            "break-glass"
        } else {
            "permit"
        };
        let who = match (prohibits, public, self.who) {
            (false, true, _) | (true, _, 3) => "any".to_owned(),
            (_, _, 0) if !breaks => "{org: org:court}".to_owned(),
            (_, _, r) => format!("{{org: org:court, role: role:r{}}}", r % 2),
        };
        let actions = if breaks { "query" } else { ["query", "subscribe", "query, subscribe"][self.actions as usize] };
        let purpose = match self.purpose {
            2 if prohibits => String::new(),
            _ if public && !prohibits => String::new(),
            p => format!(", purpose: purp:p{}", p % 2),
        };
        let day = |d: u64| format!("2026-01-{:02}T00:00:00Z", d + 1);
        let mut duties: Vec<&str> =
            if breaks { vec!["{type: justification}", "{type: review, within: 1d}"] } else { vec![] };
        match (prohibits, self.shows) {
            (true, _) => {}
            (_, 0) => duties.push("{type: fields, allow: [f]}"),
            (_, 1) => duties.push("{type: fields, allow: [g]}"),
            (_, 2) if actions == "query" => duties.push("{type: aggregate, group_by: [g], min_group: 5}"),
            (_, 3) if actions == "query" => duties.push("{type: mask, fields: [f]}"),
            _ => {}
        }
        let evidence = match (prohibits, public) {
            (true, _) => "",
            (_, true) => ", evidence: none",
            _ => ", evidence: strict",
        };
        let duties = if prohibits { String::new() } else { format!(", duties: [{}]", duties.join(", ")) };
        format!(
            "- {{id: C{n}, text: c, effect: {effect}, assignee: {who}, actions: [{actions}]{evidence}{purpose}, valid: {{from: {}, until: {}}}{duties}}}\n",
            day(self.days.0),
            day(self.days.1)
        )
    }
}

fn document(n: usize, public: bool, clauses: &[Plain]) -> String {
    let clauses: String = (1..).zip(clauses).map(|(i, c)| c.yaml(i, public)).collect();
    let (to, approve) = if public { ("any", "") } else { ("org:court", ", assignee: [legal]") };
    format!(
        "agreement: AGR-{n}\nversion: 1\nassigner: org:police\nassignee: {to}\ntarget: ds:police/stops@1\n\
         valid: {{from: 2026-01-01T00:00:00Z, until: 2026-02-01T00:00:00Z}}\napprovals: {{assigner: [legal]{approve}}}\nclauses:\n{clauses}"
    )
}

fn plain() -> impl Strategy<Value = Plain> {
    let days = (0u64..4, 3u64..9).prop_map(|(a, n)| (a, a + n));
    (0u8..12, 0u8..4, 0u8..3, 0u8..3, days, 0u8..5).prop_map(|(kind, who, actions, purpose, days, shows)| Plain {
        kind,
        who,
        actions,
        purpose,
        days,
        shows,
    })
}

fn shows(c: &concordat_policies::document::Clause, field: &str) -> bool {
    use concordat_policies::duty::Duty;
    c.duties.iter().all(|d| match d {
        Duty::Fields { allow } => allow.iter().any(|a| a == field),
        Duty::Aggregate { group_by, .. } => group_by.iter().any(|g| g.field == field),
        _ => true,
    })
}

#[test]
fn a_reader_covers_an_ask_if_and_only_if_a_clause_that_shows_the_field_permits_it() {
    use proptest::test_runner::{Config, TestRunner};
    let asks = (0u8..8, 0u8..4, 0u8..3, 0u8..2, 0u64..14, 0..DAY);
    let docs = (proptest::collection::vec(plain(), 1..6), proptest::collection::vec(plain(), 0..4));
    let every = Capabilities(DutyKind::ALL.iter().copied().collect());
    let dataset = DatasetId::new("ds:police/stops@1").unwrap();
    let counts = std::cell::Cell::new((0u64, 0u64, 0u64));
    let strategy = (docs, proptest::collection::vec(asks, 1..64));
    TestRunner::new(Config { cases: 384, failure_persistence: None, ..Config::default() })
        .run(&strategy, |((own, public), asks)| {
            let texts = [document(1, false, &own), document(2, true, &public)];
            let compiled: Vec<_> = texts.iter().filter_map(|t| compile(t).ok()).collect();
            let documents: Vec<&Agreement> = compiled.iter().map(|c| &c.document).collect();
            let evaluators: Vec<_> =
                compiled.iter().map(|c| Arc::new(Evaluator::new(c.clone(), every.clone()).unwrap())).collect();
            for (who, roles, action, purpose, day, ms) in asks {
                let consumer = AgencyId::new(if who == 0 { "grid" } else { "court" }).unwrap();
                let set = AgreementSet::new(dataset.clone(), consumer.clone(), evaluators.clone());
                let ask = Ask {
                    consumer,
                    roles: (0..2).filter(|r| roles & (1 << r) != 0).map(|r| format!("role:r{r}")).collect(),
                    action: if action == 1 { Action::Subscribe } else { Action::Query },
                    break_glass: action == 2,
                    purpose: format!("purp:p{purpose}"),
                    agreement: None,
                    clause: None,
                    case: None,
                    at_ms: FROM + day * DAY + ms,
                };
                for field in FIELDS {
                    let listed = readers(&documents, &dataset, field, &every).iter().any(|r| r.covers(&ask));
                    let permits = |d: &Agreement, c: &concordat_policies::document::Clause| {
                        let named =
                            Ask { agreement: Some(d.agreement.clone()), clause: Some(c.id.clone()), ..ask.clone() };
                        c.grants() && shows(c, field) && set.decide(&named).grant().is_some()
                    };
                    let reads = documents.iter().any(|d| d.clauses.iter().any(|c| permits(d, c)));
                    prop_assert_eq!(listed, reads, "{} {:?}\n{:#?}", field, ask, texts);
                    let (yes, no, public) = counts.get();
                    let foreign = ask.consumer.as_str() == "grid" && reads;
                    counts.set((yes + u64::from(reads), no + u64::from(!reads), public + u64::from(foreign)));
                }
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    let (yes, no, public) = counts.get();
    assert!(yes > 500 && no > 500 && public > 20, "too one-sided: {:?}", counts.get());
}
