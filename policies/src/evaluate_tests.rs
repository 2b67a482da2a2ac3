#![allow(clippy::unwrap_used)]
use super::*;
use crate::compile::compile;
use crate::testing::{NOW, clerk, court, demo, evaluator, named_court};
use concordat_protocol::terms::Action;

fn agency(s: &str) -> AgencyId {
    AgencyId::new(s).unwrap()
}

fn denial(d: &Decision) -> Denial {
    d.denial().unwrap()
}

fn set(docs: &[&str]) -> AgreementSet {
    let all = docs.iter().map(|d| Arc::new(evaluator(d)));
    AgreementSet::new(DatasetId::new("ds:police/stops@1").unwrap(), agency("court"), all)
}

#[test]
fn a_clerk_is_permitted_under_c1_with_its_duties() {
    let e = evaluator(&demo("AGR-2026-0142"));
    for clause in [None, Some("C1".to_owned())] {
        let d = e.decide(&Ask { clause, ..clerk() });
        let g = d.grant().unwrap();
        assert_eq!((g.clause.clause.as_str(), g.index, g.effect), ("C1", 0, Effect::Permit));
        assert_eq!(g.duties.len(), 5);
        assert_eq!(g.terms_hash, e.compiled().terms.hash());
    }
}

#[test]
fn every_other_ask_is_denied_with_reason_clause_and_what_would_help() {
    let e = evaluator(&demo("AGR-2026-0142"));
    let roles = |r: &str| [r.to_owned()].into();
    let cases: Vec<(Ask, Reason, Option<&str>, &str)> = vec![
        (Ask { purpose: "purp:profiling".into(), ..clerk() }, Reason::Prohibited, Some("X1"), "Never for profiling."),
        (Ask { purpose: "purp:curiosity".into(), ..clerk() }, Reason::Purpose, Some("C1"), "purp:pending-case"),
        (Ask { roles: BTreeSet::new(), ..clerk() }, Reason::Role, Some("C1"), "role:clerk"),
        (Ask { consumer: agency("grid"), ..clerk() }, Reason::Party, Some("C1"), "org:court"),
        (Ask { action: Action::Delete, ..clerk() }, Reason::Action, Some("C1"), "query"),
        (Ask { at_ms: 1_767_225_599_999, ..clerk() }, Reason::NotYet, Some("C1"), "2026-01-01T00:00:00.000Z"),
        (Ask { at_ms: 1_798_761_600_000, ..clerk() }, Reason::Expired, Some("C1"), "2027-01-01T00:00:00.000Z"),
        (Ask { case: None, ..clerk() }, Reason::Reference, Some("C1"), "^[0-9]{2}-[A-Z]{2}-[0-9]{4}$"),
        (Ask { case: Some("x26-CR-1042".into()), ..clerk() }, Reason::Reference, Some("C1"), "case reference"),
        (Ask { clause: Some("C2".into()), ..clerk() }, Reason::UnknownClause, None, "nearest is C1"),
        (Ask { clause: Some("X1".into()), ..clerk() }, Reason::UnknownClause, None, "X1"),
        (Ask { clause: Some("S1".into()), ..clerk() }, Reason::Role, Some("S1"), "role:planner"),
        (Ask { clause: Some("B1".into()), ..clerk() }, Reason::BreakGlass, Some("B1"), "override"),
        (Ask { purpose: String::new(), ..clerk() }, Reason::BadRequest, None, "purpose"),
        (Ask { purpose: "*".into(), ..clerk() }, Reason::BadRequest, None, "purpose"),
        (Ask { roles: roles("role:a|role:clerk"), ..clerk() }, Reason::BadRequest, None, "roles"),
        (Ask { clause: Some(String::new()), ..clerk() }, Reason::BadRequest, None, "clause"),
        (Ask { at_ms: 0, ..clerk() }, Reason::BadRequest, None, "time"),
        (Ask { at_ms: u64::MAX, ..clerk() }, Reason::BadRequest, None, "time"),
    ];
    for (ask, reason, clause, says) in cases {
        let d = denial(&e.decide(&ask));
        assert_eq!(d.reason, reason, "{ask:?}: {}", d.text);
        assert_eq!(d.clause.as_ref().map(|c| c.clause.as_str()), clause, "{}", d.text);
        assert!(d.text.contains(says), "{} should say {says}", d.text);
        assert!(!d.next.is_empty());
    }
}

#[test]
fn codes_follow_the_registry() {
    assert_eq!(
        (Reason::NoAgreement.code(), Reason::NotYet.code(), Reason::Expired.code(), Reason::Prohibited.code()),
        (401, 402, 403, 407)
    );
}

#[test]
fn an_override_is_never_picked_by_itself_and_prohibitions_win_over_it() {
    use crate::duty::DutyKind;
    let all = Capabilities(DutyKind::ALL.iter().copied().collect());
    let e = Evaluator::new(compile(&demo("AGR-2026-0142")).unwrap(), all).unwrap();
    let officer = Ask { roles: ["role:duty-officer".to_owned()].into(), purpose: "purp:life-threat".into(), ..clerk() };
    assert_eq!(denial(&e.decide(&officer)).reason, Reason::BreakGlass);
    let over = Ask { break_glass: true, ..officer };
    assert_eq!(e.decide(&over).grant().unwrap().clause.clause, "B1");
    assert_eq!(denial(&e.decide(&Ask { break_glass: true, ..clerk() })).reason, Reason::BreakGlass);
    let profiling = Ask { purpose: "purp:profiling".into(), clause: Some("B1".into()), ..over };
    assert_eq!(denial(&e.decide(&profiling)).reason, Reason::Prohibited);
}

const CLERK: &str = "- {id: C1, text: a, effect: permit, assignee: {org: org:court, role: role:clerk}, actions: [query], purpose: purp:pending-case}";

#[test]
fn several_matching_clauses_are_listed_and_one_named_decides() {
    let other = CLERK.replace("C1", "C2").replace(", role: role:clerk", "");
    let e = evaluator(&court(&format!("{CLERK}\n{other}")));
    let Decision::Ambiguous { clauses } = e.decide(&clerk()) else { panic!("not ambiguous") };
    assert_eq!(clauses.iter().map(|c| c.clause.as_str()).collect::<Vec<_>>(), ["C1", "C2"]);
    assert_eq!(e.decide(&Ask { clause: Some("C2".into()), ..clerk() }).grant().unwrap().clause.clause, "C2");
    assert_eq!(denial(&e.decide(&clerk())).code(), 407);
}

#[test]
fn a_clause_that_cannot_be_kept_does_not_compete() {
    let other =
        CLERK.replace("C1", "C2").replace("purp:pending-case}", "purp:pending-case, duties: [{type: justification}]}");
    let e = evaluator(&court(&format!("{CLERK}\n{other}")));
    assert_eq!(e.decide(&clerk()).grant().unwrap().clause.clause, "C1");
}

#[test]
fn prohibitions_of_every_agreement_win_in_a_set() {
    let permits = named_court("AGR-1", CLERK);
    let forbids = named_court(
        "AGR-2",
        "- {id: F1, text: feed, effect: permit, assignee: {org: org:court}, actions: [subscribe], evidence: strict, purpose: purp:pending-case}
- {id: X9, text: Not while the review lasts., effect: prohibit, assignee: any, actions: [query]}",
    );
    assert!(set(&[&permits]).decide(&clerk()).grant().is_some());
    let both = set(&[&permits, &forbids]);
    let d = denial(&both.decide(&Ask {
        agreement: Some(AgreementId::new("AGR-1").unwrap()),
        clause: Some("C1".into()),
        ..clerk()
    }));
    assert_eq!((d.reason, d.clause.unwrap().agreement.as_str().to_owned()), (Reason::Prohibited, "AGR-2".to_owned()));
}

#[test]
fn a_set_holds_only_what_is_between_the_two_on_the_dataset() {
    assert_eq!(denial(&set(&[]).decide(&clerk())).reason, Reason::NoAgreement);
    let feed = demo("AGR-2026-0143");
    assert!(set(&[&feed]).evaluators().is_empty());
    let s = set(&[&demo("AGR-2026-0142")]);
    assert_eq!(denial(&s.decide(&Ask { consumer: agency("grid"), ..clerk() })).code(), 401);
    let other = Ask { agreement: Some(AgreementId::new("AGR-9").unwrap()), ..clerk() };
    assert_eq!(denial(&s.decide(&other)).reason, Reason::NoAgreement);
    // The same clause id in two agreements: the request must say which.
    let two = set(&[&named_court("AGR-1", CLERK), &named_court("AGR-2", CLERK)]);
    assert!(matches!(two.decide(&Ask { clause: Some("C1".into()), ..clerk() }), Decision::Ambiguous { .. }));
    let one = Ask { clause: Some("C1".into()), agreement: Some(AgreementId::new("AGR-2").unwrap()), ..clerk() };
    assert_eq!(two.decide(&one).grant().unwrap().clause.agreement.as_str(), "AGR-2");
}

#[test]
fn public_data_is_for_everybody() {
    let e = evaluator(&demo("AGR-2026-0145"));
    let ask = Ask {
        consumer: agency("grid"),
        roles: BTreeSet::new(),
        purpose: "purp:curiosity".into(),
        case: None,
        ..clerk()
    };
    let d = e.decide(&ask);
    assert_eq!(d.grant().unwrap().evidence, concordat_protocol::terms::Evidence::None {});
    assert_eq!(denial(&e.decide(&Ask { action: Action::Subscribe, ..ask })).reason, Reason::Action);
}

#[test]
fn remembered_verdicts_end_with_the_window() {
    let e = evaluator(&court(&CLERK.replace(
        "purp:pending-case}",
        "purp:pending-case, valid: {from: 2026-06-01T00:00:00Z, until: 2026-06-02T00:00:00Z}}",
    )));
    for (at, granted) in
        [(NOW - 1, false), (NOW, true), (NOW + 86_399_999, true), (NOW + 86_400_000, false), (NOW + 1, true)]
    {
        for _ in 0..2 {
            assert_eq!(e.decide(&Ask { at_ms: at, ..clerk() }).grant().is_some(), granted, "{at}");
        }
    }
    assert!(e.cache.lock().unwrap().len() <= 6);
}

#[test]
fn other_terms_than_agreed_are_refused() {
    let yaml = demo("AGR-2026-0142");
    let agreed = compile(&yaml).unwrap().terms_hash();
    assert!(crate::compile::compile_agreed(&yaml, &agreed).is_ok());
    let forged = yaml.replace("max: 500", "max: 501");
    let e = crate::compile::compile_agreed(&forged, &agreed).unwrap_err();
    assert_eq!(e.code(), 409);
    assert!(e.to_string().contains("AGR-2026-0142"));
}

#[test]
fn a_remembered_permit_does_not_cover_a_reference_of_another_form() {
    let set = set(&[&demo("AGR-2026-0142")]);
    let with = |case: Option<&str>| set.decide(&Ask { case: case.map(str::to_owned), ..clerk() });
    assert!(with(Some("26-CR-1042")).grant().is_some());
    for other in [None, Some(""), Some("26-CR-104"), Some("26-CR-1042x")] {
        assert_eq!(denial(&with(other)).reason, Reason::Reference, "{other:?}");
    }
    assert!(with(Some("26-CR-9999")).grant().is_some());
}
