//! The laws a program can check about the source itself: what replicated code may contain and link, which way the
//! crates' arrows point, what may lie at the top of the repository. Each check is a function from text to complaints,
//! and each has a test that plants a breach and must see it found. `make laws` runs this file alone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a check that cannot run must fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// DESIGN: "Arrows mean depends on; there are no others." Build and test dependencies count too.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("policies", &["protocol"]),
    ("executor", &["protocol", "policies"]),
    ("abci-app", &["protocol"]),
    ("broker", &["protocol", "executor"]),
    ("adapters", &["protocol"]),
    ("client", &["protocol"]),
    ("cli", &["protocol", "policies", "executor", "abci-app", "broker", "adapters"]),
    ("tests", &["protocol", "policies", "executor", "abci-app", "broker", "adapters", "cli", "client"]),
];

/// Who links a hidden library all the same, and the folders in which it stays: formats of others (notes, CMS, X.509,
/// GTFS-Realtime, the SCRAM login of Kafka), on which no proof of ours rests (docs/adr/0021, 0023, 0030 and 0033).
/// `adapters/src/tls.rs` names it as rustls' provider only.
const FOREIGN: &[(&str, &str, &[&str])] = &[
    ("broker", "aws-lc-rs", &["broker/src/outside/", "broker/src/bundle/"]),
    ("adapters", "aws-lc-rs", &["adapters/src/kinds/kafka/", "adapters/src/tls.rs"]),
    ("adapters", "prost", &["adapters/src/kinds/http_poll/"]),
];

/// Libraries that one crate hides behind its own types: nobody else links them directly (their tests may).
const HIDDEN: &[(&str, &str)] = &[
    ("aes-gcm", "protocol"),
    ("aws-lc-rs", "protocol"),
    ("casbin", "policies"),
    ("ed25519-dalek", "protocol"),
    ("hpke", "protocol"),
    ("ml-dsa", "protocol"),
    ("prost", "abci-app"),
    ("sha2", "protocol"),
    ("tendermint-abci", "abci-app"),
];

/// What may lie at the top of the repository; a new entry is a decision, so it is made here.
const TOP: &str = ".cargo .ci .gitattributes .gitignore Cargo.lock Cargo.toml LICENSE Makefile README.md abci-app \
                   adapters broker cli clippy.toml deny.toml docs executor helm policies protocol rustfmt.toml tests";

/// Law 6: crates that replicated code must not link, by the start of their names.
const NOT_REPLICATED: &[&str] = &[
    "aws-lc", "casbin", "fips20", "hpke", "kem", "liboqs", "ml-dsa", "ml-kem", "mlkem", "oqs", "pqcrypto", "slh-dsa",
    "x-wing",
];

/// No second TLS and signing library: with two providers rustls panics at start.
const NEVER: &[&str] = &["native-tls", "openssl", "openssl-sys", "ring"];

/// Words that have no place in replicated code. Clippy knows the types (abci-app/clippy.toml); this holds in
/// `cargo test` as well, and where clippy was told to look away.
const NOT_IN_REPLICATED_CODE: &str = "DefaultHasher HashMap HashSet Instant RandomState SystemTime f32 f64 getrandom \
                                      rand thread thread_local tokio";

/// Lints that replicated code may deny but not allow.
const NOT_ALLOWED_AWAY: &[&str] = &["disallowed_types", "disallowed_methods", "float_arithmetic"];

/// The shell of `abci-app`: the only files in which a clock, a thread or a socket may appear. All others are replicated.
const SHELL: &[&str] = &["abci-app/src/clock.rs", "abci-app/src/server.rs", "abci-app/src/store/ahead.rs"];

const LINES_MAX: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(root()).output();
    let out = out.unwrap_or_else(|e| panic!("{program} does not start: {e}"));
    assert!(out.status.success(), "{program} {args:?}:\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The files of the repository: tracked, or new and not ignored.
fn files() -> Vec<String> {
    let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"]);
    listed.lines().filter(|f| root().join(f).exists()).map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Crate names in the dependency tree of `select`, along edges of `kinds`, on the machine at hand.
fn tree(select: &[&str], kinds: &str) -> BTreeSet<String> {
    let mut args = vec!["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}", "-e", kinds];
    args.extend(select);
    let names = output(env!("CARGO"), &args);
    let names = names.lines().filter_map(|l| l.split(' ').next());
    names.filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

fn linked(tree: &BTreeSet<String>, banned: impl Fn(&str) -> bool) -> Vec<String> {
    tree.iter().filter(|n| banned(n)).cloned().collect()
}

fn not_replicated(name: &str) -> bool {
    NOT_REPLICATED.iter().any(|start| name.starts_with(start))
}

/// Direct dependencies by package of the workspace: (name, is a test dependency).
type Direct = BTreeMap<String, Vec<(String, bool)>>;

fn direct(metadata: &str) -> Direct {
    let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
    let mut direct = Direct::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = short(package["name"].as_str().unwrap());
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let entry = |d: &serde_json::Value| (d["name"].as_str().unwrap().to_owned(), d["kind"] == "dev");
        direct.insert(name, dependencies.map(entry).collect());
    }
    direct
}

fn short(name: &str) -> String {
    name.strip_prefix("concordat-").unwrap_or(name).to_owned()
}

fn wrong_arrows(direct: &Direct) -> Vec<String> {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, dependencies) in direct {
        let Some(allowed) = arrows.get(package.as_str()) else {
            wrong.push(format!("{package} is a package that no arrow names"));
            continue;
        };
        for (name, dev) in dependencies {
            let hidden = HIDDEN.iter().find(|(library, _)| library == name);
            if name.starts_with("concordat-") && !allowed.contains(&short(name).as_str()) {
                wrong.push(format!("{package} depends on {name}: there is no such arrow"));
            } else if let Some((_, owner)) = hidden
                && !dev
                && owner != package
                && !FOREIGN.iter().any(|(who, library, _)| (*who, *library) == (package.as_str(), name.as_str()))
            {
                wrong.push(format!("{package} links {name}, which {owner} hides behind its own types"));
            }
        }
    }
    wrong
}

fn wrong_top(files: &[String]) -> BTreeSet<String> {
    let top = files.iter().filter_map(|f| f.split('/').next());
    top.filter(|name| !TOP.split(' ').any(|t| t == *name)).map(str::to_owned).collect()
}

/// The lines of `source` that are shipped, with their numbers: without the items marked `#[cfg(test)]`, each of which ends
/// where rustfmt puts its end, at its own indentation.
fn shipped(source: &str) -> Vec<(usize, &str)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut test = None;
    let mut kept = Vec::new();
    for (number, line) in source.lines().enumerate() {
        match test {
            Some(at) if indent(line) == at && line.ends_with(['}', ';']) => test = None,
            Some(_) => {}
            None if line.trim() == "#[cfg(test)]" => test = Some(indent(line)),
            None => kept.push((number + 1, line)),
        }
    }
    kept
}

/// What stands in `source` against law 6, outside comments and tests.
fn wrong_words(file: &str, source: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in shipped(source) {
        let line = line.split("//").next().unwrap_or_default();
        let allows = line.contains("allow(") || line.contains("expect(");
        let words = NOT_IN_REPLICATED_CODE.split(' ').filter(|w| whole_word(line, w));
        let lints = NOT_ALLOWED_AWAY.iter().copied().filter(|l| allows && line.contains(l));
        wrong.extend(words.chain(lints).map(|what| format!("{file}:{number}: {what} (law 6: replicas agree)")));
    }
    wrong
}

fn whole_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

fn long_files(files: &[(String, usize)]) -> Vec<String> {
    let long = files.iter().filter(|(_, lines)| *lines > LINES_MAX);
    long.map(|(file, lines)| format!("{file}: {lines} lines")).collect()
}

#[test]
fn replicated_code_links_no_post_quantum_library_and_no_policy_engine() {
    let found = linked(&tree(&["-p", "concordat-abci-app"], "normal,build"), not_replicated);
    assert_eq!(found, [""; 0], "concordat-abci-app links these: keep the features of concordat-protocol off there");
    // The same search does find them where they belong, so an empty answer means something.
    let features = ["-p", "concordat-protocol", "--features", "verifier,node"];
    let protocol = linked(&tree(&features, "normal,build"), not_replicated);
    let there = |name: &&str| protocol.iter().any(|p| p == name);
    assert!(["aws-lc-rs", "hpke", "ml-dsa"].iter().all(there), "{protocol:?}");
}

#[test]
fn one_tls_library_and_the_unmaintained_peer_only_in_tests() {
    let never = |name: &str| NEVER.contains(&name);
    let peer = |name: &str| name.starts_with("pqcrypto");
    let everything = tree(&["--workspace", "--all-features"], "normal,build,dev");
    assert_eq!(linked(&everything, never), [""; 0], "`cargo tree -i NAME -e features` shows who brings it");
    let shipped = tree(&["--workspace"], "normal,build");
    assert_eq!(linked(&shipped, peer), [""; 0], "pqcrypto is a peer for tests (docs/adr/0002)");
    assert_ne!(linked(&everything, peer), [""; 0], "the interoperability peer is gone from the tests");
    let planted = BTreeSet::from(["ring".to_owned(), "string".to_owned()]);
    assert_eq!(linked(&planted, never), ["ring"]);
}

#[test]
fn arrows_point_one_way() {
    let args = ["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"];
    let mut direct = direct(&output(env!("CARGO"), &args));
    assert_eq!(direct.len(), ARROWS.len(), "a package came or went: {:?}", direct.keys());
    assert_eq!(wrong_arrows(&direct), [""; 0]);

    direct.get_mut("adapters").unwrap().push(("concordat-broker".to_owned(), true));
    direct.get_mut("broker").unwrap().push(("casbin".to_owned(), false));
    direct.insert("extra".to_owned(), Vec::new());
    assert_eq!(wrong_arrows(&direct).len(), 3, "three planted breaches");
}

#[test]
fn a_hidden_library_stays_where_foreign_formats_are() {
    for (package, library, folders) in FOREIGN {
        let word = library.replace('-', "_");
        let names = |f: &&String| {
            f.starts_with(&format!("{package}/src/")) && f.ends_with(".rs") && whole_word(&read(f), &word)
        };
        let (inside, outside): (Vec<_>, Vec<_>) =
            files().iter().filter(names).cloned().partition(|f| folders.iter().any(|folder| f.starts_with(folder)));
        assert_eq!(outside, [""; 0], "{library} has one place in {package}");
        assert!(!inside.is_empty(), "nobody needs {library} there any more: remove the exception");
    }
}

#[test]
fn the_top_of_the_repository_holds_what_it_should() {
    let mut files = files();
    let wrong = wrong_top(&files);
    assert_eq!(wrong, BTreeSet::new(), "move it into a room, or add it to TOP in tests/tests/laws.rs");
    files.push("notes.txt".to_owned());
    assert_eq!(wrong_top(&files), BTreeSet::from(["notes.txt".to_owned()]));
}

#[test]
fn replicated_code_has_no_clock_no_float_no_map_order() {
    let files = files();
    let replicated = |f: &&String| f.starts_with("abci-app/src/") && f.ends_with(".rs") && !SHELL.contains(&f.as_str());
    let replicated: Vec<_> = files.iter().filter(replicated).collect();
    assert!(!SHELL.iter().any(|f| f.starts_with("abci-app/src/state/")), "the state has no shell");
    assert!(replicated.len() > 1, "the replicated code has moved: {replicated:?}");
    let wrong: Vec<_> = replicated.iter().flat_map(|file| wrong_words(file, &read(file))).collect();
    assert_eq!(wrong, [""; 0], "only the files in SHELL of tests/tests/laws.rs may use these");

    let planted = "use std::time::Instant; // SystemTime\n// HashMap\nlet instants = 1;\n\
                   #![deny(clippy::float_arithmetic)]\n#[allow(clippy::disallowed_types)]\n\
                   #[cfg(test)]\nmod tests;\nlet x: f64 = 1.0;\n\
                   #[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\nlet r = rand();\n";
    let found = wrong_words("x.rs", planted);
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn clippy_holds_the_same_law() {
    let rules = read("abci-app/clippy.toml");
    let std = ["collections::HashMap", "collections::HashSet", "time::Instant", "time::SystemTime"];
    for path in std.iter().map(|p| format!("std::{p}")).chain(["f32".to_owned(), "f64".to_owned()]) {
        assert!(rules.contains(&format!("path = \"{path}\"")), "abci-app/clippy.toml no longer refuses {path}");
    }
    let denies = read("abci-app/src/lib.rs").contains("deny(clippy::float_arithmetic");
    assert!(denies, "abci-app/src/lib.rs must say #![deny(clippy::float_arithmetic)]");
}

/// Long files are named, not refused: the limit is a habit. The names go past libtest's capture on purpose.
#[test]
fn long_files_are_named() {
    let files = files().into_iter().filter(|f| f.ends_with(".rs"));
    let counted: Vec<_> = files.map(|f| (read(&f).lines().count(), f)).map(|(lines, f)| (f, lines)).collect();
    let mut err = std::io::stderr();
    for line in long_files(&counted) {
        let _ = writeln!(err, "over {LINES_MAX} lines: {line}");
    }
    let planted = [("a.rs".to_owned(), 400), ("b.rs".to_owned(), 401)];
    assert_eq!(long_files(&planted), ["b.rs: 401 lines"]);
}
