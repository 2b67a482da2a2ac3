//! The highest header that was believed: kept durably before anything is built on it, so that no restart lets the host
//! begin again from an older one.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    height: u64,
}

/// The highest header believed, in a file of its own.
#[derive(Debug)]
pub struct Seen {
    path: PathBuf,
    height: u64,
}

impl Seen {
    /// Reads the file; one that is not there is of an agency that never believed any.
    ///
    /// # Errors
    /// It cannot be read, or is none of ours: what was seen before is not forgotten for that.
    pub fn open(path: &Path) -> Result<Self> {
        let height = match std::fs::read(path) {
            Ok(text) => {
                serde_json::from_slice::<Kept>(&text).map_err(|e| Error::new(ErrorKind::InvalidData, e))?.height
            }
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        Ok(Self { path: path.to_owned(), height })
    }

    /// The height, 0 before the first.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Keeps a height, durably; a lower one than before changes nothing.
    ///
    /// # Errors
    /// It cannot be written: then nothing may be built on that header.
    pub fn keep(&mut self, height: u64) -> Result<()> {
        if height <= self.height {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let new = self.path.with_extension("new");
        let mut out = File::create(&new)?;
        out.write_all(&serde_json::to_vec(&Kept { height }).map_err(Error::other)?)?;
        out.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        File::open(folder)?.sync_all()?;
        self.height = height;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_highest_height_survives_and_never_falls_and_a_damaged_file_is_no_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("light/seen.json");
        let mut seen = Seen::open(&path).unwrap();
        assert_eq!(seen.height(), 0);
        seen.keep(7).unwrap();
        seen.keep(5).unwrap();
        assert_eq!((seen.height(), Seen::open(&path).unwrap().height()), (7, 7));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Seen::open(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
