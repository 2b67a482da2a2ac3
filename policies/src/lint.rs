//! What a document may say but people should think twice about.

use crate::dataset::DatasetDoc;
use crate::document::{Agreement, Clause, Who};
use crate::duty::{Capabilities, Duty, DutyKind};
use crate::yaml::{Pos, nearest};
use concordat_protocol::terms::{Action, Effect};
use serde::Serialize;
use std::collections::BTreeMap;

/// Validity above which a review date is advised, milliseconds (two years).
const LONG_VALIDITY_MS: u64 = 2 * 366 * 86_400_000;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Should be changed or explained.
    Warning,
    /// Will not work, or gives away more than anybody meant: do not sign.
    Error,
}

/// One thing the linter found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How serious.
    pub severity: Severity,
    /// Stable word for the rule.
    pub rule: &'static str,
    /// The clause, if it is about one.
    pub clause: Option<String>,
    /// Where.
    pub at: Pos,
    /// What, and what to do.
    pub text: String,
}

/// The fields of a dataset; `Some(kind)` marks a sensitive one (`identifier`, `exact-location`, ...).
pub type FieldMap = BTreeMap<String, Option<String>>;

/// The fields of a dataset document, for [`lint_fields`].
pub fn field_map(dataset: &DatasetDoc) -> FieldMap {
    dataset.fields().iter().map(|f| (f.name.clone(), f.sensitive.clone())).collect()
}

/// Looks over a document by itself, for the executor of today.
pub fn lint(doc: &Agreement) -> Vec<Finding> {
    let mut out = Vec::new();
    let top = Pos { line: 1, column: 1 };
    let mut say =
        |severity, rule, text: &str| out.push(Finding { severity, rule, clause: None, at: top, text: text.to_owned() });
    if doc.paper.is_none() && !doc.is_public() {
        say(Severity::Warning, "no-paper", "no paper is named: add paper: {title, sha256} of what was signed");
    }
    if doc.valid.until_ms - doc.valid.from_ms > LONG_VALIDITY_MS {
        say(
            Severity::Warning,
            "long-validity",
            "it holds for more than two years: choose an end at which somebody looks again",
        );
    }
    if doc.assigner_roles.len() == 1 {
        say(Severity::Note, "one-approval", "one approval suffices for the provider: consider a second role");
    }
    let able = Capabilities::default();
    for c in doc.clauses.iter().filter(|c| c.grants()) {
        out.extend(lint_clause(c, &able, doc.is_public()));
    }
    out.extend(overlaps(doc));
    out.extend(crate::lint_whole::cut_by_prohibitions(doc));
    out
}

pub(crate) fn finding(severity: Severity, rule: &'static str, c: &Clause, text: String) -> Finding {
    Finding { severity, rule, clause: Some(c.id.clone()), at: c.at, text }
}

fn lint_clause(c: &Clause, able: &Capabilities, public: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let has = |k: DutyKind| c.duties.iter().any(|d| d.kind() == k);
    if let Some(k) = able.first_missing_of(c) {
        let text = format!("no executor of this release fulfils the duty {k}: every request under {} is denied", c.id);
        out.push(finding(Severity::Warning, "unfulfillable-duty", c, text));
    }
    let reads = c.actions.iter().any(|a| matches!(a, Action::Query | Action::Subscribe));
    if reads && !public && !has(DutyKind::Fields) && !has(DutyKind::Aggregate) {
        out.push(finding(
            Severity::Warning,
            "all-fields",
            c,
            "every field is visible: name those needed in a fields duty".to_owned(),
        ));
    }
    if c.effect == Effect::Permit
        && c.actions.contains(&Action::Query)
        && !public
        && !has(DutyKind::Quota)
        && !has(DutyKind::Aggregate)
    {
        out.push(finding(Severity::Note, "no-quota", c, "no quota: a stolen session may read without end".to_owned()));
    }
    if c.effect == Effect::Permit && !public && c.legal_basis.is_none() {
        out.push(finding(Severity::Note, "no-legal-basis", c, "no legal basis is named".to_owned()));
    }
    if let Some(sealed) = c.duties.iter().find(|d| d.kind() == DutyKind::SealAccess) {
        out.push(finding(Severity::Note, "sealed-access", c, sealed.sentence()));
    }
    if let Some(allow) = allowed(c) {
        for f in c.duties.iter().flat_map(Duty::altered).filter(|f| !allow.iter().any(|a| a == f)) {
            let text = format!("{f} is altered but not among the visible fields: it is hidden anyway");
            out.push(finding(Severity::Note, "altered-hidden", c, text));
        }
    }
    if let Some(Duty::Aggregate { min_group, .. }) =
        c.duties.iter().find(|d| matches!(d, Duty::Aggregate { min_group, .. } if *min_group < crate::uniqueness::FEW))
    {
        let text = format!("groups of {min_group} tell of single people to whoever knows the others: use 10 or more");
        out.push(finding(Severity::Warning, "small-groups", c, text));
    }
    if let (Some(allow), Some(needs)) = (allowed(c), needs(c)) {
        for n in needs.iter().filter(|n| !allow.contains(n)) {
            let text = format!(
                "requests must name {n}, which is not among the visible fields: a filter can tell what it hides"
            );
            out.push(finding(Severity::Warning, "filter-on-hidden", c, text));
        }
    }
    out
}

pub(crate) fn allowed(c: &Clause) -> Option<&[String]> {
    c.duties.iter().find_map(|d| if let Duty::Fields { allow } = d { Some(allow.as_slice()) } else { None })
}

fn needs(c: &Clause) -> Option<Vec<&String>> {
    c.duties.iter().find_map(|d| {
        if let Duty::RequireFilter { any_of } = d { Some(any_of.iter().map(|n| &n.field).collect()) } else { None }
    })
}

/// Pairs of clauses that match the same request, so that it must name one.
fn overlaps(doc: &Agreement) -> Vec<Finding> {
    let grants: Vec<&Clause> = doc.clauses.iter().filter(|c| c.grants()).collect();
    let mut out = Vec::new();
    for (i, a) in grants.iter().enumerate() {
        for b in &grants[i + 1..] {
            let together = a.effect == b.effect
                && a.actions.iter().any(|x| b.actions.contains(x))
                && (a.purpose.is_none() || b.purpose.is_none() || a.purpose == b.purpose)
                && same_people(&a.who, &b.who)
                && a.valid.from_ms < b.valid.until_ms
                && b.valid.from_ms < a.valid.until_ms;
            if together {
                let text = format!("{} and {} match the same requests: each request must name one of them", a.id, b.id);
                out.push(finding(Severity::Warning, "overlap", b, text));
            }
        }
    }
    out
}

pub(crate) fn same_people(a: &Who, b: &Who) -> bool {
    match (a, b) {
        (Who::Org { org: o1, role: r1 }, Who::Org { org: o2, role: r2 }) => {
            o1 == o2 && (r1.is_none() || r2.is_none() || r1 == r2)
        }
        _ => true,
    }
}

/// Checks a document against the dataset's fields: unknown names are errors with the nearest known one, and a sensitive
/// field that a clause shows is an error too (in an override, a warning).
pub fn lint_fields(doc: &Agreement, fields: &FieldMap) -> Vec<Finding> {
    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
    let mut out = Vec::new();
    for c in doc.clauses.iter().filter(|c| c.grants()) {
        for name in c.duties.iter().flat_map(Duty::field_names).filter(|n| !fields.contains_key(*n)) {
            let near = nearest(name, &known).map_or_else(String::new, |n| format!("; did you mean \"{n}\"?"));
            let text = format!("{} has no field \"{name}\" (known: {}){near}", doc.target, known.join(", "));
            out.push(finding(Severity::Error, "unknown-field", c, text));
        }
        if c.duties.iter().any(|d| d.kind() == DutyKind::Aggregate) {
            continue;
        }
        let altered: Vec<&str> = c.duties.iter().flat_map(Duty::altered).collect();
        let plain = |n: &&String| !altered.contains(&n.as_str());
        for (name, kind) in fields.iter().filter_map(|(n, k)| k.as_ref().map(|k| (n, k))).filter(|(n, _)| plain(n)) {
            if allowed(c).is_none_or(|a| a.contains(name)) {
                // An override may have to show everything; it is explained, told and reviewed.
                let severity = if c.effect == Effect::BreakGlass { Severity::Warning } else { Severity::Error };
                let text = format!(
                    "the sensitive field {name} ({kind}) is visible: leave it out of a fields duty, or mask, pseudonymise or coarsen it"
                );
                out.push(finding(severity, "sensitive-visible", c, text));
            }
        }
    }
    out
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
