//! Forgeries by the thousand: each part of a valid file taken from every other valid file, bytes flipped, cut, added.
//! What is refused is also written as a corpus for other implementations.

use crate::access;
use crate::looked::{self, subject_key};
use crate::vectors::{kept, text, valid as receipts};
use crate::world::{trust, trust_later};
use concordat_protocol::access::AccessList;
use concordat_protocol::cbor::{Enc, decode, encode};
use concordat_protocol::receipt::Receipt;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Access, AccessState, VerifiedAccess, verify, verify_access};
use minicbor::Decoder;
use minicbor::data::Type;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Canonical CBOR as a tree.
#[derive(Clone, PartialEq)]
enum Item {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Item>),
}

impl Item {
    fn read(bytes: &[u8]) -> Self {
        let mut d = Decoder::new(bytes);
        let item = Self::next(&mut d);
        assert!(d.position() == bytes.len() && item.bytes() == bytes);
        item
    }

    fn next(d: &mut Decoder<'_>) -> Self {
        match d.datatype().unwrap() {
            Type::Bytes => Self::Bytes(d.bytes().unwrap().to_vec()),
            Type::String => Self::Text(d.str().unwrap().to_owned()),
            Type::Array => Self::Array((0..d.array().unwrap().unwrap()).map(|_| Self::next(d)).collect()),
            _ => Self::Uint(d.u64().unwrap()),
        }
    }

    fn put(&self, e: &mut Enc) {
        match self {
            Self::Uint(n) => drop(e.uint(*n)),
            Self::Bytes(b) => drop(e.bytes(b)),
            Self::Text(t) => drop(e.text(t)),
            Self::Array(items) => {
                e.array(items.len() as u64);
                items.iter().for_each(|i| i.put(e));
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut e = Enc::default();
        self.put(&mut e);
        e.into_bytes()
    }

    fn at(&self, path: &[usize]) -> Option<&Self> {
        path.iter().try_fold(self, |item, i| if let Self::Array(items) = item { items.get(*i) } else { None })
    }

    fn set(&mut self, path: &[usize], value: &Self) {
        match (self, path) {
            (item, []) => *item = value.clone(),
            (Self::Array(items), [first, rest @ ..]) => items[*first].set(rest, value),
            _ => {}
        }
    }

    /// Every place in it but itself.
    fn places(&self) -> Vec<Vec<usize>> {
        let Self::Array(items) = self else { return Vec::new() };
        let under = |(i, item): (usize, &Self)| {
            let deeper = item.places().into_iter().map(move |p| [vec![i], p].concat());
            [vec![i]].into_iter().chain(deeper).collect::<Vec<_>>()
        };
        items.iter().enumerate().flat_map(under).collect()
    }
}

/// A forgery: of which file, how it is named, its bytes.
struct Forged {
    base: &'static str,
    name: String,
    bytes: Vec<u8>,
}

/// Every part of every file, replaced by what stands at the same place in every other file. Each result once.
fn splices(files: &[(&'static str, Vec<u8>)]) -> Vec<Forged> {
    let items: Vec<_> = files.iter().map(|(name, bytes)| (*name, Item::read(bytes))).collect();
    let mut seen: BTreeSet<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut out = Vec::new();
    for (base, a) in &items {
        for place in a.places() {
            for (from, b) in items.iter().filter(|(from, _)| from != base) {
                let Some(part) = b.at(&place).filter(|part| a.at(&place) != Some(part)) else { continue };
                let mut forged = a.clone();
                forged.set(&place, part);
                let bytes = forged.bytes();
                let path: Vec<String> = place.iter().map(usize::to_string).collect();
                if seen.insert(bytes.clone()) {
                    out.push(Forged { base, name: format!("splice {} from {from}", path.join(".")), bytes });
                }
            }
        }
    }
    out
}

/// Cut short, cut in the middle, continued, and single bytes flipped at the given distance.
fn damages(base: &'static str, good: &[u8], every: usize, start: usize) -> Vec<Forged> {
    let one = |name: String, bytes: Vec<u8>| Forged { base, name, bytes };
    let mut out: Vec<Forged> = [1, 2, 100, good.len() / 2, good.len()]
        .map(|n| one(format!("cut by {n}"), good[..good.len() - n].to_vec()))
        .into();
    out.push(one("a byte added".into(), [good, &[0]].concat()));
    out.push(one("twice".into(), [good, good].concat()));
    for (k, at) in (start..good.len()).step_by(every).enumerate() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << (k % 8);
        out.push(one(format!("flip at {at}"), bytes));
    }
    out
}

/// The difference to the base: so many bytes out, these in.
fn patch(base: &[u8], forged: &[u8]) -> Value {
    let at = base.iter().zip(forged).take_while(|(a, b)| a == b).count();
    let most = base.len().min(forged.len()) - at;
    let tail = base.iter().rev().zip(forged.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let (remove, insert) = (base.len() - at - tail, &forged[at..forged.len() - tail]);
    json!({"offset": at, "remove": remove, "insert": hex::encode(insert)})
}

/// At most `each` of every base and check, evenly from the list; none that differs from its base by more than a part.
fn selection(
    all: Vec<(Forged, &'static str)>,
    files: &[(&'static str, Vec<u8>)],
    each: usize,
) -> Vec<(Forged, &'static str)> {
    let mut groups: BTreeMap<(&str, &str), Vec<(Forged, &'static str)>> = BTreeMap::new();
    for case in all {
        let base = &files.iter().find(|(n, _)| *n == case.0.base).unwrap().1;
        if patch(base, &case.0.bytes)["insert"].as_str().is_some_and(|hex| hex.len() < 2_000) {
            groups.entry((case.0.base, case.1)).or_default().push(case);
        }
    }
    let mut out = Vec::new();
    for group in groups.into_values() {
        let step = group.len().div_ceil(each);
        out.extend(group.into_iter().step_by(step));
    }
    out
}

fn corpus(comment: &str, bases: &str, files: &[(&'static str, Vec<u8>)], cases: &[(Forged, &'static str)]) -> Value {
    let one = |(f, check): &(Forged, &str)| {
        let base = &files.iter().find(|(n, _)| *n == f.base).unwrap().1;
        json!({"name": f.name, "base": f.base, "patch": patch(base, &f.bytes), "expect": "invalid", "check": check})
    };
    json!({"comment": comment, "bases": bases, "trust": "../receipt/trust.json", "cases": cases.iter().map(one).collect::<Vec<_>>()})
}

fn file(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(path)
}

const PATCHES: &str = "Forgeries of the files named by `base`: at `offset` of its bytes, `remove` bytes go and `insert` (hex) comes. Each is invalid; `check` is the first check that fails. In names, numbers are places in the array of fields";

/// Without an optional part a receipt says less, and what it says is true; and any cosignatures of its state do.
fn says_less(base: &[u8], forged: &[u8], files: &[(&str, Vec<u8>)]) -> bool {
    let (Ok(mut base), Ok(forged)) = (decode::<Receipt>(base), decode::<Receipt>(forged)) else { return false };
    base.openings = base.openings.filter(|_| forged.openings.is_some());
    base.request = base.request.filter(|_| forged.request.is_some());
    base.release = base.release.filter(|_| forged.release.is_some());
    base.checkpoint = forged.checkpoint.clone();
    let made: Vec<_> =
        files.iter().map(|(_, f)| decode::<Receipt>(f).unwrap()).filter(|r| r.roots == base.roots).collect();
    let made: Vec<_> = made.iter().filter_map(|r| r.checkpoint.as_ref()).collect();
    let cosigned = forged.checkpoint.iter().all(|c| {
        let same = made.iter().all(|m| (m.tick_ms, m.log_size) == (c.tick_ms, c.log_size));
        same && c.cosignatures.iter().all(|s| made.iter().any(|m| m.cosignatures.contains(s)))
    });
    base == forged && cosigned
}

fn refuse_receipt(f: &Forged, files: &[(&str, Vec<u8>)], trust: &Trust) -> Option<&'static str> {
    let base = &files.iter().find(|(n, _)| *n == f.base).unwrap().1;
    match verify(&f.bytes, trust, None) {
        Err(e) => Some(e.check),
        Ok(_) => {
            assert!(says_less(base, &f.bytes, files), "{}: {} is believed", f.base, f.name);
            None
        }
    }
}

#[test]
fn no_part_of_another_receipt_and_no_changed_byte_is_believed() {
    let (files, trust, first) = (receipts(), trust_later(), trust());
    for (name, good) in &files {
        assert!(verify(good, &trust, None).is_ok(), "{name}");
    }
    // Where the second epoch plays no part, the file without it is checked sooner.
    let of = |f: &Forged| if f.base.ends_with('1') || f.name.ends_with("epoch-1") { &trust } else { &first };
    let judged = |list: Vec<Forged>| -> Vec<(Forged, &'static str)> {
        list.into_iter().filter_map(|f| refuse_receipt(&f, &files, of(&f)).map(|check| (f, check))).collect()
    };
    let spliced = judged(splices(&files));
    assert!(spliced.len() > 1_500, "{}", spliced.len());
    let damaged: Vec<_> = files.iter().zip(0..).map(|((n, b), i)| damages(n, b, 101, 7 * i)).collect();
    let damaged = judged(damaged.into_iter().flatten().collect());
    let named = |f: &Forged| f.name.starts_with("cut") || f.name.contains("twice") || f.name.contains("added");
    let (whole, flips): (Vec<_>, Vec<_>) = damaged.into_iter().partition(|(f, _)| named(f));
    let cases = [selection(spliced, &files, 2), selection(flips, &files, 2), selection(whole, &files, 2)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    for (f, check) in &cases {
        assert_eq!(refuse_receipt(f, &files, &trust), Some(*check), "{}: {}", f.base, f.name);
    }
    let checks: BTreeSet<&str> = cases.iter().map(|(_, c)| *c).collect();
    let all = "decode chain header validators commit app_hash log_path op_hash commitment session request_signature request \
               release_key release_signature checkpoint";
    let missing: Vec<_> = all.split(' ').filter(|c| !checks.contains(c)).collect();
    assert!(missing.is_empty(), "no forgery for {missing:?}");
    kept(&file("receipt/forged.json"), &text(&corpus(PATCHES, "receipts.json", &files, &cases)));
}

/// What a list may say: for each person, all that is true of them.
struct Truth(Vec<(AccessList, VerifiedAccess)>);

impl Truth {
    fn new(trust: &Trust) -> Self {
        let of = |log: &looked::Log, person: &str| {
            let list = log.list(person, 0, &looked::spec());
            let said = verify_access(&encode(&list), trust).unwrap();
            (list, said)
        };
        Self(looked::logs().iter().flat_map(|log| ["anna", "ben", "clara"].map(|p| of(log, p))).collect())
    }

    /// Whether a list that verifies says nothing but the truth: all of it in its range, though it may show less of each.
    fn holds(&self, forged: &[u8], said: &VerifiedAccess) -> bool {
        let list: AccessList = decode(forged).unwrap();
        let same = |(t, _): &&(AccessList, VerifiedAccess)| t.roots == list.roots && t.subject_key == list.subject_key;
        let Some((_, truth)) = self.0.iter().find(same) else { return said.accesses.is_empty() };
        let range = said.from_index..said.complete_to;
        let wanted: Vec<&Access> = truth.accesses.iter().filter(|a| range.contains(&a.index)).collect();
        let less = |(a, t): (&Access, &&Access)| {
            let hidden = matches!(a.state, AccessState::Erased | AccessState::Maybe);
            let facts = (a.index, a.tick_ms, a.verdict, &a.kind) == (t.index, t.tick_ms, t.verdict, &t.kind);
            facts && (hidden || (a.state == t.state && a.opened == t.opened))
        };
        wanted.len() == said.accesses.len() && said.accesses.iter().zip(&wanted).all(less)
    }
}

#[test]
fn no_changed_list_hides_an_access_or_makes_one_up() {
    let trust = trust();
    let files: Vec<_> = looked::valid().into_iter().map(|(n, l)| (n, encode(&l))).collect();
    let truth = Truth::new(&trust);
    let judged = |list: Vec<Forged>| -> Vec<(Forged, &'static str)> {
        let judge = |f: Forged| match verify_access(&f.bytes, &trust) {
            Err(e) => Some((f, e.check)),
            Ok(said) => {
                assert!(truth.holds(&f.bytes, &said), "{}: {} is believed", f.base, f.name);
                None
            }
        };
        list.into_iter().filter_map(judge).collect()
    };
    let made = |(base, name, _, forge): (&'static str, &str, &str, fn(&mut AccessList))| {
        let mut list: AccessList = decode(&files.iter().find(|(n, _)| *n == base).unwrap().1).unwrap();
        forge(&mut list);
        Forged { base, name: name.into(), bytes: encode(&list) }
    };
    let by_hand = judged(access::forgeries().into_iter().map(made).collect());
    assert_eq!(by_hand.len(), access::forgeries().len());
    // Lists of one state share their header and roots: the short ones and one with bulk are spliced with all others.
    let spliced = judged(splices(&files).into_iter().step_by(3).collect());
    assert!(spliced.len() > 1_000, "{}", spliced.len());
    let damaged: Vec<_> = files.iter().zip(0..).map(|((n, b), i)| damages(n, b, 101, 7 * i)).collect();
    let damaged = judged(damaged.into_iter().flatten().collect());
    let cases = [by_hand, selection(spliced, &files, 2), selection(damaged, &files, 2)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let later = trust_later();
    for (f, check) in &cases {
        assert_eq!(verify_access(&f.bytes, &later).unwrap_err().check, *check, "{}: {}", f.base, f.name);
    }
    let checks: BTreeSet<&str> = cases.iter().map(|(_, c)| *c).collect();
    let all = "decode chain header validators commit app_hash runs tags list entry op_hash bulk commitment checkpoint";
    let missing: Vec<_> = all.split(' ').filter(|c| !checks.contains(c)).collect();
    assert!(missing.is_empty(), "no forgery for {missing:?}");
    kept(&file("access/forged.json"), &text(&corpus(PATCHES, "lists.json", &files, &cases)));
}

/// Every byte of a list of absence, and of one with entries: what is believed says the truth.
#[test]
fn every_flipped_byte_of_a_list_is_refused_or_changes_nothing_that_counts() {
    let trust = trust();
    let truth = Truth::new(&trust);
    for (name, good) in looked::valid().into_iter().filter(|(n, _)| ["nobody-looked", "bulk-ben"].contains(n)) {
        let good = encode(&good);
        let every = if name == "nobody-looked" { 1 } else { 5 };
        let mut believed = 0;
        for f in damages(name, &good, every, 0) {
            if let Ok(said) = verify_access(&f.bytes, &trust) {
                believed += 1;
                assert!(truth.holds(&f.bytes, &said), "{name}: {} is believed", f.name);
            }
        }
        // Nothing covers a sentence; another person's key may be absent from a run too.
        assert!(believed <= if every == 1 { 32 } else { 200 }, "{name}: {believed}");
    }
}

#[test]
fn the_example_lists_verify_as_they_say() {
    let trust = trust_later();
    let one = |(name, list): (&str, AccessList)| {
        let bytes = encode(&list);
        let mut facts = verify_access(&bytes, &trust).unwrap().to_json();
        facts.as_object_mut().unwrap().remove("checks");
        json!({"name": name, "list": hex::encode(bytes), "expected": facts})
    };
    let persons = ["anna", "ben", "clara"].map(|p| json!({"name": p, "subject_key": hex::encode(subject_key(p))}));
    let day = crate::world::TICK / 86_400_000;
    let tag = concordat_protocol::access::subject_tag(&subject_key("anna"), &looked::dataset(), day);
    let list = json!({
        "comment": "Access lists in hex, each with what a verifier says of it given trust.json. Forged ones are in forged.json",
        "trust": "../receipt/trust.json",
        "fingerprint": trust.fingerprint(),
        "subjects": persons,
        "tag": {"subject": "anna", "dataset": looked::dataset(), "day": day, "tag": hex::encode(tag)},
        "lists": looked::valid().into_iter().map(one).collect::<Vec<_>>(),
    });
    kept(&file("access/lists.json"), &text(&list));
}
