//! `agreement explain` and `agreement who-can-read`

use super::super::Ctx;
use super::documents::{Active, active};
use super::now_ms;
use crate::args::agreements::{Explain, WhoCanRead};
use crate::failure::{Exit, Failure};
use crate::output::table;
use concordat_broker::config::NodeConfig;
use concordat_policies::document::Window;
use concordat_policies::duty::Capabilities;
use concordat_policies::explain as why;
use concordat_policies::readers::{How, Reader, Unless, readers};
use concordat_policies::simulate::{Recorded, RecordedSignIn};
use concordat_policies::time::utc_text;
use concordat_protocol::ids::{AgencyId, DatasetId};
use serde_json::{Value, json};

/// Agreements whose document is not here: the answer is then not the whole one.
fn partial(active: &Active, dataset: &DatasetId) -> Result<(), Failure> {
    let about: Vec<&String> = active.unknown.iter().filter(|u| u.ends_with(&format!(" on {dataset}"))).collect();
    if about.is_empty() {
        return Ok(());
    }
    let list = about.iter().map(|s| s.as_str()).collect::<Vec<_>>().join("; ");
    let text = format!("not the whole answer: the approved documents of {list} are not in this node's agreements/");
    Err(Failure::new(Exit::Partial, "documents-missing", text))
}

/// Explains a request, clause by clause.
pub(super) async fn explain(ctx: &Ctx, e: &Explain) -> Result<(), Failure> {
    let dataset: DatasetId = e.dataset.parse()?;
    let active = active(ctx, &e.in_force).await?;
    let own = match (&e.consumer, ctx.dir()) {
        (None, Ok(dir)) => Some(NodeConfig::load(&dir)?.agency),
        _ => None,
    };
    let recorded = Recorded {
        dataset: Some(dataset.clone()),
        consumer: e.consumer.clone(),
        roles: e.roles.clone(),
        action: Some(e.action.clone()),
        break_glass: e.break_glass,
        purpose: e.purpose.clone(),
        clause: e.clause.clone(),
        case: e.case.clone(),
        at: e.at.clone(),
        sign_in: e.level.clone().zip(e.signed_in.clone()).map(|(level, at)| RecordedSignIn { level, at }),
        recorded: None,
    };
    let (ask, sign_in) = recorded.ask(own.as_ref(), now_ms(None)?).map_err(|e| match e.starts_with("consumer:") {
        true => Failure::usage("name who asks: --consumer AGENCY"),
        false => Failure::usage(e),
    })?;
    let found = why::explain(&active.set(&dataset, &ask.consumer, None)?, &ask, sign_in.as_ref());
    let value = serde_json::to_value(&found).map_err(|e| Failure::new(Exit::Failed, "json", e.to_string()))?;
    ctx.out.result(&value, || explanation(&found));
    partial(&active, &dataset)
}

fn explanation(x: &why::Explanation) -> String {
    let mut out = match (&x.clause, &x.denial) {
        (Some(c), None) => format!("permitted under {c}"),
        (_, Some(d)) => format!("denied: {}\nnext: {}", d.text, d.next),
        _ => "denied".to_owned(),
    };
    for a in &x.clauses {
        let verdict =
            serde_json::to_value(a.verdict).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        out.push_str(&format!(
            "\n\n{}/{} ({}): {verdict}\n  \"{}\"",
            a.clause.agreement, a.clause.clause, a.effect, a.clause.text
        ));
        match a.verdict {
            why::Verdict::DoesNotApply => {
                out.push_str(&format!(
                    "\n  it is for {}",
                    a.missing.first().map_or("something else", |m| m.what.as_str())
                ));
            }
            why::Verdict::Lacks => {
                for m in &a.missing {
                    out.push_str(&format!("\n  missing: {} — ask {}", m.what, m.ask));
                }
            }
            why::Verdict::Permits => a.duties.iter().for_each(|d| out.push_str(&format!("\n  - {d}"))),
            why::Verdict::Prohibits => {}
        }
    }
    out
}

/// Lists who can read a field.
pub(super) async fn who_can_read(ctx: &Ctx, w: &WhoCanRead) -> Result<(), Failure> {
    let usage = || Failure::usage("write DATASET.FIELD, for example ds:police/stops@1.race");
    let (dataset, field) = w.field.split_once('.').ok_or_else(usage)?;
    let dataset: DatasetId = dataset.parse()?;
    let active = active(ctx, &w.in_force).await?;
    let documents: Vec<_> = active.compiled.iter().map(|c| &c.document).collect();
    let found = readers(&documents, &dataset, field, &Capabilities::default());
    let rows: Vec<Value> = found.iter().map(row).collect();
    let value = json!({"dataset": dataset, "field": field, "readers": rows, "not_known": active.unknown});
    ctx.out.result(&value, || {
        if rows.is_empty() {
            return format!("nobody can read {field} of {dataset} under these agreements");
        }
        let shown: Vec<Value> = found.iter().zip(&rows).map(|(r, v)| flat(r, v)).collect();
        let list = table(&shown, &["clause", "who", "action", "purpose", "how", "when", "except", "now"]);
        format!("{list}\n\n{}", conditions(&found))
    });
    partial(&active, &dataset)
}

fn conditions(found: &[Reader]) -> String {
    let of =
        |r: &Reader| r.conditions.iter().map(|c| format!("{}/{}: {c}\n", r.agreement, r.clause)).collect::<String>();
    let mut lines: Vec<String> = found.iter().map(of).collect();
    lines.dedup();
    lines.concat()
}

fn org(o: Option<&AgencyId>) -> String {
    o.map_or_else(|| "anybody".to_owned(), AgencyId::org)
}

fn window(w: &Window) -> Value {
    json!({"from": utc_text(w.from_ms), "until": utc_text(w.until_ms)})
}

fn unless(u: &Unless) -> Value {
    json!({"clause": u.clause, "org": u.org.as_ref().map(AgencyId::org), "role": u.role, "purpose": u.purpose,
        "window": window(&u.window)})
}

fn row(r: &Reader) -> Value {
    let (how, detail) = match &r.how {
        How::Plain => ("plain", Value::Null),
        How::Altered(sentence) => ("altered", json!(sentence)),
        How::GroupKey(min) => ("group-key", json!({"min_group": min})),
    };
    json!({
        "agreement": r.agreement, "version": r.version, "clause": r.clause, "org": org(r.org.as_ref()), "role": r.role,
        "action": r.action.word(), "break_glass": r.break_glass, "purpose": r.purpose, "how": how, "detail": detail,
        "windows": r.windows.iter().map(window).collect::<Vec<_>>(),
        "unless": r.unless.iter().map(unless).collect::<Vec<_>>(),
        "conditions": r.conditions, "denied_by": r.denied_by,
    })
}

/// One reader on one line.
fn flat(r: &Reader, v: &Value) -> Value {
    let day = |w: &Window| {
        let text = |ms| utc_text(ms).unwrap_or_default();
        format!(
            "{} to {}",
            text(w.from_ms).get(..16).unwrap_or_default(),
            text(w.until_ms).get(..16).unwrap_or_default()
        )
    };
    let except = |u: &Unless| {
        let parts = [u.org.as_ref().map(AgencyId::org), u.role.clone(), u.purpose.clone()];
        format!("{} ({})", parts.into_iter().flatten().collect::<Vec<_>>().join(" "), u.clause)
    };
    let who = r.role.as_ref().map_or_else(|| org(r.org.as_ref()), |role| format!("{} {role}", org(r.org.as_ref())));
    let action = if r.break_glass { "override".to_owned() } else { r.action.word().to_owned() };
    let now = r.denied_by.map_or_else(|| "reads".to_owned(), |d| format!("denied: no executor fulfils {d}"));
    json!({
        "clause": format!("{}/{}", r.agreement, r.clause), "who": who, "action": action,
        "purpose": r.purpose.as_deref().unwrap_or("any"), "how": v["how"],
        "when": r.windows.iter().map(day).collect::<Vec<_>>().join("; "),
        "except": r.unless.iter().map(except).collect::<Vec<_>>().join("; "), "now": now,
    })
}
