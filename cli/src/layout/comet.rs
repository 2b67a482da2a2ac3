//! CometBFT's home folder: made by `cometbft init`, then set key by key.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{LayoutError, files};

/// Bytes of a block: 1 MB keeps a revocation under 0.7 s while 60 MB of batches wait.
pub const BLOCK_BYTES: u64 = 1_048_576;
/// Power of each validator at genesis.
pub const POWER: u64 = 10;

/// Times of consensus, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CometSettings {
    /// How long a proposal may take in a height's first round.
    pub propose: u32,
    /// How long a round waits for late votes.
    pub vote: u32,
    /// What each further round adds.
    pub delta: u32,
    /// Rest between two blocks.
    pub commit: u32,
    /// Rest between two looks at a peer's state.
    pub gossip: u32,
    /// Rest between two writes to a peer.
    pub flush: u32,
}

impl CometSettings {
    /// For one host or one city's network. A round whose proposer is gone costs `propose` and `vote`; a round that was
    /// lost because these are short for a loaded moment costs as much, and `delta` gives the next one room.
    pub const BASE: Self = Self { propose: 250, vote: 50, delta: 250, commit: 100, gossip: 10, flush: 10 };
    /// For loopback only.
    pub const FAST: Self = Self { propose: 200, vote: 50, delta: 100, commit: 20, gossip: 5, flush: 2 };
}

/// A validator as its genesis entry needs it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Validator {
    /// Upper-case hexadecimal address.
    pub address: String,
    /// Base64 of the Ed25519 public key.
    pub pub_key: String,
    /// Identity of its node on the peer network, lower-case hexadecimal.
    pub node_id: String,
}

/// Makes `home` with fresh keys and returns its validator.
pub fn init(cometbft: &Path, home: &Path) -> Result<Validator, LayoutError> {
    run(cometbft, &["init"], home)?;
    let node_id = run(cometbft, &["show-node-id"], home)?;
    fs::remove_file(home.join("config/genesis.json")).map_err(|e| LayoutError::io(home, "be made", e))?;
    validator(home, node_id.trim())
}

/// Reads the validator of an existing home.
pub fn load(cometbft: &Path, home: &Path) -> Result<Validator, LayoutError> {
    let node_id = run(cometbft, &["show-node-id"], home)?;
    validator(home, node_id.trim())
}

fn validator(home: &Path, node_id: &str) -> Result<Validator, LayoutError> {
    #[derive(Deserialize)]
    struct Key {
        value: String,
    }
    #[derive(Deserialize)]
    struct File {
        address: String,
        pub_key: Key,
    }
    let path = home.join("config/priv_validator_key.json");
    let text = zeroize::Zeroizing::new(fs::read(&path).map_err(|e| LayoutError::io(&path, "be read", e))?);
    let file: File = serde_json::from_slice(&text)
        .map_err(|e| LayoutError::io(&path, "be read", std::io::Error::other(format!("line {}", e.line()))))?;
    Ok(Validator { address: file.address, pub_key: file.pub_key.value, node_id: node_id.to_owned() })
}

fn run(cometbft: &Path, args: &[&str], home: &Path) -> Result<String, LayoutError> {
    let out = Command::new(cometbft)
        .args(args)
        .arg("--home")
        .arg(home)
        .output()
        .map_err(|e| LayoutError::Server { what: format!("cometbft {}", args.join(" ")), why: e.to_string() })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&out.stderr).trim().chars().take(300).collect();
    Err(LayoutError::Server { what: format!("cometbft {}", args.join(" ")), why })
}

/// What a home needs to know of its place.
pub struct Place<'a> {
    /// Name shown to peers.
    pub moniker: &'a str,
    /// The application's socket.
    pub abci_socket: &'a Path,
    /// `unix:///path` or `tcp://host:port`.
    pub rpc: &'a str,
    /// `host:port` for peers.
    pub p2p: &'a str,
    /// `id@host:port` of the others.
    pub peers: &'a [String],
}

/// Sets our keys in the `config.toml` that `init` wrote.
pub fn configure(home: &Path, place: &Place<'_>, times: &CometSettings) -> Result<(), LayoutError> {
    let path = home.join("config/config.toml");
    let mut text = fs::read_to_string(&path).map_err(|e| LayoutError::io(&path, "be read", e))?;
    for (section, key, value) in settings(place, times) {
        text = set(&text, section, key, &value).ok_or_else(|| LayoutError::Server {
            what: format!("setting {section}.{key} in {}", path.display()),
            why: "the key is not there: this is not the pinned CometBFT, run `make servers`".into(),
        })?;
    }
    files::private_file(&path, text.as_bytes())
}

fn settings(place: &Place<'_>, t: &CometSettings) -> Vec<(&'static str, &'static str, String)> {
    let text = |s: &str| format!("\"{s}\"");
    let ms = |n: u32| format!("\"{n}ms\"");
    let bytes_max = concordat_protocol::limits::TX_BYTES_MAX;
    vec![
        ("", "moniker", text(place.moniker)),
        ("", "proxy_app", format!("\"unix://{}\"", place.abci_socket.display())),
        ("", "log_level", text("state:info,*:error")),
        ("rpc", "laddr", text(place.rpc)),
        ("rpc", "max_body_bytes", "8000000".into()),
        ("p2p", "laddr", format!("\"tcp://{}\"", place.p2p)),
        ("p2p", "persistent_peers", text(&place.peers.join(","))),
        ("p2p", "persistent_peers_max_dial_period", text("2s")),
        ("p2p", "addr_book_strict", "false".into()),
        ("p2p", "allow_duplicate_ip", "true".into()),
        ("p2p", "pex", "false".into()),
        ("p2p", "flush_throttle_timeout", ms(t.flush)),
        ("p2p", "send_rate", "50000000".into()),
        ("p2p", "recv_rate", "50000000".into()),
        ("mempool", "recheck", "false".into()),
        ("mempool", "size", "50000".into()),
        ("mempool", "max_txs_bytes", "268435456".into()),
        ("mempool", "max_tx_bytes", bytes_max.to_string()),
        ("mempool", "cache_size", "100000".into()),
        ("consensus", "timeout_propose", ms(t.propose)),
        ("consensus", "timeout_propose_delta", ms(t.delta)),
        ("consensus", "timeout_prevote", ms(t.vote)),
        ("consensus", "timeout_prevote_delta", ms(t.delta)),
        ("consensus", "timeout_precommit", ms(t.vote)),
        ("consensus", "timeout_precommit_delta", ms(t.delta)),
        ("consensus", "timeout_commit", ms(t.commit)),
        ("consensus", "create_empty_blocks", "false".into()),
        ("consensus", "create_empty_blocks_interval", text("5s")),
        ("consensus", "peer_gossip_sleep_duration", ms(t.gossip)),
        ("tx_index", "indexer", text("null")),
    ]
}

/// Replaces the value of `key` in `[section]` ("" is the head of the file); `None` when it is not there exactly once.
fn set(text: &str, section: &str, key: &str, value: &str) -> Option<String> {
    let (mut here, mut found) = (String::new(), 0);
    let mut out = String::with_capacity(text.len() + value.len());
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            here = name.to_owned();
        }
        let is_key = here == section && trimmed.split_once('=').is_some_and(|(k, _)| k.trim() == key);
        if is_key {
            found += 1;
            out.push_str(&format!("{key} = {value}\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    (found == 1).then_some(out)
}

/// The genesis file that every home of a chain holds, byte for byte the same.
pub fn genesis(chain: &str, time: &str, validators: &[(&str, &Validator)], app_state: &Value) -> Value {
    let validators: Vec<Value> = validators
        .iter()
        .map(|(name, v)| {
            json!({"address": v.address, "pub_key": {"type": "tendermint/PubKeyEd25519", "value": v.pub_key}, "power": POWER.to_string(), "name": name})
        })
        .collect();
    json!({
        "genesis_time": time,
        "chain_id": chain,
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": BLOCK_BYTES.to_string(), "max_gas": "-1"},
            "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "65536"},
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": "0"},
            "abci": {"vote_extensions_enable_height": "0"}
        },
        "validators": validators,
        "app_hash": "",
        "app_state": app_state
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_key_is_set_in_its_own_section_only() {
        let text = "laddr = \"a\"\n[rpc]\nladdr = \"b\"\n# laddr = \"x\"\n[p2p]\nladdr = \"c\"\n";
        assert_eq!(set(text, "p2p", "laddr", "\"z\"").unwrap(), text.replace("\"c\"", "\"z\""));
        assert_eq!(set(text, "", "laddr", "\"z\"").unwrap(), text.replace("\"a\"", "\"z\""));
        assert_eq!(set(text, "rpc", "nothing", "1"), None);
    }
}
