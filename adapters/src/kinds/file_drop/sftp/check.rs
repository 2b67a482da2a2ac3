//! What can be told of a server without writing.

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::StatusCode;

use super::super::document::After;
use super::{Remote, file_error};
use crate::contract::Finding;

/// The steps of a connection, and the code of an error that ends each.
const STEPS: &[(&str, &[&str])] = &[
    ("server", &["source.unreachable", "source.timeout", "source.protocol"]),
    ("host-key", &["source.host-key"]),
    ("login", &["source.secret", "source.login"]),
    ("sftp", &["source.rights"]),
];

/// Connects and looks at what `after` needs.
pub(super) fn check(remote: &mut Remote, after: &After) -> Vec<Finding> {
    let at = remote.server.shown.clone();
    let sentence = |step: &str| match step {
        "server" => format!("{at}: answers"),
        "host-key" => format!("shows the key {}", remote.server.host_key),
        "login" => format!("took the login of {}", remote.server.user),
        _ => "the account may use SFTP".to_owned(),
    };
    let done: Vec<Finding> = STEPS.iter().map(|(step, _)| Finding::ok(step, sentence(step))).collect();
    if let Err(error) = remote.connect() {
        let step = STEPS.iter().position(|(_, codes)| codes.contains(&error.code())).unwrap_or(0);
        // A secret is looked for before the server is.
        let reached = if error.code() == "source.secret" { 0 } else { step };
        let mut found: Vec<Finding> = done.into_iter().take(reached).collect();
        found.push(Finding::failed(STEPS.get(step).map_or("server", |(name, _)| name), &error));
        return found;
    }
    let mut found = done;
    if after.delete || after.folders().next().is_some() {
        found.push(rights(remote));
    }
    for folder in after.folders() {
        let path = remote.path(folder);
        if let Ok(Ok(Some(meta))) = remote.metadata(path.clone())
            && !meta.file_type().is_dir()
        {
            found.push(Finding::fail("after", format!("{path} is no folder"), "name a folder in `after`"));
        }
    }
    found
}

/// The right to move a file away, as far as it can be told without writing: a server that lets nobody rename says so even
/// for names that are not there, and the folder's permissions say who may.
fn rights(remote: &mut Remote) -> Finding {
    let next = "let the account write to the folder, or leave `after` out";
    let name = format!(".concordat-check-{}", std::process::id());
    let (from, to) = (remote.path(&name), remote.path(&format!("{name}-to")));
    let (folder, shown) = (remote.server.folder.clone(), remote.server.shown.clone());
    let renamed = match remote.ask(async |s| s.sftp.rename(from, to).await) {
        Ok(answer) => answer,
        Err(error) => return Finding::failed("rights", &error),
    };
    match &renamed {
        Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => {}
        Err(error) => return Finding::failed("rights", &file_error(&shown, "rename in it", error)),
        Ok(()) => {}
    }
    let home = remote.metadata(".".to_owned()).ok().and_then(Result::ok).flatten();
    let meta = remote.metadata(folder).ok().and_then(Result::ok).flatten();
    let Some((mode, owner)) = meta.as_ref().and_then(|m| Some((m.permissions?, m.uid))) else {
        return Finding::warn("rights", format!("{shown}: the server does not say who may move files"), next);
    };
    // Who we are there, the protocol does not say; the home folder is most often the account's own.
    let own = owner.is_some() && owner == home.and_then(|h| h.uid);
    let may = if own { mode & 0o200 != 0 } else { mode & 0o022 != 0 };
    match may {
        true => Finding::ok("rights", "files can be moved there, as far as the permissions say"),
        false => Finding::warn("rights", format!("{shown}: the account can likely not move files away"), next),
    }
}
