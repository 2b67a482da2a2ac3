//! A PostgreSQL of a test's own: a cluster in a temporary folder, on a socket there, run by a user who is not root.

use concordat_executor::holding::{PostgresHolding, PostgresOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A running cluster. Its shell stops it when this process ends, however that happens: its standard input closes.
#[derive(Debug)]
pub struct Cluster {
    shell: Child,
    folder: PathBuf,
}

const RUN: &str = r#"
set -eu
trap 'kill -INT "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; rm -rf "$1"' EXIT
pid=
"$2/initdb" -D "$1/data" -U owner -A trust -E UTF8 --locale=C --no-sync >"$1/log" 2>&1
"$2/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off -c wal_level="$3" >>"$1/log" 2>&1 &
pid=$!
read -r _ || true
"#;

/// Where Debian's package or the search path has the programs.
fn programs() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = folders.map(|e| e.path().join("bin")).collect();
    found.sort();
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    found.into_iter().rev().find(|p| p.join("initdb").is_file() && p.join("postgres").is_file())
}

impl Cluster {
    /// Starts one; none where PostgreSQL is not installed.
    pub fn start(word: &str) -> Option<Self> {
        Self::start_as(word, "replica")
    }

    /// One whose changes can be followed.
    pub fn with_changes(word: &str) -> Option<Self> {
        Self::start_as(word, "logical")
    }

    fn start_as(word: &str, wal_level: &str) -> Option<Self> {
        let programs = programs()?;
        let folder = std::env::temp_dir().join(format!("concordat-pg-{word}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"));
        let mut command = if is_root {
            // The database refuses to be run by root.
            let given = Command::new("chown").arg("nobody").arg(&folder).status();
            assert!(given.is_ok_and(|s| s.success()), "the cluster's folder could not be given to nobody");
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "bash"]);
            command
        } else {
            Command::new("bash")
        };
        command.args(["-c", RUN, "postgres"]).arg(&folder).arg(&programs).arg(wal_level).current_dir("/");
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a shell");
        let cluster = Self { shell, folder };
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(e) = PostgresHolding::open(&cluster.uri(), PostgresOptions::default()) {
            let log = std::fs::read_to_string(cluster.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL did not start: {e}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(cluster)
    }

    /// Its URI, as the owner of everything.
    pub fn uri(&self) -> String {
        let host = self.folder.display().to_string().replace('/', "%2F");
        format!("postgresql://owner@{host}:5432/postgres")
    }

    fn psql(&self) -> Command {
        let program = programs().map(|p| p.join("psql")).filter(|p| p.is_file()).unwrap_or_else(|| "psql".into());
        let mut command = Command::new(program);
        command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "owner", "-d", "postgres", "-h"]);
        command.arg(&self.folder).stderr(Stdio::inherit());
        command
    }

    /// Runs statements; what they return is read and dropped.
    pub fn sql(&self, text: &str) -> std::io::Result<()> {
        let ended = self.psql().args(["-c", text]).stdout(Stdio::null()).status()?;
        if ended.success() { Ok(()) } else { Err(std::io::Error::other(format!("psql: {ended}"))) }
    }

    /// The rows of a statement, a line each.
    pub fn rows(&self, text: &str) -> std::io::Result<Vec<String>> {
        let out = self.psql().args(["-c", text]).output()?;
        let rows = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
        if out.status.success() { Ok(rows) } else { Err(std::io::Error::other(format!("psql: {}", out.status))) }
    }

    /// A session that stays open.
    pub fn session(&self) -> std::io::Result<Psql> {
        let mut child = self.psql().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(ask), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("psql has no pipes"));
        };
        Ok(Psql { ask: Some(ask), said: BufReader::new(said), child })
    }
}

/// An open session.
#[derive(Debug)]
pub struct Psql {
    ask: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    child: Child,
}

impl Psql {
    /// Runs a statement that returns nothing; when this returns it is committed.
    pub fn run(&mut self, statement: &str) -> std::io::Result<()> {
        let ask = self.ask.as_mut().ok_or_else(|| std::io::Error::other("the session is closed"))?;
        writeln!(ask, "{statement};\n\\echo done")?;
        ask.flush()?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        if line == "done\n" { Ok(()) } else { Err(std::io::Error::other(format!("psql said {line:?}"))) }
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
