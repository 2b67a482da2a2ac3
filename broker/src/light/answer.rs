//! Answers to the agency's own processes: what the host says, held against the newest block that is believed.
//!
//! Some answers cannot be proven and need not be: the counter of a key (a wrong one makes an act that the ledger refuses),
//! reviews that are due (the ledger refuses an override by itself, and a hosted provider releases none before its record),
//! how many runs there are, the application's version.

use super::proofs::{self, List, fail};
use super::tip::Tip;
use super::{Light, LightError};
use concordat_protocol::canon_struct;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::evidence::StateLeaves;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, DatasetId, WriterId};
use concordat_protocol::keys::KeyId;
use concordat_protocol::limits::PROOFS_MAX;
use concordat_protocol::node::{
    AgreementView, DatasetView, EntryProof, HeadView, KeyView, LeafProof, NodeReply, NodeRequest, RoleMapView,
    SessionLeaf, SessionView, StoreRoots, WriterView, key_leaf_key, session_leaf_key,
};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::receipt::app_hash;
use concordat_protocol::runs::{RunProof, run_key};
use std::time::{Duration, Instant};
use tracing::warn;

/// How long something may take to come under a header.
const COMES_WITHIN: Duration = Duration::from_secs(8);

canon_struct! {
    /// An agency's leaf in `meta`.
    pub struct AgencyLeaf {
        /// Its number in history.
        pub number: u64,
        /// Approval roles it always needs.
        pub roles: Vec<String>,
        /// Its validator's key, empty when it has none.
        pub validator: Bytes,
        /// Its validator's power.
        pub power: u64,
        /// Its root key.
        pub root: KeyId,
        /// Its cosigning keys.
        pub cosign: Vec<KeyId>,
        /// Tick at which it was removed, 0 if it was not.
        pub removed_ms: u64,
    }
}

canon_struct! {
    /// A dataset's leaf in `meta`.
    pub struct DatasetLeaf {
        /// Its number in operations.
        pub number: u64,
        /// SHA-256 of its schema.
        pub schema_hash: Hash,
    }
}

/// An answer of another kind than was asked for.
fn strange(reply: &NodeReply) -> LightError {
    fail("reply", format!("it answers something else than was asked: {}", reply.kind_name())).into()
}

impl Light {
    /// Answers a question. What the newest proven block does not show yet is waited for, as long as a block may take.
    pub(super) async fn answer(&self, question: &NodeRequest) -> NodeReply {
        let (end, mut tips) = (Instant::now() + COMES_WITHIN, self.tips.clone());
        loop {
            let said = match self.tips.now() {
                Ok(tip) => self.try_answer(question, &tip).await,
                Err(e) => Err(e),
            };
            let e = match said {
                Ok(reply) => return reply,
                Err(e) => e,
            };
            let left = end.saturating_duration_since(Instant::now());
            if matches!(e, LightError::NotShown(_) | LightError::Stale(_)) || left.is_zero() {
                if matches!(e, LightError::Unproven(_)) {
                    warn!(question = question.kind_name(), code = e.code(), why = %e, "an answer of the host is not passed on");
                }
                return NodeReply::Error { code: e.wire(), detail: e.to_string() };
            }
            let _ = tokio::time::timeout(left.min(Duration::from_secs(1)), tips.changed()).await;
        }
    }

    async fn try_answer(&self, question: &NodeRequest, tip: &Tip) -> Result<NodeReply, LightError> {
        use NodeRequest as Q;
        Ok(match question {
            Q::Subscribe { .. } => return Err(LightError::NotShown("a subscription in a subscription")),
            Q::Head {} => NodeReply::Head { body: self.head(tip).await? },
            Q::Writer { writer } => NodeReply::Writer { body: self.writer(writer, tip).await? },
            Q::Session { .. } | Q::SessionByKey { .. } => {
                NodeReply::Session { body: self.session(question, tip).await? }
            }
            Q::Keys { agency } => {
                let mut keys = self.keys(tip).await?;
                keys.retain(|k| k.agency == *agency);
                NodeReply::Keys { body: keys }
            }
            Q::Key { key_id } => NodeReply::Keys { body: self.key(key_id, tip).await? },
            Q::Datasets {} => NodeReply::Datasets { body: self.datasets(tip).await? },
            Q::Agreements {} => NodeReply::Agreements { body: self.agreements(tip).await? },
            Q::Log { from, count } => NodeReply::Log { from: *from, entries: self.log(*from, *count, tip).await? },
            Q::Subscription { provider, subscription } => {
                let key = format!("subscription/{provider}/{subscription}");
                let found = self.heads(tip, vec![key.into_bytes()]).await?;
                // Absence cannot be proven there: one that is kept back looks like one that anchored nothing.
                let last_sub_seq = found.first().map_or(Ok(0), proofs::value)?;
                NodeReply::Subscription { last_sub_seq }
            }
            Q::Params {} => {
                let list = self.list(tip, "param/").await?;
                let pair = |(k, v): &(String, Bytes)| Ok::<_, LightError>((k["param/".len()..].to_owned(), read(v)?));
                NodeReply::Params { body: list.iter().map(pair).collect::<Result<_, _>>()? }
            }
            Q::Agencies {} => NodeReply::Agencies { body: self.agencies(tip).await? },
            Q::RoleMaps { agency } => {
                let list = self.list(tip, &format!("role-map/{agency}/")).await?;
                let body: Result<Vec<RoleMapView>, LightError> = list.iter().map(|(_, v)| read(v)).collect();
                NodeReply::RoleMaps { body: body? }
            }
            Q::Named { .. } => return Err(LightError::NotShown("which operations name its sessions")),
            Q::Disputes {} => return Err(LightError::NotShown("the list of disputes")),
            Q::Counters { .. } | Q::Runs {} | Q::Reviews {} | Q::Epochs {} => self.same_kind(question).await?,
            Q::Proof { .. }
            | Q::Proofs { .. }
            | Q::Run { .. }
            | Q::Leaves { .. }
            | Q::StateLeaves { .. }
            | Q::MetaList { .. }
            | Q::Checkpoints { .. } => self.proof(question, tip).await?,
        })
    }

    /// What the host says, if it is of the kind that was asked for.
    async fn same_kind(&self, question: &NodeRequest) -> Result<NodeReply, LightError> {
        let reply = self.host.ask(question).await?;
        if reply.kind() == question.kind() { Ok(reply) } else { Err(strange(&reply)) }
    }

    /// The complete list under a prefix of `meta`.
    async fn list(&self, tip: &Tip, prefix: &str) -> Result<List, LightError> {
        let question = NodeRequest::MetaList { height: tip.height, prefix: prefix.as_bytes().to_vec().into() };
        match self.host.ask(&question).await? {
            NodeReply::MetaList { body } => Ok(proofs::list(&body, prefix, &tip.roots.meta)?),
            other => Err(strange(&other)),
        }
    }

    /// Leaves of `heads` by key, those that there are.
    async fn heads(&self, tip: &Tip, keys: Vec<Vec<u8>>) -> Result<Vec<LeafProof>, LightError> {
        let heads = keys.iter().map(|k| k.clone().into()).collect();
        let question = NodeRequest::StateLeaves { height: tip.height, meta: vec![], heads };
        let NodeReply::StateLeaves { body: StateLeaves { heads, .. } } = self.host.ask(&question).await? else {
            return Err(fail("reply", "it tells no leaves").into());
        };
        for leaf in &heads {
            if !keys.contains(&leaf.key.0) {
                return Err(fail("leaf", "a leaf that nobody asked for").into());
            }
            proofs::leaf(leaf, &leaf.key, &tip.roots.heads)?;
        }
        Ok(heads)
    }

    async fn head(&self, tip: &Tip) -> Result<HeadView, LightError> {
        let NodeReply::Head { body } = self.same_kind(&NodeRequest::Head {}).await? else {
            return Err(fail("reply", "it tells no head").into());
        };
        Ok(HeadView {
            chain: self.cfg.chain.clone(),
            height: tip.height,
            tick_ms: tip.tick_ms,
            app_hash: tip.app_hash,
            log_size: self.log_size(tip).await?,
            meta_rev: tip.meta_rev,
            app_version: body.app_version,
        })
    }

    /// How many entries the log has: its last one has nothing on its right.
    async fn log_size(&self, tip: &Tip) -> Result<u64, LightError> {
        let first = self.log_proofs(tip, vec![0]).await?;
        let size = first.first().map_or(0, |leaf| leaf.size);
        let Some(last) = size.checked_sub(1) else { return Err(fail("log_size", "the log is empty").into()) };
        let proof = self.log_proofs(tip, vec![last]).await?;
        let proof = proof.first().ok_or_else(|| fail("log_size", "no proof of the last entry"))?;
        proofs::last_entry(proof, last, &tip.roots.log)?;
        Ok(size)
    }

    /// Paths of entries at the newest block, not checked yet.
    async fn log_proofs(&self, tip: &Tip, indexes: Vec<u64>) -> Result<Vec<LeafProof>, LightError> {
        match self.host.ask(&NodeRequest::Proofs { height: tip.height, indexes }).await? {
            NodeReply::Proofs { body } => Ok(body.entries),
            other => Err(strange(&other)),
        }
    }

    /// Requires that entries stand in the log of the newest block.
    pub(super) async fn in_log(&self, tip: &Tip, entries: &[(u64, LogEntry)]) -> Result<(), LightError> {
        for part in entries.chunks(PROOFS_MAX) {
            let found = self.log_proofs(tip, part.iter().map(|(index, _)| *index).collect()).await?;
            proofs::entries(part, &found, &tip.roots.log)?;
        }
        Ok(())
    }

    async fn log(&self, from: u64, count: u64, tip: &Tip) -> Result<Vec<LogEntry>, LightError> {
        let size = self.log_size(tip).await?;
        let count = count.min(size.saturating_sub(from));
        if count == 0 {
            return Ok(vec![]);
        }
        let NodeReply::Log { entries, .. } = self.same_kind(&NodeRequest::Log { from, count }).await? else {
            return Err(fail("reply", "it tells no entries").into());
        };
        if entries.len() as u64 != count {
            return Err(fail("log", "entries are left out").into());
        }
        let numbered: Vec<(u64, LogEntry)> = (from..).zip(entries).collect();
        self.in_log(tip, &numbered).await?;
        Ok(numbered.into_iter().map(|(_, e)| e).collect())
    }

    async fn writer(&self, writer: &WriterId, tip: &Tip) -> Result<Option<WriterView>, LightError> {
        let found = self.heads(tip, vec![format!("writer/{writer}").into_bytes()]).await?;
        let Some(leaf) = found.first() else { return Ok(None) };
        let ((key_id, incarnation), (last_seq, last_hash)): ((KeyId, u64), (u64, Hash)) = proofs::value(leaf)?;
        let key = self.key(&key_id, tip).await?.into_iter().next();
        let key = key.ok_or_else(|| fail("writer", format!("{writer} has a key that is not registered")))?;
        let key = key.key.ed25519.0.as_slice().try_into().unwrap_or_default();
        Ok(Some(WriterView { writer: writer.clone(), key, incarnation, last_seq, last_hash }))
    }

    /// A session as the host tells it, if its leaf says the same. One that is new comes under the next header.
    async fn session(&self, question: &NodeRequest, tip: &Tip) -> Result<Option<SessionView>, LightError> {
        let reply = self.host.ask(question).await?;
        let NodeReply::Session { body } = reply else { return Err(strange(&reply)) };
        let Some(view) = body else { return Ok(None) };
        let found = self.heads(tip, vec![session_leaf_key(view.session)]).await?;
        let leaf = found.first().ok_or_else(|| LightError::NotYet(format!("session {}", view.session)))?;
        let SessionLeaf { consumer, provider, key, expires_ms, newest_n, .. } = proofs::value(leaf)?;
        let proven = SessionView { session: view.session, consumer, provider, key, expires_ms, newest_n };
        let asked = match question {
            NodeRequest::Session { session } => *session == proven.session,
            NodeRequest::SessionByKey { key } => *key == proven.key,
            _ => false,
        };
        if !asked {
            return Err(fail("session", format!("session {} is not the one asked for", proven.session)).into());
        }
        Ok(Some(proven))
    }

    async fn keys(&self, tip: &Tip) -> Result<Vec<KeyView>, LightError> {
        self.list(tip, "key/").await?.iter().map(|(_, value)| read(value)).collect()
    }

    async fn key(&self, id: &KeyId, tip: &Tip) -> Result<Vec<KeyView>, LightError> {
        let name = String::from_utf8(key_leaf_key(id)).unwrap_or_default();
        let list = self.list(tip, &name).await?;
        let keys: Vec<KeyView> = list.iter().map(|(_, value)| read(value)).collect::<Result<_, _>>()?;
        Ok(keys.into_iter().filter(|k| k.key.key_id() == *id).collect())
    }

    async fn datasets(&self, tip: &Tip) -> Result<Vec<DatasetView>, LightError> {
        let mut views = Vec::new();
        for (key, value) in self.list(tip, "dataset/").await? {
            let id = DatasetId::new(&key["dataset/".len()..]).map_err(|e| fail("dataset", e.to_string()))?;
            let DatasetLeaf { number, schema_hash } = read(&value)?;
            views.push(DatasetView { id, number, schema_hash, head: 0 });
        }
        let wanted = views.iter().map(|v| format!("dataset/{}", v.number).into_bytes()).collect();
        for leaf in self.heads(tip, wanted).await? {
            let head = proofs::value(&leaf)?;
            let of = |v: &&mut DatasetView| format!("dataset/{}", v.number).as_bytes() == leaf.key.0;
            if let Some(view) = views.iter_mut().find(of) {
                view.head = head;
            }
        }
        Ok(views)
    }

    async fn agreements(&self, tip: &Tip) -> Result<Vec<AgreementView>, LightError> {
        let list = self.list(tip, "agreement/").await?;
        let NodeReply::Agreements { body } = self.same_kind(&NodeRequest::Agreements {}).await? else {
            return Err(fail("reply", "it tells no agreements").into());
        };
        proofs::agreements(&body, &list)?;
        Ok(body)
    }

    async fn agencies(&self, tip: &Tip) -> Result<Vec<AgencyId>, LightError> {
        let mut members = Vec::new();
        for (key, value) in self.list(tip, "agency/").await? {
            if read::<AgencyLeaf>(&value)?.removed_ms == 0 {
                members.push(AgencyId::new(&key["agency/".len()..]).map_err(|e| fail("agency", e.to_string()))?);
            }
        }
        Ok(members)
    }

    /// Proofs at a height: the same, at the newest block where none is named, once a header carries their roots and every
    /// path leads to them.
    async fn proof(&self, question: &NodeRequest, tip: &Tip) -> Result<NodeReply, LightError> {
        let question = at_tip(question, tip.height);
        let reply = self.same_kind(&question).await?;
        match &reply {
            NodeReply::Proof { body } => {
                self.rooted(body.height, &body.roots, tip).await?;
                entry_proof(body)?;
            }
            NodeReply::Proofs { body } => {
                self.rooted(body.height, &body.roots, tip).await?;
                leaves(&body.entries, &body.roots.log)?;
            }
            NodeReply::Leaves { body } => {
                self.rooted(body.height, &body.roots, tip).await?;
                leaves(&body.keys, &body.roots.meta)?;
                leaves(&body.sessions, &body.roots.heads)?;
            }
            NodeReply::StateLeaves { body } => {
                self.rooted(body.height, &body.roots, tip).await?;
                leaves(&body.meta, &body.roots.meta)?;
                leaves(&body.heads, &body.roots.heads)?;
            }
            NodeReply::MetaList { body } => {
                self.rooted(body.height, &body.roots, tip).await?;
                let NodeRequest::MetaList { prefix, .. } = &question else { return Err(strange(&reply)) };
                proofs::list(body, &String::from_utf8_lossy(prefix), &body.roots.meta)?;
            }
            NodeReply::Run { body } => {
                self.rooted(body.height, &body.roots, tip).await?;
                run(body, &question)?;
            }
            NodeReply::Checkpoints { body } => {
                for view in body {
                    self.rooted(view.checkpoint.height, &view.checkpoint.roots, tip).await?;
                }
            }
            other => return Err(strange(other)),
        }
        Ok(reply)
    }

    /// A header carries these roots.
    async fn rooted(&self, height: u64, roots: &StoreRoots, tip: &Tip) -> Result<(), LightError> {
        if height > tip.height {
            return Err(LightError::NotYet(format!("block {height}")));
        }
        if height == tip.height && app_hash(roots) == tip.app_hash {
            return Ok(());
        }
        self.host.proves(height, roots).await
    }
}

/// The question with the newest proven height in place of "the newest".
fn at_tip(question: &NodeRequest, tip: u64) -> NodeRequest {
    use NodeRequest as Q;
    let mut question = question.clone();
    match &mut question {
        Q::Proof { height, .. }
        | Q::Proofs { height, .. }
        | Q::Run { height, .. }
        | Q::Leaves { height, .. }
        | Q::StateLeaves { height, .. }
        | Q::MetaList { height, .. }
            if *height == 0 =>
        {
            *height = tip;
        }
        _ => {}
    }
    question
}

fn read<T: cbor::Canon>(value: &Bytes) -> Result<T, LightError> {
    Ok(cbor::decode(value).map_err(|e| fail("leaf", e.to_string()))?)
}

fn leaves(list: &[LeafProof], root: &Hash) -> Result<(), LightError> {
    list.iter().try_for_each(|l| Ok(proofs::leaf(l, &l.key, root)?))
}

fn entry_proof(body: &EntryProof) -> Result<(), LightError> {
    proofs::leaf(&body.entry, &body.entry.key, &body.roots.log)?;
    leaves(&body.keys, &body.roots.meta)?;
    leaves(body.session.as_slice(), &body.roots.heads)
}

/// A run's leaf; its list is checked by whoever holds it.
fn run(body: &RunProof, question: &NodeRequest) -> Result<(), LightError> {
    let NodeRequest::Run { number, .. } = question else { return Err(fail("run", "nobody asked for a run").into()) };
    Ok(proofs::leaf(&body.run, &run_key(*number), &body.roots.runs)?)
}
