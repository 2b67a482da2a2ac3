//! The file adapter on the real sample data, on bad files, and against a broker that enforces the
//! intake contract.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_files;
mod changes;
mod conform;
mod drop_rig;
mod external;
mod fake_broker;
mod file_drop;
#[cfg(feature = "parquet")]
mod parquet;
mod real_files;
mod replay;
mod runs;

use std::path::PathBuf;
use std::sync::Arc;

use concordat_adapters::contract::{Record, Reject, Row};
use concordat_adapters::file::records;
use concordat_adapters::plan::Plan;

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../cli/demo")
}

fn demo_plan(name: &str) -> Arc<Plan> {
    let yaml = std::fs::read_to_string(demo().join(format!("adapters/{name}.yaml"))).unwrap();
    Arc::new(Plan::parse(&yaml).unwrap())
}

fn rows_of(base: &std::path::Path, plan: &Arc<Plan>) -> (Vec<Record>, Vec<Reject>) {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for row in records(base, Arc::clone(plan)).unwrap() {
        match row.unwrap() {
            Row::Good(record) => good.push(record),
            Row::Bad(reject) => bad.push(reject),
        }
    }
    (good, bad)
}
