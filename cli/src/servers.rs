//! The pinned servers: where they are, and whether they are the versions this release was tried with.

use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// Environment variable that names a folder holding `cometbft` and `nats-server`.
pub const SERVERS_ENV: &str = "CONCORDAT_SERVERS";

/// A server that Concordat starts but does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Consensus.
    CometBft,
    /// Streams.
    NatsServer,
}

impl Server {
    /// Name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::CometBft => "cometbft",
            Self::NatsServer => "nats-server",
        }
    }
    /// The one version that is used.
    pub fn version(self) -> &'static str {
        match self {
            Self::CometBft => "0.38.25",
            Self::NatsServer => "2.15.2",
        }
    }
    fn version_flag(self) -> &'static str {
        match self {
            Self::CometBft => "version",
            Self::NatsServer => "--version",
        }
    }
}

/// Why a server cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ServersError {
    /// It is nowhere.
    #[error("{name} {version} was not found in {looked}: run `make servers`, or name its folder in {SERVERS_ENV}")]
    Missing {
        /// The server.
        name: &'static str,
        /// The version wanted.
        version: &'static str,
        /// Where it was looked for.
        looked: String,
    },
    /// It is another version.
    #[error("{path} is {found}, not {name} {version}: run `make servers`, or point {SERVERS_ENV} to the right folder")]
    Version {
        /// The file that was found.
        path: String,
        /// What it says of itself.
        found: String,
        /// The server.
        name: &'static str,
        /// The version wanted.
        version: &'static str,
    },
}

impl ServersError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "server-missing",
            Self::Version { .. } => "server-version",
        }
    }
}

/// Paths of both servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// `cometbft`
    pub cometbft: PathBuf,
    /// `nats-server`
    pub nats_server: PathBuf,
}

impl Servers {
    /// Finds and checks both.
    pub fn find() -> Result<Self, ServersError> {
        Ok(Self { cometbft: find(Server::CometBft)?, nats_server: find(Server::NatsServer)? })
    }
}

/// Finds one server in the folder of `CONCORDAT_SERVERS`, else in the user's cache, and checks its version.
pub fn find(server: Server) -> Result<PathBuf, ServersError> {
    let var = |n: &str| std::env::var_os(n).filter(|v| !v.is_empty()).map(PathBuf::from);
    find_in(server, var(SERVERS_ENV), cache(var("XDG_CACHE_HOME"), var("HOME")))
}

fn cache(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    Some(xdg.or_else(|| home.map(|h| h.join(".cache")))?.join("concordat/servers"))
}

fn find_in(server: Server, named: Option<PathBuf>, cache: Option<PathBuf>) -> Result<PathBuf, ServersError> {
    let (name, version) = (server.name(), server.version());
    let path = match (named, cache) {
        (Some(folder), _) => folder.join(name),
        (None, Some(cache)) => cache.join(format!("{name}-{version}")).join(name),
        (None, None) => {
            return Err(ServersError::Missing { name, version, looked: "any cache folder (HOME is not set)".into() });
        }
    };
    if !path.is_file() {
        return Err(ServersError::Missing {
            name,
            version,
            looked: path.parent().unwrap_or(Path::new("/")).display().to_string(),
        });
    }
    let said = match Command::new(&path).arg(server.version_flag()).output() {
        Ok(out) => String::from_utf8_lossy(&out.stdout).trim().chars().take(80).collect::<String>(),
        Err(e) => format!("not a program that runs here ({e})"),
    };
    let found = said.rsplit([' ', '\n']).next().unwrap_or_default().trim_start_matches('v');
    // A build from source may add its commit: `0.38.25+abc`.
    if found.split('+').next() == Some(version) {
        return Ok(path);
    }
    let found = if said.is_empty() { "silent about its version".to_owned() } else { said };
    Err(ServersError::Version { path: path.display().to_string(), found, name, version })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, name: &str, says: &str) {
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_right_version_is_taken_from_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        script(&dir.path().join("nats-server-2.15.2"), "nats-server", "nats-server: v2.15.2");
        script(&dir.path().join("cometbft-0.38.25"), "cometbft", "0.38.25");
        for s in [Server::NatsServer, Server::CometBft] {
            let found = find_in(s, None, Some(dir.path().into())).unwrap();
            assert!(found.ends_with(format!("{0}-{1}/{0}", s.name(), s.version())));
        }
    }

    #[test]
    fn an_old_or_missing_server_is_one_sentence_that_says_what_to_run() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "nats-server", "nats-server: v2.9.0");
        let old = find_in(Server::NatsServer, Some(dir.path().into()), None).unwrap_err();
        assert_eq!(old.code(), "server-version");
        assert!(old.to_string().contains("v2.9.0") && old.to_string().contains("make servers"), "{old}");
        let none = find_in(Server::CometBft, Some(dir.path().into()), None).unwrap_err();
        assert_eq!(none.code(), "server-missing");
        assert!(none.to_string().contains("make servers"), "{none}");
    }
}
