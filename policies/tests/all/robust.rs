//! Mangled documents are refused with a place, or mean what they say; nothing panics.

use concordat_policies::compile::compile;
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
            }
        }
    }

    #[test]
    fn any_text_is_refused_or_read(text in "\\PC{0,200}") {
        let _ = compile(&text);
        let _ = nearest(&text, &["query", "subscribe"]);
    }
}
