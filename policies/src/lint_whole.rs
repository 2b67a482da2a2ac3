//! Findings on clauses against each other, against the clock and against the types of a dataset.

use crate::dataset::{DatasetDoc, FieldType};
use crate::document::{Agreement, Clause, Who, Window};
use crate::duty::{Coarse, Duty};
use crate::lint::{Finding, Severity, finding, same_people};
use crate::readers::without;
use crate::time::{duration_text, utc_text};
use crate::yaml::Pos;
use concordat_protocol::terms::Action;

/// An end within this time is worth a warning, milliseconds.
const SOON_MS: u64 = 30 * 86_400_000;

/// Clauses from which prohibitions take something, or everything. (One prohibition that takes everything alone is
/// refused by the parser.)
pub(crate) fn cut_by_prohibitions(doc: &Agreement) -> Vec<Finding> {
    let grants = doc.clauses.iter().filter(|c| c.grants());
    grants.filter_map(|c| cut(c, doc.clauses.iter().filter(|x| !x.grants()))).collect()
}

fn cut<'a>(c: &Clause, prohibitions: impl Iterator<Item = &'a Clause>) -> Option<Finding> {
    let purpose = |x: &Clause| x.purpose.is_none() || c.purpose.is_none() || x.purpose == c.purpose;
    let meets = |x: &&Clause| {
        purpose(x)
            && same_people(&x.who, &c.who)
            && x.actions.iter().any(|a| c.actions.contains(a))
            && x.valid.from_ms < c.valid.until_ms
            && c.valid.from_ms < x.valid.until_ms
    };
    let met: Vec<&Clause> = prohibitions.filter(meets).collect();
    let ids = || met.iter().map(|x| x.id.as_str()).collect::<Vec<_>>().join(", ");
    let left = |a: &Action| {
        let takes_all = |x: &&&Clause| {
            x.actions.contains(a) && (x.purpose.is_none() || x.purpose == c.purpose) && everybody(&x.who, &c.who)
        };
        met.iter().filter(takes_all).fold(vec![c.valid], |left: Vec<Window>, x| without(&left, x.valid))
    };
    let dead: Vec<&str> = c.actions.iter().filter(|a| left(a).is_empty()).map(|a| a.word()).collect();
    if met.is_empty() {
        None
    } else if dead.len() == c.actions.len() {
        let text = format!("{} can never be used: {} together prohibit all of it", c.id, ids());
        Some(finding(Severity::Error, "unreachable", c, text))
    } else if !dead.is_empty() {
        let text = format!("{} never lets anybody {}: {} prohibits it", c.id, dead.join(" or "), ids());
        Some(finding(Severity::Warning, "dead-action", c, text))
    } else {
        let text = format!("{} takes part of {}: prohibitions win", ids(), c.id);
        Some(finding(Severity::Note, "partly-prohibited", c, text))
    }
}

/// Whether a prohibition speaks of everybody of whom a clause speaks.
fn everybody(x: &Who, c: &Who) -> bool {
    match (x, c) {
        (Who::Any, _) => true,
        (Who::Org { .. }, Who::Any) => false,
        (Who::Org { role: None, .. }, _) => true,
        (Who::Org { role: a, .. }, Who::Org { role: b, .. }) => a == b,
    }
}

/// What a document's dates mean at a time (milliseconds since 1970).
pub fn lint_dates(doc: &Agreement, now_ms: u64) -> Vec<Finding> {
    let top = Pos { line: 1, column: 1 };
    let text = |ms| utc_text(ms).unwrap_or_default();
    let mut out = Vec::new();
    if let Some((severity, rule, said)) = dates(&doc.valid, now_ms) {
        out.push(Finding { severity, rule, clause: None, at: top, text: format!("the agreement {said}") });
        if rule == "expired" {
            return out;
        }
    }
    for c in doc.clauses.iter().filter(|c| c.valid != doc.valid) {
        if c.valid.until_ms <= now_ms {
            let said = format!("clause {} is over since {}", c.id, text(c.valid.until_ms));
            out.push(finding(Severity::Warning, "clause-over", c, said));
        } else if let Some((severity, rule, said)) = dates(&c.valid, now_ms) {
            out.push(finding(severity, rule, c, format!("clause {} {said}", c.id)));
        }
    }
    out
}

fn dates(w: &Window, now_ms: u64) -> Option<(Severity, &'static str, String)> {
    let text = |ms| utc_text(ms).unwrap_or_default();
    if w.until_ms <= now_ms {
        let said = format!("is over since {}: everything under it is denied; renew its dates", text(w.until_ms));
        return Some((Severity::Error, "expired", said));
    }
    if w.until_ms - now_ms <= SOON_MS {
        let days = (w.until_ms - now_ms).div_ceil(86_400_000);
        let said = format!("ends on {}, in {}: renew it in time", text(w.until_ms), duration_text(days * 86_400_000));
        return Some((Severity::Warning, "expires-soon", said));
    }
    (w.from_ms > now_ms).then(|| (Severity::Note, "not-yet", format!("begins on {}", text(w.from_ms))))
}

/// Duties that do not fit the type of their field: they would leave it out of every row, or hide every row.
pub fn lint_types(doc: &Agreement, dataset: &DatasetDoc) -> Vec<Finding> {
    let mut out = Vec::new();
    for c in doc.clauses.iter().filter(|c| c.grants()) {
        for (name, wanted) in c.duties.iter().flat_map(typed) {
            let Some(field) = dataset.field(name) else { continue };
            if !wanted.0.contains(&field.kind) {
                let text = format!("{name} is not {}: {}", wanted.1, wanted.2);
                out.push(finding(Severity::Error, "wrong-type", c, text));
            }
        }
        let altered_key = dataset.key.iter().find(|k| c.duties.iter().any(|d| d.altered().contains(&k.as_str())));
        if let Some(k) = altered_key {
            let text =
                format!("rows come in the order of {k}, whose values are altered: their order still tells something");
            out.push(finding(Severity::Note, "key-order", c, text));
        }
    }
    out
}

/// Types that fit, what they are called, what happens otherwise.
type Fits = (&'static [FieldType], &'static str, &'static str);

fn typed(d: &Duty) -> Vec<(&str, Fits)> {
    const TIME: Fits = (&[FieldType::Timestamp], "a time", "the duty on it cannot be kept");
    const TEXT: Fits = (&[FieldType::String], "a text", "coarsen by first would leave it out of every row");
    const NUMBER: Fits = (
        &[FieldType::Integer, FieldType::Decimal, FieldType::Number],
        "a number",
        "coarsen by step would leave it out of every row",
    );
    match d {
        Duty::Delay { field, .. } | Duty::Coarsen { field, how: Coarse::Time { .. } } => vec![(field, TIME)],
        Duty::Coarsen { field, how: Coarse::Number { .. } } => vec![(field, NUMBER)],
        Duty::Coarsen { field, how: Coarse::Text { .. } } => vec![(field, TEXT)],
        Duty::Aggregate { group_by, .. } => {
            group_by.iter().filter(|g| g.cut.is_some()).map(|g| (g.field.as_str(), TIME)).collect()
        }
        Duty::RequireFilter { any_of } => {
            any_of.iter().filter(|n| n.within_ms.is_some()).map(|n| (n.field.as_str(), TIME)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lint::lint;
    use crate::testing::{NOW, court, demo};
    use crate::time::utc_ms;

    const DAY: u64 = 86_400_000;
    const C: &str = "- {id: C, text: c, effect: permit, assignee: {org: org:court, role: role:a}, actions: [query, insert], purpose: purp:x}\n";

    fn rules(clauses: &str) -> Vec<(&'static str, String)> {
        let doc = Agreement::parse(&court(clauses)).unwrap();
        let cuts = ["unreachable", "dead-action", "partly-prohibited"];
        let found = lint(&doc).into_iter().filter(|f| cuts.contains(&f.rule));
        found.map(|f| (f.rule, f.clause.unwrap())).collect()
    }

    #[test]
    fn prohibitions_that_take_part_or_all_of_a_clause_are_found() {
        let x = |id: &str, who: &str, actions: &str, purpose: &str, valid: &str| {
            format!(
                "- {{id: {id}, text: x, effect: prohibit, assignee: {who}, actions: [{actions}], purpose: {purpose}{valid}}}\n"
            )
        };
        let half = |from: &str, until: &str| format!(", valid: {{from: {from}T00:00:00Z, until: {until}T00:00:00Z}}");
        let (first, second) = (half("2026-01-01", "2026-07-01"), half("2026-06-01", "2027-01-01"));
        let is = |rule: &'static str| vec![(rule, "C".to_owned())];
        let all = "query, insert";
        assert_eq!(rules(C), []);
        assert_eq!(rules(&format!("{C}{}", x("X1", "any", all, "purp:y", ""))), []);
        assert_eq!(rules(&format!("{C}{}", x("X1", "{org: org:court, role: role:b}", all, "purp:x", ""))), []);
        assert_eq!(rules(&format!("{C}{}", x("X1", "any", "insert", "purp:x", ""))), is("dead-action"));
        assert_eq!(rules(&format!("{C}{}", x("X1", "any", all, "purp:x", &first))), is("partly-prohibited"));
        let both =
            [x("X1", "any", all, "purp:x", &first), x("X2", "{org: org:court}", all, "purp:x", &second)].concat();
        assert_eq!(rules(&format!("{C}{both}")), is("unreachable"));
        let apart = [x("X1", "any", "insert", "purp:x", ""), x("X2", "any", "query", "purp:x", "")].concat();
        assert_eq!(rules(&format!("{C}{apart}")), is("unreachable"));
    }

    #[test]
    fn dates_are_read_against_the_clock() {
        let doc = Agreement::parse(&demo("AGR-2026-0142")).unwrap();
        let at = |ms| lint_dates(&doc, ms).into_iter().map(|f| f.rule).collect::<Vec<_>>();
        let end = utc_ms("2027-01-01T00:00:00Z").unwrap();
        assert_eq!(at(NOW), [""; 0]);
        assert_eq!(at(end - 30 * DAY - 1), [""; 0]);
        assert_eq!(at(end - 30 * DAY), ["expires-soon"]);
        assert_eq!(at(end), ["expired"]);
        assert_eq!(at(0), ["not-yet"]);
        let part = C.replace("purp:x", "purp:x, valid: {from: 2026-01-01T00:00:00Z, until: 2026-02-01T00:00:00Z}");
        let doc = Agreement::parse(&court(&part)).unwrap();
        assert_eq!(lint_dates(&doc, NOW)[0].rule, "clause-over");
    }

    #[test]
    fn a_duty_that_does_not_fit_its_field_is_an_error() {
        let schema = r#"{"type":"object","additionalProperties":false,"required":["id"],"properties":{"id":{"type":"string"},
            "t":{"type":"string","format":"date-time"},"n":{"type":"integer"}}}"#;
        let yaml = "dataset: ds:police/stops@1\ntitle: t\nkind: records\nschema: s.json\nkey: [id]\nsubject: none\nsensitive: {}\n";
        let dataset = DatasetDoc::parse(yaml, schema).unwrap();
        for (duty, wrong) in [
            ("{type: coarsen, field: t, to: day}", None),
            ("{type: coarsen, field: n, to: day}", Some("n is not a time")),
            ("{type: coarsen, field: t, step: 2}", Some("t is not a number")),
            ("{type: coarsen, field: n, first: 2}", Some("n is not a text")),
            ("{type: delay, field: n, for: 2d}", Some("n is not a time")),
            ("{type: delay, field: t, for: 2d}", None),
            ("{type: aggregate, group_by: [{n: day}], min_group: 9}", Some("n is not a time")),
            ("{type: mask, fields: [id]}", Some("order")),
        ] {
            let clause = C.replace("query, insert", "query").replace("purp:x", &format!("purp:x, duties: [{duty}]"));
            let found = lint_types(&Agreement::parse(&court(&clause)).unwrap(), &dataset);
            assert_eq!(found.len(), usize::from(wrong.is_some()), "{duty}: {found:?}");
            assert!(wrong.is_none_or(|w| found[0].text.contains(w)), "{duty}: {found:?}");
        }
    }
}
