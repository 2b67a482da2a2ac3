//! What the ledger says of keys, and acts on them.

use super::{confirmed, passphrases, root_key};
use crate::args::keys::{Opening, Revoke};
use crate::commands::{Ctx, acts};
use crate::context::Api;
use crate::failure::{Exit, Failure};
use concordat_broker::config::NodeConfig;
use concordat_broker::keys::{self, KeyContent, KeyFolder};
use concordat_broker::ledger::node_client::NodeClient;
use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::keys::{KemKey, KeyError, KeyId, PublicKey, SigningKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the own node may take to show what the ledger took.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(15);

/// The agency's own side: its gateway, its configuration, its key files.
pub(super) struct Desk {
    pub(super) api: Api,
    pub(super) cfg: NodeConfig,
    pub(super) folder: KeyFolder,
}

impl Desk {
    pub(super) fn open(ctx: &Ctx, opening: &Opening) -> Result<Self, Failure> {
        let dir = ctx.dir()?;
        let cfg = NodeConfig::load(&dir)?;
        let folder = KeyFolder::of(&cfg).with(passphrases(ctx, opening)?);
        Ok(Self { api: Api::of(&dir, None, "operator")?, cfg, folder })
    }

    /// The agency's keys as the ledger has them.
    pub(super) async fn keys(&self) -> Result<Vec<Value>, Failure> {
        let found = self.api.get(&format!("/admin/v1/agencies/{}/keys", self.cfg.agency)).await?;
        Ok(found["keys"].as_array().cloned().unwrap_or_default())
    }

    /// The newest unrevoked key of a role and label.
    pub(super) async fn active(&self, role: KeyRole, label: Option<&str>) -> Result<Option<KeyId>, Failure> {
        let fits = |k: &&Value| {
            k["role"] == role.word() && k["revoked_ms"] == 0 && label.is_none_or(|label| k["label"] == label)
        };
        let keys = self.keys().await?;
        Ok(keys.iter().rfind(fits).and_then(id_of))
    }

    /// A key's row.
    pub(super) async fn row(&self, id: KeyId) -> Result<Option<Value>, Failure> {
        Ok(self.keys().await?.into_iter().find(|k| id_of(k) == Some(id)))
    }

    /// The next counter of a key.
    pub(super) async fn counter(&self, key: KeyId, body: &ActBody) -> Result<u64, Failure> {
        acts::next_counter(&self.api, key, body).await
    }

    /// Signs an act and submits it through the gateway; waits for the ledger.
    pub(super) async fn act(&self, key: &SigningKey, body: ActBody) -> Result<Value, Failure> {
        acts::submit(&self.api, &self.cfg, key, body).await
    }

    pub(super) async fn submit(&self, tx: Vec<u8>) -> Result<Value, Failure> {
        acts::submit_signed(&self.api, tx).await
    }

    /// Waits until the own node shows a key: its processes look there when they start.
    pub(super) async fn shows(&self, id: KeyId) -> Result<(), Failure> {
        let end = Instant::now() + FOLLOWS_WITHIN;
        while self.row(id).await?.is_none() {
            if Instant::now() >= end {
                let what = format!("key {id} is not on the ledger as this node has it");
                return Err(Failure::new(Exit::Unavailable, "key-not-shown", what));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) fn node(&self) -> NodeClient {
        NodeClient::new(self.cfg.node_socket())
    }

    /// The file in the folder that holds this key; those that do not open are passed over.
    pub(super) fn holder(&self, id: KeyId) -> Option<PathBuf> {
        let held = |path: &Path| public_in(path, &self.folder).is_ok_and(|k| k.key_id() == id);
        self.folder.list().into_iter().map(|(_, path)| path).find(|path| held(path))
    }
}

fn id_of(row: &Value) -> Option<KeyId> {
    row["key_id"].as_str()?.parse().ok()
}

/// The public half of the key in a file, or why that cannot be said.
pub(super) fn public_in(path: &Path, folder: &KeyFolder) -> Result<PublicKey, Failure> {
    let text = match keys::read(path, folder.passphrases())? {
        KeyContent::Secret(text) => text,
        KeyContent::Token(_) => {
            let path = path.to_str().ok_or_else(|| Failure::usage("the file's name is no UTF-8"))?;
            return Ok(keys::open_signing(path, folder.passphrases())?.public().clone());
        }
    };
    let signing = SigningKey::from_secret_text(text.trim_end()).map(|k| k.public().clone());
    let kem = || KemKey::from_secret_text(text.trim_end()).map(|k| k.public().clone());
    let why = |e: KeyError| Failure::new(Exit::Failed, e.code().to_string(), format!("{}: {e}", path.display()));
    signing.or_else(|_| kem()).map_err(why)
}

fn time(ms: &Value) -> String {
    let at = ms.as_u64().filter(|ms| *ms > 0).and_then(|ms| i64::try_from(ms).ok());
    at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).map(|t| t.to_string()).unwrap_or_default()
}

/// `key list`
pub(super) async fn list(ctx: &Ctx) -> Result<(), Failure> {
    let desk = Desk::open(ctx, &Opening::default())?;
    // Nobody is asked for a passphrase only to see a list.
    let folder = KeyFolder::of(&desk.cfg);
    let mut files: BTreeMap<KeyId, String> = BTreeMap::new();
    let mut others = Vec::new();
    // The second half of a key in a token is no key of its own.
    for (name, path) in folder.list().into_iter().filter(|(name, _)| !name.ends_with(".pq")) {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match public_in(&path, &folder).map(|k| k.key_id()) {
            Ok(id) => drop(files.entry(id).and_modify(|f| *f = format!("{f}, {file}")).or_insert(file)),
            Err(e) => others.push(json!({"role": "", "label": name, "state": e.code, "file": file})),
        }
    }
    let mut rows: Vec<Value> = desk.keys().await?.iter().map(|k| row(k, &mut files)).collect();
    rows.extend(
        files
            .into_iter()
            .map(|(id, file)| json!({"key_id": id.to_string(), "state": "not on the ledger", "file": file})),
    );
    rows.extend(others);
    ctx.out.list(&rows, &["role", "label", "key_id", "suite", "state", "since", "contested_since", "file"]);
    Ok(())
}

fn row(key: &Value, files: &mut BTreeMap<KeyId, String>) -> Value {
    let state = match (key["revoked_ms"].as_u64(), key["compromised_since_ms"].as_u64()) {
        (Some(0), _) => "active",
        (_, Some(0)) => "revoked",
        _ => "contested",
    };
    json!({
        "role": key["role"], "label": key["label"], "key_id": key["key_id"], "suite": key["suite"], "state": state,
        "since": time(&key["revoked_ms"]), "contested_since": time(&key["compromised_since_ms"]),
        "file": id_of(key).and_then(|id| files.remove(&id)),
    })
}

/// `key revoke`
pub(super) async fn revoke(ctx: &Ctx, r: &Revoke) -> Result<(), Failure> {
    let desk = Desk::open(ctx, &r.opening)?;
    let found = desk.row(r.key_id).await?;
    let key = found.ok_or_else(|| {
        let what = format!("{} has no key {} on the ledger: see `key list`", desk.cfg.agency, r.key_id);
        Failure::new(Exit::NotFound, "unknown-key", what)
    })?;
    let since = r.compromised_since.unwrap_or_default();
    let words = super::words::revoke(&r.key_id, since);
    let text = |k: &str| key[k].as_str().unwrap_or_default().to_owned();
    confirmed(ctx, r.yes, &format!("{words} It is the {} key {}.", text("role"), text("label")))?;
    let root = root_key(&desk.folder, r.root.as_deref())?;
    let body = ActBody::KeyRevoke { key_id: r.key_id, compromised_since_ms: since };
    let answer = desk.act(&root, body).await?;
    ctx.out
        .result(&answer, || format!("key {} revoked: {}", r.key_id, answer["operation"].as_str().unwrap_or_default()));
    Ok(())
}
