//! What stands in the folder, and which files are whole.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::time::Instant;

use concordat_protocol::hash::{Hash, Hasher};

use super::document::{After, Fate, Ready, Watch};
use super::place::{Place, Stamp};
use crate::contract::{AdapterError, Finding};
use crate::files::content::Content;

/// How much of a file that cannot be read a dead letter keeps.
const HEAD_BYTES: u64 = 4_096;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub name: String,
    pub stamp: Stamp,
}

/// Looks into a folder again and again.
pub(super) struct Folder {
    place: Box<dyn Place>,
    watch: Watch,
    /// Since when a file has its state, by this process's own clock: the sender's may be wrong.
    seen: BTreeMap<String, (Stamp, Instant)>,
    hashes: BTreeMap<String, (Stamp, Hash)>,
}

impl Folder {
    pub fn new(place: Box<dyn Place>, watch: &Watch) -> Self {
        Self { place, watch: watch.clone(), seen: BTreeMap::new(), hashes: BTreeMap::new() }
    }

    /// A file's name as errors and origins call it.
    pub fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.place.shown().trim_end_matches('/'))
    }

    /// All files that fit the pattern, whole or not, by name.
    pub fn all(&mut self) -> Result<Vec<Found>, AdapterError> {
        let all = self.place.list()?.into_iter().filter(|(name, _)| matches(&self.watch.glob, name));
        Ok(all.map(|(name, stamp)| Found { name, stamp }).collect())
    }

    /// The whole files, by name.
    pub fn ready(&mut self, now: Instant) -> Result<Vec<Found>, AdapterError> {
        let all = self.place.list()?;
        self.seen.retain(|name, (stamp, _)| all.get(name) == Some(stamp));
        self.hashes.retain(|name, (stamp, _)| all.get(name) == Some(stamp));
        let mut found = Vec::new();
        for (name, stamp) in &all {
            if matches(&self.watch.glob, name) && self.whole(name, *stamp, &all, now) {
                found.push(Found { name: name.clone(), stamp: *stamp });
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

    /// The bytes of a file; none while they are on their way.
    pub fn open(&mut self, file: &Found) -> Result<Option<Content>, AdapterError> {
        self.place.open(&file.name, file.stamp)
    }

    /// True when somebody wrote to a file that is being read.
    pub fn written_to(&mut self, file: &Found) -> bool {
        self.place.written_to(&file.name, file.stamp)
    }

    /// SHA-256 of a file's bytes; read once for each state of the file. None while the bytes are on their way.
    pub fn hash(&mut self, file: &Found) -> Result<Option<Hash>, AdapterError> {
        if let Some((_, hash)) = self.hashes.get(&file.name).filter(|(stamp, _)| *stamp == file.stamp) {
            return Ok(Some(*hash));
        }
        let Some(mut input) = self.place.open(&file.name, file.stamp)? else { return Ok(None) };
        let shown = self.shown(&file.name);
        let io = |source| AdapterError::Io { file: shown.clone(), action: "read", source };
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
        Ok(Some(hash))
    }

    /// True when a file's bytes are these. It waits until they are here.
    pub fn holds(&mut self, file: &Found, hash: &Hash) -> Result<bool, AdapterError> {
        loop {
            match self.hash(file) {
                Ok(Some(found)) => return Ok(found == *hash),
                Ok(None) => {}
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// What stands under a name at present.
    pub fn now(&mut self, name: &str) -> Result<Option<Found>, AdapterError> {
        Ok(self.place.stamp(name)?.map(|stamp| Found { name: name.to_owned(), stamp }))
    }

    /// Puts a file away, and its marker.
    pub fn put_away(&mut self, name: &str, fate: &Fate) -> Result<(), AdapterError> {
        match fate {
            Fate::Stays => return Ok(()),
            Fate::Moves(folder) => self.place.move_to(name, folder)?,
            Fate::Goes => self.place.remove(name)?,
        }
        // What comes under this name next is another file, were its size and its time the same.
        self.hashes.remove(name);
        if let Ready::Marker(ending) = &self.watch.ready {
            self.place.remove(&format!("{name}{ending}"))?;
        }
        Ok(())
    }

    /// What can be told of the place without writing.
    pub fn check(&mut self, after: &After) -> Vec<Finding> {
        self.place.check(after)
    }
}

/// True for an error that says that a file is not there.
pub(super) fn is_gone(error: &AdapterError) -> bool {
    matches!(error, AdapterError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// The beginning of a file, for a dead letter.
pub(super) fn head(file: &Content) -> Vec<u8> {
    let mut head = Vec::new();
    let _ = file.from(0).take(HEAD_BYTES).read_to_end(&mut head);
    head
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
