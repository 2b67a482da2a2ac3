#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::demo;

fn changes(edits: &[(&str, &str)]) -> Vec<(Option<String>, String, Way)> {
    let text = demo("AGR-2026-0142");
    let new = edits.iter().fold(text.clone(), |t, (from, to)| {
        assert!(t.contains(from), "{from}");
        t.replacen(from, to, 1)
    });
    let (a, b) = (Agreement::parse(&text).unwrap(), Agreement::parse(&new).unwrap());
    let forward = diff(&a, &b);
    // The way back says the opposite.
    let back = diff(&b, &a);
    for c in &forward {
        let twin = back.iter().find(|x| x.clause == c.clause && x.term == c.term && x.before == c.after);
        assert_eq!(twin.unwrap().way, c.way.turned(), "{c:?}");
    }
    assert_eq!(forward.len(), back.len());
    forward.into_iter().map(|c| (c.clause, c.term, c.way)).collect()
}

#[test]
fn the_same_document_has_no_changes_whatever_its_layout() {
    assert_eq!(changes(&[]), []);
    assert_eq!(changes(&[("# The demo", "# A demo"), ("actions: [query]", "actions: [ query ]")]), []);
}

#[test]
fn each_change_names_its_clause_its_term_and_its_way() {
    for (from, to, clause, term, way) in [
        ("max: 500", "max: 501", "C1", "quota", Way::More),
        ("max: 500", "max: 499", "C1", "quota", Way::Less),
        ("max: 500, per: day", "max: 500, per: hour", "C1", "quota", Way::Other),
        ("  - {type: quota, max: 500, per: day}\n", "", "C1", "quota", Way::More),
        ("problem, citation_issued,", "citation_issued,", "C1", "fields", Way::Less),
        ("[stop_id, {time: 24h}]", "[stop_id]", "C1", "require-filter", Way::Less),
        ("min_group: 10", "min_group: 5", "S1", "aggregate", Way::More),
        ("role: role:clerk", "role: role:judge", "C1", "assignee", Way::Other),
        ("{org: org:court, role: role:clerk}", "{org: org:court}", "C1", "assignee", Way::More),
        ("actions: [query, subscribe]", "actions: [query]", "X1", "actions", Way::More),
        ("purpose: purp:profiling", "purpose: purp:advertising", "X1", "purpose", Way::Other),
        ("Never for profiling.", "Never, for profiling.", "X1", "text", Way::Other),
        ("evidence: {bounded: {max_lag: 10m}}", "evidence: strict", "B1", "evidence", Way::Other),
        ("legal_basis: \"City", "legal_basis: \"The city", "C1", "legal_basis", Way::Other),
        ("[\"1\", \"2\"]", "[\"1\"]", "C1", "row-filter", Way::Other),
    ] {
        assert_eq!(changes(&[(from, to)]), [(Some(clause.to_owned()), term.to_owned(), way)], "{from} -> {to}");
    }
    let whole = changes(&[("version: 1", "version: 2"), ("[legal, data-steward]", "[legal]")]);
    assert_eq!(whole.iter().map(|c| c.1.as_str()).collect::<Vec<_>>(), ["version", "approvals.assigner"]);
}

#[test]
fn clauses_that_come_and_go_are_more_or_less() {
    let text = demo("AGR-2026-0142");
    let doc = Agreement::parse(&text).unwrap();
    for (id, way) in [("C1", Way::Less), ("X1", Way::More), ("B1", Way::Less)] {
        let mut other = doc.clone();
        other.clauses.retain(|c| c.id != id);
        let found = diff(&doc, &other);
        assert_eq!(
            found.iter().map(|c| (c.clause.as_deref(), c.term.as_str(), c.way)).collect::<Vec<_>>(),
            [(Some(id), "clause", way)]
        );
        assert_eq!(diff(&other, &doc)[0].way, way.turned());
    }
}

#[test]
fn a_renewal_changes_dates_and_papers_only() {
    let text = demo("AGR-2026-0142");
    let old = Agreement::parse(&text).unwrap();
    let beyond = |from: &str, to: &str| {
        let new = Agreement::parse(&text.replace(from, to)).unwrap();
        assert_ne!(new, old, "{from}");
        beyond_renewal(&old, &new).into_iter().map(|c| c.term).collect::<Vec<_>>()
    };
    assert_eq!(beyond("2027-01-01", "2028-01-01"), [""; 0]);
    assert_eq!(beyond("Police-Court 2026/14", "Police-Court 2026/15"), [""; 0]);
    assert_eq!(beyond("max: 500", "max: 5000"), ["quota"]);
    assert_eq!(beyond("version: 1", "version: 2"), ["version"]);
    assert_eq!(beyond("stop_id, time, problem", "stop_id, time, race, problem"), ["fields"]);
}
