//! `verify report`: nothing but a report of an agreement and trust.json; no network, no node, no clock.

use super::Ctx;
use super::verify::{invalid, trusted};
use crate::failure::{Failure, read_file};
use concordat_policies::time::utc_text;
use concordat_protocol::verify::report::{VerifiedReport, verify_report};
use std::path::Path;

/// `verify report`
pub fn report(ctx: &Ctx, file: &Path, trust: &Path) -> Result<(), Failure> {
    let trust = trusted(trust)?;
    match verify_report(&read_file(file)?, &trust) {
        Ok(v) => {
            ctx.out.result(&v.to_json(), || text(&v));
            Ok(())
        }
        Err(e) => Err(invalid(ctx, file, &e)),
    }
}

fn text(v: &VerifiedReport) -> String {
    let time = |ms: u64| utc_text(ms).unwrap_or_default();
    let mut lines = vec![format!(
        "VALID ({}): {} operations under {} from {} until before {}, {} of them opened, as of height {}",
        v.status.word(),
        v.counted,
        v.agreement,
        time(v.from_ms),
        time(v.to_ms),
        v.opened,
        v.proof_height
    )];
    lines.push("a report proves what it names, not that it names everything: compare it with the other party's".into());
    lines.push("checks".into());
    lines.extend(v.checks.iter().map(|c| format!("  {:<20} {}", c.name, c.sentence)));
    lines.join("\n")
}
