//! Records to and from MongoDB's documents.

use mongodb::bson::{Bson, Document, doc};
use serde_json::{Map, Value};

use super::filter::bson;
use crate::holding::{Checked, DatasetSpec, HoldingError, Row, Version};
use crate::query::Key;

/// A checked row as a document.
pub(super) fn write(spec: &DatasetSpec, checked: &Checked, row: &Map<String, Value>) -> Document {
    let (mut keys, mut texts) = (Document::new(), Document::new());
    for (name, value) in row {
        texts.insert(name.clone(), value.to_string());
        if let Some(key) = spec.fields.get(name).and_then(|ty| Key::of(ty, value)) {
            keys.insert(name.clone(), bson(&key));
        }
    }
    doc! {"_id": &checked.key, "f": keys, "doc": texts, "v": Version::of(&checked.doc).as_str()}
}

/// A document's row, with the bytes it took; a selection's fields in the order asked.
pub(super) fn read(found: &Document, select: Option<&[String]>) -> Result<(Row, usize), HoldingError> {
    let damaged = |what: String| HoldingError::Damaged(what);
    let key = found.get_str("_id").map_err(|e| damaged(e.to_string()))?.to_owned();
    let empty = Document::new();
    let texts = match found.get("doc") {
        Some(Bson::Document(texts)) => texts,
        None => &empty,
        Some(_) => return Err(damaged(format!("record {key} has no fields"))),
    };
    let mut row = Map::new();
    let mut bytes = key.len();
    let mut put = |name: &str, text: &Bson| {
        let text = text.as_str().ok_or_else(|| damaged(format!("record {key}: {name} is no text")))?;
        bytes += name.len() + text.len() + 4;
        let value = serde_json::from_str(text).map_err(|e| damaged(format!("record {key}: {name}: {e}")))?;
        row.insert(name.to_owned(), value);
        Ok(())
    };
    match select {
        None => texts.iter().try_for_each(|(name, text)| put(name, text))?,
        Some(names) => {
            for name in names {
                if let Some(text) = texts.get(name) {
                    put(name, text)?;
                }
            }
        }
    }
    Ok((Row { key, doc: row }, bytes))
}

/// The version of a document.
pub(super) fn version(found: &Document) -> Version {
    Version::read(found.get_str("v").unwrap_or_default())
}
