//! `adapter`: an agency's source into its own broker, or into its holding.

use super::{Ctx, adapter_status, adapter_try};
use crate::args::Adapter as Command;
use crate::context::{Api, Tokens};
use crate::failure::{Exit, Failure, read_text};
use crate::output::Output;
use concordat_adapters::apart;
use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::{BATCH_RECORDS_MAX, Checkpoint, Connector, Next};
use concordat_adapters::dead_letter::DeadLetters;
use concordat_adapters::document::Pace;
use concordat_adapters::runner::{self, Paused, Phase, RunConfig};
use concordat_broker::config::NodeConfig;
use concordat_broker::host::{holding_spec, load_datasets, open_holding};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Rows of one write into a holding.
const LOAD_ROWS: usize = 10_000;

/// The file of an adapter's document in a node's folder.
pub(super) fn document(dir: &Path, name: &str) -> PathBuf {
    dir.join("adapters").join(format!("{name}.yaml"))
}

/// The source that an adapter's document describes.
pub(super) fn connector(dir: &Path, name: &str) -> Result<Box<dyn Connector>, Failure> {
    let path = document(dir, name);
    if !path.is_file() {
        let text =
            format!("there is no adapter {name}: {} is not there; see `concordat adapter status`", path.display());
        return Err(Failure::new(Exit::NotFound, "unknown-adapter", text));
    }
    let found = concordat_adapters::parse(&read_text(&path)?);
    let found = found.map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let named = &found.common().adapter.value;
    if named != name {
        return Err(Failure::usage(format!(
            "{}: says `adapter: {named}`; the file's name and it must agree",
            path.display()
        )));
    }
    Ok(found)
}

/// Runs an `adapter` command.
pub async fn command(ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Kinds { kind } => adapter_try::kinds(ctx, kind.as_deref()),
        Command::New { name, kind } => adapter_try::new(ctx, name, kind),
        Command::Discover { name, out } => apart(|| adapter_try::discover(ctx, name, out.as_deref())),
        Command::Check { name, rows } => apart(|| adapter_status::check(ctx, name, *rows)),
        Command::Run { name, dry_run: true, limit, .. } => apart(|| adapter_try::dry_run(ctx, name, *limit)),
        Command::Run { name, rows, pace, once, .. } => run(ctx, name, *rows, pace.as_deref(), *once).await,
        Command::Load { name } => apart(|| load(ctx, name)),
        Command::Pause { name } => pause(ctx, name),
        Command::Resume { name } => resume(ctx, name),
        Command::Status { name } => adapter_status::status(ctx, name.as_deref()).await,
        Command::Conform { file, base, changes } => {
            adapter_try::conform(ctx, file, base.as_deref(), changes.as_deref()).await
        }
    }
}

/// The node's own broker, as its adapters speak to it.
pub(super) fn broker(cfg: &NodeConfig) -> Result<BrokerClient, Failure> {
    let text = read_text(&cfg.keys().join("tokens.yaml"))?;
    let tokens: Tokens = serde_saphyr::from_str(&text).map_err(|e| Failure::usage(format!("keys/tokens.yaml: {e}")))?;
    let token = tokens.tokens.iter().find(|t| t.roles.iter().any(|r| r == "adapter"));
    let token = token.ok_or_else(|| Failure::usage("keys/tokens.yaml has no token with the role adapter: add one"))?;
    Ok(BrokerClient::new(&format!("http://{}", cfg.listen), &token.token)?)
}

/// `adapter run`
async fn run(ctx: &Ctx, name: &str, rows: Option<u64>, pace: Option<&str>, once: bool) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    let cfg = NodeConfig::load(&dir)?;
    let connector = connector(&dir, name)?;
    let client = broker(&cfg)?;
    let mut config = RunConfig::of(connector.common());
    (config.rows_max, config.once) = (rows, once);
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
    let source = apart(|| connector.open(&dir))?;
    let mut said = Phase::Running;
    let report = |p: &runner::Progress| {
        bar.set_position(p.rows);
        if p.phase == Phase::Paused && said != Phase::Paused {
            bar.println(format!("{name} is paused: `concordat adapter resume {name}`"));
        }
        said = p.phase;
    };
    let done = runner::run(source, &client, &mut dead, &config, stop, report).await?;
    bar.finish_and_clear();
    done.notes.iter().for_each(|note| ctx.out.say(note));
    let value = json!({"adapter": name, "rows": done.rows, "accepted": done.accepted, "duplicates": done.duplicates,
        "dead_letters": done.dead_letters, "batch_no": done.batch_no, "notes": done.notes});
    ctx.out.result(&value, || {
        format!(
            "{name}: {} rows, {} accepted, {} known already, {} dead letters",
            done.rows, done.accepted, done.duplicates, done.dead_letters
        )
    });
    Ok(())
}

/// The time, RFC 3339.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Who gives a command, as the machine knows it.
pub(super) fn person() -> String {
    std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned())
}

/// `adapter pause`
fn pause(ctx: &Ctx, name: &str) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    connector(&dir, name)?;
    let fresh = runner::pause(&dir.join("adapters"), name, &Paused { at: now(), by: person() })?;
    let word = if fresh { "paused" } else { "was paused already" };
    ctx.out.result(&json!({"adapter": name, "paused": true, "changed": fresh}), || {
        format!("{name} {word}; what is under way is finished. `concordat adapter resume {name}` lets it go on")
    });
    Ok(())
}

/// `adapter resume`
fn resume(ctx: &Ctx, name: &str) -> Result<(), Failure> {
    let dir = ctx.dir()?;
    connector(&dir, name)?;
    let changed = runner::resume(&dir.join("adapters"), name)?;
    let word = if changed { "goes on" } else { "was not paused" };
    ctx.out.result(&json!({"adapter": name, "paused": false, "changed": changed}), || format!("{name} {word}"));
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
    let connector = connector(dir, name)?;
    let into = connector.common().into.clone();
    let docs = load_datasets(dir)?;
    let doc = docs.iter().find(|d| d.id == into && d.is_held());
    let doc = doc
        .ok_or_else(|| Failure::usage(format!("{into}: no dataset document in datasets/ says that it is held here")))?;
    let holding = open_holding(&cfg)?;
    let spec = holding_spec(doc)?;
    holding.ensure_dataset(&spec)?;
    let mut dead = DeadLetters::open(&dir.join("adapters"), name)?;
    let bar = out.bar(0, &format!("loading {into}"));
    let (mut loaded, mut rows) = (Loaded::default(), Vec::<Map<String, Value>>::new());
    let at = now();
    let put = |rows: &mut Vec<Map<String, Value>>, loaded: &mut Loaded| -> Result<(), Failure> {
        let report = holding.put_many(into.as_str(), rows)?;
        loaded.held += report.inserted + report.updated + report.unchanged;
        bar.set_position(loaded.held);
        rows.clear();
        Ok(())
    };
    let (mut source, mut place) = (connector.open(dir)?, Checkpoint::default());
    loop {
        let batch = source.read(&place, BATCH_RECORDS_MAX)?;
        loaded.bad += batch.rejects.len() as u64;
        dead.append(&batch.rejects, into.as_str(), &at)?;
        batch.notes.iter().for_each(|note| out.say(note));
        rows.extend(batch.records.into_iter().map(|r| r.data));
        place = batch.checkpoint;
        let over = batch.next != Next::More;
        if rows.len() >= LOAD_ROWS || over {
            put(&mut rows, &mut loaded)?;
            // What is held is durable.
            source.ack(&place)?;
        }
        if over {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(loaded)
}

/// `adapter load`
fn load(ctx: &Ctx, name: &str) -> Result<(), Failure> {
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
