//! `node`: the processes of a folder.

use super::Ctx;
use crate::args::Node;
use crate::failure::{Exit, Failure};
use crate::supervisor::{self, Options};
use concordat_abci_app::run::AppConfig;
use concordat_broker::config::NodeConfig;
use serde_json::{Value, json};
use std::path::Path;

/// Runs a `node` command.
pub async fn run(ctx: &Ctx, node: &Node) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    match node {
        Node::Up => Ok(supervisor::run(&Options::new(&dir)?).await?),
        Node::Down => {
            let ran = supervisor::stop(&dir)?;
            ctx.out.say(if ran { "stopped" } else { "no supervisor was running" });
            Ok(())
        }
        Node::Status => {
            show_status(ctx, &[dir]);
            Ok(())
        }
        Node::App => {
            // As process 1 of a container it would not hear the signal without a handler; what is committed is stored.
            tokio::spawn(async {
                concordat_broker::stop_signal().await;
                std::process::exit(0);
            });
            app(&dir)
        }
        Node::Light => {
            concordat_broker::light::run(&dir).await.map_err(|e| Failure::new(Exit::Failed, e.code(), e.to_string()))
        }
        Node::Executor => Ok(concordat_broker::host::run(&dir).await?),
        Node::Broker => {
            concordat_broker::service::run(&dir).await.map_err(|e| Failure::new(Exit::Failed, e.code(), e.to_string()))
        }
        Node::Exchange => {
            concordat_broker::exchange::run(&dir).await.map_err(|e| Failure::new(Exit::Failed, e.code(), e.to_string()))
        }
        // `main` became the command before it came here.
        Node::Guard { .. } => Ok(()),
    }
}

fn app(dir: &Path) -> Result<(), Failure> {
    let cfg = NodeConfig::load(dir)?;
    Ok(concordat_abci_app::run::run(AppConfig::new(cfg.abci_socket(), cfg.node_socket(), cfg.ledger_store()))?)
}

/// Prints the processes of folders; returns whether all are up.
pub fn show_status(ctx: &Ctx, dirs: &[impl AsRef<Path>]) -> bool {
    let (mut rows, mut all_up) = (Vec::new(), true);
    for dir in dirs {
        let status = supervisor::status(dir.as_ref());
        all_up &= status.running && status.state.as_ref().is_some_and(supervisor::State::all_up);
        let name = dir.as_ref().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !status.running {
            rows.push(json!({"node": name, "process": "supervisor", "state": "not running"}));
        }
        for p in status.state.iter().filter(|_| status.running).flat_map(|s| &s.processes) {
            let pid = p.process.map_or(Value::Null, |id| json!(id.pid));
            rows.push(json!({"node": name, "process": p.name, "state": p.state, "pid": pid, "restarts": p.restarts, "last_exit": p.last_exit}));
        }
        if let Some(note) = status.halted_note {
            rows.push(json!({"node": name, "process": "halted", "state": note}));
        }
    }
    ctx.out.list(&rows, &["node", "process", "state", "pid", "restarts", "last_exit"]);
    all_up
}
