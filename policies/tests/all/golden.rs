//! The same document gives the same bytes: golden files of what the demo's agreements compile to.
//! `UPDATE_GOLDEN=1 cargo test -p concordat-policies --test all golden` rewrites them; a change means a new compiler version.

use concordat_policies::compile::{COMPILER_VERSION, Compiled, compile};
use concordat_policies::template::fill;
use concordat_protocol::cbor;
use std::fmt::Write as _;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A document of the demo with its validity filled in.
pub fn demo_text(name: &str) -> String {
    let text = std::fs::read_to_string(root().join(format!("../cli/demo/agreements/{name}.yaml"))).unwrap();
    fill(&text, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap()
}

fn demo(name: &str) -> Compiled {
    compile(&demo_text(name)).unwrap()
}

fn picture(c: &Compiled) -> String {
    let mut out = format!(
        "compiler {COMPILER_VERSION}\nterms_hash {}\nrows_hash {}\n",
        hex::encode(c.terms_hash()),
        hex::encode(c.rows.hash())
    );
    writeln!(out, "terms {}\n", hex::encode(cbor::encode(&c.terms))).unwrap();
    for r in &c.rows.rows {
        writeln!(out, "row {}", r.values().join(", ")).unwrap();
    }
    for d in &c.rows.duties {
        writeln!(out, "duty {} {}", d.clause, d.json).unwrap();
    }
    writeln!(out, "\n{}", c.text).unwrap();
    out
}

#[test]
fn the_demo_compiles_to_the_golden_files() {
    for name in ["AGR-2026-0142", "AGR-2026-0143", "AGR-2026-0144", "AGR-2026-0145"] {
        let c = demo(name);
        assert_eq!(c, demo(name), "twice the same");
        let path = root().join(format!("tests/golden/{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, picture(&c)).unwrap();
        }
        let want = std::fs::read_to_string(&path).unwrap();
        assert_eq!(picture(&c), want, "{name}: output changed; raise COMPILER_VERSION and update the golden files");
    }
}

#[test]
fn every_part_of_a_document_is_in_the_terms_hash() {
    let text = demo_text("AGR-2026-0142");
    let base = compile(&text).unwrap();
    for (from, to) in [
        ("max: 500", "max: 501"),
        ("role:clerk", "role:judge"),
        ("\"2\"]", "\"3\"]"),
        ("a pending case,", "the pending case,"),
        ("# The", "# the"),
    ] {
        let other = compile(&text.replacen(from, to, 1)).unwrap();
        assert_ne!(other.terms_hash(), base.terms_hash(), "{from} -> {to}");
    }
    // What the text does not change, the table, the rows and the sentences do not change either.
    let comment = compile(&text.replacen("# The", "# the", 1)).unwrap();
    assert_eq!((comment.rows, comment.text), (base.rows, base.text));
}
