//! `sink`: a subscription of this agency, delivered to where its own people and systems read it.

use super::Ctx;
use crate::args::Sink;
use crate::context::{Token, Tokens, resolve};
use crate::failure::{Failure, read_text};
use concordat_adapters::dead_letter::DeadLetters;
use concordat_adapters::sinks::{self, Gateway, runner};
use concordat_broker::config::NodeConfig;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Runs a `sink` command.
pub async fn run(ctx: &Ctx, command: &Sink) -> Result<(), Failure> {
    match command {
        Sink::Run { file, once } => deliver(ctx, file, *once).await,
        Sink::Kinds => {
            let rows: Vec<_> = sinks::KINDS.iter().map(|kind| json!({"kind": kind})).collect();
            ctx.out.list(&rows, &["kind"]);
            Ok(())
        }
    }
}

/// The own gateway as the user of the context, or the first token of an operator.
fn gateway(dir: &Path, user: Option<&str>) -> Result<Gateway, Failure> {
    let cfg = NodeConfig::load(dir)?;
    let text = read_text(&cfg.keys().join("tokens.yaml"))?;
    let tokens: Tokens = serde_saphyr::from_str(&text).map_err(|e| Failure::usage(format!("keys/tokens.yaml: {e}")))?;
    let fits = |t: &&Token| user.map_or(t.roles.iter().any(|r| r == "operator"), |u| t.name == u);
    let token = tokens.tokens.iter().find(fits);
    let token =
        token.ok_or_else(|| Failure::usage("keys/tokens.yaml has no such user, or no token with the role operator"))?;
    Ok(Gateway::new(&format!("http://{}", cfg.listen), &token.token)?)
}

async fn deliver(ctx: &Ctx, file: &Path, once: bool) -> Result<(), Failure> {
    let (dir, user): (PathBuf, Option<String>) = resolve(ctx.global.context.as_deref(), ctx.global.dir.as_deref())?;
    let described = sinks::parse(&read_text(file)?).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let gateway = gateway(&dir, user.as_deref())?;
    let sink = described.open(&dir)?;
    let head = &described.head;
    let mut dead = DeadLetters::open(&dir.join("sinks"), &head.sink)?;
    let (stop_tx, stop) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        concordat_broker::stop_signal().await;
        let _ = stop_tx.send(true);
    });
    let bar = ctx.out.bar(0, &format!("sink {}", head.sink));
    let report = |p: &runner::Progress| {
        bar.set_position(p.delivered);
        if p.failures == 1 {
            bar.println(format!("{}: {}", head.sink, p.last_error.as_deref().unwrap_or_default()));
        }
    };
    let done = runner::run(sink, &gateway, head, &mut dead, once, stop, report).await?;
    bar.finish_and_clear();
    let value = json!({"sink": head.sink, "subscription": head.subscription, "delivered": done.delivered,
        "dead_letters": done.dead_letters, "cursor": done.cursor});
    ctx.out.result(&value, || {
        format!("{}: {} messages delivered, {} refused by the sink", head.sink, done.delivered, done.dead_letters)
    });
    Ok(())
}
