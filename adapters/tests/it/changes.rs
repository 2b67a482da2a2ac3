//! The conformance kit on a document, with the program of its owner that makes the changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::conform::{Outcome, PATIENCE, Program, Verdict, battery, kit_of};
use concordat_adapters::parse;

const DOCUMENT: &str = "adapter: drop\nkind: file-drop\nwatch: {path: in, glob: '*.csv', ready: {rename_from: .part}}\n\
    format: {csv: {columns: [id, mw]}}\ninto: ds:conform/it@1\nmap: {id: {type: integer}, mw: {type: decimal}}\nkey: [id]\n\
    after: {move: done, failed: failed}\npoll: {every: 10ms}\n";

/// The example as it is, or with another text in it, beside a folder.
fn program(dir: &Path, from: &str, to: &str) -> Program {
    let text = include_str!("../../src/conform/changes.py");
    assert!(text.contains(from));
    let path = dir.join("changes.py");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    Program { path, folder: dir.to_owned(), patience: PATIENCE }
}

async fn judge(dir: &Path, program: Option<Program>, patience: Duration) -> Vec<Outcome> {
    let scratch = tempfile::tempdir().unwrap();
    let connector = Arc::from(parse(DOCUMENT).unwrap());
    let mut kit = kit_of(connector, dir.to_owned(), scratch.path().to_owned(), program);
    kit.patience = patience;
    battery(&kit, |o| eprintln!("{} {:?}", o.check, o.verdict)).await
}

fn of<'a>(all: &'a [Outcome], check: &str) -> &'a Verdict {
    &all.iter().find(|o| o.check == check).unwrap().verdict
}

#[tokio::test]
async fn the_example_of_changes_runs_every_check_that_files_can_have() {
    let dir = tempfile::tempdir().unwrap();
    let all = judge(dir.path(), Some(program(dir.path(), "fresh", "fresh")), Duration::from_secs(60)).await;
    assert_eq!(all.len(), 14);
    for outcome in &all {
        let skipped = ["equal-cursor", "late-row", "clock-skew"].contains(&outcome.check);
        let want = if skipped { Verdict::Skipped } else { Verdict::Passed };
        assert_eq!(outcome.verdict, want, "{}", outcome.check);
    }
    assert!(dir.path().join("in/done").is_dir(), "a source that is made anew is told what is durable");
}

#[tokio::test]
async fn a_document_alone_runs_what_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "", "").call("fresh").unwrap();
    let before = std::fs::read_dir(dir.path().join("in")).unwrap().count();
    let all = judge(dir.path(), None, Duration::from_secs(60)).await;
    let passed: Vec<&str> = all.iter().filter(|o| o.verdict == Verdict::Passed).map(|o| o.check).collect();
    assert_eq!(passed, ["repeatable", "restart", "broker-away", "ack-lost", "back-pressure"]);
    assert_eq!(all.iter().filter(|o| o.verdict == Verdict::Skipped).count(), 9);
    assert_eq!(std::fs::read_dir(dir.path().join("in")).unwrap().count(), before, "nothing was acknowledged");
}

#[tokio::test]
async fn what_a_program_says_is_held_against_what_comes() {
    let few = Duration::from_secs(3);
    let dir = tempfile::tempdir().unwrap();
    let more = program(dir.path(), "return told(keys, dead=1)", "return told(keys + [{\"id\": 999}], dead=1)");
    let all = judge(dir.path(), Some(more), few).await;
    let lost = "after Poison: 1 lost (id 999)".to_owned();
    assert_eq!(of(&all, "poison"), &Verdict::Failed(lost));
    let without = program(dir.path(), "{\"id\": n}", "{\"number\": n}");
    let all = judge(dir.path(), Some(without), few).await;
    assert!(matches!(of(&all, "restart"), Verdict::Failed(why) if why.contains("is without `id`")), "{all:?}");
    let fails = program(dir.path(), "def cut():\n", "def cut():\n    sys.exit(1)\n");
    let all = judge(dir.path(), Some(fails), few).await;
    assert!(matches!(of(&all, "reconnect"), Verdict::Failed(why) if why.contains("`cut`: it ended with")), "{all:?}");
}
