//! What can be tried without writing, and drafts for a table that nobody described yet.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

use super::document::{Deletes, SqlPollDoc, TlsMode, Way};
use super::ready::Ready;
use super::session::{Cause, Column, Failure, Relation, Session, Shape};
use super::sql::{Ask, Begin, page};
use crate::contract::{self, AdapterError, Discovery, Finding};
use crate::discover;
use crate::document::FieldKind;

/// Rows of a sample.
const SAMPLE: u32 = 200;
/// Seconds that the clocks may differ.
const SKEW_WARN: f64 = 2.0;

/// Everything that can be tried.
pub(super) fn check(doc: &SqlPollDoc, base: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(mut session) = reach(doc.connect.tls, doc.way(base), doc.timeout(), &mut found) else { return found };
    let way = doc.way(base);
    let (Ok(way), relation) = (way, doc.relation()) else { return found };
    rights(&way, session.as_mut(), &relation, &mut found);
    let columns = match session.columns(&relation) {
        Ok(columns) => columns,
        Err(e) => {
            let name = if e.cause == Cause::Rights { "rights" } else { "table" };
            found.push(Finding::failed(name, &e.at(&way.place())));
            return found;
        }
    };
    found.push(Finding::ok("table", format!("{} has {} columns", doc.relation_name(), columns.len())));
    match Ready::new(doc, columns.clone()) {
        Ok(ready) => {
            found.push(Finding::ok("mapping", format!("{} fields are mapped", ready.mapper.steps().len())));
            sample(session.as_mut(), &relation, &ready, &way, &mut found);
            if doc.deletes != Deletes::SnapshotDiff {
                cursor(doc, &way, session.as_mut(), &relation, &mut found);
            }
        }
        Err(e) if doc.map.is_empty() && doc.rest.is_none() => found.push(Finding::warn(
            "mapping",
            format!("there is none yet ({e})"),
            "`concordat adapter discover` drafts one from the table",
        )),
        Err(e) => found.push(Finding::failed("mapping", &e)),
    }
    clock(&way, session.as_mut(), &mut found);
    found
}

/// DNS, TLS and login.
pub(crate) fn reach(
    tls: TlsMode,
    way: Result<Way, AdapterError>,
    timeout: Duration,
    found: &mut Vec<Finding>,
) -> Option<Box<dyn Session>> {
    let way = match way {
        Ok(way) => way,
        Err(e) => {
            found.push(Finding::failed("login", &e));
            return None;
        }
    };
    if let Some((host, port)) = way.address() {
        match (host.as_str(), port).to_socket_addrs() {
            Ok(addresses) => found.push(Finding::ok("dns", format!("{host} has {} addresses", addresses.count()))),
            Err(e) => {
                found.push(Finding::fail("dns", format!("{host}: {e}"), "correct the address behind `connect.dsn`"));
                return None;
            }
        }
    }
    match way.connect(timeout) {
        Ok(session) => {
            match (way.address(), tls) {
                (Some(_), TlsMode::Require) => found.push(Finding::ok("tls", "the server's certificate is trusted")),
                (Some(_), TlsMode::Off) => found.push(Finding::warn(
                    "tls",
                    "name, password and rows cross the network in the clear",
                    "say `tls: require`",
                )),
                (None, _) => {}
            }
            found.push(Finding::ok("login", format!("{} lets us in", way.place())));
            Some(session)
        }
        Err(e) => {
            let name = if e.cause == Cause::Tls { "tls" } else { "login" };
            found.push(Finding::failed(name, &e.at(&way.place())));
            None
        }
    }
}

fn first(rows: Result<Vec<Vec<Option<String>>>, Failure>) -> Option<String> {
    rows.ok()?.into_iter().flatten().flatten().next()
}

fn name_of(session: &dyn Session, relation: &Relation) -> Option<String> {
    match relation {
        Relation::Table(parts) => Some(super::sql::table(session.dialect(), parts)),
        Relation::Query(_) => None,
    }
}

/// Reading is praised, writing is warned of.
fn rights(way: &Way, session: &mut dyn Session, relation: &Relation, found: &mut Vec<Finding>) {
    let name = name_of(session, relation).unwrap_or_default();
    let writes = match way {
        Way::Postgres(_) => {
            let text = "SELECT CAST(r.rolsuper OR coalesce(has_table_privilege(to_regclass($1), 'INSERT, UPDATE, DELETE, TRUNCATE'), false) \
                        AS text) FROM pg_roles r WHERE r.rolname = current_user";
            first(session.texts(text, &[&name])).map(|t| t == "true")
        }
        Way::MySql(_) => session.texts("SHOW GRANTS FOR CURRENT_USER", &[]).ok().map(|rows| {
            let words = ["ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "DROP", "ALTER"];
            rows.iter().flatten().flatten().any(|grant| {
                let verbs = grant.split(" ON ").next().unwrap_or_default();
                words.iter().any(|w| verbs.contains(w))
            })
        }),
        Way::Sqlite(_) => Some(false),
    };
    found.push(match writes {
        Some(false) => Finding::ok("rights", "the login reads and cannot write here: as it should be"),
        Some(true) => Finding::warn(
            "rights",
            "the login may also write; the session is read-only all the same",
            "use a login that has SELECT alone",
        ),
        None => Finding::warn("rights", "what the login may do could not be asked", "see that it has SELECT alone"),
    });
}

/// The first rows, mapped.
fn sample(session: &mut dyn Session, relation: &Relation, ready: &Ready, way: &Way, found: &mut Vec<Finding>) {
    let ask = Ask {
        relation,
        columns: &ready.columns,
        cursor: &ready.cursor,
        begin: Begin::First,
        furthest: None,
        floor: None,
        rows: SAMPLE,
    };
    let lines = page(session.dialect(), &ask)
        .map_err(|e| Failure::new(Cause::Refused, e))
        .and_then(|s| session.page(&s, &ready.columns, &ready.cursor));
    match lines {
        Ok(lines) => {
            let rows = (1..).zip(&lines).map(|(n, line)| ready.row(line, contract::Origin::row("sample", n), None));
            let bad: Vec<String> = rows
                .filter_map(|row| match row {
                    contract::Row::Bad(reject) => {
                        Some(format!("{} ({})", reject.field.unwrap_or_default(), reject.rule))
                    }
                    contract::Row::Good(_) => None,
                })
                .collect();
            found.push(match bad.first() {
                None => Finding::ok("rows", format!("{} rows of a sample are mapped", lines.len())),
                Some(first) => Finding::warn(
                    "rows",
                    format!(
                        "{} of {} rows of a sample would be dead letters, the first for {first}",
                        bad.len(),
                        lines.len()
                    ),
                    "look at them: `concordat adapter run NAME --dry-run --limit 20`",
                ),
            });
        }
        Err(e) => found.push(Finding::failed("rows", &e.at(&way.place()))),
    }
}

/// Lists of columns that an index begins with.
fn indexes(way: &Way, session: &mut dyn Session, relation: &Relation) -> Option<Vec<Vec<String>>> {
    let Relation::Table(parts) = relation else { return None };
    let name = name_of(session, relation)?;
    let rows = match way {
        Way::Postgres(_) => {
            let table = first(
                session.texts("SELECT CAST(relkind AS text) FROM pg_class WHERE oid = to_regclass($1)", &[&name]),
            )?;
            if table == "v" {
                return None;
            }
            let text = "SELECT CAST(i.indexrelid AS text), CAST(a.attname AS text) FROM pg_index i \
                        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(att, n) \
                        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att \
                        WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL ORDER BY i.indexrelid, k.n";
            session.texts(text, &[&name]).ok()?
        }
        Way::MySql(_) => {
            let (schema, table) = match parts.as_slice() {
                [schema, table] => (Some(schema.as_str()), table.as_str()),
                _ => (None, parts.last()?.as_str()),
            };
            let text = "SELECT index_name, column_name FROM information_schema.statistics \
                        WHERE table_schema = coalesce(nullif(?, ''), database()) AND table_name = ? ORDER BY index_name, seq_in_index";
            session.texts(text, &[schema.unwrap_or_default(), table]).ok()?
        }
        Way::Sqlite(_) => {
            let text = "SELECT l.name, i.name FROM pragma_index_list(?1) l, pragma_index_info(l.name) i ORDER BY l.name, i.seqno";
            let mut rows = session.texts(text, &[parts.last()?]).ok()?;
            let own = "SELECT '', name FROM pragma_table_info(?1) WHERE pk = 1 AND upper(type) = 'INTEGER'";
            rows.extend(session.texts(own, &[parts.last()?]).ok()?);
            rows
        }
    };
    let mut lists: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let (Some(index), Some(column)) = (cells.next(), cells.next()) else { continue };
        match lists.last_mut().filter(|(name, _)| *name == index) {
            Some((_, columns)) => columns.push(column),
            None => lists.push((index, vec![column])),
        }
    }
    Some(lists.into_iter().map(|(_, columns)| columns).collect())
}

/// An index on the cursor, rows without a cursor, and an overlap.
fn cursor(doc: &SqlPollDoc, way: &Way, session: &mut dyn Session, relation: &Relation, found: &mut Vec<Finding>) {
    let columns: Vec<&str> = doc.cursor.iter().flat_map(|c| &c.columns).map(|c| c.value.as_str()).collect();
    let list = columns.join(", ");
    found.push(match indexes(way, session, relation) {
        Some(all)
            if all.iter().any(|i| i.iter().map(String::as_str).take(columns.len()).eq(columns.iter().copied())) =>
        {
            Finding::ok("index", format!("an index serves ({list})"))
        }
        Some(_) => Finding::warn(
            "index",
            format!("no index begins with ({list}): every poll reads the whole table"),
            format!("create an index on {} ({list})", doc.relation_name()),
        ),
        None => Finding::warn(
            "index",
            "this is no table of its own: whether an index serves the cursor could not be seen",
            format!("see that ({list}) is indexed in the tables behind it"),
        ),
    });
    if let (Some(name), Some(column)) = (name_of(session, relation), columns.first()) {
        let text = format!("SELECT 'x' FROM {name} q WHERE q.{} IS NULL LIMIT 1", session.dialect().quote(column));
        if first(session.texts(&text, &[])).is_some() {
            found.push(Finding::warn(
                "cursor",
                format!("there are rows whose `{column}` is NULL; they are never read"),
                "fill it at the source, or choose another cursor",
            ));
        }
    }
    if doc.cursor.as_ref().is_some_and(|c| c.overlap.is_none()) {
        found.push(Finding::warn(
            "cursor",
            "there is no overlap: a row that is committed after a later one is never read",
            "say `overlap: 10m`, longer than the longest transaction that writes here",
        ));
    }
}

/// The server's clock beside ours.
fn clock(way: &Way, session: &mut dyn Session, found: &mut Vec<Finding>) {
    let text = match way {
        Way::Postgres(_) => "SELECT CAST(extract(epoch FROM clock_timestamp()) AS text)",
        Way::MySql(_) => "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) AS CHAR)",
        Way::Sqlite(_) => return,
    };
    let Some(theirs) = first(session.texts(text, &[])).and_then(|t| t.parse::<f64>().ok()) else { return };
    let ours = jiff::Timestamp::now().as_duration().as_secs_f64();
    let skew = theirs - ours;
    found.push(if skew.abs() <= SKEW_WARN {
        Finding::ok("clock", format!("the server's clock is within {SKEW_WARN} s of ours"))
    } else {
        let next = "set both by NTP; make the overlap longer than the difference";
        Finding::warn("clock", format!("the server's clock differs from ours by {skew:.1} s"), next)
    });
}

/// Drafts by the catalogue's types, with a sample for what it does not say.
pub(super) fn discover(doc: &SqlPollDoc, base: &Path) -> Result<Discovery, AdapterError> {
    let way = doc.way(base)?;
    let place = way.place();
    let mut session = way.connect(doc.timeout()).map_err(|e| e.at(&place))?;
    let relation = doc.relation();
    let columns = session.columns(&relation).map_err(|e| e.at(&place))?;
    draft(session.as_mut(), &way, &relation, &columns, &doc.common(), &place)
}

/// Drafts for a relation of an open session.
pub(crate) fn draft(
    session: &mut dyn Session,
    way: &Way,
    relation: &Relation,
    columns: &[Column],
    common: &crate::document::Common,
    place: &str,
) -> Result<Discovery, AdapterError> {
    let ask = Ask { relation, columns, cursor: &[0], begin: Begin::First, furthest: None, floor: None, rows: SAMPLE };
    let statement = page(session.dialect(), &ask).map_err(|e| Failure::new(Cause::Refused, e).at(place))?;
    let lines = session.page(&statement, columns, &[0]).map_err(|e| e.at(place))?;
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    let rows: Vec<Vec<Option<String>>> = lines.into_iter().map(|l| l.cells).collect();
    let mut guessed = discover::guess(&names, '.', &rows);
    let keys = keys(session, way, relation);
    for (guess, column) in guessed.iter_mut().zip(columns) {
        let (kind, zone) = match column.shape {
            Shape::Integer => (FieldKind::Integer, None),
            Shape::Number => (FieldKind::Decimal, None),
            Shape::Boolean => (FieldKind::Boolean, None),
            Shape::Instant => (FieldKind::Timestamp, Some("offset".to_owned())),
            Shape::Clock => (FieldKind::Timestamp, None),
            Shape::Bytes => (FieldKind::String, None),
            Shape::Plain => (guess.kind, guess.zone.clone()),
        };
        // Text stays text in a database that has types: a number of things is no quantity.
        if column.shape == Shape::Plain && !matches!(way, Way::Sqlite(_)) {
            (guess.kind, guess.zone) = (FieldKind::String, None);
        } else {
            (guess.kind, guess.zone) = (kind, zone);
        }
        if !keys.is_empty() {
            guess.key = keys.first() == Some(&guess.name);
        }
    }
    let mut drafts = discover::draft(common, guessed, rows.len() as u64);
    if keys.len() > 1 {
        whole_key(&mut drafts, &keys);
    }
    Ok(drafts)
}

/// The draft has the first column of the key; here are the others.
fn whole_key(drafts: &mut Discovery, keys: &[String]) {
    let (one, all) =
        (format!("key: [{}]", keys.first().map_or("", String::as_str)), format!("key: [{}]", keys.join(", ")));
    drafts.adapter = drafts.adapter.replace(&one, &all);
    drafts.dataset = drafts.dataset.replace(&one, &all);
    for column in drafts.columns.iter_mut().filter(|c| keys.contains(&c.name)) {
        column.key = true;
    }
    if let Some(required) = drafts.schema.get_mut("required").and_then(|r| r.as_array_mut()) {
        for key in keys {
            if !required.iter().any(|r| r == key) {
                required.push(key.clone().into());
            }
        }
    }
}

/// Columns of the primary key, in order.
pub(crate) fn keys(session: &mut dyn Session, way: &Way, relation: &Relation) -> Vec<String> {
    let (Relation::Table(parts), Some(name)) = (relation, name_of(session, relation)) else { return Vec::new() };
    let last = parts.last().map_or("", String::as_str);
    let rows = match way {
        Way::Postgres(_) => session.texts(
            "SELECT CAST(a.attname AS text) FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(att, n) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att \
             WHERE i.indrelid = to_regclass($1) AND i.indisprimary ORDER BY k.n",
            &[&name],
        ),
        Way::MySql(_) => session.texts(
            "SELECT column_name FROM information_schema.statistics WHERE table_schema = coalesce(nullif(?, ''), database()) \
             AND table_name = ? AND index_name = 'PRIMARY' ORDER BY seq_in_index",
            &[if parts.len() == 2 { parts.first().map_or("", String::as_str) } else { "" }, last],
        ),
        Way::Sqlite(_) => session.texts("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk", &[last]),
    };
    rows.unwrap_or_default().into_iter().flatten().flatten().collect()
}
