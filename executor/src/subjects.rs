//! Whose records an operation touches: the subjects of released rows and those whom a filter names, as keyed tags
//! (PROTOCOL 5, tags).

use crate::answer::AnswerError;
use crate::holding::Row;
use crate::holding::value_key;
use crate::query::{FieldType, Filter};
use concordat_protocol::access::{bulk_leaf, bulk_root, subject_tag};
use concordat_protocol::ids::DatasetId;
use concordat_protocol::limits::TAG_STEPS;
use concordat_protocol::ops::{Tag, Tags};
use concordat_protocol::runs::BULK_TAG;
use concordat_protocol::tree::{SortedLeaf, SortedProof, TreeError};
use serde_json::Value;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// A subject's key, as the vault keeps it.
pub type SubjectKey = Zeroizing<[u8; 32]>;

/// The field by which a dataset's records belong to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectField {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: FieldType,
}

impl SubjectField {
    /// The text under which a subject is known: one value has one text, however it is written. None for null and for
    /// values of another type.
    #[must_use]
    pub fn text(&self, value: &Value) -> Option<String> {
        value_key(self.ty, value).filter(|t| !t.is_empty())
    }

    /// The text of a subject as a person writes it on a command line.
    #[must_use]
    pub fn read(&self, given: &str) -> Option<String> {
        let number = || serde_json::from_str::<Value>(given).ok().filter(|v| !v.is_string());
        self.text(&Value::from(given)).or_else(|| number().and_then(|v| self.text(&v)))
    }

    /// The subjects that a filter names, whether or not there is a row of them.
    #[must_use]
    pub fn named(&self, filter: &Filter) -> BTreeSet<String> {
        filter.mentioned_values(&self.name).into_iter().filter_map(|v| self.text(v)).collect()
    }

    /// The subjects of rows.
    #[must_use]
    pub fn of_rows(&self, rows: &[Row]) -> BTreeSet<String> {
        rows.iter().filter_map(|r| r.doc.get(&self.name)).filter_map(|v| self.text(v)).collect()
    }
}

/// An operation's tags, and what has to be kept to prove who is among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// What the operation carries.
    pub tags: Tags,
    /// Where they travel as bulk: all of them, sorted. Else empty.
    pub bulk: Vec<Tag>,
}

impl Marked {
    /// Of a dataset without subjects.
    #[must_use]
    pub fn nobody() -> Self {
        Self { tags: Tags::none(), bulk: Vec::new() }
    }

    /// The tags of these subjects on a day (UTC days since 1970), padded with random ones so that their number does not
    /// show. An operation on a dataset with subjects carries one at least: that it met nobody does not show either.
    ///
    /// # Errors
    /// No randomness.
    pub fn of(keys: &[SubjectKey], dataset: &DatasetId, day: u64) -> Result<Self, AnswerError> {
        let tags: BTreeSet<Tag> = keys.iter().map(|k| subject_tag(k, dataset, day)).collect();
        let Some(step) = TAG_STEPS.into_iter().find(|s| *s > 0 && tags.len() <= *s) else {
            let bulk: Vec<Tag> = tags.into_iter().collect();
            let tags = Tags::Bulk { count: bulk.len() as u64, root: bulk_root(&bulk) };
            return Ok(Self { tags, bulk });
        };
        let mut tags = tags;
        while tags.len() < step {
            let mut tag = Tag::default();
            getrandom::fill(&mut tag).map_err(|e| AnswerError::Library(e.to_string()))?;
            if tag != BULK_TAG {
                tags.insert(tag);
            }
        }
        // Sorted, so that the place tells nothing either.
        Ok(Self { tags: Tags::List(tags.into_iter().collect()), bulk: Vec::new() })
    }
}

/// Proves that a tag is, or is not, among an operation's bulk tags.
///
/// # Errors
/// They are not sorted.
pub fn prove_bulk(bulk: &[Tag], tag: &Tag) -> Result<SortedProof, TreeError> {
    let leaves: Vec<SortedLeaf> = bulk.iter().map(bulk_leaf).collect();
    SortedProof::prove(&leaves, tag)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::query::{Fields, parse_filter};
    use serde_json::json;

    fn stop() -> SubjectField {
        SubjectField { name: "stop_id".into(), ty: FieldType::String }
    }

    fn keys(n: usize) -> Vec<SubjectKey> {
        let key = |i: usize| {
            let mut k = [7; 32];
            k[..8].copy_from_slice(&i.to_be_bytes());
            Zeroizing::new(k)
        };
        (0..n).map(key).collect()
    }

    fn dataset() -> DatasetId {
        DatasetId::new("ds:police/stops@1").unwrap()
    }

    #[test]
    fn tags_are_padded_to_the_next_step_and_hold_every_subject() {
        for (subjects, carried) in
            [(0, 1), (1, 1), (2, 4), (4, 4), (5, 16), (17, 64), (65, 256), (257, 1024), (1024, 1024)]
        {
            let keys = keys(subjects);
            let made = Marked::of(&keys, &dataset(), 20_000).unwrap();
            made.tags.check().unwrap();
            let Tags::List(list) = &made.tags else { panic!("{subjects} subjects went as bulk") };
            assert_eq!(list.len(), carried, "{subjects} subjects");
            assert!(list.windows(2).all(|w| w[0] < w[1]), "the place tells nothing");
            assert!(keys.iter().all(|k| list.contains(&subject_tag(k, &dataset(), 20_000))));
        }
        let (a, b) = (Marked::of(&[], &dataset(), 1).unwrap(), Marked::of(&[], &dataset(), 1).unwrap());
        assert_ne!(a, b, "padding is random");
    }

    #[test]
    fn more_than_1024_are_a_root_under_which_each_can_be_proven_in_or_out() {
        let keys = keys(1_025);
        let made = Marked::of(&keys, &dataset(), 9).unwrap();
        made.tags.check().unwrap();
        let Tags::Bulk { count, root } = &made.tags else { panic!("{:?}", made.tags) };
        assert_eq!((*count, made.bulk.len()), (1_025, 1_025));
        let mine = subject_tag(&keys[3], &dataset(), 9);
        let proof = prove_bulk(&made.bulk, &mine).unwrap();
        assert_eq!(proof.verify(&mine, root).unwrap(), [bulk_leaf(&mine)]);
        let stranger = subject_tag(&[1; 32], &dataset(), 9);
        assert!(prove_bulk(&made.bulk, &stranger).unwrap().verify(&stranger, root).unwrap().is_empty());
    }

    #[test]
    fn a_filter_names_subjects_wherever_it_stands() {
        let fields = [("stop_id".to_owned(), FieldType::String), ("precinct".to_owned(), FieldType::String)];
        let fields = Fields::new(fields.to_vec()).unwrap();
        let named = |filter: Value| {
            let names = stop().named(&parse_filter(&filter, &fields, "").unwrap());
            names.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(named(json!({"stop_id": "17-1"})), ["17-1"]);
        assert_eq!(named(json!({"stop_id": {"in": ["17-2", "17-1"]}, "precinct": "1"})), ["17-1", "17-2"]);
        assert_eq!(named(json!({"or": [{"precinct": "1"}, {"not": {"stop_id": "17-3"}}]})), ["17-3"]);
        assert!(named(json!({"precinct": "1"})).is_empty());
    }

    #[test]
    fn one_person_has_one_text() {
        assert_eq!(stop().read("17-1"), Some("17-1".into()));
        assert_eq!(stop().text(&Value::Null), None);
        assert_eq!(stop().text(&json!("")), None);
        let number = SubjectField { name: "person_no".into(), ty: FieldType::Integer };
        assert_eq!((number.read("00012"), number.read("12")), (None, number.text(&json!(12))));
        assert_eq!(number.read("x"), None);
        let rows = [json!({"stop_id": "b"}), json!({"stop_id": "a"}), json!({"stop_id": "b"}), json!({"x": 1})];
        let rows = rows.map(|d| Row { key: String::new(), doc: d.as_object().unwrap().clone() });
        assert_eq!(stop().of_rows(&rows).into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
