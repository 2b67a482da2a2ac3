//! `trust`: what a verifier must hold, and the fingerprint people compare by voice.

use super::Ctx;
use crate::failure::{Failure, read_text};
use concordat_broker::config::NodeConfig;
use concordat_broker::evidence::TrustKeeper;
use concordat_broker::ledger::node_client::NodeClient;
use concordat_protocol::trust::{Epoch, Trust};
use serde_json::{Value, json};
use std::path::Path;

/// The trust of a node's chain, from its genesis file.
pub fn of_node(dir: &Path) -> Result<Trust, Failure> {
    let cfg = NodeConfig::load(dir)?;
    let genesis = read_text(&cfg.comet_home().join("config/genesis.json"))?;
    Ok(Trust::from_genesis(genesis, vec![])?)
}

/// The trust of a node's chain with every epoch that enough agencies signed. A node that does not run tells none.
async fn with_epochs(ctx: &Ctx) -> Result<Trust, Failure> {
    let dir = ctx.dir()?;
    let cfg = NodeConfig::load(&dir)?;
    let keeper = TrustKeeper::new(NodeClient::new(cfg.node_socket()), cfg.comet_home().join("config/genesis.json"));
    match keeper.now().await {
        Ok(trust) => Ok((*trust).clone()),
        Err(e) if e.code() == "ledger-node-down" => {
            ctx.out.say("the node does not run: this is the trust of the genesis file alone, without later epochs");
            of_node(&dir)
        }
        Err(e) => Err(Failure::new(crate::failure::Exit::Failed, e.code(), e.to_string())),
    }
}

fn epoch_json(e: &Epoch) -> Value {
    json!({
        "epoch": e.n,
        "from_height": e.from_height,
        "validators": e.validators.iter().map(|v| json!({"agency": v.agency, "power": v.power})).collect::<Vec<_>>(),
        "cosigners": e.keys.iter().filter(|k| k.cosign.is_some()).map(|k| &k.agency).collect::<Vec<_>>(),
        "signed_by": e.signatures.iter().map(|s| &s.agency).collect::<Vec<_>>(),
    })
}

fn epoch_line(e: &Epoch) -> String {
    let join = |names: Vec<String>| names.join(" ");
    let validators = join(e.validators.iter().map(|v| format!("{} ({})", v.agency, v.power)).collect());
    let cosigners = join(e.keys.iter().filter(|k| k.cosign.is_some()).map(|k| k.agency.to_string()).collect());
    let signed = match e.n {
        0 => "genesis".to_owned(),
        _ => format!("signed by {}", join(e.signatures.iter().map(|s| s.agency.to_string()).collect())),
    };
    format!(
        "epoch {} from height {} ({signed})\n  validators {validators}\n  cosigners  {cosigners}",
        e.n, e.from_height
    )
}

/// `trust show`
pub async fn show(ctx: &Ctx, file: Option<&Path>) -> Result<(), Failure> {
    let trust = match file {
        Some(file) => Trust::from_json(&read_text(file)?)?,
        None => with_epochs(ctx).await?,
    };
    trust.check()?;
    let value = json!({
        "fingerprint": trust.fingerprint(),
        "chain": trust.chain,
        "genesis_hash": hex::encode(trust.genesis_hash()),
        "epochs": trust.epochs.iter().map(epoch_json).collect::<Vec<_>>(),
        "oversight": trust.oversight.iter().map(|o| &o.name).collect::<Vec<_>>(),
    });
    ctx.out.result(&value, || {
        let epochs: Vec<String> = trust.epochs.iter().map(epoch_line).collect();
        format!("{}\nchain {}\n{}", trust.fingerprint(), trust.chain, epochs.join("\n"))
    });
    Ok(())
}

/// `trust export`
pub async fn export(ctx: &Ctx, file: &Path) -> Result<(), Failure> {
    let trust = with_epochs(ctx).await?;
    std::fs::write(file, trust.to_json())?;
    ctx.out.say(format!(
        "{}: epochs 0 to {}; compare the fingerprint {} by another way than the file came by",
        file.display(),
        trust.epochs.last().map_or(0, |e| e.n),
        trust.fingerprint()
    ));
    Ok(())
}
