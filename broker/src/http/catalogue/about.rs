//! What a catalogue says of a dataset beyond its schema: `catalogue/*.yaml` of the node's folder, one document a dataset.
//!
//! ```yaml
//! dataset: ds:police/stops@1
//! description: Every stop of a person or a vehicle in 2017.
//! keywords: [police, traffic]
//! themes: [JUST]                                   # codes of the EU's data themes
//! area: {name: Minneapolis, bbox: [-93.33, 44.89, -93.19, 45.05]}   # west, south, east, north
//! time: {from: 2017-01-01T00:00:00Z, until: 2018-01-01T00:00:00Z}   # until may be left out
//! licence: https://creativecommons.org/publicdomain/zero/1.0/
//! contact: {name: Police data office, email: data@police.example}
//! ```
//! It is not on the ledger and proves nothing. Agencies hand each other these files as they do with schemas.

use concordat_protocol::ids::DatasetId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Folder of the documents.
pub(super) const DIR: &str = "catalogue";
/// The EU's data themes (authority table `data-theme`, without OP_DATPRO).
const THEMES: [&str; 13] =
    ["AGRI", "ECON", "EDUC", "ENER", "ENVI", "GOVE", "HEAL", "INTR", "JUST", "REGI", "SOCI", "TECH", "TRAN"];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    #[serde(skip_serializing)]
    pub dataset: DatasetId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default)]
    pub keywords: Vec<String>,
    #[serde(default)]
    pub themes: Vec<String>,
    pub area: Option<Area>,
    pub time: Option<Period>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Area {
    pub name: String,
    pub bbox: Option<Bbox>,
}

/// West, south, east, north in degrees (WGS 84). West beyond east crosses the 180th meridian.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Bbox(pub [f64; 4]);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    pub from: Timestamp,
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contact {
    pub name: String,
    pub email: String,
}

impl Bbox {
    /// Four numbers that are a box on the globe.
    pub(super) fn checked(self) -> Result<Self, String> {
        let [w, s, e, n] = self.0;
        let on_globe = [w, e].iter().all(|d| d.abs() <= 180.0) && [s, n].iter().all(|d| d.abs() <= 90.0);
        if on_globe && s <= n { Ok(self) } else { Err("bbox: west, south, east, north in degrees, south first".into()) }
    }

    pub(super) fn meets(self, other: Self) -> bool {
        let ([_, s, _, n], [_, south, _, north]) = (self.0, other.0);
        s <= north && south <= n && self.spans().iter().any(|a| other.spans().iter().any(|b| a.0 <= b.1 && b.0 <= a.1))
    }

    /// West to east, in two parts where it crosses the 180th meridian.
    fn spans(self) -> Vec<(f64, f64)> {
        let [w, _, e, _] = self.0;
        if w <= e { vec![(w, e)] } else { vec![(w, 180.0), (-180.0, e)] }
    }
}

impl About {
    fn parse(text: &str) -> Result<Self, String> {
        let about: Self =
            serde_saphyr::from_str(text).map_err(|e| e.without_snippet().to_string().replace('\n', " "))?;
        if let Some(theme) = about.themes.iter().find(|t| !THEMES.contains(&t.as_str())) {
            return Err(format!("themes: {theme} is none of {}", THEMES.join(" ")));
        }
        if let Some(bbox) = about.area.as_ref().and_then(|a| a.bbox) {
            bbox.checked()?;
        }
        if about.time.as_ref().is_some_and(|t| t.until.is_some_and(|u| u <= t.from)) {
            return Err("time: until is after from".into());
        }
        Ok(about)
    }
}

/// All documents by dataset, and what is wrong with those that cannot be used.
pub(super) fn read(node: &Path) -> (BTreeMap<DatasetId, About>, Vec<String>) {
    let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
    let mut paths = super::folder::files(&node.join(DIR), "yaml");
    paths.sort();
    for path in paths {
        let name = format!("{DIR}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let text = super::folder::read_small(&path).and_then(|b| String::from_utf8(b).ok());
        match text.ok_or_else(|| "cannot be read".to_owned()).and_then(|t| About::parse(&t)) {
            Ok(about) if found.contains_key(&about.dataset) => {
                wrong.push(format!("{name}: another file speaks of {}", about.dataset));
            }
            Ok(about) => drop(found.insert(about.dataset.clone(), about)),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    (found, wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_are_strict_and_a_wrong_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(DIR)).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(DIR).join(name), text).unwrap();
        let good = "dataset: ds:a/b@1\nthemes: [TRAN]\narea: {name: Here, bbox: [1, 2, 3, 4]}\ntime: {from: 2017-01-01T00:00:00Z}\n";
        write("a.yaml", good);
        write("b.yaml", good);
        for (name, text) in [
            ("key.yaml", "dataset: ds:a/c@1\nthems: [TRAN]\n"),
            ("theme.yaml", "dataset: ds:a/d@1\nthemes: [CARS]\n"),
            ("bbox.yaml", "dataset: ds:a/e@1\narea: {name: x, bbox: [1, 4, 3, 2]}\n"),
            ("time.yaml", "dataset: ds:a/f@1\ntime: {from: 2017-01-01T00:00:00Z, until: 2016-01-01T00:00:00Z}\n"),
        ] {
            write(name, text);
        }
        let (found, wrong) = read(dir.path());
        assert_eq!(found.len(), 1);
        let starts: Vec<&str> = wrong.iter().map(|w| w.split(':').next().unwrap()).collect();
        assert_eq!(starts, ["b", "bbox", "key", "theme", "time"].map(|n| format!("{DIR}/{n}.yaml")), "{wrong:?}");
    }

    #[test]
    fn boxes_meet_across_the_180th_meridian() {
        let (fiji, samoa, berlin) =
            (Bbox([177.0, -19.0, -178.0, -16.0]), Bbox([-179.0, -17.0, -170.0, -13.0]), Bbox([13.0, 52.0, 14.0, 53.0]));
        assert!(fiji.meets(samoa) && samoa.meets(fiji) && !fiji.meets(berlin));
        assert!(berlin.meets(Bbox([-180.0, -90.0, 180.0, 90.0])));
        assert!(Bbox([0.0, 0.0, 181.0, 1.0]).checked().is_err() && Bbox([0.0, 0.0, f64::NAN, 1.0]).checked().is_err());
    }
}
