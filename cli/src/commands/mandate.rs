//! `subject mandate`, `subject looks`: who represents whom, and what citizens looked at.

use super::Ctx;
use crate::args::Mandate;
use crate::failure::{Exit, Failure};
use concordat_protocol::hash::sha256;
use serde_json::{Value, json};

/// Where mandates are.
const PATH: &str = "/admin/v1/subjects/mandates";
/// The role whose token is used where none is named.
const ROLE: &str = "operator";

/// Runs the command.
pub async fn run(ctx: &Ctx, command: &Mandate) -> Result<(), Failure> {
    match command {
        Mandate::Add { dataset, subject, holder, until, document } => {
            let failed = |e: std::io::Error| Failure::new(Exit::Failed, "io", format!("--document: {e}"));
            let hash = document.as_ref().map(std::fs::read).transpose().map_err(failed)?;
            let hash = hash.map(|bytes| hex::encode(sha256(&[&bytes])));
            let mut body = json!({"dataset": dataset, "subject": subject, "holder": holder, "until": until});
            if let Some(hash) = hash {
                body["document_sha256"] = json!(hash);
            }
            let answer = ctx.api(ROLE)?.post(PATH, &body).await?;
            let id = answer["mandate"].as_str().unwrap_or_default().to_owned();
            ctx.out.result(&answer, || format!("{id} runs until {until}, end of day UTC"));
        }
        Mandate::List => {
            let rows = all(ctx, PATH, "mandates").await?;
            ctx.out.list(&rows, &["mandate", "dataset", "state", "until", "by", "used"]);
        }
        Mandate::Revoke { mandate } => {
            let answer = ctx.api(ROLE)?.post(&format!("{PATH}/revoke"), &json!({"mandate": mandate})).await?;
            ctx.out.result(&answer, || format!("{mandate} is over"));
        }
    }
    Ok(())
}

/// All pages of a list.
async fn all(ctx: &Ctx, path: &str, name: &str) -> Result<Vec<Value>, Failure> {
    let api = ctx.api(ROLE)?;
    let (mut rows, mut next) = (Vec::new(), path.to_owned());
    loop {
        let page = api.get(&next).await?;
        rows.extend(page[name].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}?cursor={cursor}"),
            None => return Ok(rows),
        }
    }
}

/// `subject looks`
pub async fn looks(ctx: &Ctx) -> Result<(), Failure> {
    let rows = all(ctx, "/admin/v1/subjects/looks", "looks").await?;
    ctx.out.list(&rows, &["time", "dataset", "what", "subject", "who", "mandate"]);
    Ok(())
}
