//! `trust`: what a verifier must hold, and the fingerprint people compare by voice.

use super::Ctx;
use crate::failure::{Failure, read_text};
use concordat_broker::config::NodeConfig;
use concordat_protocol::trust::Trust;
use serde_json::json;
use std::path::Path;

/// The trust of a node's chain, from its genesis file.
pub fn of_node(dir: &Path) -> Result<Trust, Failure> {
    let cfg = NodeConfig::load(dir)?;
    let genesis = read_text(&cfg.comet_home().join("config/genesis.json"))?;
    Ok(Trust::from_genesis(genesis, vec![])?)
}

/// `trust show`
pub fn show(ctx: &Ctx, file: Option<&Path>) -> Result<(), Failure> {
    let trust = match file {
        Some(file) => Trust::from_json(&read_text(file)?)?,
        None => of_node(&ctx.dir()?)?,
    };
    let value = json!({"fingerprint": trust.fingerprint(), "genesis_hash": hex::encode(trust.genesis_hash())});
    ctx.out.result(&value, || trust.fingerprint());
    Ok(())
}

/// `trust export`
pub fn export(ctx: &Ctx, file: &Path) -> Result<(), Failure> {
    let trust = of_node(&ctx.dir()?)?;
    std::fs::write(file, trust.to_json())?;
    ctx.out.say(format!(
        "{}: compare the fingerprint {} by another way than the file came by",
        file.display(),
        trust.fingerprint()
    ));
    Ok(())
}
