//! `concordat adapter conform` as an outsider runs it: a document, a folder and a program that changes it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

const DOCUMENT: &str = "adapter: drop\nkind: file-drop\nwatch: {path: in, glob: '*.csv', ready: {rename_from: .part}}\n\
    format: {csv: {columns: [id, mw]}}\ninto: ds:conform/it@1\nmap: {id: {type: integer}, mw: {type: decimal}}\nkey: [id]\n\
    after: {move: done, failed: failed}\npoll: {every: 10ms}\n";

fn conform(dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_concordat"));
    command.current_dir(dir).args(["--output", "json", "adapter", "conform", "-f", "drop.yaml"]).args(more);
    command.output().unwrap()
}

fn results(out: &Output) -> Vec<(String, String)> {
    let rows: Vec<serde_json::Value> =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "check"), text(row, "result"))).collect()
}

#[test]
fn a_program_of_changes_makes_all_checks_run_that_files_can_have() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("drop.yaml"), DOCUMENT).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapters/src/conform/changes.py");
    let out = conform(dir.path(), &["--changes", example.to_str().unwrap()]);
    let all = results(&out);
    assert!(out.status.success(), "{all:?}");
    assert_eq!(all.len(), 14);
    let skipped: Vec<&str> = all.iter().filter(|(_, r)| r == "skipped").map(|(check, _)| check.as_str()).collect();
    assert_eq!(skipped, ["equal-cursor", "late-row", "clock-skew"]);
    // Alone, the document changes nothing.
    assert!(Command::new(&example).arg("fresh").current_dir(dir.path()).output().unwrap().status.success());
    let alone = conform(dir.path(), &[]);
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    assert_eq!(results(&alone).iter().filter(|(_, r)| r == "skipped").count(), 9);
    let gone = conform(dir.path(), &["--changes", "no-such-program"]);
    assert!(!gone.status.success() && String::from_utf8_lossy(&gone.stderr).contains("no-such-program"));
}
