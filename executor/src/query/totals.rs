//! Totals: how many rows a group has, sums and means of its fields; small groups are left out.
//!
//! ```json
//! {"dataset": "ds:police/stops@1", "where": {"time": {"time": "2017"}},
//!  "aggregate": {"by": ["precinct", {"time": "month"}], "sum": ["fine"], "mean": ["fine"], "min_group": 10}}
//! ```
//! A group is the rows whose `by` fields have equal values (decimals as numbers, instants as instants or cut to a
//! calendar unit in UTC); rows without a value make a group of their own. `count` is always told. Sums and means take
//! the rows that have a value, and are told only where at least `min_group` rows have one. Where the dataset's rows
//! belong to persons, `min_group` counts these instead ([`Totals::of_persons`]).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::decimal::Exact;
use super::error::Problem;
use super::fields::{FieldType, Fields, nearest};
use super::parse::{Parsed, Parser, dataset_of, shown};
use super::value::{Key, timestamp_nanos, timestamp_text};
use super::{Filter, QueryError};
use crate::limits::{DEFAULT_MIN_GROUP, MAX_TOTAL_FIELDS};

/// A calendar unit, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// `2017-03-14T23`
    Hour,
    /// `2017-03-14`
    Day,
    /// `2017-03`
    Month,
    /// `2017`
    Year,
}

impl Cut {
    const ALL: [(&'static str, Self); 4] =
        [("hour", Self::Hour), ("day", Self::Day), ("month", Self::Month), ("year", Self::Year)];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, c)| *c == self).map_or("", |(w, _)| w)
    }

    /// The unit's text that an instant lies in, as the operator `time` reads it.
    fn text(self, instant: &str) -> Option<String> {
        self.of(timestamp_nanos(instant)?)
    }

    /// The same of nanoseconds since 1970.
    pub fn of(self, nanos: i64) -> Option<String> {
        let utc = timestamp_text(nanos);
        let length = match self {
            Self::Hour => 13,
            Self::Day => 10,
            Self::Month => 7,
            Self::Year => 4,
        };
        utc.get(..length).map(str::to_owned)
    }
}

/// One field to group by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKey {
    /// The field.
    pub field: String,
    /// Its type.
    pub ty: FieldType,
    /// The calendar unit that a timestamp is cut to.
    pub cut: Option<Cut>,
}

/// A group's value of one key: none where its rows have none.
pub type Label = Option<Key>;

impl GroupKey {
    /// The label of a row's value.
    pub fn label(&self, value: Option<&Value>) -> Label {
        let key = Key::of(self.ty, value?)?;
        match (self.cut, value?) {
            (Some(cut), Value::String(text)) => cut.text(text).map(Key::Text),
            _ => Some(key),
        }
    }

    /// A label as it is told, given any of its rows' values.
    pub fn told(&self, value: Option<&Value>) -> Value {
        let (Some(value), Some(_)) = (value, self.label(value)) else { return Value::Null };
        match (self.cut, self.ty, value) {
            (Some(cut), _, Value::String(text)) => cut.text(text).map_or(Value::Null, Value::from),
            (None, FieldType::Timestamp, Value::String(text)) => {
                timestamp_nanos(text).map_or(Value::Null, |n| timestamp_text(n).into())
            }
            (_, FieldType::Decimal, _) => number(value).map_or(Value::Null, |n| n.to_string().into()),
            _ => value.clone(),
        }
    }
}

fn number(value: &Value) -> Option<Exact> {
    match value {
        Value::String(text) => Exact::read(text),
        Value::Number(n) => Exact::read(&n.to_string()),
        _ => None,
    }
}

/// What totals are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Grouped by these fields; by none, all rows are one group.
    pub by: Vec<GroupKey>,
    /// The sums of these fields.
    pub sum: Vec<String>,
    /// The means of these fields.
    pub mean: Vec<String>,
    /// Groups of fewer rows are left out (at least 1).
    pub min_group: u64,
    /// The field that says whose a row is: then as many different persons are needed as rows. A query cannot name it.
    pub persons: Option<GroupKey>,
}

/// A query for totals.
#[derive(Debug, Clone, PartialEq)]
pub struct TotalsQuery {
    /// The dataset's id.
    pub dataset: String,
    /// Of which rows.
    pub filter: Filter,
    /// Which totals.
    pub totals: Totals,
}

/// One group of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its labels by field.
    pub by: Map<String, Value>,
    /// Its rows.
    pub count: u64,
    /// Sums by field, decimals as text; null where too few rows have a value.
    pub sum: Map<String, Value>,
    /// Means by field, likewise.
    pub mean: Map<String, Value>,
}

impl Group {
    /// The group as a row of an answer; members without anything in them are left out.
    pub fn to_row(&self) -> Map<String, Value> {
        let maps = [("by", &self.by), ("mean", &self.mean), ("sum", &self.sum)];
        let some = maps.into_iter().filter(|(_, map)| !map.is_empty());
        let told = some.map(|(name, map)| (name.to_owned(), Value::from(map.clone())));
        told.chain([("count".to_owned(), self.count.into())]).collect()
    }
}

/// An answer: the groups in the order of their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups {
    /// The groups that are large enough.
    pub groups: Vec<Group>,
    /// Whether smaller ones were left out.
    pub left_out: bool,
}

/// A group while it grows. The numbers are those of [`Totals::numbers`], in that order.
#[derive(Debug, Clone, Default)]
pub struct Growing {
    /// The labels as told.
    pub told: Vec<Value>,
    /// Its rows.
    pub count: u64,
    /// Of each number: how many rows have one, and their sum.
    pub numbers: Vec<(u64, Exact)>,
    /// The persons whose rows it has, up to as many as are needed; of all rows, then of those with each number.
    pub persons: Vec<BTreeSet<Key>>,
}

impl Totals {
    /// The fields that are added up, each once.
    pub fn numbers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.sum.iter().chain(&self.mean).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every field of the answer, each once.
    pub fn fields(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by.iter().map(|k| k.field.as_str()).chain(self.numbers()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every field that is read: those of the answer, and whose each row is.
    pub fn reads(&self) -> Vec<&str> {
        let mut names = self.fields();
        let persons = self.persons.iter().map(|k| k.field.as_str());
        names.extend(persons.filter(|p| !self.fields().contains(p)));
        names
    }

    /// The same over rows that belong to persons: a group needs `min_group` different ones.
    #[must_use]
    pub fn of_persons(self, field: &str, ty: FieldType) -> Self {
        Self { persons: Some(GroupKey { field: field.to_owned(), ty, cut: None }), ..self }
    }

    /// Adds a row.
    pub fn add(&self, groups: &mut BTreeMap<Vec<Label>, Growing>, row: &Map<String, Value>) {
        let labels = self.by.iter().map(|k| k.label(row.get(&k.field))).collect();
        let names = self.numbers();
        let group = groups.entry(labels).or_insert_with(|| Growing {
            told: self.by.iter().map(|k| k.told(row.get(&k.field))).collect(),
            count: 0,
            numbers: vec![(0, Exact::default()); names.len()],
            persons: vec![BTreeSet::new(); names.len() + 1],
        });
        let person = self.persons.as_ref().and_then(|k| k.label(row.get(&k.field)));
        let meet = |met: Option<&mut BTreeSet<Key>>| {
            // More than are needed are not kept.
            if let (Some(met), Some(person)) = (met, &person)
                && (met.len() as u64) < self.min_group
            {
                met.insert(person.clone());
            }
        };
        group.count += 1;
        meet(group.persons.first_mut());
        for (i, name) in names.iter().enumerate() {
            if let (Some(value), Some((n, sum))) = (row.get(*name).and_then(number), group.numbers.get_mut(i)) {
                *n += 1;
                sum.add(&value);
                meet(group.persons.get_mut(i + 1));
            }
        }
    }

    /// Whether a number of rows, and of persons where they have some, is large enough to be told.
    fn enough(&self, rows: u64, persons: Option<&BTreeSet<Key>>) -> bool {
        let needed = self.min_group.max(1);
        rows >= needed && (self.persons.is_none() || persons.is_some_and(|p| p.len() as u64 >= needed))
    }

    /// The answer: what is too small is left out.
    pub fn finish(&self, groups: BTreeMap<Vec<Label>, Growing>) -> Groups {
        let names = self.numbers();
        let all = groups.len();
        let large = groups.into_values().filter(|g| self.enough(g.count, g.persons.first()));
        let groups: Vec<Group> = large
            .map(|g| {
                let of = |wanted: &[String], value: fn(&(u64, Exact)) -> Option<Exact>| {
                    let cell = |name: &String| {
                        let place = names.iter().position(|n| n == name)?;
                        let number = g.numbers.get(place).filter(|(n, _)| self.enough(*n, g.persons.get(place + 1)))?;
                        Some(value(number)?.to_string())
                    };
                    wanted.iter().map(|n| (n.clone(), cell(n).map_or(Value::Null, Value::from))).collect()
                };
                Group {
                    by: self.by.iter().map(|k| k.field.clone()).zip(g.told.clone()).collect(),
                    count: g.count,
                    sum: of(&self.sum, |(_, sum)| Some(sum.clone())),
                    mean: of(&self.mean, |(n, sum)| sum.mean(*n)),
                }
            })
            .collect();
        Groups { left_out: groups.len() < all, groups }
    }

    /// The totals as JSON; parsing it gives the same.
    pub fn to_json(&self) -> Value {
        let by = self.by.iter().map(|k| k.cut.map_or_else(|| json!(k.field), |c| json!({k.field.as_str(): c.word()})));
        let mut map = Map::new();
        if !self.by.is_empty() {
            map.insert("by".into(), by.collect::<Vec<_>>().into());
        }
        for (name, list) in [("sum", &self.sum), ("mean", &self.mean)] {
            if !list.is_empty() {
                map.insert(name.into(), json!(list));
            }
        }
        map.insert("min_group".into(), self.min_group.into());
        Value::Object(map)
    }
}

const SHAPE: &str = "{\"by\": [FIELD or {FIELD: UNIT}], \"sum\": [..], \"mean\": [..], \"min_group\": 10}";
const BY: &str = "a field, or {FIELD: UNIT} with hour, day, month or year for a timestamp";

impl TotalsQuery {
    /// Checks a query for totals against the fields of the dataset that it names.
    pub fn parse(query: &Value, fields: &Fields) -> Result<Self, QueryError> {
        let dataset = dataset_of(query)?.to_owned();
        let mut p = Parser::new(fields, "");
        let map = p.object(query, "a query object")?;
        const MEMBERS: [&str; 3] = ["dataset", "where", "aggregate"];
        if let Some(word) = map.keys().find(|k| !MEMBERS.contains(&k.as_str())) {
            let problem = Problem::UnknownTotals { word: shown(word), nearest: nearest(word, MEMBERS) };
            return p.within(word, |p| p.fail(problem));
        }
        let filter = map.get("where").map_or(Ok(Filter::All), |v| p.within("where", |p| p.top(v)))?;
        let wanted = map.get("aggregate").unwrap_or(&Value::Null);
        let totals = p.within("aggregate", |p| p.totals(wanted))?;
        Ok(Self { dataset, filter, totals })
    }

    /// The query as JSON; parsing it gives the same.
    pub fn to_json(&self) -> Value {
        json!({"dataset": self.dataset, "where": self.filter.to_json(), "aggregate": self.totals.to_json()})
    }
}

impl Parser<'_> {
    fn totals(&mut self, v: &Value) -> Parsed<Totals> {
        let map = self.object(v, SHAPE)?;
        const MEMBERS: [&str; 4] = ["by", "sum", "mean", "min_group"];
        if let Some(word) = map.keys().find(|k| !MEMBERS.contains(&k.as_str())) {
            return self.within(word, |p| p.fail(Problem::Shape(SHAPE)));
        }
        let mut by: Vec<GroupKey> = Vec::new();
        if let Some(v) = map.get("by") {
            self.within("by", |p| {
                for (i, v) in p.short(v)?.iter().enumerate() {
                    let key = p.within(&i.to_string(), |p| p.group_key(v))?;
                    if by.iter().any(|k| k.field == key.field) {
                        return p.within(&i.to_string(), |p| p.fail(Problem::Twice(key.field.clone())));
                    }
                    by.push(key);
                }
                Ok(())
            })?;
        }
        let sum = map.get("sum").map_or(Ok(Vec::new()), |v| self.within("sum", |p| p.numbers(v)))?;
        let mean = map.get("mean").map_or(Ok(Vec::new()), |v| self.within("mean", |p| p.numbers(v)))?;
        let min_group = match map.get("min_group").map(Value::as_u64) {
            None => DEFAULT_MIN_GROUP,
            Some(Some(n)) if (1..=1_000_000).contains(&n) => n,
            Some(_) => return self.within("min_group", |p| p.fail(Problem::MinGroup)),
        };
        Ok(Totals { by, sum, mean, min_group, persons: None })
    }

    fn short<'v>(&self, v: &'v Value) -> Parsed<&'v [Value]> {
        let list = self.list(v, "the list", "a list of fields")?;
        if list.len() > MAX_TOTAL_FIELDS {
            return self.fail(Problem::TooMany { what: "fields", max: MAX_TOTAL_FIELDS });
        }
        Ok(list)
    }

    fn group_key(&mut self, v: &Value) -> Parsed<GroupKey> {
        let (name, unit) = match v {
            Value::String(name) => (name, None),
            Value::Object(map) if map.len() == 1 => match map.iter().next() {
                Some((name, Value::String(unit))) => (name, Some(unit.as_str())),
                _ => return self.fail(Problem::Shape(BY)),
            },
            _ => return self.fail(Problem::Shape(BY)),
        };
        let ty = self.known(name)?;
        let cut = match unit {
            None => None,
            Some(word) if ty == FieldType::Timestamp => match Cut::ALL.iter().find(|(w, _)| *w == word) {
                Some((_, cut)) => Some(*cut),
                None => return self.fail(Problem::Shape(BY)),
            },
            Some(_) => {
                return self.fail(Problem::OperatorType { op: "a unit of time", ty, next: "name the field alone" });
            }
        };
        Ok(GroupKey { field: name.clone(), ty, cut })
    }

    fn numbers(&mut self, v: &Value) -> Parsed<Vec<String>> {
        let names = self.select(v)?;
        if names.len() > MAX_TOTAL_FIELDS {
            return self.fail(Problem::TooMany { what: "fields", max: MAX_TOTAL_FIELDS });
        }
        for (i, name) in names.iter().enumerate() {
            let ty = self.known(name)?;
            if !matches!(ty, FieldType::Integer | FieldType::Decimal) {
                let problem = Problem::OperatorType { op: "a sum or mean", ty, next: "name a number" };
                return self.within(&i.to_string(), |p| p.fail(problem));
            }
        }
        Ok(names)
    }

    fn known(&mut self, name: &str) -> Parsed<FieldType> {
        match self.fields.get(name) {
            Some(ty) => Ok(ty),
            None => self.fail(Problem::UnknownField { word: shown(name), nearest: self.fields.nearest(name) }),
        }
    }
}
