//! The benchmark works: its short run measures, stops what it started, and is no evidence for a floor.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

const BENCH: &str = env!("CARGO_BIN_EXE_concordat-bench");

/// Processes whose command line names `folder`.
fn left(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    let lines = lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
    lines.filter(|l| l.contains(&folder) && !l.contains("--out")).collect()
}

#[test]
fn a_short_run_measures_and_leaves_nothing_behind_but_its_results() {
    let program = Path::new(BENCH).with_file_name("concordat");
    let absent = match concordat_cli::servers::find(concordat_cli::servers::Server::CometBft) {
        Err(e) => Some(e.to_string()),
        Ok(_) if !program.is_file() => Some(format!("{} is not built", program.display())),
        Ok(_) => None,
    };
    if let Some(absent) = absent {
        assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{absent}");
        eprintln!("SKIPPED a_short_run_measures_and_leaves_nothing_behind_but_its_results: {absent}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (results, folders) = (dir.path().join("r.json"), dir.path().join("t"));
    std::fs::create_dir(&folders).unwrap();
    let mut run = Command::new(BENCH);
    run.args(["run", "--quick", "--only", "one-validator,feeds", "--out"]).arg(&results).env("TMPDIR", &folders);
    let out = run.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let row = |name: &str| found["rows"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap();
    let (ours, base) = (row("ordered_ops_1v"), row("kvstore_ops_1v"));
    assert!(ours["value"].as_f64() > Some(0.0) && base["value"].as_f64() > Some(0.0));
    assert_eq!(ours["baseline"], "kvstore_ops_1v");
    assert!(row("memory_application_1v")["value"].as_f64() > Some(1.0));
    for (ours, base) in [
        ("publish_signed", "raw_envelopes"),
        ("publish_single", "publish_signed"),
        ("publish_verified", "raw_envelopes_read"),
        ("feed_p99_ms", "raw_feed_p99_ms"),
        ("fanout_50_msgs", "fanout_1_msgs"),
    ] {
        assert!(row(ours)["value"].as_f64() > Some(0.0), "{ours}");
        assert_eq!(row(ours)["baseline"], base);
    }
    assert!(std::fs::read_to_string(results.with_extension("md")).unwrap().contains("| ordered_ops_1v |"));

    assert_eq!(left(&folders), Vec::<String>::new(), "processes that were left running");
    assert_eq!(std::fs::read_dir(&folders).unwrap().count(), 0, "folders that were left");

    let floors = concat!(env!("CARGO_MANIFEST_DIR"), "/bench-floors.json");
    let check = Command::new(BENCH).args(["check", "--floors", floors, "--results"]).arg(&results).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(said.contains("short run") && said.contains("make bench"), "{said}");
}
