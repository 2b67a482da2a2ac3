//! What the tests share: waiting, absent servers, and supervisors as processes of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use concordat_cli::servers::{self, Server};
use concordat_cli::supervisor::core::Rules;
use concordat_cli::supervisor::{self, Guard, Listens, Options, Plan, Process, Watch};

/// What was waited for, as a sentence or as what can be told at the end.
pub trait Reason {
    fn text(&self) -> String;
}
impl Reason for &str {
    fn text(&self) -> String {
        (*self).to_owned()
    }
}
impl<F: Fn() -> String> Reason for &F {
    fn text(&self) -> String {
        self()
    }
}

/// Polls until `look` gives something; fails after 40 s with the reason.
pub fn wait_for<T>(what: impl Reason, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {}", what.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The server, or a named skip. Where `CI=true` an absent server fails.
pub fn server(test: &str, which: Server) -> Option<PathBuf> {
    match servers::find(which) {
        Ok(path) => Some(path),
        Err(e) if std::env::var("CI").is_ok_and(|v| v == "true") => panic!("{test}: {e}"),
        Err(e) => {
            eprintln!("SKIPPED {test}: {e}");
            None
        }
    }
}

pub fn kill9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// A supervisor in a process of its own, running a plan of [`plan_of`]. It is stopped with the test.
pub struct Supervised {
    pub dir: PathBuf,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = supervisor::stop(&self.dir);
    }
}

fn again(test: &str) -> Command {
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", test, "--ignored", "--nocapture"]);
    c
}

pub fn supervisor_command(dir: &Path, plan: &str, guarded: bool) -> Command {
    let mut c = again("helpers::as_supervisor");
    c.env("TEST_SUPERVISE", format!("{plan}|{guarded}|{}", dir.display()));
    c
}

pub fn supervise(dir: &Path, plan: &str, guarded: bool) -> Result<Supervised, supervisor::SupervisorError> {
    supervisor::start_detached_as(dir, &mut supervisor_command(dir, plan, guarded), Duration::from_secs(20))?;
    Ok(Supervised { dir: dir.to_owned() })
}

fn sh(name: &str, script: &str) -> Process {
    let args = vec!["-c".into(), script.into()];
    Process { name: name.into(), program: "/bin/sh".into(), args, listens: vec![], watch: Watch::Nothing }
}

fn plan_of(kind: &str, dir: &Path) -> Plan {
    let sleeper = |name: &str| sh(name, "sleep 1000 & wait");
    let units = match kind {
        "zero" => vec![vec![sh("zero", &format!("echo run >> {}/count", dir.display()))]],
        "pair" => vec![vec![sleeper("app"), sleeper("comet")], vec![sleeper("broker")]],
        // Without children of its own: the system tells the supervisor's children only.
        "plain" => vec![vec![sh("one", "exec sleep 1000")], vec![sh("two", "exec sleep 1000")]],
        "stubborn" => vec![vec![sh("stubborn", "trap '' TERM; echo armed; while :; do sleep 0.1; done")]],
        "broken" => vec![vec![sh("broken", "echo 'no key in keys/'; exit 3")]],
        // CometBFT of a made city with one of its built-in applications.
        app => {
            let rpc = dir.join("run/rpc.sock");
            let args: [OsString; 5] =
                ["start".into(), "--proxy_app".into(), app.into(), "--home".into(), dir.join("comet").into()];
            vec![vec![Process {
                name: "comet".into(),
                program: servers::find(Server::CometBft).unwrap(),
                args: args.into(),
                listens: vec![Listens::Unix(rpc.clone())],
                watch: Watch::Comet(concordat_broker::config::RpcAddr::Unix(rpc)),
            }]]
        }
    };
    Plan { name: kind.into(), units }
}

#[test]
#[ignore = "not a test: the supervisor that other tests start"]
fn as_supervisor() {
    let Ok(spec) = std::env::var("TEST_SUPERVISE") else { return };
    let [kind, guarded, dir] = spec.splitn(3, '|').collect::<Vec<_>>()[..] else { panic!("{spec}") };
    let dir = PathBuf::from(dir);
    // The guard is this program too: a shell packs the command into a variable and becomes `as_guard` under the same id.
    let pack = format!(
        "TEST_GUARD=\"$(printf '%s\\n' \"$@\")\" exec '{}' --exact helpers::as_guard --ignored --nocapture",
        std::env::current_exe().unwrap().display()
    );
    let prefix = ["/bin/sh", "-c", &pack, "guard"].map(OsString::from).to_vec();
    let rules = Rules { backoff_first: 50, backoff_max: 200, stop_within: 1_500, stop_step: 500, ..Rules::default() };
    let guard = if guarded == "true" { Guard::Prefix(prefix) } else { Guard::None };
    let options = Options { dir: dir.clone(), program: "none".into(), guard, rules };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Err(e) = runtime.block_on(supervisor::run_plan(&options, &plan_of(kind, &dir))) {
        eprintln!("{e}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

#[test]
#[ignore = "not a test: the guard that a supervisor starts"]
fn as_guard() {
    let Ok(packed) = std::env::var("TEST_GUARD") else { return };
    let mut words = packed.lines();
    let parent = words.next().unwrap().parse().unwrap();
    let command: Vec<OsString> = words.map(OsString::from).collect();
    eprintln!("{}", supervisor::guard::exec(parent, &command));
    std::process::exit(127);
}
