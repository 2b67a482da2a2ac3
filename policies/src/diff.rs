//! What changes from one document to another, clause by clause, and which way: more is given, less, or something else.

use crate::document::{Agreement, Clause, Who};
use crate::duty::{Duty, DutyKind};
use crate::time::utc_text;
use concordat_protocol::terms::Evidence;
use serde::Serialize;
use std::collections::BTreeSet;

/// Which way a change goes, for the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// More is given.
    More,
    /// Less is given.
    Less,
    /// Neither, or it cannot be told.
    Other,
}

impl Way {
    fn turned(self) -> Self {
        match self {
            Self::More => Self::Less,
            Self::Less => Self::More,
            Self::Other => Self::Other,
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The clause; none: of the document as a whole.
    pub clause: Option<String>,
    /// Which term: `text`, `actions`, `quota`, ...; `clause` for a whole one.
    pub term: String,
    /// What it was; none: it was not there.
    pub before: Option<String>,
    /// What it is; none: it is gone.
    pub after: Option<String>,
    /// Which way.
    pub way: Way,
}

/// Every change from `before` to `after`. Empty exactly where the two say the same (comments and layout aside).
pub fn diff(before: &Agreement, after: &Agreement) -> Vec<Change> {
    let mut out = whole(before, after);
    for old in &before.clauses {
        match after.clause(&old.id) {
            Some(new) => out.extend(clause(old, new)),
            None => out.push(gone_or_new(old, true)),
        }
    }
    out.extend(after.clauses.iter().filter(|c| before.clause(&c.id).is_none()).map(|c| gone_or_new(c, false)));
    let order = |d: &Agreement| d.clauses.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
    let both = |d: &Agreement, o: &Agreement| {
        order(d).into_iter().filter(|id| o.clause(id).is_some()).collect::<Vec<_>>().join(", ")
    };
    term(&mut out, None, "order of clauses", &both(before, after), &both(after, before), Way::Other);
    out
}

/// The changes that a renewal may not make: all but those of dates and papers. The ledger sees hashes only and cannot tell,
/// so whoever proposes or approves new dates compares the documents.
pub fn beyond_renewal(before: &Agreement, after: &Agreement) -> Vec<Change> {
    let dates = |c: &Change| matches!(c.term.as_str(), "valid" | "paper");
    diff(before, after).into_iter().filter(|c| !dates(c)).collect()
}

fn gone_or_new(c: &Clause, gone: bool) -> Change {
    let way = if c.grants() == gone { Way::Less } else { Way::More };
    let said = Some(format!("{} \"{}\"", c.effect, c.text));
    let (before, after) = if gone { (said, None) } else { (None, said) };
    Change { clause: Some(c.id.clone()), term: "clause".to_owned(), before, after, way }
}

fn term(out: &mut Vec<Change>, clause: Option<&str>, name: &str, before: &str, after: &str, way: Way) {
    if before != after {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let clause = clause.map(str::to_owned);
        out.push(Change { clause, term: name.to_owned(), before: some(before), after: some(after), way });
    }
}

fn window(c: &crate::document::Window) -> String {
    let text = |ms| utc_text(ms).unwrap_or_default();
    format!("{} to {}", text(c.from_ms), text(c.until_ms))
}

/// More if the second holds all of the first, less the other way round.
fn by_cover(more: bool, less: bool) -> Way {
    match (more, less) {
        (true, false) => Way::More,
        (false, true) => Way::Less,
        _ => Way::Other,
    }
}

fn whole(a: &Agreement, b: &Agreement) -> Vec<Change> {
    let mut out = Vec::new();
    let paper = |d: &Agreement| {
        d.paper.as_ref().map_or_else(String::new, |p| format!("{} ({})", p.title, hex::encode(p.sha256)))
    };
    let party = |d: &Agreement| d.assignee.as_ref().map_or_else(|| "any".to_owned(), |x| x.org());
    let to_any = by_cover(b.is_public(), a.is_public());
    let span = by_cover(b.valid.covers(&a.valid), a.valid.covers(&b.valid));
    let prevails = |d: &Agreement| d.prevails.clone().unwrap_or_default();
    for (name, old, new, way) in [
        ("agreement", a.agreement.to_string(), b.agreement.to_string(), Way::Other),
        ("version", a.version.to_string(), b.version.to_string(), Way::Other),
        ("paper", paper(a), paper(b), Way::Other),
        ("assigner", a.assigner.org(), b.assigner.org(), Way::Other),
        ("assignee", party(a), party(b), to_any),
        ("target", a.target.to_string(), b.target.to_string(), Way::Other),
        ("valid", window(&a.valid), window(&b.valid), span),
        ("approvals.assigner", a.assigner_roles.join(", "), b.assigner_roles.join(", "), Way::Other),
        ("approvals.assignee", a.assignee_roles.join(", "), b.assignee_roles.join(", "), Way::Other),
        ("prevails", prevails(a), prevails(b), Way::Other),
    ] {
        term(&mut out, None, name, &old, &new, way);
    }
    out
}

fn clause(a: &Clause, b: &Clause) -> Vec<Change> {
    let mut out = Vec::new();
    let id = Some(a.id.as_str());
    let effect = by_cover(b.grants() && !a.grants(), a.grants() && !b.grants());
    term(&mut out, id, "effect", a.effect.word(), b.effect.word(), effect);
    let actions = |c: &Clause| c.actions.iter().map(|x| x.word()).collect::<Vec<_>>().join(", ");
    let (old, new) = (a.action_bits(), b.action_bits());
    term(&mut out, id, "actions", &actions(a), &actions(b), by_cover(old & !new == 0, new & !old == 0));
    term(
        &mut out,
        id,
        "assignee",
        &people(&a.who),
        &people(&b.who),
        by_cover(within(&a.who, &b.who), within(&b.who, &a.who)),
    );
    let purpose = |c: &Clause| c.purpose.clone().unwrap_or_else(|| "any".to_owned());
    term(&mut out, id, "purpose", &purpose(a), &purpose(b), by_cover(b.purpose.is_none(), a.purpose.is_none()));
    let span = by_cover(b.valid.covers(&a.valid), a.valid.covers(&b.valid));
    term(&mut out, id, "valid", &window(&a.valid), &window(&b.valid), span);
    duties(&mut out, a, b);
    if !(a.grants() && b.grants()) {
        // What a prohibition covers is taken from the consumer.
        out.iter_mut().filter(|c| c.term != "effect").for_each(|c| c.way = c.way.turned());
    }
    term(&mut out, id, "evidence", &evidence(&a.evidence), &evidence(&b.evidence), Way::Other);
    for (name, old, new) in [("text", texts(a), texts(b)), ("legal_basis", bases(a), bases(b))] {
        let languages: BTreeSet<&String> = old.iter().chain(&new).map(|(l, _)| l).collect();
        for l in languages {
            let of = |all: &[(String, String)]| {
                all.iter().find(|(x, _)| x == l).map_or_else(String::new, |(_, t)| t.clone())
            };
            let name = if l.is_empty() { name.to_owned() } else { format!("{name}.{l}") };
            term(&mut out, id, &name, &of(&old), &of(&new), Way::Other);
        }
    }
    out
}

fn texts(c: &Clause) -> Vec<(String, String)> {
    match c.texts.is_empty() {
        true => vec![(String::new(), c.text.clone())],
        false => c.texts.clone().into_iter().collect(),
    }
}

fn bases(c: &Clause) -> Vec<(String, String)> {
    match c.legal_bases.is_empty() {
        true => vec![(String::new(), c.legal_basis.clone().unwrap_or_default())],
        false => c.legal_bases.clone().into_iter().collect(),
    }
}

fn people(w: &Who) -> String {
    match w {
        Who::Any => "any".to_owned(),
        Who::Org { org, role: None } => org.org(),
        Who::Org { org, role: Some(r) } => format!("{} {r}", org.org()),
    }
}

/// Whether `b` speaks of everybody of whom `a` speaks.
fn within(a: &Who, b: &Who) -> bool {
    match (a, b) {
        (_, Who::Any) => true,
        (Who::Any, _) => false,
        (Who::Org { org, role }, Who::Org { org: o, role: r }) => org == o && (r.is_none() || r == role),
    }
}

fn evidence(e: &Evidence) -> String {
    match e {
        Evidence::None {} => "none".to_owned(),
        Evidence::Strict {} => "strict".to_owned(),
        Evidence::Bounded { max_lag_ms } => format!("bounded, {}", crate::time::duration_text(*max_lag_ms)),
    }
}

/// Duties are compared kind by kind; those that may stand several times, as they are.
fn duties(out: &mut Vec<Change>, a: &Clause, b: &Clause) {
    let id = Some(a.id.as_str());
    for kind in DutyKind::ALL {
        let of = |c: &Clause| c.duties.iter().filter(|d| d.kind() == *kind).cloned().collect::<Vec<_>>();
        let (mut old, mut new) = (of(a), of(b));
        let same: Vec<Duty> = old.iter().filter(|d| new.contains(d)).cloned().collect();
        old.retain(|d| !same.contains(d));
        new.retain(|d| !same.contains(d));
        match (old.as_slice(), new.as_slice()) {
            ([o], [n]) => term(out, id, kind.word(), &o.sentence(), &n.sentence(), way(o, n)),
            (old, new) => {
                let binds =
                    |way| if matches!(kind, DutyKind::SealAccess | DutyKind::Notify) { Way::Other } else { way };
                old.iter().for_each(|o| term(out, id, kind.word(), &o.sentence(), "", binds(Way::More)));
                new.iter().for_each(|n| term(out, id, kind.word(), "", &n.sentence(), binds(Way::Less)));
            }
        }
    }
}

/// Which way a changed duty goes.
fn way(old: &Duty, new: &Duty) -> Way {
    let rising = |a: u64, b: u64| by_cover(b > a, a > b);
    let sets = |a: &[String], b: &[String]| by_cover(a.iter().all(|x| b.contains(x)), b.iter().all(|x| a.contains(x)));
    match (old, new) {
        (Duty::Fields { allow: a }, Duty::Fields { allow: b }) => sets(a, b),
        (Duty::RequireFilter { any_of: a }, Duty::RequireFilter { any_of: b }) => {
            by_cover(a.iter().all(|x| b.contains(x)), b.iter().all(|x| a.contains(x)))
        }
        (Duty::Quota { max: a, per: p, by: y, unit: u }, Duty::Quota { max: b, per: q, by: z, unit: v })
            if (p, y, u) == (q, z, v) =>
        {
            rising(*a, *b)
        }
        (Duty::Aggregate { group_by: g, min_group: a }, Duty::Aggregate { group_by: h, min_group: b }) if g == h => {
            rising(*b, *a)
        }
        (Duty::Mask { fields: f, keep_last: a }, Duty::Mask { fields: g, keep_last: b }) if f == g => rising(*a, *b),
        (Duty::Mask { fields: a, keep_last: k }, Duty::Mask { fields: b, keep_last: l }) if k == l => sets(b, a),
        (Duty::Retention { keep_ms: a }, Duty::Retention { keep_ms: b }) => rising(*a, *b),
        (Duty::Delay { field: f, for_ms: a }, Duty::Delay { field: g, for_ms: b }) if f == g => rising(*b, *a),
        (Duty::StepUp { level: l, within_ms: a }, Duty::StepUp { level: m, within_ms: b }) if l == m => rising(*a, *b),
        _ => Way::Other,
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
