#![allow(clippy::unwrap_used)]
use super::*;
use crate::host::policy::Policies;
use concordat_executor::policies::compile::{Compiled, compile};
use concordat_protocol::cbor::Bytes;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{SigningKey, Statement, Suite};
use concordat_protocol::node::ApprovalView;
use concordat_protocol::terms::Status;
use std::sync::Arc;

const YAML: &str = "agreement: AGR-2026-0143
version: 1
assigner: org:grid
assignee: org:transport
target: ds:grid/feeder@1
valid: {from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}
approvals: {assigner: [legal], assignee: [legal]}
clauses:
- id: C1
  text: Transport may look feeders up.
  effect: permit
  assignee: {org: org:transport}
  actions: [query]
  evidence: strict
  purpose: purp:grid-dispatch
  legal_basis: s
  duties:
  - {type: fields, allow: [meter, time]}
";

fn agreed() -> Compiled {
    compile(YAML).unwrap()
}
/// New dates alone.
fn later(year: u16) -> Compiled {
    compile(&YAML.replace("until: 2027", &format!("until: {year}"))).unwrap()
}
/// New dates and one more field.
fn wider(year: u16) -> Compiled {
    compile(&YAML.replace("until: 2027", &format!("until: {year}")).replace("[meter, time]", "[meter, time, area]"))
        .unwrap()
}

fn folder(all: &[&Compiled]) -> Documents {
    all.iter().map(|c| (c.terms_hash(), Arc::new((*c).clone()))).collect()
}

fn act(body: ActBody, key: &SigningKey) -> Act {
    let agency = AgencyId::new("grid").unwrap();
    Act { chain: "c".into(), agency, key_id: key.key_id(), counter: 1, body }
}

fn approval(before: &Compiled, after: &Compiled) -> ActBody {
    ActBody::Approve {
        agreement: after.document.agreement.clone(),
        version: 1,
        revision: 2,
        what: ApprovalKind::Renew,
        terms_hash: after.terms_hash(),
        prev_terms_hash: before.terms_hash(),
        role: "legal".into(),
        expires_ms: 0,
    }
}

/// The version as the ledger has it; renewed from `before`, if it was.
fn view(terms: &Compiled, before: Option<&Compiled>, key: &SigningKey) -> AgreementView {
    let approvals = before.map(|before| {
        let bytes = cbor::encode(&act(approval(before, terms), key));
        let signature = key.sign(Statement::Act, "c", &bytes);
        let agency = AgencyId::new("grid").unwrap();
        let (what, role) = (ApprovalKind::Renew, "legal".to_owned());
        ApprovalView {
            agency,
            role,
            key_id: key.key_id(),
            what,
            act: Bytes(bytes),
            signature: Bytes(cbor::encode(&signature)),
        }
    });
    AgreementView {
        agreement: terms.document.agreement.clone(),
        version: 1,
        revision: 3,
        status: Status::Active,
        terms_hash: terms.terms_hash(),
        terms: cbor::encode(&terms.terms).into(),
        expires_ms: 0,
        approvals: approvals.into_iter().collect(),
        handles: vec![7],
        bounded_suspended: 0,
    }
}

/// Builds as the executor does; returns the terms that it enforces, and why not the newest.
fn build(
    before: &Policies,
    view: &AgreementView,
    documents: &Documents,
    key: &SigningKey,
) -> (Policies, Option<Hash>, Option<String>) {
    let keys = [(key.key_id(), key.public().clone())].into();
    let grid = AgencyId::new("grid").unwrap();
    let built = Policies::build(before, &grid, "c", std::slice::from_ref(view), documents, &keys);
    let of = built.versions().next().unwrap().1.clone();
    let why = built.refused_renewal(&view.agreement).map(str::to_owned);
    (built, of.evaluator.map(|e| *e.terms_hash()), why)
}

#[test]
fn an_executor_applies_new_dates_and_nothing_else() {
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let (old, dates, forged) = (agreed(), later(2028), wider(2028));
    let all = folder(&[&old, &dates, &forged]);
    let (first, enforced, why) = build(&Policies::default(), &view(&old, None, &key), &all, &key);
    assert_eq!((enforced, why), (Some(old.terms_hash()), None));
    let (_, enforced, why) = build(&first, &view(&dates, Some(&old), &key), &all, &key);
    assert_eq!((enforced, why), (Some(dates.terms_hash()), None), "dates move");
    let (second, enforced, why) = build(&first, &view(&forged, Some(&old), &key), &all, &key);
    assert_eq!(enforced, Some(old.terms_hash()), "what was agreed before goes on to its end");
    assert!(why.unwrap().contains("clause C1: fields"));
    // The next one is compared with what is enforced, not with what was refused.
    let next = wider(2029);
    let all = folder(&[&old, &forged, &next]);
    let (_, enforced, why) = build(&second, &view(&next, Some(&forged), &key), &all, &key);
    assert_eq!(enforced, Some(old.terms_hash()));
    assert!(why.is_some());
    // One that mends it is applied.
    let mended = later(2030);
    let all = folder(&[&old, &mended]);
    let (_, enforced, why) = build(&second, &view(&mended, Some(&forged), &key), &all, &key);
    assert_eq!((enforced, why), (Some(mended.terms_hash()), None));
}

#[test]
fn a_restart_remembers_what_was_enforced() {
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let (old, forged, next) = (agreed(), wider(2028), wider(2029));
    let all = folder(&[&old, &forged, &next]);
    let (first, ..) = build(&Policies::default(), &view(&old, None, &key), &all, &key);
    let dir = tempfile::tempdir().unwrap();
    first.keep(&Policies::default(), dir.path(), &Lead::alone()).unwrap();
    let again = Policies::resumed(dir.path()).unwrap();
    // Two forged renewals while it was down: the last alone compares well with the one before.
    let (_, enforced, why) = build(&again, &view(&next, Some(&forged), &key), &all, &key);
    assert_eq!(enforced, Some(old.terms_hash()));
    assert!(why.is_some());
    // An executor that never saw the version asks the approvals what the renewal replaced.
    let (_, enforced, _) = build(&Policies::default(), &view(&forged, Some(&old), &key), &all, &key);
    assert_eq!(enforced, Some(old.terms_hash()));
    std::fs::write(file(dir.path()), "{\"AGR-2026-0143\": \"00\"}").unwrap();
    assert!(Policies::resumed(dir.path()).is_err(), "it does not begin anew over a damaged file");
}

#[test]
fn without_the_documents_nothing_is_permitted() {
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let (old, dates, forged) = (agreed(), later(2028), wider(2028));
    let (first, ..) = build(&Policies::default(), &view(&old, None, &key), &folder(&[&old]), &key);
    let renewed = view(&dates, Some(&old), &key);
    for documents in [folder(&[&old]), folder(&[&dates]), folder(&[])] {
        let (kept, enforced, why) = build(&first, &renewed, &documents, &key);
        assert_eq!((enforced, why.is_some()), (None, true));
        // It is no lasting harm: with the documents it is applied.
        let (_, enforced, why) = build(&kept, &renewed, &folder(&[&old, &dates]), &key);
        assert_eq!((enforced, why), (Some(dates.terms_hash()), None));
    }
    let (_, enforced, _) = build(&Policies::default(), &view(&forged, Some(&old), &key), &folder(&[&forged]), &key);
    assert_eq!(enforced, None, "what it renews is not here");
}

#[test]
fn the_gateway_hands_on_no_act_of_a_renewal_that_changes_more() {
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let (old, dates, forged) = (agreed(), later(2028), wider(2028));
    let all = folder(&[&old, &dates, &forged]);
    let current = |_: &AgreementId, version: u64| (version == 1).then(|| old.terms_hash());
    let renew = |c: &Compiled| ActBody::Renew { terms: cbor::encode(&c.terms).into(), expires_ms: 0 };
    for (body, code) in [
        (renew(&dates), None),
        (renew(&forged), Some("not-a-renewal")),
        (approval(&old, &dates), None),
        (approval(&old, &forged), Some("not-a-renewal")),
    ] {
        let said = admit(&act(body.clone(), &key), current, &all).map_err(|e| e.code());
        assert_eq!(said.err(), code, "{body:?}");
        let said = admit(&act(body, &key), current, &folder(&[&old])).map_err(|e| e.code());
        assert_eq!(said.err(), Some("renewal-document"));
    }
    let other = ActBody::Suspend { agreement: old.document.agreement.clone(), version: 1, reason: [0; 32] };
    assert_eq!(admit(&act(other, &key), current, &folder(&[])), Ok(()));
}

/// The version with approvals of another kind, or that saw another revision.
fn approved(mut v: AgreementView, what: ApprovalKind, saw: u64, key: &SigningKey) -> AgreementView {
    let mut body = approval(&agreed(), &agreed());
    let ActBody::Approve { what: kind, revision, terms_hash, .. } = &mut body else { panic!() };
    (*kind, *revision, *terms_hash) = (what, saw, v.terms_hash);
    let bytes = cbor::encode(&act(body, key));
    let signature = cbor::encode(&key.sign(Statement::Act, "c", &bytes));
    let (agency, role) = (AgencyId::new("grid").unwrap(), "legal".to_owned());
    let (key_id, act) = (key.key_id(), Bytes(bytes));
    v.approvals = vec![ApprovalView { agency, role, key_id, what, act, signature: Bytes(signature) }];
    v.revision = saw + 1;
    v
}

#[test]
fn where_nothing_is_known_only_what_the_ledger_tells_is_enforced() {
    use ApprovalKind::{Activate, Renew, Resume};
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let (old, forged, next) = (agreed(), wider(2028), wider(2029));
    let all = folder(&[&old, &forged, &next]);
    let fresh = |v: &AgreementView| build(&Policies::default(), v, &all, &key);
    let of = |c: &Compiled| view(c, None, &key);
    // Activated, also after another proposal; suspended and resumed once.
    for (what, saw) in [(Activate, 1), (Activate, 5), (Resume, 3)] {
        let (_, enforced, why) = fresh(&approved(of(&old), what, saw, &key));
        assert_eq!((enforced, why), (Some(old.terms_hash()), None), "{what:?} {saw}");
    }
    // Two forged renewals, the last of which compares well with the one before; or a forged one, then a suspension.
    let mut twice = view(&next, Some(&forged), &key);
    let mut body = approval(&forged, &next);
    let ActBody::Approve { revision, .. } = &mut body else { panic!() };
    *revision = 3;
    twice.approvals[0].act = Bytes(cbor::encode(&act(body, &key)));
    twice.approvals[0].signature = Bytes(cbor::encode(&key.sign(Statement::Act, "c", &twice.approvals[0].act)));
    twice.revision = 4;
    let resumed = approved(of(&forged), Resume, 4, &key);
    let mut gathered = approved(of(&forged), Renew, 2, &key);
    gathered.revision = 2;
    for v in [&twice, &resumed, &gathered] {
        let (kept, enforced, why) = fresh(v);
        assert_eq!(enforced, None, "{:?}", v.approvals[0].what);
        assert!(why.unwrap().contains("restore executor/enforced.json from a backup"));
        // Nor is it taken for known the next time.
        assert_eq!(build(&kept, v, &all, &key).1, None);
        // With what was enforced restored, it is compared.
        let (first, ..) = build(&Policies::default(), &of(&old), &all, &key);
        let (_, enforced, why) = build(&first, v, &all, &key);
        assert_eq!(enforced, Some(old.terms_hash()));
        assert!(why.unwrap().contains("clause C1: fields"));
    }
}

#[test]
fn only_the_executor_at_work_keeps_what_is_enforced() {
    let key = SigningKey::generate(Suite::Ed25519).unwrap();
    let old = agreed();
    let (first, ..) = build(&Policies::default(), &view(&old, None, &key), &folder(&[&old]), &key);
    let dir = tempfile::tempdir().unwrap();
    let kept = || std::fs::read_dir(dir.path().join("executor")).unwrap().count();
    assert!(first.keep(&Policies::default(), dir.path(), &Lead::over()).is_err());
    assert_eq!(kept(), 0, "neither the file nor a rest of it");
    first.keep(&Policies::default(), dir.path(), &Lead::alone()).unwrap();
    assert_eq!((kept(), load(dir.path()).unwrap().len()), (1, 1));
}
