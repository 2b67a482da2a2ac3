//! A PostgreSQL of a test's own: a cluster in a temporary folder, on a socket there, run by a user who is not root.

use concordat_executor::holding::{PostgresHolding, PostgresOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
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
"$2/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off >>"$1/log" 2>&1 &
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
        command.args(["-c", RUN, "postgres"]).arg(&folder).arg(&programs).current_dir("/");
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
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
