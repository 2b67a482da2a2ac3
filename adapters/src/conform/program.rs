//! A program of the source's owner that changes the source as the kit asks. See `adapters/README.md`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Exit code that says: this source cannot be changed so.
const CANNOT: i32 = 3;
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
}

impl Program {
    /// Runs the program with the name of a change as its only argument; none when it says that it cannot do that. What it
    /// writes to stderr is shown.
    pub fn call(&self, change: &str) -> Result<Option<Told>, String> {
        let failed = |what: String| format!("the program of changes, asked for `{change}`: {what}");
        let mut command = Command::new(&self.path);
        command.arg(change).current_dir(&self.folder).stdin(Stdio::null()).stderr(Stdio::inherit());
        let out = command.output().map_err(|e| failed(format!("it cannot be run: {e}")))?;
        if out.status.code() == Some(CANNOT) {
            return Ok(None);
        }
        if !out.status.success() {
            let rule = format!("it ended with {}; 0 means done, {CANNOT} that it cannot do this", out.status);
            return Err(failed(rule));
        }
        let text = out.stdout.trim_ascii();
        if text.is_empty() {
            return Ok(Some(Told::default()));
        }
        let told = serde_json::from_slice(text);
        told.map(Some).map_err(|e| failed(format!("its answer is not `{{\"expected\": [..], \"dead\": n}}`: {e}")))
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
            poison) exit 3;;\ndrift) exit 1;;\nresent) echo '{\"lost\": 1}';;\nesac\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = Program { path, folder: dir.path().to_owned() };
        let one = Map::from_iter([("n".to_owned(), Value::from(1))]);
        assert_eq!(program.call("rows").unwrap(), Some(Told { expected: vec![one], dead: 2 }));
        assert_eq!(program.call("cut").unwrap(), Some(Told::default()));
        assert_eq!(program.call("poison").unwrap(), None);
        assert!(program.call("drift").unwrap_err().contains("`drift`: it ended with exit status: 1"));
        assert!(program.call("resent").unwrap_err().contains("unknown field `lost`"));
        let gone = Program { path: dir.path().join("gone"), ..program };
        assert!(gone.call("rows").unwrap_err().contains("cannot be run"));
    }
}
