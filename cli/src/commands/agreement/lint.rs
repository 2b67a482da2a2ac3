//! `agreement lint`

use super::super::Ctx;
use super::rows::{apply, dataset, rows};
use super::{compiled, now_ms};
use crate::args::agreements::Lint;
use crate::failure::{Exit, Failure};
use crate::output::table;
use concordat_broker::host::holding_spec;
use concordat_executor::query::parse_filter;
use concordat_policies::dataset::DatasetDoc;
use concordat_policies::document::{Agreement, Clause};
use concordat_policies::duty::{Duty, DutyKind};
use concordat_policies::lint::{Finding, Severity, field_map, lint as lint_document, lint_fields};
use concordat_policies::lint_whole::{lint_dates, lint_types};
use concordat_policies::uniqueness::{finding, uniqueness};
use serde_json::{Value, json};

/// Most sets of fields shown for a clause.
const TELLING: usize = 10;

/// Runs the linter; the findings decide the exit code.
pub(super) fn lint(ctx: &Ctx, l: &Lint) -> Result<(), Failure> {
    let c = compiled(&l.file)?;
    let doc = &c.document;
    let now = now_ms(l.at.as_deref())?;
    let mut findings = lint_document(doc);
    findings.extend(lint_dates(doc, now));
    let data = dataset(ctx, &l.rows, doc)?;
    let mut measured = Vec::new();
    if let Some(data) = &data {
        findings.extend(lint_fields(doc, &field_map(data)));
        findings.extend(lint_types(doc, data));
        findings.extend(filters(doc, data)?);
    }
    if let Some(rows) = rows(ctx, &l.rows, data.as_ref())? {
        let data = data.as_ref().ok_or_else(super::rows::wanted)?;
        for clause in doc.clauses.iter().filter(|c| c.grants()) {
            if clause.duties.iter().any(|d| d.kind() == DutyKind::Aggregate) {
                continue;
            }
            // A filter that does not fit is among the findings already.
            let Ok(shown) = apply(doc, clause, data, &rows, now) else { continue };
            let found = uniqueness(&shown.seen, &data.key);
            findings.extend(finding(clause, &found));
            let telling = &found.telling[..found.telling.len().min(TELLING)];
            measured.push(json!({"clause": clause.id, "rows": found.rows, "telling": telling}));
        }
    }
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.clause.cmp(&b.clause)));
    report(ctx, &c.text, doc, &hex::encode(c.terms_hash()), &findings, &measured);
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    match errors {
        0 => Ok(()),
        n => Err(Failure::new(Exit::Failed, "lint", format!("{n} finding(s) say: do not sign it as it is"))),
    }
}

/// Row filters that the query language does not take for this dataset: every request under them would be denied.
fn filters(doc: &Agreement, data: &DatasetDoc) -> Result<Vec<Finding>, Failure> {
    let fields = holding_spec(data)?.fields;
    let bad = |c: &Clause| {
        c.duties.iter().find_map(|d| match d {
            Duty::RowFilter { filter } => parse_filter(filter, &fields, "/where").err().map(|e| Finding {
                severity: Severity::Error,
                rule: "row-filter",
                clause: Some(c.id.clone()),
                at: c.at,
                text: format!("its row filter does not fit {}: {e}", doc.target),
            }),
            _ => None,
        })
    };
    Ok(doc.clauses.iter().filter_map(bad).collect())
}

fn report(ctx: &Ctx, text: &str, doc: &Agreement, hash: &str, findings: &[Finding], measured: &[Value]) {
    let shown: Vec<Value> = findings
        .iter()
        .map(|f| json!({"severity": f.severity, "rule": f.rule, "clause": f.clause, "line": f.at.line, "text": f.text}))
        .collect();
    let value = json!({
        "agreement": doc.agreement, "version": doc.version, "terms_hash": hash, "sentences": text, "findings": shown,
        "uniqueness": measured,
    });
    ctx.out.result(&value, || {
        let findings = if shown.is_empty() {
            "no findings".to_owned()
        } else {
            table(&shown, &["severity", "clause", "line", "rule", "text"])
        };
        format!("{}\n\nterms hash {hash}\n\n{findings}", text.trim_end())
    });
}
