//! The operation log as a folder for outside witnesses: `tile/` and the signed note `checkpoint` of C2SP, and beside them
//! `cosigned.cbor`, the ledger's own checkpoint with the agencies' cosignatures. Any web server can serve the folder.
//!
//! The folder grows: a run goes on where the last one ended. The note is written last, so that what it says is always there.

use super::note_key::{NoteKey, NoteKeyError};
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use concordat_protocol::c2sp::{
    C2spError, Edge, Layer, Note, TILE_WIDTH, TileId, TreeHead, VerifierKey, leaf_data, read_bundle,
};
use concordat_protocol::cbor;
use concordat_protocol::evidence::CheckpointView;
use concordat_protocol::receipt::app_hash;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The signed note's file.
pub const NOTE_FILE: &str = "checkpoint";
/// The ledger's checkpoint: canonical `CheckpointView`.
pub const COSIGNED_FILE: &str = "cosigned.cbor";
/// Notes with the witnesses' lines, by size.
pub const WITNESSED_DIR: &str = "witnessed";
/// Entries of one question.
const PART: u64 = 10_000;
/// How long to wait for the header behind a new checkpoint: an idle chain makes a block every few seconds.
const HEADER_TRIES: u32 = 40;
const HEADER_PAUSE: Duration = Duration::from_millis(500);

/// Why the log was not exported. The note that was there stays.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A tile or a note.
    #[error(transparent)]
    C2sp(#[from] C2spError),
    /// The key.
    #[error(transparent)]
    Key(#[from] NoteKeyError),
    /// A file.
    #[error("{path}: {source}; free disk space or choose another folder, then run it again")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no checkpoint yet.
    #[error("the ledger has no checkpoint yet: one is due after checkpoint_ms when the log grew; run it again later")]
    NoCheckpoint,
    /// The checkpoint's state stands in no header yet.
    #[error("no header has the state of checkpoint {0} yet: run it again when the chain goes on")]
    NoHeader(u64),
    /// The header has another state than the node's checkpoint.
    #[error("the header of height {0} has another app hash than this node's checkpoint: compare the nodes' app hashes")]
    AppHash(u64),
    /// The folder holds another log, or the ledger lost entries.
    #[error("{0}; nothing was signed: keep the folder as it is and find out which of the two is wrong")]
    Other(String),
}

impl ExportError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ledger(e) => e.code(),
            Self::C2sp(e) => e.code(),
            Self::Key(e) => e.code(),
            Self::Io { .. } => "export-io",
            Self::NoCheckpoint => "export-no-checkpoint",
            Self::NoHeader(_) => "export-no-header",
            Self::AppHash(_) => "export-app-hash",
            Self::Other(_) => "export-other-log",
        }
    }
}

/// What an export did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The log's origin line.
    pub origin: String,
    /// Entries before.
    pub before: u64,
    /// Entries now.
    pub size: u64,
    /// Root of the log, hex.
    pub root: String,
    /// Height of the ledger's checkpoint.
    pub height: u64,
    /// Agencies that cosigned it so far.
    pub cosigned_by: Vec<String>,
    /// Tiles and bundles written.
    pub tiles: u64,
    /// The key with which the note verifies.
    pub verifier_key: String,
}

/// Writes a file whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let io = |source| ExportError::Io { path: path.to_owned(), source };
    let dir = path.parent().ok_or_else(|| io(ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(dir).map_err(io)?;
    let mut temp = path.as_os_str().to_owned();
    temp.push(".new");
    let mut file = fs::File::create(&temp).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&temp, path).map_err(io)?;
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(io)
}

fn get(path: &Path) -> Result<Option<Vec<u8>>, ExportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(ExportError::Io { path: path.to_owned(), source }),
    }
}

/// A tile of the folder. Where a partial one was replaced by the full one, its first part.
fn tile(dir: &Path, tile: &TileId) -> Option<Vec<u8>> {
    if let Some(bytes) = get(&dir.join(tile.to_string())).ok()? {
        return Some(bytes);
    }
    let full = TileId { width: TILE_WIDTH, ..*tile };
    let mut bytes = get(&dir.join(full.to_string())).ok()??;
    let len = match tile.layer {
        Layer::Hashes(_) => usize::from(tile.width) * 32,
        Layer::Entries => read_bundle(&bytes).ok()?.iter().take(usize::from(tile.width)).map(|e| e.len() + 2).sum(),
    };
    bytes.truncate(len);
    Some(bytes)
}

/// The head that the folder has, and the edge to go on from.
fn standing(dir: &Path, origin: &str, key: &VerifierKey) -> Result<(Edge, Option<Note>), ExportError> {
    let Some(note) = get(&dir.join(NOTE_FILE))? else { return Ok((Edge::new(), None)) };
    let note: Note = String::from_utf8(note).map_err(|_| C2spError::Note("it is not UTF-8"))?.parse()?;
    key.verify(&note)?;
    let head: TreeHead = note.text.parse()?;
    if head.origin != origin {
        return Err(ExportError::Other(format!("the folder holds the log {}, this is {origin}", head.origin)));
    }
    let edge = Edge::resume(head.size, |id| tile(dir, id))?;
    if edge.root() != head.root {
        return Err(ExportError::Other("the folder's tiles lead to another root than its own note".into()));
    }
    Ok((edge, Some(note)))
}

/// The newest checkpoint, once a header has its state.
async fn newest(node: &NodeClient, rpc: &CometRpc) -> Result<CheckpointView, ExportError> {
    let view = node.checkpoints(0).await?.pop().ok_or(ExportError::NoCheckpoint)?;
    let height = view.checkpoint.height;
    for _ in 0..HEADER_TRIES {
        match rpc.signed_header(height + 1).await {
            Ok(signed) => {
                let hash = hex::decode(signed["header"]["app_hash"].as_str().unwrap_or_default()).unwrap_or_default();
                if hash != app_hash(&view.checkpoint.roots) {
                    return Err(ExportError::AppHash(height + 1));
                }
                return Ok(view);
            }
            // CometBFT answers an error for a height that it has not got yet.
            Err(LedgerError::Protocol(_)) => tokio::time::sleep(HEADER_PAUSE).await,
            Err(e) => return Err(e.into()),
        }
    }
    Err(ExportError::NoHeader(height))
}

/// Brings the folder up to the newest checkpoint.
///
/// # Errors
/// The ledger is not there, the folder holds another log, or the tiles do not lead to the checkpoint's root.
pub async fn export(
    node: &NodeClient,
    rpc: &CometRpc,
    key: &NoteKey,
    dir: &Path,
    progress: impl Fn(u64, u64),
) -> Result<Exported, ExportError> {
    let view = newest(node, rpc).await?;
    let checkpoint = &view.checkpoint;
    let origin = concordat_protocol::c2sp::origin(&checkpoint.chain);
    let (mut edge, old) = standing(dir, &origin, key.verifier())?;
    let before = edge.size();
    if checkpoint.log_size < before {
        let said = format!("the folder has {before} entries, the ledger's checkpoint only {}", checkpoint.log_size);
        return Err(ExportError::Other(said));
    }
    let (mut tiles, mut full) = (0, Vec::new());
    while edge.size() < checkpoint.log_size {
        let entries = node.log(edge.size(), PART.min(checkpoint.log_size - edge.size())).await?;
        if entries.is_empty() {
            return Err(LedgerError::Protocol("the node answers no entries of its own log".into()).into());
        }
        let room = checkpoint.log_size - edge.size();
        for entry in entries.iter().take(usize::try_from(room).unwrap_or(usize::MAX)) {
            for (id, bytes) in edge.push(&leaf_data(edge.size(), &cbor::encode(entry))) {
                put(&dir.join(id.to_string()), &bytes)?;
                full.push(id);
                tiles += 1;
            }
        }
        progress(edge.size(), checkpoint.log_size);
    }
    if edge.root() != checkpoint.roots.log {
        return Err(ExportError::Other(format!(
            "the tiles of {} entries lead to another root than the ledger's checkpoint of height {}",
            edge.size(),
            checkpoint.height
        )));
    }
    for (id, bytes) in edge.partials() {
        put(&dir.join(id.to_string()), &bytes)?;
        tiles += 1;
    }
    let head = TreeHead { origin, size: edge.size(), root: edge.root() };
    sign_head(dir, key, &head, old)?;
    put(&dir.join(COSIGNED_FILE), &cbor::encode(&view))?;
    // Nobody needs the parts of what is whole now; a reader of the old note falls back to it.
    for id in full {
        let _ = fs::remove_dir_all(dir.join(format!("{id}.p")));
    }
    Ok(Exported {
        origin: head.origin,
        before,
        size: head.size,
        root: hex::encode(head.root),
        height: checkpoint.height,
        cosigned_by: view.cosignatures.iter().map(|c| c.agency.to_string()).collect(),
        tiles,
        verifier_key: key.verifier().to_string(),
    })
}

/// Writes the note, unless the same head stands there: witnesses' lines on it would be lost.
fn sign_head(dir: &Path, key: &NoteKey, head: &TreeHead, old: Option<Note>) -> Result<(), ExportError> {
    let text = head.to_string();
    if old.is_some_and(|o| o.text == text) {
        return Ok(());
    }
    let note = Note { signatures: vec![key.sign(&text)?], text };
    put(&dir.join(NOTE_FILE), note.to_string().as_bytes())
}

/// Adds a witness's line to the folder's note: `from` is a note or lines of one, as the witness answered. Returns when the
/// witness looked, seconds since 1970.
///
/// # Errors
/// No line of that witness, or one that does not verify over the folder's head.
pub fn add_witness(dir: &Path, witness: &VerifierKey, from: &str) -> Result<u64, ExportError> {
    let path = dir.join(NOTE_FILE);
    let note = get(&path)?.ok_or(ExportError::Io { path: path.clone(), source: ErrorKind::NotFound.into() })?;
    let mut note: Note = String::from_utf8(note).map_err(|_| C2spError::Note("it is not UTF-8"))?.parse()?;
    let lines = from.lines().filter(|l| l.starts_with('\u{2014}'));
    let lines = lines.map(str::parse).collect::<Result<Vec<_>, C2spError>>()?;
    let own = |s: &concordat_protocol::c2sp::NoteSignature| s.name == witness.name && s.id == witness.id();
    let line = lines.into_iter().find(own).ok_or_else(|| C2spError::Unsigned(witness.name.clone()))?;
    note.signatures.retain(|s| !own(s));
    note.signatures.push(line);
    let time = witness.verify(&note)?.ok_or(C2spError::Key("it is no witness's key (type 0x04)"))?;
    let head: TreeHead = note.text.parse()?;
    put(&dir.join(WITNESSED_DIR).join(head.size.to_string()), note.to_string().as_bytes())?;
    put(&path, note.to_string().as_bytes())?;
    Ok(time)
}
