//! The verifier's page (`protocol/web/dist/verify.html`) in a real browser, opened from a file: people's path through the
//! two file inputs, the whole corpus through the page's own function, and no way out of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn vectors() -> PathBuf {
    root().join("protocol/vectors")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// A missing browser is a named skip; CI tries to install one.
fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED browser verifier, {test}: {why}");
}

fn chromium() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    NAMES.iter().find_map(|name| folders.iter().map(|f| f.join(name)).find(|p| p.exists()))
}

/// A browser of its own, spoken to over two pipes (DevTools protocol, messages end with a zero byte): no port is opened.
struct Browser {
    process: Child,
    to: File,
    from: Receiver<Value>,
    /// Events that came between answers.
    events: Vec<Value>,
    session: String,
    last: u64,
    _home: tempfile::TempDir,
}

impl Browser {
    fn start(program: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (to, from) = (home.path().join("to"), home.path().join("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // The shell gives the browser the pipes as its descriptors 3 and 4.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"exec "$0" "$@" 3<"$TO" 4>"$FROM""#]).arg(program).env("TO", &to).env("FROM", &from);
        shell.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        shell.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        shell.args(["--disable-dev-shm-usage", "--remote-debugging-pipe"]);
        shell.arg(format!("--user-data-dir={}", home.path().join("profile").display())).arg("about:blank");
        let process = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let answers = BufReader::new(File::open(from).unwrap());
        let (send, from) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0) {
                let Ok(message) = message else { return };
                if send.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { process, to, from, events: vec![], session: String::new(), last: 0, _home: home };
        let targets = browser.call("Target.getTargets", json!({}));
        let infos = targets["targetInfos"].as_array().unwrap();
        let page = infos.iter().find(|t| t["type"] == "page").expect("a page").clone();
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Network", "Page", "Runtime", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let got =
                self.from.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: no answer from the browser: {e}"));
            if got["id"] == self.last {
                assert!(got.get("error").is_none(), "{method}: {}", got["error"]);
                return got["result"].clone();
            }
            if got.get("method").is_some() {
                self.events.push(got);
            }
        }
    }

    /// Value of an expression in the page; promises are waited for.
    fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let got = self.call("Runtime.evaluate", params);
        assert!(got.get("exceptionDetails").is_none(), "{}", got["exceptionDetails"]);
        got["result"]["value"].clone()
    }

    fn open_page(&mut self) {
        let page = root().join("protocol/web/dist/verify.html");
        assert!(page.exists(), "{} is missing: run 'make web'", page.display());
        self.call("Page.navigate", json!({"url": format!("file://{}", page.display())}));
        self.wait_for("document.readyState === 'complete' && typeof concordatJudge === 'function'");
    }

    fn wait_for(&mut self, condition: &str) {
        let until = Instant::now() + DEADLINE;
        while self.eval(condition) != json!(true) {
            assert!(Instant::now() < until, "never: {condition}");
            self.eval("new Promise((go) => requestAnimationFrame(() => go(0)))");
        }
    }

    /// Chooses a file as a person does.
    fn choose(&mut self, input: &str, file: &Path) {
        self.eval("document.body.dataset.state = 'waiting'");
        let document = self.call("DOM.getDocument", json!({}))["root"]["nodeId"].clone();
        let query = json!({"nodeId": document, "selector": input});
        let node = self.call("DOM.querySelector", query)["nodeId"].clone();
        self.call("DOM.setFileInputFiles", json!({"files": [file], "nodeId": node}));
    }

    fn verdict_of(&mut self, evidence: &Path) -> String {
        self.choose("#evidence", evidence);
        self.wait_for("document.body.dataset.state === 'done'");
        self.eval("document.getElementById('result').innerText").as_str().unwrap().to_owned()
    }

    /// Addresses that were asked for since the start, other than the page's own file.
    fn asked_for(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|e| e["method"] == "Network.requestWillBeSent");
        let urls = sent.map(|e| e["params"]["request"]["url"].as_str().unwrap().to_owned());
        urls.filter(|u| !u.ends_with("/protocol/web/dist/verify.html")).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn receipt(name: &str) -> Vec<u8> {
    let file = read(&vectors().join("receipt/receipts.json"));
    let case = file["receipts"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap();
    hex::decode(case["receipt"].as_str().unwrap()).unwrap()
}

fn list(name: &str) -> Vec<u8> {
    let file = read(&vectors().join("access/lists.json"));
    let case = file["lists"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap();
    hex::decode(case["list"].as_str().unwrap()).unwrap()
}

#[test]
fn people_choose_two_files_and_read_the_verdict() {
    let Some(program) = chromium() else { return skipped("two files", "no Chromium was found") };
    let mut browser = Browser::start(&program);
    browser.open_page();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    browser.choose("#trust", &vectors().join("receipt/trust.json"));
    browser.wait_for("document.body.dataset.state === 'done'");
    let fingerprint = read(&vectors().join("receipt/receipts.json"))["fingerprint"].clone();
    assert_eq!(browser.eval("document.getElementById('fingerprint').innerText"), fingerprint);
    assert_eq!(browser.eval("document.getElementById('result').hidden"), json!(true));

    let said = browser.verdict_of(&file("good.receipt", &receipt("accepted")));
    for part in
        ["VALID (provisional)", "The ledger accepted op:29", "27-CR-2026", "2026-09-21", "UTC", "release_signature"]
    {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let mut flipped = receipt("accepted");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let said = browser.verdict_of(&file("flipped.receipt", &flipped));
    assert!(said.starts_with("INVALID") && said.contains("Do not believe this file"), "{said}");
    assert!(!said.contains("27-CR-2026"), "what an earlier file opened is still shown:\n{said}");

    let said = browser.verdict_of(&file("refused.receipt", &receipt("refused")));
    assert!(said.contains("did not accept op:29") && said.contains("the agreement is revoked"), "{said}");
    let said = browser.verdict_of(&file("contested.receipt", &receipt("contested")));
    assert!(said.starts_with("VALID (provisional), but contested"), "{said}");
    let said = browser.verdict_of(&file("anna.list", &list("anna")));
    assert!(said.contains("op:12") && said.contains("The court may look up stops"), "{said}");
    let said = browser.verdict_of(&file("nobody.list", &list("nobody-looked")));
    assert!(said.starts_with("VALID") && said.contains("Nobody looked at"), "{said}");

    browser.choose("#trust", &file("trust.json", b"{}"));
    browser.wait_for("document.body.dataset.state === 'done'");
    assert_eq!(browser.eval("document.getElementById('verdict').innerText"), json!("INVALID"));
    assert_eq!(browser.eval("document.getElementById('fingerprint-part').hidden"), json!(true));
    assert_eq!(browser.asked_for(), Vec::<String>::new());
}

/// One case of the corpus: its name, its bytes and what must be said of it.
struct Case {
    name: String,
    bytes: Vec<u8>,
    expected: Value,
}

fn corpus(kind: &str, file: &str, rows: &str, bytes: &str) -> Vec<Case> {
    let folder = vectors().join(kind);
    let mut cases = vec![];
    for case in read(&folder.join(file))[rows].as_array().unwrap() {
        let name = case["name"].as_str().unwrap().to_owned();
        let bytes = hex::decode(case[bytes].as_str().unwrap()).unwrap();
        cases.push(Case { name, bytes, expected: case["expected"].clone() });
    }
    if !folder.join("forged.json").exists() {
        return cases;
    }
    let forged = read(&folder.join("forged.json"));
    for case in forged["cases"].as_array().unwrap() {
        let base = cases.iter().find(|c| c.name == case["base"]).unwrap();
        let number = |name: &str| usize::try_from(case["patch"][name].as_u64().unwrap()).unwrap();
        let (offset, insert) = (number("offset"), hex::decode(case["patch"]["insert"].as_str().unwrap()).unwrap());
        let mut bytes = base.bytes.clone();
        bytes.splice(offset..offset + number("remove"), insert);
        let name = format!("{} of {}", case["name"].as_str().unwrap(), base.name);
        let expected = json!({"valid": case["expect"] == "valid", "check": case["check"]});
        cases.push(Case { name, bytes, expected });
    }
    cases
}

#[test]
fn the_page_agrees_with_the_corpus() {
    let Some(program) = chromium() else { return skipped("the corpus", "no Chromium was found") };
    let mut browser = Browser::start(&program);
    browser.open_page();
    let trust = std::fs::read_to_string(vectors().join("receipt/trust.json")).unwrap();
    browser.eval(&format!("window.given = new TextEncoder().encode({}); 0", json!(trust)));
    let mut cases = corpus("receipt", "receipts.json", "receipts", "receipt");
    cases.extend(corpus("access", "lists.json", "lists", "list"));
    assert!(cases.len() > 30, "only {} cases", cases.len());
    for case in &cases {
        let bytes = json!(case.bytes);
        let got = browser.eval(&format!("concordatJudge(new Uint8Array({bytes}), window.given)"));
        for (field, value) in case.expected.as_object().unwrap() {
            // A member that a newer build adds is not missed in an older page's answer, a verdict is.
            assert_eq!(got.get(field), Some(value), "{}: {field}", case.name);
        }
    }
    assert_eq!(browser.asked_for(), Vec::<String>::new());
    println!("{} cases judged in the browser", cases.len());
}

/// Even script that found its way into the page could not send what was chosen there.
#[test]
fn nothing_leaves_the_page() {
    let Some(program) = chromium() else { return skipped("no network", "no Chromium was found") };
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    outside.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", outside.local_addr().unwrap());
    let mut browser = Browser::start(&program);
    browser.open_page();
    // A policy that blocks says so in an event; each way out must have one of its own.
    browser.eval("window.blocked = []; addEventListener('securitypolicyviolation', (e) => blocked.push(e.effectiveDirective)); 0");
    let ways = [
        ("connect-src", format!("fetch('{url}').then(() => 'out', () => 'kept')")),
        (
            "img-src",
            format!(
                "new Promise((go) => {{ const i = new Image(); i.onload = () => go('out'); i.onerror = () => go('kept'); i.src = '{url}'; }})"
            ),
        ),
        (
            "script-src-elem",
            format!(
                "new Promise((go) => {{ const s = document.createElement('script'); s.onload = () => go('out'); s.onerror = () => go('kept'); s.src = '{url}'; document.body.append(s); }})"
            ),
        ),
        (
            "frame-src",
            format!(
                "(() => {{ const f = document.createElement('iframe'); f.src = '{url}'; document.body.append(f); return 'kept'; }})()"
            ),
        ),
        (
            "form-action",
            format!(
                "(() => {{ const f = document.createElement('form'); f.action = '{url}'; f.method = 'post'; document.body.append(f); f.submit(); return 'kept'; }})()"
            ),
        ),
    ];
    for (directive, way) in &ways {
        assert_eq!(browser.eval(way), json!("kept"), "{directive}");
        browser.wait_for(&format!("blocked.includes('{directive}')"));
    }
    drop(browser);
    // For frames and forms Chromium opens a connection ahead of its decision; on none of them may anything be sent.
    while let Ok((mut connection, _)) = outside.accept() {
        let mut sent = vec![];
        connection.set_nonblocking(false).unwrap();
        connection.read_to_end(&mut sent).unwrap();
        assert_eq!(String::from_utf8_lossy(&sent), "", "the page reached {url}");
    }
}
