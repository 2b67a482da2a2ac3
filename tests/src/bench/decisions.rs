//! What a decision costs, and how much memory agreements take, in this process and over the shipped evaluator.

use super::failed::BenchError;
use super::report::Results;
use concordat_broker::host::policy::{Documents, Policies};
use concordat_policies::ask::{Ask, Decision};
use concordat_policies::compile::compile;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::node::AgreementView;
use concordat_protocol::terms::{Action, Status};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

/// Agreements of the rows about time.
const AGREEMENTS: usize = 1_000;
/// Agreements of the row about memory.
const MANY: usize = 10_000;
/// Decisions on the same ask.
const CACHED: u32 = 1_000_000;
/// 2026-07-01T00:00:00Z
const NOW_MS: u64 = 1_782_864_000_000;

fn refused(e: impl std::fmt::Display) -> BenchError {
    BenchError::refused("an agreement of the benchmark", e)
}

fn agency(n: usize) -> String {
    format!("agency-{n:05}")
}

/// An agreement of the police with the n-th agency: three clauses that permit, and a prohibition.
fn document(n: usize) -> String {
    let consumer = agency(n);
    let clause = |id: &str, purpose: &str| {
        format!(
            "- id: {id}\n  text: A clerk may look up stops for {purpose}.\n  effect: permit\n  assignee: {{org: org:{consumer}, role: \
             role:clerk}}\n  actions: [query]\n  purpose: purp:{purpose}\n  duties:\n  - {{type: fields, allow: [stop_id, time]}}\n"
        )
    };
    format!(
        "agreement: AGR-2026-{n:05}\nversion: 1\nassigner: org:police\nassignee: org:{consumer}\ntarget: ds:police/stops@1\n\
         valid: {{from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}}\napprovals: {{assigner: [legal], assignee: [legal]}}\n\
         clauses:\n{}{}{}- id: X1\n  text: Nobody profiles.\n  effect: prohibit\n  assignee: any\n  actions: [query]\n  \
         purpose: purp:profiling\n",
        clause("C1", "pending-case"),
        clause("C2", "planning"),
        clause("C3", "audit"),
    )
}

fn policies(count: usize) -> Result<Policies, BenchError> {
    let (mut views, mut documents) = (Vec::new(), Documents::new());
    for n in 0..count {
        let compiled = compile(&document(n)).map_err(refused)?;
        views.push(AgreementView {
            agreement: AgreementId::new(format!("AGR-2026-{n:05}")).map_err(refused)?,
            version: 1,
            revision: 1,
            status: Status::Active,
            terms_hash: compiled.terms_hash(),
            terms: cbor::encode(&compiled.terms).into(),
            expires_ms: 0,
            approvals: vec![],
            handles: (0..4).map(|c| (n * 4 + c) as u64).collect(),
            bounded_suspended: 0,
        });
        documents.insert(compiled.terms_hash(), compiled.into());
    }
    let police = AgencyId::new("police").map_err(refused)?;
    Ok(Policies::build(&Policies::default(), &police, "bench", &views, &documents, &BTreeMap::new()))
}

fn ask(n: usize) -> Result<Ask, BenchError> {
    Ok(Ask {
        consumer: AgencyId::new(agency(n)).map_err(refused)?,
        roles: ["role:clerk".to_owned()].into(),
        action: Action::Query,
        break_glass: false,
        purpose: "purp:planning".into(),
        agreement: None,
        clause: None,
        case: Some("26-CR-1042".into()),
        at_ms: NOW_MS,
    })
}

/// Resident memory of this process, MB.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1_000.0
}

/// Rows `decision_<engine>_us` of other policy engines on as many agreements, each in a process of its own.
fn other_engines(results: &mut Results) -> Result<(), BenchError> {
    let Some(program) = std::env::var_os("CONCORDAT_ENGINES") else {
        println!("  SKIPPED other policy engines: CONCORDAT_ENGINES names no program (make bench sets it)");
        return Ok(());
    };
    let failed = |e: &dyn std::fmt::Display| BenchError::refused("the other policy engines", e);
    let output = std::process::Command::new(program).output().map_err(|e| failed(&e))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (engine, value) = line.split_once(' ').ok_or_else(|| failed(&line))?;
        let value: f64 = value.parse().map_err(|e: std::num::ParseFloatError| failed(&e))?;
        results.add(&format!("decision_{engine}_us"), value, "microseconds", None);
    }
    Ok(())
}

/// Adds the rows `decision_*` and `agreements_10000_mb`.
pub fn run(quick: bool, results: &mut Results) -> Result<(), BenchError> {
    other_engines(results)?;
    let beside = std::env::var_os("CONCORDAT_ENGINES").map(|_| "decision_casbin_us");
    let dataset = DatasetId::new("ds:police/stops@1").map_err(refused)?;
    let loaded = policies(AGREEMENTS)?;
    let asks = (0..AGREEMENTS).map(ask).collect::<Result<Vec<Ask>, _>>()?;
    let begun = Instant::now();
    for ask in &asks {
        let decision = loaded.set(&dataset, &ask.consumer).decide(ask);
        if !matches!(decision, Decision::Permit(_)) {
            return Err(refused(format!("{decision:?}")));
        }
    }
    let cold = begun.elapsed();
    let set = loaded.set(&dataset, &asks[0].consumer);
    let rounds = if quick { CACHED / 10 } else { CACHED };
    let begun = Instant::now();
    for _ in 0..rounds {
        black_box(set.decide(black_box(&asks[0])));
    }
    let cached = begun.elapsed();
    results.add("decision_cold_us", cold.as_secs_f64() * 1e6 / AGREEMENTS as f64, "microseconds", beside);
    results.add("decision_cached_ns", cached.as_secs_f64() * 1e9 / f64::from(rounds), "ns", None);
    drop((set, loaded));
    if !quick {
        let before = resident_mb();
        let many = policies(MANY)?;
        results.add("agreements_10000_mb", resident_mb() - before, "MB", None);
        drop(many);
    }
    Ok(())
}
