//! Refusals of documents, each with its place and the word that was meant.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{court, demo};

fn refused(yaml: &str) -> YamlError {
    Agreement::parse(yaml).expect_err(yaml)
}

/// The demo's first agreement with one text replaced; the first place must exist.
fn changed(from: &str, to: &str) -> String {
    let text = demo("AGR-2026-0142");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

#[test]
fn the_demo_documents_parse() {
    for n in ["AGR-2026-0142", "AGR-2026-0143", "AGR-2026-0144", "AGR-2026-0145"] {
        assert_eq!(Agreement::parse(&demo(n)).unwrap().agreement.as_str(), n);
    }
}

#[test]
fn unknown_keys_and_terms_name_place_and_nearest_word() {
    let text = demo("AGR-2026-0142");
    for (from, to, nearest) in [
        ("assigner: org:police", "asigner: org:police", "assigner"),
        ("  effect: permit", "  efect: permit", "effect"),
        ("effect: permit", "effect: permitt", "permit"),
        ("effect: prohibit", "effect: Prohibit", "prohibit"),
        ("effect: break-glass", "effect: breakglass", "break-glass"),
        ("actions: [query]", "actions: [qeury]", "query"),
        ("actions: [query, subscribe]", "actions: [query, subscribes]", "subscribe"),
        ("evidence: strict", "evidence: stict", "strict"),
        ("max_lag: 10m", "max_lga: 10m", "max_lag"),
        ("{bounded:", "{bounds:", "bounded"),
        ("type: reference", "type: refrence", "reference"),
        ("type: row-filter", "type: row_filter", "row-filter"),
        ("field: case", "field: csae", "case"),
        ("any_of:", "anyof:", "any_of"),
        ("{in: [", "{inn: [", "in"),
        ("per: day", "per: days", "day"),
        ("{time: month}", "{time: months}", "month"),
        ("role: role:clerk", "rol: role:clerk", "role"),
        ("assignee: any", "assignee: ayn", "any"),
        ("until:", "untill:", "until"),
        ("sha256:", "sha265:", "sha256"),
        ("within: 24h", "witin: 24h", "within"),
    ] {
        let e = refused(&changed(from, to));
        let line = text[..text.find(from).unwrap()].lines().count() as u64;
        assert!((line..=line + 1).contains(&e.at.line), "{to}: {e}");
        assert!(e.at.column > 0, "{to}: {e}");
        assert_eq!(e.nearest.as_deref(), Some(nearest), "{to}: {e}");
    }
}

#[test]
fn contradictions_and_bad_values_are_refused() {
    for (from, to, says) in [
        ("until: 2027", "until: 2025", "later than"),
        ("version: 1", "version: 0", "begin with 1"),
        ("version: 1", "version: 1\nversion: 2", "second time"),
        ("- id: S1", "- id: C1", "two clauses"),
        ("- id: S1", "- id: C0", "reserved"),
        ("- id: S1", "- id: s1", "clause id"),
        ("  purpose: purp:pending-case\n", "", "purpose"),
        ("purpose: purp:pending-case", "purpose: pending-case", "purp:"),
        ("purpose: purp:pending-case", "purpose: \"purp:*\"", "purp:"),
        ("role: role:clerk", "role: clerk", "role:"),
        ("assigner: org:police", "assigner: org:grid", "belongs to"),
        ("assignee: org:court\n", "assignee: org:police\n", "same agency"),
        ("{org: org:court, role: role:clerk}", "{org: org:grid, role: role:clerk}", "not a party"),
        ("{org: org:court, role: role:clerk}", "any", "grants more"),
        ("evidence: strict", "evidence: none", "public data"),
        ("evidence: strict", "evidence: {bounded: {max_lag: 2s}}", "split the clause"),
        ("max_lag: 10m", "max_lag: 0s", "max_lag"),
        ("max_lag: 10m", "max_lag: 10", "duration"),
        ("max_lag: 10m", "max_lag: 2d", "max_lag"),
        ("actions: [query]", "actions: []", "empty"),
        ("actions: [query]", "actions: [query, query]", "twice"),
        ("max: 500", "max: 0", "quota"),
        ("max: 500", "max: -1", ""),
        ("max: 500", "max: 500, allow: [a]", "allow"),
        ("allow: [stop_id,", "allow: [stop_id, stop_id,", "twice"),
        ("allow: [stop_id,", "allow: [\"$where\",", "field name"),
        ("min_group: 10", "min_group: 1", "single row"),
        ("pattern: \"^[0-9]", "pattern: \"[0-9]", "begin with ^"),
        ("pattern: \"^[0-9]{2}", "pattern: \"^[0-9{2}", "compile"),
        ("pattern: \"^[0-9]{2}", "pattern: \"^(a{1000}){1000}", "compile"),
        ("  - {type: quota, max: 500, per: day}", "  - {type: fields, allow: [a]}", "twice"),
        ("{type: justification}, ", "", "justification"),
        ("{org: org:court, role: role:duty-officer}", "{org: org:court}", "role"),
        (
            "[{type: justification}, {type: notify, to: org:police}, {type: review, within: 24h}]",
            "[{type: justification}]",
            "review",
        ),
        ("purpose: purp:profiling", "purpose: purp:profiling\n  duties: [{type: justification}]", "no duties"),
        ("purpose: purp:profiling", "purpose: purp:pending-case", "never be used"),
        ("  purpose: purp:profiling\n", "", "never be used"),
        ("assigner: [legal, data-steward]", "assigner: []", "always approves"),
        ("assigner: [legal, data-steward]", "assigner: [legal, legal]", "twice"),
        (", assignee: [legal]}", "}", "both sides"),
        ("target: ds:police/stops@1", "target: ds:police/stops", "dataset"),
        ("2026-01-01T00:00:00Z", "2026-01-01", "time"),
        ("text: Never for profiling.", "text: \"Never.\\nC9. Everything is allowed\"", "line break"),
        ("text: Never for profiling.", "text: \"Never \\u202efor\"", "invisible"),
        ("text: Never for profiling.", "text: \"\"", "characters"),
        ("text: Never for profiling.", "text: !x Never", "tag"),
    ] {
        let e = refused(&changed(from, to));
        assert!(e.to_string().contains(says), "{to}: {e}");
    }
}

#[test]
fn what_is_read_is_what_stands_there() {
    let doc = Agreement::parse(&changed("text: Never for profiling.", "text: !!binary aGk=")).unwrap();
    assert_eq!(doc.clause("X1").unwrap().text, "aGk=");
}

#[test]
fn public_agreements_keep_their_rules() {
    let text = demo("AGR-2026-0145");
    for (from, to, says) in [
        ("evidence: none", "evidence: strict", "evidence none"),
        ("  assignee: any", "  assignee: {org: org:grid}", "for any"),
        ("actions: [query]", "actions: [query, insert]", "read only"),
        ("[legal, data-steward]}", "[legal], assignee: [legal]}", "assigner alone"),
        ("evidence: none", "evidence: none\n  duties: [{type: quota, max: 1, per: day}]", "known consumer"),
    ] {
        let e = refused(&text.replacen(from, to, 1));
        assert!(e.to_string().contains(says), "{to}: {e}");
    }
}

#[test]
fn a_feed_says_its_evidence_and_somebody_is_permitted_something() {
    let feed = "- {id: F1, text: a, effect: permit, assignee: {org: org:court}, actions: [subscribe], purpose: purp:x}";
    assert!(refused(&court(feed)).to_string().contains("bounded"));
    let only = "- {id: X1, text: a, effect: prohibit, assignee: any, actions: [query]}";
    assert!(refused(&court(only)).to_string().contains("no clause permits"));
    assert!(refused(&court("  []")).to_string().contains("clauses"));
}

#[test]
fn odd_yaml_never_panics() {
    for odd in [
        "",
        "a",
        "- a",
        "{}",
        "agreement: {}",
        "clauses: [[[[[[[[",
        "&a [*a]",
        "agreement: &x AGR-1\nversion: *x",
        "\u{0}",
        "? [a]\n: b",
    ] {
        assert!(Agreement::parse(odd).is_err());
    }
    let deep = "[".repeat(100_000);
    assert!(Agreement::parse(&deep).is_err());
    assert!(Agreement::parse(&"a".repeat(crate::yaml::YAML_BYTES_MAX + 1)).is_err());
}
