//! The program: started when it is needed, spoken to by JSON lines, stopped when it does not answer in time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::contract::{AdapterError, ErrorClass};
use crate::document::Secret;

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Variables that a program gets besides those of the document.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// What to start, and how to speak to it.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub adapter: String,
    pub command: Vec<String>,
    pub settings: BTreeMap<String, Value>,
    pub env: BTreeMap<String, Secret>,
    pub timeout: Duration,
}

/// A running program.
struct Running {
    child: Child,
    input: ChildStdin,
    answers: Receiver<std::io::Result<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that is started when it is spoken to, and again after it failed.
pub(super) struct Program {
    setup: Setup,
    base: PathBuf,
    running: Option<Running>,
    asked: u64,
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    #[serde(default)]
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    class: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl Program {
    pub fn new(setup: Setup, base: &Path) -> Self {
        Self { setup, base: base.to_owned(), running: None, asked: 0 }
    }

    /// The program as errors and origins call it.
    pub fn name(&self) -> String {
        self.setup.command.join(" ")
    }

    fn failed(&self, class: ErrorClass, code: &'static str, detail: &str) -> AdapterError {
        AdapterError::source_failed(class, code, format!("{}: {detail}", self.name()))
    }

    /// Asks and waits for the answer. `members` go into the question. A program that broke the protocol is stopped.
    pub fn ask(&mut self, what: &'static str, members: Map<String, Value>) -> Result<Box<RawValue>, AdapterError> {
        if self.running.is_none() {
            self.running = Some(self.start()?);
            let hello = Map::from_iter([
                ("v".to_owned(), json!(1)),
                ("adapter".to_owned(), json!(self.setup.adapter)),
                ("settings".to_owned(), json!(self.setup.settings)),
            ]);
            self.exchange("hello", hello)?;
        }
        self.exchange(what, members)
    }

    fn exchange(&mut self, what: &'static str, mut members: Map<String, Value>) -> Result<Box<RawValue>, AdapterError> {
        self.asked += 1;
        members.insert("id".to_owned(), json!(self.asked));
        members.insert("do".to_owned(), json!(what));
        let told = self.tell(&Value::Object(members).to_string());
        let told = told.and_then(|text| self.read(text, what));
        // What refuses by the protocol may go on; anything else is started again.
        if told.as_ref().is_err_and(|e| e.code() != "source.program") {
            self.running = None;
        }
        told
    }

    fn tell(&mut self, question: &str) -> Result<String, AdapterError> {
        let gone = "it ended; see its words on stderr";
        let timeout = self.setup.timeout;
        let Some(running) = &mut self.running else {
            return Err(self.failed(ErrorClass::Transient, "source.ended", gone));
        };
        let sent = running.input.write_all(question.as_bytes()).and_then(|()| running.input.write_all(b"\n"));
        if sent.and_then(|()| running.input.flush()).is_err() {
            return Err(self.failed(ErrorClass::Transient, "source.ended", gone));
        }
        match running.answers.recv_timeout(timeout) {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(e)) => Err(self.failed(ErrorClass::Transient, "source.protocol", &format!("its answer: {e}"))),
            Err(RecvTimeoutError::Timeout) => {
                let detail = format!("it did not answer within {} s", timeout.as_secs_f32());
                Err(self.failed(ErrorClass::Transient, "source.timeout", &detail))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.failed(ErrorClass::Transient, "source.ended", gone)),
        }
    }

    fn read(&self, text: String, what: &str) -> Result<Box<RawValue>, AdapterError> {
        let broken = |detail: String| self.failed(ErrorClass::Permanent, "source.protocol", &detail);
        let answer: Answer = serde_json::from_str(&text).map_err(|e| broken(format!("its answer to {what}: {e}")))?;
        if answer.id != self.asked {
            return Err(broken(format!("it answered question {} instead of {}", answer.id, self.asked)));
        }
        if let Some(refused) = answer.error {
            let class = match refused.class.as_str() {
                "transient" => ErrorClass::Transient,
                "auth" => ErrorClass::Auth,
                "data" => ErrorClass::Data,
                "permanent" => ErrorClass::Permanent,
                other => return Err(broken(format!("`{other}` is no class: transient, auth, data or permanent"))),
            };
            let message = format!("{}: {}", self.name(), refused.message);
            let retry_after_ms = refused.retry_after_ms;
            return Err(AdapterError::Source { class, code: "source.program", message, retry_after_ms });
        }
        RawValue::from_string(text).map_err(|e| broken(e.to_string()))
    }

    fn start(&self) -> Result<Running, AdapterError> {
        let (program, arguments) = self
            .setup
            .command
            .split_first()
            .ok_or_else(|| self.failed(ErrorClass::Permanent, "source.missing", "the document names no program"))?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.base).env_clear();
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, secret) in &self.setup.env {
            command.env(name, secret.reveal(&self.base)?.as_str());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let missing = |e: std::io::Error| {
            self.failed(ErrorClass::Permanent, "source.missing", &format!("it could not be started: {e}"))
        };
        let mut child = command.spawn().map_err(missing)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.failed(ErrorClass::Permanent, "source.missing", "it has no stdin or stdout"));
        };
        let (send, answers) = sync_channel(1);
        let read = move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = Vec::new();
                let told = match (&mut output).take(ANSWER_BYTES_MAX + 1).read_until(b'\n', &mut line) {
                    Ok(0) => return,
                    Ok(n) if n as u64 > ANSWER_BYTES_MAX => Err(invalid("longer than 16 MiB")),
                    Ok(_) => String::from_utf8(line).map_err(|_| invalid("not UTF-8")),
                    Err(e) => Err(e),
                };
                let over = told.is_err();
                if send.send(told).is_err() || over {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("external".to_owned()).spawn(read).map_err(missing)?;
        Ok(Running { child, input, answers })
    }
}

fn invalid(detail: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, detail)
}
