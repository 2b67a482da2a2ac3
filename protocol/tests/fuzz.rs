//! A bounded run of the fuzzers (`fuzz/`): the encodings of all vectors, damaged in some ten thousand ways, the same ones
//! every time.
#![cfg(feature = "verifier")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/src/lib.rs"]
mod decoders;

use decoders::GROUPS;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Damaged inputs a run.
const RUNS: usize = 60_000;

/// xorshift64*: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Every byte string and every text of a JSON file.
fn strings(value: &Value, out: &mut BTreeSet<Vec<u8>>) {
    match value {
        Value::String(s) => {
            out.insert(s.clone().into_bytes());
            if let Ok(bytes) = hex::decode(s) {
                out.insert(bytes);
            }
        }
        Value::Array(list) => list.iter().for_each(|v| strings(v, out)),
        Value::Object(map) => map.values().for_each(|v| strings(v, out)),
        _ => {}
    }
}

/// All values of the vectors, and what is not written there as one: files, and parts of others.
fn seeds() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut out = BTreeSet::new();
    let names = ["", "receipt", "access"].map(|d| dir.join(d));
    for path in names.iter().flat_map(|d| std::fs::read_dir(d).unwrap()).map(|e| e.unwrap().path()) {
        if path.extension().is_some_and(|e| e == "json") && !path.ends_with("forged.json") {
            let text = std::fs::read_to_string(&path).unwrap();
            strings(&serde_json::from_str(&text).unwrap(), &mut out);
            if path.ends_with("trust.json") {
                out.insert(text.into_bytes());
            }
        }
    }
    let comet = |name: &str| std::fs::read_to_string(dir.join("receipt/comet").join(name)).unwrap().replace('\n', " ");
    out.insert(format!("{}\n{}", comet("commit.json"), comet("validators.json")).into_bytes());
    parts(&mut out);
    out.into_iter().filter(|s| !s.is_empty()).collect()
}

/// The parts of receipts, lists and node answers that stand nowhere alone.
fn parts(out: &mut BTreeSet<Vec<u8>>) {
    use concordat_protocol::access::AccessList;
    use concordat_protocol::cbor::{decode, encode};
    use concordat_protocol::message::Envelope;
    use concordat_protocol::node::NodeReply;
    use concordat_protocol::receipt::Receipt;
    use concordat_protocol::terms::Terms;
    let mut more = Vec::new();
    for seed in out.iter() {
        if let Ok(r) = decode::<Receipt>(seed) {
            let len = u16::try_from(r.header.len()).unwrap().to_be_bytes();
            more.push([&len[..], &r.header, &r.validators].concat());
            more.extend([encode(&r.log_path), encode(&r.op)]);
            more.extend(r.openings.iter().map(encode));
            more.extend(r.request.iter().map(|p| encode(&p.session)));
            more.extend(r.release.iter().map(|p| encode(&p.key)));
        }
        if let Ok(list) = decode::<AccessList>(seed) {
            more.extend(list.entries.iter().map(encode));
            more.extend(
                list.runs.iter().flat_map(|r| [encode(&r.run), encode(&r.lists[0]), encode(&r.lists[0].adjacent)]),
            );
        }
        if let Ok(terms) = decode::<Terms>(seed) {
            more.extend(terms.clauses.iter().map(encode));
            more.extend(terms.clauses.iter().filter_map(|c| c.quota.as_ref()).map(encode));
        }
        more.extend(decode::<Envelope>(seed).iter().flat_map(|e| &e.records).map(encode));
        more.extend(decode::<NodeReply>(seed).ok().and_then(inner));
    }
    out.extend(more);
    out.extend(witnessed().map(String::into_bytes));
    out.insert([&[0, 3][..], b"abc", &[0, 1], b"d"].concat());
}

/// The log's head as witnesses read it, and what they sign.
fn witnessed() -> [String; 5] {
    use concordat_protocol::c2sp::{NoteSignature, TreeHead, VerifierKey, origin};
    let head = TreeHead { origin: origin("city-1"), size: 70_000, root: [7; 32] }.to_string();
    let line = NoteSignature { name: "city-1".into(), id: [1, 2, 3, 4], bytes: vec![5; 64] }.to_string();
    let note = format!("{head}\n{line}");
    let key = VerifierKey::witness("witness.example/w", [9; 32]).unwrap().to_string();
    [head, line.trim_end().to_owned(), note, key, "tile/entries/x001/234.p/5".to_owned()]
}

fn inner(reply: concordat_protocol::node::NodeReply) -> Option<Vec<u8>> {
    use concordat_protocol::cbor::encode;
    use concordat_protocol::node::NodeReply as R;
    Some(match reply {
        R::Frame { body } => encode(&body),
        R::Head { body } => encode(&body),
        R::Writer { body } => encode(&body?),
        R::Agreements { body } => encode(body.first()?),
        R::Proof { body } => encode(&body),
        R::Run { body } => encode(&body),
        R::Epochs { body } => encode(body.first()?.keys.first()?),
        R::Leaves { body } => encode(body.keys.first()?),
        _ => return None,
    })
}

/// A byte, a bit, a length, a cut, a piece put in, twice, taken out, or from another value.
fn damage(good: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = good.to_vec();
    for _ in 0..=dice.below(3) {
        let (at, n) = (dice.below(out.len()), 1 + dice.below(40));
        let end = (at + n).min(out.len());
        match dice.below(10) {
            0 => out.truncate(at),
            1 => drop(out.drain(at..end)),
            2 => drop(out.splice(at..at, out[at..end].to_vec())),
            3 => {
                let from = dice.below(other.len());
                let to = (from + n).min(other.len());
                drop(out.splice(at..end, other[from..to].iter().copied()));
            }
            4 => drop(out.splice(at..at, (0..n).map(|_| dice.next() as u8).collect::<Vec<_>>())),
            // The heads of CBOR items: arrays and strings of other lengths, long forms, what is not allowed at all.
            5 if !out.is_empty() => {
                out[at] = [0x80, 0x81, 0x9f, 0x98, 0x9b, 0x5b, 0x7b, 0x1b, 0xf6, 0xc0, 0xff][dice.below(11)]
            }
            6 if !out.is_empty() => out[at] = out[at].wrapping_add(1),
            7 if !out.is_empty() => out[at] = dice.next() as u8,
            _ if !out.is_empty() => out[at] ^= 1 << dice.below(8),
            _ => {}
        }
    }
    out
}

#[test]
fn every_decoder_reads_its_vectors() {
    let seeds = seeds();
    let mut read: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (group, decoders) in GROUPS {
        for (name, decoder) in *decoders {
            read.insert((group, name), seeds.iter().filter(|s| decoder(s)).count());
        }
    }
    // A fuzzer that starts from no value of its own finds nothing. Nothing opens what was sealed for another header.
    let none: Vec<_> = read.iter().filter(|(k, n)| **n == 0 && k.1 != "sealed").map(|(k, _)| k).collect();
    assert!(none.is_empty(), "no vector for {none:?}");
    assert_eq!(read[&("sealed", "sealed")], 0);
}

#[test]
fn damaged_values_never_panic_and_have_one_encoding() {
    let seeds = seeds();
    // Long ones are tried too, less often: a receipt is read as fast as it is long.
    let (short, long): (Vec<_>, Vec<_>) = seeds.iter().partition(|s| s.len() < 5_000);
    let mut dice = Dice(0x0c0c_0fda_7a5e_ed01);
    let mut read = 0usize;
    for i in 0..RUNS {
        let from = if i % 40 == 0 { &long } else { &short };
        let (a, b) = (dice.below(from.len()), dice.below(seeds.len()));
        let bytes = damage(from[a], &seeds[b], &mut dice);
        for (_, decoders) in GROUPS {
            read += decoders.iter().filter(|(_, decoder)| decoder(&bytes)).count();
        }
    }
    // Damage inside a field is read: the decoders were reached, not only their first byte.
    assert!(read > RUNS / 10, "{read}");
}

/// The fuzzers' first inputs: for each target what one of its decoders reads. `make fuzz` calls this.
#[test]
#[ignore = "writes fuzz/corpus"]
fn write_corpus() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, decoders) in GROUPS {
        let dir = dir.join(target);
        std::fs::create_dir_all(&dir).unwrap();
        let read = seeds().into_iter().filter(|s| decoders.iter().any(|(_, decoder)| decoder(s)));
        for (n, seed) in read.enumerate() {
            std::fs::write(dir.join(format!("vector-{n}")), seed).unwrap();
        }
    }
}
