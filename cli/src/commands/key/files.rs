//! Key files: made, encrypted, decrypted.

use super::{label_of, new_passphrase, passphrases, suite_of};
use crate::args::keys::{Generate, Kind, Opening};
use crate::commands::Ctx;
use crate::failure::{Exit, Failure};
use concordat_broker::keys::{self, Passphrases, TokenUri, lock_file, name_of, seal, unlock_file, write_new};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::keys::{KemKey, KeyError, PublicKey, SigningKey, Suite};
use serde_json::json;
use std::path::{Path, PathBuf};

fn failed(e: &KeyError) -> Failure {
    Failure::new(Exit::Failed, e.code().to_string(), e.to_string())
}

/// A key that was made, and where it lies.
pub(super) struct Made {
    pub(super) public: PublicKey,
    pub(super) file: PathBuf,
}

/// The file under its ending: `.key`, with a passphrase `.key.age`.
fn ending(out: &Path, encrypt: bool) -> PathBuf {
    let is = |e| out.extension().is_some_and(|x| x == e);
    if encrypt && !is("age") {
        let mut name = out.as_os_str().to_owned();
        name.push(".age");
        return name.into();
    }
    out.to_owned()
}

/// Writes a key's text, under a passphrase where asked.
fn store(out: &Path, text: &str, encrypt: bool, passphrases: &Passphrases) -> Result<PathBuf, Failure> {
    let file = ending(out, encrypt);
    if !encrypt {
        write_new(&file, text)?;
        return Ok(file);
    }
    let name = name_of(&file).unwrap_or_default();
    let passphrase = new_passphrase(passphrases, &name, &file)?;
    write_new(&file, &seal(&file, text, &passphrase)?)?;
    Ok(file)
}

/// The file of a post-quantum half beside `NAME.key`. Its own key's name is in it: it is never renamed when keys rotate.
fn half_of(out: &Path, half: &PublicKey) -> PathBuf {
    let name = name_of(out).unwrap_or_default();
    let base = name.split('.').next().unwrap_or_default();
    out.with_file_name(format!("{base}.{}.pq.key", &half.key_id().to_string()[..8]))
}

/// A key in a token: its file holds the URI. Of a hybrid key the post-quantum half lies in a file beside it.
fn in_token(out: &Path, uri: &str, suite: Suite, encrypt: bool, passphrases: &Passphrases) -> Result<Made, Failure> {
    let parsed = TokenUri::parse(uri)?;
    if parsed.pq_file.is_some() {
        return Err(Failure::usage("x-pq-file is written by this command, not named to it"));
    }
    let mut text = uri.to_owned();
    if suite == Suite::Hybrid {
        let half = SigningKey::generate(Suite::MlDsa65).map_err(|e| failed(&e))?;
        let file = store(&half_of(out, half.public()), &half.to_secret_text(), encrypt, passphrases)?;
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        text = format!("{text}&x-pq-file={name}");
    }
    keys::generate_in_token(&parsed, passphrases)?;
    write_new(out, &format!("{text}\n"))?;
    let path = out.to_str().ok_or_else(|| Failure::usage("the file's name is no UTF-8"))?;
    let key = keys::open_signing(path, passphrases)?;
    Ok(Made { public: key.public().clone(), file: out.to_owned() })
}

/// Makes a key of a kind in `out`.
pub(super) fn make(out: &Path, kind: &Kind, passphrases: &Passphrases) -> Result<Made, Failure> {
    let suite = suite_of(kind.role, kind.suite)?;
    if let Some(uri) = &kind.token {
        if suite == Suite::XWing {
            return Err(Failure::usage("tokens have no X-Wing: keep the kem key in a file, with --encrypt"));
        }
        return in_token(out, uri, suite, kind.encrypt, passphrases);
    }
    let (text, public) = if kind.role == KeyRole::Kem {
        let key = KemKey::generate().map_err(|e| failed(&e))?;
        (key.to_secret_text(), key.public().clone())
    } else {
        let key = SigningKey::generate(suite).map_err(|e| failed(&e))?;
        (key.to_secret_text(), key.public().clone())
    };
    Ok(Made { file: store(out, &text, kind.encrypt, passphrases)?, public })
}

/// `key generate`
pub(super) fn generate(ctx: &Ctx, g: &Generate) -> Result<(), Failure> {
    let label = label_of(g.kind.role, g.kind.label.as_ref())?;
    let made = make(&g.out, &g.kind, &passphrases(ctx, &g.opening)?)?;
    let (id, public) = (made.public.key_id().to_string(), made.public.to_text());
    let value = json!({
        "role": g.kind.role.word(), "label": label, "key_id": id, "suite": made.public.suite.word(),
        "file": made.file, "public": public,
    });
    ctx.out.result(&value, || {
        let file = made.file.display();
        format!("{} key {id} ({label}) in {file}\npublic half, for `key prepare add --public`:\n{public}", g.kind.role)
    });
    Ok(())
}

/// `key encrypt`
pub(super) fn encrypt(ctx: &Ctx, file: &Path, opening: &Opening) -> Result<(), Failure> {
    let passphrases = passphrases(ctx, opening)?;
    let name = name_of(file).ok_or_else(|| Failure::usage("a key file is named NAME.key"))?;
    let to = lock_file(file, &new_passphrase(&passphrases, &name, file)?)?;
    ctx.out.result(&json!({"file": to}), || {
        format!("{}; keep the passphrase where the file is not: without it the key is lost", to.display())
    });
    Ok(())
}

/// `key decrypt`
pub(super) fn decrypt(ctx: &Ctx, file: &Path, opening: &Opening) -> Result<(), Failure> {
    let to = unlock_file(file, &passphrases(ctx, opening)?)?;
    ctx.out.result(&json!({"file": to}), || format!("{}, readable by its owner alone", to.display()));
    Ok(())
}
