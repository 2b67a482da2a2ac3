//! The bytes of a file, read from several places at once.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A reader of an open file with a position of its own. Copies share the file, not the position; the file's name may be
/// gone meanwhile.
#[derive(Debug, Clone)]
pub struct Content {
    file: Arc<File>,
    at: u64,
}

impl Content {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        File::open(path).map(|file| Self::of(Arc::new(file)))
    }

    /// A reader at the start of an open file.
    pub fn of(file: Arc<File>) -> Self {
        Self { file, at: 0 }
    }

    /// Another reader of the same file, `at` bytes behind its start.
    #[must_use]
    pub fn from(&self, at: u64) -> Self {
        Self { file: Arc::clone(&self.file), at }
    }

    /// Bytes of the whole file.
    ///
    /// # Errors
    /// Those of the system.
    pub fn size(&self) -> std::io::Result<u64> {
        self.file.metadata().map(|meta| meta.len())
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
