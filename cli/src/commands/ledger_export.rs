//! `ledger export`, `ledger witness`: the log for outside witnesses.

use super::Ctx;
use super::op::lines;
use crate::args::outside::{Export, Witness};
use crate::failure::{Exit, Failure, read_text};
use concordat_broker::config::NodeConfig;
use concordat_broker::ledger::node_client::NodeClient;
use concordat_broker::ledger::rpc::CometRpc;
use concordat_broker::outside::export::{self, ExportError};
use concordat_broker::outside::http::LOG_DIR;
use concordat_broker::outside::note_key::{NOTE_KEY_FILE, NoteKey};
use concordat_protocol::c2sp::{C2spError, VerifierKey, origin};
use serde_json::json;
use std::path::{Path, PathBuf};

fn failed(e: ExportError) -> Failure {
    use ExportError as E;
    let (code, text) = (e.code(), e.to_string());
    let exit = match e {
        E::Ledger(e) => return e.into(),
        E::NoCheckpoint | E::NoHeader(_) => Exit::Unavailable,
        E::AppHash(_) | E::Other(_) => Exit::ProofInvalid,
        E::C2sp(C2spError::Key(_)) => Exit::Usage,
        E::C2sp(_) => Exit::ProofInvalid,
        E::Key(_) | E::Io { .. } => Exit::Failed,
    };
    Failure::new(exit, code, text)
}

fn folder(cfg: &NodeConfig, given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| cfg.path(LOG_DIR), Path::to_owned)
}

/// `ledger export`
pub async fn export(ctx: &Ctx, args: &Export) -> Result<(), Failure> {
    let cfg = NodeConfig::load(&ctx.dir()?)?;
    let dir = folder(&cfg, args.tiles.as_deref());
    let key = NoteKey::open(&cfg.keys().join(NOTE_KEY_FILE), &origin(&cfg.chain)).map_err(|e| failed(e.into()))?;
    let (node, rpc) = (NodeClient::new(cfg.node_socket()), CometRpc::new(&cfg.rpc()?)?);
    let bar = ctx.out.bar(0, "entries");
    let progress = |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    };
    let done = export::export(&node, &rpc, &key, &dir, progress).await.map_err(failed)?;
    bar.finish_and_clear();
    let value = serde_json::to_value(&done).unwrap_or_default();
    ctx.out.result(&value, || {
        let by = if done.cosigned_by.is_empty() { "nobody yet".to_owned() } else { done.cosigned_by.join(", ") };
        let shown = json!({
            "folder": dir.display().to_string(), "origin": done.origin, "entries": done.size, "new": done.size - done.before,
            "root": done.root, "height": done.height, "cosigned by": by, "verifier key": done.verifier_key,
        });
        lines(&shown)
    });
    Ok(())
}

/// `ledger witness`
pub fn witness(ctx: &Ctx, args: &Witness) -> Result<(), Failure> {
    let cfg = NodeConfig::load(&ctx.dir()?)?;
    let key: VerifierKey = args.key.parse().map_err(|e: C2spError| failed(e.into()))?;
    if !key.is_witness() {
        return Err(Failure::usage("this is a log's key: a witness's verifier key has type 0x04"));
    }
    let time =
        export::add_witness(&folder(&cfg, args.tiles.as_deref()), &key, &read_text(&args.add)?).map_err(failed)?;
    ctx.out
        .result(&json!({"witness": key.name, "time": time}), || format!("{} looked at {time} s since 1970", key.name));
    Ok(())
}
