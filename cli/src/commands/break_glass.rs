//! `break-glass`: overrides, their reviews, and what operators are told

use super::{Ctx, op, query};
use crate::args::break_glass::{BreakGlass, Override};
use crate::failure::Failure;
use concordat_protocol::ids::OpRef;
use serde_json::{Value, json};

/// `break-glass ...`
pub async fn run(ctx: &Ctx, command: &BreakGlass) -> Result<(), Failure> {
    match command {
        BreakGlass::Query(asked) => overriding(ctx, asked).await,
        BreakGlass::Review { op, text, outcome } => review(ctx, op, text, outcome.word()).await,
        BreakGlass::Due => due(ctx).await,
        BreakGlass::Notices { limit } => notices(ctx, *limit).await,
    }
}

async fn overriding(ctx: &Ctx, asked: &Override) -> Result<(), Failure> {
    let mut body = query::body(&asked.query)?;
    body["break_glass"] = json!({"justification": asked.justification});
    query::ask(ctx, "duty-officer", &asked.query, &body).await
}

async fn review(ctx: &Ctx, reference: &str, text: &str, outcome: &str) -> Result<(), Failure> {
    let reference: OpRef = reference.parse()?;
    let body = json!({"text": text, "outcome": outcome});
    let answer = ctx.api("operator")?.post(&format!("/v1/operations/{reference}/review"), &body).await?;
    ctx.out.result(&answer, || op::lines(&answer));
    Ok(())
}

fn list_of(answer: &Value, name: &str) -> Vec<Value> {
    answer[name].as_array().cloned().unwrap_or_default()
}

async fn due(ctx: &Ctx) -> Result<(), Failure> {
    let answer = ctx.api("operator")?.get("/v1/reviews").await?;
    ctx.out.list(&list_of(&answer, "reviews"), &["operation", "agreement", "clause", "due", "overdue"]);
    Ok(())
}

async fn notices(ctx: &Ctx, limit: u32) -> Result<(), Failure> {
    let answer = ctx.api("operator")?.get(&format!("/v1/notices?kind=break-glass&limit={limit}")).await?;
    let columns = ["operation", "state", "agreement", "clause", "consumer", "rows", "justification"];
    ctx.out.list(&list_of(&answer, "notices"), &columns);
    Ok(())
}
