//! `adapter`: an agency's source into its own broker, or into its holding.

use super::Ctx;
use crate::context::{Api, Tokens};
use crate::failure::{Exit, Failure, read_text};
use crate::output::Output;
use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::Row;
use concordat_adapters::dead_letter::DeadLetters;
use concordat_adapters::document::Pace;
use concordat_adapters::file::{self, FileSource};
use concordat_adapters::plan::Plan;
use concordat_adapters::runner::{self, RunConfig};
use concordat_broker::config::NodeConfig;
use concordat_broker::host::{holding_spec, load_datasets, open_holding};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// Rows of one write into a holding.
const LOAD_ROWS: usize = 10_000;

pub(super) fn plan(dir: &Path, name: &str) -> Result<Plan, Failure> {
    let path = dir.join("adapters").join(format!("{name}.yaml"));
    if !path.is_file() {
        let text =
            format!("there is no adapter {name}: {} is not there; see `concordat adapter status`", path.display());
        return Err(Failure::new(Exit::NotFound, "unknown-adapter", text));
    }
    Plan::parse(&read_text(&path)?).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

/// `adapter run`
pub async fn run(ctx: &Ctx, name: &str, rows: Option<u64>, pace: Option<&str>) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let cfg = NodeConfig::load(&dir)?;
    let plan = Arc::new(plan(&dir, name)?);
    let text = read_text(&cfg.keys().join("tokens.yaml"))?;
    let tokens: Tokens = serde_saphyr::from_str(&text).map_err(|e| Failure::usage(format!("keys/tokens.yaml: {e}")))?;
    let token = tokens.tokens.iter().find(|t| t.roles.iter().any(|r| r == "adapter"));
    let token = token.ok_or_else(|| Failure::usage("keys/tokens.yaml has no token with the role adapter: add one"))?;
    let client = BrokerClient::new(&format!("http://{}", cfg.listen), &token.token)?;
    let mut config = RunConfig::of(&plan);
    config.rows_max = rows;
    if let Some(pace) = pace {
        config.pace = Pace::parse(pace).map_err(|e| Failure::usage(format!("--pace: {e}")))?;
    }
    let mut dead = DeadLetters::open(&dir.join("adapters"), name)?;
    let (stop_tx, stop) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        concordat_broker::stop_signal().await;
        let _ = stop_tx.send(true);
    });
    let bar = ctx.out.bar(rows.unwrap_or(0), &format!("adapter {name}"));
    let source = FileSource::new(&dir, plan.clone());
    let report = |p: &runner::Progress| bar.set_position(p.rows);
    let done = runner::run(source, &client, &mut dead, &config, stop, report).await?;
    bar.finish_and_clear();
    let value = json!({"adapter": name, "rows": done.rows, "accepted": done.accepted, "duplicates": done.duplicates, "dead_letters": done.dead_letters, "batch_no": done.batch_no});
    ctx.out.result(&value, || {
        format!(
            "{name}: {} rows, {} accepted, {} known already, {} dead letters",
            done.rows, done.accepted, done.duplicates, done.dead_letters
        )
    });
    Ok(())
}

/// What a load did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loaded {
    /// Rows now held.
    pub held: u64,
    /// Rows refused.
    pub bad: u64,
}

/// Loads a records dataset into a node's holding; refused rows go to the dead letters, the rest goes on.
pub fn load_records(out: &Output, dir: &Path, name: &str) -> Result<Loaded, Failure> {
    let cfg = NodeConfig::load(dir)?;
    let plan = Arc::new(plan(dir, name)?);
    let docs = load_datasets(dir)?;
    let doc = docs.iter().find(|d| d.id == plan.dataset && d.is_held());
    let doc = doc.ok_or_else(|| {
        Failure::usage(format!("{}: no dataset document in datasets/ says that it is held here", plan.dataset))
    })?;
    let holding = open_holding(&cfg)?;
    let spec = holding_spec(doc)?;
    holding.ensure_dataset(&spec)?;
    let mut dead = DeadLetters::open(&dir.join("adapters"), name)?;
    let bar = out.bar(0, &format!("loading {}", plan.dataset));
    let (mut loaded, mut rows, mut bad) = (Loaded::default(), Vec::<Map<String, Value>>::new(), Vec::new());
    let mut put = |rows: &mut Vec<Map<String, Value>>| -> Result<(), Failure> {
        let report = holding.put_many(plan.dataset.as_str(), rows)?;
        loaded.held += report.inserted + report.updated + report.unchanged;
        bar.set_position(loaded.held);
        rows.clear();
        Ok(())
    };
    for row in file::records(dir, plan.clone())? {
        match row? {
            Row::Good(record) => rows.push(record.data),
            Row::Bad(reject) => bad.push(reject),
        }
        if rows.len() == LOAD_ROWS {
            put(&mut rows)?;
        }
    }
    put(&mut rows)?;
    let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    dead.append(&bad, plan.dataset.as_str(), &at)?;
    bar.finish_and_clear();
    Ok(Loaded { bad: bad.len() as u64, ..loaded })
}

/// `adapter load`
pub fn load(ctx: &Ctx, name: &str) -> Result<(), Failure> {
    let loaded = load_records(&ctx.out, &ctx.dir()?, name)?;
    let value = json!({"adapter": name, "held": loaded.held, "dead_letters": loaded.bad});
    ctx.out.result(&value, || format!("{name}: {} rows held, {} dead letters", loaded.held, loaded.bad));
    if loaded.bad > 0 && loaded.held == 0 {
        return Err(Failure::new(Exit::Failed, "nothing-loaded", "no row was good: see adapters/NAME.dead.jsonl"));
    }
    Ok(())
}

/// The gateway as the adapter's user, for tests of the intake.
pub fn adapter_api(dir: &Path) -> Result<Api, Failure> {
    Api::of(dir, None, "adapter")
}
