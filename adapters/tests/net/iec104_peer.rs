//! Peers of IEC 60870-5-104 that are not ours: lib60870 under Python, in an environment of pinned packages.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use crate::mosquitto::free_port;
use crate::running::skipped;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/iec104")
}

fn run(command: &mut Command) -> Result<Output, String> {
    let out = command.output().map_err(|e| format!("{} does not start: {e}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&out.stderr).trim().lines().last().unwrap_or_default().to_owned();
    if out.status.success() { Ok(out) } else { Err(said) }
}

/// An environment with the pinned packages, made once for each content of requirements.txt.
fn environment() -> Result<PathBuf, String> {
    let pinned = folder().join("requirements.txt");
    let hash = concordat_protocol::hash::sha256(&[&std::fs::read(&pinned).unwrap()]);
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let cache = base.join("concordat");
    let place = cache.join(format!("python-{}", &hex::encode(hash)[..16]));
    let python = place.join("bin/python");
    if place.join("complete").exists() && python.exists() {
        return Ok(python);
    }
    std::fs::create_dir_all(&cache).unwrap();
    // Built aside under a name of its own and then renamed, so that two runs do not meet in one folder.
    let aside = tempfile::Builder::new().prefix("python-").tempdir_in(&cache).unwrap();
    run(Command::new("python3").args(["-m", "venv", "--copies"]).arg(aside.path()))?;
    let mut pip = Command::new(aside.path().join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"]).arg(&pinned);
    run(&mut pip)?;
    std::fs::write(aside.path().join("complete"), "").unwrap();
    match std::fs::rename(aside.path(), &place) {
        Ok(()) => drop(aside.keep()),
        // Another run was faster, or a half-made folder is in the way.
        Err(_) if place.join("complete").exists() => {}
        Err(_) => {
            std::fs::remove_dir_all(&place).unwrap();
            std::fs::rename(aside.path(), &place).unwrap();
            drop(aside.keep());
        }
    }
    Ok(python)
}

fn python(test: &str) -> Option<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(environment) {
        Ok(python) => Some(python.clone()),
        Err(why) => {
            skipped(test, &format!("c104 for Python cannot be had: {why}"));
            None
        }
    }
}

fn spawn(python: &Path, script: &str, argument: &str) -> Child {
    let mut command = Command::new(python);
    command.arg("-B").arg(folder().join(script)).arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Two authorities, `ca.pem` and `strange.pem`, and a certificate for `localhost` of each, `cert.pem` and `other.pem`; false
/// without openssl.
pub fn certificates(test: &str, dir: &Path) -> bool {
    let script = "cd \"$1\" || exit 1; new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \"$@\" 2>>log; }
        pair() {
            new -subj \"/CN=$1\" -addext keyUsage=critical,keyCertSign,cRLSign -keyout $1.key -out $1.pem &&
            new -CA $1.pem -CAkey $1.key -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
                -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth -keyout $2.key -out $2.pem
        }
        pair ca cert && pair strange other";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(dir).status();
    let made = made.is_ok_and(|s| s.success());
    if !made {
        skipped(test, "openssl is not installed");
    }
    made
}

/// How a peer speaks TLS: `TLS_1_2` or `TLS_1_3`, whom it trusts, and its own certificate if it has one.
pub fn tls_files(dir: &Path, version: &str, ca: &str, own: Option<&str>) -> Value {
    let path = |name: String| dir.join(name).display().to_string();
    let mut files = json!({"version": version, "ca": path(format!("{ca}.pem"))});
    if let Some(own) = own {
        files["cert"] = path(format!("{own}.pem")).into();
        files["key"] = path(format!("{own}.key")).into();
    }
    files
}

/// An outstation with one station, 47.
pub struct Outstation {
    pub port: u16,
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Outstation {
    /// Starts one; none where it cannot be had. `points` are address, type and value; `more` are `parameters` of the
    /// protocol and, for TLS, what [`tls_files`] gives.
    pub fn start(test: &str, points: &Value, more: &Value) -> Option<Self> {
        Self::of("outstation.py", test, points, more)
    }

    /// Starts one that keeps its events when a connection ends. `limits` are of k, w, t0, t1, t2, t3 (s).
    pub fn keeping(test: &str, points: &Value, limits: &Value) -> Option<Self> {
        Self::of("keeping.py", test, points, &json!({"limits": limits}))
    }

    fn of(script: &str, test: &str, points: &Value, more: &Value) -> Option<Self> {
        let mut child = spawn(&python(test)?, script, "");
        let (say, hear) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut outstation = Self { port: free_port(), child, say, hear };
        let mut start = json!({"do": "start", "port": outstation.port, "station": 47, "points": points});
        start.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(outstation.ask(&start), json!(true));
        Some(outstation)
    }

    fn ask(&mut self, what: &Value) -> Value {
        writeln!(self.say, "{what}").unwrap();
        let mut line = String::new();
        self.hear.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the outstation answers")
    }

    /// Sends values of a point as events; false when nobody was connected.
    pub fn send(&mut self, object: u32, values: impl IntoIterator<Item = i64>, quality: &[&str]) -> bool {
        let values: Vec<i64> = values.into_iter().collect();
        self.ask(&json!({"do": "send", "object": object, "values": values, "quality": quality})) == json!(true)
    }

    /// Connections that take data.
    pub fn active(&mut self) -> u64 {
        self.ask(&json!({"do": "count"})).as_u64().unwrap()
    }
}

impl Drop for Outstation {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A controlling station that notes what it is told.
pub struct Station {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Station {
    /// Connects one to station 47 on a port; none where it cannot be had. `more` are `parameters` of the protocol,
    /// `quiet` for one that asks nothing and, for TLS, what [`tls_files`] gives.
    pub fn start(test: &str, port: u16, points: &Value, more: &Value) -> Option<Self> {
        let mut argument = json!({"port": port, "station": 47, "points": points});
        argument.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut child = spawn(&python(test)?, "station.py", &argument.to_string());
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (lines, noted) = (BufReader::new(child.stdout.take().unwrap()).lines(), told.clone());
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| noted.lock().unwrap().push(serde_json::from_str(&line).unwrap()));
        });
        Some(Self { child, told })
    }

    /// Everything with this cause, in order; `TLS` is the cause of what tells why a connection failed.
    pub fn told(&self, cause: &str) -> Vec<Value> {
        self.told.lock().unwrap().iter().filter(|v| v["cause"] == cause).cloned().collect()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
