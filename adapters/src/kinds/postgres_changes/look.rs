//! The first look at the table: its rows as they stood at a place of the log that is known exactly.
//!
//! A look that was interrupted goes on with a later view of the table. Which part of the table was seen at which place is
//! kept with the checkpoint, so that a change which a view showed already is not told once more when its turn comes.

use serde::{Deserialize, Serialize};

use super::rows::Ready;
use super::wire::{Wire, quoted};
use crate::contract::AdapterError;
use crate::kinds::sql_poll::postgres::{POSTGRES, PostgresSession, Reach};
use crate::kinds::sql_poll::runtime::Own;
use crate::kinds::sql_poll::session::{Cause, Failure, Line, Param, Relation, Session};
use crate::kinds::sql_poll::sql::{Ask, Begin, behind, page};

/// Most parts that are kept: a checkpoint is bounded. Beyond it the oldest is forgotten, so that changes of its rows
/// during the looks may be told twice, never lost.
const PARTS_MAX: usize = 8;

/// The rows behind a key were seen as they stood at a place of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The key; all rows when empty.
    after: Vec<String>,
    /// Commits before this place were visible.
    place: u64,
}

/// Adds a view that goes on behind a key.
pub(super) fn add(parts: &mut Vec<Part>, after: Vec<String>, place: u64) {
    // A view of which no row was told showed nothing.
    parts.retain(|p| p.after != after);
    if parts.len() >= PARTS_MAX {
        parts.remove(0);
    }
    parts.push(Part { after, place });
}

/// True when a view showed what this commit made of a row; `is_behind` says whether the row lies behind a key. Forgets
/// the parts once the commits are past all of them.
pub(super) fn showed<E>(
    parts: &mut Vec<Part>,
    commit: u64,
    mut is_behind: impl FnMut(&[String]) -> Result<bool, E>,
) -> Result<bool, E> {
    if parts.iter().all(|p| p.place <= commit) {
        parts.clear();
        return Ok(false);
    }
    for part in parts.iter().rev() {
        if part.after.is_empty() || is_behind(&part.after)? {
            return Ok(commit < part.place);
        }
    }
    Ok(false)
}

/// A view of the table.
pub(super) struct Look {
    session: PostgresSession,
    /// Its columns.
    pub ready: Ready,
}

impl Look {
    /// Opens a view. Where there is no slot it is made in the same moment, and its changes follow the view; where there
    /// is one, the place of the view in the log is returned.
    pub(super) fn begin(
        mut session: PostgresSession,
        ready: Ready,
        reach: &Reach,
        slot: &str,
    ) -> Result<(Self, Option<u64>), Failure> {
        let ask = "SELECT CAST(pg_backend_pid() AS text), \
                   (SELECT CAST(plugin AS text) FROM pg_replication_slots WHERE slot_name = $1)";
        let row = session.texts(ask, &[slot])?.into_iter().next().unwrap_or_default();
        let there = matches!(row.get(1), Some(Some(_)));
        // Nobody else has the name of a slot that is made for the moment: it is that of our backend.
        let pid = row.into_iter().next().flatten().unwrap_or_default();
        let (name, temporary) =
            if there { (format!("concordat_look_{pid}"), "TEMPORARY ") } else { (slot.to_owned(), "") };
        let text = format!("CREATE_REPLICATION_SLOT {} {temporary}LOGICAL pgoutput EXPORT_SNAPSHOT", quoted(&name));
        let own = Own::new()?;
        let (wire, made) = own.wait(async {
            let mut wire = Wire::connect(reach).await?;
            let made = wire.query(&text).await?;
            Ok::<_, Failure>((wire, made))
        })??;
        let mut made = made.into_iter().next().unwrap_or_default().into_iter().skip(1);
        let (place, snapshot) = (made.next().flatten(), made.next().flatten().unwrap_or_default());
        let place = place.as_deref().and_then(lsn).ok_or_else(|| {
            Failure::new(Cause::Refused, "the server names no place in its log for the slot that it made")
        })?;
        let snapshot = snapshot.replace('\'', "''");
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let set = session.set(&format!("{begin}; SET TRANSACTION SNAPSHOT '{snapshot}'"));
        // The snapshot lives as long as the connection that made it, or a transaction that took it.
        let _ = own.wait(wire.close(false));
        set?;
        Ok((Self { session, ready }, there.then_some(place)))
    }

    /// At most `max` rows behind a key, and whether they are the last ones.
    pub(super) fn page(
        &mut self,
        relation: &Relation,
        after: &[String],
        max: usize,
    ) -> Result<(Vec<Line>, bool), Failed> {
        let begin = if after.is_empty() { Begin::First } else { Begin::After(after) };
        // One more than fits tells whether there is more: the last rows and the end are one step.
        let rows = u32::try_from(max).unwrap_or(u32::MAX).saturating_add(1);
        let (columns, cursor) = (&self.ready.columns, &self.ready.key);
        let ask = Ask { relation, columns, cursor, begin, furthest: None, floor: None, rows };
        let statement = page(&POSTGRES, &ask).map_err(Failed::checkpoint)?;
        let mut lines = self.session.page(&statement, columns, cursor).map_err(Failed::Source)?;
        let over = lines.len() <= max;
        lines.truncate(max);
        Ok((lines, over))
    }
}

/// Why a statement gave nothing.
pub(super) enum Failed {
    /// The database.
    Source(Failure),
    /// The checkpoint does not fit the table.
    Checkpoint(AdapterError),
}

impl Failed {
    fn checkpoint(detail: String) -> Self {
        Self::Checkpoint(AdapterError::Checkpoint { detail })
    }
}

/// True when the row with this primary key lies behind another key, in the order of the table's own pages.
pub(super) fn is_behind(
    session: &mut PostgresSession,
    relation: &Relation,
    ready: &Ready,
    key: &[String],
    after: &[String],
) -> Result<bool, Failed> {
    let statement =
        behind(&POSTGRES, relation, &ready.columns, &ready.key, (key, after)).map_err(Failed::checkpoint)?;
    let params: Vec<&str> =
        statement.params.iter().map(|p| if let Param::Text(t) = p { t.as_str() } else { "" }).collect();
    let rows = session.texts(&statement.text, &params).map_err(Failed::Source)?;
    Ok(rows.into_iter().flatten().flatten().next().as_deref() == Some("1"))
}

/// A place in the log as PostgreSQL writes it: two hexadecimal numbers of 32 bits.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(n: u64) -> Vec<String> {
        vec![n.to_string()]
    }

    /// Whether the views showed what commit `commit` made of row `row`.
    fn shown(parts: &[Part], commit: u64, row: u64) -> bool {
        let is_behind = |after: &[String]| Ok::<_, ()>(row > after[0].parse().unwrap());
        showed(&mut parts.to_vec(), commit, is_behind).unwrap()
    }

    #[test]
    fn a_change_is_left_out_only_when_the_view_of_its_row_is_later() {
        let mut parts = Vec::new();
        // The slot made the first view, of rows 1 to 10, at place 100; then two more.
        add(&mut parts, key(10), 200);
        add(&mut parts, key(20), 300);
        for (commit, row, want) in
            [(150, 5, false), (150, 15, true), (250, 15, false), (250, 25, true), (299, 20, false), (300, 25, false)]
        {
            assert_eq!(shown(&parts, commit, row), want, "commit {commit}, row {row}");
        }
        assert!(!showed(&mut parts, 300, |_| Err("nobody is asked")).unwrap() && parts.is_empty());
    }

    #[test]
    fn a_view_of_the_whole_table_covers_every_row_and_parts_are_bounded() {
        let mut parts = Vec::new();
        add(&mut parts, vec![], 100);
        assert!(shown(&parts, 99, 1) && !shown(&parts, 100, 1));
        add(&mut parts, vec![], 150);
        assert_eq!(parts.len(), 1);
        for n in 1..20 {
            add(&mut parts, key(n), 200 + n);
        }
        assert_eq!(parts.len(), PARTS_MAX);
        assert!(shown(&parts, 218, 20) && !shown(&parts, 218, 19));
    }

    #[test]
    fn places_are_read_as_the_server_writes_them() {
        assert_eq!(lsn("0/16B3748"), Some(0x16B_3748));
        assert_eq!(lsn("A/FF"), Some(0xA_0000_00FF));
        for bad in ["", "1", "1/", "x/1", "1/100000000"] {
            assert_eq!(lsn(bad), None, "{bad}");
        }
    }
}
