//! What happened under an agreement in a span of ledger time: counted from what this agency keeps of its own operations,
//! with a proof of each counted entry. A provider counts what its executor recorded, a consumer what its gateway asked; both
//! read verdicts from their own node, so that both come to the same.

use crate::gateway::records::{QueryRecord, Records};
use crate::host::recorded::{Decisions, Deliveries, Kept};
use crate::host::subjects::listing::{ListError, Listing, Proven};
use crate::store::StoreError;
use concordat_executor::replay::Record;
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::ids::{AgencyId, AgreementId, OpRef};
use concordat_protocol::leaves::{Redacted, commitment as leaf};
use concordat_protocol::node::AgreementView;
use concordat_protocol::ops::{LogEntry, Op};
use concordat_protocol::session::{Released, Request};
use concordat_protocol::terms::Terms;
use concordat_protocol::verify::report::tally;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most operations of one report.
pub const OPERATIONS_MAX: usize = 50_000;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// Too many operations.
    #[error("more than {OPERATIONS_MAX} operations in this span: ask for a shorter one")]
    TooMany,
    /// The executor's store.
    #[error("the release store: {0}")]
    Releases(String),
    /// The broker's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The proofs.
    #[error(transparent)]
    Proof(#[from] ListError),
}

impl ReportError {
    /// A stable name of the error.
    pub fn code(&self) -> &str {
        match self {
            Self::TooMany => "report-too-long",
            Self::Releases(_) => "release-store",
            Self::Store(e) => e.code(),
            Self::Proof(e) => e.code(),
        }
    }
}

/// An operation as this agency knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Global index.
    pub index: u64,
    /// The clause's id; empty where a denial names none.
    pub clause: String,
    /// The word of a denial that the executor recorded; none where it permitted.
    pub denied: Option<String>,
    /// Purpose.
    pub purpose: String,
    /// Case reference or empty.
    pub case: String,
    /// Rows of the answer, where something was released.
    pub rows: Option<u64>,
    /// Whether it was recorded and never released.
    pub withheld: bool,
    /// Deliveries and messages of a feed that it covers.
    pub delivered: Option<(u64, u64)>,
    /// Canonical operation and the opened leaves of its commitment; empty where this agency keeps none.
    pub shown: (Vec<u8>, Vec<u8>),
}

/// The clause of `AGR-2026-0142/C1`, if it is of this agreement.
fn clause_of<'a>(agreement: &AgreementId, named: &'a str) -> Option<&'a str> {
    named.strip_prefix(agreement.as_str())?.strip_prefix('/')
}

/// The clause of an agreement that has a handle.
fn clause_with(views: &[AgreementView], agreement: &AgreementId, handle: u64) -> Option<String> {
    let of = views.iter().filter(|v| v.agreement == *agreement);
    let (view, at) = of.filter_map(|v| Some((v, v.handles.iter().position(|h| *h == handle)?))).next()?;
    let terms: Terms = cbor::decode(&view.terms).ok()?;
    terms.clauses.get(at).map(|c| c.id.clone())
}

impl Known {
    /// What a provider's executor recorded, if it is about the agreement. A denial is about the agreement that it named.
    fn of_decision(kept: &Kept, agreement: &AgreementId) -> Option<Self> {
        let record = kept.record()?;
        let request: Request = cbor::decode(&hex::decode(&record.request).ok()?).ok()?;
        let (denied, clause) = match &record {
            Record { told: Some(told), .. } => {
                (Some(told.reason.clone()), clause_of(agreement, &told.clause)?.to_owned())
            }
            Record { denied: Some(reason), .. } => {
                (Some(reason.clone()), clause_of(agreement, &record.clause)?.to_owned())
            }
            Record { agreement: Some(of), .. } if of == agreement => (None, record.clause.clone()),
            _ => return None,
        };
        Some(Self {
            index: kept.index,
            clause,
            rows: record.rows.filter(|_| denied.is_none()),
            denied,
            purpose: request.purpose,
            case: request.case,
            withheld: kept.withheld,
            shown: (kept.op.clone(), kept.openings.clone()),
            ..Self::default()
        })
    }

    /// What a provider's executor delivered of a feed, if it is about the agreement; what was erased names no clause.
    fn of_delivery(kept: &Kept, agreement: &AgreementId) -> Option<Self> {
        let Op::Deliver { count, .. } = cbor::decode(&kept.op).ok()? else { return None };
        let opened: Redacted = cbor::decode(&kept.openings).ok()?;
        let text = |name: &str| opened.get(name).and_then(|v| String::from_utf8(v.to_vec()).ok());
        let clause = text(leaf::CLAUSE)?;
        let messages = opened.get(leaf::COUNT)?.try_into().ok().map(u64::from_be_bytes)?;
        Some(Self {
            index: kept.index,
            clause: clause_of(agreement, &clause)?.to_owned(),
            purpose: text(leaf::PURPOSE)?,
            delivered: Some((count, messages)),
            shown: (kept.op.clone(), kept.openings.clone()),
            ..Self::default()
        })
    }

    /// What a consumer's gateway asked, if it is about the agreement.
    fn of_query(r: &QueryRecord, agreement: &AgreementId) -> Option<Self> {
        let why: Value = r.problem.as_deref().and_then(|p| serde_json::from_str(p).ok()).unwrap_or_default();
        let clause = match clause_of(agreement, &r.clause) {
            Some(clause) => clause,
            None if r.agreement == agreement.as_str() => r.clause.as_str(),
            None => return None,
        };
        let denied = (r.outcome == "denied").then(|| why["reason"].as_str().unwrap_or_default().to_owned());
        let (purpose, case) = (r.purpose.clone(), r.case_ref.clone());
        let released = r.released.as_deref().and_then(|b| cbor::decode::<Released>(b).ok());
        let shown = released.map(|r| (r.op.0, r.openings.0)).unwrap_or_default();
        let (index, clause) = (r.op?, clause.to_owned());
        Some(Self { index, clause, denied, purpose, case, rows: r.rows, shown, ..Self::default() })
    }
}

/// A known operation with its entry: what it counts as.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted<'a> {
    known: &'a Known,
    entry: &'a LogEntry,
    outcome: &'static str,
    reason: String,
}

impl<'a> Counted<'a> {
    /// The ledger's refusal goes before what either side says.
    fn of(known: &'a Known, entry: &'a LogEntry) -> Self {
        let (outcome, reason) = match (entry.verdict, &known.denied) {
            (Verdict::Refused, _) => ("refused", format!("ledger {}: {}", entry.code, codes::text(entry.code))),
            (_, Some(reason)) => ("denied", reason.clone()),
            (_, None) if known.delivered.is_some() => ("delivered", String::new()),
            (_, None) if known.withheld => ("withheld", "recorded and never released".to_owned()),
            (_, None) => ("released", String::new()),
        };
        Self { known, entry, outcome, reason }
    }

    fn to_json(&self) -> Value {
        let Known { index, clause, purpose, case, rows, delivered, .. } = self.known;
        json!({
            "operation": OpRef(*index).to_string(), "height": self.entry.height, "tick_ms": self.entry.tick_ms,
            "clause": clause, "outcome": self.outcome, "reason": self.reason, "verdict": self.entry.verdict.word(),
            "code": self.entry.code, "purpose": purpose, "case": case,
            "rows": rows.filter(|_| self.outcome == "released"),
            "deliveries": delivered.map(|d| d.0), "messages": delivered.map(|d| d.1),
        })
    }
}

/// The span of a report, ledger time in milliseconds: `from` included, `to` not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First.
    pub from_ms: u64,
    /// First after it.
    pub to_ms: u64,
}

/// Where a report's operations come from.
pub struct Sources {
    /// The executor's records, where this agency provides.
    pub decisions: Decisions,
    /// What its feeds delivered.
    pub deliveries: Deliveries,
    /// The gateway's records, where it asks.
    pub records: Records,
    /// The own node's proofs.
    pub proofs: Listing,
    /// Agreements as the own node has them.
    pub agreements: Vec<AgreementView>,
    /// Whose report it is.
    pub agency: AgencyId,
}

/// Makes the report of an agreement.
///
/// # Errors
/// A store or the own node fails, or there are too many operations.
pub async fn report(sources: &Sources, agreement: &AgreementId, span: Span) -> Result<Value, ReportError> {
    let (decisions, deliveries) = (sources.decisions.clone(), sources.deliveries.clone());
    let read = move || Ok::<_, rusqlite::Error>((decisions.between(0, u64::MAX)?, deliveries.anchored()?));
    let failed = |e: String| ReportError::Releases(e);
    let kept = tokio::task::spawn_blocking(read).await.map_err(|e| failed(e.to_string()))?;
    let (kept, delivered) = kept.map_err(|e| failed(e.to_string()))?;
    let asked = sources.records.of_agreement(agreement.to_string()).await?;
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    known.extend(kept.iter().filter_map(|k| Known::of_decision(k, agreement)).map(|k| (k.index, k)));
    known.extend(delivered.iter().filter_map(|k| Known::of_delivery(k, agreement)).map(|k| (k.index, k)));
    known.extend(asked.iter().filter_map(|r| Known::of_query(r, agreement)).map(|k| (k.index, k)));
    // What the ledger refused names its clause by the handle alone.
    for r in asked.iter().filter(|r| r.clause.is_empty() && r.agreement.is_empty()) {
        let Some(index) = r.op.filter(|op| !known.contains_key(op)) else { continue };
        let handle = sources.proofs.refused(index).await?.and_then(|op| op.recorded().map(|f| f.handle));
        let of = handle.and_then(|h| clause_with(&sources.agreements, agreement, h));
        let of = of.map(|clause| QueryRecord { clause: format!("{agreement}/{clause}"), ..r.clone() });
        known.extend(of.and_then(|r| Known::of_query(&r, agreement)).map(|k| (index, k)));
    }
    if known.len() > OPERATIONS_MAX {
        return Err(ReportError::TooMany);
    }
    let proven = sources.proofs.proven(&known.keys().copied().collect()).await?;
    let mut out = counted(agreement, span, &known, &proven.entries);
    if !provides(&sources.agreements, agreement, &sources.agency) {
        // A consumer keeps too little of its feeds to count them by the ledger's time.
        out["feeds"] = Value::Null;
    }
    out["proof"] = proof(&proven, &known, &out["operations"]);
    Ok(out)
}

/// The counts, from what is known and the log's entries.
fn counted(agreement: &AgreementId, span: Span, known: &BTreeMap<u64, Known>, entries: &[(u64, LogEntry)]) -> Value {
    let within = |e: &LogEntry| (span.from_ms..span.to_ms).contains(&e.tick_ms);
    let found = entries.iter().filter(|(_, e)| within(e)).filter_map(|(i, e)| Some(Counted::of(known.get(i)?, e)));
    let operations: Vec<Value> = found.map(|c| c.to_json()).collect();
    let mut out = Map::from_iter([
        ("agreement".to_owned(), json!(agreement)),
        ("from_ms".to_owned(), json!(span.from_ms)),
        ("to_ms".to_owned(), json!(span.to_ms)),
    ]);
    out.extend(tally(&operations));
    out.insert("operations".to_owned(), Value::Array(operations));
    Value::Object(out)
}

/// Whether an agency is the provider of an agreement.
fn provides(views: &[AgreementView], agreement: &AgreementId, agency: &AgencyId) -> bool {
    let of = views.iter().filter(|v| v.agreement == *agreement);
    of.filter_map(|v| cbor::decode::<Terms>(&v.terms).ok()).any(|t| t.assigner == *agency)
}

/// One state of the ledger that holds every counted entry: its header, and a path from each entry to its root.
fn proof(proven: &Proven, known: &BTreeMap<u64, Known>, counted: &Value) -> Value {
    let named: BTreeSet<&str> =
        counted.as_array().into_iter().flatten().filter_map(|o| o["operation"].as_str()).collect();
    let entries = proven.paths.iter().filter(|(i, ..)| named.contains(OpRef(*i).to_string().as_str()));
    let entries = entries.map(|(index, entry, path)| {
        let hexed = |b: &Vec<u8>| (!b.is_empty()).then(|| hex::encode(b));
        let (op, openings) = known.get(index).map(|k| (hexed(&k.shown.0), hexed(&k.shown.1))).unwrap_or_default();
        json!({"operation": OpRef(*index).to_string(), "entry": hex::encode(entry), "sides": path.sides,
            "hashes": path.hashes.iter().map(hex::encode).collect::<Vec<_>>(), "op": op, "openings": openings})
    });
    let roots = &proven.roots;
    json!({
        "height": proven.height, "app_hash": hex::encode(proven.app_hash),
        "roots": {"heads": hex::encode(roots.heads), "log": hex::encode(roots.log), "meta": hex::encode(roots.meta),
            "runs": hex::encode(roots.runs)},
        "header": hex::encode(&proven.header), "validators": hex::encode(&proven.validators),
        "checkpoint": proven.checkpoint.as_ref().map(|c| hex::encode(cbor::encode(c))), "entries": entries.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn agreement() -> AgreementId {
        AgreementId::new("AGR-2026-0142").unwrap()
    }

    fn entry(verdict: Verdict, code: u16, tick_ms: u64) -> LogEntry {
        let writer = "police/executor".into();
        LogEntry { height: 9, tick_ms, writer, incarnation: 1, seq: 1, op_hash: [0; 32], verdict, code }
    }

    #[test]
    fn the_ledgers_refusal_counts_and_the_span_is_half_open() {
        let known = |index, denied: Option<&str>, case: &str| Known {
            index,
            clause: "C1".into(),
            denied: denied.map(str::to_owned),
            purpose: "purp:pending-case".into(),
            case: case.into(),
            rows: Some(3),
            ..Known::default()
        };
        let all = [known(1, None, "a"), known(2, Some("purpose"), ""), known(3, None, "a"), known(4, None, "b")];
        let all: BTreeMap<u64, Known> = all.into_iter().map(|k| (k.index, k)).collect();
        let entries = [
            (1, entry(Verdict::Accepted, 0, 10)),
            (2, entry(Verdict::Accepted, 0, 11)),
            (3, entry(Verdict::Refused, 410, 19)),
            (4, entry(Verdict::Accepted, 0, 20)),
        ];
        let made = counted(&agreement(), Span { from_ms: 10, to_ms: 20 }, &all, &entries);
        assert_eq!((&made["counted"], &made["cases"], &made["rows"]), (&json!(3), &json!(1), &json!(3)));
        assert_eq!(made["clauses"], json!({"C1": {"released": 1, "denied": 1, "refused": 1}}));
        assert_eq!(made["verdicts"], json!({"accepted": 2, "refused": 1}));
        assert_eq!(made["reasons"].as_object().unwrap().len(), 2, "{made}");
    }

    #[test]
    fn another_agreements_clause_is_not_counted() {
        assert_eq!(clause_of(&agreement(), "AGR-2026-0142/C1"), Some("C1"));
        assert_eq!(clause_of(&agreement(), "AGR-2026-01421/C1"), None);
        let r =
            QueryRecord { agreement: "AGR-2026-0142".into(), clause: "C1".into(), op: Some(4), ..Default::default() };
        assert_eq!(Known::of_query(&r, &agreement()).unwrap().clause, "C1");
        let denied = QueryRecord {
            clause: "AGR-2026-0142/X1".into(),
            op: Some(4),
            outcome: "denied".into(),
            ..Default::default()
        };
        assert_eq!(Known::of_query(&denied, &agreement()).unwrap().denied.as_deref(), Some(""));
        assert_eq!(
            Known::of_query(&QueryRecord { op: Some(4), ..r.clone() }, &AgreementId::new("AGR-1").unwrap()),
            None
        );
        assert_eq!(Known::of_query(&QueryRecord { op: None, ..r }, &agreement()), None);
    }
}
