//! Gathers a case: receipts, the chain's trust, agreements, schemas, time-stamps, and the page.

use super::container::Entry;
use super::page::{self, About};
use super::sign::{BundleKey, certificate_pem};
use super::{
    AgreementPart, BundleError, DatasetPart, EXPORT, Export, FORMAT, LeftOut, OPERATIONS_MAX, Operation, STATEMENT,
    TRUST, TimestampPart, json_pretty, statement,
};
use crate::evidence::TrustKeeper;
use crate::gateway::records::{QueryRecord, Records};
use crate::ledger::node_client::NodeClient;
use crate::outside::timestamp::TimeStamps;
use crate::receipts::{Receipts, ReceiptsError};
use concordat_executor::policies::compile::{Compiled, compile};
use concordat_protocol::cbor;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::OpRef;
use concordat_protocol::node::AgreementView;
use concordat_protocol::receipt::{self, Checkpoint, Receipt};
use concordat_protocol::terms::Status;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Verified, verify};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An operation that is not under a header yet is waited for.
const NEXT_BLOCK: Duration = Duration::from_secs(5);
/// Largest file of the node's folder that goes into a bundle, bytes.
const FILE_MAX: u64 = 1 << 20;

/// Where things are taken from.
pub struct Sources {
    /// The gateway's own queries.
    pub records: Records,
    /// Receipts.
    pub receipts: Receipts,
    /// The own node.
    pub node: NodeClient,
    /// The chain's trust.
    pub trust: TrustKeeper,
    /// Time-stamps of checkpoints.
    pub timestamps: TimeStamps,
    /// The node's folder: agreements/, schemas/.
    pub folder: PathBuf,
    /// The folder of keys.
    pub keys: PathBuf,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The case reference.
    pub case: String,
    /// Queries asked from this ledger time on, milliseconds.
    pub from_ms: Option<u64>,
    /// And before this one.
    pub until_ms: Option<u64>,
    /// The time zone of local times.
    pub zone: String,
    /// The own agency.
    pub agency: String,
    /// Name of the token that asks.
    pub by: String,
    /// The own clock, milliseconds since 1970.
    pub now_ms: u64,
}

/// A made bundle.
#[derive(Debug)]
pub struct Bundle {
    /// The container.
    pub bytes: Vec<u8>,
    /// Its `export.json`.
    pub export: Export,
}

/// An operation with its receipt, which holds.
struct Proven {
    receipt: Receipt,
    verified: Verified,
    record: QueryRecord,
}

/// Makes the bundle of a case.
///
/// # Errors
/// There is no such case, it is too large, or a part cannot be had.
pub async fn bundle(from: &Sources, wanted: &Wanted) -> Result<Bundle, BundleError> {
    statement::zone(&wanted.zone)?;
    let found = from.records.by_case(wanted.case.clone(), wanted.from_ms, wanted.until_ms, OPERATIONS_MAX + 1).await?;
    if found.is_empty() {
        return Err(BundleError::NoCase(wanted.case.clone()));
    }
    if found.len() > OPERATIONS_MAX {
        return Err(BundleError::TooMany(wanted.case.clone()));
    }
    let trust = from.trust.now().await?;
    let (proven, left_out) = prove(from, found, &trust).await?;
    let mut files = vec![Entry::new(TRUST, trust.to_json())];
    let views = from.node.agreements().await?;
    let mut export = Export {
        format: FORMAT.into(),
        tool: concat!("concordat ", env!("CARGO_PKG_VERSION")).into(),
        chain: trust.chain.clone(),
        fingerprint: trust.fingerprint(),
        case: wanted.case.clone(),
        agency: wanted.agency.clone(),
        exported_by: wanted.by.clone(),
        exported_at_ms: wanted.now_ms,
        zone: wanted.zone.clone(),
        operations: proven.iter().map(|p| operation(p, &views)).collect(),
        left_out,
        agreements: vec![],
        datasets: datasets(from, &proven, &mut files).await?,
        timestamps: vec![],
    };
    agreements(&from.folder, &views, &mut export, &mut files);
    timestamps(from, &proven, &mut export, &mut files).await?;
    for (p, op) in proven.iter().zip(&export.operations) {
        let bytes = p.receipt.to_bytes().map_err(ReceiptsError::from)?;
        files.push(Entry::new(op.receipt.clone(), bytes));
        let name = op.receipt.replace(".receipt", ".json");
        files.push(Entry::new(name, json_pretty(&receipt::to_json(&p.receipt))));
    }
    files.push(Entry::new(EXPORT, json_pretty(&export)));
    let about = About {
        title: format!("Evidence in the matter {}", export.case),
        agency: export.agency.clone(),
        tool: export.tool.clone(),
        at_ms: wanted.now_ms,
    };
    files.insert(0, Entry::new(STATEMENT, page::render(&statement::blocks(&export)?, &about)?));
    let key = BundleKey::open(&from.keys, &wanted.agency, wanted.now_ms)?;
    Ok(Bundle { bytes: super::seal(&files, &key, wanted.now_ms)?, export })
}

/// Receipts of all operations, checked as their reader will check them.
async fn prove(
    from: &Sources,
    found: Vec<QueryRecord>,
    trust: &Trust,
) -> Result<(Vec<Proven>, Vec<LeftOut>), BundleError> {
    let mut left_out = Vec::new();
    // Of several attempts at one operation the one that was answered comes last.
    let mut by_op = BTreeMap::new();
    for r in found {
        match r.op {
            Some(op) => drop(by_op.insert(op, r)),
            None => left_out.push(LeftOut {
                what: r.request_id,
                outcome: r.outcome,
                code: "no-operation".into(),
                why: "the ledger has no entry of it: nothing was released for it that this agency knows of".into(),
            }),
        }
    }
    let mut proven = Vec::new();
    for (op, record) in by_op {
        let mut made = from.receipts.receipt(op).await;
        if matches!(made, Err(ReceiptsError::NotYet(_))) {
            made = from.receipts.wait_final(op, NEXT_BLOCK).await;
        }
        let receipt = match made {
            Ok(receipt) => receipt,
            Err(e @ (ReceiptsError::Ledger(_) | ReceiptsError::Store(_) | ReceiptsError::Evidence(_))) => {
                return Err(e.into());
            }
            Err(e) => {
                let (what, code, why) = (OpRef(op).to_string(), e.code().to_owned(), e.to_string());
                left_out.push(LeftOut { what, outcome: record.outcome, code, why });
                continue;
            }
        };
        let bytes = receipt.to_bytes().map_err(ReceiptsError::from)?;
        match tokio::task::block_in_place(|| verify(&bytes, trust, None)) {
            Ok(verified) => proven.push(Proven { receipt, verified, record }),
            Err(e) => left_out.push(LeftOut {
                what: OpRef(op).to_string(),
                outcome: record.outcome,
                code: e.check.into(),
                why: format!("its receipt does not verify: {e}"),
            }),
        }
    }
    Ok((proven, left_out))
}

/// The agreement version that a proven handle names, or the one in force of the id that the store has.
fn version_of<'a>(p: &Proven, views: &'a [AgreementView]) -> Option<&'a AgreementView> {
    if let Some(handle) = p.verified.handle {
        return views.iter().find(|v| v.handles.contains(&handle));
    }
    let mut named = views.iter().filter(|v| v.agreement.as_str() == p.record.agreement);
    named.clone().find(|v| v.status == Status::Active).or_else(|| named.next_back())
}

fn operation(p: &Proven, views: &[AgreementView]) -> Operation {
    let (v, r) = (&p.verified, &p.record);
    let view = version_of(p, views);
    let request = p.receipt.request.as_ref().map(|part| &part.request);
    let problem: Value = r.problem.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    let said = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
    let missing = said("missing");
    let denied = if missing.is_empty() { said("detail") } else { format!("{} (missing: {missing})", said("detail")) };
    let name = |list: &[_]| list.iter().map(ToString::to_string).collect();
    Operation {
        operation: OpRef(v.index).to_string(),
        receipt: format!("receipts/op-{}.receipt", v.index),
        kind: v.kind.clone(),
        outcome: r.outcome.clone(),
        verdict: v.verdict.word().into(),
        status: v.status.word().into(),
        contested: v.contested,
        cosigners: name(&v.cosigners),
        not_countersigned: name(&v.not_countersigned),
        consumer: v.consumer.as_ref().map(ToString::to_string).unwrap_or_default(),
        provider: v.provider.to_string(),
        dataset: request.map_or_else(|| r.dataset.clone(), |q| q.dataset.to_string()),
        purpose: request.map_or_else(|| r.purpose.clone(), |q| q.purpose.clone()),
        agreement: view.map_or_else(|| r.agreement.clone(), |v| v.agreement.to_string()),
        version: view.map(|v| v.version),
        clause: v.clause.clone().unwrap_or_else(|| r.clause.clone()),
        clause_text: said("clause_text"),
        rows: r.rows.filter(|_| v.released),
        tick_ms: v.tick_ms,
        height: v.height,
        opened: v.opened.iter().map(|(n, t)| (n.clone(), t.clone())).collect(),
        denied: if r.outcome == "denied" { denied } else { String::new() },
        timestamps: vec![],
    }
}

fn files_of(dir: &Path, extension: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    let small = |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX);
    let wanted = paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == extension) && small(p));
    wanted.filter_map(|p| std::fs::read(p).ok()).collect()
}

/// Terms of the ledger, and the documents of this agency's folder that are the approved ones.
fn agreements(folder: &Path, views: &[AgreementView], export: &mut Export, files: &mut Vec<Entry>) {
    let named: BTreeSet<(String, u64)> =
        export.operations.iter().filter_map(|o| Some((o.agreement.clone(), o.version?))).collect();
    let compiled = |yaml: Vec<u8>| String::from_utf8(yaml).ok().and_then(|y| Some((compile(&y).ok()?, y)));
    let own: BTreeMap<Hash, (Compiled, String)> = files_of(&folder.join("agreements"), "yaml")
        .into_iter()
        .filter_map(compiled)
        .map(|(c, yaml)| (c.terms_hash(), (c, yaml)))
        .collect();
    for view in views.iter().filter(|v| named.contains(&(v.agreement.to_string(), v.version))) {
        let stem = format!("agreements/{}-v{}", view.agreement, view.version);
        let mut part = AgreementPart {
            agreement: view.agreement.to_string(),
            version: view.version,
            terms_hash: hex::encode(view.terms_hash),
            terms: format!("{stem}.terms"),
            document: None,
            text: None,
        };
        files.push(Entry::new(part.terms.clone(), view.terms.0.clone()));
        if let Some((c, yaml)) = own.get(&view.terms_hash) {
            files.push(Entry::new(format!("{stem}.yaml"), yaml.clone()));
            files.push(Entry::new(format!("{stem}.txt"), c.text.clone()));
            part.document = Some(format!("{stem}.yaml"));
            part.text = Some(format!("{stem}.txt"));
            let ours = |o: &&mut Operation| o.agreement == part.agreement && o.version == Some(part.version);
            for op in export.operations.iter_mut().filter(ours) {
                if let Some(clause) = c.document.clauses.iter().find(|k| k.id == op.clause) {
                    op.clause_text.clone_from(&clause.text);
                }
            }
        }
        export.agreements.push(part);
    }
}

/// The schemas of the datasets asked about, where this agency has the registered ones.
async fn datasets(from: &Sources, proven: &[Proven], files: &mut Vec<Entry>) -> Result<Vec<DatasetPart>, BundleError> {
    let asked: BTreeSet<&str> = proven.iter().map(|p| p.record.dataset.as_str()).collect();
    let own: BTreeMap<Hash, Vec<u8>> =
        files_of(&from.folder.join("schemas"), "json").into_iter().map(|b| (sha256(&[&b]), b)).collect();
    let mut parts: Vec<DatasetPart> = Vec::new();
    for d in from.node.datasets().await?.into_iter().filter(|d| asked.contains(d.id.to_string().as_str())) {
        let hash = hex::encode(d.schema_hash);
        let name = format!("schemas/{}.json", &hash[..16]);
        let known = own.get(&d.schema_hash);
        if let Some(bytes) = known
            && !files.iter().any(|f| f.name == name)
        {
            files.push(Entry::new(name.clone(), bytes.clone()));
        }
        parts.push(DatasetPart { dataset: d.id.to_string(), schema_sha256: hash, schema: known.map(|_| name) });
    }
    Ok(parts)
}

/// The checkpoint that a final receipt leads to.
pub(super) fn checkpoint(receipt: &Receipt, verified: &Verified) -> Option<Checkpoint> {
    let part = receipt.checkpoint.as_ref()?;
    Some(Checkpoint {
        chain: receipt.chain.clone(),
        height: verified.proof_height,
        tick_ms: part.tick_ms,
        log_size: part.log_size,
        roots: receipt.roots.clone(),
    })
}

/// Tokens over the very checkpoints that the receipts lead to.
async fn timestamps(
    from: &Sources,
    proven: &[Proven],
    export: &mut Export,
    files: &mut Vec<Entry>,
) -> Result<(), BundleError> {
    for (p, op) in proven.iter().zip(&mut export.operations) {
        let Some(checkpoint) = checkpoint(&p.receipt, &p.verified) else { continue };
        for kept in from.timestamps.of_checkpoint(checkpoint.height).await? {
            // A token whose certificate has to be looked for elsewhere would be of no use here.
            if kept.stamp.checkpoint != checkpoint || kept.check(None).is_err() {
                continue;
            }
            let stem = format!("timestamps/{}-{}", checkpoint.height, kept.id);
            let part = TimestampPart {
                token: format!("{stem}.tst"),
                checkpoint: format!("{stem}.checkpoint"),
                certificate: format!("{stem}.pem"),
                tsa: kept.tsa,
            };
            op.timestamps.push(part.token.clone());
            if export.timestamps.contains(&part) {
                continue;
            }
            files.push(Entry::new(part.token.clone(), kept.stamp.token.0));
            files.push(Entry::new(part.checkpoint.clone(), cbor::encode(&checkpoint)));
            let certificates: String = kept.certificates.iter().map(|c| certificate_pem(c)).collect();
            files.push(Entry::new(part.certificate.clone(), certificates));
            export.timestamps.push(part);
        }
    }
    Ok(())
}
