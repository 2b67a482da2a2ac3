//! Mandates: who may see the accesses to somebody else's records, a lawyer or a guardian, say; and what citizens looked at.
//!
//! A clerk of the agency registers a mandate after seeing the document. Nobody stands here by name: the person and the
//! holder are kept as keyed hashes ([`super::Actors`]), so that the table tells nothing to who has it alone.

use crate::http::pages::Older;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

/// Tables of mandates and of looks.
pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS mandate (
  id TEXT PRIMARY KEY, dataset TEXT NOT NULL, subject BLOB NOT NULL, holder BLOB NOT NULL, until_ms INTEGER NOT NULL,
  document TEXT, by TEXT NOT NULL, at_ms INTEGER NOT NULL, revoked_ms INTEGER, revoked_by TEXT) STRICT;
CREATE INDEX IF NOT EXISTS mandate_of ON mandate (subject, holder);
CREATE TABLE IF NOT EXISTS citizen_look (
  id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, dataset TEXT NOT NULL, subject BLOB NOT NULL, who BLOB NOT NULL,
  mandate TEXT, what TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS citizen_look_subject ON citizen_look (subject);
";
/// Looks under mandates that a person is shown, the newest first.
const SHOWN: u32 = 1_000;

/// A keyed hash of somebody.
pub type Hidden = [u8; 32];

/// A mandate to register.
#[derive(Debug, Clone)]
pub struct Mandate {
    /// `mnd-` and 128 random bits in hex.
    pub id: String,
    /// The dataset.
    pub dataset: String,
    /// The represented person.
    pub subject: Hidden,
    /// The representative.
    pub holder: Hidden,
    /// First moment at which it is over, milliseconds since 1970.
    pub until_ms: i64,
    /// SHA-256 of the document that was shown, hexadecimal.
    pub document: Option<String>,
    /// The clerk.
    pub by: String,
}

/// A look at a list.
#[derive(Debug, Clone)]
pub struct Look {
    /// The dataset.
    pub dataset: String,
    /// Whose accesses.
    pub subject: Hidden,
    /// Who looked: the person's or the representative's `sub`.
    pub who: Hidden,
    /// Under which mandate, if not the person themselves.
    pub mandate: Option<String>,
    /// `log` or `proof`; `denied` where no mandate covered it.
    pub what: &'static str,
}

/// Registers a mandate.
pub fn add(db: &Connection, m: &Mandate, now_ms: i64) -> rusqlite::Result<()> {
    let keep = "INSERT INTO mandate (id, dataset, subject, holder, until_ms, document, by, at_ms)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    db.execute(keep, params![m.id, m.dataset, m.subject, m.holder, m.until_ms, m.document, m.by, now_ms])?;
    Ok(())
}

/// Ends a mandate; false where there is none that runs.
pub fn revoke(db: &Connection, id: &str, by: &str, now_ms: i64) -> rusqlite::Result<bool> {
    let end = "UPDATE mandate SET revoked_ms = ?2, revoked_by = ?3
               WHERE id = ?1 AND revoked_ms IS NULL AND until_ms > ?2";
    Ok(db.execute(end, params![id, now_ms, by])? == 1)
}

/// The mandate that covers a look, if one runs now.
pub fn covering(
    db: &Connection,
    dataset: &str,
    subject: &Hidden,
    holder: &Hidden,
    now_ms: i64,
) -> rusqlite::Result<Option<String>> {
    let find = "SELECT id FROM mandate WHERE dataset = ?1 AND subject = ?2 AND holder = ?3
                AND revoked_ms IS NULL AND until_ms > ?4 ORDER BY until_ms DESC, id LIMIT 1";
    db.query_row(find, params![dataset, subject, holder, now_ms], |r| r.get(0)).optional()
}

/// Keeps a look.
pub fn looked(db: &Connection, l: &Look, now_ms: i64) -> rusqlite::Result<()> {
    let keep = "INSERT INTO citizen_look (at_ms, dataset, subject, who, mandate, what) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    db.execute(keep, params![now_ms, l.dataset, l.subject, l.who, l.mandate, l.what])?;
    Ok(())
}

fn time(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|t| t.to_string())
}

/// Looks at a person's list that others took under a mandate, the newest first.
pub fn by_others(db: &Connection, dataset: &str, subject: &Hidden) -> rusqlite::Result<Vec<Value>> {
    let mut kept = db.prepare_cached(
        "SELECT at_ms, mandate, what FROM citizen_look WHERE dataset = ?1 AND subject = ?2 AND mandate IS NOT NULL
         ORDER BY id DESC LIMIT ?3",
    )?;
    let look = |r: &rusqlite::Row<'_>| {
        Ok(json!({"time": time(r.get(0)?), "mandate": r.get::<_, String>(1)?, "what": r.get::<_, String>(2)?}))
    };
    kept.query_map(params![dataset, subject, SHOWN], look)?.collect()
}

/// Looks with their numbers, the newest first.
pub fn looks(db: &Connection, page: Older) -> rusqlite::Result<Vec<(i64, Value)>> {
    let mut kept = db.prepare_cached(
        "SELECT at_ms, dataset, hex(subject), hex(who), mandate, what, id FROM citizen_look WHERE id < ?1
         ORDER BY id DESC LIMIT ?2",
    )?;
    let look = |r: &rusqlite::Row<'_>| {
        let hidden = |i| r.get::<_, String>(i).map(|h| h.to_lowercase());
        let look = json!({"time": time(r.get(0)?), "dataset": r.get::<_, String>(1)?, "subject": hidden(2)?,
            "who": hidden(3)?, "mandate": r.get::<_, Option<String>>(4)?, "what": r.get::<_, String>(5)?});
        Ok((r.get(6)?, look))
    };
    kept.query_map(params![page.than, page.most], look)?.collect()
}

/// Mandates with their numbers, the newest first.
pub fn list(db: &Connection, now_ms: i64, page: Older) -> rusqlite::Result<Vec<(i64, Value)>> {
    let mut kept = db.prepare_cached(
        "SELECT id, dataset, until_ms, document, by, at_ms, revoked_ms, revoked_by,
         (SELECT count(*) FROM citizen_look l WHERE l.mandate = m.id), rowid
         FROM mandate m WHERE rowid < ?1 ORDER BY rowid DESC LIMIT ?2",
    )?;
    let mandate = |r: &rusqlite::Row<'_>| {
        let (until, revoked) = (r.get::<_, i64>(2)?, r.get::<_, Option<i64>>(6)?);
        let state = if revoked.is_some() {
            "revoked"
        } else if until <= now_ms {
            "over"
        } else {
            "runs"
        };
        let mandate = json!({"mandate": r.get::<_, String>(0)?, "dataset": r.get::<_, String>(1)?, "state": state,
            "until": time(until), "document_sha256": r.get::<_, Option<String>>(3)?, "by": r.get::<_, String>(4)?,
            "since": time(r.get(5)?), "revoked": revoked.and_then(time), "revoked_by": r.get::<_, Option<String>>(7)?,
            "used": r.get::<_, i64>(8)?});
        Ok((r.get(9)?, mandate))
    };
    kept.query_map(params![page.than, page.most], mandate)?.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mandate(id: &str, subject: u8, holder: u8, until_ms: i64) -> Mandate {
        let (subject, holder) = ([subject; 32], [holder; 32]);
        Mandate {
            id: id.into(),
            dataset: "ds:a/b@1".into(),
            subject,
            holder,
            until_ms,
            document: None,
            by: "clerk".into(),
        }
    }

    #[test]
    fn a_mandate_covers_one_person_for_one_holder_until_it_ends() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(TABLES).unwrap();
        add(&db, &mandate("mnd-1", 1, 2, 1_000), 0).unwrap();
        add(&db, &mandate("mnd-2", 3, 2, 2_000), 0).unwrap();
        let covers = |dataset: &str, subject: u8, holder: u8, now| {
            covering(&db, dataset, &[subject; 32], &[holder; 32], now).unwrap()
        };
        assert_eq!(covers("ds:a/b@1", 1, 2, 999).as_deref(), Some("mnd-1"));
        for (dataset, subject, holder, now) in
            [("ds:a/b@1", 1, 2, 1_000), ("ds:a/b@1", 1, 1, 0), ("ds:a/b@1", 2, 1, 0), ("ds:a/b@2", 1, 2, 0)]
        {
            assert_eq!(covers(dataset, subject, holder, now), None, "{dataset} {subject} {holder} {now}");
        }
        assert!(!revoke(&db, "mnd-1", "clerk", 1_000).unwrap(), "it is over");
        assert!(!revoke(&db, "mnd-9", "clerk", 0).unwrap());
        assert!(revoke(&db, "mnd-2", "clerk", 500).unwrap());
        assert_eq!(covers("ds:a/b@1", 3, 2, 600), None);
        let of = |than, most| list(&db, 1_500, Older { than, most }).unwrap();
        let states: Vec<Value> = of(i64::MAX, 9).iter().map(|(_, m)| m["state"].clone()).collect();
        assert_eq!(states, ["revoked", "over"]);
        let newest = of(i64::MAX, 1).remove(0);
        assert_eq!((&newest.1["mandate"], of(newest.0, 9).len()), (&json!("mnd-2"), 1), "the next page");
    }

    #[test]
    fn a_person_sees_who_looked_for_them_and_nobody_else_s_looks() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(TABLES).unwrap();
        let look = |subject: u8, mandate: Option<&str>, what| Look {
            dataset: "ds:a/b@1".into(),
            subject: [subject; 32],
            who: [9; 32],
            mandate: mandate.map(str::to_owned),
            what,
        };
        for l in [
            look(1, None, "log"),
            look(1, Some("mnd-1"), "proof"),
            look(2, Some("mnd-2"), "log"),
            look(1, None, "denied"),
        ] {
            looked(&db, &l, 5).unwrap();
        }
        let others = by_others(&db, "ds:a/b@1", &[1; 32]).unwrap();
        assert_eq!(others.len(), 1);
        assert_eq!((&others[0]["mandate"], &others[0]["what"]), (&json!("mnd-1"), &json!("proof")));
        let of = |than, most| looks(&db, Older { than, most }).unwrap();
        assert_eq!((of(i64::MAX, 9).len(), of(of(i64::MAX, 3)[2].0, 9).len()), (4, 1), "page by page");
    }
}
