//! `key rotate`: a new key is made, registered, put in the old one's place and taken into use. Every step can be the last
//! one before a crash: run again, it goes on from there.

use super::files::make;
use super::ledger::{Desk, public_in};
use super::{file_of, label_of, root_key};
use crate::args::keys::Rotate;
use crate::commands::Ctx;
use crate::failure::{Exit, Failure};
use crate::supervisor;
use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::codes;
use concordat_protocol::keys::KeyId;
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a restarted process may take to be up.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// The process of a node that signs with keys of a role; none where people do.
fn process_of(role: KeyRole, label: &str) -> Option<&'static str> {
    match (role, label) {
        (KeyRole::Release, _) | (KeyRole::Writer, "executor") => Some("executor"),
        (KeyRole::Gateway | KeyRole::Envelope | KeyRole::Cosign, _) | (KeyRole::Writer, "broker") => Some("broker"),
        _ => None,
    }
}

fn checked(r: &Rotate, process: Option<&str>) -> Result<(), Failure> {
    if r.kind.role == KeyRole::Kem {
        let why = "what is on its way is sealed to the kem key: register a second one with `key generate` and `key prepare \
                   add`, and exchange kem.key when nothing is outstanding";
        return Err(Failure::usage(why));
    }
    if r.revoke_old && process.is_some() && !r.restart {
        let why = "--revoke-old goes with --restart: the running process still signs with the old key; or restart it and run \
                   `key revoke` then";
        return Err(Failure::usage(why));
    }
    Ok(())
}

/// `key rotate`
pub(super) async fn rotate(ctx: &Ctx, r: &Rotate) -> Result<(), Failure> {
    let role = r.kind.role;
    let label = label_of(role, r.kind.label.as_ref())?;
    let (name, process) = (file_of(role, &label), process_of(role, &label));
    checked(r, process)?;
    let desk = Desk::open(ctx, &r.opening)?;
    let current = desk.folder.find(&name)?;
    let old = current.as_deref().map(|path| public_in(path, &desk.folder)).transpose()?.map(|k| k.key_id());
    let next = next_key(ctx, r, &desk, &name, current.as_deref())?;
    let new = next.key.key_id();
    if desk.row(new).await?.is_none() && !register(ctx, r, &desk, &label, &next).await? {
        return Ok(());
    }
    desk.shows(new).await?;
    let kept = swap(&desk, &name, old)?;
    ctx.out.say(format!("{role} key {new} is in {}", desk.folder.path(&name)?.display()));
    let restarted = restart(ctx, r, &desk.cfg.dir, process)?;
    let mut revoked = None;
    if let Some(old) = old.filter(|_| r.revoke_old) {
        // A root key that was replaced is revoked by its replacement.
        if desk.row(old).await?.is_some_and(|row| row["revoked_ms"] == 0) {
            let root = root_key(&desk.folder, r.root.as_deref())?;
            let answer = desk.act(&root, ActBody::KeyRevoke { key_id: old, compromised_since_ms: 0 }).await?;
            revoked = answer["operation"].as_str().map(str::to_owned);
        }
    }
    let shown = |id: Option<KeyId>| id.map(|id| id.to_string());
    let value = json!({
        "state": "rotated", "role": role.word(), "label": label, "key_id": new.to_string(), "old_key_id": shown(old),
        "kept": kept, "restarted": restarted, "revoked": revoked,
    });
    ctx.out.result(&value, || {
        let kept = kept.as_ref().map(|k| format!("; the old one is kept in {}", k.display())).unwrap_or_default();
        format!("{role} key is {new} now{kept}")
    });
    Ok(())
}

struct Next {
    key: concordat_protocol::keys::PublicKey,
    /// It was made by an earlier run.
    resumed: bool,
}

/// The key that is to come: made now, or by a run that did not end.
fn next_key(ctx: &Ctx, r: &Rotate, desk: &Desk, name: &str, current: Option<&Path>) -> Result<Next, Failure> {
    let next = format!("{name}.next");
    if let Some(path) = desk.folder.find(&next)? {
        ctx.out.say(format!("going on with {}", path.display()));
        return Ok(Next { key: public_in(&path, &desk.folder)?, resumed: true });
    }
    let mut kind = r.kind.clone();
    // Under a passphrase stays under a passphrase.
    kind.encrypt |= current.is_some_and(|path| path.extension().is_some_and(|e| e == "age"));
    let made = make(&desk.folder.dir().join(format!("{next}.key")), &kind, desk.folder.passphrases())?;
    Ok(Next { key: made.public, resumed: false })
}

/// Registers the new key by a root act. `false`: it waits for its time.
async fn register(ctx: &Ctx, r: &Rotate, desk: &Desk, label: &str, next: &Next) -> Result<bool, Failure> {
    let role = r.kind.role;
    let root = root_key(&desk.folder, r.root.as_deref())?;
    let body = ActBody::KeyAdd { role, label: label.to_owned(), key: next.key.clone() };
    let waits = "`key rotate --role root` again, once its time has come, puts it in the old one's place";
    match desk.act(&root, body).await {
        Ok(answer) => ctx.out.say(format!("registered: {}", answer["operation"].as_str().unwrap_or_default())),
        // The ledger lets one root key wait and does not show it; this very act may have been the one that let time pass.
        Err(e) if role == KeyRole::Root && next.resumed && waiting(&e) => {
            if desk.row(next.key.key_id()).await?.is_some() {
                return Ok(true);
            }
            return Err(Failure::new(Exit::Unavailable, "root-waits", format!("the new root key waits: {waits}")));
        }
        Err(e) => return Err(e),
    }
    if role != KeyRole::Root {
        return Ok(true);
    }
    let params = desk.node().params().await?;
    let delay = params.iter().find(|(name, _)| name == "root_delay_ms").map_or(0, |(_, ms)| *ms);
    let id = next.key.key_id().to_string();
    let value = json!({"state": "waits", "role": role.word(), "label": label, "key_id": id, "delay_ms": delay});
    ctx.out.result(&value, || {
        format!("root key {id} takes the old one's place in {} s of the ledger's time; until then the old one signs.\n{waits}", delay / 1_000)
    });
    Ok(false)
}

/// How the ledger refuses a root key that waits already, or a root key that was replaced just now.
fn waiting(e: &Failure) -> bool {
    let codes = [codes::BAD_VALUE, codes::KEY_EXISTS, codes::KEY_REVOKED].map(u64::from);
    e.problem.as_ref().and_then(|p| p["ledger_code"].as_u64()).is_some_and(|code| codes.contains(&code))
}

/// Puts `NAME.next` in the place of `NAME`, which stays beside it under its id. At no moment is there no key.
fn swap(desk: &Desk, name: &str, old: Option<KeyId>) -> Result<Option<PathBuf>, Failure> {
    let folder = &desk.folder;
    let next = folder.find(&format!("{name}.next"))?;
    let next = next.ok_or_else(|| Failure::new(Exit::NotFound, "no-next-key", "the new key's file has gone"))?;
    let file = next.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let place = folder.dir().join(file.replacen(".next.", ".", 1));
    let failed =
        |path: &Path, e: std::io::Error| Failure::new(Exit::Failed, "key-file", format!("{}: {e}", path.display()));
    let mut kept = None;
    if let (Some(current), Some(old)) = (folder.find(name)?, old) {
        let file = current.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ending = file.strip_prefix(name).unwrap_or(".key");
        let aside = folder.dir().join(format!("{name}.{}.old{ending}", &old.to_string()[..8]));
        match fs::hard_link(&current, &aside) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(&aside, e)),
        }
        fs::rename(&next, &place).map_err(|e| failed(&place, e))?;
        if current != place {
            fs::remove_file(&current).map_err(|e| failed(&current, e))?;
        }
        kept = Some(aside);
    } else {
        fs::rename(&next, &place).map_err(|e| failed(&place, e))?;
    }
    let synced = fs::File::open(folder.dir()).and_then(|dir| dir.sync_all());
    synced.map_err(|e| failed(folder.dir(), e))?;
    Ok(kept)
}

/// Restarts the process that signs with the key, where that was asked; otherwise says which one it is.
fn restart(ctx: &Ctx, r: &Rotate, dir: &Path, process: Option<&'static str>) -> Result<Option<&'static str>, Failure> {
    let Some(process) = process else { return Ok(None) };
    if !r.restart {
        ctx.out.say(format!("restart the {process} of this node: until then it signs with the old key"));
        return Ok(None);
    }
    let done = tokio::task::block_in_place(|| supervisor::restart(dir, process, UP_WITHIN))?;
    ctx.out.say(if done {
        format!("{process} restarted")
    } else {
        format!("no supervisor runs here: the {process} takes the new key when it starts")
    });
    Ok(done.then_some(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_a_process_signs_with_names_its_process() {
        assert_eq!(process_of(KeyRole::Release, "release"), Some("executor"));
        assert_eq!(process_of(KeyRole::Writer, "broker"), Some("broker"));
        assert_eq!(process_of(KeyRole::Approver, "legal"), None);
    }
}
