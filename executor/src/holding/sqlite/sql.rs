//! Filters and plans as SQL over a dataset's table `(key, doc, ord)`.
//!
//! Constants are always bound. Names in the text come from checked field names (letters, digits,
//! `_` and `-`) and table numbers only.

use std::collections::BTreeSet;

use rusqlite::types::Value as Sql;

use crate::holding::{DatasetSpec, Plan};
use crate::query::{Cond, FieldType, Filter, Key, Op, Order, after_prefix};

/// SQL text with its parameters in order.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub text: String,
    pub params: Vec<Sql>,
}

/// What is compared: decimals and timestamps by their order keys.
pub(super) fn column(field: &str, ty: FieldType) -> String {
    let source = match ty {
        FieldType::Decimal | FieldType::Timestamp => "ord",
        _ => "doc",
    };
    format!("json_extract({source},'$.\"{field}\"')")
}

/// The page of a plan: key, then each selected field as JSON text (or the whole document); one row
/// more than the limit, to see whether there are more.
pub(super) fn page(table: i64, spec: &DatasetSpec, plan: &Plan) -> Statement {
    let mut s = Statement::default();
    s.text.push_str("SELECT key");
    match &plan.select {
        Some(names) => names.iter().for_each(|n| s.text.push_str(&format!(", doc -> '$.\"{n}\"'"))),
        None => s.text.push_str(", doc"),
    }
    s.text.push_str(&format!(" FROM d{table} WHERE "));
    s.filter(&plan.filter);
    let (sort, comparison) = match plan.order {
        Order::Key => ("ASC", ">"),
        Order::KeyDescending => ("DESC", "<"),
    };
    if let Some(key) = &plan.after {
        s.text.push_str(&format!(" AND key {comparison} "));
        s.bind(Sql::Text(key.clone()));
    }
    // "+key" keeps the planner from walking the whole table in key order where an index narrows.
    let sorted_by = if narrowed(spec, &plan.filter) { "+key" } else { "key" };
    s.text.push_str(&format!(" ORDER BY {sorted_by} {sort} LIMIT "));
    s.bind(Sql::Integer(i64::from(plan.limit) + 1));
    s
}

/// Whether the filter confines the first field of an index.
fn narrowed(spec: &DatasetSpec, filter: &Filter) -> bool {
    filter.conjuncts().iter().any(|part| match part {
        Filter::Cond(c) => {
            let confines = !matches!(c.op, Op::Ne(_) | Op::Exists(_));
            confines && index_lists(spec).iter().any(|list| list.first() == Some(&c.field))
        }
        _ => false,
    })
}

/// The indexes of a dataset's table: as declared, and the key's fields, since filters name fields.
pub(super) fn index_lists(spec: &DatasetSpec) -> BTreeSet<Vec<String>> {
    let mut lists: BTreeSet<Vec<String>> = spec.indexes.iter().cloned().collect();
    if !lists.iter().any(|l| l.first() == spec.key.first()) {
        lists.insert(spec.key.clone());
    }
    lists
}

/// The number of matching rows.
pub(super) fn count(table: i64, filter: &Filter) -> Statement {
    let mut s = Statement { text: format!("SELECT count(*) FROM d{table} WHERE "), params: Vec::new() };
    s.filter(filter);
    s
}

impl Statement {
    fn bind(&mut self, value: Sql) {
        self.text.push('?');
        self.params.push(value);
    }

    // Three-valued SQL stands for our two values: NULL reads as false under AND and OR, and `not`
    // makes it false before it negates.
    fn filter(&mut self, f: &Filter) {
        match f {
            Filter::All => self.text.push('1'),
            Filter::And(parts) => self.joined(parts, " AND ", "1"),
            Filter::Or(parts) => self.joined(parts, " OR ", "0"),
            Filter::Not(part) => {
                self.text.push_str("NOT ifnull((");
                self.filter(part);
                self.text.push_str("),0)");
            }
            Filter::Cond(c) => self.cond(c),
        }
    }

    fn joined(&mut self, parts: &[Filter], word: &str, of_none: &str) {
        if parts.is_empty() {
            self.text.push_str(of_none);
            return;
        }
        self.text.push('(');
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                self.text.push_str(word);
            }
            self.filter(part);
        }
        self.text.push(')');
    }

    fn cond(&mut self, c: &Cond) {
        let column = column(&c.field, c.ty);
        let mut compare = |operator: &str, value: Sql| {
            self.text.push_str(&column);
            self.text.push_str(operator);
            self.bind(value);
        };
        match &c.op {
            Op::Eq(s) => compare(" = ", sql(s.key())),
            Op::Ne(s) => compare(" IS NOT ", sql(s.key())),
            Op::Range { from, to } => {
                let ends = [(" >= ", from), (" < ", to)];
                let mut ends = ends.iter().filter_map(|(o, e)| e.as_ref().map(|s| (o, sql(s.key()))));
                match (ends.next(), ends.next()) {
                    (Some((a, x)), Some((b, y))) => {
                        compare(a, x);
                        self.text.push_str(" AND ");
                        self.text.push_str(&column);
                        self.text.push_str(b);
                        self.bind(y);
                    }
                    (Some((a, x)), None) => compare(a, x),
                    _ => self.text.push_str(&format!("{column} IS NOT NULL")),
                }
            }
            Op::Prefix(p) => {
                compare(" >= ", Sql::Text(p.clone()));
                if let Some(end) = after_prefix(p) {
                    self.text.push_str(" AND ");
                    self.text.push_str(&column);
                    self.text.push_str(" < ");
                    self.bind(Sql::Text(end));
                }
            }
            Op::In(list) => {
                // One parameter whatever the length: the prepared statement is found again.
                let list: Vec<serde_json::Value> = list.iter().map(|s| json(s.key())).collect();
                self.text.push_str(&format!("{column} IN (SELECT value FROM json_each("));
                self.bind(Sql::Text(serde_json::Value::Array(list).to_string()));
                self.text.push_str("))");
            }
            Op::Exists(true) => self.text.push_str(&format!("{column} IS NOT NULL")),
            Op::Exists(false) => self.text.push_str(&format!("{column} IS NULL")),
            // Plans are exact before they reach a store: a condition it cannot decide passes no row.
            Op::Near(_) => self.text.push('0'),
        }
    }
}

fn sql(key: &Key) -> Sql {
    match key {
        Key::Bool(b) => Sql::Integer(i64::from(*b)),
        Key::Int(n) => Sql::Integer(*n),
        Key::Text(t) => Sql::Text(t.clone()),
    }
}

fn json(key: &Key) -> serde_json::Value {
    match key {
        Key::Bool(b) => i64::from(*b).into(),
        Key::Int(n) => (*n).into(),
        Key::Text(t) => t.as_str().into(),
    }
}
