//! Where files are dropped: a folder of this machine, or one elsewhere. All that differs between them is here.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::document::After;
use crate::contract::{AdapterError, ErrorClass, Finding};
use crate::files::content::Content;

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When it was written, in seconds and nanoseconds since 1970 by the clock of its machine.
    pub changed: (i64, i64),
    /// Number of the file in its file system, 0 where there is none.
    pub node: u64,
}

/// A folder. A name in it is one without folders.
pub(super) trait Place: Send {
    /// The folder as errors and origins call it.
    fn shown(&self) -> &str;

    /// All files (no folders, no links) and their states.
    fn list(&mut self) -> Result<BTreeMap<String, Stamp>, AdapterError>;

    /// The state of a file now; none when it is not there.
    fn stamp(&mut self, name: &str) -> Result<Option<Stamp>, AdapterError>;

    /// The bytes of a file in this state; none while they are still on their way: ask again. A file that is not there is
    /// [`AdapterError::Io`] with [`ErrorKind::NotFound`].
    fn open(&mut self, name: &str, stamp: Stamp) -> Result<Option<Content>, AdapterError>;

    /// True when what [`Place::open`] gave changes as the sender writes on, and the sender did since.
    fn written_to(&mut self, name: &str, stamp: Stamp) -> bool;

    /// Moves a file into another folder, relative to this one, which is made where it is not there; a number goes behind
    /// the name where the name is taken. One that is not there any more is away.
    fn move_to(&mut self, name: &str, folder: &str) -> Result<(), AdapterError>;

    /// Removes a file. One that is not there any more is away.
    fn remove(&mut self, name: &str) -> Result<(), AdapterError>;

    /// What can be told without writing of the place itself, before it is looked into; and of what `after` asks for.
    fn check(&mut self, after: &After) -> Vec<Finding>;
}

/// The names that a file may get in the folder it is moved to.
pub(super) fn free_names(name: &str) -> impl Iterator<Item = String> {
    std::iter::once(name.to_owned()).chain((2_u32..).map(move |n| format!("{name}.{n}")))
}

/// An error for a folder that is not there: a share that is not mounted at present looks so.
pub(super) fn missing(shown: &str, what_next: &str) -> AdapterError {
    let message = format!("{shown}: the folder is not there; {what_next}");
    AdapterError::source_failed(ErrorClass::Transient, "source.missing", message)
}

/// A folder of this machine.
pub(super) struct Local {
    path: PathBuf,
    shown: String,
}

impl Local {
    /// The folder that a document names, below the node folder.
    pub fn new(base: &Path, path: &str) -> Self {
        Self { path: base.join(path), shown: path.to_owned() }
    }

    fn io(&self, name: &str, action: &'static str) -> impl FnOnce(std::io::Error) -> AdapterError {
        let file = format!("{}/{name}", self.shown.trim_end_matches('/'));
        move |source| AdapterError::Io { file, action, source }
    }
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    Stamp { size: meta.len(), changed: (meta.mtime(), meta.mtime_nsec()), node: meta.ino() }
}

/// None for what is not there.
fn there<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Place for Local {
    fn shown(&self) -> &str {
        &self.shown
    }

    fn list(&mut self) -> Result<BTreeMap<String, Stamp>, AdapterError> {
        let io = |source| AdapterError::Io { file: self.shown.clone(), action: "read the folder", source };
        let Some(entries) = there(std::fs::read_dir(&self.path)).map_err(io)? else {
            return Err(missing(&self.shown, "mount it, or correct `watch.path`"));
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(io)?;
            // A name that is not UTF-8 cannot match; what vanished meanwhile is not there.
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if meta.is_file() {
                all.insert(name, stamp(&meta));
            }
        }
        Ok(all)
    }

    fn stamp(&mut self, name: &str) -> Result<Option<Stamp>, AdapterError> {
        let found = there(std::fs::metadata(self.path.join(name))).map_err(self.io(name, "look at"))?;
        Ok(found.map(|meta| stamp(&meta)))
    }

    fn open(&mut self, name: &str, _: Stamp) -> Result<Option<Content>, AdapterError> {
        Content::open(&self.path.join(name)).map(Some).map_err(self.io(name, "open"))
    }

    fn written_to(&mut self, name: &str, stamp: Stamp) -> bool {
        self.stamp(name).is_ok_and(|now| now.is_some_and(|now| now != stamp))
    }

    fn move_to(&mut self, name: &str, folder: &str) -> Result<(), AdapterError> {
        let folder = self.path.join(folder);
        std::fs::create_dir_all(&folder).map_err(self.io(name, "create the folder for"))?;
        let Some(free) = free_names(name).map(|n| folder.join(n)).find(|path| !path.exists()) else { return Ok(()) };
        there(std::fs::rename(self.path.join(name), free)).map_err(self.io(name, "move"))?;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), AdapterError> {
        there(std::fs::remove_file(self.path.join(name))).map_err(self.io(name, "remove"))?;
        Ok(())
    }

    fn check(&mut self, after: &After) -> Vec<Finding> {
        let folders = after.folders().map(|to| self.path.join(to));
        let wrong = folders.filter(|path| path.exists() && !path.is_dir());
        wrong
            .map(|path| Finding::fail("after", format!("{} is no folder", path.display()), "name a folder in `after`"))
            .collect()
    }
}
