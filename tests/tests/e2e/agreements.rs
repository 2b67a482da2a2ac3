//! Agreements: documents, approvals, and the end of them.

use crate::World;
use concordat_cli::commands::agreement::{Side, approve_as};
use concordat_protocol::acts::ApprovalKind;
use concordat_protocol::ids::AgreementId;
use concordat_tests::harness::{Agreement, City, Ran, wait};

/// Requires that the ledger refused with a code.
#[track_caller]
fn refused(ran: Ran, code: u64) {
    let ran = ran.ends(3);
    let problem = ran.problem();
    assert_eq!(problem["ledger_code"], code, "{}: {problem}", ran.line);
}

fn approve(city: &City, agency: &str, id: &str, role: &str) -> Ran {
    city.at(agency, &["agreement", "approve", id, "--role", role, "--output", "json"])
}

fn status(city: &City, id: &str) -> String {
    let found = city.at("police", &["agreement", "status", id, "--output", "json"]).done().json();
    found["newest"]["status"].as_str().unwrap_or_default().to_owned()
}

pub fn lint_names_place_and_nearest_word(world: &World) {
    let folder = world.folder("lint");
    let good = Agreement::new("AGR-2026-9501", "lint-test").yaml();
    let lint = |name: &str, text: &str| {
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        world.shared().run(&["agreement", "lint", path.to_str().unwrap()])
    };
    let ok = lint("good", &good).done();
    assert!(ok.out.contains("The tests may look up stops.") || ok.out.contains("purp:lint-test"), "{}", ok.out);
    // A word in the text, what it becomes, the line it stands in, the word it should have been.
    let cases = [
        ("effect: permit", "efect: permit", "  efect", "effect"),
        ("effect: permit", "effect: permitt", "effect: permitt", "permit"),
        ("purpose: purp:lint-test", "purpse: purp:lint-test", "  purpse", "purpose"),
        ("type: fields", "type: feilds", "feilds", "fields"),
        ("target: ds:", "target: dataset:", "target", "ds:"),
    ];
    for (from, to, at, nearest) in cases {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let said = lint("bad", &text).ends(2).err;
        let line = text.lines().position(|l| l.contains(at)).unwrap() + 1;
        assert!(
            said.contains(&format!("line {line}")) || said.contains(&format!(":{line}:")),
            "{to}: no line {line} in: {said}"
        );
        assert!(said.contains(nearest), "{to}: no {nearest} in: {said}");
    }
    let doubled = good.replacen("version: 1", "version: 1\nversion: 1", 1);
    lint("double", &doubled).ends(2);
    let nothing = world.shared().run(&["agreement", "lint", "/nowhere.yaml"]);
    assert_eq!(nothing.code, 5, "{}", nothing.err);
}

pub fn approvals_count_once_a_key(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9502", "approvals-test");
    agreement.propose(city);
    let id = agreement.id.as_str();
    approve(city, "police", id, "legal").done();
    refused(approve(city, "police", id, "legal"), 408);
    assert_eq!(status(city, id), "proposed");
    // The key of one role does not sign for another.
    let police = Side::open(&city.dir("police")).unwrap();
    let agreement_id = AgreementId::new(id).unwrap();
    let newest = wait(police.newest(&agreement_id)).unwrap();
    let hash = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    let body = concordat_protocol::acts::ActBody::Approve {
        agreement: agreement_id.clone(),
        version: 1,
        revision: newest["revision"].as_u64().unwrap(),
        what: ApprovalKind::Activate,
        terms_hash: hash(newest["terms_hash"].as_str().unwrap()),
        prev_terms_hash: [0; 32],
        role: "data-steward".into(),
        expires_ms: city.tick_ms() + 60_000,
    };
    let wrong_role = wait(police.act("approver-legal", body.clone())).unwrap_err();
    assert!([203, 408].contains(&wrong_role.problem.unwrap()["ledger_code"].as_u64().unwrap()));
    // An approval of other terms than the proposed ones.
    let mut other = body.clone();
    if let concordat_protocol::acts::ActBody::Approve { terms_hash, .. } = &mut other {
        terms_hash[0] ^= 1;
    }
    let other_terms = wait(police.act("approver-data-steward", other)).unwrap_err();
    assert!([408, 409].contains(&other_terms.problem.unwrap()["ledger_code"].as_u64().unwrap()));
    // An old approval: of a revision that is over.
    let mut stale = body;
    if let concordat_protocol::acts::ActBody::Approve { revision, .. } = &mut stale {
        *revision += 1;
    }
    let stale = wait(police.act("approver-data-steward", stale)).unwrap_err();
    assert_eq!(stale.problem.unwrap()["ledger_code"], 408);
    // A document that says something else is noticed before anything is signed.
    let folder = world.folder("other-terms");
    let changed = Agreement { purpose: "purp:something-else".into(), ..agreement.clone() };
    let path = folder.join("changed.yaml");
    std::fs::write(&path, changed.yaml()).unwrap();
    let read = city.at("court", &["agreement", "approve", id, "--role", "legal", "--document", path.to_str().unwrap()]);
    assert!(read.ends(6).err.contains("other terms"));
    // A third agency's approval counts for nothing.
    let grid = Side::open(&city.dir("grid")).unwrap();
    let foreign = wait(approve_as(&grid, &agreement_id, "legal", ApprovalKind::Activate)).unwrap_err();
    assert!(foreign.problem.unwrap()["ledger_code"].as_u64().unwrap() >= 200);
    assert_eq!(status(city, id), "proposed");
    approve(city, "police", id, "data-steward").done();
    approve(city, "court", id, "legal").done();
    agreement.reaches(city, "police", "active");
    refused(approve(city, "police", id, "legal"), 408);
}

pub fn only_parties_propose(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9503", "proposal-test");
    let path = agreement.write(city);
    let said = city.at("grid", &["agreement", "propose", &path, "--output", "json"]).ends(3).problem();
    assert!(said["ledger_code"].as_u64().is_some_and(|c| (200..500).contains(&c)), "{said}");
    city.at("police", &["agreement", "status", &agreement.id]).ends(5);
    // Nobody gives away another's data: court proposes police's data with itself as assigner.
    let stolen = world.folder("stolen").join("stolen.yaml");
    let text = agreement.yaml().replace("assigner: org:police", "assigner: org:grid");
    std::fs::write(&stolen, text).unwrap();
    let said = city.at("grid", &["agreement", "propose", stolen.to_str().unwrap(), "--output", "json"]);
    assert!([2, 3].contains(&said.code), "{said:?}");
}

pub fn suspended_resumes_and_revoked_is_final(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9504", "final-test");
    agreement.activate(city);
    let id = agreement.id.as_str();
    // Either side may suspend at once; resuming takes everybody again.
    city.at("court", &["agreement", "suspend", id, "--reason", "a test"]).done();
    agreement.reaches(city, "police", "suspended");
    for (agency, role) in [("police", "legal"), ("police", "data-steward")] {
        city.at(agency, &["agreement", "resume", id, "--role", role]).done();
        assert_eq!(status(city, id), "suspended");
    }
    city.at("court", &["agreement", "resume", id, "--role", "legal"]).done();
    agreement.reaches(city, "police", "active");
    city.at("police", &["agreement", "revoke", id]).done();
    agreement.reaches(city, "court", "revoked");
    for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
        let said = city.at(agency, &["agreement", "resume", id, "--role", role, "--output", "json"]).ends(3).problem();
        assert!(said["ledger_code"].as_u64().is_some_and(|c| (400..410).contains(&c)), "{said}");
        let said = approve(city, agency, id, role).ends(3).problem();
        assert!(said["ledger_code"].as_u64().is_some_and(|c| (400..410).contains(&c)), "{said}");
    }
    let path = agreement.write(city);
    assert_eq!(
        city.at("police", &["agreement", "propose", &path, "--output", "json"]).ends(6).problem()["ledger_code"],
        304
    );
    assert_eq!(status(city, id), "revoked");
    // A third agency suspends nothing.
    let other = city.at("grid", &["agreement", "suspend", "AGR-2026-0142", "--output", "json"]).ends(3).problem();
    assert!(other["ledger_code"].as_u64().is_some(), "{other}");
    assert_eq!(status(city, "AGR-2026-0142"), "active");
}

pub fn versions_only_rise(world: &World) {
    let city = world.shared();
    let first = Agreement::new("AGR-2026-9505", "version-test");
    first.activate(city);
    let second = Agreement { version: 2, purpose: "purp:version-two".into(), ..first.clone() };
    second.activate(city);
    first.reaches(city, "police", "superseded");
    for again in [&first, &second] {
        let path = again.write(city);
        let said = city.at("police", &["agreement", "propose", &path, "--output", "json"]).ends(6).problem();
        assert_eq!(said["ledger_code"], 304, "{said}");
    }
    second.reaches(city, "court", "active");
    first.reaches(city, "court", "superseded");
}

pub fn proposals_at_once_are_all_taken(world: &World) {
    let city = world.shared();
    // One key signs them all: whoever comes second finds its number used, and signs again.
    let of = |n: u32| Agreement::new(&format!("AGR-2026-{n}"), "at-once-test");
    let paths: Vec<String> = (9511..9515).map(|n| of(n).write(city)).collect();
    std::thread::scope(|scope| {
        let propose = |path: &String| city.at("police", &["agreement", "propose", path]).done();
        let running: Vec<_> = paths.iter().map(|path| scope.spawn(move || propose(path))).collect();
        running.into_iter().for_each(|r| drop(r.join().unwrap()));
    });
    (9511..9515).for_each(|n| of(n).reaches(city, "court", "proposed"));
}
