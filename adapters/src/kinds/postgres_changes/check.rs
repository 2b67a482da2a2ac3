//! What can be tried without writing: the server's settings, the login's rights, publication and slot.

use std::path::Path;

use super::document::ChangesDoc;
use crate::contract::{AdapterError, Discovery, Finding};
use crate::document::DocumentError;
use crate::kinds::sql_poll::check::{draft, keys, reach};
use crate::kinds::sql_poll::session::{Relation, Session};
use crate::kinds::sql_poll::{Way, way};

/// WAL that a slot may hold before it is told, bytes.
const HELD_WARN: f64 = 1_073_741_824.0;

fn relation(doc: &ChangesDoc) -> Relation {
    Relation::Table(doc.table.value.split('.').map(str::to_owned).collect())
}

fn cells(session: &mut dyn Session, text: &str, params: &[&str]) -> Vec<String> {
    let rows = session.texts(text, params).unwrap_or_default();
    rows.into_iter().next().unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect()
}

/// Everything that can be tried.
pub(super) fn check(doc: &ChangesDoc, base: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let found_way = way(&doc.connect, &doc.adapter.value, base);
    let place = found_way.as_ref().map(Way::place).unwrap_or_default();
    let Some(mut session) = reach(doc.connect.tls, found_way, doc.timeout(), &mut found) else { return found };
    let session = session.as_mut();
    rights(session, &mut found);
    match session.columns(&relation(doc)) {
        Ok(columns) => found.push(Finding::ok("table", format!("{} has {} columns", doc.table.value, columns.len()))),
        Err(e) => {
            found.push(Finding::failed("table", &e.at(&place)));
            return found;
        }
    }
    identity(doc, session, &mut found);
    publication(doc, session, &mut found);
    slot(doc, session, &mut found);
    found
}

fn rights(session: &mut dyn Session, found: &mut Vec<Finding>) {
    let level = cells(session, "SELECT current_setting('wal_level')", &[]).concat();
    found.push(if level == "logical" {
        Finding::ok("server", "wal_level is logical")
    } else {
        Finding::fail("server", format!("wal_level is {level}"), "set `wal_level = logical` and restart the server")
    });
    let text = "SELECT CAST(rolreplication AS text), CAST(rolsuper AS text) FROM pg_roles WHERE rolname = current_user";
    let role = cells(session, text, &[]);
    found.push(match (role.first().map(String::as_str), role.get(1).map(String::as_str)) {
        (_, Some("true")) => {
            Finding::warn("rights", "the login may do everything", "use one with REPLICATION and SELECT alone")
        }
        (Some("true"), _) => Finding::ok("rights", "the login may replicate and is no superuser"),
        _ => Finding::fail("rights", "the login may not replicate", "ALTER ROLE ... REPLICATION"),
    });
}

fn identity(doc: &ChangesDoc, session: &mut dyn Session, found: &mut Vec<Finding>) {
    let name = crate::kinds::sql_poll::sql::table(
        session.dialect(),
        &doc.table.value.split('.').map(str::to_owned).collect::<Vec<_>>(),
    );
    let identity =
        cells(session, "SELECT CAST(relreplident AS text) FROM pg_class WHERE oid = to_regclass($1)", &[&name]);
    let primary = cells(
        session,
        "SELECT CAST(count(*) AS text) FROM pg_index WHERE indrelid = to_regclass($1) AND indisprimary",
        &[&name],
    );
    found.push(match (identity.concat().as_str(), primary.concat().as_str()) {
        (_, "0") => Finding::fail("index", "the table has no primary key", "give it one"),
        ("f", _) => Finding::ok("index", "updates and deletes come with the whole row before them"),
        ("n", _) => Finding::fail(
            "index",
            "updates and deletes cannot be replicated",
            "ALTER TABLE ... REPLICA IDENTITY DEFAULT",
        ),
        _ => Finding::ok("index", "deletes come with the primary key"),
    });
}

fn publication(doc: &ChangesDoc, session: &mut dyn Session, found: &mut Vec<Finding>) {
    let wanted = doc.wanted();
    let text = "SELECT CAST(p.pubinsert AND p.pubupdate AND p.pubdelete AS text), \
                CAST(EXISTS (SELECT 1 FROM pg_publication_tables t WHERE t.pubname = p.pubname AND t.tablename = $2 \
                AND ($3 = '' OR t.schemaname = $3)) AS text) FROM pg_publication p WHERE p.pubname = $1";
    let schema = wanted.table.0.unwrap_or_default();
    let name = &doc.publication.value;
    let said = cells(session, text, &[name, &wanted.table.1, &schema]);
    let create = format!("CREATE PUBLICATION {name} FOR TABLE {}", doc.table.value);
    found.push(match (said.first().map(String::as_str), said.get(1).map(String::as_str)) {
        (None, _) => Finding::fail("publication", format!("there is no publication {name}"), create),
        (_, Some("false")) => Finding::fail(
            "publication",
            format!("{name} does not have {}", doc.table.value),
            format!("ALTER PUBLICATION {name} ADD TABLE {}", doc.table.value),
        ),
        (Some("false"), _) => Finding::warn("publication", format!("{name} leaves out some kinds of change"), create),
        _ => Finding::ok("publication", format!("{name} has the table")),
    });
}

fn slot(doc: &ChangesDoc, session: &mut dyn Session, found: &mut Vec<Finding>) {
    let text = "SELECT CAST(plugin AS text), CAST(active AS text), CAST(database = current_database() AS text), \
                CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS text), CAST(wal_status AS text) \
                FROM pg_replication_slots WHERE slot_name = $1";
    let name = &doc.slot.value;
    let said = cells(session, text, &[name]);
    let at = |n: usize| said.get(n).map_or("", String::as_str);
    let held = at(3).parse::<f64>().unwrap_or(0.0);
    found.push(if said.is_empty() {
        let free = "SELECT CAST(CAST(current_setting('max_replication_slots') AS int) - (SELECT count(*) FROM pg_replication_slots) AS text)";
        match cells(session, free, &[]).concat().as_str() {
            "0" => Finding::fail("slot", "the server has no free replication slot", "raise `max_replication_slots`"),
            free => Finding::ok("slot", format!("{name} is made at the first run; {free} are free")),
        }
    } else if at(0) != "pgoutput" || at(2) != "true" {
        Finding::fail("slot", format!("{name} is of another plugin or database"), "choose another name")
    } else if at(4) == "lost" {
        let next = "drop the slot and give the adapter another name: it begins with a first look again";
        Finding::fail("slot", format!("the server removed changes that {name} still needed"), next)
    } else if held > HELD_WARN {
        let next = "let the adapter run, or drop the slot: the server's disk fills";
        Finding::warn("slot", format!("{name} holds {:.1} GiB of changes", held / HELD_WARN), next)
    } else {
        let use_ = if at(1) == "true" { "in use" } else { "free" };
        Finding::ok("slot", format!("{name} is there and {use_}"))
    });
}

/// Drafts by the catalogue's types.
pub(super) fn discover(doc: &ChangesDoc, base: &Path) -> Result<Discovery, AdapterError> {
    let way = way(&doc.connect, &doc.adapter.value, base)?;
    if !matches!(way, Way::Postgres(_)) {
        return Err(DocumentError::rule("connect.dsn", "this kind reads PostgreSQL alone").into());
    }
    let place = way.place();
    let mut session = way.connect(doc.timeout()).map_err(|e| e.at(&place))?;
    let relation = relation(doc);
    let columns = session.columns(&relation).map_err(|e| e.at(&place))?;
    let key = keys(session.as_mut(), &way, &relation);
    let mut drafts = draft(session.as_mut(), &way, &relation, &columns, &doc.common(), &place)?;
    // A row's changes are told apart by their place; a delete has the key alone.
    let all: Vec<String> = key.iter().cloned().chain(["position".to_owned()]).collect();
    let own = "  op: {from: _op}                            # snapshot | insert | update | delete\n  position: {from: _position}\n";
    let old = format!("key: [{}]", key.join(", "));
    drafts.adapter = drafts.adapter.replace(&old, &format!("{own}key: [{}]", all.join(", ")));
    Ok(drafts)
}
