//! Folders and files that only their owner reads.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::LayoutError;

/// Makes a folder and its missing parents, mode 0700.
pub fn private_dir(path: &Path) -> Result<(), LayoutError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| LayoutError::io(path, "be made", e))
}

/// Writes a new file, mode 0600, durable, by way of a rename: a reader sees the old or the new one, never half.
pub fn private_file(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|e| LayoutError::io(path, "be written", e))
}

/// 192 random bits as hexadecimal text.
pub fn random_password() -> Result<Zeroizing<String>, LayoutError> {
    let mut bytes = Zeroizing::new([0u8; 24]);
    getrandom::fill(bytes.as_mut()).map_err(|e| LayoutError::Randomness(e.to_string()))?;
    Ok(Zeroizing::new(hex::encode(bytes.as_ref())))
}

/// Refuses when the disk that will hold `path` has less than `need` bytes free.
pub fn check_disk(path: &Path, need: u64) -> Result<(), LayoutError> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(existing).map_err(|e| LayoutError::io(existing, "be looked at", e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < need {
        let mb = |bytes: u64| bytes / 1_000_000;
        return Err(LayoutError::DiskLow { path: existing.to_owned(), free_mb: mb(free), need_mb: mb(need) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn too_little_disk_is_told_with_both_figures() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("not/yet");
        check_disk(&absent, 1).unwrap();
        let e = check_disk(&absent, u64::MAX).unwrap_err();
        assert_eq!(e.code(), "disk-low");
        assert!(e.to_string().contains("18446744073709 MB"), "{e}");
    }
}
