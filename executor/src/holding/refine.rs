//! What no store does alike is done here: the store narrows to a superset, the one evaluator decides.

use std::collections::BTreeMap;
use std::time::Instant;

use super::page::Page;
use super::{Holding, checks};
use super::{HoldingError, Plan, Row, Rows};
use crate::limits::{MAX_GROUPS, MAX_PAGE_ROWS, MAX_REFINED_GROUPS, MAX_REFINED_ROWS, STATEMENT_TIMEOUT};
use crate::query::{Filter, Groups, Totals};

/// One page of the rows that match.
pub(super) fn query<H: Holding + ?Sized>(holding: &H, plan: &Plan) -> Result<Rows, HoldingError> {
    if plan.filter.is_exact() {
        return holding.page(plan);
    }
    let mut page = Page::new(plan.limit);
    let select = plan.select.as_deref();
    each(holding, plan, |row| {
        let mut row = row;
        if let Some(names) = select {
            // As the store does it: in the order asked.
            row.doc = names.iter().filter_map(|n| Some((n.clone(), row.doc.remove(n)?))).collect();
        }
        let size = size(&row);
        matches!(page.take(|| Ok((row, size))), Ok(true))
    })?;
    Ok(page.done(None))
}

/// How many rows match.
pub(super) fn count<H: Holding + ?Sized>(holding: &H, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
    if filter.is_exact() {
        return holding.tally(dataset, filter);
    }
    let mut n = 0;
    let plan = Plan { select: Some(Vec::new()), ..Plan::new(dataset, filter.clone()) };
    each(holding, &plan, |_| {
        n += 1;
        true
    })?;
    Ok(n)
}

/// Totals by the store where it can decide every row, else here.
pub(super) fn aggregate<H: Holding + ?Sized>(
    holding: &H,
    dataset: &str,
    filter: &Filter,
    totals: &Totals,
) -> Result<Groups, HoldingError> {
    let spec = holding.spec(dataset)?;
    let names: Vec<String> = totals.reads().into_iter().map(str::to_owned).collect();
    checks::fields(&spec, filter, &names)?;
    // Different persons are counted here: no store is asked for them.
    let pushed = filter.is_exact() && totals.persons.is_none();
    if pushed { holding.totals(dataset, filter, totals) } else { fold(holding, dataset, filter, totals) }
}

/// Totals added up here, row by row.
pub(super) fn fold<H: Holding + ?Sized>(
    holding: &H,
    dataset: &str,
    filter: &Filter,
    totals: &Totals,
) -> Result<Groups, HoldingError> {
    let select = totals.reads().into_iter().map(str::to_owned).collect();
    let plan = Plan { select: Some(select), ..Plan::new(dataset, filter.clone()) };
    let mut groups = BTreeMap::new();
    let mut too_many = false;
    each(holding, &plan, |row| {
        totals.add(&mut groups, &row.doc);
        // Small ones are left out of the answer, not of the work.
        too_many = groups.len() > MAX_REFINED_GROUPS;
        !too_many
    })?;
    let told = totals.finish(groups);
    if too_many || told.groups.len() > MAX_GROUPS {
        return Err(HoldingError::TooMuch { what: "groups", max: MAX_GROUPS as u64 });
    }
    Ok(told)
}

/// Shows every matching row in order, with what the plan selects and what the filter looks at, until `see` has enough.
pub(super) fn each<H: Holding + ?Sized>(
    holding: &H,
    plan: &Plan,
    mut see: impl FnMut(Row) -> bool,
) -> Result<(), HoldingError> {
    let mut wide = Plan { filter: plan.filter.coarse(), limit: MAX_PAGE_ROWS, ..plan.clone() };
    if let Some(select) = &mut wide.select {
        let more = plan.filter.fields().into_iter().filter(|f| !select.iter().any(|s| s == f));
        let more: Vec<String> = more.map(str::to_owned).collect();
        select.extend(more);
        if select.is_empty() {
            select.extend(holding.spec(&plan.dataset)?.key);
        }
    }
    let mut read = 0;
    let end = Instant::now() + STATEMENT_TIMEOUT;
    loop {
        let page = holding.page(&wide)?;
        let next = page.next_after().map(str::to_owned);
        read += page.rows.len();
        for row in page.rows {
            if plan.filter.matches(&row.doc) && !see(row) {
                return Ok(());
            }
        }
        if next.is_none() {
            return Ok(());
        }
        if read >= MAX_REFINED_ROWS {
            return Err(HoldingError::TooMuch { what: "rows", max: MAX_REFINED_ROWS as u64 });
        }
        if Instant::now() >= end {
            return Err(HoldingError::Timeout);
        }
        wide.after = next;
    }
}

pub(super) fn size(row: &Row) -> usize {
    let cells = row.doc.iter().map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(s) => s.len() + 2,
            other => other.to_string().len(),
        };
        name.len() + value + 4
    });
    row.key.len() + cells.sum::<usize>()
}
