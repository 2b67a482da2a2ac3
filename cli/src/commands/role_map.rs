//! `role-map`: which map gives this agency's people their roles, and which one the ledger names.

use super::Ctx;
use super::op::lines;
use crate::args::RoleMap;
use crate::failure::{Exit, Failure};
use concordat_broker::config::NodeConfig;
use concordat_protocol::hash::sha256;
use serde_json::{Value, json};
use std::path::Path;

/// Runs the command.
pub async fn run(ctx: &Ctx, command: &RoleMap) -> Result<(), Failure> {
    let RoleMap::Show { agency } = command;
    let api = ctx.api("operator")?;
    if let Some(agency) = agency {
        let answer = api.get(&format!("/v1/role-maps/{agency}")).await?;
        let rows = answer["role_maps"].as_array().cloned().unwrap_or_default();
        ctx.out.list(&rows, &["number", "sha256", "operation", "height", "since"]);
        return Ok(());
    }
    let answer = api.get("/admin/v1/role-map").await?;
    let shown = shown(&answer, file_hash(ctx.dir().ok().as_deref()));
    ctx.out.result(&shown, || lines(&shown));
    if shown["in_force"] == true {
        return Ok(());
    }
    let why = answer["why"].as_str().unwrap_or("the file changed and is not read yet").to_owned();
    Err(Failure::new(Exit::Unavailable, "role-map-not-recorded", why))
}

/// The hash of the file in the node's folder, where the folder is here.
fn file_hash(dir: Option<&Path>) -> Option<String> {
    let oidc = NodeConfig::load(dir?).ok()?.oidc?;
    let bytes = std::fs::read(dir?.join(oidc.role_map)).ok()?;
    Some(hex::encode(sha256(&[&bytes])))
}

fn shown(answer: &Value, file: Option<String>) -> Value {
    let recorded = &answer["recorded"];
    let same = file.as_ref().is_none_or(|f| answer["sha256"] == **f);
    json!({
        "file_sha256": file,
        "used_sha256": answer["sha256"],
        "ledger_sha256": recorded["sha256"],
        "number": recorded["number"],
        "operation": recorded["operation"],
        "height": recorded["height"],
        "since": recorded["since"],
        "in_force": answer["in_force"] == true && same,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_the_one_in_use_is_not_in_force() {
        let answer = json!({"sha256": "aa", "in_force": true, "recorded": {"sha256": "aa", "number": 2}});
        assert_eq!(shown(&answer, None)["in_force"], true);
        assert_eq!(shown(&answer, Some("aa".into()))["in_force"], true);
        assert_eq!(shown(&answer, Some("bb".into()))["in_force"], false);
    }
}
