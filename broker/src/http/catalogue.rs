//! `GET /v1/catalogue/datasets[/{dataset}[/schema]]`: what the ledger knows of datasets, and what this node's folder
//! knows of them beyond that. A schema counts as known when some file here has the hash that the ledger has.
//! `GET /catalogue.jsonld`: the same for portals, by DCAT-AP; without a token only what is public.

mod about;
mod dcat;
mod folder;
mod search;

use super::agreements::actions;
use super::body::Params;
use super::openapi::{ANYBODY, Doc, PEOPLE};
use super::{AppState, Caller, Problem, Side};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::node::{AgreementView, DatasetView};
use concordat_protocol::terms::{Status, Terms};
use folder::Folder;
use search::{Search, Wanted};
use serde_json::{Map, Value, json};

/// How this agency can come by the data: anybody may read it; by an agreement with the owner; it is its own and agreed with
/// nobody; not at all.
const ACCESS: [&str; 4] = ["public", "agreed", "own", "none"];

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/catalogue.jsonld", get(linked))
        .route("/v1/catalogue/datasets", get(list))
        .route("/v1/catalogue/datasets/{dataset}", get(show))
        .route("/v1/catalogue/datasets/{dataset}/schema", get(schema))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("get", "/catalogue.jsonld", "The catalogue by DCAT-AP; without a token what is public.", ANYBODY)
            .query::<Search>()
            .gives_bytes(200, "JSON-LD.", dcat::MEDIA_TYPE),
        Doc::new(
            "get",
            "/v1/catalogue/datasets",
            "The datasets of the ledger, and what is known of them here.",
            PEOPLE,
        )
        .query::<Search>()
        .gives(200, "A page.", "datasets:[@Dataset] next_cursor:str? unusable:[str]"),
        Doc::new("get", "/v1/catalogue/datasets/{dataset}", "One dataset with its fields.", PEOPLE).gives(
            200,
            "The dataset.",
            "@Dataset",
        ),
        Doc::new(
            "get",
            "/v1/catalogue/datasets/{dataset}/schema",
            "Its registered JSON Schema, byte for byte.",
            PEOPLE,
        )
        .gives_bytes(200, "The schema.", "application/schema+json"),
    ]
}

/// Active agreements on a dataset that this agency is a party of, or that are public.
fn agreements(views: &[AgreementView], dataset: &DatasetId, own: &AgencyId) -> Result<Vec<Value>, Problem> {
    let mut found = Vec::new();
    for v in views.iter().filter(|v| v.status == Status::Active) {
        let terms: Terms = cbor::decode(&v.terms)
            .map_err(|e| crate::ledger::LedgerError::Protocol(format!("terms of {}: {e}", v.agreement)))?;
        let side = match &terms.assignee {
            _ if terms.dataset != *dataset => continue,
            _ if terms.assigner == *own => "provider",
            None => "public",
            Some(assignee) if assignee == own => "consumer",
            Some(_) => continue,
        };
        let clauses = terms.clauses.iter().map(|c| {
            json!({"id": c.id, "effect": c.effect.word(), "actions": actions(c), "from_ms": c.from_ms, "until_ms": c.until_ms})
        });
        found.push(json!({"agreement": v.agreement, "version": v.version, "as": side, "consumer": terms.assignee,
                          "clauses": clauses.collect::<Vec<_>>()}));
    }
    Ok(found)
}

fn access(d: &DatasetView, agreements: &[Value], own: &AgencyId) -> &'static str {
    let any = |sides: &[&str]| agreements.iter().any(|a| sides.iter().any(|s| a["as"] == *s));
    match () {
        () if any(&["public"]) => ACCESS[0],
        () if agreements.iter().any(|a| a["as"] == "provider" && a["consumer"].is_null()) => ACCESS[0],
        () if any(&["provider", "consumer"]) => ACCESS[1],
        () if d.id.owner() == *own => ACCESS[2],
        () => ACCESS[3],
    }
}

fn view(
    d: &DatasetView,
    folder: &Folder,
    views: &[AgreementView],
    own: &AgencyId,
) -> Result<Map<String, Value>, Problem> {
    let doc = folder.document(d);
    let other = folder.documents.get(&d.id).is_some_and(|(_, hash)| *hash != d.schema_hash);
    let agreements = agreements(views, &d.id, own)?;
    let mut members = json!({
        "dataset": d.id,
        "access": access(d, &agreements, own),
        "number": d.number,
        "owner": d.id.owner(),
        "schema_sha256": hex::encode(d.schema_hash),
        "schema_known": folder.schemas.contains_key(&d.schema_hash),
        "head": d.head,
        "held_here": doc.is_some_and(DatasetDoc::is_held),
        "fed_here": d.id.owner() == *own && doc.is_some_and(DatasetDoc::is_feed),
        "agreements": agreements,
    });
    if let (Some(members), Some(Value::Object(about))) =
        (members.as_object_mut(), folder.about.get(&d.id).and_then(|a| serde_json::to_value(a).ok()))
    {
        members.extend(about);
    }
    if let Some(doc) = doc {
        members["title"] = json!(doc.title);
        members["kind"] = json!(doc.kind);
    }
    if other {
        members["warning"] =
            "the document in datasets/ has another schema than the registered one: restore it, or register a new version"
                .into();
    }
    Ok(match members {
        Value::Object(map) => map,
        _ => Map::new(),
    })
}

async fn folder(state: &AppState) -> Folder {
    let dir = state.cfg.path("");
    tokio::task::spawn_blocking(move || Folder::read(&dir)).await.unwrap_or_default()
}

async fn find(state: &AppState, name: &str) -> Result<DatasetView, Problem> {
    let all = state.node.datasets().await?;
    all.into_iter().find(|d| d.id.as_str() == name).ok_or_else(|| {
        let name: String = name.chars().take(120).collect();
        Problem::not_found("unknown-dataset", format!("{name} is not registered on the ledger"))
            .on(Side::Ledger)
            .next("choose one of GET /v1/catalogue/datasets")
    })
}

/// A dataset of the ledger with everything that is known of it here.
struct Known {
    id: DatasetId,
    members: Map<String, Value>,
    fields: Value,
}

impl Known {
    fn text(&self, name: &str) -> &str {
        self.members.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What is looked for, in the order of ids.
fn found(
    datasets: &[DatasetView],
    folder: &Folder,
    views: &[AgreementView],
    own: &AgencyId,
    wanted: &Wanted,
) -> Result<Vec<Known>, Problem> {
    let mut found = Vec::new();
    for d in datasets {
        let members = view(d, folder, views, own)?;
        let known = Known { id: d.id.clone(), members, fields: folder.fields(d).unwrap_or(Value::Null) };
        let entry = search::Entry {
            id: known.id.as_str(),
            owner: known.text("owner"),
            access: known.text("access"),
            title: known.text("title"),
            fields: &known.fields,
            about: folder.about.get(&d.id),
        };
        if wanted.matches(&entry) {
            found.push(known);
        }
    }
    found.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    Ok(found)
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(search): Params<Search>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let wanted = search.read()?;
    let (all, views) = (state.node.datasets().await?, state.node.agreements().await?);
    let folder = folder(&state).await;
    let found = found(&all, &folder, &views, &state.cfg.agency, &wanted)?;
    let (page, next) = wanted.page(found, |k| k.id.as_str());
    let page: Vec<_> = page.into_iter().map(|k| k.members).collect();
    Ok(Json(json!({"datasets": page, "next_cursor": next, "unusable": folder.unusable})))
}

/// Public, agreed and own datasets for a caller of this agency, public ones for anybody.
async fn linked(
    State(state): State<AppState>,
    caller: Option<Caller>,
    Params(search): Params<Search>,
) -> Result<Response, Problem> {
    caller.as_ref().map_or(Ok(()), Caller::require_person)?;
    let wanted = search.read()?;
    let (all, views) = (state.node.datasets().await?, state.node.agreements().await?);
    let folder = folder(&state).await;
    let own = &state.cfg.agency;
    let mut found = found(&all, &folder, &views, own, &wanted)?;
    found.retain(|k| k.text("access") == ACCESS[0] || (caller.is_some() && k.text("access") != ACCESS[3]));
    let (page, next) = wanted.page(found, |k| k.id.as_str());
    let entries: Vec<_> = page.iter().map(|k| linked_entry(k, &folder, caller.is_some())).collect();
    let next = next.map(|cursor| search.next(&cursor));
    let body = dcat::catalogue(&state.cfg.chain, own, &entries, next).to_string();
    Ok(([(CONTENT_TYPE, dcat::MEDIA_TYPE)], body).into_response())
}

fn linked_entry<'a>(known: &'a Known, folder: &'a Folder, whole: bool) -> dcat::Entry<'a> {
    let agreements = known.members.get("agreements").and_then(Value::as_array).into_iter().flatten();
    // To strangers not even the number of an agreement of two.
    let shown = agreements.filter(|a| whole || a["consumer"].is_null());
    dcat::Entry {
        id: &known.id,
        access: known.text("access"),
        title: known.text("title"),
        kind: known.text("kind"),
        agreements: shown.filter_map(|a| a["agreement"].as_str()).collect(),
        about: folder.about.get(&known.id),
    }
}

async fn show(State(state): State<AppState>, caller: Caller, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let (dataset, views) = (find(&state, &name).await?, state.node.agreements().await?);
    let folder = folder(&state).await;
    let mut members = view(&dataset, &folder, &views, &state.cfg.agency)?;
    if let Some(doc) = folder.document(&dataset) {
        members.insert("key".into(), json!(doc.key));
        members.insert("time".into(), json!(doc.time.as_ref().map(|t| &t.field)));
    }
    members.insert("fields".into(), folder.fields(&dataset).unwrap_or(Value::Null));
    Ok(Json(Value::Object(members)))
}

async fn schema(State(state): State<AppState>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    caller.require_person()?;
    let dataset = find(&state, &name).await?;
    let mut folder = folder(&state).await;
    match folder.schemas.remove(&dataset.schema_hash) {
        Some(bytes) => Ok(([(CONTENT_TYPE, "application/schema+json")], bytes).into_response()),
        None => Err(Problem::not_found(
            "unknown-schema",
            format!("the schema of {} is not known at this node: the ledger has only its hash", dataset.id),
        )
        .next(format!(
            "ask {} for it and put it into schemas/; its SHA-256 must be {}",
            dataset.id.owner(),
            hex::encode(dataset.schema_hash)
        ))),
    }
}

#[cfg(test)]
mod shown;
#[cfg(test)]
mod tests;
