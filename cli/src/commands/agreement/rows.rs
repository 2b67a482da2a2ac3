//! Rows to try a document on: from a file, from the provider's own holding, or invented.

use super::super::Ctx;
use crate::args::agreements::Rows;
use crate::failure::{Exit, Failure, read_text};
use concordat_broker::config::NodeConfig;
use concordat_broker::host::subjects::subject_field;
use concordat_broker::host::{holding_spec, load_datasets, open_holding};
use concordat_executor::decide_totals::{self, of_duty};
use concordat_executor::holding::Plan;
use concordat_executor::query::{Fields, Filter, parse_filter};
use concordat_policies::dataset::{DatasetDoc, DatasetFile, FieldType};
use concordat_policies::document::{Agreement, Clause};
use concordat_policies::duty::{Duty, row_filters};
use concordat_policies::view::{Pseudonyms, View};
use concordat_protocol::hash::sha256;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A row.
pub(super) type Row = Map<String, Value>;

/// Rows of one page from the holding.
const PAGE: u32 = 1_000;
/// Pseudonyms of previews are of this secret, which is none: the executor's are others.
const EXAMPLE_KEY: [u8; 32] = *b"an example's key, not the node's";

/// The dataset's document: the one named, or the one in the node's folder; `None` if no node is named.
pub(super) fn dataset(ctx: &Ctx, from: &Rows, doc: &Agreement) -> Result<Option<DatasetDoc>, Failure> {
    let found = match &from.dataset {
        Some(file) => read(file)?,
        None if ctx.global.dir.is_none() && ctx.global.context.is_none() => return Ok(None),
        None => match load_datasets(&ctx.dir()?)?.into_iter().find(|d| d.id == doc.target) {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    if found.id != doc.target {
        return Err(Failure::usage(format!("--dataset is {}, the agreement is about {}", found.id, doc.target)));
    }
    Ok(Some(found))
}

fn read(file: &Path) -> Result<DatasetDoc, Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", file.display()));
    let parsed = DatasetFile::parse(&read_text(file)?).map_err(|e| wrong(&e))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let places = [folder.join("..").join(&parsed.schema), folder.join(&parsed.schema)];
    let place = places
        .iter()
        .find(|p| p.is_file())
        .ok_or_else(|| wrong(&format!("its schema {} is not there", parsed.schema)))?;
    parsed.with_schema(&read_text(place)?).map_err(|e| wrong(&e))
}

/// The rows, if any were asked for.
pub(super) fn rows(ctx: &Ctx, from: &Rows, dataset: Option<&DatasetDoc>) -> Result<Option<Vec<Row>>, Failure> {
    let needs = || Failure::usage("name the dataset's document: --dataset FILE, or a node that has it");
    if let Some(file) = &from.dataset_rows {
        let lines = (1u64..).zip(read_text(file)?.lines().map(str::to_owned).collect::<Vec<_>>());
        let lines = lines.filter(|(_, l)| !l.trim().is_empty()).map(|(n, l)| {
            serde_json::from_str(&l).map_err(|e| Failure::usage(format!("{}: line {n}: {e}", file.display())))
        });
        return lines.collect::<Result<Vec<Row>, _>>().map(Some);
    }
    if from.held {
        return held(ctx, dataset.ok_or_else(needs)?).map(Some);
    }
    from.synthetic.map(|n| Ok(synthetic(dataset.ok_or_else(needs)?, n))).transpose()
}

fn held(ctx: &Ctx, dataset: &DatasetDoc) -> Result<Vec<Row>, Failure> {
    let cfg = NodeConfig::load(&ctx.dir()?)?;
    if cfg.agency != dataset.id.owner() {
        let text = format!("{} is held by {}, this is the node of {}", dataset.id, dataset.id.owner(), cfg.agency);
        return Err(Failure::usage(text));
    }
    let holding = open_holding(&cfg)?;
    let mut plan = Plan::new(dataset.id.as_str(), Filter::All);
    plan.limit = PAGE;
    let mut all = Vec::new();
    loop {
        let page = holding.query(&plan)?;
        plan.after = page.next_after().map(str::to_owned);
        all.extend(page.rows.into_iter().map(|r| r.doc));
        if plan.after.is_none() {
            return Ok(all);
        }
    }
}

/// Rows made from the schema, the same each time: few values a field, so that groups form.
fn synthetic(dataset: &DatasetDoc, count: u32) -> Vec<Row> {
    let row = |n: u32| {
        let value = |f: &concordat_policies::dataset::Field| {
            let seed = sha256(&[f.name.as_bytes(), &n.to_be_bytes()]);
            let small = u64::from(seed[0] % 12);
            let is_key = dataset.key.contains(&f.name);
            let made = match f.kind {
                FieldType::String if is_key => json!(format!("{}-{n:06}", f.name)),
                FieldType::String => json!(format!("{} {small}", f.name)),
                FieldType::Integer if is_key => json!(n),
                FieldType::Integer => json!(small * 7),
                FieldType::Decimal => json!(format!("{}.{:02}", 40 + small, seed[1] % 100)),
                FieldType::Number => json!(40.0 + f64::from(seed[1]) / 100.0),
                FieldType::Boolean => json!(seed[0].is_multiple_of(2)),
                FieldType::Timestamp => {
                    let minutes = u64::from(n) * 97 + u64::from(seed[1]);
                    json!(concordat_policies::time::utc_text(1_767_225_600_000 + minutes * 60_000))
                }
            };
            (f.name.clone(), made)
        };
        dataset.fields().iter().map(value).collect()
    };
    (0..count).map(row).collect()
}

/// What a clause makes of rows.
pub(super) struct Shown<'a> {
    /// The rows that the row filter and the delay leave, as they are.
    pub(super) chosen: Vec<&'a Row>,
    /// What the consumer sees: rows, or groups.
    pub(super) seen: Vec<Row>,
}

/// Applies a clause's filters, then its view or its groups, as an executor would.
pub(super) fn apply<'a>(
    doc: &Agreement,
    clause: &Clause,
    dataset: &DatasetDoc,
    rows: &'a [Row],
    at_ms: u64,
) -> Result<Shown<'a>, Failure> {
    let fields: Fields = holding_spec(dataset)?.fields;
    let parsed = row_filters(&clause.duties, at_ms)
        .iter()
        .map(|f| parse_filter(f, &fields, "/where"))
        .collect::<Result<Vec<_>, _>>();
    let filter = Filter::all_of(parsed.map_err(|e| Failure::usage(format!("clause {}: row filter: {e}", clause.id)))?);
    let chosen: Vec<&Row> = rows.iter().filter(|r| filter.matches(r)).collect();
    let grouped = clause.duties.iter().find_map(|d| match d {
        Duty::Aggregate { group_by, min_group } => {
            let totals = of_duty(group_by, *min_group, &fields, subject_field(dataset).as_ref());
            let mut groups = BTreeMap::new();
            chosen.iter().for_each(|r| totals.add(&mut groups, r));
            Some(decide_totals::rows(&totals.finish(groups)).into_iter().map(|r| r.doc).collect())
        }
        _ => None,
    });
    let view = View::of(&doc.agreement, &clause.duties);
    let with = Pseudonyms { key: &EXAMPLE_KEY, at_ms };
    let seen = grouped.unwrap_or_else(|| chosen.iter().map(|r| view.apply(r, with)).collect());
    Ok(Shown { chosen, seen })
}

/// A usage error where rows are needed and none were named.
pub(super) fn wanted() -> Failure {
    Failure::new(
        Exit::Usage,
        "rows",
        "name rows: --dataset-rows FILE, --held (a provider's own node) or --synthetic COUNT, and --dataset FILE without a node",
    )
}
