//! What the Helm chart renders is what this release's programs read: configuration, documents, commands and CometBFT's
//! settings. That the manifests are Kubernetes' own is tests/helm/check.sh.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use concordat_broker::config::{ExchangeConfig, NodeConfig, RpcAddr};
use concordat_broker::host::load_datasets;
use concordat_broker::keys;
use concordat_cli::args::Cli;
use concordat_cli::layout::comet::{self, CometSettings, Place};
use concordat_cli::servers::{Server, find};
use serde_json::Value;

/// The node's folder in every container.
const DIR: &str = "/var/lib/concordat";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A missing tool is a named skip, and a failure in CI.
fn skipped(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{test}: {why}");
    eprintln!("SKIPPED {test}: {why}");
}

fn helm(test: &str) -> Option<PathBuf> {
    let out = Command::new(root().join("tests/servers/ensure.sh")).arg("helm").output().unwrap();
    if out.status.success() {
        return Some(String::from_utf8(out.stdout).unwrap().trim().into());
    }
    skipped(test, String::from_utf8_lossy(&out.stderr).trim());
    None
}

/// Manifests by kind and name.
struct Rendered(BTreeMap<(String, String), Value>);

impl Rendered {
    fn of(helm: &Path, values: &str, more: &[String]) -> Self {
        let (chart, home) = (root().join("helm/concordat"), tempfile::tempdir().unwrap());
        let mut run = Command::new(helm);
        run.args(["template", "city"]).arg(&chart).arg("-f").arg(chart.join("ci").join(values)).args(more);
        let out = run.env("HELM_CACHE_HOME", home.path()).env("HELM_CONFIG_HOME", home.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let mut all = BTreeMap::new();
        for document in format!("\n{text}").split("\n---\n") {
            let value: Value = serde_saphyr::from_str(document).unwrap_or(Value::Null);
            let word = |p: &str| value.pointer(p).and_then(Value::as_str).map(str::to_owned);
            if let (Some(kind), Some(name)) = (word("/kind"), word("/metadata/name")) {
                assert!(all.insert((kind, name), value).is_none(), "rendered twice");
            }
        }
        Self(all)
    }

    fn get(&self, kind: &str, suffix: &str) -> &Value {
        let mut found = self.0.iter().filter(|((k, n), _)| k == kind && n.ends_with(suffix));
        let one = found.next().unwrap_or_else(|| panic!("no {kind} *{suffix}")).1;
        assert!(found.next().is_none(), "more than one {kind} *{suffix}");
        one
    }

    fn text(&self, config_map: &str, key: &str) -> &str {
        self.get("ConfigMap", config_map)["data"][key].as_str().unwrap()
    }

    /// Pod templates, by the name of what holds them.
    fn pods(&self) -> Vec<(&str, &Value)> {
        self.0
            .iter()
            .filter_map(|((kind, name), v)| match kind.as_str() {
                "Deployment" | "StatefulSet" => Some((name.as_str(), v.pointer("/spec/template/spec")?)),
                "Pod" => Some((name.as_str(), v.get("spec")?)),
                _ => None,
            })
            .collect()
    }

    /// Lays a workload's ConfigMaps out as its container sees them, below `to`.
    fn mount(&self, workload: &str, to: &Path) {
        let (_, pod) = self.pods().into_iter().find(|(n, _)| n.ends_with(workload)).unwrap();
        let volumes: BTreeMap<&str, &Value> = list(pod, "volumes").iter().map(|v| (word(v, "name"), v)).collect();
        for mount in list(&pod["containers"][0], "volumeMounts") {
            let Some(map) = volumes[word(mount, "name")].pointer("/configMap") else { continue };
            let at = to.join(word(mount, "mountPath").strip_prefix(DIR).unwrap().trim_start_matches('/'));
            let name = word(map, "name");
            if let Some(sub) = mount["subPath"].as_str() {
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::write(at, self.text(name, sub)).unwrap();
                continue;
            }
            std::fs::create_dir_all(&at).unwrap();
            for item in map["items"].as_array().into_iter().flatten() {
                std::fs::write(at.join(word(item, "path")), self.text(name, word(item, "key"))).unwrap();
            }
        }
    }
}

fn word<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_else(|| panic!("{key} in {v}"))
}

fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v[key].as_array().map_or(&[], Vec::as_slice)
}

fn node(rendered: &Rendered, key: &str) -> (NodeConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("node.yaml"), rendered.text("-node", key)).unwrap();
    (NodeConfig::load(dir.path()).unwrap(), dir)
}

#[test]
fn the_configuration_is_read_by_the_node_and_the_exchange() {
    let Some(helm) = helm("the_configuration_is_read_by_the_node_and_the_exchange") else { return };
    let (minimal, _dir) = node(&Rendered::of(&helm, "minimal.yaml", &[]), "node.yaml");
    assert_eq!(
        (minimal.agency.as_str(), minimal.exchange.own.as_str(), minimal.nats.user.as_str()),
        ("police", "POLICE", "police")
    );
    assert_eq!(minimal.comet.p2p, "city-concordat-p2p.default.svc:26656");

    let full = Rendered::of(&helm, "full.yaml", &[]);
    let (broker, _dir) = node(&full, "node.yaml");
    assert_eq!((broker.listen.as_str(), broker.nats.user.as_str()), ("0.0.0.0:9000", "police-node"));
    assert_eq!((broker.limits.http_body_bytes, broker.limits.page_rows, broker.peers.len()), (4_000_000, 500, 2));
    let (adapter, _dir) = node(&full, "adapter-node.yaml");
    assert_eq!(NodeConfig { listen: broker.listen.clone(), dir: broker.dir.clone(), ..adapter.clone() }, broker);
    let service = full.get("Service", "-broker");
    assert_eq!(
        adapter.listen,
        format!("{}:{}", word(&service["metadata"], "name"), service["spec"]["ports"][0]["port"])
    );

    let city = Rendered::of(&helm, "exchange.yaml", &[]);
    let (fire, _dir) = node(&city, "node.yaml");
    assert_eq!(fire.exchange.own, fire.agency.account(), "a hyphen is a _ in an account");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("exchange.yaml"), city.text("-exchange", "exchange.yaml")).unwrap();
    let exchange = ExchangeConfig::load(dir.path()).unwrap();
    assert_eq!((exchange.agencies.len(), exchange.feed_bytes, exchange.nats.monitor.len()), (5, 34_359_738_368, 2));
    assert_eq!(exchange.node_socket, fire.node_socket.strip_prefix(&fire.dir).unwrap_or(&fire.node_socket));
}

/// The demo's documents, through values and ConfigMaps, are the folder that the broker, the executor and an adapter read.
#[test]
fn documents_arrive_under_their_own_names() {
    let Some(helm) = helm("documents_arrive_under_their_own_names") else { return };
    let demo = root().join("cli/demo");
    let mut more = Vec::new();
    for (kind, ext) in [("datasets", ".yaml"), ("agreements", ".yaml"), ("schemas", "")] {
        for entry in std::fs::read_dir(demo.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches(ext).replace('.', "\\.");
            more.extend(["--set-file".to_owned(), format!("{kind}.{name}={}", path.display())]);
        }
    }
    let load = demo.join("adapters/load.yaml");
    more.extend(["--set-file".to_owned(), format!("adapters[0].document={}", load.display())]);
    more.extend(["--set".to_owned(), "adapters[0].name=load".to_owned()]);
    let rendered = Rendered::of(&helm, "minimal.yaml", &more);
    for workload in ["-broker", "-executor"] {
        let dir = tempfile::tempdir().unwrap();
        rendered.mount(workload, dir.path());
        NodeConfig::load(dir.path()).unwrap();
        let ids: BTreeSet<String> = load_datasets(dir.path()).unwrap().iter().map(|d| d.id.to_string()).collect();
        let all = ["ds:court/register@1", "ds:grid/load@1", "ds:police/stops@1", "ds:transport/i94@1"];
        assert_eq!(ids, all.map(str::to_owned).into(), "{workload}");
        let agreements = std::fs::read_dir(dir.path().join("agreements")).unwrap().count();
        assert_eq!(agreements, std::fs::read_dir(demo.join("agreements")).unwrap().count());
    }
    let dir = tempfile::tempdir().unwrap();
    rendered.mount("-adapter-load", dir.path());
    let document = std::fs::read_to_string(dir.path().join("adapters/load.yaml")).unwrap();
    assert_eq!(document.trim_end(), std::fs::read_to_string(load).unwrap().trim_end());
    concordat_adapters::plan::Plan::parse(&document).unwrap();
}

#[test]
fn every_container_runs_a_command_that_exists_without_rights() {
    let Some(helm) = helm("every_container_runs_a_command_that_exists_without_rights") else { return };
    for values in ["minimal.yaml", "full.yaml", "exchange.yaml"] {
        let rendered = Rendered::of(&helm, values, &[]);
        let mut commands = BTreeSet::new();
        for (name, pod) in rendered.pods() {
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert_eq!(pod.pointer("/securityContext/runAsNonRoot"), Some(&Value::Bool(true)), "{name}");
            assert_eq!(pod.pointer("/securityContext/seccompProfile/type").unwrap(), "RuntimeDefault", "{name}");
            for c in list(pod, "initContainers").iter().chain(list(pod, "containers")) {
                let rights = &c["securityContext"];
                assert_eq!(rights["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(rights["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(rights.pointer("/capabilities/drop/0").unwrap(), "ALL", "{name}");
                assert!(c.pointer("/resources/limits/memory").is_some(), "{name}");
                let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
                let probes = probes.iter().filter_map(|p| c[p].pointer("/exec/command"));
                for command in probes.chain([&c["command"]]) {
                    let words: Vec<&str> = command.as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
                    Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{name}: {words:?}: {e}"));
                    commands.insert(words[..3].join(" "));
                }
            }
        }
        let of_every_node = ["node app", "pod comet", "node broker", "node executor", "pod keys", "pod ready"];
        for part in of_every_node {
            assert!(commands.iter().any(|c| c.starts_with(&format!("concordat {part}"))), "{values}: {part}");
        }
        assert_eq!(commands.contains("concordat node exchange"), values == "exchange.yaml");
        assert_eq!(commands.contains("concordat adapter run"), values == "full.yaml");
    }
}

/// A pod holds the keys of its own process and no others.
#[test]
fn keys_go_to_the_process_that_signs_with_them() {
    let Some(helm) = helm("keys_go_to_the_process_that_signs_with_them") else { return };
    let rendered = Rendered::of(&helm, "full.yaml", &[]);
    let file = |name: &str| format!("{name}.key");
    let broker = [keys::WRITER_BROKER, keys::ENVELOPE, keys::GATEWAY, keys::KEM].map(file);
    let executor = [keys::WRITER_EXECUTOR, keys::RELEASE].map(file);
    let plain = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let with = |own: &[String], more: &[&str]| own.iter().cloned().chain(plain(more)).collect::<BTreeSet<_>>();
    let expected = BTreeMap::from([
        ("police-broker", with(&broker, &["tokens.yaml", "nats.password"])),
        ("police-executor", with(&executor, &["nats.password"])),
        ("police-adapter-load", plain(&["tokens.yaml"])),
        ("police-adapter-stops", plain(&["tokens.yaml"])),
        ("police-validator", plain(&["node_key.json", "priv_validator_key.json"])),
        ("police-test-ready", plain(&[])),
    ]);
    for (name, pod) in rendered.pods() {
        let mut got = BTreeSet::new();
        for volume in list(pod, "volumes") {
            assert!(volume["secret"].is_null(), "{name}: a whole Secret");
            for source in volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
                let items = list(&source["secret"], "items");
                assert_eq!(items.is_empty(), source["secret"].is_null(), "{name}: a whole Secret");
                got.extend(items.iter().map(|i| word(i, "path").to_owned()));
            }
        }
        assert_eq!(got, expected[name], "{name}");
    }
}

type Settings = BTreeMap<(String, String), String>;

/// `key = value` by section.
fn settings(toml: &str) -> Settings {
    let (mut section, mut all) = (String::new(), BTreeMap::new());
    for line in toml.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            all.insert((section.clone(), key.trim().to_owned()), value.trim().to_owned());
        }
    }
    all
}

/// Validators in pods and validators under the supervisor have the same settings.
#[test]
fn cometbft_has_the_settings_of_the_layout() {
    const TEST: &str = "cometbft_has_the_settings_of_the_layout";
    let Some(helm) = helm(TEST) else { return };
    let cometbft = match find(Server::CometBft) {
        Ok(path) => path,
        Err(e) => return skipped(TEST, &e.to_string()),
    };
    let rendered = Rendered::of(&helm, "minimal.yaml", &[]);
    let (cfg, _dir) = node(&rendered, "node.yaml");
    let chart = settings(rendered.text("-comet", "config.toml"));
    let home = tempfile::tempdir().unwrap();
    comet::init(&cometbft, home.path()).unwrap();
    let file = home.path().join("config/config.toml");
    let before = settings(&std::fs::read_to_string(&file).unwrap());
    let socket = |path: &Path| Path::new(DIR).join(path.strip_prefix(&cfg.dir).unwrap_or(path));
    let RpcAddr::Unix(rpc) = cfg.rpc().unwrap() else { panic!("the RPC is a Unix socket") };
    let place = Place {
        moniker: "police",
        abci_socket: &socket(&cfg.abci_socket()),
        rpc: &format!("unix://{}", socket(&rpc).display()),
        p2p: "0.0.0.0:26656",
        peers: &[],
    };
    comet::configure(home.path(), &place, &CometSettings::BASE).unwrap();
    let layout = settings(&std::fs::read_to_string(&file).unwrap());
    for (key, value) in &chart {
        assert!(before.contains_key(key), "{key:?} is no setting of CometBFT {}", Server::CometBft.version());
        let own = ["addr_book_file", "external_address"].contains(&key.1.as_str());
        assert!(own || layout.get(key) == Some(value), "{key:?}: {value}, the layout says {:?}", layout.get(key));
    }
    for (key, value) in layout.iter().filter(|(k, v)| before.get(*k) != Some(*v)) {
        assert_eq!(chart.get(key), Some(value), "{key:?} is set by the layout only");
    }
}
