//! `notice list`

use super::Ctx;
use crate::failure::Failure;
use serde_json::{Value, json};

/// Lists what people of this agency are told of.
pub async fn list(ctx: &Ctx, kind: Option<&str>, limit: u32) -> Result<(), Failure> {
    let kind = kind.map_or_else(String::new, |k| format!("&kind={k}"));
    let answer = ctx.api("operator")?.get(&format!("/v1/notices?limit={limit}{kind}")).await?;
    let list = answer["notices"].as_array().cloned().unwrap_or_default();
    let due = |n: &Value| n["due_ms"].as_u64().and_then(concordat_policies::time::utc_text);
    let shown: Vec<Value> = list
        .iter()
        .map(|n| json!({"kind": n["kind"], "due": due(n), "text": n["text"], "told": told(&n["told"])}))
        .collect();
    ctx.out.result(&answer, || {
        if shown.is_empty() {
            "nothing".to_owned()
        } else {
            crate::output::table(&shown, &["kind", "due", "text", "told"])
        }
    });
    Ok(())
}

/// `mail sent, webhook waiting`
fn told(v: &Value) -> String {
    let all = v.as_object().into_iter().flatten();
    all.map(|(channel, state)| format!("{channel} {}", state.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(", ")
}
