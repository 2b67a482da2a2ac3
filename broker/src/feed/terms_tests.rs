//! Terms come from the ledger, whatever a provider says.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::NodeConfig;
use crate::exchange::plan::tests::{agency, view};

fn cfg(dir: &std::path::Path) -> NodeConfig {
    let yaml = "version: 1\nagency: transport\nchain: city\nlisten: 127.0.0.1:9999\n\
        nats: {url: \"nats://127.0.0.1:1\", user: t, password: \"env:X\"}\nexchange: {account: EXCHANGE, own: TRANSPORT}\n\
        comet: {rpc: \"unix:run/rpc.sock\", p2p: \"127.0.0.1:9998\"}\n";
    std::fs::write(dir.join("node.yaml"), yaml).unwrap();
    NodeConfig::load(dir).unwrap()
}

/// The version with other terms.
fn with(mut v: AgreementView, version: u64, change: impl FnOnce(&mut Terms)) -> AgreementView {
    let mut terms: Terms = cbor::decode(&v.terms).unwrap();
    terms.version = version;
    change(&mut terms);
    (v.version, v.terms) = (version, cbor::encode(&terms).into());
    v
}

fn public(v: AgreementView) -> AgreementView {
    with(v, 1, |t| {
        t.assignee = None;
        t.clauses[0].evidence = Evidence::None {};
    })
}

fn said() -> Subscribed {
    Subscribed {
        subscription: CREATED_FROM + 1,
        agreement: "AGR-2026-0143".into(),
        version: 1,
        clause: "F1".into(),
        handle: 17,
        max_lag_ms: 2_000,
        fields: vec![],
    }
}

fn load() -> DatasetId {
    DatasetId::new("ds:grid/load@1").unwrap()
}

#[test]
fn a_provider_s_word_counts_only_where_the_ledger_bears_it_out() {
    let (own, v) = (agency("transport"), view(Status::Active, vec![17, 18]));
    let ok = |views: &[AgreementView], s: &Subscribed| bears_out(views, &own, &load(), s);
    let all = [v.clone()];
    assert_eq!(ok(&all, &said()), Ok(()));
    for (what, lie) in [
        ("a default number", Subscribed { subscription: 17, ..said() }),
        ("another agreement", Subscribed { agreement: "AGR-2026-0999".into(), ..said() }),
        ("another version", Subscribed { version: 2, ..said() }),
        ("a query clause", Subscribed { clause: "C1".into(), handle: 18, ..said() }),
        ("another handle", Subscribed { handle: 18, ..said() }),
        ("a wider bound", Subscribed { max_lag_ms: 60_000, ..said() }),
        ("no bound at all", Subscribed { max_lag_ms: 0, ..said() }),
    ] {
        assert!(ok(&all, &lie).is_err(), "{what}");
    }
    assert!(ok(&[view(Status::Suspended, vec![17, 18])], &said()).is_err(), "not in force");
    assert!(bears_out(&all, &agency("police"), &load(), &said()).is_err(), "no party to it");
    assert!(bears_out(&all, &own, &DatasetId::new("ds:grid/other@1").unwrap(), &said()).is_err());
    let open = [public(v)];
    assert_eq!(ok(&open, &Subscribed { max_lag_ms: 0, ..said() }), Ok(()), "a public one promises nothing");
    assert!(ok(&open, &said()).is_err(), "and must not say that it does");
}

#[test]
fn public_clauses_give_no_subscription_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (cfg, v) = (cfg(dir.path()), view(Status::Active, vec![17, 18]));
    let numbers = |views: &[AgreementView]| {
        default_ones(views, &cfg, &Documents::new()).iter().map(|(k, _)| k.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(std::slice::from_ref(&v)), [17]);
    assert_eq!(numbers(&[public(v.clone())]), Vec::<u64>::new());
    let clauses = open_clauses(&[public(v)], &cfg.agency, &load());
    assert_eq!(clauses, [("AGR-2026-0143".to_owned(), "F1".to_owned())]);
}

#[test]
fn a_created_subscription_goes_on_under_the_newest_version_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let cfg = cfg(dir.path());
    let created = Created {
        key: Key { provider: agency("grid"), number: CREATED_FROM + 1 },
        name: "mine".into(),
        agreement: "AGR-2026-0143".into(),
        version: 1,
        clause: "F1".into(),
        handle: 17,
        dataset: load(),
        max_lag_ms: 2_000,
        filter: String::new(),
        fields: "[]".into(),
        purpose: String::new(),
        case: String::new(),
        created_by: "a".into(),
        created_ms: 1,
        ending: false,
    };
    let at = |views: &[AgreementView]| {
        let t = created_one(views, &cfg, &created, &Documents::new())?;
        Some((t.version, t.handle, t.status, t.expected.max_lag_ms.into_iter().collect::<Vec<_>>()))
    };
    let one = |status| view(status, vec![17, 18]);
    let two = |status| {
        let wider = |t: &mut Terms| t.clauses[0].evidence = Evidence::Bounded { max_lag_ms: 5_000 };
        with(view(status, vec![27, 28]), 2, wider)
    };
    assert_eq!(at(&[]), None);
    assert_eq!(at(&[one(Status::Active)]), Some((1, 17, Status::Active, vec![2_000])));
    assert_eq!(at(&[one(Status::Active), two(Status::Proposed)]), Some((1, 17, Status::Active, vec![2_000])));
    let both = Some((2, 27, Status::Active, vec![2_000, 5_000]));
    assert_eq!(at(&[one(Status::Superseded), two(Status::Active)]), both, "what was promised before keeps its bound");
    assert_eq!(at(&[one(Status::Superseded), two(Status::Revoked)]).map(|t| t.2), Some(Status::Revoked));
    let without = with(two(Status::Active), 2, |t| t.clauses[0].id = "F9".into());
    assert_eq!(at(&[one(Status::Superseded), without]).map(|t| t.2), Some(Status::Superseded), "its clause has ended");
}
