//! `evidence export`, `verify bundle`: one file for a court, and its check without network, node or clock.

use super::Ctx;
use crate::args::evidence::EvidenceExport;
use crate::failure::{Exit, Failure, read_file, read_text};
use crate::output::table;
use concordat_broker::bundle::check::{Report, check};
use concordat_broker::bundle::{BundleError, container};
use concordat_protocol::trust::Trust;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Longest export: up to a thousand operations are proven.
const WITHIN: Duration = Duration::from_secs(300);

fn ms(text: Option<&str>) -> Result<Option<i64>, Failure> {
    let parse = |t: &str| t.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond);
    text.map(|t| parse(t).map_err(|e| Failure::usage(format!("{t}: {e}; write 2026-11-23T00:00:00Z")))).transpose()
}

/// `evidence export`
pub async fn export(ctx: &Ctx, args: &EvidenceExport) -> Result<(), Failure> {
    let mut body = json!({"case": args.case, "zone": args.zone});
    for (name, value) in [("from_ms", ms(args.from.as_deref())?), ("until_ms", ms(args.until.as_deref())?)] {
        if let Some(value) = value {
            body[name] = value.max(0).into();
        }
    }
    let bytes = ctx.api("operator")?.post_for_bytes_within("/admin/v1/evidence", &body, WITHIN).await?;
    let entries = container::read(&bytes).map_err(|e| refused(&args.out, &e))?;
    let export = entries.iter().find(|e| e.name == "export.json");
    let export: Value = export.and_then(|e| serde_json::from_slice(&e.bytes).ok()).unwrap_or_default();
    std::fs::write(&args.out, &bytes)?;
    let count = |member: &str| export[member].as_array().map_or(0, Vec::len);
    let (operations, left_out) = (count("operations"), count("left_out"));
    let shown = json!({
        "file": args.out.display().to_string(), "bytes": bytes.len(), "case": export["case"], "operations": operations,
        "left_out": export["left_out"], "fingerprint": export["fingerprint"],
    });
    ctx.out.result(&shown, || {
        format!(
            "{}: {operations} operations of {}, {left_out} left out, {} bytes\n  concordat verify bundle {} --trust trust.json\n  fingerprint {}",
            args.out.display(),
            args.case,
            bytes.len(),
            args.out.display(),
            export["fingerprint"].as_str().unwrap_or_default()
        )
    });
    Ok(())
}

fn refused(file: &Path, e: &BundleError) -> Failure {
    Failure::new(Exit::ProofInvalid, e.code(), format!("{} does not prove itself: {e}", file.display()))
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| ms.to_string(), |t| t.to_string())
}

fn text(file: &Path, report: &Report) -> String {
    let rows: Vec<Value> = report
        .operations
        .iter()
        .map(|(op, v)| {
            let status = if v.contested { format!("{}, CONTESTED", v.status.word()) } else { v.status.word().to_owned() };
            json!({
                "op": op.operation, "kind": v.kind, "verdict": v.verdict.word(), "status": status, "provider": v.provider,
                "consumer": v.consumer, "clause": v.clause, "time": time(v.tick_ms), "time-stamps": op.timestamps.len(),
            })
        })
        .collect();
    let columns = ["op", "kind", "verdict", "status", "provider", "consumer", "clause", "time", "time-stamps"];
    let mut out = format!(
        "VALID: {}\ncase {} on {}, fingerprint {}\n{}\n",
        file.display(),
        report.export.case,
        report.export.chain,
        report.export.fingerprint,
        table(&rows, &columns)
    );
    for left in &report.export.left_out {
        out.push_str(&format!("left out: {} ({}): {}\n", left.what, left.outcome, left.why));
    }
    for (token, signer, ms) in &report.timestamps {
        out.push_str(&format!("time-stamp {token}: {} by {signer}\n", time(u64::try_from(*ms).unwrap_or(0))));
    }
    for warning in &report.warnings {
        out.push_str(&format!("note: {warning}\n"));
    }
    out.push_str(&format!(
        "exported at {} by {} ({}); the signature identifies the exporter's key, {}, and nothing else:\n  what is proven, the receipts prove; compare the fingerprint aloud",
        time(report.export.exported_at_ms),
        report.export.agency,
        report.signer.subject,
        report.signer.certificate_sha256
    ));
    out
}

/// `verify bundle`
pub fn verify(ctx: &Ctx, file: &Path, trust: &Path) -> Result<(), Failure> {
    let unusable = |e: concordat_protocol::keys::KeyError| Failure::new(Exit::Failed, "self-test", e.to_string());
    concordat_protocol::keys::self_test().map_err(unusable)?;
    let trust = Trust::from_json(&read_text(trust)?)?;
    trust.check()?;
    match check(&read_file(file)?, &trust) {
        Ok(report) => {
            ctx.out.result(&report.to_json(), || text(file, &report));
            Ok(())
        }
        Err(e) => {
            let (name, why) = match &e {
                BundleError::Refused { file, why } => (file.clone(), why.clone()),
                other => ("container".to_owned(), other.to_string()),
            };
            let problem = json!({"valid": false, "file": name, "detail": why});
            ctx.out.result(&problem, || format!("INVALID at {name}: {why}"));
            Err(Failure { problem: Some(problem), ..refused(file, &e) })
        }
    }
}
