//! Logins, rights, values and clocks that are not as they should be.

use std::time::{Duration, Instant};

use concordat_adapters::contract::{AdapterError, Checkpoint, Level};
use concordat_adapters::parse;

use crate::poll::{Reader, document};
use crate::servers::{Db, Kind, Server, unique};

fn classed(error: &AdapterError) -> (&'static str, &'static str) {
    (error.class().name(), error.code())
}

fn reader_of(db: &Db, kind: Kind) -> (String, String) {
    let (table, user) = (unique("r"), unique("u"));
    db.sql(&format!(
        "CREATE TABLE {table} (id bigint PRIMARY KEY, ts {} NOT NULL, v varchar(40), gone int)",
        db.stamp()
    ));
    db.sql(&format!("INSERT INTO {table} VALUES (1, '2026-01-01 00:00:00', 'x', 0)"));
    match kind {
        Kind::Postgres => {
            db.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT SELECT ON {table} TO {user}"))
        }
        _ => db.sql(&format!(
            "CREATE USER {user}@localhost IDENTIFIED BY 'secret'; GRANT SELECT ON {table} TO {user}@localhost"
        )),
    };
    (table, user)
}

fn logins_and_rights(kind: Kind) {
    let Some(db) = Db::of(kind, "logins") else { return };
    let (table, user) = reader_of(&db, kind);
    let yaml = document(&table, "");
    let connector = parse(&yaml).unwrap();
    let warned = |found: &[concordat_adapters::contract::Finding], level| {
        found.iter().any(|f| f.name == "rights" && f.level == level)
    };
    let found = connector.check(db.base());
    assert!(warned(&found, Level::Warn), "the owner may write: {found:?}");
    db.login(&format!("{user}:secret"));
    let found = connector.check(db.base());
    assert!(warned(&found, Level::Ok), "{found:?}");
    assert!(found.iter().any(|f| f.name == "clock" && f.level == Level::Ok), "{found:?}");
    let mut reader = Reader::open(&db, &yaml, Checkpoint::default());
    assert_eq!(reader.all(9).len(), 1);
    db.sql(&match kind {
        Kind::Postgres => format!("REVOKE SELECT ON {table} FROM {user}"),
        _ => format!("REVOKE SELECT ON {table} FROM {user}@localhost"),
    });
    let error = (0..9).find_map(|_| reader.read(9).err()).unwrap();
    assert_eq!(classed(&error), ("auth", "source.rights"), "{error}");
    db.login(&format!("{user}:wrong"));
    let error = Reader::open(&db, &yaml, Checkpoint::default()).read(9).unwrap_err();
    assert_eq!(classed(&error), ("auth", "source.login"), "{error}");
    assert!(!error.to_string().contains("wrong"), "no secret in {error}");
    let found = connector.check(db.base());
    assert_eq!(found.last().map(|f| (f.name, f.level)), Some(("login", Level::Fail)), "{found:?}");
}

#[test]
fn logins_and_rights_of_postgres() {
    logins_and_rights(Kind::Postgres);
}

#[test]
fn logins_and_rights_of_mariadb() {
    logins_and_rights(Kind::Maria);
}

fn slow_statements(kind: Kind, sleep: &str) {
    let Some(db) = Db::of(kind, "slow") else { return };
    let yaml = document("x", "cursor: {columns: [id]}\npoll: {every: 50ms, statement_timeout: 200ms}\n")
        .replace("table: x", &format!("query: \"{sleep}\""))
        .replace("ignore: [gone]\n", "");
    let begun = Instant::now();
    let error = Reader::open(&db, &yaml, Checkpoint::default()).read(9).unwrap_err();
    assert_eq!(classed(&error), ("transient", "source.timeout"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "the server stopped it");
}

#[test]
fn a_slow_statement_is_stopped_at_the_source_postgres() {
    slow_statements(Kind::Postgres, "SELECT 1 AS id, now() AS ts, pg_sleep(60)::text AS v");
}

#[test]
fn a_slow_statement_is_stopped_at_the_source_mariadb() {
    slow_statements(Kind::Maria, "SELECT seq AS id, now() AS ts, sleep(1) AS v FROM seq_1_to_60");
}

#[test]
fn a_slow_statement_is_stopped_at_the_source_sqlite() {
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, '' AS ts, '' AS v FROM n";
    slow_statements(Kind::Sqlite, endless);
}

fn goes_and_comes(kind: Kind) {
    let Some(server) = Server::start(kind) else { return eprintln!("SKIPPED reconnect: {kind:?} is not installed") };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dsn"), server.admin()).unwrap();
    let stamp = if kind == Kind::Postgres { "timestamptz" } else { "datetime(6)" };
    server.sql(&format!("CREATE TABLE x (id bigint PRIMARY KEY, ts {stamp} NOT NULL, v varchar(9), gone int)"));
    let insert = |n: u32| server.sql(&format!("INSERT INTO x VALUES ({n}, '2026-01-01 00:00:{n:02}', 'x', 0)"));
    (0..20).for_each(|n| drop(insert(n)));
    let yaml = document("x", "cursor: {columns: [ts], overlap: 1h}\n");
    let mut source = parse(&yaml).unwrap().open(dir.path()).unwrap();
    let (mut at, mut got) = (Checkpoint::default(), Vec::new());
    let first = source.read(&at, 5).unwrap();
    got.extend(first.records);
    at = first.checkpoint;
    server.say("KILL");
    let error = (0..9)
        .find_map(|_| match source.read(&at, 5) {
            Ok(batch) => {
                at = batch.checkpoint;
                got.extend(batch.records);
                None
            }
            Err(e) => Some(e),
        })
        .unwrap();
    assert_eq!(error.class().name(), "transient", "{error}");
    assert_eq!(source.read(&at, 5).unwrap_err().class().name(), "transient");
    server.say("start");
    server.wait();
    insert(20);
    while got.len() < 21 {
        let batch = source.read(&at, 5).unwrap();
        at = batch.checkpoint;
        got.extend(batch.records);
    }
    let ids: Vec<_> = got.iter().map(|r| r.data["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (0..21).collect::<Vec<_>>());
}

#[test]
fn a_server_that_was_killed_is_found_again_postgres() {
    goes_and_comes(Kind::Postgres);
}

#[test]
fn a_server_that_was_killed_is_found_again_mariadb() {
    goes_and_comes(Kind::Maria);
}

#[test]
fn a_replication_whose_server_was_killed_goes_on() {
    let Some(server) = Server::start(Kind::Postgres) else {
        return eprintln!("SKIPPED reconnect of changes: not installed");
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dsn"), server.admin()).unwrap();
    server.sql("CREATE TABLE x (id bigint PRIMARY KEY); CREATE PUBLICATION p FOR TABLE x; INSERT INTO x VALUES (1)");
    let yaml = "adapter: t\nkind: postgres-changes\nconnect: {dsn: file:dsn, tls: off}\ninto: ds:grid/load@1\ntable: x\n\
                publication: p\nslot: s\nmap:\n  id: {type: integer}\nkey: [id]\n";
    let mut source = parse(yaml).unwrap().open(dir.path()).unwrap();
    let (mut at, mut got, mut failed) = (Checkpoint::default(), Vec::new(), 0);
    let end = Instant::now() + Duration::from_secs(60);
    let (mut step, mut restarted) = (1, false);
    while got.len() < 4 {
        assert!(Instant::now() < end, "{got:?}, {failed} failures");
        match source.read(&at, 5) {
            Ok(batch) => {
                at = batch.checkpoint;
                source.ack(&at).unwrap();
                got.extend(batch.records.into_iter().map(|r| r.data["id"].as_i64().unwrap()));
            }
            Err(e) => {
                assert_eq!(e.class().name(), "transient", "{e}");
                failed += 1;
                if !restarted {
                    restarted = true;
                    server.say("start");
                    server.wait();
                }
            }
        }
        if got.len() == step {
            step += 1;
            if step == 4 && !restarted {
                restarted = true;
                server.say("start");
                server.wait();
            }
            server.sql(&format!("INSERT INTO x VALUES ({step})"));
            if step == 3 {
                server.say("KILL");
            }
        }
    }
    assert_eq!(got, [1, 2, 3, 4]);
    assert!(failed > 0);
}

#[test]
fn values_are_exact_in_every_database() {
    for kind in [Kind::Postgres, Kind::Maria, Kind::Sqlite] {
        let Some(db) = Db::of(kind, "values") else { continue };
        let table = unique("vals");
        let (blob, columns) = match kind {
            Kind::Postgres => (
                "'\\x00ff'",
                "id bigint primary key, d numeric, b bytea, t timestamptz, c timestamp, f double precision, s text, y boolean",
            ),
            Kind::Maria => (
                "x'00ff'",
                "id bigint primary key, d decimal(38,18), b blob, t timestamp(6) null, c datetime(6), f double, s text, y bit(1)",
            ),
            Kind::Sqlite => {
                ("x'00ff'", "id integer primary key, d text, b blob, t text, c text, f real, s text, y integer")
            }
        };
        db.sql(&format!("CREATE TABLE {table} ({columns})"));
        let (yes, set) = match kind {
            Kind::Postgres => ("true", "SET timezone = 'UTC';"),
            Kind::Maria => ("b'1'", "SET time_zone = '+00:00';"),
            Kind::Sqlite => ("1", ""),
        };
        db.sql(&format!(
            "{set} INSERT INTO {table} VALUES (9007199254740993, '12345678901234567890.123456789012345678', {blob}, \
             '2026-03-29 01:30:00.123456', '2026-03-29 02:30:00.5', 0.1, 'a''b \u{fc}', {yes})"
        ));
        let fields: Vec<String> =
            ["id", "d", "b", "t", "c", "f", "s", "y"].iter().map(|f| format!("  {f}: {{type: string}}\n")).collect();
        let yaml = format!(
            "adapter: t\nkind: sql-poll\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {table}\n\
             cursor: {{columns: [id]}}\ndeletes: none\nmap:\n{}key: [id]\n",
            fields.concat()
        );
        let row = Reader::open(&db, &yaml, Checkpoint::default()).all(9).remove(0);
        let text = |f: &str| row[f].as_str().unwrap().to_owned();
        assert_eq!(text("id"), "9007199254740993");
        assert_eq!(text("d"), "12345678901234567890.123456789012345678");
        assert_eq!((text("b").as_str(), text("s").as_str(), text("f").as_str()), ("AP8=", "a'b \u{fc}", "0.1"));
        let (t, c, y) = match kind {
            Kind::Postgres => ("2026-03-29T01:30:00.123456Z", "2026-03-29 02:30:00.5", "true"),
            Kind::Maria => ("2026-03-29T01:30:00.123456Z", "2026-03-29 02:30:00.500000", "1"),
            Kind::Sqlite => ("2026-03-29 01:30:00.123456", "2026-03-29 02:30:00.5", "1"),
        };
        assert_eq!((text("t").as_str(), text("c").as_str(), text("y").as_str()), (t, c, y), "{kind:?}");
    }
}

#[test]
fn bad_values_are_dead_letters_and_the_rest_goes_on() {
    let Some(db) = Db::of(Kind::Sqlite, "bad values") else { return };
    db.sql("CREATE TABLE x (id integer primary key, ts text, v text, gone int); \
            INSERT INTO x VALUES (1, 'a', 'good', 0), (2, 'b', CAST(x'ff' AS text), 0), (3, 'c', CAST(x'610062' AS text), 0), \
            (9007199254740993, 'd', 'too large', 0), (4, 'e', 'good', 0)");
    let mut reader = Reader::open(&db, &document("x", ""), Checkpoint::default());
    let batch = reader.read(256).unwrap();
    let rules: Vec<&str> = batch.rejects.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!((batch.records.len(), rules), (2, vec!["text.utf8", "text.nul", "number.range"]));
    assert!(String::from_utf8_lossy(&batch.rejects[2].raw).contains("9007199254740993"));
}

#[test]
fn documents_that_cannot_work_are_refused_where_they_stand() {
    let good = document("x", "");
    for (from, to, says) in [
        ("deletes: none", "", "`deletes` is missing"),
        ("deletes: none", "deletes: maybe", "snapshot-diff"),
        ("deletes: none", "deletes: snapshot-diff", "remove the cursor"),
        ("tls: off", "tls: off, read_only: false", "never writes"),
        ("dsn: file:dsn", "dsn: postgres://me:hunter2@x/y", "never written here"),
        ("table: x", "table: x\nquery: select 1", "keep one"),
        ("cursor: {columns: [ts]}", "cursor: {columns: [ts, ts]}", "stands twice"),
        ("cursor: {columns: [ts]}", "cursor: {columns: [ts], overlap: soon}", "soon"),
        ("cursor: {columns: [ts]}", "cursor: {colums: [ts]}", "did you mean `columns`"),
    ] {
        let error = parse(&good.replace(from, to)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(says) && !error.contains("hunter2"), "{to}: {error}");
    }
}
