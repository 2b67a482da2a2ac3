//! Servers of this test run's own: in a temporary folder, on a socket there, run by a user who is not root.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A server under a shell. The shell stops it when this process ends, however that happens: its standard input closes.
pub struct Server {
    shell: Mutex<(Child, BufReader<ChildStdout>)>,
    pub folder: PathBuf,
    pub kind: Kind,
    /// Where it listens with TLS, and with TLS alone; on its socket only when none.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Maria,
    Sqlite,
}

const LOOP: &str = r#"
set -u
pid= folder=$1
stop() { [[ -z $pid ]] || { kill "-$1" "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; pid=; }; }
trap 'stop KILL; rm -rf "$1"' EXIT
# Two certificates for `localhost`, each its own authority, where there is a port.
certificates() {
  [[ -n $1 ]] || return 0
  for n in cert other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
      -addext basicConstraints=critical,CA:FALSE -keyout "$folder/$n.key" -out "$folder/$n.pem" >"$folder/log" 2>&1 || return 1
  done
}
"#;
const POSTGRES: &str = r#"
certificates "$3" || exit 1
"$2/initdb" -D "$1/data" -U owner -A trust -E UTF8 --locale=C --no-sync >"$1/log" 2>&1 || exit 1
printf 'local all owner trust\nlocal replication owner trust\nlocal all all scram-sha-256\n' >"$1/data/pg_hba.conf"
printf 'hostssl all,replication all 127.0.0.1/32 scram-sha-256\n' >>"$1/data/pg_hba.conf"
tls=(-c listen_addresses=)
[[ -z $3 ]] || tls=(-c listen_addresses=127.0.0.1 -c "port=$3" -c ssl=on -c "ssl_cert_file=$1/cert.pem" -c "ssl_key_file=$1/cert.key")
run() {
  "$2/postgres" -D "$1/data" -k "$1" "${tls[@]}" -c fsync=off -c wal_level=logical -c max_wal_senders=30 \
    -c max_replication_slots=200 -c max_connections=150 >>"$1/log" 2>&1 &
}
"#;
const MARIA: &str = r#"
certificates "$3" || exit 1
mariadb-install-db --no-defaults --datadir="$1/data" --auth-root-authentication-method=normal --skip-test-db >"$1/log" 2>&1 || exit 1
tls=(--skip-networking)
[[ -z $3 ]] || tls=(--bind-address=127.0.0.1 --skip-name-resolve "--port=$3" "--ssl-cert=$1/cert.pem" "--ssl-key=$1/cert.key" --require-secure-transport=on)
run() {
  mariadbd --no-defaults --datadir="$1/data" --socket="$1/s" "${tls[@]}" --pid-file="$1/pid" --innodb-flush-log-at-trx-commit=2 \
    --innodb-buffer-pool-size=32M >>"$1/log" 2>&1 &
}
"#;
const SERVE: &str = r#"
while read -r word; do
  case $word in
    start) run "$1" "$2"; pid=$! ;;
    *) stop "$word" ;;
  esac
  echo done
done
"#;

fn postgres_programs() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = folders.map(|e| e.path().join("bin")).collect();
    found.sort();
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    found.into_iter().rev().find(|p| p.join("initdb").is_file() && p.join("postgres").is_file())
}

fn installed(program: &str) -> bool {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    folders.push("/usr/sbin".into());
    folders.iter().any(|f| f.join(program).is_file())
}

impl Server {
    /// Starts one on a socket; none where it is not installed.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::listening(kind, None)
    }

    /// Starts one that others reach by TLS alone; none where it is not installed, or openssl is not.
    pub fn with_tls(kind: Kind) -> Option<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if installed("openssl") { Self::listening(kind, Some(free)) } else { None }
    }

    fn listening(kind: Kind, port: Option<u16>) -> Option<Self> {
        let (programs, script) = match kind {
            Kind::Postgres => (postgres_programs()?, POSTGRES),
            Kind::Maria if installed("mariadbd") && installed("mariadb-install-db") => (PathBuf::new(), MARIA),
            _ => return None,
        };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("concordat-sql-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"));
        let mut command = if is_root {
            // The databases refuse to be run by root.
            assert!(Command::new("chown").arg("nobody").arg(&folder).status().unwrap().success());
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "bash"]);
            command
        } else {
            Command::new("bash")
        };
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).args(["-c", &format!("{LOOP}{script}{SERVE}"), "server"]).arg(&folder).arg(&programs);
        command.arg(port.map_or_else(String::new, |p| p.to_string()));
        let shell = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let out = BufReader::new(shell.stdout.take().unwrap());
        let server = Self { shell: Mutex::new((shell, out)), folder, kind, port };
        server.say("start");
        server.wait();
        Some(server)
    }

    /// `start`, or a signal such as `KILL` and `QUIT`.
    pub fn say(&self, word: &str) {
        let mut shell = self.shell.lock().unwrap();
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        writeln!(shell.0.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut answer = String::new();
        shell.1.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{}", log());
    }

    /// Waits until it answers.
    pub fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.try_sql("SELECT 1").0 {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "{:?} did not start: {log}", self.kind);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn dsn(&self, user: &str) -> String {
        match self.kind {
            Kind::Postgres => {
                format!("postgresql://{user}@{}:5432/postgres", self.folder.display().to_string().replace('/', "%2F"))
            }
            _ => format!("mariadb://{user}@localhost/mysql?socket={}/s", self.folder.display()),
        }
    }

    pub fn admin(&self) -> String {
        self.dsn(if self.kind == Kind::Postgres { "owner" } else { "root" })
    }

    fn try_sql(&self, text: &str) -> (bool, String) {
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = Command::new("psql");
                command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "owner", "-d", "postgres", "-c", text]);
                command.arg("-h").arg(&self.folder).arg("-p").arg(self.port.unwrap_or(5432).to_string());
                command
            }
            _ => {
                let mut command = Command::new("mariadb");
                command.args(["--no-defaults", "-N", "-u", "root", "-D", "mysql", "-e", text]);
                command.arg(format!("--socket={}/s", self.folder.display()));
                command
            }
        };
        let out = command.output().unwrap();
        (
            out.status.success(),
            String::from_utf8_lossy(if out.status.success() { &out.stdout } else { &out.stderr }).into_owned(),
        )
    }

    /// Runs SQL as the owner of everything.
    pub fn sql(&self, text: &str) -> String {
        let (done, said) = self.try_sql(text);
        assert!(done, "{text}: {said}");
        said.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut shell = self.shell.lock().unwrap();
        drop(shell.0.stdin.take());
        let _ = shell.0.wait();
    }
}

fn shared(kind: Kind) -> Option<&'static Server> {
    static POSTGRES: OnceLock<Option<Server>> = OnceLock::new();
    static MARIA: OnceLock<Option<Server>> = OnceLock::new();
    let cell = if kind == Kind::Postgres { &POSTGRES } else { &MARIA };
    cell.get_or_init(|| Server::start(kind)).as_ref()
}

/// The server of this run; a line is printed where there is none.
pub fn server(kind: Kind, test: &str) -> Option<&'static Server> {
    let found = shared(kind);
    if found.is_none() {
        eprintln!("SKIPPED {test}: {kind:?} is not installed");
    }
    found
}

/// A name no other test of this run uses.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{word}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A database of any kind, and a folder of a node.
pub struct Db {
    pub kind: Kind,
    server: Option<&'static Server>,
    pub dir: tempfile::TempDir,
}

impl Db {
    /// None, and a line, where it is not installed.
    pub fn of(kind: Kind, test: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let server = if kind == Kind::Sqlite { None } else { Some(server(kind, test)?) };
        let dsn = server.map_or_else(|| "sqlite:db.sqlite".to_owned(), Server::admin);
        std::fs::write(dir.path().join("dsn"), dsn).unwrap();
        let db = Self { kind, server, dir };
        if kind == Kind::Sqlite {
            db.sql("PRAGMA journal_mode = WAL");
        }
        Some(db)
    }

    pub fn base(&self) -> &Path {
        self.dir.path()
    }

    pub fn server_folder(&self) -> &Path {
        &self.server.unwrap().folder
    }

    pub fn sql(&self, text: &str) -> String {
        match self.server {
            Some(server) => server.sql(text),
            None => {
                let db = rusqlite::Connection::open(self.base().join("db.sqlite")).unwrap();
                db.execute_batch(text).map_err(|e| format!("{text}: {e}")).unwrap();
                String::new()
            }
        }
    }

    /// Gives this database a socket of its own name and a login of its own, so that it can be cut off alone.
    pub fn apart(&self, name: &str) {
        let Some(server) = self.server else { return };
        let dsn = match self.kind {
            Kind::Postgres => {
                format!("postgresql://owner@{}:5432/postgres", self.base().display().to_string().replace('/', "%2F"))
            }
            _ => {
                self.sql(&format!("CREATE USER {name}@localhost; GRANT ALL ON *.* TO {name}@localhost"));
                format!("mariadb://{name}@localhost/mysql?socket={}/s", self.base().display())
            }
        };
        std::fs::write(self.base().join("dsn"), dsn).unwrap();
        let socket = self.socket();
        std::os::unix::fs::symlink(server.folder.join(socket), self.base().join(socket)).unwrap();
    }

    fn socket(&self) -> &'static str {
        if self.kind == Kind::Postgres { ".s.PGSQL.5432" } else { "s" }
    }

    /// Cuts off what `apart` made, or makes it whole. False where that cannot be done.
    pub fn cut(&self, name: &str, cut: bool) -> bool {
        let Some(server) = self.server else { return false };
        let at = self.base().join(self.socket());
        if !cut {
            std::os::unix::fs::symlink(server.folder.join(self.socket()), at).unwrap();
            return true;
        }
        std::fs::remove_file(at).unwrap();
        match self.kind {
            Kind::Postgres => self.sql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'concordat adapter {}'",
                name.replace('_', "-")
            )),
            _ => self.sql(&format!("KILL USER {name}@localhost")),
        };
        true
    }

    /// An expression for the present.
    pub fn sql_now(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "now()",
            Kind::Maria => "utc_timestamp(0)",
            Kind::Sqlite => "datetime('now')",
        }
    }

    /// Logs in as somebody else from now on.
    pub fn login(&self, user: &str) {
        std::fs::write(self.base().join("dsn"), self.server.unwrap().dsn(user)).unwrap();
    }

    /// The type of a point in time with microseconds.
    pub fn stamp(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "timestamptz",
            Kind::Maria => "datetime(6)",
            Kind::Sqlite => "text",
        }
    }
}
