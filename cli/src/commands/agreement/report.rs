//! `agreement report`: what happened under an agreement, counted and proven by the own node.

use super::super::Ctx;
use crate::args::agreements::Report;
use crate::failure::{Exit, Failure};
use crate::output::table;
use concordat_policies::time::utc_text;
use serde_json::{Value, json};

/// A day or a time as RFC 3339.
fn time(option: &str, text: &str) -> Result<String, Failure> {
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match full.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(full),
        Err(_) => Err(Failure::usage(format!("{option}: a day like 2026-01-31 or a time like 2026-01-31T00:00:00Z"))),
    }
}

/// Makes the report; with a file, the whole with its proofs goes there.
pub(super) async fn report(ctx: &Ctx, r: &Report) -> Result<(), Failure> {
    let (from, to) = (time("--from", &r.from)?, time("--to", &r.to)?);
    let path = format!("/v1/agreements/{}/report?from={}&to={}", r.agreement, encoded(&from), encoded(&to));
    let made = ctx.api("operator")?.get(&path).await?;
    if let Some(file) = &r.file {
        let text = format!("{made:#}\n");
        std::fs::write(file, text).map_err(|e| Failure::new(Exit::Failed, "io", format!("{}: {e}", file.display())))?;
        ctx.out.say(format!("report with proofs: {}", file.display()));
    }
    ctx.out.result(&made, || text(&made));
    Ok(())
}

/// The few characters of a time that a query may not hold.
fn encoded(time: &str) -> String {
    time.replace('+', "%2B").replace(':', "%3A")
}

fn text(r: &Value) -> String {
    let when = |name: &str| r[name].as_u64().and_then(utc_text).unwrap_or_default();
    let mut out = format!(
        "{} from {} until before {}\n{} operations, {} rows released, {} cases\n",
        r["agreement"].as_str().unwrap_or_default(),
        when("from_ms"),
        when("to_ms"),
        r["counted"],
        r["rows"],
        r["cases"]
    );
    if let Some(feeds) = r["feeds"].as_object() {
        out.push_str(&format!("feeds: {} deliveries with {} messages\n", feeds["deliveries"], feeds["messages"]));
    }
    if r["withheld"].as_u64().unwrap_or_default() > 0 {
        out.push_str(&format!("{} recorded and never released\n", r["withheld"]));
    }
    let clauses = r["clauses"].as_object().into_iter().flatten();
    let rows: Vec<Value> = clauses
        .map(|(clause, n)| {
            json!({"clause": clause, "released": n["released"], "delivered": n["delivered"], "denied": n["denied"],
            "refused": n["refused"], "withheld": n["withheld"]})
        })
        .collect();
    if !rows.is_empty() {
        out.push_str(&format!(
            "\n{}\n",
            table(&rows, &["clause", "released", "delivered", "denied", "refused", "withheld"])
        ));
    }
    for (title, name) in [("verdict", "verdicts"), ("reason", "reasons"), ("purpose", "purposes")] {
        let counts = r[name].as_object().into_iter().flatten();
        let rows: Vec<Value> = counts.map(|(word, n)| json!({title: word, "operations": n})).collect();
        if !rows.is_empty() {
            out.push_str(&format!("\n{}\n", table(&rows, &[title, "operations"])));
        }
    }
    let operations = r["operations"].as_array().cloned().unwrap_or_default();
    if !operations.is_empty() {
        let columns = ["operation", "height", "clause", "outcome", "reason", "purpose", "case", "rows", "messages"];
        out.push_str(&format!("\n{}\n", table(&operations, &columns)));
    }
    out.push_str(&format!(
        "\neach of them is proven in the state of height {}, app hash {}",
        r["proof"]["height"],
        r["proof"]["app_hash"].as_str().unwrap_or_default()
    ));
    out
}
