//! `META-INF/ASiCManifest001.xml` (ETSI EN 319 162-1, A.4): the SHA-256 of every file.
//!
//! It is written in one form only, so that it is read without an XML parser: what does not have this form is refused.

use super::container::Entry;
use super::{BundleError, MANIFEST, MIMETYPE, SIGNATURE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::hash::sha256;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const HEAD: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<asic:ASiCManifest xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n",
    "<asic:SigReference URI=\"META-INF/signature001.p7s\" MimeType=\"application/x-pkcs7-signature\"/>\n",
);
const TAIL: &str = "</asic:ASiCManifest>\n";
const URI: &str = "<asic:DataObjectReference URI=\"";
const DIGEST: &str = "<ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/><ds:DigestValue>";
const CLOSE: &str = "</ds:DigestValue></asic:DataObjectReference>";

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("json") => "application/json",
        Some("pdf") => "application/pdf",
        Some("receipt" | "terms" | "checkpoint") => "application/cbor",
        Some("yaml") => "application/yaml",
        Some("txt") => "text/plain",
        Some("tst") => "application/vnd.etsi.timestamp-token",
        Some("pem") => "application/x-pem-file",
        _ => "application/octet-stream",
    }
}

/// The manifest of these files. Names are checked where the container is written: none needs escaping.
pub(super) fn write(files: &[Entry]) -> String {
    let mut out = HEAD.to_owned();
    for file in files {
        let digest = STANDARD.encode(sha256(&[&file.bytes]));
        let kind = media_type(&file.name);
        let _ = writeln!(out, "{URI}{}\" MimeType=\"{kind}\">{DIGEST}{digest}{CLOSE}", file.name);
    }
    out.push_str(TAIL);
    out
}

/// Hashes by name.
fn read(text: &str) -> Option<BTreeMap<&str, &str>> {
    let lines = text.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
    let mut found = BTreeMap::new();
    for line in lines.lines() {
        let (name, rest) = line.strip_prefix(URI)?.split_once('"')?;
        let digest = rest.split_once(DIGEST)?.1.strip_suffix(CLOSE)?;
        if found.insert(name, digest).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Checks that the manifest names every file of the container and no other, each with its hash.
pub(super) fn check(entries: &[Entry]) -> Result<(), BundleError> {
    let of = |name: &str| entries.iter().find(|e| e.name == name).ok_or(BundleError::refused(name, "it is missing"));
    let manifest = of(MANIFEST)?;
    of(SIGNATURE)?;
    let bad = || BundleError::refused(MANIFEST, "it is not in the form that an export has");
    let text = std::str::from_utf8(&manifest.bytes).map_err(|_| bad())?;
    let listed = read(text).ok_or_else(bad)?;
    let beside = [MIMETYPE, MANIFEST, SIGNATURE];
    let files: Vec<&Entry> = entries.iter().filter(|e| !beside.contains(&e.name.as_str())).collect();
    for file in &files {
        let Some(digest) = listed.get(file.name.as_str()) else {
            return Err(BundleError::refused(&file.name, "the manifest does not list it: it was added"));
        };
        if *digest != STANDARD.encode(sha256(&[&file.bytes])) {
            return Err(BundleError::refused(&file.name, "it was altered: its SHA-256 is not the manifest's"));
        }
    }
    if let Some(missing) = listed.keys().find(|name| !files.iter().any(|f| f.name == **name)) {
        return Err(BundleError::refused(missing, "the manifest lists it, and it is not here: it was left out"));
    }
    // Media types and order too: one form.
    let files: Vec<Entry> = files.into_iter().cloned().collect();
    if write(&files) == text { Ok(()) } else { Err(bad()) }
}
