//! `ledger timestamp`, `ledger timestamps`: RFC 3161 time-stamps of checkpoints.

use super::Ctx;
use crate::args::outside::{Timestamp, Timestamps};
use crate::failure::{Exit, Failure, read_file, read_text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use concordat_broker::outside::timestamp::imprint;
use concordat_broker::outside::tsp::{self, Stamp, TspError};
use concordat_protocol::cbor;
use concordat_protocol::receipt::Checkpoint;
use serde_json::{Value, json};
use std::path::Path;

fn refused(e: &TspError) -> Failure {
    Failure::new(Exit::ProofInvalid, e.code(), e.to_string())
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.to_string())
}

/// One time-stamp as a line of a table.
fn row(view: &Value) -> Value {
    let time = view["stamp"]["time_ms"].as_i64().map(at);
    let after = view["after_tick_ms"].as_i64().map(|ms| format!("{} s", ms / 1_000));
    let ok = if view["ok"] == true { json!("ok") } else { view["code"].clone() };
    json!({
        "id": view["id"], "height": view["height"], "entries": view["log_size"], "time": time, "after tick": after,
        "signer": view["stamp"]["signer"], "tsa": view["tsa"], "check": ok,
    })
}

const COLUMNS: [&str; 8] = ["id", "height", "entries", "time", "after tick", "signer", "tsa", "check"];

/// `ledger timestamp`
pub async fn stamp(ctx: &Ctx, args: &Timestamp) -> Result<(), Failure> {
    let body = json!({"tsa": args.tsa, "certificate": read_text(&args.tsa_cert)?});
    let answer = ctx.api("operator")?.post("/v1/ledger/timestamps", &body).await.map_err(|mut e| {
        // What came back proves nothing: say so with the exit code of a bad proof.
        let proof =
            e.code.starts_with("timestamp-") && !["timestamp-authority-down", "timestamp-url"].contains(&&*e.code);
        if proof && e.exit == Exit::Unavailable && e.code != "timestamp-no-checkpoint" {
            e.exit = Exit::ProofInvalid;
        }
        e
    })?;
    ctx.out.result(&answer, || crate::output::table(&[row(&answer)], &COLUMNS));
    Ok(())
}

/// A time-stamp as the broker keeps it.
struct Kept {
    checkpoint: Vec<u8>,
    token: Vec<u8>,
    certificates: Vec<Vec<u8>>,
}

async fn kept(ctx: &Ctx, id: i64) -> Result<Kept, Failure> {
    let answer = ctx.api("operator")?.get(&format!("/v1/ledger/timestamps/{id}")).await?;
    let bytes = |v: &Value| STANDARD.decode(v.as_str().unwrap_or_default()).ok();
    let out = || {
        let certificates = answer["certificates"].as_array()?.iter().map(bytes).collect::<Option<_>>()?;
        Some(Kept { checkpoint: bytes(&answer["checkpoint"])?, token: bytes(&answer["token"])?, certificates })
    };
    out().ok_or_else(|| Failure::new(Exit::Failed, "gateway-answer", "the gateway's answer is not in base64"))
}

/// Checked here, with nothing but the files: the gateway's own word is not taken.
fn check(kept: &Kept, given: Option<&[Vec<u8>]>) -> Result<(Checkpoint, Stamp, i64), Failure> {
    let checkpoint: Checkpoint = cbor::decode(&kept.checkpoint)
        .map_err(|e| Failure::new(Exit::ProofInvalid, "checkpoint", format!("the checkpoint does not decode: {e}")))?;
    let given = given.unwrap_or(&kept.certificates);
    let stamp = tsp::check_token(&kept.token, &imprint(&checkpoint), given).map_err(|e| refused(&e))?;
    let lag = stamp.lag_ms(checkpoint.tick_ms).map_err(|e| refused(&e))?;
    Ok((checkpoint, stamp, lag))
}

/// `ledger timestamps`
pub async fn timestamps(ctx: &Ctx, what: &Timestamps) -> Result<(), Failure> {
    match what {
        Timestamps::List => {
            let answer = ctx.api("operator")?.get("/v1/ledger/timestamps").await?;
            let rows: Vec<Value> = answer["timestamps"].as_array().into_iter().flatten().map(row).collect();
            ctx.out.list(&rows, &COLUMNS);
            Ok(())
        }
        Timestamps::Verify { id, tsa_cert } => verify(ctx, *id, tsa_cert.as_deref()).await,
        Timestamps::Export { id, folder } => export(ctx, *id, folder).await,
    }
}

async fn verify(ctx: &Ctx, id: Option<i64>, certificate: Option<&Path>) -> Result<(), Failure> {
    let given = certificate.map(read_file).transpose()?;
    let given = given.map(|bytes| tsp::read_certificates(&bytes)).transpose().map_err(|e| refused(&e))?;
    let ids = match id {
        Some(id) => vec![id],
        None => {
            let answer = ctx.api("operator")?.get("/v1/ledger/timestamps").await?;
            answer["timestamps"].as_array().into_iter().flatten().filter_map(|t| t["id"].as_i64()).collect()
        }
    };
    let (mut rows, mut first) = (Vec::new(), None);
    for id in ids {
        match check(&kept(ctx, id).await?, given.as_deref()) {
            Ok((checkpoint, stamp, lag)) => rows.push(json!({
                "id": id, "height": checkpoint.height, "time": at(stamp.time_ms), "after tick": format!("{} s", lag / 1_000),
                "signer": stamp.signer, "check": "ok",
            })),
            Err(e) => {
                rows.push(json!({"id": id, "check": e.code, "why": e.message}));
                first.get_or_insert(e);
            }
        }
    }
    ctx.out.list(&rows, &["id", "height", "time", "after tick", "signer", "check", "why"]);
    first.map_or(Ok(()), Err)
}

async fn export(ctx: &Ctx, id: i64, folder: &Path) -> Result<(), Failure> {
    let kept = kept(ctx, id).await?;
    check(&kept, None)?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("checkpoint.cbor"), &kept.checkpoint)?;
    std::fs::write(folder.join("token.tst"), &kept.token)?;
    let pem = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|c| std::str::from_utf8(c).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    std::fs::write(folder.join("tsa.pem"), kept.certificates.iter().map(pem).collect::<String>())?;
    ctx.out.say(format!(
        "{0}: checkpoint.cbor, token.tst, tsa.pem\n  openssl ts -verify -token_in -in token.tst -data checkpoint.cbor -CAfile ca.pem -untrusted tsa.pem",
        folder.display()
    ));
    Ok(())
}
