//! A provider without a node of its own: every release rests on a proof (`docs/adr/0029`), and what cannot rest on one is
//! refused.
//!
//! What the light client passes on is proven already. This is the second look, by the executor itself and at the last moment:
//! the provider's own record of what it stored, its own clock, and a header that is not older than one believed before.

use crate::config::NodeConfig;
use crate::evidence::TrustKeeper;
use crate::host::HostError;
use crate::host::policy::Policies;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::light::proofs::agreement_key;
use crate::light::seen::Seen;
use crate::light::{LightError, clock_ms};
use concordat_executor::decide::denied;
use concordat_executor::policies::ask::Grant;
use concordat_executor::step::Mode;
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgreementId;
use concordat_protocol::limits::RELEASE_WITHIN_MS;
use concordat_protocol::node::{LeafProof, NodeReply, NodeRequest};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::receipt::Path;
use concordat_protocol::session::Denied;
use concordat_protocol::tree::TreeError;
use concordat_protocol::verify::Invalid;
use concordat_protocol::verify::hosted::{Handed, Stored, may_release};
use std::time::Duration;
use tracing::{error, warn};

/// The highest header by which something was released, in the node's folder.
const BELIEVED_FILE: &str = "executor/believed.json";
/// How long to wait before a proof is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// The terms by which a response was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The agreement.
    pub agreement: AgreementId,
    /// Its version.
    pub version: u64,
    /// Hash of its terms.
    pub terms_hash: Hash,
}

impl Agreed {
    /// The terms behind a handle, as these policies have them.
    pub(super) fn of(policies: &Policies, handle: u64) -> Option<Self> {
        let mut all = policies.versions();
        let ((agreement, version), found) = all.find(|(_, v)| v.handles.contains(&handle))?;
        Some(Self { agreement: agreement.clone(), version: *version, terms_hash: found.terms.hash() })
    }
}

/// What becomes of an accepted response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It may leave.
    Release,
    /// It is withheld for ever, for the reason of this code.
    Withhold(u16),
    /// What was handed over is wrong or too old: it is asked for again.
    Again,
}

/// What follows from the answer of [`may_release`].
fn judge<T>(proven: &Result<T, Invalid>, entry_ms: u64, now_ms: u64) -> Said {
    match proven {
        Ok(_) => Said::Release,
        Err(e) if e.check == "late" => Said::Withhold(codes::BUSY),
        Err(e) if e.check == "agreement" => Said::Withhold(codes::NO_AGREEMENT),
        Err(_) => overdue(entry_ms, now_ms),
    }
}

/// Nothing that came so late is released, whatever may be proven of it later.
fn overdue(entry_ms: u64, now_ms: u64) -> Said {
    if now_ms.abs_diff(entry_ms) > RELEASE_WITHIN_MS { Said::Withhold(codes::BUSY) } else { Said::Again }
}

/// The last look before a release at a hosted provider.
pub struct Gate {
    writer: String,
    node: NodeClient,
    rpc: CometRpc,
    trust: TrustKeeper,
    seen: Seen,
}

impl Gate {
    /// The gate of a hosted provider; none of one with a node of its own.
    ///
    /// # Errors
    /// What was believed before cannot be read.
    pub fn of(cfg: &NodeConfig) -> Result<Option<Self>, HostError> {
        if cfg.hosted.is_none() {
            return Ok(None);
        }
        let node = NodeClient::new(cfg.node_socket());
        let path = cfg.path(BELIEVED_FILE);
        let seen = Seen::open(&path).map_err(|e| HostError::Believed(format!("{}: {e}", path.display())))?;
        let trust = TrustKeeper::new(node.clone(), cfg.genesis());
        let rpc = CometRpc::new(&cfg.rpc()?)?;
        Ok(Some(Self { writer: format!("{}/executor", cfg.agency), node, rpc, trust, seen }))
    }

    /// Whether an accepted response may leave; waits for a proof as long as one can still be in time. The header is kept
    /// before this says so.
    pub(super) async fn may(
        &mut self,
        agreed: Option<&Agreed>,
        (index, entry): (u64, &LogEntry),
    ) -> Result<Said, HostError> {
        let Some(agreed) = agreed.filter(|_| entry.verdict == Verdict::Accepted) else {
            return Ok(Said::Withhold(codes::NO_AGREEMENT));
        };
        loop {
            let (said, why) = match self.look(agreed, (index, entry)).await {
                Ok(proven) => {
                    let said = judge(&proven, entry.tick_ms, clock_ms());
                    if let Ok(block) = &proven {
                        let kept = tokio::task::block_in_place(|| self.seen.keep(block.height));
                        kept.map_err(|e| HostError::Believed(format!("{BELIEVED_FILE}: {e}")))?;
                    }
                    (said, proven.err().map(|e| e.to_string()).unwrap_or_default())
                }
                Err(e) => (overdue(entry.tick_ms, clock_ms()), e.to_string()),
            };
            match said {
                Said::Again => warn!(op = index, why, "no proof yet that this response may leave"),
                Said::Withhold(code) => {
                    error!(op = index, code, why, "this response is withheld for ever");
                    return Ok(said);
                }
                Said::Release => return Ok(said),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What is handed over, and whether it permits the release.
    async fn look(
        &self,
        agreed: &Agreed,
        (index, entry): (u64, &LogEntry),
    ) -> Result<Result<concordat_protocol::verify::ProvenBlock, Invalid>, LightError> {
        let proof = self.node.proof(index, 0, vec![], 0).await?;
        let key = agreement_key(&agreed.agreement, agreed.version).into_bytes();
        let question = NodeRequest::StateLeaves { height: proof.height, meta: vec![key.into()], heads: vec![] };
        let leaf = match self.node.ask(&question).await? {
            NodeReply::StateLeaves { body } => body.meta.into_iter().next(),
            _ => None,
        };
        let bad = |check: &'static str, sentence: String| LightError::Unproven(Invalid { check, sentence });
        let leaf = leaf.ok_or_else(|| bad("agreement", "the agreement's leaf is not handed over".into()))?;
        let path =
            |l: &LeafProof| Path::of(l.index, l.size, &l.path).map_err(|e: TreeError| bad("path", e.to_string()));
        let packed = self.rpc.packed::<LightError>(proof.height + 1).await?;
        let trust = self.trust.now().await.map_err(|e| bad("trust", e.to_string()))?;
        let stored = Stored {
            writer: self.writer.clone(),
            // The entry was found by the hash of the operation that was stored with the response.
            op_hash: entry.op_hash,
            agreement: agreed.agreement.clone(),
            version: agreed.version,
            terms_hash: agreed.terms_hash,
            seen_height: self.seen.height(),
        };
        let handed = Handed {
            header: packed.header,
            validators: packed.validators,
            roots: proof.roots,
            index,
            entry: cbor::decode(&proof.entry.value).map_err(|e| bad("entry", e.to_string()))?,
            log_path: path(&proof.entry)?,
            agreement_path: path(&leaf)?,
            agreement: leaf.value,
        };
        Ok(may_release(&trust, &stored, &handed, clock_ms(), RELEASE_WITHIN_MS))
    }
}

fn refused(what: &str) -> Denied {
    let detail = format!("this provider has no node of its own: {what}");
    denied(codes::NOT_ENABLED, "hosted-provider", detail)
}

/// The denial of a release before its record: whether the record comes in time is the host's to decide.
pub(super) fn refuse_promise(cfg: &NodeConfig, grant: &Grant, clock_ms: u64) -> Option<Denied> {
    let promised = matches!(super::bounded::mode(grant, clock_ms), Mode::Bounded { .. });
    (cfg.hosted.is_some() && promised).then(|| refused("it promises no record in time, agree on strict evidence"))
}

/// The denial of a write: only releases are held against proofs yet.
pub(super) fn refuse_write(cfg: &NodeConfig) -> Option<Denied> {
    cfg.hosted.as_ref().map(|_| refused("its records are not written by others"))
}

/// The denial of a subscription: what it delivers is promised, not recorded first.
pub(super) fn refuse_feed(cfg: &NodeConfig) -> Option<Denied> {
    cfg.hosted.as_ref().map(|_| refused("it delivers no feeds, query its records"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_proof_releases_and_what_is_too_late_is_withheld_whatever_is_wrong_with_it() {
        let said = |check: &'static str, now_ms: u64| {
            judge::<()>(&Err(Invalid { check, sentence: String::new() }), 100_000, now_ms)
        };
        assert_eq!(judge(&Ok(()), 100_000, 100_500), Said::Release);
        for check in ["header", "validators", "commit", "rollback", "app_hash", "entry", "log_path", "verdict", "trust"]
        {
            assert_eq!(said(check, 100_500), Said::Again, "{check}");
            assert_eq!(said(check, 110_001), Said::Withhold(codes::BUSY), "{check}");
            assert_eq!(said(check, 89_999), Said::Withhold(codes::BUSY), "{check}: a clock that is behind");
        }
        assert_eq!(said("late", 100_500), Said::Withhold(codes::BUSY));
        assert_eq!(said("agreement", 100_500), Said::Withhold(codes::NO_AGREEMENT));
    }
}
