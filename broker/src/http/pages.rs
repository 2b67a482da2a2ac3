//! Lists of this broker's store, page by page, the newest first.

use super::Problem;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

/// Most rows of a page, and how many it has where none are named.
const PAGE_MAX: u32 = 1_000;

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 1,000 where none is named.
    limit: Option<u32>,
}

/// What a list is asked for: rows older than one, at most so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Older {
    /// Rows with a smaller number.
    pub than: i64,
    /// How many, one more than the page shows.
    pub most: u32,
}

impl Page {
    /// What to ask the store for.
    pub(super) fn older(&self) -> Result<Older, Problem> {
        let limit = self.limit.unwrap_or(PAGE_MAX);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Problem::bad_request(format!("limit: 1 to {PAGE_MAX}")));
        }
        let than = match &self.cursor {
            None => i64::MAX,
            Some(text) => {
                let number = text.parse::<i64>().ok().filter(|n| *n > 0);
                number.ok_or_else(|| Problem::bad_request("cursor: the next_cursor of the page before"))?
            }
        };
        Ok(Older { than, most: limit + 1 })
    }
}

/// A page of numbered rows, which were asked for by [`Older`].
pub(super) fn page(name: &str, rows: Vec<(i64, Value)>, asked: Older) -> Value {
    let shown = asked.most.saturating_sub(1) as usize;
    let more = rows.len() > shown;
    let next = rows.get(shown.saturating_sub(1)).filter(|_| more).map(|(number, _)| number.to_string());
    let rows: Vec<Value> = rows.into_iter().take(shown).map(|(_, row)| row).collect();
    json!({name: rows, "next_cursor": next})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        let all: Vec<i64> = vec![9, 7, 6, 4, 2];
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let asked = Page { cursor, limit: Some(2) }.older().unwrap();
            let rows = all.iter().filter(|n| **n < asked.than).take(asked.most as usize);
            let answer = page("rows", rows.map(|n| (*n, json!(n))).collect(), asked);
            seen.extend(answer["rows"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()));
            cursor = answer["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
        for bad in [
            Page { limit: Some(0), cursor: None },
            Page { limit: Some(1_001), cursor: None },
            Page { cursor: Some("-1".into()), limit: None },
            Page { cursor: Some("x".into()), limit: None },
        ] {
            assert!(bad.older().is_err(), "{bad:?}");
        }
    }
}
