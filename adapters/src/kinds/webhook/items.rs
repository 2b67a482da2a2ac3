//! The items of a request: a JSON object, a list of them, or a line each.

use serde_json::value::RawValue;

use crate::convert::Fault;

/// Most items of one request.
const ITEMS_MAX: usize = 10_000;

/// The items in order.
pub fn items(body: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let text = std::str::from_utf8(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
        .map_err(|_| Fault::new("json.utf8", "the request is not UTF-8, as JSON must be"))?;
    let mut found: Vec<&[u8]> = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let raw = value.map_err(|e| {
            Fault::new("json.syntax", format!("not JSON from line {}, column {} on", e.line(), e.column()))
        })?;
        match raw.get().starts_with('[') {
            true => {
                let list: Vec<&RawValue> = serde_json::from_str(raw.get())
                    .map_err(|_| Fault::new("json.syntax", "the list is not one of JSON values"))?;
                found.extend(list.into_iter().map(|item| item.get().as_bytes()));
            }
            false => found.push(raw.get().as_bytes()),
        }
        if found.len() > ITEMS_MAX {
            return Err(Fault::new("webhook.items", format!("a request holds at most {ITEMS_MAX} items")));
        }
    }
    if found.is_empty() { Err(Fault::new("json.syntax", "the request holds no item")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn objects_lists_and_lines_are_items() {
        for (body, count) in
            [("{\"a\":1}", 1), ("[{\"a\":1},{\"a\":2}]", 2), ("{\"a\":1}\n{\"a\":2}\n", 2), (" [1] [2,3]", 3)]
        {
            assert_eq!(items(body.as_bytes()).unwrap().len(), count, "{body}");
        }
        for bad in ["", "[]", "{\"a\":1}\n{", "\u{feff}", "<x/>"] {
            assert_eq!(items(bad.as_bytes()).unwrap_err().rule, "json.syntax", "{bad}");
        }
        assert_eq!(items(b"\xff").unwrap_err().rule, "json.utf8");
    }
}
