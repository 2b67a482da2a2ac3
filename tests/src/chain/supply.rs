//! Operations the ledger accepts, signed before the clock starts: queries under an active agreement, each with a tag.

use super::failed::BenchError;
use super::{Agency, Network, ROLE, generate};
use concordat_broker::ledger::acts::sign_and_submit;
use concordat_broker::ledger::rpc::CometRpc;
use concordat_protocol::acts::{ActBody, ApprovalKind, SessionKey};
use concordat_protocol::cbor::{self, Canon};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::{AgreementId, DatasetId, WriterId};
use concordat_protocol::keys::{SigningKey, Statement, Suite};
use concordat_protocol::ops::{Batch, Op, Tag, Tags, Tx, batch_hash};
use concordat_protocol::terms::{Action, ClauseTerms, Effect, Evidence, Terms};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_MS: u64 = 86_400_000;
/// The tag of a subject that 1,000 operations of one writer touch, within the ledger's first subject run.
pub const LISTED_TAG: Tag = [7; 16];
/// Every so many operations of the first writer touch that subject.
const LISTED_EVERY: u64 = 50;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What a writer needs to sign queries.
pub struct Licence {
    /// The agency's place in the network.
    pub agency: usize,
    /// The writer's place in the agency.
    pub writer: usize,
    handle: u64,
    session: u64,
}

/// A signed batch, ready to be sent.
pub struct Ready {
    /// The transaction.
    pub tx: Vec<u8>,
    /// Sequence number of its last operation.
    pub last_seq: u64,
}

/// Signed batches of one writer.
pub struct Supply {
    /// Who writes.
    pub writer: WriterId,
    /// The agency's place in the network.
    pub agency: usize,
    /// The batches, in order.
    pub batches: Vec<Ready>,
}

/// Agreements and sessions for every agency with writers: each provides to the next one. Returns a licence a writer.
pub async fn licence(network: &Network) -> Result<Vec<Licence>, BenchError> {
    let mut licences = Vec::new();
    let count = network.agencies.len();
    for provider in (0..count).filter(|i| !network.agencies[*i].writers.is_empty()) {
        let consumer = (provider + 1) % count;
        let (p, c) = (&network.agencies[provider], &network.agencies[consumer]);
        let terms = terms(provider, p, c)?;
        let schema_hash = sha256(&[b"bench"]);
        act(network, provider, &p.gateway, ActBody::Dataset { id: terms.dataset.clone(), schema_hash }).await?;
        let expires_ms = now_ms() + DAY_MS;
        let propose = ActBody::Propose { terms: cbor::encode(&terms).into(), expires_ms };
        act(network, provider, &p.gateway, propose).await?;
        for side in [provider, consumer] {
            let found = agreement(network, provider, &terms.agreement).await?;
            let body = ActBody::Approve {
                agreement: terms.agreement.clone(),
                version: 1,
                revision: found.revision,
                what: ApprovalKind::Activate,
                terms_hash: terms.hash(),
                prev_terms_hash: [0; 32],
                role: ROLE.into(),
                expires_ms,
            };
            act(network, side, &network.agencies[side].legal, body).await?;
        }
        let handle = until(|| async {
            let found = agreement(network, provider, &terms.agreement).await?;
            Ok(found.handles.first().copied())
        });
        let handle = handle.await?;
        for (writer, session) in sessions(network, provider, consumer).await?.into_iter().enumerate() {
            licences.push(Licence { agency: provider, writer, handle, session });
        }
    }
    Ok(licences)
}

/// Waits for what another agency's node has shown already: this one may be a block behind.
async fn until<T, F: Future<Output = Result<Option<T>, BenchError>>>(look: impl Fn() -> F) -> Result<T, BenchError> {
    for _ in 0..500 {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(BenchError::Late { what: "an act of another agency at the provider's node".into(), seconds: 10 })
}

async fn act(network: &Network, agency: usize, key: &SigningKey, body: ActBody) -> Result<(), BenchError> {
    let node = network.node_of(agency);
    let id = &network.agencies[agency].id;
    sign_and_submit(&node.client, &CometRpc::new(&node.rpc)?, &network.chain, id, key, body).await?;
    Ok(())
}

async fn agreement(
    network: &Network,
    agency: usize,
    id: &AgreementId,
) -> Result<concordat_protocol::node::AgreementView, BenchError> {
    let all = network.node_of(agency).client.agreements().await?;
    all.into_iter().find(|a| a.agreement == *id).ok_or_else(|| BenchError::refused("the agreement", "it is not there"))
}

/// One session a writer, opened in one act.
async fn sessions(network: &Network, provider: usize, consumer: usize) -> Result<Vec<u64>, BenchError> {
    let (p, c) = (&network.agencies[provider], &network.agencies[consumer]);
    let mut keys = Vec::new();
    for _ in &p.writers {
        let key = generate(Suite::Ed25519)?;
        let point: Result<[u8; 32], _> = key.public().ed25519.0.as_slice().try_into();
        keys.push(SessionKey { key: point.map_err(|e| BenchError::refused("a session's key", e))? });
    }
    let body = ActBody::SessionOpen { provider: p.id.clone(), keys: keys.clone(), expires_ms: now_ms() + DAY_MS / 2 };
    act(network, consumer, &c.gateway, body).await?;
    let mut numbers = Vec::new();
    for key in keys {
        let node = &network.node_of(provider).client;
        let session = until(|| async { Ok(node.session_by_key(key.key).await?.map(|view| view.session)) });
        numbers.push(session.await?);
    }
    Ok(numbers)
}

fn terms(number: usize, provider: &Agency, consumer: &Agency) -> Result<Terms, BenchError> {
    let bad = |e: &dyn std::fmt::Display| BenchError::refused("the benchmark's terms", e);
    let clause = ClauseTerms {
        id: "C1".into(),
        effect: Effect::Permit,
        actions: Action::Query.bit(),
        purpose: [5; 32],
        evidence: Evidence::Strict {},
        from_ms: 0,
        until_ms: now_ms() + 30 * DAY_MS,
        quota: None,
        review_ms: 0,
    };

    Ok(Terms {
        agreement: AgreementId::new(format!("AGR-2026-{number:04}")).map_err(|e| bad(&e))?,
        version: 1,
        assigner: provider.id.clone(),
        assignee: Some(consumer.id.clone()),
        dataset: DatasetId::new(format!("ds:{}/bench@1", provider.id)).map_err(|e| bad(&e))?,
        assigner_roles: vec![ROLE.into()],
        assignee_roles: vec![ROLE.into()],
        clauses: vec![clause],
        yaml_hash: [1; 32],
        rows_hash: [2; 32],
        text_hash: [3; 32],
        paper_hashes: Vec::new(),
        compiler_version: 1,
    })
}

/// How much to sign for each writer.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Batches a writer.
    pub batches: usize,
    /// Bytes of operations a batch, or one operation where it is 0.
    pub bytes: usize,
}

/// Signs batches of the given licences, several writers at a time.
pub fn sign(network: &Network, licences: &[Licence], amount: Amount) -> Result<Vec<Supply>, BenchError> {
    let day = now_ms() / DAY_MS;
    std::thread::scope(|scope| {
        let signers: Vec<_> = licences
            .iter()
            .map(|l| {
                let (writer, key) = &network.agencies[l.agency].writers[l.writer];
                let chain = network.chain.as_str();
                scope.spawn(move || -> Result<Supply, BenchError> {
                    let batches = sign_all(chain, writer, key, l, day, amount)?;
                    Ok(Supply { writer: writer.clone(), agency: l.agency, batches })
                })
            })
            .collect();
        let panicked = |_| BenchError::refused("signing", "a signer panicked");
        signers.into_iter().map(|s| s.join().map_err(panicked)?).collect()
    })
}

fn sign_all(
    chain: &str,
    writer: &WriterId,
    key: &SigningKey,
    licence: &Licence,
    day: u64,
    amount: Amount,
) -> Result<Vec<Ready>, BenchError> {
    let (mut next, mut prev): (u64, Hash) = (1, [0; 32]);
    let mut out = Vec::with_capacity(amount.batches);
    for _ in 0..amount.batches {
        let (mut ops, mut bytes) = (Vec::new(), 0);
        loop {
            let n = next + ops.len() as u64;
            let commitment = sha256(&[writer.as_str().as_bytes(), &n.to_be_bytes()]);
            let mut tag = [0; 16];
            tag.copy_from_slice(&commitment[16..]);
            if licence.writer == 0 && n.is_multiple_of(LISTED_EVERY) && n <= 1_000 * LISTED_EVERY {
                tag = LISTED_TAG;
            }
            let tags = Tags::List(vec![tag]);
            let op = Op::Query { handle: licence.handle, session: licence.session, n, day, tags, commitment };
            bytes += size(&op);
            if bytes > amount.bytes && !ops.is_empty() {
                break;
            }
            ops.push(op);
        }
        let count = ops.len() as u64;
        let batch =
            Batch { chain: chain.to_owned(), writer: writer.clone(), incarnation: 1, first_seq: next, prev, ops };
        let body = cbor::encode(&batch);
        let refused = |why: String| BenchError::refused("signing a batch", why);
        let signature = key.try_sign(Statement::TxBatch, chain, &body).map_err(|e| refused(e.to_string()))?;
        let signature: [u8; 64] = signature.ed25519.0.try_into().map_err(|_| refused("no Ed25519 signature".into()))?;
        prev = batch_hash(&body);
        next += count;
        out.push(Ready { tx: cbor::encode(&Tx::Batch { body: body.into(), signature }), last_seq: next - 1 });
    }
    Ok(out)
}

/// Bytes of an operation as it is supplied, with one tag.
pub fn operation_bytes() -> usize {
    let tags = Tags::List(vec![LISTED_TAG]);
    size(&Op::Query { handle: 1, session: 1, n: 50_000, day: 20_000, tags, commitment: [1; 32] })
}

fn size<T: Canon>(value: &T) -> usize {
    cbor::encode(value).len()
}
