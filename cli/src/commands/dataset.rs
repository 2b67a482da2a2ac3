//! `dataset`: put a dataset on the ledger, and what is known of those that are there.

use super::Ctx;
use super::agreement::Side;
use super::feed::text_of;
use super::op::lines;
use crate::args::Dataset;
use crate::context::{Api, segment};
use crate::failure::{Exit, Failure, read_text};
use concordat_broker::keys;
use concordat_policies::dataset::{DatasetDoc, DatasetFile};
use concordat_protocol::acts::ActBody;
use concordat_protocol::hash::{Hash, sha256};
use serde_json::{Value, json};
use std::path::{Component, Path, PathBuf};

/// The ledger's code for a dataset that is there already.
const EXISTS: u64 = concordat_protocol::codes::DATASET_EXISTS as u64;

/// A checked document with its schema.
#[derive(Debug)]
pub(super) struct Checked {
    pub doc: DatasetDoc,
    /// As the document names it, below the node's folder.
    pub schema_path: String,
    pub yaml: String,
    pub schema: String,
    pub hash: Hash,
}

/// Reads a document; its schema lies where it says, below the node's folder or the folder that holds `datasets/`.
pub(super) fn check(file: &Path, node: &Path) -> Result<Checked, Failure> {
    let yaml = read_text(file)?;
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", file.display()));
    let parsed = DatasetFile::parse(&yaml).map_err(|e| wrong(&e))?;
    let schema_path = parsed.schema.clone();
    if Path::new(&schema_path).components().any(|c| !matches!(c, Component::Normal(_))) {
        return Err(wrong(&"schema: must be a path below the node's folder, schemas/NAME@1.json"));
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let places = [folder.join("..").join(&schema_path), folder.join(&schema_path), node.join(&schema_path)];
    let found = places.iter().find(|p| p.is_file());
    let found = found.ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Failure::new(
            Exit::NotFound,
            "schema",
            format!("{}: its schema {schema_path} is not there: looked for {}", file.display(), looked.join(", ")),
        )
    })?;
    let schema = read_text(found)?;
    let hash = sha256(&[schema.as_bytes()]);
    let doc = parsed.with_schema(&schema).map_err(|e| wrong(&e))?;
    Ok(Checked { doc, schema_path, yaml, schema, hash })
}

/// What the ledger has of a dataset: its schema's hash.
async fn registered(api: &Api, id: &str) -> Result<Option<Value>, Failure> {
    match api.get(&format!("/v1/catalogue/datasets/{}", segment(id))).await {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.exit == Exit::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether what is registered is what the document says.
fn same(found: &Value, c: &Checked) -> Result<(), Failure> {
    if found["schema_sha256"] == hex::encode(c.hash) {
        return Ok(());
    }
    let id = c.doc.id.as_str();
    let (name, version) = id.rsplit_once('@').unwrap_or((id, "1"));
    let next = version.parse::<u64>().unwrap_or(1) + 1;
    let message = format!(
        "{id} is registered with another schema ({}, this one is {}): a registered version never changes; make a new version, {name}@{next}",
        text_of(&found["schema_sha256"]),
        hex::encode(c.hash)
    );
    Err(Failure::new(Exit::Conflict, "schema-differs", message))
}

/// Writes a file that is not there yet; the same content is fine.
pub(super) fn install_file(path: &Path, text: &str) -> Result<(), Failure> {
    match std::fs::read_to_string(path) {
        Ok(there) if there == text => Ok(()),
        Ok(_) => Err(Failure::new(
            Exit::Conflict,
            "file-differs",
            format!("{} is there with other content: compare and remove it, then install again", path.display()),
        )),
        Err(_) => {
            if let Some(dir) = path.parent() {
                crate::layout::private_dir(dir)?;
            }
            Ok(crate::layout::private_file(path, text.as_bytes())?)
        }
    }
}

/// Where a document of this dataset lies, or would be put.
pub(super) fn target(node: &Path, c: &Checked) -> PathBuf {
    let id = c.doc.id.as_str();
    let version = id.rsplit('@').next().unwrap_or("1");
    node.join("datasets").join(format!("{}@{version}.yaml", c.doc.id.name()))
}

/// The document in the node's folder that says the same dataset.
pub(super) fn installed(node: &Path, c: &Checked) -> Option<PathBuf> {
    let entries = std::fs::read_dir(node.join("datasets")).ok()?;
    let mut yaml =
        entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| p.extension().is_some_and(|e| e == "yaml"));
    yaml.find(|p| {
        let file = std::fs::read_to_string(p).ok().and_then(|t| DatasetFile::parse(&t).ok());
        file.is_some_and(|f| f.dataset == c.doc.id)
    })
}

/// What became of a dataset that was put on the ledger.
pub(super) struct Put {
    /// It was not there before.
    pub fresh: bool,
    /// The operation, where it was put there now.
    pub operation: Value,
    /// The document in the node's folder, where there was one.
    there: Option<PathBuf>,
}

/// A dataset is registered by its owner alone.
pub(super) fn owned(side: &Side, c: &Checked) -> Result<(), Failure> {
    let id = &c.doc.id;
    if id.owner() == side.cfg.agency {
        return Ok(());
    }
    let (owner, here) = (id.owner(), &side.cfg.agency);
    let text = format!("{id} belongs to {owner}, this is the node of {here}: only the owner registers it");
    Err(Failure::usage(text))
}

/// Puts a checked dataset on the ledger, its schema into the node's folder.
pub(super) async fn put(node: &Path, side: &Side, c: &Checked, install: bool) -> Result<Put, Failure> {
    let id = &c.doc.id;
    let there = installed(node, c);
    if install && there.is_none() {
        // The schema first: a document without one would keep the node from starting.
        install_file(&node.join(&c.schema_path), &c.schema)?;
    }
    let known = registered(&side.api, id.as_str()).await?;
    let mut put = Put { fresh: known.is_none(), operation: Value::Null, there };
    match known {
        Some(found) => same(&found, c)?,
        None => match side.act(keys::GATEWAY, ActBody::Dataset { id: id.clone(), schema_hash: c.hash }).await {
            Ok(answer) => put.operation = answer["operation"].clone(),
            // Someone else was quicker: what counts is what stands there now.
            Err(e) if e.problem.as_ref().is_some_and(|p| p["ledger_code"] == EXISTS) => {
                let found = registered(&side.api, id.as_str()).await?.ok_or(e)?;
                same(&found, c)?;
                put.fresh = false;
            }
            Err(e) => return Err(e),
        },
    }
    Ok(put)
}

/// `dataset register`
async fn register(ctx: &Ctx, file: &Path, install: bool) -> Result<(), Failure> {
    let node = ctx.dir()?;
    let side = Side::open(&node)?;
    let c = check(file, &node)?;
    let id = c.doc.id.clone();
    owned(&side, &c)?;
    let Put { fresh, operation, there } = put(&node, &side, &c, install).await?;
    let place = match there {
        Some(path) => path,
        None if install => {
            let path = target(&node, &c);
            install_file(&path, &c.yaml)?;
            ctx.out.say(format!("installed as {}: restart the node, then it serves {id}", path.display()));
            path
        }
        None => {
            let path = target(&node, &c);
            ctx.out.say(format!(
                "this node does not serve it yet: put the document at {} (or add --install) and restart the node",
                path.display()
            ));
            path
        }
    };
    let value = json!({"dataset": id, "schema_sha256": hex::encode(c.hash), "registered": if fresh { "now" } else { "before" },
                       "operation": operation, "document": place, "fields": c.doc.fields().len()});
    let how = if fresh {
        format!("registered as {}", text_of(&operation))
    } else {
        "registered already, with this schema".into()
    };
    ctx.out.result(&value, || format!("{id}: {how}\nschema {} ({} fields)", hex::encode(c.hash), c.doc.fields().len()));
    Ok(())
}

/// What the node has of a dataset, in a word.
fn here(d: &Value) -> &'static str {
    match (d["held_here"] == true, d["fed_here"] == true, d["schema_known"] == true) {
        (true, true, _) => "held, fed",
        (true, false, _) => "held",
        (false, true, _) => "fed",
        (false, false, true) => "schema",
        _ => "-",
    }
}

/// Agreements in a word each: with whom.
fn open(d: &Value) -> String {
    let list = d["agreements"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|a| format!("{} ({})", text_of(&a["agreement"]), text_of(&a["as"]))).collect::<Vec<_>>().join(", ")
}

async fn list(ctx: &Ctx, api: &Api) -> Result<(), Failure> {
    let answer = api.get("/v1/catalogue/datasets").await?;
    let mut rows = answer["datasets"].as_array().cloned().unwrap_or_default();
    if ctx.out.format == crate::output::Format::Table {
        for d in &mut rows {
            d["schema"] = json!(text_of(&d["schema_sha256"]).chars().take(12).collect::<String>());
            (d["here"], d["open"]) = (json!(here(d)), json!(open(d)));
        }
    }
    ctx.out.list(&rows, &["dataset", "owner", "kind", "schema", "head", "here", "open"]);
    Ok(())
}

/// A dataset for people: members, fields, agreements.
fn shown(d: &Value) -> String {
    let mut head = d.clone();
    if let Some(o) = head.as_object_mut() {
        ["fields", "agreements", "held_here", "fed_here", "schema_known"].iter().for_each(|k| drop(o.remove(*k)));
        o.insert("here".into(), json!(here(d)));
    }
    let mut text = lines(&head);
    match d["fields"].as_array() {
        Some(fields) => {
            let table = crate::output::table(fields, &["name", "type", "required", "key", "sensitive", "description"]);
            text.push_str(&format!("\n\n{table}"));
        }
        None => text.push_str(&format!(
            "\n\nThe schema is not known at this node: ask {} for it and put it into schemas/; the ledger has its hash.",
            text_of(&d["owner"])
        )),
    }
    let rows = d["agreements"].as_array().cloned().unwrap_or_default();
    if rows.is_empty() {
        return format!("{text}\n\nno active agreement opens it to this agency");
    }
    let clause = |c: &Value| {
        format!(
            "{} {} {}",
            text_of(&c["id"]),
            text_of(&c["effect"]),
            c["actions"].as_array().map_or(String::new(), |a| a.iter().map(text_of).collect::<Vec<_>>().join("+"))
        )
    };
    let rows: Vec<Value> = rows.iter().map(|a| {
        let clauses = a["clauses"].as_array().map_or(String::new(), |c| c.iter().map(clause).collect::<Vec<_>>().join("; "));
        json!({"agreement": a["agreement"], "version": a["version"], "as": a["as"], "consumer": a["consumer"], "clauses": clauses})
    }).collect();
    format!("{text}\n\n{}", crate::output::table(&rows, &["agreement", "version", "as", "consumer", "clauses"]))
}

/// Runs a `dataset` command.
pub async fn run(ctx: &Ctx, command: &Dataset) -> Result<(), Failure> {
    match command {
        Dataset::Register { file, install } => register(ctx, file, *install).await,
        Dataset::List => list(ctx, &ctx.api("operator")?).await,
        Dataset::Show { dataset, schema } => {
            let path = format!("/v1/catalogue/datasets/{}", segment(dataset));
            let api = ctx.api("operator")?;
            if *schema {
                let found = api.get(&format!("{path}/schema")).await?;
                ctx.out.result(&found, || serde_json::to_string_pretty(&found).unwrap_or_default());
            } else {
                let found = api.get(&path).await?;
                ctx.out.result(&found, || shown(&found));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const YAML: &str = "dataset: ds:grid/feeder@3\ntitle: t\nkind: feed\nschema: schemas/feeder@3.json\nkey: [id]\nsubject: none\nsensitive: {}\n";
    const SCHEMA: &str =
        r#"{"type":"object","properties":{"id":{"type":"string"}},"required":["id"],"additionalProperties":false}"#;

    #[test]
    fn a_document_is_checked_with_the_schema_beside_it() {
        let (dir, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = dir.path().join("datasets/feeder.yaml");
        std::fs::create_dir_all(dir.path().join("datasets")).unwrap();
        std::fs::write(&file, YAML).unwrap();
        let missing = check(&file, node.path()).unwrap_err();
        assert!(missing.exit == Exit::NotFound && missing.message.contains("schemas/feeder@3.json"), "{missing}");
        std::fs::create_dir_all(node.path().join("schemas")).unwrap();
        std::fs::write(node.path().join("schemas/feeder@3.json"), SCHEMA).unwrap();
        let c = check(&file, node.path()).unwrap();
        assert_eq!(c.hash, sha256(&[SCHEMA.as_bytes()]));
        assert!(same(&json!({"schema_sha256": hex::encode(c.hash)}), &c).is_ok());
        let other = same(&json!({"schema_sha256": "00"}), &c).unwrap_err();
        assert!(other.exit == Exit::Conflict && other.message.contains("ds:grid/feeder@4"), "{other}");
        std::fs::write(&file, YAML.replace("schemas/feeder", "../feeder")).unwrap();
        assert_eq!(check(&file, node.path()).unwrap_err().exit, Exit::Usage);
        std::fs::write(&file, YAML.replace("key: [id]", "key: [idd]")).unwrap();
        let typo = check(&file, node.path()).unwrap_err();
        assert!(typo.exit == Exit::Usage && typo.message.contains("\"id\""), "the nearest name: {typo}");
    }

    #[test]
    fn nothing_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("datasets/x.yaml");
        install_file(&path, "a").unwrap();
        install_file(&path, "a").unwrap();
        assert_eq!(install_file(&path, "b").unwrap_err().exit, Exit::Conflict);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a");
    }

    #[test]
    fn an_unknown_schema_is_said_to_be_unknown() {
        let d = json!({"dataset": "ds:grid/load@1", "owner": "grid", "fields": null, "agreements": [], "schema_known": false});
        let text = shown(&d);
        assert!(text.contains("ask grid for it") && text.contains("no active agreement"), "{text}");
    }
}
