//! The demo's city, made and driven by the shipped program, with an agreement of the benchmark's own.

use super::failed::BenchError;
use concordat_broker::config::{NodeConfig, RpcAddr};
use concordat_cli::context::Tokens;
use concordat_cli::supervisor::State;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The benchmark's agreement: no quota, no row filter, one record by its key or many.
pub const AGREEMENT: &str = "AGR-2026-0901";
/// Its purpose.
pub const PURPOSE: &str = "purp:bench";
const PROVIDER: &str = "police";
const CONSUMER: &str = "court";

const DOCUMENT: &str = r#"agreement: AGR-2026-0901
version: 1
paper: {title: "Benchmark", sha256: "0000000000000000000000000000000000000000000000000000000000000901"}
assigner: org:police
assignee: org:court
target: ds:police/stops@1
valid: {from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}
approvals: {assigner: [legal, data-steward], assignee: [legal]}
clauses:
- id: C1
  text: The benchmark may look up stops by their number.
  effect: permit
  assignee: {org: org:court, role: role:clerk}
  actions: [query]
  evidence: strict
  purpose: purp:bench
  legal_basis: "Measuring the system"
  duties:
  - {type: fields, allow: [stop_id, time, problem, citation_issued, neighborhood]}
- id: B1
  text: In danger to life the duty officer may override; the police review it.
  effect: break-glass
  assignee: {org: org:court, role: role:duty-officer}
  actions: [query]
  evidence: {bounded: {max_lag: 10m}}
  purpose: purp:bench-override
  duties: [{type: justification}, {type: notify, to: org:police}, {type: review, within: 24h}]
"#;

/// A running city. Dropping it stops it and removes its folders.
pub struct City {
    program: PathBuf,
    root: PathBuf,
    _folders: tempfile::TempDir,
}

impl City {
    /// `concordat demo up`, then the benchmark's agreement through the command line.
    pub async fn up(program: &Path) -> Result<Self, BenchError> {
        let city = Self::plain(program).await?;
        city.agree(AGREEMENT, DOCUMENT, PROVIDER, CONSUMER).await?;
        Ok(city)
    }

    /// `concordat demo up`
    pub async fn plain(program: &Path) -> Result<Self, BenchError> {
        let folders =
            tempfile::Builder::new().prefix("cb").tempdir().map_err(|e| BenchError::io("a temporary folder", e))?;
        let city = Self { program: program.to_owned(), root: folders.path().join("d"), _folders: folders };
        city.run(&["demo", "up", "--quiet"]).await?;
        Ok(city)
    }

    /// Puts files into an agency's folder and starts the city again, so that its processes read them.
    pub async fn with_files(&self, agency: &str, files: &[(String, String)]) -> Result<(), BenchError> {
        for (path, content) in files {
            let path = self.dir(agency).join(path);
            std::fs::write(&path, content).map_err(|e| BenchError::io(format!("writing {}", path.display()), e))?;
        }
        self.run(&["demo", "stop", "--quiet"]).await?;
        self.run(&["demo", "up", "--quiet"]).await?;
        Ok(())
    }

    /// Brings an agreement into force, through the command line.
    pub async fn agree(&self, id: &str, document: &str, provider: &str, consumer: &str) -> Result<(), BenchError> {
        let name = format!("agreements/{id}.yaml");
        for agency in [provider, consumer] {
            // The executor reads the document that the approvals are for.
            let path = self.dir(agency).join(&name);
            std::fs::write(&path, document).map_err(|e| BenchError::io(format!("writing {}", path.display()), e))?;
        }
        let (provider, consumer) = (self.dir(provider), self.dir(consumer));
        let (document, provider, consumer) = (text(&provider.join(&name)), text(&provider), text(&consumer));
        self.run(&["agreement", "propose", &document, "--dir", &provider]).await?;
        for (role, dir) in [("legal", &provider), ("data-steward", &provider), ("legal", &consumer)] {
            self.run(&["agreement", "approve", id, "--role", role, "--dir", dir]).await?;
        }
        Ok(())
    }

    /// The shipped program with these arguments, in this city.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("CONCORDAT_DEMO", &self.root);
        command
    }

    async fn run(&self, args: &[&str]) -> Result<Output, BenchError> {
        // Killed when the benchmark is stopped meanwhile, so that it starts nothing after the city was reset.
        let out = tokio::process::Command::from(self.command(args)).kill_on_drop(true).output().await;
        let out = out.map_err(|e| BenchError::io(format!("starting {}", self.program.display()), e))?;
        if out.status.success() {
            return Ok(out);
        }
        let said: String = String::from_utf8_lossy(&out.stderr).trim().chars().take(600).collect();
        Err(BenchError::refused(format!("concordat {}", args.join(" ")), said))
    }

    /// An agency's folder.
    pub fn dir(&self, agency: &str) -> PathBuf {
        self.root.join(agency)
    }

    /// An agency's configuration.
    pub fn config(&self, agency: &str) -> Result<NodeConfig, BenchError> {
        NodeConfig::load(&self.dir(agency)).map_err(|e| BenchError::refused("node.yaml", e))
    }

    /// Where the consumer's gateway listens, and a clerk's token.
    pub fn clerk(&self) -> Result<(RpcAddr, String), BenchError> {
        self.gateway(CONSUMER, "clerk")
    }

    /// Where an agency's gateway listens, and a user's token.
    pub fn gateway(&self, agency: &str, user: &str) -> Result<(RpcAddr, String), BenchError> {
        let cfg = self.config(agency)?;
        let path = cfg.keys().join("tokens.yaml");
        let text =
            std::fs::read_to_string(&path).map_err(|e| BenchError::io(format!("reading {}", path.display()), e))?;
        let tokens: Tokens = serde_saphyr::from_str(&text).map_err(|e| BenchError::refused("tokens.yaml", e))?;
        let found = tokens.tokens.into_iter().find(|t| t.name == user);
        let found = found.ok_or_else(|| BenchError::refused("tokens.yaml", format!("it names no {user}")))?;
        Ok((RpcAddr::Tcp(cfg.listen), found.token))
    }

    /// `trust.json` as the consumer exports it.
    pub async fn trust(&self) -> Result<String, BenchError> {
        let (dir, path) = (text(&self.dir(CONSUMER)), self.root.join("bench-trust.json"));
        self.run(&["trust", "export", &text(&path), "--dir", &dir, "--quiet"]).await?;
        std::fs::read_to_string(&path).map_err(|e| BenchError::io(format!("reading {}", path.display()), e))
    }

    /// The provider's holding.
    pub fn holding(&self) -> Result<PathBuf, BenchError> {
        Ok(self.config(PROVIDER)?.holdings())
    }

    /// Kills an agency's supervisor and with it all of its processes, as a machine that fails.
    pub fn kill_node(&self, agency: &str) -> Result<(), BenchError> {
        let state = State::read(&self.dir(agency));
        let killed = state.is_some_and(|s| s.supervisor.kill_hard());
        if killed { Ok(()) } else { Err(BenchError::refused(format!("killing {agency}"), "no supervisor runs there")) }
    }

    /// Process ids by kind.
    pub fn groups(&self) -> BTreeMap<String, Vec<u32>> {
        let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        for state in entries.filter_map(|e| State::read(&e.path())) {
            groups.entry("supervisor".into()).or_default().push(state.supervisor.pid);
            for process in state.processes {
                groups.entry(process.name).or_default().extend(process.process.map(|p| p.pid));
            }
        }
        groups
    }
}

impl Drop for City {
    fn drop(&mut self) {
        match self.command(&["demo", "reset", "--quiet"]).output() {
            Ok(out) if out.status.success() => {}
            Ok(out) => eprintln!("the city of the benchmark was not stopped: {}", String::from_utf8_lossy(&out.stderr)),
            Err(e) => eprintln!("the city of the benchmark was not stopped: {e}"),
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
