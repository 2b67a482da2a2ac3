//! A program of the source's owner that changes the source as the kit asks. See `adapters/README.md`.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Exit code that says: this source cannot be changed so.
const CANNOT: i32 = 3;
/// How long a change may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an answer.
const ANSWER_MAX: u64 = 1 << 20;
/// How often it is looked whether the program ended.
const LOOK: Duration = Duration::from_millis(5);
/// The word for a new world, at the beginning of each check.
pub const FRESH: &str = "fresh";

/// What a program says that its change adds.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Told {
    /// The key's fields of every event that must come of it.
    pub expected: Vec<Map<String, Value>>,
    /// How many dead letters must come of it.
    pub dead: usize,
}

/// A program and the folder that it is run in.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path, from the root: it is run without a shell.
    pub path: PathBuf,
    /// The folder, which is the one that the document's paths are relative to.
    pub folder: PathBuf,
    /// How long a change may take: [`PATIENCE`].
    pub patience: Duration,
}

impl Program {
    /// Runs the program with the name of a change as its only argument; none when it says that it cannot do that. What it
    /// writes to stderr is shown.
    pub fn call(&self, change: &str) -> Result<Option<Told>, String> {
        let failed = |what: String| format!("the program of changes, asked for `{change}`: {what}");
        let mut command = Command::new(&self.path);
        command.arg(change).current_dir(&self.folder).stdin(Stdio::null()).stderr(Stdio::inherit());
        let run = command.stdout(Stdio::piped()).spawn();
        let mut run = run.map_err(|e| failed(format!("it cannot be run: {e}")))?;
        let (tell, told) = mpsc::channel();
        let out = run.stdout.take();
        // Read beside it: an answer that is longer than a pipe holds would stop the program.
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = out.map_or(Ok(0), |out| out.take(ANSWER_MAX).read_to_end(&mut text));
            let _ = tell.send(read.map(|_| text));
        });
        let end = Instant::now() + self.patience;
        let status = ended(&mut run, end).map_err(|e| failed(format!("it cannot be waited for: {e}")))?;
        let Some(status) = status else {
            let (_, _) = (run.kill(), run.wait());
            let took = self.patience.as_secs();
            return Err(failed(format!(
                "it did not end within {took} s and was stopped; a change is done when it ends"
            )));
        };
        if status.code() == Some(CANNOT) {
            return Ok(None);
        }
        if !status.success() {
            let rule = format!("it ended with {status}; 0 means done, {CANNOT} that it cannot do this");
            return Err(failed(rule));
        }
        let text = told.recv_timeout(end.saturating_duration_since(Instant::now()).max(LOOK));
        let text = text.map_err(|_| failed("something that it started keeps its output open".to_owned()))?;
        let text = text.map_err(|e| failed(format!("its answer cannot be read: {e}")))?;
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(Some(Told::default()));
        }
        let told = serde_json::from_slice(text);
        told.map(Some).map_err(|e| failed(format!("its answer is not `{{\"expected\": [..], \"dead\": n}}`: {e}")))
    }
}

/// How a program ended; none when it did not by then.
fn ended(run: &mut Child, by: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        let status = run.try_wait()?;
        if status.is_some() || Instant::now() >= by {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_a_refusal_and_a_failure_are_told_apart() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("changes");
        let script = "#!/bin/sh\ncase $1 in\n\
            rows) echo '{\"expected\": [{\"n\": 1}], \"dead\": 2}';;\ncut) ;;\n\
            poison) exit 3;;\ndrift) exit 1;;\nresent) echo '{\"lost\": 1}';;\nhang) exec sleep 600;;\nesac\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = Program { path, folder: dir.path().to_owned(), patience: PATIENCE };
        let one = Map::from_iter([("n".to_owned(), Value::from(1))]);
        assert_eq!(program.call("rows").unwrap(), Some(Told { expected: vec![one], dead: 2 }));
        assert_eq!(program.call("cut").unwrap(), Some(Told::default()));
        assert_eq!(program.call("poison").unwrap(), None);
        assert!(program.call("drift").unwrap_err().contains("`drift`: it ended with exit status: 1"));
        assert!(program.call("resent").unwrap_err().contains("unknown field `lost`"));
        let hasty = Program { patience: Duration::from_millis(100), ..program.clone() };
        assert!(hasty.call("hang").unwrap_err().contains("did not end within 0 s and was stopped"));
        let gone = Program { path: dir.path().join("gone"), ..program };
        assert!(gone.call("rows").unwrap_err().contains("cannot be run"));
    }
}
