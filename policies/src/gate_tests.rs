//! The ways in which Casbin 2.20 fails open, each shown on plain Casbin where that is cheap, and denied by the gate.
#![allow(clippy::unwrap_used, clippy::type_complexity)]
use super::*;
use crate::compile::compile;
use crate::rows::Row;
use crate::testing::demo;

const IN: &str = "2026-06-01T00:00:00.000Z";

fn rows() -> PolicyRows {
    compile(&demo("AGR-2026-0142")).unwrap().rows
}

fn gate() -> Gate {
    Gate::new(&rows()).unwrap()
}

fn probe(clause: &str, org: &str, user: &str, act: &str, purp: &str, t: &str) -> Probe {
    let s = str::to_owned;
    Probe { clause: Some(s(clause)), org: s(org), user: s(user), act: s(act), purp: s(purp), t: s(t) }
}

fn clerk() -> Probe {
    probe("C1", "org:court", "|role:clerk|", "query", "purp:pending-case", IN)
}

#[test]
fn the_named_clause_decides_and_prohibitions_win() {
    let g = gate();
    assert_eq!(g.allows(&clerk()), Ok(true));
    for (why, p) in [
        ("another clause", Probe { clause: Some("S1".to_owned()), ..clerk() }),
        ("no clause", Probe { clause: None, ..clerk() }),
        ("sentinel", Probe { clause: Some(SENTINEL.to_owned()), ..clerk() }),
        ("org", Probe { org: "org:grid".to_owned(), ..clerk() }),
        ("role", Probe { user: "|role:judge|".to_owned(), ..clerk() }),
        ("no role", Probe { user: "||".to_owned(), ..clerk() }),
        ("action", Probe { act: "delete".to_owned(), ..clerk() }),
        ("purpose", Probe { purp: "purp:curiosity".to_owned(), ..clerk() }),
        ("prohibited", Probe { purp: "purp:profiling".to_owned(), ..clerk() }),
        ("before", Probe { t: "2025-12-31T23:59:59.999Z".to_owned(), ..clerk() }),
        ("at the end", Probe { t: "2027-01-01T00:00:00.000Z".to_owned(), ..clerk() }),
    ] {
        assert_eq!(g.allows(&p), Ok(false), "{why}");
    }
    assert_eq!(g.prohibits(&Probe { purp: "purp:profiling".to_owned(), ..clerk() }), Ok(true));
    assert_eq!(g.prohibits(&clerk()), Ok(false));
    let breaking = Probe { act: "break-glass".to_owned(), purp: "purp:profiling".to_owned(), ..clerk() };
    assert_eq!(g.prohibits(&breaking), Ok(true), "a prohibition of query holds for overrides");
}

#[test]
fn an_empty_policy_is_refused_although_casbin_would_allow() {
    let mut model = DefaultModel::default();
    for (s, k, v) in [("r", "r", "a"), ("p", "p", "a, eft"), ("e", "e", EFFECT), ("m", "m", "r.a == p.a")] {
        assert!(model.add_def(s, k, v));
    }
    let plain = Enforcer::new_raw(model, NullAdapter).now_or_never().unwrap().unwrap();
    assert!(plain.enforce((String::new(),)).unwrap(), "casbin fails open here; if not, this guard may go");
    let none = PolicyRows { rows: vec![], duties: vec![] };
    assert!(matches!(Gate::new(&none), Err(GateError::Rows(_))));
    let headless = PolicyRows { rows: rows().rows[1..].to_vec(), duties: vec![] };
    assert!(matches!(Gate::new(&headless), Err(GateError::Rows(_))));
}

#[test]
fn empty_overlong_and_wildcard_values_never_allow() {
    let g = gate();
    let set: [(&str, fn(&mut Probe, &str)); 6] = [
        ("clause", |p, v| p.clause = Some(v.to_owned())),
        ("org", |p, v| p.org = v.to_owned()),
        ("roles", |p, v| p.user = v.to_owned()),
        ("action", |p, v| p.act = v.to_owned()),
        ("purpose", |p, v| p.purp = v.to_owned()),
        ("time", |p, v| p.t = v.to_owned()),
    ];
    for (name, put) in set {
        let mut p = clerk();
        put(&mut p, "");
        assert_eq!(g.allows(&p), Err(GateError::Value(name)), "empty {name}");
        assert!(g.prohibits(&p).is_err() || name == "clause", "empty {name}");
        put(&mut p, &"x".repeat(VALUE_BYTES_MAX + 1));
        assert!(g.allows(&p).is_err(), "long {name}");
        for odd in
            ["*", "\" || true || \"", "role:clerk", "eval(p.eft)", "r.org", "p_org", "\0", "org:court\" == \"org:court"]
        {
            put(&mut p, odd);
            assert_ne!(g.allows(&p), Ok(true), "{name} = {odd}");
        }
    }
}

#[test]
fn a_user_named_like_a_role_does_not_hold_it() {
    // Casbin's own g() says that everybody holds the role of the same name.
    let g = gate();
    for (user, holds) in [
        ("role:clerk", false),
        ("|role:clerks|", false),
        ("|xrole:clerk|", false),
        ("|role:clerk", false),
        ("role:clerk|", false),
        ("|role:x|role:clerk|", true),
    ] {
        assert_eq!(g.allows(&Probe { user: user.to_owned(), ..clerk() }), Ok(holds), "{user}");
    }
    assert!(!super::holds(Dynamic::from("||".to_owned()), Dynamic::from(String::new())).as_bool().unwrap());
    assert!(!super::holds(Dynamic::UNIT, Dynamic::from("role:clerk".to_owned())).as_bool().unwrap());
    assert!(!super::holds(Dynamic::from(7), Dynamic::from(7)).as_bool().unwrap());
}

#[test]
fn forged_rows_are_refused() {
    let change = |f: fn(&mut Vec<Row>)| {
        let mut r = rows();
        f(&mut r.rows);
        Gate::new(&r).err()
    };
    let cases: [(&str, fn(&mut Vec<Row>)); 7] = [
        ("an effect in the wrong case is ignored by casbin", |r| r[3].eft = "Deny".to_owned()),
        ("an unknown effect", |r| r[3].eft = "forbid".to_owned()),
        ("an empty effect", |r| r[3].eft = String::new()),
        ("a row twice: casbin keeps one, so the count is wrong", |r| r.push(r[1].clone())),
        ("a missing sentinel", |r| drop(r.remove(0))),
        ("a time of another width sorts wrongly", |r| r[1].na = "2027-01-01T00:00:00Z".to_owned()),
        ("an empty organisation", |r| r[1].org = String::new()),
    ];
    for (why, f) in cases {
        assert!(matches!(change(f), Some(GateError::Rows(_))), "{why}");
    }
}

#[test]
fn denials_survive_the_order_of_rows() {
    let mut r = rows();
    r.rows[1..].reverse();
    let g = Gate::new(&r).unwrap();
    assert_eq!(g.allows(&clerk()), Ok(true));
    assert_eq!(g.allows(&Probe { purp: "purp:profiling".to_owned(), ..clerk() }), Ok(false));
}

#[test]
fn a_panic_in_the_engine_is_an_error() {
    let mut g = gate();
    g.enforcer.add_function("holds", OperatorFunction::Arg2(|_, _| std::panic::panic_any("seeded")));
    assert_eq!(g.allows(&clerk()), Err(GateError::Engine("it panicked".to_owned())));
}

#[test]
fn a_function_that_is_gone_is_an_error() {
    let mut model = DefaultModel::default();
    for (s, k, v) in [("r", "r", REQUEST), ("p", "p", POLICY), ("e", "e", EFFECT), ("m", "m", MATCHER)] {
        assert!(model.add_def(s, k, v));
    }
    for r in &rows().rows {
        model.add_policy("p", "p", r.values());
    }
    let enforcer = Enforcer::new_raw(model, NullAdapter).now_or_never().unwrap().unwrap();
    let g = Gate { enforcer };
    assert!(matches!(g.allows(&clerk()), Err(GateError::Engine(_))), "no function holds");
    assert!(matches!(g.prohibits(&clerk()), Err(GateError::Engine(_))), "no effect e2");
}
