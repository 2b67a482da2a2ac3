//! The documents that tools work on: those in force, by the ledger or by a folder.

use super::super::Ctx;
use crate::args::agreements::InForce;
use crate::failure::{Exit, Failure, read_text};
use concordat_policies::compile::{Compiled, compile};
use concordat_policies::duty::Capabilities;
use concordat_policies::evaluate::{AgreementSet, Evaluator};
use concordat_protocol::ids::{AgencyId, DatasetId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Agreements in force, with those that could not be read.
pub(super) struct Active {
    /// Compiled documents.
    pub(super) compiled: Vec<Compiled>,
    /// Agreements that are active, but whose document is not here: what they permit is not known.
    pub(super) unknown: Vec<String>,
}

/// Documents of a folder, by path; one that does not compile is refused.
fn folder(dir: &Path) -> Result<Vec<(PathBuf, Compiled)>, Failure> {
    let entries = std::fs::read_dir(dir)
        .map_err(|e| Failure::new(Exit::NotFound, "documents", format!("{}: {e}", dir.display())))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = read_text(&path)?;
        let compiled = compile(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        Ok((path, compiled))
    };
    paths.into_iter().map(read).collect()
}

/// Those of a folder, the newest version of each.
fn newest(dir: &Path) -> Result<Active, Failure> {
    let mut found: BTreeMap<String, Compiled> = BTreeMap::new();
    for (path, c) in folder(dir)? {
        let name = c.document.agreement.to_string();
        match found.get(&name).map(|o| o.document.version) {
            Some(there) if there == c.document.version => {
                let text =
                    format!("{}: {name} version {there} stands in another file of the folder too", path.display());
                return Err(Failure::new(Exit::Conflict, "documents", text));
            }
            Some(there) if there > c.document.version => {}
            _ => drop(found.insert(name, c)),
        }
    }
    Ok(Active { compiled: found.into_values().collect(), unknown: vec![] })
}

/// Those that are active on the ledger, with the documents of the node's folder.
async fn of_ledger(ctx: &Ctx) -> Result<Active, Failure> {
    let answer = ctx.api("operator")?.get("/v1/agreements").await?;
    // A document that does not compile here is not the one that was approved.
    let dir = ctx.dir()?.join("agreements");
    let entries = std::fs::read_dir(&dir)
        .map_err(|e| Failure::new(Exit::NotFound, "documents", format!("{}: {e}", dir.display())))?;
    let texts = entries.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok());
    let known: BTreeMap<String, Compiled> =
        texts.filter_map(|t| compile(&t).ok()).map(|c| (hex::encode(c.terms_hash()), c)).collect();
    let mut active = Active { compiled: vec![], unknown: vec![] };
    let list = answer["agreements"].as_array().cloned().unwrap_or_default();
    for a in list.iter().filter(|a| a["status"] == "active") {
        match a["terms_hash"].as_str().and_then(|h| known.get(h)) {
            Some(c) => active.compiled.push(c.clone()),
            None => active.unknown.push(format!(
                "{} version {} on {}",
                text(&a["agreement"]),
                a["version"],
                text(&a["dataset"])
            )),
        }
    }
    Ok(active)
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

/// The agreements in force.
pub(super) async fn active(ctx: &Ctx, from: &InForce) -> Result<Active, Failure> {
    match &from.documents {
        Some(dir) => newest(dir),
        None => of_ledger(ctx).await,
    }
}

impl Active {
    /// The evaluators on a dataset for a consumer, as an executor of this release has them. `next` takes the place of
    /// the agreement that it is a version of.
    pub(super) fn set(
        &self,
        dataset: &DatasetId,
        consumer: &AgencyId,
        next: Option<&Compiled>,
    ) -> Result<AgreementSet, Failure> {
        let kept = self.compiled.iter().filter(|c| next.is_none_or(|n| n.document.agreement != c.document.agreement));
        let evaluators = kept.chain(next).map(|c| {
            let e = Evaluator::new(c.clone(), Capabilities::default());
            e.map(Arc::new).map_err(|e| Failure::new(Exit::Failed, e.code(), e.to_string()))
        });
        let evaluators = evaluators.collect::<Result<Vec<_>, _>>()?;
        Ok(AgreementSet::new(dataset.clone(), consumer.clone(), evaluators))
    }
}
