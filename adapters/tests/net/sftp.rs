//! Files dropped into a folder of an OpenSSH server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::conform::{Kit, Rig, Verdict, battery};
use concordat_adapters::contract::{AdapterError, Checkpoint, ErrorClass, Finding, Level, Source};
use concordat_adapters::parse;

use crate::drop_rig::{Folder, ids, read_all};
use crate::sshd::{Line, Sshd};

const DOCUMENT: &str = "\
adapter: drop
kind: file-drop
watch: {SFTP, glob: '*.csv*', ready: {rename_from: .part}}
format: {csv: {delimiter: ';', encoding: windows-1252, decimal: ',', nulls: ['', NA], columns: [id, mw, note]}}
into: ds:conform/it@1
map: {id: {type: integer}, mw: {type: decimal}, note: {}}
key: [id]
after: {move: done/deep, failed: failed}
poll: {every: 10ms}
";

fn folder(server: &Sshd, port: u16) -> Folder {
    let mut folder = Folder::new(DOCUMENT);
    let path = folder.dir.path().join("in");
    folder.document = DOCUMENT.replace("SFTP", &server.watch(port, path.to_str().unwrap()));
    folder
}

fn refused(folder: &Folder, document: &str) -> AdapterError {
    let mut source = parse(document).unwrap().open(folder.dir.path()).unwrap();
    source.read(&Checkpoint::default(), 7).unwrap_err()
}

fn check(folder: &Folder, document: &str) -> Vec<Finding> {
    parse(document).unwrap().check(folder.dir.path())
}

fn names(found: &[Finding]) -> Vec<(&str, Level)> {
    found.iter().map(|f| (f.name, f.level)).collect()
}

#[tokio::test]
async fn the_conformance_kit_passes_over_sftp() {
    let Some(server) = Sshd::start("the_conformance_kit_passes_over_sftp", "internal-sftp") else { return };
    let (server, scratch) = (Arc::new(server), tempfile::tempdir().unwrap());
    let make = Box::new(move || {
        let line = Line::to(server.port);
        let mut rig = folder(&server, line.port);
        for rows in [11, 1, 20, 3] {
            let rows = rig.rows(rows);
            rig.drop(&rows);
        }
        rig.cut = Some(Box::new(move |cut| line.cut(cut)));
        Ok(Box::new(rig) as Box<dyn Rig>)
    });
    let kit = Kit { make, patience: Duration::from_secs(30), scratch: scratch.path().to_owned() };
    for outcome in battery(&kit, |_| {}).await {
        let skipped = ["equal-cursor", "late-row", "clock-skew"].contains(&outcome.check);
        let want = if skipped { Verdict::Skipped } else { Verdict::Passed };
        assert_eq!(outcome.verdict, want, "{}", outcome.check);
    }
}

#[test]
fn files_leave_the_server_only_when_their_rows_are_durable() {
    let test = "files_leave_the_server_only_when_their_rows_are_durable";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let mut folder = folder(&server, server.port);
    for _ in 0..2 {
        let rows = folder.rows(3);
        folder.drop(&rows);
    }
    let resent = folder.last.clone();
    folder.drop(&resent);
    folder.drop(b"id;mw\r\n1;2\r\n");
    let half = folder.rows(9);
    folder.expected.truncate(6);
    std::fs::write(folder.path("half.csv.part"), &half).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path("link.csv")).unwrap();

    let mut source = folder.source();
    let batch = source.read(&Checkpoint::default(), 100).unwrap();
    let batch = match batch.rows() {
        0 => source.read(&batch.checkpoint, 100).unwrap(),
        _ => batch,
    };
    assert_eq!(folder.names("in").len(), 5, "nothing is acknowledged, nothing leaves: {:?}", folder.names("in"));
    source.ack(&batch.checkpoint).unwrap();
    let mut at = batch.checkpoint.clone();
    let mut all = vec![batch];
    all.extend(read_all(&mut *source, &mut at));
    assert_eq!(ids(&all), folder.expected);
    let rules: Vec<&str> = all.iter().flat_map(|b| &b.rejects).map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["file.header"]);
    let notes: Vec<&String> = all.iter().flat_map(|b| &b.notes).collect();
    assert!(notes.len() == 1 && notes[0].contains("same bytes as f0002.csv"), "{notes:?}");
    assert_eq!(folder.names("in"), ["half.csv.part"]);
    assert_eq!(folder.names("in/done/deep"), ["f0001.csv", "f0002.csv", "f0003.csv"]);
    assert_eq!(folder.names("in/failed"), ["f0004.csv"]);
    assert!(all[0].records[0].origin.file.starts_with("sftp://"), "{}", all[0].records[0].origin.file);
    assert_eq!(folder.names("adapters"), ["drop.files.jsonl"], "no copy is left");

    // A name that is taken there gets a number, and a document may ask for files to be deleted.
    let rows = folder.rows(2);
    std::fs::write(folder.path("f0001.csv"), rows).unwrap();
    read_all(&mut *source, &mut at);
    assert!(folder.names("in/done/deep").contains(&"f0001.csv.2".to_owned()));
    let rows = folder.rows(2);
    folder.drop(&rows);
    let delete = folder.document.replace("move: done/deep", "delete: true");
    let mut source = parse(&delete).unwrap().open(folder.dir.path()).unwrap();
    assert_eq!(ids(&read_all(&mut *source, &mut at)).len(), 2);
    assert_eq!(folder.names("in"), ["half.csv.part"]);
    assert_eq!(folder.names("in/done/deep").len(), 4);
}

#[test]
fn a_file_that_took_the_name_meanwhile_stays_until_it_is_read() {
    let test = "a_file_that_took_the_name_meanwhile_stays_until_it_is_read";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let mut folder = folder(&server, server.port);
    let rows = folder.rows(3);
    folder.drop(&rows);
    let (mut source, mut at) = (folder.source(), Checkpoint::default());
    while at.is_start() {
        at = source.read(&at, 100).unwrap().checkpoint;
    }
    let rows = folder.rows(5);
    std::fs::write(folder.path("f0001.csv"), rows).unwrap();
    source.ack(&at).unwrap();
    assert_eq!(folder.names("in"), ["f0001.csv"], "it is another file");
    assert_eq!(ids(&read_all(&mut *source, &mut at)), folder.expected[3..]);
    assert_eq!(folder.names("in"), Vec::<String>::new());
}

#[test]
fn a_restart_goes_on_behind_the_last_durable_row_of_a_file_over_sftp() {
    let test = "a_restart_goes_on_behind_the_last_durable_row_of_a_file_over_sftp";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let mut folder = folder(&server, server.port);
    let rows = folder.rows(20);
    folder.drop(&rows);
    let (mut at, mut first) = (Checkpoint::default(), Vec::new());
    let mut source = folder.source();
    while ids(&first).is_empty() {
        first.push(source.read(&at, 7).unwrap());
        at = first[first.len() - 1].checkpoint.clone();
    }
    drop(source);
    std::fs::rename(folder.path("f0001.csv"), folder.path("renamed.csv")).unwrap();
    let rows = folder.rows(2);
    std::fs::write(folder.path("a.csv"), rows).unwrap();
    first.extend(read_all(&mut *folder.source(), &mut at));
    assert_eq!(ids(&first), folder.expected);
    assert_eq!(folder.names("in"), Vec::<String>::new());
}

#[test]
fn a_connection_lost_within_a_file_costs_nothing() {
    let test = "a_connection_lost_within_a_file_costs_nothing";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let line = Line::to(server.port);
    let mut folder = folder(&server, line.port);
    let rows = folder.rows(5);
    folder.drop(&rows);
    let (mut source, mut at) = (folder.source(), Checkpoint::default());
    let mut all = read_all(&mut *source, &mut at);
    // 2 MiB and more, of which the line carries half a MiB.
    let rows = folder.rows(130_000);
    assert!(rows.len() > 2 << 20);
    folder.drop(&rows);
    line.cut_after(512 * 1024);
    let error = loop {
        match source.read(&at, 7) {
            Ok(batch) => assert_eq!(batch.rows(), 0, "no row of a file that is not here as a whole"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.unreachable"), "{error}");
    assert!(line.was_cut());
    // The same source goes on by itself, and so does one that starts now.
    let first = loop {
        let batch = source.read(&at, 7).unwrap();
        if batch.rows() > 0 {
            break batch;
        }
    };
    at = first.checkpoint.clone();
    all.push(first);
    line.cut(false);
    drop(source);
    let mut source = folder.source();
    loop {
        let batch = source.read(&at, 256).unwrap();
        at = batch.checkpoint.clone();
        let over = batch.rows() == 0 && !all.is_empty() && batch.next != concordat_adapters::contract::Next::More;
        all.push(batch);
        if over {
            break;
        }
    }
    source.ack(&at).unwrap();
    assert!(ids(&all) == folder.expected, "{} of {}", ids(&all).len(), folder.expected.len());
    assert_eq!(folder.names("in"), Vec::<String>::new());
}

#[test]
fn a_wrong_key_on_either_side_is_refused_before_anything_is_said() {
    let test = "a_wrong_key_on_either_side_is_refused_before_anything_is_said";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let mut folder = folder(&server, server.port);
    let rows = folder.rows(3);
    folder.drop(&rows);
    let good = folder.document.clone();

    let pinned = good.replace(&server.host_key, "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let error = refused(&folder, &pinned);
    assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.host-key"), "{error}");
    assert!(error.to_string().contains(&server.host_key), "it says what it saw: {error}");
    assert!(!server.log().contains("publickey"), "no login was tried: {}", server.log());
    let found = check(&folder, &pinned);
    assert_eq!(names(&found), [("server", Level::Ok), ("host-key", Level::Fail)], "{found:?}");

    let error = refused(&folder, &good.replace(&server.file("user"), &server.file("other")));
    assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.login"), "{error}");
    assert!(error.to_string().contains("it takes: publickey"), "{error}");

    let error = refused(&folder, &good.replace(&server.file("user"), &server.file("old")));
    assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.secret"), "{error}");
    assert!(error.to_string().contains("RSA"), "{error}");

    let locked = good.replace(&server.file("user"), &server.file("locked"));
    assert!(refused(&folder, &locked).to_string().contains("name its `passphrase`"));
    std::fs::write(folder.dir.path().join("phrase"), "a passphrase\n").unwrap();
    let opened = locked.replace("host_key:", "passphrase: file:phrase, host_key:");
    let mut source = parse(&opened).unwrap().open(folder.dir.path()).unwrap();
    assert_eq!(
        ids(&read_all(&mut *source, &mut Checkpoint::default())),
        folder.expected,
        "an ECDSA key with passphrase"
    );
}

#[test]
fn what_is_not_there_or_not_allowed_has_its_own_word() {
    let test = "what_is_not_there_or_not_allowed_has_its_own_word";
    let Some(server) = Sshd::start(test, "internal-sftp -R") else { return };
    let mut folder = folder(&server, server.port);
    let good = folder.document.clone();
    let error = refused(&folder, &good.replace("/in\"", "/nowhere\""));
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.missing"), "{error}");

    // A server that lets nobody write: files can be read, and the check says that they cannot be moved.
    let rows = folder.rows(3);
    folder.drop(&rows);
    let found = check(&folder, &good);
    let rights = found.iter().find(|f| f.name == "rights").unwrap();
    assert!(rights.level == Level::Fail && rights.sentence.contains("may not"), "{found:?}");
    let mut source = folder.source();
    let mut at = Checkpoint::default();
    while at.is_start() {
        at = source.read(&at, 100).unwrap().checkpoint;
    }
    let error = source.ack(&at).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.rights"), "{error}");
    let stays = good.replace("after: {move: done/deep, failed: failed}\n", "");
    let found = check(&folder, &stays);
    assert!(found.iter().all(|f| f.level == Level::Ok), "{found:?}");

    let small = good.replace("timeout: 20s", "timeout: 20s, bytes_max: 10");
    let error = refused(&folder, &small);
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.limit"), "{error}");

    // A line that is cut at once, and one that says nothing.
    let line = Line::to(server.port);
    line.cut(true);
    let error = refused(&folder, &good.replace(&format!(":{}/", server.port), &format!(":{}/", line.port)));
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.unreachable"), "{error}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let silent_one = good.replace(&format!(":{}/", server.port), &format!(":{port}/")).replace("20s", "1s");
    let error = refused(&folder, &silent_one);
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.timeout"), "{error}");
}

#[test]
fn a_check_says_step_by_step_what_it_found_and_writes_nothing() {
    let test = "a_check_says_step_by_step_what_it_found_and_writes_nothing";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let mut folder = folder(&server, server.port);
    let good = folder.document.clone();
    let steps = [
        ("server", Level::Ok),
        ("host-key", Level::Ok),
        ("login", Level::Ok),
        ("sftp", Level::Ok),
        ("rights", Level::Ok),
        ("folder", Level::Warn),
    ];
    let found = check(&folder, &good);
    assert_eq!(names(&found), steps, "{found:?}");
    let rows = folder.rows(3);
    folder.drop(&rows);
    let ahead = std::time::SystemTime::now() + Duration::from_secs(3_600);
    std::fs::File::options().append(true).open(folder.path("f0001.csv")).unwrap().set_modified(ahead).unwrap();
    let found = check(&folder, &good);
    assert_eq!(names(&found)[5..], [("folder", Level::Ok), ("clock", Level::Warn), ("file", Level::Ok)], "{found:?}");
    assert_eq!(folder.names("in"), ["f0001.csv"]);
    assert!(!Path::new(&folder.path("done")).exists());
    let drafts = parse(&good).unwrap().discover(folder.dir.path()).unwrap();
    assert_eq!(drafts.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "mw", "note"]);
}

/// `cargo test -p concordat-adapters --test net -- --ignored --nocapture two_gigabytes`: it needs 4 GB of disk.
#[test]
#[ignore = "two gigabytes over a line"]
fn two_gigabytes_take_no_more_memory_than_a_few_rows() {
    let test = "two_gigabytes_take_no_more_memory_than_a_few_rows";
    let Some(server) = Sshd::start(test, "internal-sftp") else { return };
    let mut folder = folder(&server, server.port);
    let lines: String = (0..100_000).map(|n| format!("{n};1,5;{}\n", "x".repeat(80))).collect();
    let part = folder.path("big.csv.part");
    let mut out = std::fs::File::create(&part).unwrap();
    std::io::Write::write_all(&mut out, b"id;mw;note\n").unwrap();
    for _ in 0..(2_u64 << 30) / lines.len() as u64 {
        std::io::Write::write_all(&mut out, lines.as_bytes()).unwrap();
    }
    std::fs::rename(part, folder.path("big.csv")).unwrap();
    folder.expected.clear();
    drop(lines);
    let (begun, mut longest) = (std::time::Instant::now(), Duration::ZERO);
    let mut source = folder.source();
    loop {
        let asked = std::time::Instant::now();
        let rows = source.read(&Checkpoint::default(), 256).unwrap().rows();
        if rows > 0 {
            break;
        }
        longest = longest.max(asked.elapsed());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most: u64 =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    println!("2 GiB in {:?}, longest call while copying {longest:?}, most memory {most} kB", begun.elapsed());
    assert!(most < 150_000, "{most} kB");
}
