//! The terms as plain sentences: the text that people read before they approve, hashed into the terms.

use crate::document::{Agreement, Clause, Who};
use concordat_protocol::terms::{Effect, Evidence};
use std::fmt::Write as _;

/// Renders a document. The same document gives the same text, byte for byte.
pub fn render(doc: &Agreement) -> String {
    let mut out = String::new();
    let consumer = doc.assignee.as_ref().map_or_else(|| "anybody (public data)".to_owned(), |a| a.org());
    let (from, until) = doc.valid.texts();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "Agreement {}, version {}", doc.agreement, doc.version);
    let _ = writeln!(out, "{} lets {consumer} use {}.", doc.assigner.org(), doc.target);
    let _ = writeln!(out, "It holds from {from} until {until} (ledger time, UTC; the end is not included).");
    if let Some(p) = &doc.paper {
        let _ = writeln!(out, "It rests on \"{}\" (SHA-256 {}).", p.title, hex::encode(p.sha256));
    }
    let _ = writeln!(out, "{} approves as: {}.", doc.assigner.org(), doc.assigner_roles.join(", "));
    if let Some(a) = &doc.assignee {
        let _ = writeln!(out, "{} approves as: {}.", a.org(), doc.assignee_roles.join(", "));
    }
    if let [_, ..] = doc.languages().as_slice() {
        let bind = doc.prevails.as_ref().map_or_else(|| "All bind alike.".to_owned(), |l| format!("{l} prevails."));
        let _ = writeln!(out, "The clauses are written in {}. {bind}", doc.languages().join(", "));
    }
    let _ = writeln!(out, "Prohibitions win over everything. What no clause permits is denied.");
    for c in &doc.clauses {
        if c.texts.is_empty() {
            let _ = writeln!(out, "\n{}. {}", c.id, c.text);
        } else {
            let _ = writeln!(out, "\n{}.", c.id);
        }
        for (language, text) in &c.texts {
            let _ = writeln!(out, "  [{language}] {text}");
        }
        for s in sentences(doc, c) {
            let _ = writeln!(out, "  - {s}");
        }
    }
    out
}

fn sentences(doc: &Agreement, c: &Clause) -> Vec<String> {
    let mut out = vec![grant(c)];
    if c.valid != doc.valid {
        let (from, until) = c.valid.texts();
        out.push(format!("This clause holds from {from} until {until} only."));
    }
    if c.grants() {
        out.push(evidence(&c.evidence));
    }
    match &c.legal_basis {
        Some(b) if c.legal_bases.is_empty() => out.push(format!("Legal basis: {b}")),
        _ => out.extend(c.legal_bases.iter().map(|(language, b)| format!("Legal basis [{language}]: {b}"))),
    }
    out.extend(c.duties.iter().map(crate::duty::Duty::sentence));
    out
}

fn grant(c: &Clause) -> String {
    let nobody = c.effect == Effect::Prohibit;
    let who = match &c.who {
        Who::Any => if nobody { "Nobody" } else { "Anybody" }.to_owned(),
        Who::Org { org, role: None } => format!("{} of {}", if nobody { "Nobody" } else { "Everybody" }, org.org()),
        Who::Org { org, role: Some(r) } => format!("{}{r} of {}", if nobody { "No " } else { "" }, org.org()),
    };
    let may = match c.effect {
        Effect::Permit => "may",
        Effect::Prohibit => "may ever",
        Effect::BreakGlass => "may, as an override in an emergency,",
    };
    let actions: Vec<&str> = c.actions.iter().map(|a| a.word()).collect();
    let purpose = c.purpose.as_ref().map_or_else(|| "any purpose".to_owned(), |p| format!("the purpose {p}"));
    format!("{who} {may} {} for {purpose}.", actions.join(" or "))
}

fn evidence(e: &Evidence) -> String {
    match e {
        Evidence::None {} => "No record of single uses is kept.".to_owned(),
        Evidence::Strict {} => "Nothing is released before the ledger has recorded it.".to_owned(),
        Evidence::Bounded { max_lag_ms } => {
            format!("What is released is on the ledger at most {} later.", crate::time::duration_text(*max_lag_ms))
        }
    }
}
