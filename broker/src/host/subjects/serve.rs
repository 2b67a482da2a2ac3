//! Answers the agency's own broker about subjects, over a Unix socket of the node's folder, mode 0600.

use super::disclosures::{Disclosures, Kept};
use super::people::People;
use super::vault::Erasing;
use super::wire::{self, Ask, OpAsked, OpTold, Told};
use super::{EXECUTOR_SOCKET, SubjectId, SubjectsError};
use crate::config::NodeConfig;
use crate::host::feed::View;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::ledger::writer::Writer;
use concordat_executor::holding::Holding;
use concordat_executor::subjects::prove_bulk;
use concordat_protocol::access::subject_tag;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::leaves::{Redacted, commitment as leaf};
use concordat_protocol::ops::Op;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tracing::{info, warn};

/// How long to wait after a failed accept.
const RETRY: Duration = Duration::from_millis(500);

/// What questions about subjects need.
pub struct SubjectsSetup {
    /// The provider.
    pub agency: AgencyId,
    /// The own node, a connection of its own.
    pub node: NodeClient,
    /// The own CometBFT.
    pub rpc: CometRpc,
    /// The executor's writer.
    pub writer: Writer,
    /// The held records.
    pub holding: Arc<dyn Holding>,
}

/// Answers about subjects.
pub struct Subjects {
    pub(super) setup: SubjectsSetup,
    pub(super) people: People,
    disclosures: Mutex<Disclosures>,
    socket: PathBuf,
    /// One at a time: two erasures of one subject would count each other's operations.
    erasing: tokio::sync::Mutex<()>,
}

impl Subjects {
    /// Over stores that exist already.
    pub fn new(
        cfg: &NodeConfig,
        setup: SubjectsSetup,
        people: People,
        term: Option<u64>,
    ) -> Result<Self, SubjectsError> {
        let disclosures = Disclosures::open(&cfg.releases(), &cfg.path("executor/feeds.sqlite"))?.under(term)?;
        let disclosures = Mutex::new(disclosures);
        Ok(Self {
            setup,
            people,
            disclosures,
            socket: cfg.path(EXECUTOR_SOCKET),
            erasing: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn disclosures(&self) -> MutexGuard<'_, Disclosures> {
        self.disclosures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps that everything erased up to this height is forgotten here.
    pub fn erased_up_to(&self, height: u64) -> Result<(), SubjectsError> {
        Ok(self.disclosures().set_erased_up_to(height)?)
    }

    /// Serves in a task of its own for as long as the process runs.
    pub fn serve(self: Arc<Self>, view: watch::Receiver<View>) -> Result<(), SubjectsError> {
        let fail = |e: std::io::Error| SubjectsError::Io(format!("{}: {e}", self.socket.display()));
        if let Some(dir) = self.socket.parent() {
            std::fs::create_dir_all(dir).map_err(fail)?;
        }
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).map_err(fail)?;
        std::fs::set_permissions(&self.socket, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(self.clone().talk(stream, view.clone()))),
                    Err(e) => {
                        warn!(error = %e, "questions about subjects cannot be taken");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn talk(self: Arc<Self>, mut stream: UnixStream, view: watch::Receiver<View>) {
        let Ok(question) = wire::receive::<Ask>(&mut stream).await else { return };
        let tick_ms = view.borrow().tick_ms;
        let told = self.answer(question, tick_ms).await.unwrap_or_else(|e| {
            warn!(code = e.code(), error = %e, "a question about a subject is not answered");
            Told::Refused { code: e.code().to_owned(), detail: e.to_string() }
        });
        if let Err(e) = wire::send(&mut stream, &told).await {
            info!(error = %e, "the broker did not wait for the answer");
        }
    }

    fn text(&self, dataset: &DatasetId, subject: &str) -> Result<String, SubjectsError> {
        let field = self.people.field(dataset).ok_or_else(|| SubjectsError::NoSubjects(dataset.to_string()))?;
        field.read(subject).ok_or_else(|| SubjectsError::Value(field.name.clone()))
    }

    async fn answer(&self, question: Ask, tick_ms: u64) -> Result<Told, SubjectsError> {
        match question {
            Ask::Key { dataset, subject } => {
                let id = self.people.vault.id(&dataset, &self.text(&dataset, &subject)?);
                tokio::task::block_in_place(|| self.key(id))
            }
            Ask::Details { dataset, subject, ops } => {
                let id = self.people.vault.id(&dataset, &self.text(&dataset, &subject)?);
                let key = self.people.vault.standing(&id)?.key.unwrap_or_default();
                let tell = |asked: &OpAsked| self.detail(&dataset, &key, asked, tick_ms);
                let body = tokio::task::block_in_place(|| ops.iter().map(tell).collect::<Result<_, _>>())?;
                Ok(Told::Details { body })
            }
            Ask::Erase { dataset, subject, keep_records } => {
                let text = self.text(&dataset, &subject)?;
                let what = if keep_records == 1 { Erasing::Traces } else { Erasing::Records };
                let _one = self.erasing.lock().await;
                let (id, erased) = self.erase(&dataset, &text, what).await?;
                Ok(Told::Erased { id, operations: erased.operations, records: erased.records })
            }
        }
    }

    /// An erased subject without anything since has no key, and gets none by asking.
    fn key(&self, id: SubjectId) -> Result<Told, SubjectsError> {
        let standing = self.people.vault.standing(&id)?;
        let key = match standing.key {
            Some(key) => *key,
            None if standing.erased_ms > 0 => [0; 32],
            None => self.people.vault.keys(&[id])?.first().map_or([0; 32], |k| **k),
        };
        Ok(Told::Key { id, key, erased_ms: standing.erased_ms })
    }

    fn detail(
        &self,
        dataset: &DatasetId,
        key: &[u8; 32],
        asked: &OpAsked,
        tick_ms: u64,
    ) -> Result<OpTold, SubjectsError> {
        let Some(kept) = self.disclosures().of_op(&asked.op_hash)? else {
            let (op, sentence) = (Vec::new().into(), String::new());
            return Ok(OpTold { op, openings: None, bulk: None, sentence, withheld: 0 });
        };
        let Kept { op, openings, sentence, bulk, withheld } = kept;
        let sealed = openings.as_ref().and_then(open_by).is_some_and(|ms| tick_ms < ms);
        // Why somebody overrode may speak of others too: it stays between the parties.
        let told = |name: &str| if sealed { name == leaf::OPEN_BY } else { name != leaf::JUSTIFICATION };
        let openings = openings.map(|o| o.redact(told));
        let day = cbor::decode::<Op>(&op).ok().and_then(|op| day_of(&op)).unwrap_or_default();
        let proof = (!bulk.is_empty()).then(|| prove_bulk(&bulk, &subject_tag(key, dataset, day)));
        let bulk = proof.transpose().map_err(|e| SubjectsError::Commitment(e.to_string()))?;
        let sentence = if sealed { String::new() } else { sentence };
        Ok(OpTold { op: op.into(), openings, bulk, sentence, withheld: withheld.into() })
    }
}

/// When an access is opened to the subject, if it is sealed at first.
pub(super) fn open_by(openings: &Redacted) -> Option<u64> {
    openings.get(leaf::OPEN_BY).and_then(|v| v.try_into().ok()).map(u64::from_be_bytes)
}

/// The day of an operation's tags.
pub(super) fn day_of(op: &Op) -> Option<u64> {
    match op {
        Op::Deliver { day, .. } => Some(*day),
        other => other.recorded().map(|r| r.day),
    }
}
