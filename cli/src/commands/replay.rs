//! `op show --replay`: a decision of this provider's executor, decided again by this program.

use super::Ctx;
use crate::failure::{Exit, Failure};
use concordat_broker::host::{holding_spec, load_datasets};
use concordat_executor::replay::{Against, Difference, OnLedger, Record, replay};
use concordat_policies::compile::{Compiled, compile};
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::{AgreementId, OpRef};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::session::Request;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Decides again; exit code 4 where a term differs.
pub async fn show(ctx: &Ctx, op: &str, documents: Option<&Path>) -> Result<(), Failure> {
    let op: OpRef = op.parse()?;
    let (api, dir) = (ctx.api("operator")?, ctx.dir()?);
    let told = api.get(&format!("/v1/operations/{op}/decision")).await?;
    let record: Record = serde_json::from_value(told["decision"].clone()).unwrap_or_default();
    if record.request.is_empty() {
        let why = format!("{op} was recorded without its request: by an older release, or it is no query and no write");
        return Err(Failure::new(Exit::Failed, "not-replayable", why));
    }
    let entry = entry(&told["entry"])?;
    let bytes = |name: &str| hex::decode(told[name].as_str().unwrap_or_default()).unwrap_or_default();
    let names: BTreeSet<AgreementId> =
        record.in_force.iter().map(|v| v.agreement.clone()).chain(record.agreement.clone()).collect();
    let mut ledger = Vec::new();
    for name in &names {
        ledger.extend(on_ledger(name, &api.get(&format!("/v1/agreements/{name}")).await?));
    }
    let documents = folder(documents.unwrap_or(&dir.join("agreements")))?;
    let request: Option<Request> = hex::decode(&record.request).ok().and_then(|b| cbor::decode(&b).ok());
    let dataset = request.as_ref().and_then(|r| load_datasets(&dir).ok()?.into_iter().find(|d| d.id == r.dataset));
    let spec = dataset.map(|d| holding_spec(&d)).transpose()?;
    let (op_bytes, openings) = (bytes("op"), bytes("openings"));
    let against = Against {
        entry: &entry,
        op: &op_bytes,
        openings: &openings,
        ledger: &ledger,
        documents: &documents,
        spec: spec.as_ref(),
    };
    say(ctx, op, &record, &entry, &replay(&record, &against))
}

fn entry(e: &Value) -> Result<LogEntry, Failure> {
    let bad = || Failure::new(Exit::Failed, "answer", "the gateway's entry has another shape: compare the releases");
    let number = |name: &str| e[name].as_u64().ok_or_else(bad);
    let op_hash = hex::decode(e["op_hash"].as_str().unwrap_or_default()).ok().and_then(|h| h.try_into().ok());
    let verdict = e["verdict"].as_str().and_then(Verdict::from_word);
    Ok(LogEntry {
        height: number("height")?,
        tick_ms: number("tick_ms")?,
        writer: e["writer"].as_str().unwrap_or_default().to_owned(),
        incarnation: number("incarnation")?,
        seq: number("seq")?,
        op_hash: op_hash.ok_or_else(bad)?,
        verdict: verdict.ok_or_else(bad)?,
        code: u16::try_from(number("code")?).map_err(|_| bad())?,
    })
}

/// The clauses of every version of an agreement that was ever approved.
fn on_ledger(agreement: &AgreementId, answer: &Value) -> Vec<OnLedger> {
    let mut all = Vec::new();
    for v in answer["versions"].as_array().into_iter().flatten() {
        let renewed = v["approvals"].as_array().into_iter().flatten().any(|a| a["what"] == "renew");
        for c in v["clauses"].as_array().into_iter().flatten() {
            let Some(handle) = c["handle"].as_u64() else { continue };
            all.push(OnLedger {
                agreement: agreement.clone(),
                version: v["version"].as_u64().unwrap_or_default(),
                terms_hash: v["terms_hash"].as_str().unwrap_or_default().to_owned(),
                renewed,
                clause: c["id"].as_str().unwrap_or_default().to_owned(),
                handle,
            });
        }
    }
    all
}

/// Every document of a folder that compiles.
fn folder(dir: &Path) -> Result<Vec<Compiled>, Failure> {
    let entries = std::fs::read_dir(dir)
        .map_err(|e| Failure::new(Exit::NotFound, "documents", format!("{}: {e}", dir.display())))?;
    let texts = entries.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok());
    Ok(texts.filter_map(|t| compile(&t).ok()).collect())
}

fn say(
    ctx: &Ctx,
    op: OpRef,
    record: &Record,
    entry: &LogEntry,
    result: &Result<(), Difference>,
) -> Result<(), Failure> {
    let decided = match (&record.denied, &record.agreement) {
        (None, Some(agreement)) => format!("permitted under {agreement}/{}", record.clause),
        (Some(reason), _) => format!("denied: {reason}"),
        (None, None) => "nothing".to_owned(),
    };
    let mut out = json!({
        "operation": op.to_string(), "decision": decided, "decided_at_height": record.height,
        "recorded_at_height": entry.height, "agreement": record.agreement, "version": record.version,
        "clause": record.clause, "rows_hash": record.rows_hash, "in_force": record.in_force,
        "replay": if result.is_ok() { "same" } else { "different" },
    });
    if let Err(d) = result {
        out["term"] = d.term.into();
        out["recorded"] = d.recorded.as_str().into();
        out["found"] = d.found.as_str().into();
    }
    ctx.out.result(&out, || super::op::lines(&out));
    match result {
        Ok(()) => Ok(()),
        Err(d) => Err(Failure::new(
            Exit::ProofInvalid,
            "replay-different",
            format!("{op} differs in its {}: recorded {}, found {}", d.term, d.recorded, d.found),
        )),
    }
}
