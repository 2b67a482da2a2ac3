//! `pod`: what the containers of the Helm chart do before and beside the node's own processes, so that their image needs
//! no shell. On a machine of its own a node has the supervisor instead.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use concordat_broker::config::{NodeConfig, RpcAddr};

use super::Ctx;
use crate::args::{Pod, PodPart};
use crate::failure::{Exit, Failure};
use crate::layout::{private_dir, private_file};
use crate::servers::{self, Server};
use crate::supervisor::{Listens, comet_status, listens};

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one `GET` may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a validator has signed before its first block: nothing.
const FIRST_STATE: &str = "{\n  \"height\": \"0\",\n  \"round\": 0,\n  \"step\": 0\n}";

/// Runs a `pod` command.
pub async fn run(ctx: &Ctx, pod: &Pod) -> Result<(), Failure> {
    match pod {
        Pod::Keys { from } => {
            let names = keys(&ctx.dir()?, from)?;
            ctx.out.say(format!("keys/ holds {}", names.join(", ")));
            Ok(())
        }
        Pod::Comet { first_start, wait } => {
            comet(&NodeConfig::load(&ctx.dir()?)?, *first_start, Duration::from_secs(*wait)).await
        }
        Pod::Probe { part } => probe(&NodeConfig::load(&ctx.dir()?)?, *part).await,
        Pod::Ready { url, wait } => ready(ctx, url, Duration::from_secs(*wait)).await,
    }
}

fn failed(path: &Path, what: &str, e: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        "pod-io",
        format!("{} cannot be {what} ({e}): check the volume and its owner", path.display()),
    )
}

/// Copies mounted secrets into `keys/`, mode 0600. A mounted secret belongs to root and to the pod's group, and the node's
/// processes refuse a key that a group may read.
fn keys(dir: &Path, from: &Path) -> Result<Vec<String>, Failure> {
    let to = dir.join("keys");
    private_dir(&to)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(|e| failed(from, "read", &e))? {
        let entry = entry.map_err(|e| failed(from, "read", &e))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // A mounted secret's own bookkeeping (`..data`), which its files are links into.
        if name.starts_with("..") || !path.is_file() {
            continue;
        }
        let bytes = zeroize::Zeroizing::new(fs::read(&path).map_err(|e| failed(&path, "read", &e))?);
        private_file(&to.join(&name), &bytes)?;
        names.push(name);
    }
    if names.is_empty() {
        let rule =
            format!("{} holds no file: name a Secret with the node's keys in `keys.existingSecret`", from.display());
        return Err(Failure::new(Exit::Usage, "pod-keys", rule));
    }
    names.sort();
    Ok(names)
}

/// Becomes CometBFT, once the application listens. Comes back only with an error.
async fn comet(cfg: &NodeConfig, first_start: bool, wait: Duration) -> Result<(), Failure> {
    let program = servers::find(Server::CometBft)?;
    signing_state(&cfg.comet_home(), first_start)?;
    let end = Instant::now() + wait;
    while !app_listens(cfg).await {
        if Instant::now() > end {
            let text = format!(
                "the application does not listen at {} after {} s: see its container's log",
                cfg.abci_socket().display(),
                wait.as_secs()
            );
            return Err(Failure::new(Exit::Unavailable, "pod-application", text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let RpcAddr::Unix(socket) = cfg.rpc()? {
        // Left by a killed CometBFT, which refuses to bind over it.
        match fs::remove_file(&socket) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&socket, "removed", &e)),
            _ => {}
        }
    }
    let e = Command::new(&program).arg("start").arg("--home").arg(cfg.comet_home()).exec();
    Err(failed(&program, "started", &e))
}

/// A key that lost the memory of what it signed may sign a height twice, and that is punished like forgery. So a missing
/// state is made only where the operator says that this validator never signed.
fn signing_state(home: &Path, first_start: bool) -> Result<(), Failure> {
    let path = home.join("data/priv_validator_state.json");
    match (path.try_exists().map_err(|e| failed(&path, "looked at", &e))?, first_start) {
        (true, _) => Ok(()),
        (false, true) => Ok(private_file(&path, FIRST_STATE.as_bytes())?),
        (false, false) => Err(Failure::new(
            Exit::Conflict,
            "signing-state",
            format!(
                "{} is missing: this validator's key does not start without its signing state, it might sign a height twice. \
                 Restore the volume; only if this key never signed set validator.firstStart=true for one start",
                path.display()
            ),
        )),
    }
}

/// Looked up, not connected to: the application serves one CometBFT.
async fn app_listens(cfg: &NodeConfig) -> bool {
    listens(&Listens::Unix(cfg.abci_socket())).await && listens(&Listens::Unix(cfg.node_socket())).await
}

async fn probe(cfg: &NodeConfig, part: PodPart) -> Result<(), Failure> {
    let (well, what) = match part {
        PodPart::App => (app_listens(cfg).await, format!("nobody listens at {}", cfg.abci_socket().display())),
        PodPart::Comet => (comet_status(&cfg.rpc()?).await.is_some(), format!("no answer at {}", cfg.comet.rpc)),
    };
    if well { Ok(()) } else { Err(Failure::new(Exit::Unavailable, "pod-probe", what)) }
}

/// `GET url` until it answers 200; the last answer is shown, it names what is failing.
async fn ready(ctx: &Ctx, url: &str, wait: Duration) -> Result<(), Failure> {
    let http = reqwest::Client::builder().timeout(PATIENCE).build();
    let http = http.map_err(|e| Failure::new(Exit::Failed, "http", e.to_string()))?;
    let end = Instant::now() + wait;
    loop {
        let said = match http.get(url).send().await {
            Ok(answer) => {
                let status = answer.status();
                let body = answer.text().await.unwrap_or_default();
                if status == reqwest::StatusCode::OK {
                    ctx.out.say(&body);
                    return Ok(());
                }
                format!("HTTP {status}: {body}")
            }
            Err(e) => e.to_string(),
        };
        if Instant::now() > end {
            return Err(Failure::new(Exit::Unavailable, "not-ready", format!("{url}: {said}")));
        }
        tokio::time::sleep(LOOK_EVERY * 10).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Kubernetes mounts `name -> ..data/name`, `..data -> ..2026_..`, files readable by the group.
    #[test]
    fn mounted_secrets_become_private_files_and_follow_a_rotation() {
        let (node, mount) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inner = mount.path().join("..2026_11_22");
        fs::create_dir(&inner).unwrap();
        symlink("..2026_11_22", mount.path().join("..data")).unwrap();
        for (name, text) in [("gateway.key", "one"), ("tokens.yaml", "tokens: []")] {
            fs::write(inner.join(name), text).unwrap();
            fs::set_permissions(inner.join(name), fs::Permissions::from_mode(0o440)).unwrap();
            symlink(format!("..data/{name}"), mount.path().join(name)).unwrap();
        }
        assert_eq!(keys(node.path(), mount.path()).unwrap(), ["gateway.key", "tokens.yaml"]);
        let key = node.path().join("keys/gateway.key");
        assert_eq!((fs::read_to_string(&key).unwrap().as_str(), mode(&key)), ("one", 0o600));
        let left: Vec<_> = fs::read_dir(node.path().join("keys")).unwrap().collect();
        assert_eq!(left.len(), 2, "only the keys themselves");
        fs::remove_file(inner.join("gateway.key")).unwrap();
        fs::write(inner.join("gateway.key"), "two").unwrap();
        keys(node.path(), mount.path()).unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), "two");
    }

    #[test]
    fn an_empty_mount_is_refused_with_the_value_to_set() {
        let (node, mount) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let e = keys(node.path(), mount.path()).err().unwrap();
        assert!(e.message.contains("keys.existingSecret"), "{e}");
    }

    #[test]
    fn a_key_without_its_state_does_not_start_and_a_state_is_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("data")).unwrap();
        let path = home.path().join("data/priv_validator_state.json");
        assert_eq!(signing_state(home.path(), false).err().unwrap().code, "signing-state");
        assert!(!path.exists());
        signing_state(home.path(), true).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::write(&path, "signed").unwrap();
        signing_state(home.path(), true).unwrap();
        signing_state(home.path(), false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "signed");
    }
}
