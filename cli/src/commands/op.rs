//! `op`, `why`, `ledger`: operations, their receipts, disputes

use super::Ctx;
use crate::context::Api;
use crate::failure::{Exit, Failure};
use concordat_protocol::ids::OpRef;
use concordat_protocol::receipt::Receipt;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a receipt may take: the header that covers it comes with the next block.
const RECEIPT_WITHIN: Duration = Duration::from_secs(15);

/// How long a final receipt may take where nothing else is asked, seconds.
const FINAL_WITHIN: u64 = 30;
/// How long one question waits: the connection must not outlive its own time limit.
const WAIT_AT_ONCE: u64 = 10;

/// Writes the receipt of an operation to a file, waiting for the header that covers it.
pub async fn fetch_receipt(api: &Api, op: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    let op: OpRef = op.parse()?;
    let bytes = receipt_bytes(api, op, 0).await?;
    write(file, &bytes)?;
    Ok(bytes)
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes).map_err(|e| Failure::new(Exit::Failed, "io", format!("{}: {e}", file.display())))
}

/// The receipt, final if it becomes so within `wait` seconds.
async fn receipt_bytes(api: &Api, op: OpRef, wait: u64) -> Result<Vec<u8>, Failure> {
    let end = Instant::now() + RECEIPT_WITHIN.max(Duration::from_secs(wait));
    let is_final = |bytes: &[u8]| Receipt::from_bytes(bytes).is_ok_and(|r| r.checkpoint.is_some());
    let asked_until = Instant::now() + Duration::from_secs(wait);
    loop {
        let left = asked_until.saturating_duration_since(Instant::now()).as_secs().min(WAIT_AT_ONCE);
        let query = if wait > 0 { format!("?wait={left}") } else { String::new() };
        match api.get_bytes(&format!("/v1/operations/{op}/receipt{query}"), "application/cbor").await {
            Ok(bytes) if !is_final(&bytes) && left > 0 => {}
            Ok(bytes) => return Ok(bytes),
            Err(e) if matches!(e.exit, Exit::Unavailable | Exit::Conflict) && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(e) => return Err(e),
        }
    }
}

/// `op list`
pub async fn list(ctx: &Ctx, limit: u32) -> Result<(), Failure> {
    let answer = ctx.api("operator")?.get(&format!("/v1/operations?limit={limit}")).await?;
    let rows = answer["operations"].as_array().or(answer.as_array()).cloned().unwrap_or_default();
    ctx.out.list(&rows, &["operation", "height", "time", "writer", "kind", "verdict", "code"]);
    Ok(())
}

/// `op show`
pub async fn show(ctx: &Ctx, op: &str) -> Result<(), Failure> {
    let op: OpRef = op.parse()?;
    let answer = ctx.api("operator")?.get(&format!("/v1/operations/{op}")).await?;
    ctx.out.result(&answer, || lines(&answer));
    Ok(())
}

/// `op receipt`
pub async fn receipt(
    ctx: &Ctx,
    op: &str,
    file: Option<&PathBuf>,
    only_final: bool,
    wait: Option<u64>,
) -> Result<(), Failure> {
    let number: OpRef = op.parse()?;
    let default = PathBuf::from(format!("op-{}.receipt", number.0));
    let file = file.unwrap_or(&default);
    let wait = wait.unwrap_or(if only_final { FINAL_WITHIN } else { 0 });
    let bytes = receipt_bytes(&ctx.api("operator")?, number, wait).await?;
    let made = Receipt::from_bytes(&bytes)
        .map_err(|e| Failure::new(Exit::ProofInvalid, e.code(), format!("the gateway's receipt: {e}")))?;
    let status = if made.checkpoint.is_some() { "final" } else { "provisional" };
    if only_final && made.checkpoint.is_none() {
        let why = format!(
            "{number} is not covered by a checkpoint that enough agencies cosigned, after {wait} s; see `op show {number}`"
        );
        return Err(Failure::new(Exit::Unavailable, "receipt-provisional", why));
    }
    write(file, &bytes)?;
    let value = json!({"operation": number.to_string(), "file": file, "bytes": bytes.len(), "status": status});
    ctx.out.result(&value, || format!("{} ({} bytes, {status})", file.display(), bytes.len()));
    Ok(())
}

/// `op dispute`
pub async fn dispute(ctx: &Ctx, op: &str, reason: &str) -> Result<(), Failure> {
    let op: OpRef = op.parse()?;
    let answer = ctx.api("operator")?.post(&format!("/v1/operations/{op}/dispute"), &json!({"reason": reason})).await?;
    ctx.out.result(&answer, || lines(&answer));
    Ok(())
}

/// `why`
pub async fn why(ctx: &Ctx, what: &str) -> Result<(), Failure> {
    let answer = ctx.api("operator")?.get(&format!("/v1/decisions/{what}")).await?;
    ctx.out.result(&answer, || lines(&answer));
    Ok(())
}

/// `ledger status`
pub async fn ledger_status(ctx: &Ctx) -> Result<(), Failure> {
    let answer = ctx.api("operator")?.get("/v1/ledger/status").await?;
    ctx.out.result(&answer, || lines(&answer));
    Ok(())
}

/// An object as lines of `name  value`.
pub fn lines(value: &Value) -> String {
    let Some(object) = value.as_object() else { return value.to_string() };
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let show = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let filled = object.iter().filter(|(_, v)| !v.is_null());
    filled.map(|(k, v)| format!("{k:<width$}  {}", show(v))).collect::<Vec<_>>().join("\n")
}
