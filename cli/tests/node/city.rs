//! Folders of a city, with CometBFT's real files.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use concordat_broker::config::{ExchangeConfig, NodeConfig};
use concordat_cli::layout::{CitySpec, CometSettings, LayoutError, Ports, create_city, load_city};
use concordat_cli::servers::Server;
use concordat_cli::supervisor::core::Shown;
use concordat_cli::supervisor::{State, comet_status, plan, status, wait_up};
use concordat_protocol::ids::AgencyId;
use serde_json::json;

use super::helpers::{kill9, server, supervise, wait_for};

pub fn spec(cometbft: &Path) -> CitySpec {
    let agencies = ["grid", "transport", "police", "court"].map(|a| AgencyId::new(a).unwrap()).to_vec();
    let (ports, comet) = (Ports::Free, CometSettings::BASE);
    CitySpec { chain: "city-test".into(), agencies, ports, comet, cometbft: cometbft.to_owned() }
}

const TIME: &str = "2026-01-01T00:00:00Z";

fn loose(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode();
        if entry.file_type().unwrap().is_dir() {
            if mode & 0o077 != 0 {
                found.push(format!("{:?} {mode:o}", entry.path()));
            }
            loose(&entry.path(), found);
        }
    }
}

#[test]
fn a_city_has_one_private_folder_an_agency_and_one_genesis() {
    let Some(cometbft) = server("a_city_has_one_private_folder_an_agency_and_one_genesis", Server::CometBft) else {
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("city");
    let city = create_city(&root, &spec(&cometbft)).unwrap();
    city.write_genesis(TIME, &json!({"rule": 1})).unwrap();
    let mut open = Vec::new();
    loose(&root, &mut open);
    assert_eq!(open, Vec::<String>::new(), "folders that others may enter");

    let mut ports = BTreeSet::new();
    let mut geneses = BTreeSet::new();
    for a in &city.agencies {
        let cfg = NodeConfig::load(&a.dir).unwrap();
        assert_eq!(cfg, a.config);
        assert_eq!(cfg.peers.len(), 3);
        ports.extend([cfg.listen.clone(), cfg.comet.p2p.clone()]);
        assert_eq!(cfg.nats.password.resolve(&cfg.dir).unwrap().len(), 48);
        geneses.insert(std::fs::read_to_string(a.dir.join("comet/config/genesis.json")).unwrap());
        for secret in
            ["keys/nats.password", "comet/config/node_key.json", "comet/config/priv_validator_key.json", "node.yaml"]
        {
            let mode = std::fs::metadata(a.dir.join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        let toml = std::fs::read_to_string(a.dir.join("comet/config/config.toml")).unwrap();
        for line in [
            "create_empty_blocks = false",
            "recheck = false",
            "pex = false",
            "indexer = \"null\"",
            "send_rate = 50000000",
        ] {
            assert!(toml.lines().any(|l| l == line), "{line}");
        }
    }
    assert_eq!(ports.len(), 8, "no port is used twice");
    assert_eq!(geneses.len(), 1);
    let genesis: serde_json::Value = serde_json::from_str(geneses.first().unwrap()).unwrap();
    assert_eq!(genesis["validators"].as_array().unwrap().len(), 4);
    assert_eq!(genesis["app_state"], json!({"rule": 1}));
    let exchange = ExchangeConfig::load(&city.exchange).unwrap();
    assert_eq!(exchange.node_socket().canonicalize().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(load_city(&root, &cometbft).unwrap().agencies[2].validator, city.agencies[2].validator);

    let again = create_city(&root, &spec(&cometbft)).unwrap_err();
    assert!(matches!(again, LayoutError::Exists(_)), "{again}");
}

#[test]
fn a_city_that_cannot_be_made_leaves_nothing_and_says_why() {
    let tmp = tempfile::tempdir().unwrap();
    let none = spec(Path::new("/nonexistent/cometbft"));
    let root = tmp.path().join("a");
    assert_eq!(create_city(&root, &none).unwrap_err().code(), "server-failed");
    assert!(!root.exists());
    // A root so deep that a socket in it cannot be bound.
    let deep = tmp.path().join("d".repeat(100));
    let e = create_city(&deep, &none).unwrap_err();
    assert!(e.to_string().contains("at most 107") && e.to_string().contains("shorter"), "{e}");
    let twice = CitySpec { agencies: vec![AgencyId::new("grid").unwrap(); 2], ..none.clone() };
    assert_eq!(create_city(&root, &twice).unwrap_err().code(), "layout-spec");
    let reserved = CitySpec { agencies: vec![AgencyId::new("exchange").unwrap()], ..none };
    assert_eq!(create_city(&root, &reserved).unwrap_err().code(), "layout-spec");
}

#[test]
fn a_port_taken_is_refused_before_anything_starts() {
    let Some(cometbft) = server("a_port_taken_is_refused_before_anything_starts", Server::CometBft) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let city = create_city(&tmp.path().join("c"), &spec(&cometbft)).unwrap();
    let grid = &city.agencies[0];
    let _other = std::net::TcpListener::bind(&grid.config.listen).unwrap();
    let e = plan(&grid.dir, Path::new("concordat")).unwrap_err();
    assert_eq!(e.code(), "port-taken");
    let port = grid.config.listen.rsplit_once(':').unwrap().1;
    assert!(
        e.to_string().contains(port) && e.to_string().contains("grid's broker") && e.to_string().contains("node.yaml"),
        "{e}"
    );
    let names = |units: Vec<Vec<_>>| {
        units
            .into_iter()
            .map(|u| u.into_iter().map(|p: concordat_cli::supervisor::Process| p.name).collect())
            .collect::<Vec<Vec<_>>>()
    };
    let police = plan(&city.agencies[2].dir, Path::new("concordat")).unwrap();
    assert_eq!(names(police.units), [vec!["app", "comet"], vec!["executor"], vec!["broker"]]);
}

#[test]
fn a_node_that_computes_another_state_is_halted_and_the_other_three_go_on() {
    let name = "a_node_that_computes_another_state_is_halted_and_the_other_three_go_on";
    let Some(cometbft) = server(name, Server::CometBft) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let city = create_city(&tmp.path().join("c"), &spec(&cometbft)).unwrap();
    city.write_genesis(TIME, &json!({})).unwrap();
    let apps = ["kvstore", "kvstore", "kvstore", "noop"];
    let _running: Vec<_> =
        city.agencies.iter().zip(apps).map(|(a, app)| supervise(&a.dir, app, true).unwrap()).collect();
    let odd = &city.agencies[3].dir;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for a in &city.agencies[..3] {
        wait_up(&a.dir, std::time::Duration::from_secs(30)).unwrap();
        let rpc = a.config.rpc().unwrap();
        wait_for("height 2", || runtime.block_on(comet_status(&rpc)).filter(|s| s.height >= 2));
    }
    let state = wait_for("the halt", || State::read(odd).filter(|s| !s.halted.is_empty()));
    assert!(state.halted[0].contains("differs"), "{:?}", state.halted);
    assert_eq!(state.processes[0].state, Shown::Halted);
    let pid = state.processes[0].process.unwrap();
    assert!(pid.alive(), "it stays as it is, to be looked at");
    assert!(status(odd).halted_note.is_some());
    // A killed node comes back over the socket it left behind, and follows on.
    let (killed, rpc) = (&city.agencies[1], city.agencies[1].config.rpc().unwrap());
    let before = State::read(&killed.dir).unwrap().processes[0].process.unwrap();
    kill9(before.pid);
    let up_again = || State::read(&killed.dir).filter(|s| s.all_up() && s.processes[0].process != Some(before));
    assert_eq!(wait_for("the killed node", up_again).processes[0].last_exit.as_deref(), Some("signal 9"));
    let height = runtime.block_on(comet_status(&city.agencies[0].config.rpc().unwrap())).unwrap().height;
    wait_for("the height of the others", || runtime.block_on(comet_status(&rpc)).filter(|s| s.height > height));
    // Not even a new supervisor starts it again.
    concordat_cli::supervisor::stop(odd).unwrap();
    let _again = supervise(odd, "noop", true).unwrap();
    let state = wait_for("the new supervisor", || State::read(odd).filter(|s| s.supervisor.alive()));
    assert_eq!((state.processes[0].state, state.processes[0].process), (Shown::Halted, None));
    assert!(State::read(&city.agencies[0].dir).unwrap().all_up());
}
