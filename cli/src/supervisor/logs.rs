//! Log files of processes: rotated by size, and read on the way for what the supervisor must know.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::core::Finding;

/// Size at which a log is rotated, bytes.
pub const LOG_BYTES: u64 = 8 << 20;
/// Old files kept: `<name>.log.1` and `.2`.
pub const LOG_KEPT: u32 = 2;
/// Longest piece handled as one line.
const LINE_BYTES: u64 = 64 << 10;

/// A file that is renamed to `.1` when it is full.
pub struct RotatingLog {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl RotatingLog {
    /// Opens `path` for appending, mode 0600.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    /// Appends a line or a piece of one.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..LOG_KEPT).rev() {
            if old(n).exists() {
                fs::rename(old(n), old(n + 1))?;
            }
        }
        fs::rename(&self.path, old(1))?;
        *self = Self::open(&self.path, self.limit)?;
        Ok(())
    }
}

/// Copies `from` to the log until its end and reports findings. A full disk never blocks the process: its output is then dropped.
pub fn pump(from: impl Read, log: &mut RotatingLog, watch: bool, mut found: impl FnMut(Finding, String)) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let _ = log.write(&line);
        if watch && let Some(finding) = classify(&line) {
            let text: String = String::from_utf8_lossy(&line).chars().take(300).collect();
            found(finding, text.split(" stack=").next().unwrap_or_default().trim_end().to_owned());
        }
    }
}

/// The last line of a file that is not empty, cut to 300 characters, looking no further back than `from` or 8 KiB.
pub fn last_line(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(size.saturating_sub(8_192)))).ok()?;
    let mut text = Vec::new();
    file.take(8_192).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|l| !l.trim().is_empty()).map(|l| l.trim().chars().take(300).collect())
}

/// What a line of CometBFT's log means. A healthy node also logs "wrong Block.Header" about a *peer's* proposal, and a
/// consensus failure also follows the death of the application: only both together say that this node is the odd one.
pub fn classify(line: &[u8]) -> Option<Finding> {
    let text = String::from_utf8_lossy(line);
    if text.contains("does not match AppHash after replay") {
        return Some(Finding::StateDiffers);
    }
    if !text.contains("CONSENSUS FAILURE") {
        return None;
    }
    let differs = text.contains("invalid block") || text.contains("wrong Block.Header");
    Some(if differs { Finding::StateDiffers } else { Finding::ConsensusStopped })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn only_a_node_that_is_itself_wrong_is_found() {
        let own = b"E[t] CONSENSUS FAILURE!!! module=consensus err=\"precommit step; +2/3 prevoted for an invalid block: wrong Block.Header.AppHash. Expected A, got B\" stack=x";
        assert_eq!(classify(own), Some(Finding::StateDiffers));
        assert_eq!(
            classify(b"panic: state.AppHash does not match AppHash after replay. Got 1, expected 2."),
            Some(Finding::StateDiffers)
        );
        assert_eq!(
            classify(b"E[t] CONSENSUS FAILURE!!! err=\"failed to apply block; error EOF\""),
            Some(Finding::ConsensusStopped)
        );
        assert_eq!(classify(b"E[t] prevote step: consensus deems this block invalid; prevoting nil err=\"wrong Block.Header.AppHash\""), None);
        assert_eq!(classify(b"\xff\xfe executed block"), None);
    }

    #[test]
    fn a_log_is_rotated_by_size_and_two_old_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = RotatingLog::open(&path, 100).unwrap();
        let lines: String = (0..60).map(|i| format!("line {i:03}\n")).collect();
        pump(lines.as_bytes(), &mut log, false, |_, _| {});
        let names = ["a.log.2", "a.log.1", "a.log"];
        let kept: String = names.iter().map(|n| fs::read_to_string(dir.path().join(n)).unwrap()).collect();
        assert!(lines.ends_with(&kept), "the newest lines are kept, none lost between files");
        assert!(names.iter().all(|n| fs::metadata(dir.path().join(n)).unwrap().len() <= 100));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
