//! `dead-letter replay`: refused rows once more, by the document as it is now.

use super::adapter::{broker, connector, now, person};
use super::adapter_try::refused;
use super::dead_letter::chosen;
use super::{Ctx, adapter_try::checker};
use crate::args::Which;
use crate::failure::{Exit, Failure};
use concordat_adapters::apart;
use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, ErrorClass, Record, Reject, Row};
use concordat_adapters::dead_letter::{self, DeadLetter, Settled};
use concordat_broker::config::NodeConfig;
use concordat_broker::host::{holding_spec, load_datasets, open_holding};
use concordat_executor::holding::Holding;
use concordat_policies::dataset::DatasetDoc;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// After so many rows the file of dead letters is written anew: a crash repeats at most these.
const SETTLE_ROWS: usize = 4_096;

/// Where good rows go.
enum Way {
    /// To the broker, as the adapter's own do.
    Publish(BrokerClient),
    /// Into the holding, where the dataset is records alone.
    Hold(Arc<dyn Holding>),
}

/// What is left to do of a replay, and what was done.
struct Replay<'a> {
    dir: &'a Path,
    adapter: &'a str,
    dataset: &'a str,
    way: Way,
    /// Good rows that were not sent yet, by the letter's id.
    waiting: Vec<(String, Record)>,
    bytes: usize,
    /// What the file of dead letters does not say yet.
    settled: BTreeMap<String, Settled>,
    replayed: u64,
    /// What was refused again: file, line and the sentence.
    bad: Vec<Value>,
}

fn shown(letter: &DeadLetter, rule: &str, message: &str) -> Value {
    json!({"id": letter.id, "file": letter.file, "row": letter.row, "line": letter.line, "was": letter.rule,
           "now": rule, "message": message})
}

/// `dead-letter replay`
pub async fn replay(ctx: &Ctx, dir: &Path, adapter: &str, which: &Which, dry_run: bool) -> Result<(), Failure> {
    let letters = chosen(dir, adapter, which)?;
    let connector = connector(dir, adapter)?;
    let mut again = connector.again()?;
    let docs = load_datasets(dir)?;
    let into = connector.common().into.clone();
    let doc = docs.iter().find(|d| d.id == into);
    if dry_run {
        let rows: Vec<(&DeadLetter, Row)> = letters.iter().map(|l| (l, dead_letter::mapped(&mut again, l))).collect();
        return tried(ctx, doc, rows);
    }
    let way = match doc {
        Some(doc) if !doc.is_feed() => Way::Hold(held(dir, doc)?),
        _ => Way::Publish(broker(&NodeConfig::load(dir)?)?),
    };
    let (waiting, settled, bad) = (vec![], BTreeMap::new(), vec![]);
    let dataset = into.as_str();
    let mut replay = Replay { dir, adapter, dataset, way, waiting, bytes: 0, settled, replayed: 0, bad };
    let all = letters.len();
    let bar = ctx.out.bar(all as u64, &format!("replay {adapter}"));
    let mut result = Ok(());
    for letter in &letters {
        bar.inc(1);
        let row = dead_letter::mapped(&mut again, letter);
        result = replay.take(letter, row).await;
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = replay.send().await;
    }
    // What is durable, and what was refused again, is said even when the rest could not be sent.
    replay.settle()?;
    bar.finish_and_clear();
    replay.report(ctx, all, result)
}

fn held(dir: &Path, doc: &DatasetDoc) -> Result<Arc<dyn Holding>, Failure> {
    let holding = apart(|| open_holding(&NodeConfig::load(dir)?))?;
    apart(|| holding.ensure_dataset(&holding_spec(doc)?).map_err(Failure::from))?;
    Ok(holding)
}

impl Replay<'_> {
    async fn take(&mut self, letter: &DeadLetter, row: Row) -> Result<(), Failure> {
        match row {
            Row::Bad(reject) => {
                self.bad.push(shown(letter, &reject.rule, &reject.message));
                self.settled.insert(letter.id.clone(), Settled::Refused(Box::new(reject)));
            }
            Row::Good(record) => {
                self.bytes += record.size_hint();
                self.waiting.push((letter.id.clone(), record));
            }
        }
        if self.waiting.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX {
            self.send().await?;
        }
        if self.settled.len() >= SETTLE_ROWS {
            self.settle()?;
        }
        Ok(())
    }

    /// Sends what waits; what the broker took is durable when this returns.
    async fn send(&mut self) -> Result<(), Failure> {
        let records = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        if records.is_empty() {
            return Ok(());
        }
        let told = match &self.way {
            Way::Publish(client) => {
                let places: BTreeMap<String, Record> = records.iter().cloned().collect();
                let told = dead_letter::publish(client, self.dataset, records).await.map_err(unavailable)?;
                for (id, reject) in told.iter().filter_map(|(id, s)| refusal(s).map(|r| (id, r))) {
                    let at = places.get(id).map(|r| (r.origin.file.as_str(), r.origin.row, r.origin.line));
                    let (file, row, line) = at.unwrap_or_default();
                    self.bad.push(json!({"id": id, "file": file, "row": row, "line": line, "now": reject.rule,
                                         "message": reject.message}));
                }
                told
            }
            Way::Hold(holding) => {
                let (ids, rows): (Vec<String>, Vec<_>) = records.into_iter().map(|(id, r)| (id, r.data)).unzip();
                apart(|| holding.put_many(self.dataset, &rows))?;
                ids.into_iter().map(|id| (id, Settled::Replayed)).collect()
            }
        };
        self.replayed += told.values().filter(|s| **s == Settled::Replayed).count() as u64;
        self.settled.extend(told);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let settled = std::mem::take(&mut self.settled);
        if !settled.is_empty() {
            dead_letter::settle(&self.dir.join("adapters"), self.adapter, &settled, (&person(), &now()))?;
        }
        Ok(())
    }

    fn report(self, ctx: &Ctx, all: usize, result: Result<(), Failure>) -> Result<(), Failure> {
        let (adapter, replayed, bad) = (self.adapter, self.replayed, self.bad.len());
        let value = json!({"adapter": adapter, "dataset": self.dataset, "replayed": replayed, "refused": self.bad});
        ctx.out.result(&value, || {
            let mut text = format!("{adapter}: {replayed} of {all} dead letters replayed, {bad} refused again");
            if bad > 0 {
                text += &format!("\n{}", crate::output::table(&self.bad, &["file", "line", "now", "message"]));
            }
            text
        });
        result?;
        outcome(all, bad, "were refused again and stay dead letters")
    }
}

fn refusal(settled: &Settled) -> Option<&Reject> {
    if let Settled::Refused(reject) = settled { Some(reject) } else { None }
}

/// A broker that does not answer may be asked again later.
fn unavailable(error: concordat_adapters::contract::AdapterError) -> Failure {
    let exit = if error.class() == ErrorClass::Transient { Exit::Unavailable } else { Exit::Failed };
    Failure { exit, ..Failure::from(error) }
}

fn outcome(all: usize, bad: usize, what: &str) -> Result<(), Failure> {
    match bad {
        0 => Ok(()),
        bad => {
            let exit = if bad < all { Exit::Partial } else { Exit::Failed };
            Err(Failure::new(exit, "dead-letters", format!("{bad} of {all} rows {what}")))
        }
    }
}

/// `dead-letter replay --dry-run`: which would pass.
fn tried(ctx: &Ctx, doc: Option<&DatasetDoc>, rows: Vec<(&DeadLetter, Row)>) -> Result<(), Failure> {
    let checker = checker(doc)?;
    let all = rows.len();
    let mut shown_rows = Vec::new();
    for (letter, row) in rows {
        let (rule, message, event) = match row {
            Row::Bad(reject) => (reject.rule, reject.message, Value::Null),
            Row::Good(record) => {
                let event = json!({"id": record.id, "time": record.time, "data": record.data});
                match refused(checker.as_ref(), std::slice::from_ref(&record))?.into_iter().next() {
                    Some((_, rule, message)) => (rule, message, event),
                    None => ("passes".to_owned(), String::new(), event),
                }
            }
        };
        let mut row = shown(letter, &rule, &message);
        row["event"] = event;
        shown_rows.push(row);
    }
    let bad = shown_rows.iter().filter(|r| r["now"] != "passes").count();
    ctx.out.list(&shown_rows, &["id", "file", "line", "was", "now", "message"]);
    ctx.out.say(format!("{} of {all} would pass; nothing was published", all - bad));
    outcome(all, bad, "would be refused again")
}
