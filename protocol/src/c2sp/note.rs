//! Signed notes: a text, an empty line, signature lines. A log's checkpoint is one, and a witness adds its line to it.

use super::C2spError;
use crate::hash::{Hash, sha256};
use crate::keys::verify_ed25519;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use core::str::FromStr;

/// Signature lines read at most.
const SIGNATURES_MAX: usize = 64;
/// Bytes of a note read at most.
const NOTE_BYTES_MAX: usize = 1 << 20;
/// Type of an Ed25519 signature over the text.
const ED25519: u8 = 1;
/// Type of a timestamped Ed25519 cosignature.
const COSIGNATURE: u8 = 4;

/// The head of a log as `tlog-checkpoint` writes it. Extension lines are refused: nobody audits them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// Whose log.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root))
    }
}

impl FromStr for TreeHead {
    type Err = C2spError;

    fn from_str(text: &str) -> Result<Self, C2spError> {
        let lines: Vec<&str> = text.lines().collect();
        let [origin, size, root] = lines.as_slice() else {
            return Err(C2spError::Note("a log's head has three lines"));
        };
        let root = STANDARD.decode(root).ok().and_then(|r| r.try_into().ok());
        let head = Self {
            origin: (*origin).to_owned(),
            size: size.parse().map_err(|_| C2spError::Note("the second line is the number of leaves"))?,
            root: root.ok_or(C2spError::Note("the third line is a root of 32 bytes in base64"))?,
        };
        if head.origin.is_empty() || head.to_string() != text {
            return Err(C2spError::Note("the log's head is not written in the one way"));
        }
        Ok(head)
    }
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// First four bytes of the hash of name, type and key.
    pub id: [u8; 4],
    /// What stands behind the id.
    pub bytes: Vec<u8>,
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\u{2014} {} {}", self.name, STANDARD.encode([&self.id[..], &self.bytes].concat()))
    }
}

impl FromStr for NoteSignature {
    type Err = C2spError;

    fn from_str(line: &str) -> Result<Self, C2spError> {
        let bad = C2spError::Note("a signature line is an em dash, a name and base64");
        let rest = line.strip_prefix("\u{2014} ").ok_or_else(|| bad.clone())?;
        let (name, signature) = rest.split_once(' ').ok_or_else(|| bad.clone())?;
        let bytes = STANDARD.decode(signature).map_err(|_| bad.clone())?;
        let (id, bytes) = bytes.split_first_chunk::<4>().ok_or_else(|| bad.clone())?;
        if !name_fits(name) {
            return Err(bad);
        }
        Ok(Self { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }
}

fn name_fits(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// A signed note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The text, with its final newline.
    pub text: String,
    /// Signature lines.
    pub signatures: Vec<NoteSignature>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|s| s.fmt(f))
    }
}

impl FromStr for Note {
    type Err = C2spError;

    fn from_str(note: &str) -> Result<Self, C2spError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(C2spError::Note("it is over 1 MiB"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(C2spError::Note("it holds control characters"));
        }
        let at = note.rfind("\n\n").ok_or(C2spError::Note("no empty line stands before the signatures"))?;
        let (text, lines) = note.split_at(at + 1);
        let lines = lines.strip_prefix('\n').and_then(|l| l.strip_suffix('\n'));
        let lines = lines.ok_or(C2spError::Note("the last line is not ended"))?;
        let signatures = lines.split('\n').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(C2spError::Note("it has more than 64 signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }
}

/// What a witness signs: the time it looked and the log's head.
#[must_use]
pub fn cosignature_text(time_s: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

/// A key that verifies notes: `name+id+base64(type || Ed25519 key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// Its name.
    pub name: String,
    kind: u8,
    key: [u8; 32],
}

impl VerifierKey {
    /// A log's key (type 0x01).
    ///
    /// # Errors
    /// A name with spaces or `+`.
    pub fn log(name: &str, key: [u8; 32]) -> Result<Self, C2spError> {
        Self::new(name, ED25519, key)
    }

    /// A witness's key (type 0x04).
    ///
    /// # Errors
    /// A name with spaces or `+`.
    pub fn witness(name: &str, key: [u8; 32]) -> Result<Self, C2spError> {
        Self::new(name, COSIGNATURE, key)
    }

    fn new(name: &str, kind: u8, key: [u8; 32]) -> Result<Self, C2spError> {
        if !name_fits(name) {
            return Err(C2spError::Key("its name is empty or has spaces or plus signs"));
        }
        Ok(Self { name: name.to_owned(), kind, key })
    }

    /// Whether it is a witness's.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.kind == COSIGNATURE
    }

    /// First four bytes of `SHA-256(name || "\n" || type || key)`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.name.as_bytes(), b"\n", &[self.kind], &self.key]);
        [a, b, c, d]
    }

    /// The signature line that this key's secret made.
    #[must_use]
    pub fn line(&self, signature: &[u8]) -> NoteSignature {
        NoteSignature { name: self.name.clone(), id: self.id(), bytes: signature.to_vec() }
    }

    /// Checks this key's signature on a note. Of a witness it returns when it looked, seconds since 1970.
    ///
    /// # Errors
    /// No line of this key, or one that does not verify.
    pub fn verify(&self, note: &Note) -> Result<Option<u64>, C2spError> {
        let line = note.signatures.iter().find(|s| s.name == self.name && s.id == self.id());
        let line = line.ok_or_else(|| C2spError::Unsigned(self.name.clone()))?;
        let bad = || C2spError::Signature(self.name.clone());
        let (time, signature) = match self.kind {
            COSIGNATURE => {
                let (time, rest) = line.bytes.split_first_chunk::<8>().ok_or_else(bad)?;
                let time = u64::from_be_bytes(*time);
                (Some(time).filter(|t| i64::try_from(*t).is_ok()).map(Some).ok_or_else(bad)?, rest)
            }
            _ => (None, line.bytes.as_slice()),
        };
        let text = time.map_or_else(|| note.text.clone(), |t| cosignature_text(t, &note.text));
        let signature = signature.try_into().map_err(|_| bad())?;
        verify_ed25519(&self.key, text.as_bytes(), signature).map_err(|_| bad())?;
        Ok(time)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind][..], &self.key].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = C2spError;

    fn from_str(text: &str) -> Result<Self, C2spError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(C2spError::Key("it has three parts"));
        };
        let bytes = STANDARD.decode(key).map_err(|_| C2spError::Key("its last part is no base64"))?;
        let (kind, key) = bytes.split_first().ok_or(C2spError::Key("it is empty"))?;
        if ![ED25519, COSIGNATURE].contains(kind) {
            return Err(C2spError::Key("its type is not known: 0x01 and 0x04 are"));
        }
        let key = key.try_into().map_err(|_| C2spError::Key("an Ed25519 key has 32 bytes"))?;
        let out = Self::new(name, *kind, key)?;
        if hex::encode(out.id()) != id {
            return Err(C2spError::Key("its id does not fit its name and key"));
        }
        Ok(out)
    }
}
