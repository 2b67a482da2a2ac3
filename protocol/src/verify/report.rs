//! The verifier of reports: what happened under an agreement in a span of time, offline.
//!
//! Each operation of a report stands in the log with the verdict and time it is shown with, and every count is that of the
//! operations. Where the report opens an operation, its clause, purpose, case and rows are proven too; of the others these are the
//! word of whoever made the report. Nothing here proves that a report names every operation: for that compare both parties'.

use super::{Check, Invalid, Passed, Status, fail, finality, subject, verify_block};
use crate::cbor;
use crate::codes::Verdict;
use crate::hash::Hash;
use crate::ids::{AgencyId, OpRef};
use crate::leaves::{Redacted, commitment as leaf};
use crate::node::StoreRoots;
use crate::ops::{LogEntry, Op, log_key};
use crate::receipt::{CheckpointPart, Path, app_hash};
use crate::tree;
use crate::trust::Trust;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What is read at most, bytes.
pub const REPORT_BYTES_MAX: usize = 256 << 20;
/// The clause of a denial that names none.
pub const NO_CLAUSE: &str = "none named";

/// What a report proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedReport {
    /// Final or provisional.
    pub status: Status,
    /// The agreement.
    pub agreement: String,
    /// First ledger time, milliseconds.
    pub from_ms: u64,
    /// First ledger time after it, milliseconds.
    pub to_ms: u64,
    /// Operations.
    pub counted: u64,
    /// Operations whose clause, purpose, case and rows are opened and proven.
    pub opened: u64,
    /// Height of the state the proofs lead to.
    pub proof_height: u64,
    /// Agencies that cosigned, where the report is final.
    pub cosigners: Vec<AgencyId>,
    /// Every check made.
    pub checks: Vec<Check>,
}

impl VerifiedReport {
    /// JSON for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "valid": true,
            "status": self.status.word(),
            "agreement": self.agreement,
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "counted": self.counted,
            "opened": self.opened,
            "proof_height": self.proof_height,
            "cosigners": self.cosigners,
            "checks": self.checks.iter().map(|c| json!({"name": c.name, "sentence": c.sentence})).collect::<Vec<_>>(),
        })
    }
}

/// Counts of a list of operations, as a report shows them. Whoever makes a report and whoever checks one count by this.
#[must_use]
pub fn tally(operations: &[Value]) -> Map<String, Value> {
    let text = |o: &Value, name: &str| o[name].as_str().unwrap_or_default().to_owned();
    let number = |o: &Value, name: &str| o[name].as_u64().unwrap_or_default();
    let mut clauses: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut words: [BTreeMap<String, u64>; 3] = Default::default();
    let mut cases = BTreeSet::new();
    let (mut rows, mut withheld, mut deliveries, mut messages) = (0u64, 0u64, 0u64, 0u64);
    for o in operations {
        let (clause, outcome) = (text(o, "clause"), text(o, "outcome"));
        let clause = if clause.is_empty() { NO_CLAUSE.to_owned() } else { clause };
        *clauses.entry(clause).or_default().entry(outcome.clone()).or_default() += 1;
        for (at, name) in ["verdict", "reason", "purpose"].into_iter().enumerate() {
            let word = text(o, name);
            if name != "reason" || !word.is_empty() {
                *words[at].entry(word).or_default() += 1;
            }
        }
        let case = text(o, "case");
        if !case.is_empty() {
            cases.insert(case);
        }
        rows = rows.saturating_add(number(o, "rows"));
        withheld += u64::from(outcome == "withheld");
        deliveries = deliveries.saturating_add(number(o, "deliveries"));
        messages = messages.saturating_add(number(o, "messages"));
    }
    let [verdicts, reasons, purposes] = words;
    Map::from_iter([
        ("counted".to_owned(), json!(operations.len())),
        ("clauses".to_owned(), json!(clauses)),
        ("verdicts".to_owned(), json!(verdicts)),
        ("reasons".to_owned(), json!(reasons)),
        ("purposes".to_owned(), json!(purposes)),
        ("cases".to_owned(), json!(cases.len())),
        ("rows".to_owned(), json!(rows)),
        ("withheld".to_owned(), json!(withheld)),
        ("feeds".to_owned(), json!({"deliveries": deliveries, "messages": messages})),
    ])
}

/// Verifies a report (the file of `agreement report --file`) against `trust.json`.
///
/// # Errors
/// The first check that fails, by name: `decode`, `trust`, `chain`, `validators`, `commit`, `app_hash`, `entry`, `span`, `op_hash`,
/// `commitment`, `outcome`, `counts`, `checkpoint`.
pub fn verify_report(report: &[u8], trust: &Trust) -> Result<VerifiedReport, Invalid> {
    let mut passed = Passed::default();
    if report.len() > REPORT_BYTES_MAX {
        return Err(fail("decode", format!("{} bytes, at most {REPORT_BYTES_MAX} are read", report.len())));
    }
    let r: Value = serde_json::from_slice(report).map_err(|e| fail("decode", e.to_string()))?;
    passed.add("decode", format!("{} bytes of JSON", report.len()));
    trust.check().map_err(|e| fail("trust", e.to_string()))?;
    passed.add("trust", format!("trust.json holds together, fingerprint {}", trust.fingerprint()));
    let state = State::read(&r["proof"])?;
    let block = verify_block(&state.header, &state.validators, trust)?;
    passed.add("validators", format!("the validators are those of epoch {} in trust.json", block.epoch));
    passed.add(
        "commit",
        format!("{} validators with more than 2/3 of the power signed header {}", block.votes, block.height),
    );
    if block.app_hash != app_hash(&state.roots) || state.height.checked_add(1) != Some(block.height) {
        return Err(fail(
            "app_hash",
            format!("the four roots do not make the app hash of height {} in header {}", state.height, block.height),
        ));
    }
    passed.add("app_hash", format!("the four roots make the app hash in header {}", block.height));
    let (operations, proofs) = (list(&r["operations"], "operations")?, list(&r["proof"]["entries"], "proof.entries")?);
    if operations.len() != proofs.len() {
        return Err(fail("entry", format!("{} operations, {} proofs", operations.len(), proofs.len())));
    }
    let agreement = r["agreement"].as_str().unwrap_or_default().to_owned();
    let span = (number(&r, "from_ms")?, number(&r, "to_ms")?);
    let (mut end, mut opened) = (0, 0);
    for (shown, proof) in operations.iter().zip(proofs) {
        let index = stands(shown, proof, &state, end)?;
        end = index + 1;
        within(shown, span)?;
        opened += u64::from(says(&agreement, shown, proof)?);
    }
    passed.add("entry", format!("all {} operations stand in the log as shown", operations.len()));
    passed.add("span", "each one's ledger time lies in the span");
    let word = operations.len() as u64 - opened;
    passed.add(
        "commitment",
        format!("{opened} are opened and are what the report says; of {word} clause, purpose, case and rows are its maker's word"),
    );
    counts(&r, operations)?;
    passed.add("counts", "every count is that of the operations shown");
    let epoch =
        trust.epoch_at(block.height).ok_or_else(|| fail("validators", "trust.json has no epoch for this height"))?;
    let (chain, header, part) = (trust.chain.as_str(), block.height, state.checkpoint.as_ref());
    let of = finality::State { chain, header, roots: &state.roots, end, part };
    let cosigners = finality::of_state(&of, epoch, &mut passed)?;
    Ok(VerifiedReport {
        status: if part.is_some() { Status::Final } else { Status::Provisional },
        agreement,
        from_ms: span.0,
        to_ms: span.1,
        counted: operations.len() as u64,
        opened,
        proof_height: state.height,
        cosigners,
        checks: passed.0,
    })
}

/// The state that everything is proven in.
struct State {
    height: u64,
    roots: StoreRoots,
    header: Vec<u8>,
    validators: Vec<u8>,
    checkpoint: Option<CheckpointPart>,
}

impl State {
    fn read(proof: &Value) -> Result<Self, Invalid> {
        let root = |name: &str| hash(&proof["roots"][name], name);
        let checkpoint = match &proof["checkpoint"] {
            Value::Null => None,
            shown => {
                let part = cbor::decode(&bytes(shown, "checkpoint")?);
                Some(part.map_err(|e| fail("decode", format!("proof.checkpoint: {e}")))?)
            }
        };
        Ok(Self {
            height: number(proof, "height")?,
            roots: StoreRoots { heads: root("heads")?, log: root("log")?, meta: root("meta")?, runs: root("runs")? },
            header: bytes(&proof["header"], "header")?,
            validators: bytes(&proof["validators"], "validators")?,
            checkpoint,
        })
    }
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>, Invalid> {
    value.as_array().ok_or_else(|| fail("decode", format!("{name} is no list")))
}

fn number(of: &Value, name: &str) -> Result<u64, Invalid> {
    of[name].as_u64().ok_or_else(|| fail("decode", format!("{name} is no number")))
}

fn bytes(value: &Value, name: &str) -> Result<Vec<u8>, Invalid> {
    let text = value.as_str().ok_or_else(|| fail("decode", format!("{name} is no text")))?;
    hex::decode(text).map_err(|e| fail("decode", format!("{name}: {e}")))
}

fn hash(value: &Value, name: &str) -> Result<Hash, Invalid> {
    bytes(value, name)?.try_into().map_err(|_| fail("decode", format!("{name} is no hash")))
}

/// An operation's place in the log, with the verdict, code, height and time that are shown. Gives its index, at least `next`.
fn stands(shown: &Value, proof: &Value, state: &State, next: u64) -> Result<u64, Invalid> {
    let name = shown["operation"].as_str().unwrap_or_default();
    let bad = |rule: String| fail("entry", format!("{name}: {rule}"));
    let index = name.parse::<OpRef>().map_err(|e| bad(e.to_string()))?.0;
    if proof["operation"] != shown["operation"] || index < next {
        return Err(bad("operations and proofs must be in the log's order, each once".into()));
    }
    let value = bytes(&proof["entry"], "entry")?;
    let hashes = list(&proof["hashes"], "hashes")?.iter().map(|h| hash(h, "hashes")).collect::<Result<_, _>>()?;
    let path = Path { sides: number(proof, "sides")?, hashes };
    let root = path.root(&tree::value_leaf(&log_key(index), &value)).map_err(|e| bad(e.to_string()))?;
    if root != state.roots.log {
        return Err(bad("it is not in the log with this entry".into()));
    }
    let entry = entry(proof)?;
    let same = shown["height"] == entry.height
        && shown["tick_ms"] == entry.tick_ms
        && shown["verdict"] == entry.verdict.word()
        && shown["code"] == entry.code;
    if same && entry.height <= state.height {
        Ok(index)
    } else {
        Err(bad("the log has another height, time, verdict or code".into()))
    }
}

fn entry(proof: &Value) -> Result<LogEntry, Invalid> {
    cbor::decode(&bytes(&proof["entry"], "entry")?).map_err(|e| fail("entry", e.to_string()))
}

fn within(shown: &Value, (from, to): (u64, u64)) -> Result<(), Invalid> {
    let tick_ms = number(shown, "tick_ms")?;
    if (from..to).contains(&tick_ms) {
        return Ok(());
    }
    Err(fail("span", format!("{} happened at {tick_ms} ms, outside of the report's span", shown["operation"])))
}

/// What the report says of an operation is what it is, as far as it is shown. Gives whether it is opened.
fn says(agreement: &str, shown: &Value, proof: &Value) -> Result<bool, Invalid> {
    let name = shown["operation"].as_str().unwrap_or_default();
    let entry = entry(proof)?;
    let op = match &proof["op"] {
        Value::Null => None,
        op => {
            let bad = |rule: String| fail("op_hash", format!("{name}: {rule}"));
            let op: Op = cbor::decode(&bytes(op, "op")?).map_err(|e| bad(e.to_string()))?;
            if op.hash() != entry.op_hash {
                return Err(bad("the operation shown is not the one in the log".into()));
            }
            Some(op)
        }
    };
    let outcome = shown["outcome"].as_str().unwrap_or_default();
    if !may_be(outcome, entry.verdict, op.as_ref()) {
        let rule = format!("{name}: {outcome} is not what became of an operation that was {}", entry.verdict);
        return Err(fail("outcome", rule));
    }
    let (Some(op), openings) = (op, &proof["openings"]) else { return Ok(false) };
    if openings.is_null() {
        return Ok(false);
    }
    let bad = |rule: String| fail("commitment", format!("{name}: {rule}"));
    let opened: Redacted = cbor::decode(&bytes(openings, "openings")?).map_err(|e| bad(e.to_string()))?;
    let root = subject::commitment(&op).ok_or_else(|| bad("it has no commitment to open".into()))?;
    opened.verify(root).map_err(|e| bad(e.to_string()))?;
    let text = |field: &str| shown[field].as_str().unwrap_or_default();
    let clause = format!("{agreement}/{}", text("clause"));
    let terms = [(leaf::CLAUSE, clause.as_str()), (leaf::PURPOSE, text("purpose")), (leaf::CASE, text("case"))];
    if let Some((field, _)) = terms.iter().find(|(field, want)| opened.get(field) != Some(want.as_bytes())) {
        return Err(bad(format!("it commits to another {field} than the report shows")));
    }
    let count = opened.get(leaf::COUNT).and_then(|c| c.try_into().ok()).map(u64::from_be_bytes);
    let field = match (outcome, &op) {
        ("delivered", Op::Deliver { count: deliveries, .. }) if shown["deliveries"] != *deliveries => {
            return Err(bad("it covers another number of deliveries than the report shows".into()));
        }
        ("delivered", _) => "messages",
        // What a write answers is not counted in its intent.
        ("released", Op::Query { .. } | Op::BreakGlass { .. }) => "rows",
        _ => return Ok(true),
    };
    if count.is_none() || shown[field].as_u64() != count {
        return Err(bad(format!("it commits to another number of {field} than the report shows")));
    }
    Ok(true)
}

/// Whether an operation with this verdict may have had this outcome.
fn may_be(outcome: &str, verdict: Verdict, op: Option<&Op>) -> bool {
    match (outcome, op) {
        ("refused", _) => verdict == Verdict::Refused,
        (_, _) if verdict == Verdict::Refused => false,
        ("denied", Some(op)) => matches!(op, Op::Deny { .. } | Op::Intent { .. }),
        ("released" | "withheld", Some(op)) => {
            matches!(op, Op::Query { .. } | Op::BreakGlass { .. } | Op::Intent { .. })
        }
        ("delivered", Some(op)) => matches!(op, Op::Deliver { .. }),
        ("denied" | "released" | "withheld" | "delivered", None) => true,
        _ => false,
    }
}

/// The counts are those of the operations. A consumer's report counts no feeds.
fn counts(r: &Value, operations: &[Value]) -> Result<(), Invalid> {
    for (name, want) in tally(operations) {
        let shown = &r[&name];
        if *shown == want || (name == "feeds" && shown.is_null() && want["deliveries"] == 0) {
            continue;
        }
        return Err(fail("counts", format!("{name} is {shown} in the report, its operations make {want}")));
    }
    Ok(())
}
