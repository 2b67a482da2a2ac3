//! Mangled documents are refused with a place, or mean what they say; nothing panics.

use concordat_policies::compile::compile;
use concordat_policies::duty::DutyKind;
use concordat_policies::rows::PolicyRows;
use concordat_policies::yaml::{YamlError, nearest};
use concordat_protocol::cbor;
use proptest::prelude::*;

const BITS: [&str; 24] = [
    "any",
    "query",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "  ",
    "prohibit",
    "permit",
    "strict",
    "none",
    "purp:x",
    "role:clerk",
    "org:court",
    "\"",
    "'",
    "!",
    "&a ",
    "*a",
    "\u{202e}",
    "24h",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn mangled_documents_never_panic(cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, 0usize..BITS.len()), 1..5)) {
        let mut text: Vec<char> = super::golden::demo_text("AGR-2026-0142").chars().collect();
        for (at, len, bit) in cuts {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            text.splice(at..end, BITS[bit].chars());
        }
        let text: String = text.into_iter().collect();
        match compile(&text) {
            Err(YamlError { problem, .. }) => prop_assert!(!problem.is_empty()),
            // What is accepted keeps the rules: a sentinel, and a purpose for every permit.
            Ok(c) => {
                prop_assert_eq!(c.rows.rows[0].clause.as_str(), "C0");
                prop_assert!(c.rows.rows.iter().all(|r| r.eft == "deny" || (r.purp != "*" && r.org != "*")));
                prop_assert_eq!(&cbor::decode::<PolicyRows>(&cbor::encode(&c.rows)).unwrap(), &c.rows);
                prop_assert_eq!(compile(&text).unwrap().terms_hash(), c.terms_hash());
            }
        }
    }

    #[test]
    fn any_text_is_refused_or_read(text in "\\PC{0,200}") {
        let _ = compile(&text);
        let _ = nearest(&text, &["query", "subscribe"]);
    }

    /// Duties of any words and values: refused with a place, or compiled to the same terms each time.
    #[test]
    fn any_duty_is_refused_or_compiles_to_the_same_terms(
        kind in 0..DutyKind::ALL.len(),
        parts in proptest::collection::vec((0..KEYS.len(), 0..VALUES.len()), 0..5),
        noise in "\\PC{0,8}",
    ) {
        let mut duty = format!("type: {}", DutyKind::ALL[kind]);
        for (key, value) in parts {
            duty = format!("{duty}, {}: {}", KEYS[key], VALUES[value].replace("NOISE", &noise));
        }
        let clause = format!("- {{id: A, text: a, effect: permit, assignee: {{org: org:court}}, actions: [query], purpose: purp:x, duties: [{{{duty}}}]}}\n");
        let text = format!("{HEAD}{clause}");
        match compile(&text) {
            Err(e) => prop_assert!(!e.problem.is_empty()),
            Ok(c) => {
                let again = compile(&text).unwrap();
                prop_assert_eq!((again.terms_hash(), &again.text), (c.terms_hash(), &c.text));
                let sentence = c.document.clauses[0].duties[0].sentence();
                prop_assert!(!sentence.is_empty() && c.text.contains(&sentence));
            }
        }
    }
}

const HEAD: &str = "agreement: AGR-1\nversion: 1\nassigner: org:police\nassignee: org:court\ntarget: ds:police/stops@1\n\
    valid: {from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}\napprovals: {assigner: [legal], assignee: [legal]}\nclauses:\n";
const KEYS: [&str; 20] = [
    "field",
    "pattern",
    "any_of",
    "where",
    "allow",
    "max",
    "per",
    "by",
    "unit",
    "group_by",
    "min_group",
    "to",
    "within",
    "for",
    "fields",
    "keep_last",
    "step",
    "first",
    "keep",
    "level",
];
const VALUES: [&str; 24] = [
    "case",
    "time",
    "day",
    "month",
    "\"^[a-z]+$\"",
    "\"^(NOISE)$\"",
    "[a, b]",
    "[a, {time: 24h}]",
    "[{time: month}]",
    "{a: {eq: 1}}",
    "{and: [{a: {in: [x]}}]}",
    "1",
    "0",
    "12",
    "0.5",
    "24h",
    "org:police",
    "strong",
    "session",
    "records",
    "NOISE",
    "\"NOISE\"",
    "[NOISE]",
    "{NOISE: NOISE}",
];
