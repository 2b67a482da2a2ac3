//! `op`, `why`, `ledger`

use super::Ctx;
use crate::context::Api;
use crate::failure::{Exit, Failure};
use concordat_protocol::ids::OpRef;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a receipt may take: the header that covers it comes with the next block.
const RECEIPT_WITHIN: Duration = Duration::from_secs(15);

/// Writes the receipt of an operation to a file, waiting for the header that covers it.
pub async fn fetch_receipt(api: &Api, op: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    let op: OpRef = op.parse()?;
    let end = Instant::now() + RECEIPT_WITHIN;
    let bytes = loop {
        match api.get_bytes(&format!("/v1/operations/{op}/receipt"), "application/cbor").await {
            Ok(bytes) => break bytes,
            Err(e) if matches!(e.exit, Exit::Unavailable | Exit::Conflict) && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(e) => return Err(e),
        }
    };
    std::fs::write(file, &bytes).map_err(|e| Failure::new(Exit::Failed, "io", format!("{}: {e}", file.display())))?;
    Ok(bytes)
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
pub async fn receipt(ctx: &Ctx, op: &str, file: Option<&PathBuf>) -> Result<(), Failure> {
    let number: OpRef = op.parse()?;
    let default = PathBuf::from(format!("op-{}.receipt", number.0));
    let file = file.unwrap_or(&default);
    let bytes = fetch_receipt(&ctx.api("operator")?, op, file).await?;
    let value = serde_json::json!({"operation": number.to_string(), "file": file, "bytes": bytes.len()});
    ctx.out.result(&value, || format!("{} ({} bytes)", file.display(), bytes.len()));
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
