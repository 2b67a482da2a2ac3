//! Distance on the sphere: the one operator whose meaning the executor's own evaluator has, on every store.

use serde_json::{Map, Value, json};

use super::fields::FieldType;
use super::filter::{Cond, Filter, Op};
use super::value::{Key, Scalar};

/// Mean radius of the Earth, metres (IUGG).
const RADIUS: f64 = 6_371_008.8;

/// Rows whose place lies at most so far from a point, on a sphere of the Earth's mean radius. A row without a latitude
/// of -90 to 90 and a longitude of -180 to 180 has no place.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// The field of the longitude; the condition's own is the latitude.
    pub lon: String,
    /// The point's latitude and longitude, degrees.
    pub at: (Scalar, Scalar),
    /// The distance, metres.
    pub metres: u32,
}

/// A decimal of a row or a filter as degrees.
pub(super) fn degrees(value: &Value, limit: f64) -> Option<f64> {
    Key::of(FieldType::Decimal, value)?;
    let degrees: f64 = match value {
        Value::String(s) => s.parse().ok()?,
        other => other.to_string().parse().ok()?,
    };
    (-limit..=limit).contains(&degrees).then_some(degrees)
}

impl Near {
    fn point(&self) -> Option<(f64, f64)> {
        Some((degrees(self.at.0.value(), 90.0)?, degrees(self.at.1.value(), 180.0)?))
    }

    pub(super) fn matches(&self, lat: &str, row: &Map<String, Value>) -> bool {
        let here = self.point();
        let there = row.get(lat).zip(row.get(&self.lon));
        let there = there.and_then(|(a, b)| Some((degrees(a, 90.0)?, degrees(b, 180.0)?)));
        here.zip(there).is_some_and(|(a, b)| distance(a, b) <= f64::from(self.metres))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"near": {"lon": self.lon, "at": {"lat": self.at.0.value(), "lon": self.at.1.value()}, "metres": self.metres}})
    }

    /// A box around the circle, as conditions that a store's indexes answer.
    pub(super) fn around(&self, lat: &str) -> Filter {
        let Some((y, x)) = self.point() else { return Filter::All };
        // A little wider than the circle, by far more than rounding takes away.
        let angle = f64::from(self.metres) / RADIUS * 1.000_001 + 1e-9;
        let dy = angle.to_degrees();
        let mut parts = Vec::new();
        parts.extend(between(lat, y - dy, y + dy));
        let reach = angle.sin() / y.to_radians().cos();
        if y.abs() + dy < 90.0 && reach < 1.0 {
            let dx = reach.asin().to_degrees() * 1.000_001 + 1e-9;
            let (west, east) = (x - dx, x + dx);
            let both = |a: Option<Filter>, b: Option<Filter>| Some(Filter::Or(vec![a?, b?]));
            parts.extend(if west < -180.0 {
                both(between(&self.lon, west + 360.0, 181.0), between(&self.lon, -181.0, east))
            } else if east > 180.0 {
                both(between(&self.lon, west, 181.0), between(&self.lon, -181.0, east - 360.0))
            } else {
                between(&self.lon, west, east)
            });
        }
        Filter::all_of(parts)
    }
}

/// A range of decimals, ends rounded outwards by the caller's margin.
fn between(field: &str, from: f64, to: f64) -> Option<Filter> {
    let end = |v: f64| Scalar::new(FieldType::Decimal, Value::String(format!("{v:.9}")));
    let op = Op::Range { from: Some(end(from)?), to: Some(end(to)?) };
    Some(Filter::Cond(Cond { field: field.to_owned(), ty: FieldType::Decimal, op }))
}

/// Metres between two points given as latitude and longitude in degrees (haversine).
fn distance((lat1, lon1): (f64, f64), (lat2, lon2): (f64, f64)) -> f64 {
    let (a, b) = (lat1.to_radians(), lat2.to_radians());
    let (dy, dx) = ((b - a) / 2.0, (lon2 - lon1).to_radians() / 2.0);
    let h = dy.sin().powi(2) + a.cos() * b.cos() * dx.sin().powi(2);
    2.0 * RADIUS * h.sqrt().min(1.0).asin()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(lat: f64, lon: f64, metres: u32) -> Near {
        let scalar = |v: f64| Scalar::new(FieldType::Decimal, json!(v)).unwrap();
        Near { lon: "x".into(), at: (scalar(lat), scalar(lon)), metres }
    }

    fn row(lat: f64, lon: f64) -> Map<String, Value> {
        json!({"y": lat, "x": lon}).as_object().unwrap().clone()
    }

    #[test]
    fn distances_are_those_of_the_sphere() {
        // Minneapolis to St Paul, 13.8 km; a degree of latitude, 111.2 km; around the date line.
        let d = distance((44.9778, -93.2650), (44.9537, -93.0900));
        assert!((13_900.0..14_100.0).contains(&d), "{d}");
        assert!((distance((0.0, 0.0), (1.0, 0.0)) - 111_195.0).abs() < 1.0);
        assert!(near(0.0, 179.999, 500).matches("y", &row(0.0, -179.999)));
        assert!(!near(0.0, 179.999, 200).matches("y", &row(0.0, -179.999)));
        let no_place = json!({"y": 0, "x": 540}).as_object().unwrap().clone();
        assert!(!near(0.0, 180.0, 500_000).matches("y", &no_place));
        assert!(!near(0.0, 0.0, 500_000).matches("y", &Map::new()));
    }

    proptest! {
        // The box may be wider than the circle, never narrower: a store would lose rows.
        #[test]
        fn the_box_holds_the_circle(lat in -90.0f64..=90.0, lon in -180.0f64..=180.0, metres in 1u32..=500_000, bearing in 0.0f64..6.3, part in 0.0f64..=1.0) {
            let n = near(lat, lon, metres);
            let angle = f64::from(metres) / RADIUS * part;
            let (a, b) = (lat.to_radians(), lon.to_radians());
            let y = (a.sin() * angle.cos() + a.cos() * angle.sin() * bearing.cos()).clamp(-1.0, 1.0).asin();
            let x = b + (bearing.sin() * angle.sin() * a.cos()).atan2(angle.cos() - a.sin() * y.sin());
            let x = (x.to_degrees() + 540.0).rem_euclid(360.0) - 180.0;
            let there = row(y.to_degrees(), x);
            if n.matches("y", &there) {
                prop_assert!(n.around("y").matches(&there), "{there:?} {n:?}");
            }
        }
    }
}
