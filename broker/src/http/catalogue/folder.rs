//! What the node's folder knows of datasets.

use super::about::{self, About};
use concordat_executor::policies::dataset::{DatasetDoc, DatasetFile};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::DatasetId;
use concordat_protocol::node::DatasetView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

/// Largest schema that is read, bytes.
const SCHEMA_BYTES_MAX: u64 = 1 << 20;

/// What the node's folder has: documents with their schema's hash, and every schema by its hash.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) documents: BTreeMap<DatasetId, (DatasetDoc, Hash)>,
    pub(super) schemas: BTreeMap<Hash, Vec<u8>>,
    pub(super) about: BTreeMap<DatasetId, About>,
    /// Documents of the catalogue that cannot be used, and why.
    pub(super) unusable: Vec<String>,
}

pub(super) fn files(dir: &FilePath, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let paths = entries.filter_map(|e| e.ok().map(|e| e.path()));
    paths.filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

pub(super) fn read_small(path: &FilePath) -> Option<Vec<u8>> {
    let small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= SCHEMA_BYTES_MAX);
    if small { fs::read(path).ok() } else { None }
}

impl Folder {
    /// Reads `datasets/` and `schemas/`. A document that is wrong is not ours to report here: `dataset register` does.
    pub(super) fn read(node: &FilePath) -> Self {
        let (about, unusable) = about::read(node);
        let mut found = Self { about, unusable, ..Self::default() };
        for path in files(&node.join("schemas"), "json") {
            found.add_schema(&path);
        }
        for path in files(&node.join("datasets"), "yaml") {
            let Some(file) = fs::read_to_string(path).ok().and_then(|t| DatasetFile::parse(&t).ok()) else { continue };
            let Some(hash) = found.add_schema(&node.join(&file.schema)) else { continue };
            let text = found.schemas.get(&hash).and_then(|b| String::from_utf8(b.clone()).ok()).unwrap_or_default();
            if let Ok(doc) = file.with_schema(&text) {
                found.documents.insert(doc.id.clone(), (doc, hash));
            }
        }
        found
    }

    fn add_schema(&mut self, path: &FilePath) -> Option<Hash> {
        let bytes = read_small(path)?;
        let hash = sha256(&[&bytes]);
        self.schemas.insert(hash, bytes);
        Some(hash)
    }

    /// The document of a dataset, if its schema is the registered one.
    pub(super) fn document(&self, d: &DatasetView) -> Option<&DatasetDoc> {
        self.documents.get(&d.id).filter(|(_, hash)| *hash == d.schema_hash).map(|(doc, _)| doc)
    }

    pub(super) fn fields(&self, d: &DatasetView) -> Option<Value> {
        if let Some(doc) = self.document(d) {
            let list = doc.fields().iter().map(|f| {
                json!({"name": f.name, "type": f.kind, "required": f.required, "key": doc.key.contains(&f.name),
                       "sensitive": f.sensitive, "description": f.description})
            });
            return Some(list.collect());
        }
        let schema: Value = serde_json::from_slice(self.schemas.get(&d.schema_hash)?).ok()?;
        let required = |name: &String| schema["required"].as_array().is_some_and(|r| r.iter().any(|v| v == name));
        let list = schema["properties"].as_object()?.iter().map(|(name, p)| {
            let kind = if p["format"].is_string() { &p["format"] } else { &p["type"] };
            json!({"name": name, "type": kind, "required": required(name), "description": p["description"]})
        });
        Some(list.collect())
    }
}
