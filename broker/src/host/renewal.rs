//! Whether a renewal changes dates and papers alone, and which terms are enforced where one does not.
//!
//! The ledger has hashes of fields and filters and cannot tell whether they change with the dates. So whoever has the
//! documents compares them: the command line before it signs, the gateway before it hands an act to the ledger, and the
//! provider's executor, which trusts neither. A renewal that changes more is not applied: the terms before it are enforced
//! until their own end.

use super::lead::Lead;
use super::policy::Documents;
use concordat_executor::policies::diff::beyond_renewal;
use concordat_protocol::acts::{Act, ActBody, ApprovalKind};
use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgreementId;
use concordat_protocol::node::AgreementView;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tracing::warn;

/// Why a renewal is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenewalError {
    /// A document to compare is missing.
    #[error("the document with the terms hash {} is not in agreements/, so that nothing can be compared: put it there", hex::encode(.0))]
    NoDocument(Hash),
    /// Nobody here knows what was enforced before, and the ledger tells only of the newest change.
    #[error(
        "it was renewed or resumed more than once before anything was enforced here, so that nobody can compare: restore \
         executor/enforced.json from a backup, or have both sides propose the next version"
    )]
    Unknown,
    /// More than dates and papers.
    #[error("a renewal changes dates and papers only, this one also {0}: propose a new version")]
    Beyond(String),
}

impl RenewalError {
    /// A stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoDocument(_) => "renewal-document",
            Self::Unknown => "renewal-unknown",
            Self::Beyond(_) => "not-a-renewal",
        }
    }
}

/// Compares the documents of two terms hashes.
///
/// # Errors
/// One of them is missing, or more changes than dates and papers.
pub fn compare(before: &Hash, after: &Hash, documents: &Documents) -> Result<(), RenewalError> {
    if before == after {
        return Ok(());
    }
    let of = |hash: &Hash| documents.get(hash).ok_or(RenewalError::NoDocument(*hash));
    let (before, after) = (of(before)?, of(after)?);
    match beyond_renewal(&before.document, &after.document).first() {
        None => Ok(()),
        Some(c) => {
            let place = c.clause.as_ref().map_or_else(String::new, |id| format!("clause {id}: "));
            Err(RenewalError::Beyond(format!("{place}{}", c.term)))
        }
    }
}

/// The terms that the newest renewal of a version replaced; none if it was never renewed.
#[must_use]
pub fn replaced(view: &AgreementView) -> Option<Hash> {
    view.approvals.iter().filter(|a| a.what == ApprovalKind::Renew).find_map(|a| {
        match cbor::decode::<Act>(&a.act).ok()?.body {
            // Others are gathered for a renewal that is only proposed.
            ActBody::Approve { terms_hash, prev_terms_hash, .. } if terms_hash == view.terms_hash => {
                Some(prev_terms_hash)
            }
            _ => None,
        }
    })
}

/// The terms that a version was activated with; none where the ledger does not tell.
///
/// Its approvals are those of the newest change, and each names the revision that it saw. A version proposed once is active
/// at revision 2. So a renewal at 2 is the first one, and one resumed at 3 was suspended once and never renewed. Later ones
/// may follow others that left no trace.
#[must_use]
pub fn activated(view: &AgreementView) -> Option<Hash> {
    let act = |bytes: &[u8]| match cbor::decode::<Act>(bytes).ok()?.body {
        ActBody::Approve { what, revision, prev_terms_hash, .. } => Some((what, revision, prev_terms_hash)),
        _ => None,
    };
    // No version is active without approvals. Those of the revision that the version has now are of a mere proposal.
    let Some(first) = view.approvals.first() else { return Some(view.terms_hash) };
    match act(&first.act)? {
        (_, revision, _) if revision >= view.revision => None,
        (ApprovalKind::Activate, ..) | (ApprovalKind::Resume, 3, _) => Some(view.terms_hash),
        (ApprovalKind::Renew, 2, before) => Some(before),
        _ => None,
    }
}

/// The terms that an executor enforces of each version it has seen active: those that were activated, or what renewals of
/// dates made of them.
pub type Enforced = BTreeMap<(AgreementId, u64), Hash>;

/// The terms to enforce of an active version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Hash of the terms.
    pub terms_hash: Hash,
    /// Why they are not the newest ones.
    pub refused: Option<RenewalError>,
}

/// Chooses the terms to enforce of an active version, where `known` are the ones enforced until now. Without a document, or
/// where nothing is known and the ledger does not tell either, nobody can say what was changed, so nothing is permitted.
#[must_use]
pub fn choose(known: Option<&Hash>, view: &AgreementView, documents: &Documents) -> Chosen {
    let newest = view.terms_hash;
    let Some(before) = known.copied().or_else(|| activated(view)) else {
        return Chosen { terms_hash: newest, refused: Some(RenewalError::Unknown) };
    };
    match compare(&before, &newest, documents) {
        Ok(()) => Chosen { terms_hash: newest, refused: None },
        Err(e) => Chosen { terms_hash: before, refused: Some(e) },
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("executor/enforced.json")
}

/// Reads what a node's executor enforced last; nothing where it never ran.
///
/// # Errors
/// The file cannot be read, or is none of ours.
pub fn load(dir: &Path) -> std::io::Result<Enforced> {
    let text = match std::fs::read(file(dir)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Enforced::new()),
        Err(e) => return Err(e),
    };
    let damaged = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("enforced.json: {what}"));
    let kept: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(|e| damaged(&e.to_string()))?;
    let read = |(name, hash): (&String, &String)| {
        let (agreement, version) = name.rsplit_once('/')?;
        let hash: Hash = hex::decode(hash).ok()?.try_into().ok()?;
        Some(((AgreementId::new(agreement).ok()?, version.parse().ok()?), hash))
    };
    kept.iter().map(|entry| read(entry).ok_or_else(|| damaged(entry.0))).collect()
}

/// Keeps what is enforced, durably, while this process is the executor at work: what another keeps is not undone.
///
/// # Errors
/// The file cannot be written, or the lease is over.
pub fn save(dir: &Path, enforced: &Enforced, lead: &Lead) -> std::io::Result<()> {
    let kept: BTreeMap<String, String> = enforced
        .iter()
        .map(|((agreement, version), hash)| (format!("{agreement}/{version}"), hex::encode(hash)))
        .collect();
    let (path, new) = (file(dir), file(dir).with_extension(format!("json.{}", std::process::id())));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut out = File::create(&new)?;
    out.write_all(&serde_json::to_vec_pretty(&kept)?)?;
    out.sync_all()?;
    if !lead.holds() {
        // It is only litter.
        let _ = std::fs::remove_file(&new);
        return Err(std::io::Error::other("the executor's lease is over"));
    }
    std::fs::rename(&new, &path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Whether a signed act of a renewal may go to the ledger; acts of another kind may. `current`: the terms in force of the
/// version that it names.
///
/// # Errors
/// A document is missing, or more changes than dates and papers.
pub fn admit(
    act: &Act,
    current: impl FnOnce(&AgreementId, u64) -> Option<Hash>,
    documents: &Documents,
) -> Result<(), RenewalError> {
    match &act.body {
        ActBody::Renew { terms, .. } => {
            // What is no terms at all is refused by the ledger.
            let Ok(new) = cbor::decode::<concordat_protocol::terms::Terms>(terms) else { return Ok(()) };
            match current(&new.agreement, new.version) {
                Some(before) => compare(&before, &new.hash(), documents),
                None => Ok(()),
            }
        }
        ActBody::Approve { what: ApprovalKind::Renew, terms_hash, prev_terms_hash, .. } => {
            compare(prev_terms_hash, terms_hash, documents)
        }
        _ => Ok(()),
    }
}

/// Says that a renewal is not applied.
pub(super) fn tell(view: &AgreementView, e: &RenewalError) {
    let (agreement, version) = (&view.agreement, view.version);
    warn!(%agreement, version, code = e.code(), error = %e, "the renewal is not applied");
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
