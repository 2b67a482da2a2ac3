//! The life of an agreement: who may do what, and when.

use concordat_protocol::acts::{ActBody, ApprovalKind, KeyRole};
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::Hash;
use concordat_protocol::keys::Suite;
use concordat_protocol::node::{NodeReply, NodeRequest, replaced_terms};
use concordat_protocol::terms::{Quota, QuotaUnit, Status, Terms};

use super::kit::{City, DAY, Key, START, agency, approvers, key, terms};

const ZERO: Hash = [0; 32];
use ApprovalKind::{Activate, Renew, Resume};

fn proposed() -> (City, Terms) {
    let mut city = City::new();
    let t = terms("AGR-1", 1);
    assert_eq!(city.propose(&t), 0);
    (city, t)
}

#[test]
fn distinct_keys_in_every_role_of_both_sides_make_it_active() {
    let (mut city, t) = proposed();
    let steps = [("police", "legal"), ("court", "legal"), ("police", "steward")];
    for (i, (who, name)) in steps.into_iter().enumerate() {
        assert_eq!(city.view("AGR-1", 1).status, Status::Proposed, "step {i}");
        assert_eq!(city.approve(&t, ZERO, Activate, who, name), 0);
    }
    let view = city.view("AGR-1", 1);
    assert_eq!((view.status, view.revision, view.handles.len(), view.approvals.len()), (Status::Active, 2, 6, 3));
}

#[test]
fn approving_twice_is_refused() {
    let (mut city, t) = proposed();
    assert_eq!(city.approve(&t, ZERO, Activate, "police", "legal"), 0);
    assert_eq!(city.approve(&t, ZERO, Activate, "police", "legal"), codes::APPROVAL, "the same key");
    let second = Key::new("second legal", Suite::Hybrid);
    let add = ActBody::KeyAdd { role: KeyRole::Approver, label: "legal".into(), key: second.public.clone() };
    assert_eq!(city.do_act("police", "root", add), 0);
    let body = city.approval(&t, ZERO, Activate, "legal");
    city.mock.submit(super::kit::signed_act("police", &second, 1, body));
    let block = city.tick();
    assert_eq!(block.results[1].code as u16, codes::APPROVAL, "the same role by another key");
    assert_eq!(city.view("AGR-1", 1).approvals.len(), 1);
}

#[test]
fn an_approval_must_name_what_stands_there_now() {
    let (mut city, t) = proposed();
    let good = city.approval(&t, ZERO, Activate, "legal");
    let change = |f: &dyn Fn(&mut ActBody)| {
        let mut body = good.clone();
        f(&mut body);
        body
    };
    macro_rules! with {
        ($field:ident = $value:expr) => {
            change(&|b| {
                if let ActBody::Approve { $field, .. } = b {
                    *$field = $value
                }
            })
        };
    }
    let table = [
        (with!(revision = 2), codes::APPROVAL),
        (with!(terms_hash = [9; 32]), codes::TERMS_MISMATCH),
        (with!(prev_terms_hash = [9; 32]), codes::TERMS_MISMATCH),
        (with!(role = "data-steward".into()), codes::APPROVAL),
        (with!(version = 2), codes::NO_AGREEMENT),
        (with!(expires_ms = START - 1), codes::APPROVAL),
        (with!(expires_ms = START + 40 * DAY), codes::APPROVAL),
        (with!(what = Resume), codes::NOT_YET),
        (with!(what = Renew), codes::NOT_YET),
    ];
    for (body, code) in table {
        assert_eq!(city.do_act("police", "legal", body.clone()), code, "{body:?}");
    }
    assert_eq!(city.do_act("grid", "legal", good.clone()), codes::WRONG_AGENCY);
    assert_eq!(city.do_act("police", "legal", good), 0);
}

#[test]
fn only_the_right_role_may_sign_an_act() {
    let (mut city, t) = proposed();
    let approve = city.approval(&t, ZERO, Activate, "legal");
    for name in ["root", "gateway", "security", "executor"] {
        let tx = city.act("police", name, approve.clone());
        assert_eq!(city.mock.check(tx.clone()).code as u16, codes::WRONG_ROLE, "{name}");
        let tick = city.mock.propose().remove(0);
        assert_eq!(city.mock.decide(vec![tick, tx]).results[1].code as u16, codes::WRONG_ROLE, "{name}");
        city.clock.advance(100);
    }
}

#[test]
fn suspension_is_at_once_by_either_side_and_resuming_needs_everyone_again() {
    let (mut city, agreement) = City::ready();
    let t = terms("AGR-1", 1);
    assert_eq!(city.suspend("grid", "security"), codes::WRONG_AGENCY);
    assert_eq!(city.suspend("court", "security"), 0);
    assert_eq!(city.suspend("police", "legal"), codes::SUSPENDED);
    let view = city.view("AGR-1", 1);
    assert_eq!((view.status, view.revision, view.approvals.len()), (Status::Suspended, 3, 3));
    for (who, name) in approvers(&t) {
        let op = city.query(agreement.handles[0], agreement.session, city.mock.height() as u64);
        assert_eq!(city.say("police/executor", op), (Verdict::Refused, codes::SUSPENDED));
        assert_eq!(city.approve(&t, ZERO, Resume, &who, name), 0);
    }
    let view = city.view("AGR-1", 1);
    assert_eq!((view.status, view.revision, view.handles), (Status::Active, 4, agreement.handles.clone()));
    assert!(view.approvals.iter().all(|a| a.what == Resume));
    let op = city.query(agreement.handles[0], agreement.session, 1_000);
    assert_eq!(city.say("police/executor", op).0, Verdict::Accepted);
}

#[test]
fn an_approval_of_an_earlier_revision_revives_nothing() {
    let (mut city, _) = City::ready();
    let t = terms("AGR-1", 1);
    assert_eq!(city.suspend("court", "security"), 0);
    let old = city.approval(&t, ZERO, Resume, "legal");
    for (who, name) in approvers(&t) {
        assert_eq!(city.approve(&t, ZERO, Resume, &who, name), 0);
    }
    assert_eq!(city.suspend("court", "security"), 0);
    assert_eq!(city.do_act("court", "legal", old), codes::APPROVAL);
    // What was gathered before a change of state is void after it.
    assert_eq!(city.approve(&t, ZERO, Resume, "police", "legal"), 0);
    assert_eq!(city.revoke("police", "security"), 0);
    assert_eq!(city.approve(&t, ZERO, Resume, "court", "legal"), codes::REVOKED);
}

#[test]
fn revoked_is_final_and_a_new_version_goes_on() {
    let (mut city, _) = City::ready();
    assert_eq!(city.revoke("court", "legal"), 0);
    assert_eq!(city.revoke("court", "legal"), codes::REVOKED);
    assert_eq!(city.suspend("court", "legal"), codes::REVOKED);
    let again = city.propose(&terms("AGR-1", 1));
    assert_eq!(again, codes::STALE);
    let h = city.agree(&terms("AGR-1", 2)).handles;
    assert!(h.iter().all(|h| *h > 6), "new handles: {h:?}");
}

#[test]
fn a_new_version_supersedes_the_one_it_names() {
    let (mut city, _) = City::ready();
    let (v1, mut v2) = (terms("AGR-1", 1), terms("AGR-1", 2));
    v2.text_hash = [8; 32];
    assert_eq!(city.propose(&v2), 0);
    assert_eq!(city.approve(&v2, ZERO, Activate, "court", "legal"), codes::TERMS_MISMATCH);
    let NodeReply::Agreements { body: views } = city.ask(&NodeRequest::Agreements {}) else { panic!() };
    assert_eq!(replaced_terms(&views, &v1.agreement, 2, Activate), v1.hash());
    assert_eq!(replaced_terms(&views, &v1.agreement, 1, Renew), v1.hash());
    assert_eq!(replaced_terms(&views, &v1.agreement, 1, Resume), ZERO);
    for (who, name) in approvers(&v2) {
        assert_eq!(city.view("AGR-1", 1).status, Status::Active, "active until the last approval");
        assert_eq!(city.approve(&v2, v1.hash(), Activate, &who, name), 0);
    }
    assert_eq!(city.view("AGR-1", 1).status, Status::Superseded);
    assert_eq!(city.view("AGR-1", 2).status, Status::Active);
    assert_eq!(city.propose(&terms("AGR-1", 1)), codes::STALE, "versions only rise");
    assert_eq!(city.suspend("court", "legal"), codes::SUPERSEDED);
}

#[test]
fn a_document_does_not_lower_the_threshold_of_the_version_it_replaces() {
    let (mut city, _) = City::ready();
    let (v1, mut v2) = (terms("AGR-1", 1), terms("AGR-1", 2));
    v2.assigner_roles.retain(|role| role == "legal");
    assert_ne!(v2.assigner_roles, v1.assigner_roles);
    assert_eq!(city.propose(&v2), 0);
    for (who, name) in approvers(&v2) {
        assert_eq!(city.approve(&v2, v1.hash(), Activate, &who, name), 0);
    }
    assert_eq!(city.view("AGR-1", 2).status, Status::Proposed, "the police's data steward was asked before");
    assert_eq!(city.view("AGR-1", 1).status, Status::Active);
    assert_eq!(city.approve(&v2, v1.hash(), Activate, "police", "steward"), 0);
    assert_eq!(city.view("AGR-1", 2).status, Status::Active);
}

#[test]
fn a_rejected_or_expired_proposal_may_be_proposed_again() {
    let (mut city, t) = proposed();
    assert_eq!(city.propose(&t), codes::STALE);
    let wrong = ActBody::Reject { agreement: t.agreement.clone(), version: 1, terms_hash: [9; 32], reason: ZERO };
    assert_eq!(city.do_act("court", "legal", wrong), codes::TERMS_MISMATCH);
    let reject = ActBody::Reject { agreement: t.agreement.clone(), version: 1, terms_hash: t.hash(), reason: ZERO };
    assert_eq!(city.do_act("court", "legal", reject), 0);
    assert_eq!(city.view("AGR-1", 1).status, Status::Rejected);
    assert_eq!(city.propose(&t), 0);
    assert_eq!(city.view("AGR-1", 1).revision, 3);
    city.clock.advance(2 * DAY);
    assert_eq!(city.approve(&t, ZERO, Activate, "court", "legal"), codes::EXPIRED);
    assert_eq!(city.propose(&t), 0);
    assert_eq!(city.approve(&t, ZERO, Activate, "court", "legal"), 0);
}

#[test]
fn approvals_of_revoked_keys_and_expired_ones_do_not_count() {
    let (mut city, t) = proposed();
    assert_eq!(city.approve(&t, ZERO, Activate, "police", "legal"), 0);
    assert_eq!(city.approve(&t, ZERO, Activate, "court", "legal"), 0);
    let revoke = ActBody::KeyRevoke { key_id: key("court", "legal").id(), compromised_since_ms: 0 };
    assert_eq!(city.do_act("court", "root", revoke), 0);
    assert_eq!(city.approve(&t, ZERO, Activate, "police", "steward"), 0);
    let view = city.view("AGR-1", 1);
    assert_eq!((view.status, view.approvals.len()), (Status::Proposed, 2));
}

#[test]
fn a_renewal_moves_dates_and_nothing_else() {
    let (mut city, agreement) = City::ready();
    let old = terms("AGR-1", 1);
    let mut new = old.clone();
    new.clauses[0].until_ms += 100 * DAY;
    new.yaml_hash = [6; 32];
    let mut more = new.clone();
    more.clauses[0].actions |= 2;
    let expires_ms = START + DAY;
    let act = |t: &Terms| ActBody::Renew { terms: cbor::encode(t).into(), expires_ms };
    assert_eq!(city.do_act("court", "gateway", act(&more)), codes::TERMS_MISMATCH);
    assert_eq!(city.approve(&new, old.hash(), Renew, "court", "legal"), codes::APPROVAL, "nothing is proposed");
    assert_eq!(city.do_act("court", "gateway", act(&new)), 0);
    for (who, name) in approvers(&new) {
        assert_eq!(city.approve(&new, old.hash(), Renew, &who, name), 0);
    }
    let view = city.view("AGR-1", 1);
    assert_eq!((view.status, view.terms_hash, view.handles), (Status::Active, new.hash(), agreement.handles.clone()));
    city.clock.advance(320 * DAY);
    let s = city.open_session("court", "police", "much later");
    let ops = vec![city.query(agreement.handles[0], s, 1), city.query(agreement.handles[1], s, 2)];
    let got = city.write("police/executor", ops);
    assert_eq!(got, [(Verdict::Accepted, 0), (Verdict::Refused, codes::EXPIRED)]);
}

#[test]
fn proposals_that_break_a_rule_are_refused() {
    let mut city = City::new();
    let good = terms("AGR-1", 1);
    let with = |f: &dyn Fn(&mut Terms)| {
        let mut t = good.clone();
        f(&mut t);
        t
    };
    let table = [
        (with(&|t| t.version = 0), codes::BAD_VALUE),
        (with(&|t| t.assignee = Some(agency("police"))), codes::BAD_VALUE),
        (with(&|t| t.assignee = Some(agency("nobody"))), codes::BAD_VALUE),
        (with(&|t| t.assignee = None), codes::BAD_VALUE),
        (with(&|t| t.clauses.clear()), codes::BAD_VALUE),
        (with(&|t| t.clauses[1].id = "C1".into()), codes::BAD_VALUE),
        (with(&|t| t.clauses[0].actions = 64), codes::BAD_VALUE),
        (with(&|t| t.clauses[0].actions = 0), codes::BAD_VALUE),
        (with(&|t| t.clauses[0].until_ms = START), codes::BAD_VALUE),
        (with(&|t| t.assigner_roles = vec!["legal".into(), "data-steward".into()]), codes::BAD_VALUE),
        (with(&|t| t.assigner_roles = vec!["data-steward".into()]), codes::APPROVAL),
        (with(&|t| t.assignee_roles = vec!["data-steward".into()]), codes::APPROVAL),
        (
            with(&|t| {
                let q = t.clauses[1].quota.clone().unwrap();
                t.clauses[1].quota = Some(Quota { unit: QuotaUnit::Records, ..q });
            }),
            codes::NOT_ENABLED,
        ),
    ];
    for (t, code) in table {
        assert_eq!(city.propose(&t), code, "{t:?}");
    }
    let expires_ms = START + DAY;
    let unread = ActBody::Propose { terms: vec![1, 2, 3].into(), expires_ms };
    assert_eq!(city.do_act("police", "gateway", unread), codes::NOT_CANONICAL);
    let other = ActBody::Propose { terms: cbor::encode(&good).into(), expires_ms };
    assert_eq!(city.do_act("grid", "gateway", other), codes::WRONG_AGENCY);
    let long = ActBody::Propose { terms: cbor::encode(&good).into(), expires_ms: START + 60 * DAY };
    assert_eq!(city.do_act("police", "gateway", long), codes::BAD_VALUE);
    assert_eq!(city.propose(&good), 0);
    let mut stranger = terms("AGR-1", 2);
    stranger.assignee = Some(agency("grid"));
    assert_eq!(city.propose(&stranger), codes::BAD_VALUE, "the parties of an agreement stay");
}

#[test]
fn a_role_registered_later_is_needed_too() {
    let (mut city, t) = proposed();
    let roles = ActBody::Roles { roles: vec!["data-steward".into(), "legal".into()] };
    assert_eq!(city.do_act("court", "gateway", roles), 0);
    for (who, name) in approvers(&t) {
        assert_eq!(city.approve(&t, ZERO, Activate, &who, name), 0);
    }
    assert_eq!(city.view("AGR-1", 1).status, Status::Proposed);
    assert_eq!(city.approve(&t, ZERO, Activate, "court", "steward"), 0);
    assert_eq!(city.view("AGR-1", 1).status, Status::Active);
}

#[test]
fn refused_acts_use_their_counter_and_have_their_entry() {
    let mut city = City::new();
    let acts = [
        ("root", ActBody::AgencyRemove { agency: agency("fire") }, codes::BAD_VALUE),
        ("root", ActBody::Epoch { body: vec![].into() }, codes::NOT_CANONICAL),
        ("gateway", ActBody::Dispute { reference: 1, reason: ZERO }, codes::UNKNOWN_REF),
        ("root", ActBody::KeyRevoke { key_id: key("police", "root").id(), compromised_since_ms: 0 }, codes::BAD_VALUE),
    ];
    for (name, body, code) in acts {
        let before = city.log_size();
        assert_eq!(city.do_act("police", name, body.clone()), code, "{body:?}");
        assert_eq!((city.log(before)[0].verdict, city.log(before)[0].code), (Verdict::Refused, code));
    }
}

#[test]
fn keys_keep_their_suite_label_and_agency() {
    let mut city = City::new();
    let add = |role, label: &str, key: &Key| ActBody::KeyAdd { role, label: label.into(), key: key.public.clone() };
    let ed = Key::new("n1", Suite::Ed25519);
    let hybrid = Key::new("n2", Suite::Hybrid);
    let mut weak = ed.clone();
    weak.public.ed25519 = vec![0; 32].into();
    let table = [
        (add(KeyRole::Approver, "legal", &ed), codes::BAD_KEY),
        (add(KeyRole::Writer, "adapter", &hybrid), codes::BAD_KEY),
        (add(KeyRole::Release, "release", &weak), codes::BAD_KEY),
        (add(KeyRole::Writer, "Not A Name", &ed), codes::BAD_VALUE),
        (add(KeyRole::Writer, "grid/executor", &ed), codes::BAD_VALUE),
        (add(KeyRole::Release, "", &ed), codes::BAD_VALUE),
        (add(KeyRole::Release, "release", &ed), codes::OK),
        (add(KeyRole::Envelope, "release", &ed), codes::KEY_EXISTS),
        (add(KeyRole::Kem, "kem", &Key::new("k", Suite::XWing)), codes::OK),
    ];
    for (body, code) in table {
        assert_eq!(city.do_act("police", "root", body.clone()), code, "{body:?}");
    }
    let others = ActBody::KeyRevoke { key_id: key("grid", "executor").id(), compromised_since_ms: 0 };
    assert_eq!(city.do_act("police", "root", others), codes::WRONG_AGENCY);
}
