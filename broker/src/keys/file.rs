//! One key file: read, written, encrypted, decrypted.

use super::locked::{self, Locked, is_locked};
use super::uri::{SCHEME, TokenUri};
use super::{KeyFileError, Passphrases, token};
use concordat_protocol::keys::{KeyError, SigningKey};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest key file that is read: an armored age file of a hybrid key has about 600 bytes.
const FILE_MAX: u64 = 16_384;

/// What a key file holds, decrypted.
pub enum KeyContent {
    /// A line `concordat-secret-1:...`.
    Secret(Zeroizing<String>),
    /// Where the key is.
    Token(TokenUri),
}

/// Name of the key in a file `NAME.key` or `NAME.key.age`.
pub fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let file = file.strip_suffix(".age").unwrap_or(file);
    file.strip_suffix(".key").filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The whole file, refused when others can read it. The mode is the open file's: nobody can exchange it in between.
fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    if meta.len() > FILE_MAX {
        let why = format!("it has {} bytes, a key file has at most {FILE_MAX}", meta.len());
        return Err(KeyFileError::Damaged { path: path.to_owned(), why });
    }
    // Reserved at once, so that no copy stays behind when it grows.
    let mut out = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize + 1));
    file.take(FILE_MAX).read_to_end(&mut out).map_err(io)?;
    Ok(out)
}

/// The text in a file, decrypted where it has to be.
fn text(path: &Path, passphrases: &Passphrases) -> Result<Zeroizing<String>, KeyFileError> {
    let bytes = bytes(path)?;
    let damaged = |why: String| KeyFileError::Damaged { path: path.to_owned(), why };
    if !is_locked(&bytes) {
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text".into()))?;
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let name = name_of(path).unwrap_or_default();
    let passphrase = passphrases.get(&name, &format!("passphrase of {}", path.display()));
    let passphrase = passphrase.map_err(|why| KeyFileError::NoPassphrase { path: path.to_owned(), why })?;
    locked::unlock(&bytes, &passphrase).map_err(|e| match e {
        Locked::Wrong => KeyFileError::WrongPassphrase { path: path.to_owned() },
        Locked::Damaged(why) => damaged(why),
    })
}

/// What a key file holds.
///
/// # Errors
/// It cannot be read, others can read it, the passphrase is missing or wrong, or it holds no key.
pub fn read(path: &Path, passphrases: &Passphrases) -> Result<KeyContent, KeyFileError> {
    let text = text(path, passphrases)?;
    if text.starts_with(SCHEME) { TokenUri::parse(&text).map(KeyContent::Token) } else { Ok(KeyContent::Secret(text)) }
}

/// The signing key of a file, in it or in the token that it names.
pub(super) fn signing(path: &Path, passphrases: &Passphrases) -> Result<SigningKey, KeyFileError> {
    match read(path, passphrases)? {
        KeyContent::Secret(text) => SigningKey::from_secret_text(text.trim_end())
            .map_err(|source| KeyFileError::Content { path: path.to_owned(), source }),
        KeyContent::Token(uri) => in_token(&uri, path.parent().unwrap_or(Path::new(".")), passphrases),
    }
}

/// The key of a URI; its post-quantum half, where it has one, lies in a file beside the one with the URI.
fn in_token(uri: &TokenUri, beside: &Path, passphrases: &Passphrases) -> Result<SigningKey, KeyFileError> {
    let Some(file) = &uri.pq_file else { return token::open(uri, None, passphrases) };
    let path = beside.join(file);
    let content = |source| KeyFileError::Content { path: path.clone(), source };
    let half = match read(&path, passphrases)? {
        KeyContent::Secret(text) => SigningKey::from_secret_text(text.trim_end()).map_err(content)?,
        KeyContent::Token(_) => return Err(content(KeyError::Secret("it must hold an ml-dsa-65 secret"))),
    };
    let seed = half.mldsa_seed().ok_or_else(|| content(KeyError::Secret("it must hold an ml-dsa-65 secret")))?;
    token::open(uri, Some(seed), passphrases)
}

/// Opens what a person named: a key file, or the URI of a key in a token.
///
/// # Errors
/// As [`read`], and what the token says.
pub fn open_signing(named: &str, passphrases: &Passphrases) -> Result<SigningKey, KeyFileError> {
    if named.starts_with(SCHEME) {
        in_token(&TokenUri::parse(named)?, Path::new("."), passphrases)
    } else {
        signing(Path::new(named), passphrases)
    }
}

/// Writes a new file, mode 0600 in a folder 0700, durable. An existing one is never overwritten.
///
/// # Errors
/// What the system says.
pub fn write_new(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)
}

/// The text of a key file under a passphrase.
///
/// # Errors
/// The library fails.
pub fn seal(path: &Path, text: &str, passphrase: &str) -> Result<String, KeyFileError> {
    locked::lock(text, passphrase).map_err(|why| KeyFileError::Damaged { path: path.to_owned(), why })
}

/// Puts a key file under a passphrase: `NAME.key` becomes `NAME.key.age`. The new file is read back before the old one goes.
///
/// # Errors
/// The file is encrypted already, or cannot be read or written.
pub fn lock_file(path: &Path, passphrase: &str) -> Result<PathBuf, KeyFileError> {
    let bytes = bytes(path)?;
    let damaged = |why: &str| KeyFileError::Damaged { path: path.to_owned(), why: why.to_owned() };
    if is_locked(&bytes) {
        return Err(damaged("it is encrypted already"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text"))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".age");
    let to = PathBuf::from(name);
    let sealed = seal(&to, text, passphrase)?;
    match locked::unlock(sealed.as_bytes(), passphrase) {
        Ok(back) if back.as_str() == text => {}
        _ => return Err(damaged("what was encrypted does not come back")),
    }
    exchange(path, &to, &sealed)?;
    Ok(to)
}

/// Takes a key file's passphrase away: `NAME.key.age` becomes `NAME.key`.
///
/// # Errors
/// The passphrase is wrong, or the file cannot be read or written.
pub fn unlock_file(path: &Path, passphrases: &Passphrases) -> Result<PathBuf, KeyFileError> {
    if !is_locked(&bytes(path)?) {
        return Err(KeyFileError::Damaged { path: path.to_owned(), why: "it is not encrypted".into() });
    }
    let text = text(path, passphrases)?;
    let to = match path.extension().and_then(|e| e.to_str()) {
        Some("age") => path.with_extension(""),
        _ => path.with_extension("clear.key"),
    };
    exchange(path, &to, &text)?;
    Ok(to)
}

/// The new file is whole and on disk before the old one is removed.
fn exchange(old: &Path, new: &Path, text: &str) -> Result<(), KeyFileError> {
    write_new(new, text)?;
    std::fs::remove_file(old).map_err(|source| KeyFileError::Io { path: old.to_owned(), source })
}
