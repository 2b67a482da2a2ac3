//! `agreement new`, `render`, `diff`: documents as such.

use super::super::Ctx;
use super::compiled;
use crate::args::agreements::NewAgreement;
use crate::failure::{Exit, Failure};
use crate::output::table;
use concordat_policies::compile::compile;
use concordat_policies::diff;
use concordat_policies::templates::{TEMPLATES, Template};
use concordat_protocol::hash::sha256;
use jiff::{Span, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// `agreement new`
pub(super) fn new(ctx: &Ctx, n: &NewAgreement) -> Result<(), Failure> {
    let Some(name) = &n.template else {
        let row = |t: &Template| json!({"template": t.name, "about": t.about, "set": t.placeholders().join(", ")});
        let rows: Vec<Value> = TEMPLATES.iter().map(row).collect();
        ctx.out.list(&rows, &["template", "about", "set"]);
        return Ok(());
    };
    let known: Vec<&str> = TEMPLATES.iter().map(|t| t.name).collect();
    let template = Template::of(name).ok_or_else(|| {
        let near = concordat_policies::yaml::nearest(name, &known);
        let near = near.map_or_else(String::new, |n| format!("; did you mean {n}?"));
        Failure::new(Exit::NotFound, "template", format!("no template {name} (there are {}){near}", known.join(", ")))
    })?;
    let values = values(n, template)?;
    let filled: Vec<(&str, &str)> = values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let text = template.fill(&filled)?;
    compile(&text).map_err(|e| Failure::usage(format!("with these values the document is refused: {e}")))?;
    match &n.file {
        None => ctx.out.result(&json!({"template": name, "document": text}), || text.clone()),
        Some(file) => {
            // Nothing is written over: somebody may have worked on it.
            let made =
                std::fs::File::create_new(file).and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()));
            made.map_err(|e| Failure::new(Exit::Conflict, "file", format!("{}: {e}", file.display())))?;
            ctx.out.result(&json!({"template": name, "file": file}), || {
                format!("{}\nnext: edit it, then concordat agreement lint {}", file.display(), file.display())
            });
        }
    }
    Ok(())
}

fn values(n: &NewAgreement, template: &Template) -> Result<BTreeMap<String, String>, Failure> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).start_of_day();
    let year = |z: &jiff::Zoned| z.checked_add(Span::new().years(1));
    let (from, until) = today
        .and_then(|t| Ok((t.timestamp().to_string(), year(&t)?.timestamp().to_string())))
        .map_err(|e| Failure::new(Exit::Failed, "clock", e.to_string()))?;
    let mut values = BTreeMap::from([("from".to_owned(), from), ("until".to_owned(), until)]);
    let wanted = template.placeholders();
    for pair in &n.values {
        let (k, v) = pair.split_once('=').ok_or_else(|| Failure::usage(format!("--set {pair}: write NAME=VALUE")))?;
        if !wanted.contains(&k) {
            let text = format!("--set {k}: the template {} has {}", template.name, wanted.join(", "));
            return Err(Failure::usage(text));
        }
        values.insert(k.to_owned(), v.to_owned());
    }
    let missing: Vec<&str> = wanted.into_iter().filter(|w| !values.contains_key(*w)).collect();
    if !missing.is_empty() {
        let sets: Vec<String> = missing.iter().map(|m| format!("--set {m}=..")).collect();
        return Err(Failure::usage(format!("the template {} also needs {}", template.name, sets.join(" "))));
    }
    Ok(values)
}

/// `agreement render`
pub(super) fn render(ctx: &Ctx, file: &Path) -> Result<(), Failure> {
    let c = compiled(file)?;
    let value = json!({
        "agreement": c.document.agreement, "version": c.document.version, "languages": c.document.languages(),
        "sentences": c.text, "text_hash": hex::encode(sha256(&[c.text.as_bytes()])),
        "terms_hash": hex::encode(c.terms_hash()),
    });
    ctx.out.result(&value, || c.text.clone());
    Ok(())
}

/// `agreement diff`
pub(super) fn diff(ctx: &Ctx, before: &Path, after: &Path) -> Result<(), Failure> {
    let (a, b) = (compiled(before)?, compiled(after)?);
    let changes = diff::diff(&a.document, &b.document);
    let rows: Vec<Value> = changes.iter().map(|c| json!(c)).collect();
    ctx.out.result(&json!({"same_terms": a.terms_hash() == b.terms_hash(), "changes": rows}), || {
        if rows.is_empty() {
            return "no clause differs".to_owned();
        }
        let shown: Vec<Value> = changes
            .iter()
            .map(|c| {
                let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".to_owned());
                json!({"clause": c.clause.as_deref().unwrap_or("-"), "term": c.term, "gives": c.way,
                    "before": text(&c.before), "after": text(&c.after)})
            })
            .collect();
        table(&shown, &["clause", "term", "gives", "before", "after"])
    });
    Ok(())
}
