//! `verify list`: nothing but a list of accesses and trust.json; no network, no node, no clock.

use super::Ctx;
use super::verify::{invalid, trusted};
use crate::failure::{Failure, read_file};
use concordat_protocol::verify::{Access, AccessState, VerifiedAccess, verify_access};
use std::path::Path;

/// `verify list`
pub fn list(ctx: &Ctx, file: &Path, trust: &Path) -> Result<(), Failure> {
    let trust = trusted(trust)?;
    match verify_access(&read_file(file)?, &trust) {
        Ok(v) => {
            ctx.out.result(&v.to_json(), || text(&v));
            Ok(())
        }
        Err(e) => Err(invalid(ctx, file, &e)),
    }
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{ms} ms"), |t| t.to_string())
}

fn line(a: &Access) -> String {
    let about = match a.state {
        AccessState::Sealed { open_by_ms } => format!("sealed until {}", time(open_by_ms)),
        AccessState::Erased => "the provider has nothing more to show (erased)".into(),
        AccessState::Maybe => "may include this person".into(),
        AccessState::NotIncluded => "not about this person".into(),
        AccessState::Open => {
            let word = |w: Option<&str>| w.unwrap_or("-").to_owned();
            format!("{} · {} · {} · \"{}\"", word(a.consumer()), word(a.purpose()), word(a.clause()), a.sentence)
        }
    };
    format!("  op:{} {} {}: {about}", a.index, time(a.tick_ms), a.kind)
}

fn text(v: &VerifiedAccess) -> String {
    let mut lines = vec![format!(
        "VALID ({}): {} of {}, complete from log index {} up to {} ({})",
        v.status.word(),
        match v.about_the_subject().count() {
            0 => "nobody looked at the records".to_owned(),
            1 => "1 access to the records".to_owned(),
            n => format!("{n} accesses to the records"),
        },
        v.dataset,
        v.from_index,
        v.complete_to,
        time(v.complete_to_ms)
    )];
    lines.extend(v.accesses.iter().map(line));
    lines.push("checks".into());
    lines.extend(v.checks.iter().map(|c| format!("  {:<20} {}", c.name, c.sentence)));
    lines.join("\n")
}
