//! Access lists: complete, or refused.

use crate::looked::{Log, OPEN_BY, happened, in_bulk, spec, valid};
use crate::world::{Spec, trust};
use concordat_protocol::access::AccessList;
use concordat_protocol::cbor::encode;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::sha256;
use concordat_protocol::leaves::LeafView;
use concordat_protocol::verify::{AccessState, Status, VerifiedAccess, verify_access};

fn good(list: &AccessList) -> VerifiedAccess {
    verify_access(&encode(list), &trust()).unwrap()
}

fn refused(list: &AccessList) -> &'static str {
    verify_access(&encode(list), &trust()).expect_err("must be refused").check
}

fn anna() -> AccessList {
    Log::new(happened()).list("anna", 0, &spec())
}

fn bulk() -> AccessList {
    Log::new([happened(), in_bulk()].concat()).list("anna", 0, &spec())
}

#[test]
fn a_list_says_who_looked_when_and_why_and_up_to_where_it_is_complete() {
    let v = good(&anna());
    assert_eq!((v.status, v.first_run, v.from_index, v.complete_to), (Status::Provisional, 0, 0, 70));
    assert!(v.to_newest_run);
    let seen: Vec<_> = v.accesses.iter().map(|a| (a.index, a.kind.as_str(), a.state.word())).collect();
    let want = [
        (12, "query", "open"),
        (15, "query", "sealed"),
        (18, "query", "open"),
        (22, "deliver", "open"),
        (26, "break-glass", "sealed"),
        (30, "query", "erased"),
        (44, "query", "open"),
        (47, "deny", "open"),
    ];
    assert_eq!(seen, want);
    let first = &v.accesses[0];
    assert_eq!(
        (first.consumer(), first.clause(), first.purpose()),
        (Some("court"), Some("AGR-2026-0142/C1"), Some("purp:pending-case"))
    );
    assert!(first.sentence.starts_with("The court may"));
    assert_eq!(v.accesses[1].state, AccessState::Sealed { open_by_ms: OPEN_BY });
    assert_eq!(v.accesses[1].consumer(), None, "what is sealed stays sealed");
    assert_eq!((v.accesses[3].verdict, v.accesses[3].code), (Verdict::Late, 500));
    let names: Vec<_> = v.checks.iter().map(|c| c.name).collect();
    let all = "decode trust chain validators commit app_hash runs tags list entry op_hash bulk commitment";
    assert_eq!(names, all.split(' ').collect::<Vec<_>>());
    assert!(!v.to_json().to_string().contains(&hex::encode(v.subject_key)), "the key stays in the file");
}

#[test]
fn nobody_looked_is_proven_too() {
    let v = good(&Log::new(happened()).list("clara", 0, &spec()));
    assert_eq!((v.accesses.len(), v.complete_to), (0, 70));
    assert!(v.checks.iter().any(|c| c.sentence.starts_with("nobody looked")));
}

#[test]
fn what_travels_as_bulk_is_in_out_or_unknown() {
    let states = |list: &AccessList| -> Vec<_> {
        good(list).accesses.iter().filter(|a| (32..40).contains(&a.index)).map(|a| a.state.word()).collect()
    };
    assert_eq!(states(&bulk()), ["open", "not-included", "maybe", "not-included"]);
    let log = Log::new([happened(), in_bulk()].concat());
    assert_eq!(states(&log.list("clara", 0, &spec())), ["not-included", "not-included", "maybe", "not-included"]);
    assert_eq!(good(&bulk()).about_the_subject().count(), 9);
}

#[test]
fn a_final_list_is_cosigned_over_all_that_it_covers() {
    let log = Log::new(happened());
    let last = |cosigners: &[&'static str], log_size| {
        log.list("anna", 0, &Spec { cosigners: cosigners.to_vec(), log_size, ..spec() })
    };
    let v = good(&last(&["court", "grid", "police", "transport"], 72));
    assert_eq!((v.status, v.cosigners.len()), (Status::Final, 4));
    good(&last(&["court", "grid", "police"], 70));
    assert_eq!(refused(&last(&["court", "grid", "police"], 69)), "checkpoint");
    assert_eq!(refused(&last(&["court", "grid"], 72)), "checkpoint");
}

#[test]
fn a_list_from_a_later_run_says_so() {
    let v = good(&Log::new(happened()).list("anna", 2, &spec()));
    assert_eq!((v.first_run, v.from_index, v.accesses.len()), (2, 40, 2));
}

/// Without its last runs a list is true, and says where it ends and that there is more.
#[test]
fn a_list_that_was_cut_says_so() {
    let mut cut = anna();
    for runs in (1..4).rev() {
        cut.runs.truncate(runs);
        let end = cut.runs.last().unwrap().run.end_index;
        cut.entries.retain(|e| e.index < end);
        let v = good(&cut);
        assert_eq!((v.to_newest_run, v.complete_to), (false, end));
    }
}

#[test]
fn every_example_verifies() {
    for (name, list) in valid() {
        let v = verify_access(&encode(&list), &trust());
        assert!(v.is_ok(), "{name}: {v:?}");
    }
}

type Forge = fn(&mut AccessList);

/// What somebody might do who wants to hide an access, or to make one up.
pub fn forgeries() -> Vec<(&'static str, &'static str, &'static str, Forge)> {
    vec![
        ("anna", "no-run", "runs", |l| l.runs.clear()),
        ("anna", "run-left-out", "runs", |l| {
            l.runs.remove(1);
            l.entries.retain(|e| e.index >= 40);
        }),
        ("anna", "run-twice", "runs", |l| l.runs.insert(1, l.runs[0].clone())),
        ("anna", "runs-swapped", "runs", |l| l.runs.swap(1, 2)),
        ("anna", "run-renumbered", "runs", |l| l.runs[2].number = 3),
        ("anna", "run-starts-later", "runs", |l| l.runs[1].run.first_index = 16),
        ("anna", "run-without-its-entries", "list", |l| l.entries.retain(|e| e.index < 12)),
        ("anna", "last-run-cut-entries-kept", "list", |l| l.runs.truncate(2)),
        ("anna", "entry-left-out", "list", |l| drop(l.entries.remove(0))),
        ("anna", "last-entry-left-out", "list", |l| drop(l.entries.pop())),
        ("anna", "entry-and-proof-cut", "tags", |l| {
            l.entries.remove(0);
            for list in &mut l.runs[1].lists {
                list.found.retain(|f| f.key.0[16..] != 12u64.to_be_bytes());
            }
        }),
        ("anna", "proof-shows-absence-instead", "tags", |l| {
            let absent = l.runs[1].lists[1].clone();
            for list in &mut l.runs[1].lists {
                *list = absent.clone();
            }
            l.entries.retain(|e| !(10..40).contains(&e.index));
        }),
        ("anna", "day-left-out", "tags", |l| drop(l.runs[1].lists.remove(1))),
        ("anna", "bulk-search-left-out", "tags", |l| drop(l.runs[1].lists.pop())),
        ("anna", "lists-swapped", "tags", |l| l.runs[1].lists.swap(0, 1)),
        ("anna", "subject-key-changed", "tags", |l| l.subject_key = crate::looked::subject_key("ben")),
        ("anna", "dataset-changed", "tags", |l| l.dataset = "ds:police/warrants@1".parse().unwrap()),
        ("anna", "entry-twice", "list", |l| l.entries.insert(1, l.entries[0].clone())),
        ("anna", "entries-swapped", "list", |l| l.entries.swap(0, 1)),
        ("anna", "entry-renumbered", "list", |l| l.entries[0].index = 13),
        ("anna", "verdict-changed", "entry", |l| l.entries[0].entry.verdict = Verdict::Refused),
        ("anna", "tick-changed", "entry", |l| l.entries[0].entry.tick_ms += 1),
        ("anna", "path-of-another-entry", "entry", |l| l.entries[0].log_path = l.entries[1].log_path.clone()),
        ("anna", "op-of-another-entry", "op_hash", |l| l.entries[0].op = l.entries[2].op.clone()),
        ("anna", "openings-of-another-entry", "commitment", |l| l.entries[0].openings = l.entries[2].openings.clone()),
        ("anna", "purpose-changed", "commitment", |l| {
            for leaf in &mut l.entries[0].openings.as_mut().unwrap().leaves {
                if let LeafView::Opened { name, value, .. } = leaf
                    && name == "purpose"
                {
                    value.0 = b"purp:curiosity".to_vec();
                }
            }
        }),
        ("anna", "opened-without-a-purpose", "commitment", |l| {
            let open = l.entries[0].openings.as_mut().unwrap();
            open.leaves.retain(|leaf| !matches!(leaf, LeafView::Opened { name, .. } if name == "purpose"));
        }),
        ("anna", "purpose-hidden", "commitment", |l| {
            for leaf in &mut l.entries[0].openings.as_mut().unwrap().leaves {
                if let LeafView::Opened { name, salt, value } = leaf
                    && name == "purpose"
                {
                    let len = (name.len() as u16).to_be_bytes();
                    let hash = sha256(&[&[0], &salt[..], &len, name.as_bytes(), value]);
                    *leaf = LeafView::Hidden { hash };
                }
            }
        }),
        ("anna", "proof-of-bulk-where-none-is", "bulk", |l| {
            l.entries[0].bulk = Some(l.runs[0].lists[0].clone());
        }),
        ("bulk-anna", "membership-shown-as-absence", "bulk", |l| {
            let absent = l.entries.iter().find(|e| e.index == 34).unwrap().bulk.clone();
            l.entries.iter_mut().find(|e| e.index == 32).unwrap().bulk = absent;
        }),
        ("bulk-anna", "found-cut-from-bulk", "bulk", |l| {
            let e = l.entries.iter_mut().find(|e| e.index == 32).unwrap();
            e.bulk.as_mut().unwrap().found.clear();
        }),
        ("bulk-anna", "bulk-entry-left-out", "list", |l| l.entries.retain(|e| e.index != 36)),
        ("anna-final", "cosignature-left-out", "checkpoint", |l| {
            l.checkpoint.as_mut().unwrap().cosignatures.truncate(2);
        }),
        ("anna-final", "checkpoint-of-a-shorter-log", "checkpoint", |l| l.checkpoint.as_mut().unwrap().log_size = 60),
        ("anna", "header-cut", "header", |l| l.header.0.truncate(90)),
        ("anna", "no-header", "header", |l| l.header.0.clear()),
        ("anna", "validator-left-out", "validators", |l| l.validators.0.truncate(l.validators.len() / 4 * 3)),
        ("anna", "other-chain", "chain", |l| l.chain = "another-chain".into()),
        ("anna", "version-2", "decode", |l| l.version = 2),
        ("anna", "roots-changed", "app_hash", |l| l.roots.runs[0] ^= 1),
        ("nobody-looked", "subject-looked-for-is-another", "tags", |l| {
            l.subject_key = crate::looked::subject_key("ben")
        }),
        ("nobody-looked", "run-of-a-log-where-nothing-happened", "runs", |l| {
            let quiet = Log::new(vec![]).list("clara", 0, &spec());
            l.runs = quiet.runs;
        }),
        ("anna", "whole-state-of-another-log", "app_hash", |l| {
            let quiet = Log::new(vec![]).list("anna", 0, &spec());
            (l.runs, l.roots, l.entries) = (quiet.runs, quiet.roots, vec![]);
        }),
    ]
}

#[test]
fn whoever_hides_an_access_or_makes_one_up_is_refused_by_name() {
    let bases = valid();
    for (base, name, check, forge) in forgeries() {
        let good = &bases.iter().find(|(n, _)| *n == base).unwrap().1;
        let mut forged = good.clone();
        forge(&mut forged);
        assert_ne!(*good, forged, "{name} changes nothing");
        let e = verify_access(&encode(&forged), &trust()).expect_err(name);
        assert_eq!(e.check, check, "{name}: {e}");
    }
}

/// The tag of bulk operations can be written into a list of tags: then the list itself shows who is in it. And whoever
/// copies a subject's tag from the ledger into operations of their own has not looked at anything.
#[test]
fn tags_that_somebody_misuses_are_not_about_the_subject() {
    let (_, odd) = valid().into_iter().find(|(n, _)| *n == "misused-tags").unwrap();
    let v = good(&odd);
    let state = |index| v.accesses.iter().find(|a| a.index == index).unwrap().state;
    assert_eq!(
        (state(13), state(14), state(12)),
        (AccessState::NotIncluded, AccessState::NotIncluded, AccessState::Open)
    );
}
