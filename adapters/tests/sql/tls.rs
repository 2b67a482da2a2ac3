//! Databases that are reached by TLS alone, with a certificate of their own authority.

use std::path::Path;

use concordat_adapters::contract::{AdapterError, Checkpoint};
use concordat_adapters::parse;

use crate::servers::{Kind, Server};

const USER: &str = "reader";

/// A server with one row, and a login that may read it and, in PostgreSQL, replicate.
fn server(kind: Kind) -> Option<Server> {
    let Some(server) = Server::with_tls(kind) else {
        eprintln!("SKIPPED tls: {kind:?} or openssl is not installed");
        return None;
    };
    server.sql("CREATE TABLE meter (id bigint PRIMARY KEY, ts char(1) NOT NULL); INSERT INTO meter VALUES (7, 'x')");
    server.sql(match kind {
        Kind::Postgres => {
            "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'secret'; GRANT SELECT ON meter TO reader; CREATE PUBLICATION p FOR TABLE meter"
        }
        _ => "CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT SELECT ON meter TO reader@'127.0.0.1'",
    });
    Some(server)
}

/// What the first read gives: `connect` are members beside the address.
fn read(server: &Server, dir: &Path, kind: &str, host: &str, connect: &str) -> Result<usize, AdapterError> {
    let (scheme, database) =
        if server.kind == Kind::Postgres { ("postgresql", "postgres") } else { ("mariadb", "mysql") };
    let port = server.port.unwrap();
    std::fs::write(dir.join("dsn"), format!("{scheme}://{USER}:secret@{host}:{port}/{database}")).unwrap();
    let more = match kind {
        "sql-poll" => "cursor: {columns: [id]}\ndeletes: none\n",
        _ => "publication: p\nslot: s\n",
    };
    let yaml = format!(
        "adapter: t\nkind: {kind}\nconnect: {{dsn: file:dsn, {connect}}}\ninto: ds:grid/load@1\ntable: meter\n{more}\
         map: {{id: {{type: integer}}}}\nignore: [ts]\nkey: [id]\n"
    );
    let mut source = parse(&yaml).unwrap().open(dir)?;
    Ok(source.read(&Checkpoint::default(), 9)?.records.len())
}

fn only_with_the_right_certificate(server: &Server, kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    let ca = |name: &str| format!("tls: require, ca: {}", server.folder.join(name).display());
    let failed = |host: &str, connect: &str| {
        let error = read(server, dir.path(), kind, host, connect).unwrap_err();
        assert!(!error.to_string().contains("secret"), "no secret in {error}");
        (error.class().name(), error.code(), error.to_string())
    };
    assert_eq!(read(server, dir.path(), kind, "localhost", &ca("cert.pem")).unwrap(), 1);
    // The twins: another authority, those of the machine, another name, no TLS at all.
    for (host, connect) in
        [("localhost", ca("other.pem")), ("localhost", "tls: require".to_owned()), ("127.0.0.1", ca("cert.pem"))]
    {
        let (class, code, said) = failed(host, &connect);
        assert_eq!((class, code), ("auth", "source.tls"), "{host} {connect}: {said}");
    }
    let (class, _, said) = failed("localhost", "tls: off");
    assert_eq!(class, "auth", "{said}");
}

#[test]
fn postgres_is_read_only_with_the_right_certificate() {
    let Some(server) = server(Kind::Postgres) else { return };
    only_with_the_right_certificate(&server, "sql-poll");
    only_with_the_right_certificate(&server, "postgres-changes");
}

#[test]
fn mariadb_is_read_only_with_the_right_certificate() {
    let Some(server) = server(Kind::Maria) else { return };
    only_with_the_right_certificate(&server, "sql-poll");
}
