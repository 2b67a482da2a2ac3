//! Agreement templates: documents with placeholders, to begin with.

use crate::template::fill;
use crate::yaml::YamlError;
use std::collections::BTreeSet;

/// A document to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// The document, with placeholders like `{{from}}`.
    pub text: &'static str,
}

macro_rules! templates {
    ($($name:literal => $about:literal),* $(,)?) => {
        /// Every template.
        pub const TEMPLATES: &[Template] = &[$(Template {
            name: $name,
            about: $about,
            text: include_str!(concat!("../templates/", $name, ".yaml")),
        }),*];
    };
}

templates! {
    "case-lookup" => "Staff look up single records for a case, by name or by day",
    "statistics" => "Totals of groups, never single records",
    "research" => "Rows with pseudonyms, coarse times and places, delayed",
    "emergency" => "Look-ups for a case, and an override in danger to life",
    "live-feed" => "An agency follows a feed, with evidence at most seconds later",
    "public-data" => "Anybody reads and follows",
    "two-languages" => "Look-ups for a case, in German and English",
}

impl Template {
    /// The template with this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|t| t.name == name)
    }

    /// The placeholders, in the order of their first use.
    pub fn placeholders(&self) -> Vec<&'static str> {
        let mut seen = BTreeSet::new();
        let lines = self.text.lines().filter(|l| !l.trim_start().starts_with('#'));
        let names = lines.flat_map(|l| l.split("{{").skip(1)).filter_map(|p| p.split_once("}}").map(|(n, _)| n.trim()));
        names.filter(|n| seen.insert(*n)).collect()
    }

    /// The document with every placeholder filled in.
    pub fn fill(&self, values: &[(&str, &str)]) -> Result<String, YamlError> {
        fill(self.text, values)
    }
}
