//! Duties of a clause that alter what a feed shows, or hold it back (pure).
//!
//! Values are altered by the very function that alters rows of queries, [`View::apply`], and a message is of age exactly
//! when a query of the same moment would find its row.

use concordat_executor::policies::ask::Grant;
use concordat_executor::policies::duty::{Cut, Duty};
use concordat_executor::policies::time::utc_text;
use concordat_executor::policies::view::{Pseudonyms, View, cut_time};
use concordat_executor::query::value::timestamp_nanos;
use concordat_protocol::message::Altering;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How a clause alters fields, and how long it holds messages back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Changes {
    /// `AGR-2026-0143/F1`
    pub(super) clause: String,
    view: View,
    /// Fields that are altered, each with its duty's word.
    altered: BTreeMap<String, &'static str>,
    /// Calendar units after which pseudonyms change.
    cuts: BTreeSet<Cut>,
    /// Time fields, each with the age that a message must have, milliseconds.
    delays: Vec<(String, u64)>,
    /// The duties as they are agreed.
    agreed: Vec<String>,
}

impl Changes {
    /// Those of a grant.
    pub(super) fn of(grant: &Grant) -> Self {
        let (mut altered, mut cuts, mut delays, mut agreed) =
            (BTreeMap::new(), BTreeSet::new(), Vec::new(), Vec::new());
        for duty in &grant.duties {
            altered.extend(duty.altered().into_iter().map(|f| (f.to_owned(), duty.kind().word())));
            match duty {
                Duty::Delay { field, for_ms } => delays.push((field.clone(), *for_ms)),
                Duty::Pseudonymise { per, .. } => cuts.extend(*per),
                Duty::Mask { .. } | Duty::Coarsen { .. } => {}
                _ => continue,
            }
            agreed.push(duty.to_json().to_string());
        }
        let clause = format!("{}/{}", grant.clause.agreement, grant.clause.clause);
        Self { clause, view: View::of(&grant.clause.agreement, &grant.duties), altered, cuts, delays, agreed }
    }

    /// Whether a field is shown altered.
    pub(super) fn alters(&self, field: &str) -> bool {
        self.altered.contains_key(field)
    }

    /// What tells these from others; nothing where nothing is changed.
    pub(super) fn id(&self) -> Vec<u8> {
        if self.agreed.is_empty() {
            return vec![];
        }
        [&self.clause, "\0"]
            .into_iter()
            .chain(self.agreed.iter().flat_map(|d| [d.as_str(), "\0"]))
            .collect::<String>()
            .into()
    }

    /// What tells a moment's pseudonyms from those of another; nothing where they never change.
    pub(super) fn period(&self, at_ms: u64) -> String {
        let now = utc_text(at_ms).unwrap_or_default();
        self.cuts.iter().filter_map(|cut| cut_time(&now, *cut)).map(|p| p + "\0").collect()
    }

    /// The first millisecond of ledger time at which a message with this data may be shown, 0 where nothing holds it back;
    /// none if it never may, because it says no time.
    pub(super) fn due_ms(&self, data: &Map<String, Value>) -> Option<u64> {
        let mut due = 0;
        for (field, for_ms) in &self.delays {
            let ms = i128::from(timestamp_nanos(data.get(field)?.as_str()?)?).div_euclid(1_000_000);
            // Younger by not even a nanosecond: a query's filter is `before now - for`.
            let first = ms + i128::from(*for_ms) + 1;
            due = due.max(u64::try_from(first.max(0)).unwrap_or(u64::MAX));
        }
        Some(due)
    }

    /// What is shown in place of these fields of a message. A value that cannot be altered as agreed is left out.
    pub(super) fn altering(
        &self,
        fields: &BTreeSet<String>,
        data: &Map<String, Value>,
        with: Pseudonyms<'_>,
    ) -> Vec<Altering> {
        if self.altered.is_empty() {
            return vec![];
        }
        let shown = self.view.apply(data, with);
        let open = self.altered.iter().filter(|(field, _)| fields.contains(*field));
        open.filter_map(|(field, duty)| Altering::member(field, duty, shown.get(field)?).ok()).collect()
    }
}
