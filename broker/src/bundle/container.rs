//! The ZIP of an ASiC-E container: `mimetype` first and not compressed, then every file once.
//!
//! What is read must be what is shown by any reader: one entry behind the other from the first byte to the directory, each
//! name once and the same in both places, nothing beside them.

use super::{BundleError, MEDIA_TYPE, MIMETYPE};
use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

/// Most bytes of all files of a container together.
pub const BYTES_MAX: u64 = 256 << 20;
/// Most files of a container.
pub const FILES_MAX: usize = 8 * super::OPERATIONS_MAX;
/// Longest name.
const NAME_MAX: usize = 200;
/// Bytes of a local header, a directory's entry and the directory's end, without names.
const LOCAL: u64 = 30;
const CENTRAL: u64 = 46;
const END: u64 = 22;

/// A file of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: `folder/file`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// A file.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

fn refused(why: impl Into<String>) -> BundleError {
    BundleError::refused("container", why)
}

/// Names that mean the same file everywhere and lead nowhere else.
fn good_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && p.bytes().all(plain);
    name.len() <= NAME_MAX && name.split('/').all(part)
}

/// Writes a container; the entries come in their order.
///
/// # Errors
/// A name that [`read`] would refuse.
pub fn write(entries: &[Entry]) -> Result<Vec<u8>, BundleError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let broken = |e: zip::result::ZipError| refused(e.to_string());
    for entry in entries {
        if !good_name(&entry.name) {
            return Err(BundleError::refused(&entry.name, "no container may have a file of this name"));
        }
        let method = if entry.name == MIMETYPE { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        // When it was exported stands in export.json; the ZIP's own clock has neither a zone nor a place in a hash.
        let options = SimpleFileOptions::default().compression_method(method).last_modified_time(DateTime::default());
        zip.start_file(entry.name.as_str(), options).map_err(broken)?;
        zip.write_all(&entry.bytes).map_err(|e| refused(e.to_string()))?;
    }
    Ok(zip.finish().map_err(broken)?.into_inner())
}

/// Reads a container.
///
/// # Errors
/// It is none, its first entry is not `mimetype`, or another reader could see other files in it.
pub fn read(bytes: &[u8]) -> Result<Vec<Entry>, BundleError> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| refused(format!("it is no ZIP file: {e}")))?;
    if zip.has_duplicate_names() {
        return Err(refused("a name stands in it twice"));
    }
    zip.validate_header_consistency().map_err(|e| refused(e.to_string()))?;
    if zip.len() > FILES_MAX {
        return Err(refused(format!("it has {} files, at most {FILES_MAX} are read", zip.len())));
    }
    let (mut entries, mut at, mut directory, mut total) = (Vec::new(), 0, 0, 0);
    for i in 0..zip.len() {
        let entry = one(&mut zip, i, &mut at, &mut directory, &mut total)?;
        entries.push(entry);
    }
    let end = bytes.len() as u64;
    if zip.central_directory_start() != at || at + directory + END != end || !zip.comment().is_empty() {
        return Err(refused("there are bytes in it that belong to no file"));
    }
    match entries.first() {
        Some(first) if first.name == MIMETYPE && first.bytes == MEDIA_TYPE.as_bytes() => Ok(entries),
        _ => Err(BundleError::refused(MIMETYPE, format!("the first file must be this one and hold {MEDIA_TYPE}"))),
    }
}

fn one(
    zip: &mut ZipArchive<Cursor<&[u8]>>,
    i: usize,
    at: &mut u64,
    directory: &mut u64,
    total: &mut u64,
) -> Result<Entry, BundleError> {
    let file = zip.by_index(i).map_err(|e| refused(e.to_string()))?;
    let name = std::str::from_utf8(file.name_raw()).unwrap_or_default().to_owned();
    if !good_name(&name) {
        let shown = String::from_utf8_lossy(file.name_raw()).into_owned();
        return Err(BundleError::refused(&shown, "this name leads out of a folder, or is none that every system has"));
    }
    let bad = |why: &str| BundleError::refused(&name, why);
    let stored = file.compression() == CompressionMethod::Stored;
    if !(stored || file.compression() == CompressionMethod::Deflated) || file.encrypted() || !file.is_file() {
        return Err(bad("it is encrypted, no file, or compressed in another way than deflate"));
    }
    if name == MIMETYPE && !stored {
        return Err(bad("it must not be compressed"));
    }
    if file.header_start() != *at {
        return Err(bad("there are bytes before it that belong to no file"));
    }
    // A header with more than the name in it shifts the next one: then the places no longer meet.
    *at += LOCAL + name.len() as u64 + file.compressed_size();
    *directory += CENTRAL + name.len() as u64;
    *total += file.size();
    if *total > BYTES_MAX {
        return Err(bad("the container unpacks to more than 256 MiB"));
    }
    let (size, mut bytes) = (file.size(), Vec::new());
    file.take(size + 1).read_to_end(&mut bytes).map_err(|e| bad(&format!("it was altered: {e}")))?;
    if bytes.len() as u64 != size {
        return Err(bad("it was altered: its size is another"));
    }
    Ok(Entry { name, bytes })
}
