//! Totals by group in one statement.

use tokio_postgres::types::Type;

use super::{Column, Kind, Layout, Statement, cell, greatest, least};
use crate::holding::DatasetSpec;
use crate::limits::MAX_GROUPS;
use crate::query::Filter;
use crate::query::totals::{Cut, GroupKey, Totals};

/// Totals: each group's labels as text, its rows, and of each number how many rows have one and their sum. Groups that
/// are large enough come first.
pub(in crate::holding::postgres) fn totals(
    layout: &Layout,
    spec: &DatasetSpec,
    filter: &Filter,
    totals: &Totals,
) -> Statement {
    let labels: Vec<String> = totals.by.iter().map(|k| label(layout, k)).collect();
    let numbers = totals.numbers();
    let mut s = Statement::default();
    s.text.push_str("SELECT ");
    labels.iter().for_each(|l| s.text.push_str(&format!("({l})::text, ")));
    s.text.push_str("count(*)");
    for column in numbers.iter().filter_map(|n| layout.columns.get(*n)) {
        let number = valued(column, &column.name, layout.own);
        s.text.push_str(&format!(", count({number}), sum(({number})::numeric)::text"));
    }
    s.text.push_str(&format!(" FROM {} WHERE ", layout.table));
    s.filter(layout, filter);
    s.keyed(layout, spec);
    if !labels.is_empty() {
        let all: Vec<String> = labels.iter().map(|l| format!("({l})")).collect();
        s.text.push_str(&format!(" GROUP BY {}", all.join(", ")));
    }
    s.text.push_str(" ORDER BY count(*) >= ");
    s.bind(Box::new(i64::try_from(totals.min_group).unwrap_or(i64::MAX)), Type::INT8);
    s.text.push_str(" DESC LIMIT ");
    s.bind(Box::new(MAX_GROUPS as i64 + 1), Type::INT8);
    s
}

fn label(layout: &Layout, key: &GroupKey) -> String {
    let Some(column) = layout.columns.get(&key.field) else { return "NULL::text".into() };
    let name = &column.name;
    let Some(cut) = key.cut else {
        let text = match column.kind {
            Kind::Instant => cell(column),
            // A number has one text whatever its zeros: only then are equal ones one group.
            Kind::Decimal | Kind::Integer | Kind::Nanos | Kind::Boolean => name.clone(),
            Kind::Text => format!("{name} COLLATE \"C\""),
        };
        return valued(column, &text, layout.own);
    };
    let civil = match column.kind {
        // Whole seconds: the product is made of binary numbers, which microseconds of far years do not fit.
        Kind::Nanos => {
            format!(
                "(timestamp 'epoch' + ({name} / 1000000000 - CASE WHEN {name} % 1000000000 < 0 THEN 1 ELSE 0 END) \
                 * interval '1 second')"
            )
        }
        _ => format!("{name} AT TIME ZONE 'UTC'"),
    };
    let form = match cut {
        Cut::Hour => "YYYY-MM-DD\"T\"HH24",
        Cut::Day => "YYYY-MM-DD",
        Cut::Month => "YYYY-MM",
        Cut::Year => "YYYY",
    };
    valued(column, &format!("to_char({civil}, '{form}')"), layout.own)
}

/// An expression over a column where the column has a value of our type, else NULL.
fn valued(column: &Column, expression: &str, own: bool) -> String {
    if own {
        return expression.to_owned();
    }
    format!("CASE WHEN {} AND {} THEN {expression} END", least(column, own), greatest(column, own))
}
