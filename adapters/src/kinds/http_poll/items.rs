//! The items of an answer, each as one JSON object.

use serde_json::Value;

use super::gtfs::{self, Entity};
use super::ngsi;
use crate::cells::{self, Cells, JsonPath};

/// Where the items of an answer are.
#[derive(Debug, Clone)]
pub enum Items {
    /// A list in JSON; a single object is one item.
    Json(JsonPath),
    /// Entities of NGSI-LD.
    NgsiLd(JsonPath),
    /// Entities of a GTFS-Realtime feed.
    Gtfs(Entity),
}

impl Items {
    /// The items in order. The error is one sentence that repeats nothing of the answer.
    pub fn of(&self, body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        match self {
            Self::Json(path) => list(body, path).map(|items| items.into_iter().map(<[u8]>::to_vec).collect()),
            Self::NgsiLd(path) => {
                let flat = |item: &[u8]| {
                    serde_json::from_slice(item).ok().and_then(ngsi::flat).unwrap_or_else(|| item.to_vec())
                };
                list(body, path).map(|items| items.into_iter().map(flat).collect())
            }
            Self::Gtfs(entity) => {
                let rows = gtfs::rows(body, *entity)?;
                Ok(rows.into_iter().map(|row| Value::Object(row).to_string().into_bytes()).collect())
            }
        }
    }
}

fn list<'a>(body: &'a [u8], path: &JsonPath) -> Result<Vec<&'a [u8]>, String> {
    match cells::items(body, path) {
        Ok(items) => Ok(items.into_iter().map(|raw| raw.get().as_bytes()).collect()),
        Err(fault) if fault.rule == "json.items" => {
            let found = Cells::new([path]).raw(body).map_err(|f| f.message)?;
            match found.first().copied().flatten() {
                Some(one) if one.get().starts_with('{') => Ok(vec![one.get().as_bytes()]),
                _ => Err(fault.message),
            }
        }
        Err(fault) => Err(fault.message),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_or_one_object_gives_items() {
        let items = |body: &str, path: &str| {
            let found = Items::Json(JsonPath::parse(path).unwrap()).of(body.as_bytes())?;
            Ok::<_, String>(found.into_iter().map(|b| String::from_utf8(b).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(items(r#"{"d": [{"a":1.0}]}"#, "$.d").unwrap(), [r#"{"a":1.0}"#]);
        assert_eq!(items(r#"{"a":1}"#, "$").unwrap(), [r#"{"a":1}"#]);
        assert!(items("[1", "$").unwrap_err().contains("not JSON"));
        assert!(items(r#"{"d": 3}"#, "$.d").unwrap_err().contains("no list"));
    }
}
