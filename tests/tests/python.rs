//! The Python verifier agrees with the corpus: its own tests, run in an environment of pinned packages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_protocol::hash::sha256;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the verifier needs at least.
const PYTHON: &str = "import sys; sys.exit(sys.version_info < (3, 11))";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/python").canonicalize().unwrap()
}

/// A missing tool is a named skip.
fn skipped(why: &str) {
    eprintln!("SKIPPED python verifier: {why}");
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("concordat")
}

fn run(command: &mut Command) -> Result<Output, String> {
    let out = command.output().map_err(|e| format!("{} does not start: {e}", command.get_program().display()))?;
    let last = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().lines().last().unwrap_or_default().to_owned();
    if out.status.success() { Ok(out) } else { Err(last(&out.stderr)) }
}

/// An environment with the pinned packages, made once for each content of requirements.txt.
fn environment() -> Result<PathBuf, String> {
    let pinned = folder().join("requirements.txt");
    let hash = hex::encode(sha256(&[&std::fs::read(&pinned).unwrap()]));
    let place = cache().join(format!("python-{}", &hash[..16]));
    let python = place.join("bin/python");
    if place.join("complete").exists() && python.exists() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-c", PYTHON])).map_err(|e| format!("Python 3.11 or later is missing. {e}"))?;
    std::fs::create_dir_all(cache()).unwrap();
    // Built aside under a name of its own and then renamed, so that two runs do not meet in one folder.
    let aside = tempfile::Builder::new().prefix("python-").tempdir_in(cache()).unwrap();
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

fn unit_tests(python: &Path, folder: &Path, path: &str) -> u32 {
    let mut tests = Command::new(python);
    tests.args(["-B", "-W", "error", "-m", "unittest", "discover", "-t", ".", "-s", "tests"]).current_dir(folder);
    let out = tests.env("PYTHONPATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    // An empty run is no agreement.
    said.lines().find_map(|l| l.strip_prefix("Ran ")?.split(' ').next()?.parse().ok()).unwrap()
}

#[test]
fn the_python_verifier_agrees_with_the_corpus() {
    let python = match environment() {
        Ok(python) => python,
        Err(why) => return skipped(&why),
    };
    let ran = unit_tests(&python, &folder(), "");
    assert!(ran >= 30, "only {ran} tests ran");
    println!("the Python verifier's own tests: {ran}");
}

#[test]
fn the_python_client_keeps_the_bytes_that_were_committed_to() {
    let python = match environment() {
        Ok(python) => python,
        Err(why) => return skipped(&why),
    };
    let client = folder().join("../../broker/clients/python");
    assert!(unit_tests(&python, &client, folder().to_str().unwrap()) >= 3);
}
