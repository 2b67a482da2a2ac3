//! MongoDB's protocol, by FerretDB (or any server at `MONGODB_URI`); change streams where a server has them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use concordat_adapters::contract::{Checkpoint, ErrorClass, Level, Next, Source};
use concordat_adapters::dead_letter::{DeadLetters, list};
use mongodb::bson::{DateTime, Document, doc};
use mongodb::{Client, Collection};

use crate::running::{Running, broker, count, fields, skipped, until};

pub struct Server {
    pub uri: String,
    child: Option<Child>,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The pinned program, where `tests/servers/ensure.sh ferretdb` has put it.
fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("concordat/servers/ferretdb-1.24.0/ferretdb")).filter(|p| p.is_file())
}

pub fn server(test: &str) -> Option<Server> {
    let dir = tempfile::tempdir().unwrap();
    if let Ok(uri) = std::env::var("MONGODB_URI") {
        return Some(Server { uri, child: None, _dir: dir });
    }
    let Some(program) = program() else {
        skipped(test, "MONGODB_URI is not set and FerretDB is missing: run tests/servers/ensure.sh ferretdb");
        return None;
    };
    // It ends when its standard input does, so with this process at the latest.
    let mut child = Command::new(program)
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Some(Server { uri: line.trim().trim_end_matches('/').to_owned(), child: Some(child), _dir: dir })
}

pub async fn collection(server: &Server, name: &str) -> Collection<Document> {
    let collection = Client::with_uri_str(&server.uri).await.unwrap().database("city").collection(name);
    let _ = collection.drop().await;
    collection
}

fn yaml(server: &Server, name: &str, more: &str) -> String {
    format!(
        "adapter: load\nkind: mongodb\nconnect: {{uri: \"{}\", database: city}}\ncollection: {name}\n{more}\
         into: ds:grid/load@1\nmap:\n  n: {{from: $._id, type: integer}}\n  fee: {{from: $.sub.fee, type: decimal}}\n\
         \x20 time: {{from: $.updated, type: timestamp, zone: offset, precision: ms}}\nkey: [n, time]\ntime: time\n",
        server.uri
    )
}

const POLL: &str = "cursor: {field: updated}\npoll: {every: 20ms, max_rows: 7}\n";
const OVERLAP: &str = "cursor: {field: updated, overlap: 10m}\npoll: {every: 20ms, max_rows: 7}\n";

fn document(n: i64, minute: i64) -> Document {
    let updated = DateTime::from_millis(1_767_225_600_000 + minute * 60_000);
    doc! {"_id": n, "updated": updated, "sub": {"fee": n as f64 + 0.5}}
}

fn read_all(source: &mut dyn Source, from: &Checkpoint, max: usize) -> (Vec<i64>, Checkpoint) {
    let (mut at, mut got, mut idle) = (from.clone(), vec![], 0);
    while idle < 3 {
        let batch = source.read(&at, max).unwrap();
        got.extend(batch.records.iter().map(|r| r.data["n"].as_i64().unwrap()));
        idle = if batch.rows() == 0 && matches!(batch.next, Next::Idle(_)) { idle + 1 } else { 0 };
        at = batch.checkpoint;
    }
    (got, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_come_once_however_often_the_adapter_restarts() {
    let Some(server) = server("mongodb poll") else { return };
    let documents = collection(&server, "poll").await;
    // 40 documents, many with the same date, and one that cannot be mapped.
    let mut all: Vec<Document> = (0..40).map(|n| document(n, n / 15)).collect();
    all.push(doc! {"_id": "text", "updated": DateTime::from_millis(1_767_225_600_000)});
    documents.insert_many(all).await.unwrap();
    for more in [POLL, OVERLAP] {
        let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
        let yaml = yaml(&server, "poll", more);
        for cut in [5, 11, 30] {
            let running = Running::start_with(dir.path(), &yaml, &broker, |c| c.batch_max = 3);
            until("some of it", || count(&broker) >= cut).await;
            running.kill().await;
        }
        let running = Running::start(dir.path(), &yaml, &broker);
        until("all of it", || count(&broker) >= 40).await;
        documents.insert_one(document(100, 60)).await.unwrap();
        until("what is new", || count(&broker) >= 41).await;
        running.stop().await;
        let mut got: Vec<i64> = fields(&broker, "n").iter().map(|n| n.parse().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, (0..40).chain([100]).collect::<Vec<_>>(), "{more}");
        assert!(fields(&broker, "fee").contains(&"39.5".to_owned()));
        let dead = list(&DeadLetters::path(dir.path(), "load")).unwrap();
        assert_eq!(dead.len(), 1);
        assert!(String::from_utf8(dead[0].original().unwrap()).unwrap().contains(r#""_id":"text""#));
        documents.delete_one(doc! {"_id": 100_i64}).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_appear_late_and_those_that_change_are_found() {
    let Some(server) = server("mongodb overlap") else { return };
    let documents = collection(&server, "late").await;
    documents.insert_many((0..20).map(|n| document(n, n))).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let connector = concordat_adapters::parse(&yaml(&server, "late", OVERLAP)).unwrap();
    let work = {
        let documents = documents.clone();
        let base = dir.path().to_owned();
        let handle = tokio::runtime::Handle::current();
        move || {
            let mut source = connector.open(&base).unwrap();
            let (first, one) = read_all(&mut *source, &Checkpoint::default(), 6);
            assert_eq!(first, (0..20).collect::<Vec<_>>());
            source.ack(&one).unwrap();
            // Five minutes late, within the overlap; and one that changed.
            handle.block_on(documents.insert_one(document(50, 14)).into_future()).unwrap();
            handle.block_on(documents.replace_one(doc! {"_id": 19_i64}, document(19, 25)).into_future()).unwrap();
            let (second, two) = read_all(&mut *source, &one, 6);
            assert_eq!(second, [50, 19]);
            assert_eq!(read_all(&mut *source, &one, 6).0, second, "the same place gives the same documents");
            drop(source);
            let mut source = connector.open(&base).unwrap();
            source.ack(&two).unwrap();
            assert_eq!(read_all(&mut *source, &two, 6).0, Vec::<i64>::new(), "a restart knows the overlap");
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_looks_for_index_and_gaps_and_a_draft_comes_from_documents() {
    let Some(server) = server("mongodb check") else { return };
    let documents = collection(&server, "check").await;
    documents.insert_many((0..5).map(|n| document(n, n))).await.unwrap();
    documents.insert_one(doc! {"_id": 77_i64}).await.unwrap();
    let connector = concordat_adapters::parse(&yaml(&server, "check", POLL)).unwrap();
    let nobody =
        concordat_adapters::parse(&yaml(&server, "check", POLL).replacen(&server.uri, "mongodb://127.0.0.1:1", 1))
            .unwrap();
    let work = tokio::task::spawn_blocking(move || {
        let mut source = nobody.open(Path::new(".")).unwrap();
        let error = source.read(&Checkpoint::default(), 5).unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.unreachable"), "{error}");
        (connector.check(Path::new(".")), connector.discover(Path::new(".")).unwrap())
    });
    let (found, draft) = work.await.unwrap();
    let of = |name: &str| found.iter().find(|f| f.name == name).map(|f| f.level);
    assert_eq!(
        (of("login"), of("rights"), of("clock")),
        (Some(Level::Ok), Some(Level::Ok), Some(Level::Ok)),
        "{found:?}"
    );
    assert_eq!((of("index"), of("cursor")), (Some(Level::Warn), Some(Level::Warn)), "{found:?}");
    assert_eq!(draft.sampled, 6);
    assert!(draft.adapter.contains("sub_fee: {from: \"$.sub.fee\", type: decimal"), "{}", draft.adapter);
}

/// Against a server that has change streams: `MONGODB_CHANGES_URI`.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_behind_a_token() {
    let Ok(uri) = std::env::var("MONGODB_CHANGES_URI") else {
        return skipped("mongodb changes", "MONGODB_CHANGES_URI names no server with change streams");
    };
    let server = Server { uri, child: None, _dir: tempfile::tempdir().unwrap() };
    let documents = collection(&server, "changes").await;
    documents.insert_many((0..10).map(|n| document(n, n))).await.unwrap();
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let yaml =
        yaml(&server, "changes", "read: changes\n").replace("key: [n, time]\ntime: time\n", "  op: $op\nkey: [n]\n");
    let running = Running::start(dir.path(), &yaml, &broker);
    until("the load", || count(&broker) >= 10).await;
    documents.insert_one(document(10, 10)).await.unwrap();
    documents.replace_one(doc! {"_id": 3_i64}, document(3, 33)).await.unwrap();
    until("the changes", || count(&broker) >= 12).await;
    running.kill().await;
    documents.delete_one(doc! {"_id": 4_i64}).await.unwrap();
    documents.insert_one(document(11, 11)).await.unwrap();
    let running = Running::start(dir.path(), &yaml, &broker);
    until("what happened meanwhile", || count(&broker) >= 14).await;
    running.stop().await;
    // A deleted document has no time left, so these events have none.
    let kept = broker.kept.lock().unwrap();
    let told: Vec<(i64, &str)> = kept.events[10..]
        .iter()
        .map(|e| (e["data"]["n"].as_i64().unwrap(), e["data"]["op"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(10, "upsert"), (3, "upsert"), (4, "delete"), (11, "upsert")]);
}
