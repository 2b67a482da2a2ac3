//! What stands in the folder, and which files are whole.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use concordat_protocol::hash::{Hash, Hasher};

use super::document::{Ready, Watch};
use crate::contract::{AdapterError, ErrorClass};
use crate::files::unpacked;

/// How much of a file that cannot be read a dead letter keeps.
const HEAD_BYTES: u64 = 4_096;

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    changed: (i64, i64),
    node: u64,
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self { size: meta.len(), changed: (meta.mtime(), meta.mtime_nsec()), node: meta.ino() }
    }

    /// The state of a file now.
    pub fn now(path: &Path) -> std::io::Result<Self> {
        std::fs::metadata(path).map(|meta| Self::of(&meta))
    }
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub name: String,
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// Looks into a folder again and again.
pub(super) struct Folder {
    path: PathBuf,
    shown: String,
    watch: Watch,
    /// Since when a file has its state, by this process's own clock: the sender's may be wrong.
    seen: BTreeMap<String, (Stamp, Instant)>,
    hashes: BTreeMap<String, (Stamp, Hash)>,
}

impl Folder {
    pub fn new(base: &Path, watch: &Watch) -> Self {
        let shown = watch.path.value.clone();
        Self { path: base.join(&shown), shown, watch: watch.clone(), seen: BTreeMap::new(), hashes: BTreeMap::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's name as errors and origins call it.
    pub fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.shown.trim_end_matches('/'))
    }

    /// All files that fit the pattern, whole or not, by name.
    pub fn all(&self) -> Result<Vec<Found>, AdapterError> {
        let all = self.list()?.into_iter().filter(|(name, _)| matches(&self.watch.glob, name));
        Ok(all.map(|(name, stamp)| Found { path: self.path.join(&name), name, stamp }).collect())
    }

    fn list(&self) -> Result<BTreeMap<String, Stamp>, AdapterError> {
        let io = |source| AdapterError::Io { file: self.shown.clone(), action: "read the folder", source };
        let mut all = BTreeMap::new();
        // A share that is not mounted at present looks so.
        let missing = || {
            let message = format!("{}: the folder is not there; mount it, or correct `watch.path`", self.shown);
            AdapterError::source_failed(ErrorClass::Transient, "source.missing", message)
        };
        let entries = std::fs::read_dir(&self.path);
        let entries = entries.map_err(|e| if e.kind() == ErrorKind::NotFound { missing() } else { io(e) })?;
        for entry in entries {
            let entry = entry.map_err(io)?;
            // A name that is not UTF-8 cannot match; what vanished meanwhile is not there.
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if meta.is_file() {
                all.insert(name, Stamp::of(&meta));
            }
        }
        Ok(all)
    }

    /// The whole files, by name.
    pub fn ready(&mut self, now: Instant) -> Result<Vec<Found>, AdapterError> {
        let all = self.list()?;
        self.seen.retain(|name, (stamp, _)| all.get(name) == Some(stamp));
        self.hashes.retain(|name, (stamp, _)| all.get(name) == Some(stamp));
        let mut found = Vec::new();
        for (name, stamp) in &all {
            if matches(&self.watch.glob, name) && self.whole(name, *stamp, &all, now) {
                found.push(Found { name: name.clone(), path: self.path.join(name), stamp: *stamp });
            }
        }
        Ok(found)
    }

    fn whole(&mut self, name: &str, stamp: Stamp, all: &BTreeMap<String, Stamp>, now: Instant) -> bool {
        match &self.watch.ready {
            Ready::RenameFrom(ending) => !name.ends_with(ending.as_str()),
            Ready::Marker(ending) => !name.ends_with(ending.as_str()) && all.contains_key(&format!("{name}{ending}")),
            Ready::Quiet(period) => {
                let since = self.seen.entry(name.to_owned()).or_insert((stamp, now)).1;
                now.saturating_duration_since(since) >= period.0
            }
        }
    }

    /// The marker that stands beside a file, if there are markers.
    pub fn marker(&self, name: &str) -> Option<PathBuf> {
        match &self.watch.ready {
            Ready::Marker(ending) => Some(self.path.join(format!("{name}{ending}"))),
            _ => None,
        }
    }

    /// SHA-256 of a file's bytes; read once for each state of the file. A packed file must unpack to its end.
    pub fn hash(&mut self, file: &Found) -> Result<Hash, AdapterError> {
        if let Some((_, hash)) = self.hashes.get(&file.name).filter(|(stamp, _)| *stamp == file.stamp) {
            return Ok(*hash);
        }
        let shown = self.shown(&file.name);
        let io = |source| AdapterError::Io { file: shown.clone(), action: "read", source };
        let mut input = std::fs::File::open(&file.path).map_err(io)?;
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 64 * 1024]);
        loop {
            let n = input.read(&mut buffer).map_err(io)?;
            if n == 0 {
                break;
            }
            hasher.update(buffer.get(..n).unwrap_or_default());
        }
        let hash = hasher.finish();
        self.hashes.insert(file.name.clone(), (file.stamp, hash));
        Ok(hash)
    }
}

impl Folder {
    /// Unpacks a packed file to its end and keeps nothing: one that was cut is refused before a row of it is read.
    pub fn check_packed(&self, file: &Found) -> Result<(), AdapterError> {
        let shown = self.shown(&file.name);
        let io = |source: std::io::Error| match source.kind() {
            ErrorKind::UnexpectedEof => AdapterError::Truncated { file: shown.clone(), row: 0 },
            ErrorKind::InvalidInput | ErrorKind::InvalidData => {
                AdapterError::Encoding { file: shown.clone(), detail: format!("the packed file is damaged: {source}") }
            }
            _ => AdapterError::Io { file: shown.clone(), action: "read", source },
        };
        let mut magic = [0; 2];
        let mut input = std::fs::File::open(&file.path).map_err(io)?;
        if input.read(&mut magic).map_err(io)? == 2 && magic == [0x1f, 0x8b] {
            let input = std::fs::File::open(&file.path).and_then(unpacked).map_err(io);
            std::io::copy(&mut input?, &mut std::io::sink()).map_err(io)?;
        }
        Ok(())
    }

    /// The beginning of a file, for a dead letter.
    pub fn head(&self, file: &Found) -> Vec<u8> {
        let mut head = Vec::new();
        let _ = std::fs::File::open(&file.path).and_then(|f| f.take(HEAD_BYTES).read_to_end(&mut head));
        head
    }
}

/// Whether a name fits a pattern of `*` (any characters) and `?` (one).
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || name.get(n) == Some(c) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, name, fits) in [
            ("*.csv", "a.csv", true),
            ("*.csv", ".csv", true),
            ("*.csv", "a.csv.part", false),
            ("a?c*", "abcd", true),
            ("a?c*", "ac", false),
            ("*a*b*", "xxaxbx", true),
            ("*a*b*", "xxbxa", false),
            ("exact", "exact", true),
            ("exact", "exac", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
