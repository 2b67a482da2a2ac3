//! Queries for totals under a clause: which groups it gives, and to whom a row may not be told from the others.
//!
//! A clause with the duty `aggregate` gives the number of rows of its own groups and nothing else. What an application may
//! still choose is *which* of these groups it sees: its filter may never cut one in two. So every answer is a part of one
//! table, and no two answers can be subtracted to find a smaller group. Under another clause totals are made of what the
//! clause shows anyway; there a filter may be anything that its rows could be asked with.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

use crate::decide::{Permitted, denied, fulfil, lacking};
use crate::holding::Row;
use crate::limits::{DEFAULT_MIN_GROUP, DEFAULT_PAGE_ROWS};
use crate::query::totals::{Cut, GroupKey, Groups, Totals, TotalsQuery};
use crate::query::value::{Scalar, timestamp_nanos};
use crate::query::{Cond, Fields, Filter, Op, Order, Query};
use crate::subjects::SubjectField;
use concordat_policies::ask::Grant;
use concordat_policies::duty::{self, Duty};
use concordat_policies::view::View;
use concordat_protocol::codes;
use concordat_protocol::session::{Denied, Request};
use serde_json::Value;

/// The word of denials that come from the duty.
const REASON: &str = "aggregate";

/// Whether a query is one for totals.
#[must_use]
pub fn asked(query: &Value) -> bool {
    query.get("aggregate").is_some()
}

/// The filter of a query of either kind, for marking whom it names.
#[must_use]
pub fn asked_filter(query: &Value, fields: &Fields) -> Option<Filter> {
    if asked(query) {
        return TotalsQuery::parse(query, fields).ok().map(|q| q.filter);
    }
    Query::parse(query, fields).ok().map(|q| q.filter)
}

/// The groups of a clause with the duty, if it has it.
fn own_groups<'a>(grant: &'a Grant, fields: &Fields) -> Option<(Vec<GroupKey>, u64, &'a [duty::GroupKey])> {
    grant.duties.iter().find_map(|d| match d {
        Duty::Aggregate { group_by, min_group } => Some((group_keys(group_by, fields), *min_group, &group_by[..])),
        _ => None,
    })
}

/// The keys of a duty over a dataset's fields. A time that stands there in two units is grouped by the smaller one: that
/// is the same groups.
fn group_keys(group_by: &[duty::GroupKey], fields: &Fields) -> Vec<GroupKey> {
    let mut keys: Vec<GroupKey> = Vec::new();
    for g in group_by {
        let Some(ty) = fields.get(&g.field) else { continue };
        let cut = g.cut.map(|c| match c {
            duty::Cut::Hour => Cut::Hour,
            duty::Cut::Day => Cut::Day,
            duty::Cut::Month => Cut::Month,
            duty::Cut::Year => Cut::Year,
        });
        match keys.iter_mut().find(|k| k.field == g.field) {
            Some(known) => known.cut = finer(known.cut, cut),
            None => keys.push(GroupKey { field: g.field.clone(), ty, cut }),
        }
    }
    keys
}

fn finer(a: Option<Cut>, b: Option<Cut>) -> Option<Cut> {
    let rank = |c: Option<Cut>| match c {
        None => 0,
        Some(Cut::Hour) => 1,
        Some(Cut::Day) => 2,
        Some(Cut::Month) => 3,
        Some(Cut::Year) => 4,
    };
    if rank(a) <= rank(b) { a } else { b }
}

/// The totals that a duty gives of a dataset whose rows belong to these subjects.
#[must_use]
pub fn of_duty(group_by: &[duty::GroupKey], min_group: u64, fields: &Fields, subject: Option<&SubjectField>) -> Totals {
    let by = group_keys(group_by, fields);
    guarded(Totals { by, sum: vec![], mean: vec![], min_group, persons: None }, subject)
}

/// Totals over rows that belong to persons: as many different ones as rows, and five at least, so that none of them is
/// told of one by one.
#[must_use]
pub fn guarded(totals: Totals, subject: Option<&SubjectField>) -> Totals {
    match subject {
        None => totals,
        Some(s) => {
            let min_group = totals.min_group.max(DEFAULT_MIN_GROUP);
            Totals { min_group, ..totals }.of_persons(&s.name, s.ty)
        }
    }
}

/// An answer as rows, in the order of their labels. That groups were left out is not told: else a filter that fits one
/// person would be a question about that person.
#[must_use]
pub fn rows(groups: &Groups) -> Vec<Row> {
    groups.groups.iter().map(|g| Row { key: String::new(), doc: g.to_row() }).collect()
}

/// Denies rows under a clause that gives totals alone.
pub(crate) fn refuse_rows(grant: &Grant) -> Result<(), Denied> {
    let Some(Duty::Aggregate { group_by, min_group }) =
        grant.duties.iter().find(|d| matches!(d, Duty::Aggregate { .. }))
    else {
        return Ok(());
    };
    let detail = format!(
        "the clause gives totals by {}, of {min_group} rows at least, and no rows: ask with {{\"aggregate\": {{}}}}",
        words(group_by)
    );
    Err(lacking(grant, "a query for totals".into(), REASON, detail))
}

fn words(group_by: &[duty::GroupKey]) -> String {
    group_by.iter().map(duty::GroupKey::words).collect::<Vec<_>>().join(" and ")
}

/// Plans a query for totals that a clause permits.
pub(crate) fn plan(
    grant: Grant,
    view: View,
    request: &Request,
    query: &Value,
    fields: &Fields,
    tick_ms: u64,
) -> Result<Permitted, Denied> {
    let bad_query = |e: crate::query::QueryError| denied(codes::BAD_VALUE, e.code(), e.to_string());
    let TotalsQuery { dataset, filter, totals } = TotalsQuery::parse(query, fields).map_err(bad_query)?;
    if dataset != request.dataset.as_str() {
        return Err(denied(codes::BAD_VALUE, "bad-query", "dataset: the query names another dataset than the request"));
    }
    let totals = match own_groups(&grant, fields) {
        Some((own, min_group, names)) => {
            let missing = |what: String, detail: String| lacking(&grant, what, REASON, detail);
            if let Some(gone) = names.iter().find(|g| fields.get(&g.field).is_none()) {
                // By fewer fields the groups would be other ones than were agreed.
                let detail = format!("the clause groups by {}, which this dataset has not", gone.field);
                return Err(missing(format!("a dataset with the field {}", gone.field), detail));
            }
            narrowed(totals, own, min_group, names, &filter, missing)?
        }
        None => totals,
    };
    if let Some(altered) = view.altered().find(|f| totals.fields().contains(f)) {
        let detail = format!("the clause shows {altered} altered: it gives no totals of it");
        return Err(lacking(&grant, format!("totals without {altered}"), "altered-field", detail));
    }
    // What is told of a field is told of the values behind it: it must be open.
    let select = Some(totals.fields().into_iter().map(str::to_owned).collect());
    let asked = filter.clone();
    let query = Query { dataset, filter, select, order: Order::Key, limit: DEFAULT_PAGE_ROWS };
    let plan = fulfil(&grant, &view, query, fields, tick_ms)?;
    Ok(Permitted { grant, plan, asked, view, totals: Some(totals) })
}

/// Totals as the duty gives them: its groups, counted, chosen by a filter that cuts none of them.
fn narrowed(
    asked: Totals,
    own: Vec<GroupKey>,
    min_group: u64,
    names: &[duty::GroupKey],
    filter: &Filter,
    missing: impl Fn(String, String) -> Denied,
) -> Result<Totals, Denied> {
    if let Some(field) = asked.numbers().first() {
        let detail = format!("the clause gives the number of rows of each group: leave {field} out of sum and mean");
        return Err(missing("totals without sums and means".into(), detail));
    }
    let same = asked.by.len() == own.len() && asked.by.iter().all(|k| own.contains(k));
    if !asked.by.is_empty() && !same {
        let detail = format!("the clause gives totals by {}: leave `by` out, or name just these", words(names));
        return Err(missing(format!("totals by {}", words(names)), detail));
    }
    if let Some(cond) = filter.conditions().into_iter().find(|c| !chooses(c, &own)) {
        let detail = format!(
            "the filter may choose among the groups by {}, and not cut one: the condition on {} would; a time is chosen by \
             whole units in UTC, like {{\"time\": {{\"time\": \"2017-03\"}}}}",
            words(names),
            cond.field
        );
        return Err(missing(format!("a filter on {} that cuts no group", words(names)), detail));
    }
    // The order asked for is the order of the answer.
    let by = if asked.by.is_empty() { own } else { asked.by };
    Ok(Totals { by, min_group: asked.min_group.max(min_group), ..asked })
}

/// Whether a condition holds for all rows of a group or for none.
fn chooses(cond: &Cond, by: &[GroupKey]) -> bool {
    let key = |field: &str| by.iter().find(|k| k.field == field);
    let Some(own) = key(&cond.field) else { return false };
    match (&cond.op, own.cut) {
        (Op::Near(near), None) => key(&near.lon).is_some_and(|k| k.cut.is_none()),
        (_, None) | (Op::Exists(_), Some(_)) => true,
        (Op::Range { from, to }, Some(cut)) => [from, to].into_iter().flatten().all(|s| begins(cut, s)),
        (_, Some(_)) => false,
    }
}

/// Whether an instant is the first of its unit.
fn begins(cut: Cut, at: &Scalar) -> bool {
    let unit = |nanos: i64| cut.of(nanos);
    let nanos = at.value().as_str().and_then(timestamp_nanos);
    nanos.is_some_and(|n| n.checked_sub(1).is_none_or(|before| unit(before) != unit(n)))
}

#[cfg(test)]
#[path = "decide_totals_tests.rs"]
mod tests;
