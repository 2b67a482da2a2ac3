//! `key`: the life of an agency's keys. Acts are signed here with the root key, from a file or a token, and travel through
//! the agency's own gateway; no process of the node ever needs the root key.

mod epoch;
mod files;
mod ledger;
mod offline;
mod rotate;
mod words;

use super::Ctx;
use crate::args::Key;
use crate::args::keys::Opening;
use crate::failure::{Exit, Failure};
use concordat_broker::config::NodeConfig;
use concordat_broker::keys::{self, KeyFolder, Passphrases};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::keys::{SigningKey, Suite};
use std::io::{IsTerminal, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Runs a `key` command.
pub async fn run(ctx: &Ctx, key: &Key) -> Result<(), Failure> {
    match key {
        Key::List => ledger::list(ctx).await,
        Key::Generate(g) => files::generate(ctx, g),
        Key::Rotate(r) => rotate::rotate(ctx, r).await,
        Key::Revoke(r) => ledger::revoke(ctx, r).await,
        Key::Encrypt { file, opening } => files::encrypt(ctx, file, opening),
        Key::Decrypt { file, opening } => files::decrypt(ctx, file, opening),
        Key::EpochSign(e) => epoch::sign(ctx, e).await,
        Key::Prepare(p) => offline::prepare(ctx, p).await,
        Key::Sign(s) => offline::sign(ctx, s),
        Key::Submit { file } => offline::submit(ctx, file).await,
    }
}

/// Asks for a secret at the terminal, without an echo.
pub fn prompt(what: &str) -> std::io::Result<Zeroizing<String>> {
    rpassword::prompt_password(format!("{what}: ")).map(Zeroizing::new)
}

/// Asks for a new secret, twice.
fn prompt_new(what: &str) -> std::io::Result<Zeroizing<String>> {
    let (first, again) = (prompt(what)?, prompt("once more")?);
    if first.is_empty() || first != again {
        return Err(std::io::Error::other("the two differ, or are empty: begin again"));
    }
    Ok(first)
}

/// Where passphrases come from: the command line, the node's configuration where there is one, else a person.
fn passphrases(ctx: &Ctx, opening: &Opening) -> Result<Passphrases, Failure> {
    let own = match ctx.dir() {
        Ok(dir) => Passphrases::of(&NodeConfig::load(&dir)?),
        Err(_) => Passphrases::without_config(Path::new(".")),
    };
    let own = own.asking(prompt);
    Ok(match &opening.passphrase {
        Some(reference) => own.named(reference.clone()),
        None => own,
    })
}

/// A new file's passphrase.
fn new_passphrase(passphrases: &Passphrases, name: &str, file: &Path) -> Result<Zeroizing<String>, Failure> {
    let what = format!("new passphrase of {}", file.display());
    let found = passphrases.clone().asking(prompt_new).get(name, &what);
    found.map_err(|why| {
        Failure::usage(format!("no passphrase for {}: {why}; name one with --passphrase", file.display()))
    })
}

/// The root key that a command names, by default the one in the folder.
fn root_key(folder: &KeyFolder, named: Option<&str>) -> Result<SigningKey, Failure> {
    match named {
        Some(named) => Ok(keys::open_signing(named, folder.passphrases())?),
        None if folder.find(keys::ROOT)?.is_some() => Ok(folder.signing(keys::ROOT)?),
        None => Err(Failure::new(
            Exit::NotFound,
            "no-root-key",
            format!(
                "there is no root key in {}: name it with --root, or use `key prepare`, `key sign` where the root key is, \
                 and `key submit`",
                folder.dir().display()
            ),
        )),
    }
}

/// Name of the file in the keys folder that a node's processes read for a role.
fn file_of(role: KeyRole, label: &str) -> String {
    match role {
        KeyRole::Approver => keys::approver(label),
        KeyRole::Writer => format!("writer-{label}"),
        other => other.word().to_owned(),
    }
}

/// The label where none is named: the role's own name. Approvers and writers have none of their own.
fn label_of(role: KeyRole, label: Option<&String>) -> Result<String, Failure> {
    match (label, role) {
        (Some(label), _) => Ok(label.clone()),
        (None, KeyRole::Approver) => Err(Failure::usage("name the approval role with --label, for example legal")),
        (None, KeyRole::Writer) => Err(Failure::usage("name the writer with --label: executor or broker")),
        (None, other) => Ok(other.word().to_owned()),
    }
}

/// The suite of a role's keys (PROTOCOL 2).
fn suite_of(role: KeyRole, asked: Option<Suite>) -> Result<Suite, Failure> {
    let must = match role {
        KeyRole::Root | KeyRole::Approver | KeyRole::Cosign => Some(Suite::Hybrid),
        KeyRole::Writer | KeyRole::Release => Some(Suite::Ed25519),
        KeyRole::Kem => Some(Suite::XWing),
        KeyRole::Security | KeyRole::Envelope | KeyRole::Gateway => None,
    };
    match (must, asked) {
        (Some(must), Some(asked)) if must != asked => {
            Err(Failure::usage(format!("a {role} key is {must}, not {asked}")))
        }
        (must, asked) => Ok(must.or(asked).unwrap_or(Suite::Ed25519)),
    }
}

/// Whether a person at the terminal says yes; elsewhere `--yes` says it.
fn confirmed(ctx: &Ctx, yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Say so with --yes: nobody can be asked here")));
    }
    ctx.out.say(format!("{question} [y/N]"));
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err(Failure::usage("nothing was signed")) }
}
