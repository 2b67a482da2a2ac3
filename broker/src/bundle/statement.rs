//! What the page for people says. Its sentences are made from the receipts and from what the agency's store knows; where
//! the two differ in weight, it says so.

use super::page::Block;
use super::{BundleError, Export, Operation};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time as people here say it, and in UTC.
fn at(ms: u64, zone: &TimeZone) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(0)).unwrap_or_default();
    let local = time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z (UTC%:z)").to_string();
    let utc = time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    format!("{local}, which is {utc}")
}

/// The zone of a name.
pub(super) fn zone(name: &str) -> Result<TimeZone, BundleError> {
    TimeZone::get(name).map_err(|_| BundleError::Zone(name.to_owned()))
}

fn or(text: &str, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text.to_owned() }
}

fn standing(op: &Operation) -> String {
    let mut text = if op.status == "final" {
        format!(
            "Final. The state of the ledger that holds this entry was signed by {}, more than two thirds of the agencies that \
             keep the ledger, each after comparing it with its own records.",
            op.cosigners.join(", ")
        )
    } else {
        "Provisional. More than two thirds of the ledger's validators voted for it; the agencies' own signatures under a \
         checkpoint were not gathered yet when this was exported. A later export can have them."
            .to_owned()
    };
    if !op.not_countersigned.is_empty() {
        text.push_str(&format!(" Not countersigned by {}, a party of it.", op.not_countersigned.join(", ")));
    }
    if op.contested {
        text.push_str(
            " CONTESTED: the provider declared the key that signed this release compromised since before this time.",
        );
    }
    text
}

fn who(op: &Operation, export: &Export) -> String {
    let asked = format!(
        "{} asked {} for records of {}",
        or(&op.consumer, &export.agency),
        op.provider,
        or(&op.dataset, "a dataset that the receipt does not show")
    );
    match (op.kind.as_str(), op.verdict.as_str()) {
        ("deny", _) => format!("{asked}, and {} refused.", op.provider),
        (_, "accepted") => format!("{asked}, and {} released them.", op.provider),
        _ => format!("{asked}. The ledger did not accept the record ({}).", op.verdict),
    }
}

fn operation(i: usize, op: &Operation, export: &Export, zone: &TimeZone) -> Vec<Block> {
    let denied = op.kind == "deny";
    let said = if denied { "refused" } else { "released" };
    let mut out = vec![Block::Heading(format!(
        "{}. {}: {said}; its record on the ledger is {} and {}",
        i + 1,
        op.operation,
        op.verdict,
        op.status
    ))];
    out.push(Block::Text(who(op, export)));
    let mut fact = |name, text: String| {
        if !text.is_empty() {
            out.push(Block::Fact(name, text));
        }
    };
    fact("Purpose stated", op.purpose.clone());
    if !op.clause.is_empty() {
        let version = op.version.map_or_else(String::new, |v| format!(", version {v}"));
        fact("Clause", format!("{} of {}{version}", op.clause, or(&op.agreement, "an agreement")));
        fact("It says", op.clause_text.clone());
    }
    fact("Refused because", op.denied.clone());
    fact("Recorded", format!("{}, at height {} of the ledger", at(op.tick_ms, zone), op.height));
    if let Some(rows) = op.rows {
        let hash = op.opened.iter().find(|(name, _)| name == "content_root");
        let hash = hash.map_or_else(String::new, |(_, h)| format!(" Fingerprint of the content: {h}"));
        fact("Rows", format!("{rows} were released. They are not in this bundle.{hash}"));
    }
    // The content's fingerprint and the case stand elsewhere on the page.
    let opened = op.opened.iter().filter(|(n, v)| !v.is_empty() && n != "content_root" && *v != export.case);
    fact("Record shows", opened.map(|(n, v)| format!("{n}: {v}")).collect::<Vec<_>>().join("; "));
    fact("Standing", standing(op));
    for token in &op.timestamps {
        let tsa = export.timestamps.iter().find(|t| t.token == *token).map_or("", |t| t.tsa.as_str());
        fact("Time-stamped", format!("by the authority at {tsa} (RFC 3161), {token}"));
    }
    fact("Proof", op.receipt.clone());
    if denied {
        let text = "The receipt proves that the provider put a refusal on the ledger. What was asked, and the reason, are \
                    from this agency's own records.";
        out.push(Block::Text(text.into()));
    }
    out
}

fn proves() -> Vec<Block> {
    let text = |t: &str| Block::Text(t.to_owned());
    vec![
        Block::Heading("What this proves".into()),
        text(
            "That each entry stands in the ledger at its place, with its time and with what the ledger said of it. That a \
             released request was signed by a session of the agency that asked, and the release by the key of the agency that \
             answered. That the released content has the fingerprint given, so that rows held elsewhere can be compared with it.",
        ),
        Block::Heading("What it does not prove".into()),
        text(
            "That the provider's data are true or complete. What was done with them afterwards, or what people told each other \
             outside the system. That no more queries were made: the exporting agency chose the case reference. The time is the \
             ledger's, agreed by its validators; an independent time is only where a time-stamp is named. This page, the JSON \
             files and the signature of the container are the exporting agency's words: they carry no weight of their own.",
        ),
    ]
}

fn how(export: &Export) -> Vec<Block> {
    vec![
        Block::Heading("How to check".into()),
        Block::Text(
            "Without network, on any computer, with the free program concordat and a trust.json that you did not get with this \
             file:"
                .into(),
        ),
        Block::Fact("Command", "concordat verify bundle FILE.asice --trust trust.json".into()),
        Block::Fact("Fingerprint", export.fingerprint.clone()),
        Block::Text(
            "Compare the fingerprint aloud with an agency that keeps the ledger, best one that is no party here. If it is the \
             same and the command says VALID, what is said above under \"What this proves\" holds even if the exporting agency is \
             not believed."
                .into(),
        ),
    ]
}

/// The whole page.
///
/// # Errors
/// The zone is unknown.
pub(super) fn blocks(export: &Export) -> Result<Vec<Block>, BundleError> {
    let zone = zone(&export.zone)?;
    let count = |kind: &str| export.operations.iter().filter(|o| (o.kind == "deny") == (kind == "deny")).count();
    let mut out = vec![
        Block::Title(format!("Evidence in the matter {}", export.case)),
        Block::Text(format!(
            "Exported by {} of the agency {} on {}. The bundle has {} released and {} refused requests under this case \
             reference, as recorded on the ledger {}.",
            export.exported_by,
            export.agency,
            at(export.exported_at_ms, &zone),
            count("release"),
            count("deny"),
            export.chain
        )),
    ];
    for (i, op) in export.operations.iter().enumerate() {
        out.extend(operation(i, op, export, &zone));
    }
    if !export.left_out.is_empty() {
        out.push(Block::Heading("Not in this bundle".into()));
        out.extend(export.left_out.iter().map(|l| Block::Text(format!("{} ({}): {}", l.what, l.outcome, l.why))));
    }
    out.extend(proves());
    out.extend(how(export));
    Ok(out)
}
