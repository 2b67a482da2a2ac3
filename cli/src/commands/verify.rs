//! `verify`: nothing but a receipt and trust.json; no network, no node, no clock.

use super::Ctx;
use crate::failure::{Exit, Failure, read_file, read_text};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Invalid, Status, Verified, verify};
use serde_json::json;
use std::path::Path;

/// `verify receipt`
pub fn receipt(ctx: &Ctx, file: &Path, trust: &Path) -> Result<(), Failure> {
    let trust = trusted(trust)?;
    let bytes = read_file(file)?;
    match verify(&bytes, &trust, None) {
        Ok(v) => {
            let text = || {
                let checks: Vec<String> = v.checks.iter().map(|c| format!("  {:<20} {}", c.name, c.sentence)).collect();
                let opened: Vec<String> =
                    v.opened.iter().filter(|(_, t)| !t.is_empty()).map(|(n, t)| format!("  {n:<14} {t}")).collect();
                let contested = if v.contested { ", CONTESTED: the key counts as compromised" } else { "" };
                format!(
                    "VALID ({}{contested}): op:{} at height {}, {} by the ledger\n{}\n{}\nopened\n{}\nchecks\n{}",
                    v.status.word(),
                    v.index,
                    v.height,
                    v.verdict,
                    summary(&v),
                    countersigned(&v),
                    opened.join("\n"),
                    checks.join("\n")
                )
            };
            ctx.out.result(&v.to_json(), text);
            Ok(())
        }
        Err(e) => Err(invalid(ctx, file, &e)),
    }
}

/// trust.json, read by a verifier that works on this machine.
pub(super) fn trusted(trust: &Path) -> Result<Trust, Failure> {
    let unusable = |e: concordat_protocol::keys::KeyError| Failure::new(Exit::Failed, "self-test", e.to_string());
    concordat_protocol::keys::self_test().map_err(unusable)?;
    Ok(Trust::from_json(&read_text(trust)?)?)
}

/// Says at which check a file fails.
pub(super) fn invalid(ctx: &Ctx, file: &Path, e: &Invalid) -> Failure {
    let problem = json!({"valid": false, "check": e.check, "detail": e.sentence});
    ctx.out.result(&problem, || format!("INVALID at {}: {}", e.check, e.sentence));
    Failure {
        exit: Exit::ProofInvalid,
        code: e.code().into(),
        message: format!("{} does not prove itself: {}", file.display(), e.sentence),
        problem: Some(problem),
    }
}

/// Who stands behind the state, and which party does not.
fn countersigned(v: &Verified) -> String {
    let names = |list: &[AgencyId]| list.iter().map(AgencyId::to_string).collect::<Vec<_>>().join(" ");
    match v.status {
        Status::Provisional => "no checkpoint covers it yet: the validators' votes alone stand behind it".to_owned(),
        Status::Final if v.not_countersigned.is_empty() => format!("cosigned by {}", names(&v.cosigners)),
        Status::Final => {
            format!("cosigned by {}; not countersigned by {}", names(&v.cosigners), names(&v.not_countersigned))
        }
    }
}

fn summary(v: &Verified) -> String {
    let consumer = v.consumer.as_ref().map_or_else(String::new, |c| format!(" to {c}"));
    let clause = v.clause.as_ref().map_or_else(String::new, |c| format!(", clause {c}"));
    format!("{} of {}{consumer}{clause}", v.kind, v.provider)
}
