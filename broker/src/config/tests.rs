#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

const GOOD: &str = "version: 1
agency: police
chain: city-1
listen: 127.0.0.1:4101
nats: {url: \"nats://127.0.0.1:4222\", monitor: [\"http://127.0.0.1:8222\"], user: police, password: \"file:keys/nats.password\"}
exchange: {account: EXCHANGE, own: POLICE}
comet: {rpc: \"unix:run/rpc.sock\", p2p: 127.0.0.1:4102}
peers: [{agency: court, url: \"http://127.0.0.1:4201\"}]
";

fn load(text: &str) -> Result<NodeConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(NODE_FILE), text).unwrap();
    NodeConfig::load(dir.path())
}

#[test]
fn paths_lie_in_the_folder_and_the_file_round_trips() {
    let cfg = load(GOOD).unwrap();
    assert_eq!(cfg.node_socket(), cfg.dir.join("run/node.sock"));
    assert_eq!(cfg.rpc().unwrap(), RpcAddr::Unix(cfg.dir.join("run/rpc.sock")));
    assert_eq!(cfg.ledger_store(), cfg.dir.join("ledger/state.redb"));
    let again = load(&serde_saphyr::to_string(&cfg).unwrap()).unwrap();
    assert_eq!(NodeConfig { dir: cfg.dir.clone(), ..again }, cfg);
}

#[test]
fn a_hosted_agency_names_its_host_and_has_no_cometbft() {
    let hosted = |more: &str| {
        let own: String = GOOD.lines().filter(|l| !l.starts_with("comet:")).map(|l| format!("{l}\n")).collect();
        load(&format!("{own}{more}"))
    };
    let cfg = hosted("hosted: {by: grid, node: ../grid/run/node.sock, rpc: \"unix:../grid/run/rpc.sock\"}\n").unwrap();
    assert_eq!(cfg.rpc().unwrap(), RpcAddr::Unix(cfg.dir.join("../grid/run/rpc.sock")));
    assert_eq!(cfg.hosted.as_ref().unwrap().node(&cfg.dir), cfg.dir.join("../grid/run/node.sock"));
    assert_eq!(cfg.node_socket(), cfg.dir.join("run/node.sock"), "its own processes ask at home");
    for (more, named) in [
        ("hosted: {by: police, node: n.sock, rpc: \"http://h:1\"}\n", "hosted.by"),
        ("hosted: {by: grid, node: n.sock, rpc: \"ftp://h:1\"}\n", "hosted.rpc"),
        ("", "comet.p2p"),
    ] {
        let e = hosted(more).unwrap_err().to_string();
        assert!(e.contains(named), "{e}");
    }
}

#[test]
fn another_version_is_one_sentence_even_with_unknown_keys() {
    let e = load("version: 7\nfuture: {a: 1}\n").unwrap_err();
    assert_eq!(e.code(), "config-version");
    assert!(e.to_string().contains("version 7") && !e.to_string().contains('\n'), "{e}");
}

#[test]
fn unknown_and_duplicate_keys_are_refused_with_their_line() {
    let unknown = load(&format!("{GOOD}colour: blue\n")).unwrap_err();
    assert_eq!(unknown.code(), "config-syntax");
    assert!(unknown.to_string().contains("colour"), "{unknown}");
    assert_eq!(load(&format!("{GOOD}agency: court\n")).unwrap_err().code(), "config-syntax");
}

#[test]
fn a_secret_in_clear_is_refused_and_not_repeated() {
    let e = load(&GOOD.replace("file:keys/nats.password", "hunter2hunter2")).unwrap_err();
    assert!(e.to_string().contains("by reference") && !e.to_string().contains("hunter2"), "{e}");
}

#[test]
fn contradictions_name_the_field() {
    for (from, to, name) in [
        ("listen: 127.0.0.1:4101", "listen: nowhere", "listen"),
        ("agency: court", "agency: police", "peers"),
        ("http://127.0.0.1:8222", "https://127.0.0.1:8222", "nats.monitor"),
        ("http://127.0.0.1:8222", "http://streams", "nats.monitor"),
        ("unix:run/rpc.sock", "ftp://x", "comet.rpc"),
        ("chain: city-1", "chain: \"city 1\"", "chain"),
    ] {
        let e = load(&GOOD.replace(from, to)).unwrap_err();
        assert!(matches!(&e, ConfigError::Field { field, .. } if field == name), "{e}");
    }
}

#[test]
fn a_missing_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let e = NodeConfig::load(dir.path()).unwrap_err();
    assert_eq!(e.code(), "config-missing");
    assert!(e.to_string().contains("concordat init"));
}

#[test]
fn a_secret_file_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    fs::write(&file, "s3cret\n").unwrap();
    let secret = SecretRef::File("p".into());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let e = secret.resolve(dir.path()).unwrap_err();
    assert!(e.to_string().contains("chmod 600") && !e.to_string().contains("s3cret"), "{e}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(secret.resolve(dir.path()).unwrap().as_str(), "s3cret");
}
