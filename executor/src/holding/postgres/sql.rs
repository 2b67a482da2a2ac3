//! Filters and plans as PostgreSQL's SQL, over our own tables or over an agency's table or view.
//!
//! Constants are always bound, with their types. Names come from checked field names and from the
//! database's own catalogue only, quoted.

mod sums;

pub(super) use sums::totals;

use std::collections::BTreeMap;

use tokio_postgres::types::{ToSql, Type};

use crate::holding::{DatasetSpec, Plan};
use crate::limits::MAX_INTEGER;
use crate::query::value::timestamp_text;
use crate::query::{Cond, FieldType, Filter, Key, Op, Order, Scalar, after_prefix};

/// A bound parameter.
pub(super) type Param = Box<dyn ToSql + Sync + Send>;

/// SQL text with its parameters in order.
#[derive(Default)]
pub(super) struct Statement {
    pub text: String,
    pub params: Vec<(Param, Type)>,
}

/// How a column keeps its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Decimal,
    Boolean,
    /// Nanoseconds since 1970 as a whole number.
    Nanos,
    /// The database's own instant, microseconds.
    Instant,
}

/// One field's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its quoted name.
    pub name: String,
    pub kind: Kind,
}

/// Where a dataset's rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Schema and table, quoted.
    pub table: String,
    /// What gives a row's key text.
    pub key: String,
    pub columns: BTreeMap<String, Column>,
    /// Ours: whole rows are beside the columns as JSON. Otherwise the columns are all there is.
    pub own: bool,
}

/// A quoted name.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The indexes of a dataset's own table: as declared, and the key's fields, since filters name fields.
pub(super) fn index_lists(spec: &DatasetSpec) -> Vec<Vec<String>> {
    let mut lists = spec.indexes.clone();
    if !lists.iter().any(|l| l.first() == spec.key.first()) {
        lists.push(spec.key.clone());
    }
    lists.sort();
    lists.dedup();
    lists
}

/// The page of a plan: the key, then each selected field as text (or the whole row); one row more than the limit.
pub(super) fn page(layout: &Layout, spec: &DatasetSpec, plan: &Plan) -> Statement {
    let mut s = Statement::default();
    s.text.push_str(&format!("SELECT {} AS key", layout.key));
    for cell in cells(layout, spec, plan.select.as_deref()) {
        s.text.push_str(", ");
        s.text.push_str(&cell);
    }
    s.text.push_str(&format!(" FROM {} WHERE ", layout.table));
    s.filter(layout, &plan.filter);
    s.keyed(layout, spec);
    let (sort, comparison) = match plan.order {
        Order::Key => ("ASC", ">"),
        Order::KeyDescending => ("DESC", "<"),
    };
    if let Some(key) = &plan.after {
        s.text.push_str(&format!(" AND {} {comparison} ", layout.key));
        s.bind(Box::new(key.clone()), Type::TEXT);
    }
    // An expression keeps the planner from walking the whole table in key order where an index narrows.
    let sorted_by = if narrowed(spec, &plan.filter) { format!("({} || '')", layout.key) } else { layout.key.clone() };
    s.text.push_str(&format!(" ORDER BY {sorted_by} {sort} LIMIT "));
    s.bind(Box::new(i64::from(plan.limit) + 1), Type::INT8);
    s
}

/// The number of matching rows.
pub(super) fn count(layout: &Layout, spec: &DatasetSpec, filter: &Filter) -> Statement {
    let mut s = Statement { text: format!("SELECT count(*) FROM {} WHERE ", layout.table), params: Vec::new() };
    s.filter(layout, filter);
    s.keyed(layout, spec);
    s
}

/// What is read of a row, each as text.
pub(super) fn cells(layout: &Layout, spec: &DatasetSpec, select: Option<&[String]>) -> Vec<String> {
    let every = || spec.fields.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
    match (layout.own, select) {
        (true, None) => vec!["doc::text".to_owned()],
        (true, Some(names)) => names.iter().map(|n| format!("(doc -> '{n}')::text")).collect(),
        (false, names) => {
            let names = names.map_or_else(every, <[String]>::to_vec);
            names.iter().map(|n| layout.columns.get(n).map_or_else(|| "NULL::text".to_owned(), cell)).collect()
        }
    }
}

fn cell(column: &Column) -> String {
    match column.kind {
        Kind::Instant => format!("to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')", column.name),
        _ => format!("{}::text", column.name),
    }
}

/// The key text of an agency's own rows: as [`crate::holding::key_text`] writes it.
pub(super) fn key_of(spec: &DatasetSpec, columns: &BTreeMap<String, Column>) -> Option<String> {
    let mut parts = Vec::new();
    for field in &spec.key {
        let column = columns.get(field)?;
        parts.push(match column.kind {
            Kind::Text | Kind::Integer | Kind::Boolean => format!("{}::text", column.name),
            Kind::Instant => {
                let civil = format!("{} AT TIME ZONE 'UTC'", column.name);
                // As our texts of instants: a fraction only where there is one, without trailing zeros.
                format!("to_char({civil}, 'YYYY-MM-DD\"T\"HH24:MI:SS') || rtrim(to_char({civil}, '.US'), '.0') || 'Z'")
            }
            Kind::Decimal | Kind::Nanos => return None,
        });
    }
    let key = match parts.as_slice() {
        [one] => one.clone(),
        several => {
            let escaped = several.iter().map(|p| format!("replace(replace({p}, '\\', '\\\\'), '|', '\\|')"));
            escaped.collect::<Vec<_>>().join(" || '|' || ")
        }
    };
    Some(format!("(({key}) COLLATE \"C\")"))
}

/// Whether the filter confines the first field of an index.
fn narrowed(spec: &DatasetSpec, filter: &Filter) -> bool {
    let lists = index_lists(spec);
    filter.conjuncts().iter().any(|part| match part {
        Filter::Cond(c) => {
            !matches!(c.op, Op::Ne(_) | Op::Exists(_)) && lists.iter().any(|l| l.first() == Some(&c.field))
        }
        _ => false,
    })
}

impl Statement {
    pub(super) fn bind(&mut self, value: Param, ty: Type) {
        self.params.push((value, ty));
        self.text.push_str(&format!("${}", self.params.len()));
    }

    /// An agency's row without a key is no row.
    pub(super) fn keyed(&mut self, layout: &Layout, spec: &DatasetSpec) {
        if !layout.own {
            for column in spec.key.iter().filter_map(|f| layout.columns.get(f)) {
                self.text.push_str(&format!(" AND {} IS NOT NULL", column.name));
            }
        }
    }

    // Three-valued SQL stands for our two values: NULL reads as false under AND and OR, and `not` makes it false before
    // it negates.
    pub(super) fn filter(&mut self, layout: &Layout, f: &Filter) {
        match f {
            Filter::All => self.text.push_str("true"),
            Filter::And(parts) => self.joined(layout, parts, " AND ", "true"),
            Filter::Or(parts) => self.joined(layout, parts, " OR ", "false"),
            Filter::Not(part) => {
                self.text.push_str("NOT coalesce((");
                self.filter(layout, part);
                self.text.push_str("), false)");
            }
            Filter::Cond(c) => match layout.columns.get(&c.field) {
                Some(column) => self.cond(column, c, layout.own),
                None => self.text.push_str("false"),
            },
        }
    }

    fn joined(&mut self, layout: &Layout, parts: &[Filter], word: &str, of_none: &str) {
        if parts.is_empty() {
            self.text.push_str(of_none);
            return;
        }
        self.text.push('(');
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                self.text.push_str(word);
            }
            self.filter(layout, part);
        }
        self.text.push(')');
    }

    fn cond(&mut self, column: &Column, c: &Cond, own: bool) {
        let name = &column.name;
        match &c.op {
            Op::Eq(s) => self.compare(column, "=", s),
            Op::Ne(s) => self.compare(column, "IS DISTINCT FROM", s),
            Op::In(list) => self.one_of(column, list),
            Op::Range { from, to } => {
                self.text.push('(');
                match from {
                    Some(s) => self.compare(column, ">=", s),
                    None => self.text.push_str(&least(column, own)),
                }
                self.text.push_str(" AND ");
                match to {
                    Some(s) => self.compare(column, "<", s),
                    None => self.text.push_str(&greatest(column, own)),
                }
                self.text.push(')');
            }
            Op::Prefix(p) => {
                self.text.push_str(&format!("({name} COLLATE \"C\" >= "));
                self.bind(Box::new(p.clone()), Type::TEXT);
                if let Some(end) = after_prefix(p) {
                    self.text.push_str(&format!(" AND {name} COLLATE \"C\" < "));
                    self.bind(Box::new(end), Type::TEXT);
                }
                self.text.push(')');
            }
            Op::Exists(wanted) => {
                let not = if *wanted { "" } else { "NOT " };
                let (least, greatest) = (least(column, own), greatest(column, own));
                self.text.push_str(&format!("{not}coalesce({least} AND {greatest}, false)"));
            }
            // Plans are exact before they reach a store: a condition it cannot decide passes no row.
            Op::Near(_) => self.text.push_str("false"),
        }
    }

    fn compare(&mut self, column: &Column, operator: &str, s: &Scalar) {
        let name = &column.name;
        let ordered = matches!(operator, ">=" | "<");
        match (column.kind, s.key()) {
            (Kind::Text, Key::Text(t)) => {
                let collate = if ordered { " COLLATE \"C\"" } else { "" };
                self.text.push_str(&format!("{name}{collate} {operator} "));
                self.bind(Box::new(t.clone()), Type::TEXT);
            }
            (Kind::Integer | Kind::Nanos, Key::Int(n)) => {
                self.text.push_str(&format!("{name} {operator} "));
                self.bind(Box::new(*n), Type::INT8);
            }
            (Kind::Boolean, Key::Bool(b)) => {
                self.text.push_str(&format!("{name} {operator} "));
                self.bind(Box::new(*b), Type::BOOL);
            }
            (Kind::Decimal, _) => {
                self.text.push_str(&format!("{name} {operator} "));
                self.bind(Box::new(digits(s)), Type::TEXT);
                self.text.push_str("::numeric");
            }
            (Kind::Instant, Key::Int(n)) => match (micros(*n, ordered), operator) {
                (Some(text), _) => {
                    self.text.push_str(&format!("{name} {operator} "));
                    self.bind(Box::new(text), Type::TEXT);
                    self.text.push_str("::timestamptz");
                }
                // Finer than the column can be: equal to none of its values.
                (None, "=") => self.text.push_str("false"),
                (None, _) => self.text.push_str("true"),
            },
            _ => self.text.push_str("false"),
        }
    }

    fn one_of(&mut self, column: &Column, list: &[Scalar]) {
        self.text.push_str(&format!("{} = ANY(", column.name));
        let texts = || list.iter().filter_map(|s| if let Key::Text(t) = s.key() { Some(t.clone()) } else { None });
        let ints = || list.iter().filter_map(|s| if let Key::Int(n) = s.key() { Some(*n) } else { None });
        match column.kind {
            Kind::Text => self.bind(Box::new(texts().collect::<Vec<_>>()), Type::TEXT_ARRAY),
            Kind::Integer | Kind::Nanos => self.bind(Box::new(ints().collect::<Vec<_>>()), Type::INT8_ARRAY),
            Kind::Boolean => {
                let all = list.iter().map(|s| *s.key() == Key::Bool(true));
                self.bind(Box::new(all.collect::<Vec<_>>()), Type::BOOL_ARRAY);
            }
            Kind::Decimal => {
                self.bind(Box::new(list.iter().map(digits).collect::<Vec<_>>()), Type::TEXT_ARRAY);
                self.text.push_str("::numeric[]");
            }
            Kind::Instant => {
                self.bind(Box::new(ints().filter_map(|n| micros(n, false)).collect::<Vec<_>>()), Type::TEXT_ARRAY);
                self.text.push_str("::timestamptz[]");
            }
        }
        self.text.push(')');
    }
}

/// A decimal as it was written: the database reads the same number.
fn digits(s: &Scalar) -> String {
    match s.value() {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An instant as text of whole microseconds: the next one where it lies between two, none where it must be met exactly.
fn micros(nanos: i64, next: bool) -> Option<String> {
    let rest = nanos.rem_euclid(1_000);
    match (rest, next) {
        (0, _) => Some(timestamp_text(nanos)),
        (_, true) => nanos.checked_add(1_000 - rest).map(timestamp_text),
        (_, false) => None,
    }
}

// A column of an agency can hold what is no value of our types: whole numbers that JSON does not carry, NaN, infinite
// instants. Open ranges end where our types do.
fn least(column: &Column, own: bool) -> String {
    let name = &column.name;
    match column.kind {
        _ if own => format!("{name} IS NOT NULL"),
        Kind::Integer => format!("{name} >= -{MAX_INTEGER}"),
        Kind::Instant => format!("{name} >= '1677-09-21T00:12:44Z'::timestamptz"),
        Kind::Decimal => format!("{name} > -1e401::numeric"),
        _ => format!("{name} IS NOT NULL"),
    }
}

fn greatest(column: &Column, own: bool) -> String {
    let name = &column.name;
    match column.kind {
        _ if own => format!("{name} IS NOT NULL"),
        Kind::Integer => format!("{name} <= {MAX_INTEGER}"),
        Kind::Instant => format!("{name} < '2262-04-11T23:47:16Z'::timestamptz"),
        Kind::Decimal => format!("{name} < 1e401::numeric"),
        _ => format!("{name} IS NOT NULL"),
    }
}

/// How our own tables keep a type, and the column's type there.
pub(super) fn own_kind(ty: FieldType) -> (Kind, &'static str) {
    match ty {
        FieldType::String => (Kind::Text, "text COLLATE \"C\""),
        FieldType::Integer => (Kind::Integer, "bigint"),
        FieldType::Decimal => (Kind::Decimal, "numeric"),
        FieldType::Boolean => (Kind::Boolean, "boolean"),
        FieldType::Timestamp => (Kind::Nanos, "bigint"),
    }
}
