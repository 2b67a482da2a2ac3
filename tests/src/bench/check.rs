//! Floors: what the last figures must reach.

use super::failed::BenchError;
use super::report::{Results, VERSION, read_json};
use serde::Deserialize;
use std::path::Path;

/// The floors file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floors {
    version: u64,
    /// Why these floors, for people.
    #[serde(default, rename = "note")]
    _note: String,
    floors: Vec<Floor>,
}

/// What one row must reach.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    name: String,
    unit: String,
    #[serde(default)]
    min: Option<f64>,
    #[serde(default)]
    max: Option<f64>,
    #[serde(default)]
    min_ratio: Option<f64>,
}

/// Compares; returns the lines to print and whether all floors hold.
pub fn check(results: &Path, floors: &Path) -> Result<(Vec<String>, bool), BenchError> {
    let (found, wanted): (Results, Floors) = (Results::read(results)?, read_json(floors)?);
    let refused = |file: &Path, why: &str| BenchError::File { file: file.display().to_string(), why: why.into() };
    if found.version != VERSION {
        return Err(refused(results, "another version of the format: run `make bench` again"));
    }
    if wanted.version != VERSION || wanted.floors.is_empty() {
        return Err(refused(floors, "it must have version 1 and at least one floor"));
    }
    if found.quick || !found.release {
        return Err(refused(results, "these are figures of a short run or of a debug build: run `make bench`"));
    }
    let checked: Vec<(String, bool)> = wanted.floors.iter().map(|f| hold(&found, f)).collect();
    let all = checked.iter().all(|(_, ok)| *ok);
    Ok((checked.into_iter().map(|(line, _)| line).collect(), all))
}

fn hold(found: &Results, floor: &Floor) -> (String, bool) {
    let name = &floor.name;
    let Some(row) = found.rows.iter().find(|r| r.name == *name) else {
        return (format!("MISSING {name}: the last run has no such row"), false);
    };
    if row.unit != floor.unit {
        return (format!("UNIT    {name}: {} where the floor is in {}", row.unit, floor.unit), false);
    }
    let mut limits = Vec::new();
    let mut ok = true;
    let mut limit = |what: &str, bound: Option<f64>, holds: fn(f64, f64) -> bool, value: Option<f64>| {
        if let Some(bound) = bound {
            ok &= value.is_some_and(|v| holds(v, bound));
            limits.push(format!("{what} {bound}"));
        }
    };
    limit("at least", floor.min, |v, b| v >= b, Some(row.value));
    limit("at most", floor.max, |v, b| v <= b, Some(row.value));
    limit("ratio at least", floor.min_ratio, |v, b| v >= b, row.ratio);
    if limits.is_empty() {
        return (format!("EMPTY   {name}: the floor has no min, max or min_ratio"), false);
    }
    let ratio =
        row.ratio.map(|r| format!(" ({r} of {})", row.baseline.as_deref().unwrap_or_default())).unwrap_or_default();
    let word = if ok { "ok     " } else { "FAILS  " };
    (format!("{word} {name}: {} {}{ratio}; {}", row.value, row.unit, limits.join(", ")), ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(value: f64, quick: bool, floors: &str) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (results, floor) = (dir.path().join("r.json"), dir.path().join("f.json"));
        let mut r = Results::begin("x".into(), quick);
        r.release = true;
        r.add("kvstore", 10.0, "operations/s", None);
        r.add("ordered", value, "operations/s", Some("kvstore"));
        r.write(&results).unwrap();
        std::fs::write(&floor, floors).unwrap();
        (dir, results, floor)
    }

    fn holds(value: f64, floors: &str) -> bool {
        let (_dir, results, floor) = files(value, false, floors);
        check(&results, &floor).unwrap().1
    }

    #[test]
    fn a_floor_holds_only_when_the_row_is_there_and_high_enough() {
        let floor = |f: &str| format!(r#"{{"version":1,"floors":[{f}]}}"#);
        let plain = floor(r#"{"name":"ordered","unit":"operations/s","min":50}"#);
        assert!(holds(50.0, &plain));
        assert!(!holds(49.0, &plain));
        assert!(holds(50.0, &floor(r#"{"name":"ordered","unit":"operations/s","min_ratio":5}"#)));
        assert!(!holds(50.0, &floor(r#"{"name":"ordered","unit":"operations/s","min_ratio":6}"#)));
        assert!(!holds(50.0, &floor(r#"{"name":"ordered","unit":"operations/s","max":49}"#)));
        assert!(!holds(50.0, &floor(r#"{"name":"gone","unit":"operations/s","min":1}"#)));
        assert!(!holds(50.0, &floor(r#"{"name":"ordered","unit":"keys/s","min":1}"#)));
        assert!(!holds(50.0, &floor(r#"{"name":"ordered","unit":"operations/s"}"#)));
    }

    #[test]
    fn a_short_run_and_a_misspelt_floor_are_no_evidence() {
        let floors = r#"{"version":1,"floors":[{"name":"ordered","unit":"operations/s","min":1}]}"#;
        let (_dir, results, floor) = files(50.0, true, floors);
        assert!(check(&results, &floor).unwrap_err().to_string().contains("make bench"));
        let (_dir, results, floor) = files(50.0, false, &floors.replace("min", "mni"));
        assert!(check(&results, &floor).is_err());
    }
}
