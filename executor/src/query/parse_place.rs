//! The operators that stand for others or look at two fields: `bbox`, `near`, `time`.

use serde_json::{Map, Value};

use super::error::Problem;
use super::fields::FieldType;
use super::filter::{Cond, Filter, Op};
use super::near::{Near, degrees};
use super::parse::{Parsed, Parser, shown};
use super::period::{NoPeriod, span};
use super::value::Scalar;
use crate::limits::MAX_NEAR_METRES;

const BBOX: &str = "{\"lon\": FIELD, \"south\": .., \"west\": .., \"north\": .., \"east\": ..} in degrees, on the field of the latitude";
const NEAR: &str = "{\"lon\": FIELD, \"at\": {\"lat\": .., \"lon\": ..}, \"metres\": ..}, on the field of the latitude";
const PERIOD: &str = "a year, month, day or hour, like \"2017-03-14\", or {\"in\": .., \"zone\": \"America/Chicago\"}";

impl Parser<'_> {
    /// `time`: a calendar period. It reads as the range of its instants.
    pub(super) fn period(&mut self, field: &str, ty: FieldType, v: &Value) -> Parsed<Filter> {
        if ty != FieldType::Timestamp {
            return self.fail(Problem::OperatorType { op: "time", ty, next: "it needs a timestamp field" });
        }
        let (text, zone) = match v {
            Value::String(text) => (text.as_str(), None),
            Value::Object(_) => {
                let map = self.members(v, &["in", "zone"], PERIOD)?;
                let word = |name: &str| map.get(name).map(Value::as_str);
                match (word("in"), word("zone")) {
                    (Some(Some(text)), None) => (text, None),
                    (Some(Some(text)), Some(Some(zone))) => (text, Some(zone)),
                    _ => return self.fail(Problem::Shape(PERIOD)),
                }
            }
            _ => return self.fail(Problem::Shape(PERIOD)),
        };
        let (from, to) = match span(text, zone) {
            Ok(span) => span,
            Err(NoPeriod::Text) => return self.fail(Problem::Shape(PERIOD)),
            Err(NoPeriod::Zone) => return self.within("zone", |p| p.fail(Problem::Zone)),
        };
        let end = |t: jiff::Timestamp| Scalar::new(ty, Value::String(t.to_string()));
        match (end(from), end(to)) {
            (Some(from), Some(to)) if from.key() < to.key() => {
                let op = Op::Range { from: Some(from), to: Some(to) };
                Ok(Filter::Cond(Cond { field: field.to_owned(), ty, op }))
            }
            _ => self.fail(Problem::Shape(PERIOD)),
        }
    }

    /// `bbox`: south and west edges belong to it, north and east ones do not (at a pole and at 180 they do), so that
    /// neighbouring boxes share no row. It reads as ranges of both fields.
    pub(super) fn bbox(&mut self, lat: &str, ty: FieldType, v: &Value) -> Parsed<Filter> {
        self.latitude("bbox", ty)?;
        let map = self.members(v, &["lon", "south", "west", "north", "east"], BBOX)?;
        let lon = self.longitude(map, BBOX)?;
        let south = self.edge(map, "south", 90.0, BBOX)?;
        let north = self.edge(map, "north", 90.0, BBOX)?;
        let west = self.edge(map, "west", 180.0, BBOX)?;
        let east = self.edge(map, "east", 180.0, BBOX)?;
        if south.0 >= north.0 || west.0 == east.0 {
            return self.fail(Problem::EmptyBox);
        }
        let part = |field: &str, from: Option<&Scalar>, to: Option<&Scalar>| {
            let op = Op::Range { from: from.cloned(), to: to.cloned() };
            Filter::Cond(Cond { field: field.to_owned(), ty: FieldType::Decimal, op })
        };
        let upto = |edge: &(f64, Scalar), last: f64| Some(edge.1.clone()).filter(|_| edge.0 < last);
        let (north_end, east_end) = (upto(&north, 90.0), upto(&east, 180.0));
        let wide = if west.0 < east.0 {
            part(&lon, Some(&west.1), east_end.as_ref())
        } else {
            // Across the date line.
            Filter::Or(vec![part(&lon, Some(&west.1), None), part(&lon, None, Some(&east.1))])
        };
        Ok(Filter::all_of([part(lat, Some(&south.1), north_end.as_ref()), wide]))
    }

    /// `near`: at most so many metres from a point.
    pub(super) fn near(&mut self, lat: &str, ty: FieldType, v: &Value) -> Parsed<Filter> {
        self.latitude("near", ty)?;
        let map = self.members(v, &["lon", "at", "metres"], NEAR)?;
        let lon = self.longitude(map, NEAR)?;
        let at = map.get("at").unwrap_or(&Value::Null);
        let at = self.within("at", |p| {
            let point = p.members(at, &["lat", "lon"], NEAR)?;
            Ok((p.edge(point, "lat", 90.0, NEAR)?.1, p.edge(point, "lon", 180.0, NEAR)?.1))
        })?;
        let metres = map.get("metres").and_then(Value::as_u64).and_then(|m| u32::try_from(m).ok());
        let Some(metres) = metres.filter(|m| (1..=MAX_NEAR_METRES).contains(m)) else {
            return self.within("metres", |p| p.fail(Problem::Metres));
        };
        Ok(Filter::Cond(Cond { field: lat.to_owned(), ty, op: Op::Near(Box::new(Near { lon, at, metres })) }))
    }

    fn latitude(&self, op: &'static str, ty: FieldType) -> Parsed<()> {
        if ty == FieldType::Decimal {
            return Ok(());
        }
        self.fail(Problem::OperatorType { op, ty, next: "it stands on the decimal field of the latitude" })
    }

    fn members<'v>(&mut self, v: &'v Value, known: &[&str], shape: &'static str) -> Parsed<&'v Map<String, Value>> {
        let map = self.object(v, shape)?;
        match map.keys().find(|k| !known.contains(&k.as_str())) {
            Some(word) => self.within(word, |p| p.fail(Problem::Shape(shape))),
            None => Ok(map),
        }
    }

    fn longitude(&mut self, map: &Map<String, Value>, shape: &'static str) -> Parsed<String> {
        let name = map.get("lon").and_then(Value::as_str);
        self.within("lon", |p| {
            let Some(name) = name else { return p.fail(Problem::Shape(shape)) };
            match p.fields.get(name) {
                Some(FieldType::Decimal) => Ok(name.to_owned()),
                Some(ty) => {
                    p.fail(Problem::OperatorType { op: "lon", ty, next: "name the decimal field of the longitude" })
                }
                None => p.fail(Problem::UnknownField { word: shown(name), nearest: p.fields.nearest(name) }),
            }
        })
    }

    fn edge(&mut self, map: &Map<String, Value>, name: &str, limit: f64, shape: &'static str) -> Parsed<(f64, Scalar)> {
        self.within(name, |p| {
            let Some(value) = map.get(name) else { return p.fail(Problem::Shape(shape)) };
            let scalar = p.scalar(name, FieldType::Decimal, value)?;
            match degrees(value, limit) {
                Some(degrees) => Ok((degrees, scalar)),
                None => p.fail(Problem::Degrees { limit: limit as u16 }),
            }
        })
    }
}
