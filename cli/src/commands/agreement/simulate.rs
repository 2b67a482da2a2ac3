//! `agreement simulate`: recorded requests under a next version.

use super::super::Ctx;
use super::documents::{Active, active};
use super::{compiled, now_ms};
use crate::args::agreements::Simulate;
use crate::context::Tokens;
use crate::failure::{Exit, Failure, read_text};
use crate::output::table;
use concordat_broker::config::NodeConfig;
use concordat_policies::compile::Compiled;
use concordat_policies::simulate::{Outcome, Recorded, RecordedError, Simulation, read, simulate as run};
use concordat_policies::time::utc_text;
use concordat_protocol::ids::AgencyId;
use serde_json::{Value, json};

/// Reasons of denials that the terms of agreements decide. What the executor or the ledger denied (a filter, a field, a
/// quota), or what depends on the clause that a request named, which is not recorded, is left out.
const BY_TERMS: [&str; 8] =
    ["no-agreement", "prohibited", "action", "party", "role", "purpose", "reference", "unfulfillable-duty"];

/// Decides recorded requests again.
pub(super) async fn simulate(ctx: &Ctx, s: &Simulate) -> Result<(), Failure> {
    let next = compiled(&s.file)?;
    let recorded = match (&s.requests, s.last) {
        (Some(file), _) => read(&read_text(file)?).map_err(|e| refused(&file.display().to_string(), &e))?,
        (None, Some(count)) => newest(ctx, count).await?,
        (None, None) => return Err(Failure::usage("name the requests: --requests FILE, or --last COUNT with a node")),
    };
    let active = active(ctx, &s.in_force).await?;
    let done = decide(&next, &active, &recorded, now_ms(None)?)?;
    let value = serde_json::to_value(&done).map_err(|e| Failure::new(Exit::Failed, "json", e.to_string()))?;
    ctx.out.result(&value, || report(&done));
    Ok(())
}

fn refused(file: &str, e: &RecordedError) -> Failure {
    Failure::usage(format!("{file}: {e}"))
}

fn decide(next: &Compiled, active: &Active, recorded: &[(usize, Recorded)], now: u64) -> Result<Simulation, Failure> {
    let doc = &next.document;
    // Evaluators are made once a consumer; a policy that does not load stops everything.
    let first = doc.assignee.clone().map_or_else(|| AgencyId::new("anybody"), Ok)?;
    active.set(&doc.target, &first, Some(next))?;
    let sets = |consumer: &AgencyId| {
        let of = |next| active.set(&doc.target, consumer, next);
        let none = || concordat_policies::evaluate::AgreementSet::new(doc.target.clone(), consumer.clone(), []);
        (of(None).unwrap_or_else(|_| none()), of(Some(next)).unwrap_or_else(|_| none()))
    };
    let cache = std::cell::RefCell::new(std::collections::BTreeMap::new());
    let cached = |c: &AgencyId| cache.borrow_mut().entry(c.clone()).or_insert_with(|| sets(c)).clone();
    run(recorded, &doc.target, doc.assignee.as_ref(), now, cached).map_err(|e| refused("requests", &e))
}

/// The requests of this agency's people among the newest operations, as its own gateway recorded them. Roles are those
/// that the person has now.
async fn newest(ctx: &Ctx, count: u32) -> Result<Vec<(usize, Recorded)>, Failure> {
    let (dir, api) = (ctx.dir()?, ctx.api("operator")?);
    let own = NodeConfig::load(&dir)?;
    let tokens = read_text(&own.keys().join("tokens.yaml"))?;
    let tokens: Tokens = concordat_policies::yaml::parse(&tokens)?;
    let answer = api.get(&format!("/v1/operations?limit={count}")).await?;
    let list = answer["operations"].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for entry in list.iter().rev().filter(|e| e["kind"] == "operation") {
        let op = entry["operation"].as_str().unwrap_or_default();
        let request = api.get(&format!("/v1/operations/{op}")).await?["request"].clone();
        let roles = tokens.tokens.iter().find(|t| request["asked_by"] == t.name.as_str()).map(|t| t.roles.clone());
        if let Some(found) = roles.and_then(|roles| recorded(&request, roles, &own.agency)) {
            let number = op.trim_start_matches("op:").parse().unwrap_or_default();
            all.push((number, found));
        }
    }
    Ok(all)
}

/// A request as the gateway knows it.
fn recorded(r: &Value, roles: Vec<String>, own: &AgencyId) -> Option<Recorded> {
    let text = |k: &str| r[k].as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let permitted = match r["outcome"].as_str()? {
        "released" => true,
        "denied" => false,
        _ => return None,
    };
    let clause =
        text("agreement").zip(text("clause")).map(|(a, c)| if c.contains('/') { c } else { format!("{a}/{c}") });
    let reason = r["why"]["reason"].as_str().map(str::to_owned);
    if !permitted && reason.as_deref().is_none_or(|w| !BY_TERMS.contains(&w)) {
        return None;
    }
    Some(Recorded {
        dataset: Some(text("dataset")?.parse().ok()?),
        consumer: Some(own.org()),
        roles,
        action: None,
        break_glass: false,
        purpose: text("purpose")?,
        clause: None,
        case: text("case"),
        at: Some(utc_text(r["asked_at_ms"].as_u64()?)?),
        sign_in: None,
        recorded: Some(Outcome {
            permitted,
            clause: clause.filter(|_| permitted),
            reason: reason.filter(|_| !permitted),
        }),
    })
}

fn report(s: &Simulation) -> String {
    let mut out = format!(
        "{} requests: {} newly denied, {} newly permitted, {} under another clause, {} denied for another reason",
        s.requests, s.newly_denied, s.newly_permitted, s.other_clause, s.other_reason
    );
    if s.foreign > 0 {
        out.push_str(&format!("\n{} of other datasets or agencies were left out", s.foreign));
    }
    if s.changed.is_empty() {
        return out;
    }
    let said = |o: &Outcome| match o.permitted {
        true => format!("permitted {}", o.clause.as_deref().unwrap_or_default()),
        false => format!("denied {}", o.reason.as_deref().unwrap_or_default()),
    };
    let rows: Vec<Value> =
        s.changed.iter().map(|f| json!({"line": f.line, "before": said(&f.before), "after": said(&f.after)})).collect();
    format!("{out}\n\n{}", table(&rows, &["line", "before", "after"]))
}
