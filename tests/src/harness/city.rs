//! Cities of the shipped program.

use super::{Client, Rpc, SOON, until};
use concordat_broker::config::{NodeConfig, RpcAddr};
use concordat_broker::keys::KeyFolder;
use concordat_broker::ledger::node_client::NodeClient;
use concordat_broker::ledger::rpc::CometRpc;
use concordat_cli::context::{Token, Tokens};
use concordat_cli::supervisor::{self, ProcessId, State};
use concordat_protocol::keys::SigningKey;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// Longest run of a command: the tour's.
const COMMAND_WITHIN: Duration = Duration::from_secs(150);

/// Stops every city of a workplace once its stdin ends, and removes them unless it read `keep`.
const REAPER: &str = r#"
read -r word
for city in "$1"/c*; do CONCORDAT_DEMO="$city" "$1/concordat" demo stop --quiet >/dev/null 2>&1; done
[ "$word" = keep ] || rm -rf "$1"
"#;

/// The folder of all cities of this run, with the program under test.
pub struct Workplace {
    root: PathBuf,
    reaper: Child,
    word: Option<ChildStdin>,
}

impl Workplace {
    /// Makes the folder. The program is linked into it, so that a build meanwhile does not change what is tested.
    pub fn new() -> Self {
        let root = PathBuf::from(format!("/tmp/ccity-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir(&root).expect("a folder below /tmp");
        let built = built_program();
        let program = root.join("concordat");
        if std::fs::hard_link(&built, &program).is_err() {
            std::fs::copy(&built, &program).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
        }
        let mut reaper = Command::new("sh");
        // In a group of its own: Ctrl-C at the terminal ends the tests, not what cleans up after them.
        reaper.args(["-c", REAPER, "reaper"]).arg(&root).stdin(Stdio::piped()).process_group(0);
        let mut reaper = reaper.spawn().expect("sh");
        let word = reaper.stdin.take();
        Self { root, reaper, word }
    }

    /// Makes and starts a city.
    pub fn city(&self, name: &str) -> City {
        let city = City { program: self.root.join("concordat"), root: self.root.join(format!("c{name}")) };
        city.run(&["demo", "up", "--quiet"]).done();
        city
    }

    /// A new, empty folder for a test.
    pub fn folder(&self, name: &str) -> PathBuf {
        let dir = self.root.join(name);
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        dir
    }

    /// Stops every city; removes all, or keeps the folders for a look.
    pub fn end(mut self, keep: bool) {
        if let Some(mut word) = self.word.take()
            && keep
        {
            let _ = word.write_all(b"keep\n");
            eprintln!("the folders and logs of the cities are kept in {}", self.root.display());
        }
        let _ = self.reaper.wait();
    }
}

impl Default for Workplace {
    fn default() -> Self {
        Self::new()
    }
}

/// `concordat` beside the tests: they are in `target/<profile>/deps`.
fn built_program() -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let program = own.ancestors().nth(2).expect("a target folder").join("concordat");
    assert!(program.is_file(), "{} is not there: cargo build -p concordat-cli (make test does)", program.display());
    program
}

/// A city of four agencies.
#[derive(Debug, Clone)]
pub struct City {
    /// The program under test.
    pub program: PathBuf,
    /// Folder of its folders.
    pub root: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Runs a command to its end; one that does not end in time is killed and fails the test.
    pub fn of(command: &mut Command) -> Self {
        let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        let line = format!("concordat {}", args.join(" "));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        let process = ProcessId::of(child.id());
        let (send, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(child.wait_with_output()));
        let out = ended.recv_timeout(COMMAND_WITHIN).unwrap_or_else(|_| {
            process.map(ProcessId::kill_hard);
            panic!("{line}: did not end within {} s", COMMAND_WITHIN.as_secs())
        });
        let out = out.unwrap_or_else(|e| panic!("{line}: {e}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { line, code: out.status.code().unwrap_or(-1), out: text(&out.stdout), err: text(&out.stderr) }
    }

    /// Requires success.
    pub fn done(self) -> Self {
        self.ends(0)
    }

    /// Requires an exit code.
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nsaid: {}{}", self.line, self.out, self.err);
        self
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{}: {e}: {}{}", self.line, self.out, self.err))
    }

    /// The problem on standard error as JSON: its last line.
    pub fn problem(&self) -> Value {
        let line = self.err.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {}{}", self.line, self.out, self.err))
    }
}

/// A process of a city.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub ProcessId);

impl City {
    /// An agency's folder, or the exchange's.
    pub fn dir(&self, node: &str) -> PathBuf {
        self.root.join(node)
    }

    /// The program with arguments, for this city.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("CONCORDAT_DEMO", &self.root).env_remove("CONCORDAT_DIR");
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// Runs it at an agency's node.
    pub fn at(&self, agency: &str, args: &[&str]) -> Ran {
        let dir = self.dir(agency);
        Ran::of(self.command(args).arg("--dir").arg(dir))
    }

    /// An agency's configuration.
    pub fn config(&self, agency: &str) -> NodeConfig {
        NodeConfig::load(&self.dir(agency)).unwrap_or_else(|e| panic!("{agency}: {e}"))
    }

    /// The chain's id.
    pub fn chain(&self) -> String {
        self.config("court").chain
    }

    /// All tokens of an agency.
    pub fn tokens(&self, agency: &str) -> Vec<Token> {
        let text = std::fs::read_to_string(self.dir(agency).join("keys/tokens.yaml")).expect("tokens.yaml");
        serde_saphyr::from_str::<Tokens>(&text).expect("tokens.yaml").tokens
    }

    /// The HTTP API of an agency as one of its users.
    pub fn api(&self, agency: &str, user: &str) -> Client {
        let tokens = self.tokens(agency);
        let token = tokens.iter().find(|t| t.name == user).unwrap_or_else(|| panic!("{agency} has no user {user}"));
        Client::new(&self.config(agency).listen, &token.token)
    }

    /// An agency's own node.
    pub fn node(&self, agency: &str) -> NodeClient {
        NodeClient::new(self.dir(agency).join("run/node.sock"))
    }

    /// CometBFT as the program speaks to it.
    pub fn comet(&self, agency: &str) -> CometRpc {
        CometRpc::new(&RpcAddr::Unix(self.dir(agency).join("run/rpc.sock"))).expect("an HTTP client")
    }

    /// CometBFT's RPC, raw.
    pub fn rpc(&self, agency: &str) -> Rpc {
        Rpc::new(&self.dir(agency).join("run/rpc.sock"))
    }

    /// A key of an agency.
    pub fn key(&self, agency: &str, name: &str) -> SigningKey {
        KeyFolder::new(self.dir(agency).join("keys")).signing(name).unwrap_or_else(|e| panic!("{agency}: {e}"))
    }

    /// Folders of all nodes, the exchange last.
    pub fn nodes(&self) -> [&'static str; 5] {
        ["court", "grid", "police", "transport", "exchange"]
    }

    /// What a node's supervisor says of its processes.
    pub fn state(&self, node: &str) -> State {
        let status = supervisor::status(&self.dir(node));
        assert!(status.running, "{node} has no supervisor");
        status.state.expect("its state")
    }

    /// A running process of a node.
    pub fn process(&self, node: &str, name: &str) -> Process {
        let found = self.state(node).processes.into_iter().find(|p| p.name == name);
        Process(found.and_then(|p| p.process).unwrap_or_else(|| panic!("{name} of {node} does not run")))
    }

    /// Waits until every process of a node is up and its gateway ready.
    pub fn wait_up(&self, node: &str) {
        supervisor::wait_up(&self.dir(node), SOON).unwrap_or_else(|e| panic!("{e}"));
        if node != "exchange" {
            let api = self.api(node, "operator");
            until(&format!("{node} is ready"), SOON, || {
                let answer = api.get("/readyz");
                if answer.status == 200 { Ok(()) } else { Err(answer.body) }
            });
        }
    }

    /// Kills a process and waits until the supervisor has another in its place and the node is ready.
    pub fn killed_and_back(&self, node: &str, name: &str) {
        let before = self.process(node, name);
        assert!(before.0.kill_hard(), "{name} of {node} could not be killed");
        self.another(node, name, before);
        self.wait_up(node);
    }

    /// Waits until a process is another one than it was.
    pub fn another(&self, node: &str, name: &str, before: Process) {
        until(&format!("{name} of {node} is started again"), SOON, || {
            let state = self.state(node);
            let found = state.processes.iter().find(|p| p.name == name).and_then(|p| p.process);
            if found.is_some_and(|now| now != before.0) { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    /// A node's log of one process.
    pub fn log(&self, node: &str, process: &str) -> String {
        let path = self.dir(node).join("logs").join(format!("{process}.log"));
        String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned()
    }

    /// Newest tick of the ledger, milliseconds.
    pub fn tick_ms(&self) -> u64 {
        super::wait(self.node("court").head()).expect("the court's node").tick_ms
    }

    /// Entries of the log by index, as an agency's node has them.
    pub fn log_size(&self, agency: &str) -> u64 {
        super::wait(self.node(agency).head()).expect("the node").log_size
    }
}

/// Whether a process still runs.
pub fn alive(process: Process) -> bool {
    process.0.alive()
}

/// Lines of a text that hold a word.
pub fn lines_with<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter(|l| l.contains(word)).collect()
}

/// Every process of this machine whose command line names a path below `root`: id and command line.
pub fn open_files_below(root: &Path) -> Vec<(u32, String)> {
    let wanted = root.to_string_lossy().into_owned();
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()).filter(|p| *p != own) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&wanted) && ProcessId::of(pid).is_some_and(ProcessId::alive) {
            found.push((pid, line));
        }
    }
    found
}
