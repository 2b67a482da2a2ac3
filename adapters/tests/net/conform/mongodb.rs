//! A collection that is polled, of FerretDB or of the server at `MONGODB_URI`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use concordat_adapters::contract::{AdapterError, Source};
use concordat_adapters::parse;
use jiff::Timestamp;
use mongodb::Collection;
use mongodb::bson::{Bson, DateTime, Document, doc, serialize_to_bson};
use serde_json::Value;
use tokio::runtime::Handle;

use super::{Peer, caught, conforms, mapped, shared};
use crate::mongodb::{Server, collection, server};
use crate::sshd::Line;

struct Documents {
    handle: Handle,
    collection: Collection<Document>,
    line: Line,
    dir: tempfile::TempDir,
    yaml: String,
}

impl Documents {
    fn new(handle: &Handle, server: &Arc<Server>, number: u64, cursor: &str) -> Self {
        let name = format!("conform{number}");
        let collection = handle.block_on(collection(server, &name));
        let line = Line::to(server.uri.rsplit_once(':').unwrap().1.parse().unwrap());
        let yaml = format!(
            "adapter: conform\nkind: mongodb\nconnect: {{uri: \"mongodb://127.0.0.1:{}\", database: city}}\n\
             collection: {name}\ncursor: {{{cursor}}}\npoll: {{every: 20ms, max_rows: 11}}\n{}",
            line.port,
            mapped("_id", "updated")
        );
        Self { handle: handle.clone(), collection, line, dir: tempfile::tempdir().unwrap(), yaml }
    }
}

impl Documents {
    /// On a thread that is none of the runtime's: the kit changes its world from within a task.
    fn wait<T>(&self, work: impl Future<Output = mongodb::error::Result<T>> + Send) {
        concordat_adapters::apart(|| self.handle.block_on(work).map(|_| ()).unwrap());
    }
}

fn document(row: &Value) -> Document {
    let updated: Timestamp = row["t"].as_str().unwrap().parse().unwrap();
    let id = row["n"].as_i64().map_or_else(|| Bson::Double(row["n"].as_f64().unwrap()), Bson::Int64);
    let mut document = doc! {"_id": id, "updated": DateTime::from_millis(updated.as_millisecond())};
    for (name, value) in row.as_object().unwrap().iter().filter(|(name, _)| !matches!(name.as_str(), "n" | "t")) {
        document.insert(name, serialize_to_bson(value).unwrap());
    }
    document
}

impl Peer for Documents {
    /// Every document has an `_id`; another member can be renamed.
    const RENAMED: &'static str = "v";

    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.yaml)?.open(self.dir.path())
    }

    fn put(&mut self, rows: &[Value]) {
        let all: Vec<Document> = rows.iter().map(document).collect();
        self.wait(self.collection.insert_many(all).into_future());
    }

    /// Replaced by what it is.
    fn again(&mut self, rows: &[Value]) {
        for document in rows.iter().map(document) {
            let same = doc! {"_id": document.get("_id")};
            self.wait(self.collection.replace_one(same, document).into_future());
        }
    }

    fn cut(&mut self, cut: bool) {
        self.line.cut(cut);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_mongodb_conforms() {
    let Some(server) = server("polling_mongodb_conforms") else { return };
    let (handle, (server, worlds)) = (Handle::current(), shared(server));
    // A document is there or it is not.
    conforms(&["half-written"], move || {
        let number = worlds.fetch_add(1, Ordering::SeqCst);
        Documents::new(&handle, &server, number, "field: updated, overlap: 3h")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twin_without_an_overlap_is_caught() {
    let Some(server) = server("the_twin_without_an_overlap_is_caught") else { return };
    let (handle, (server, worlds)) = (Handle::current(), shared(server));
    for (check, lost) in [("late-row", "after LateRow: 1 lost"), ("clock-skew", "after Rows: 10 lost")] {
        let (handle, server, worlds) = (handle.clone(), server.clone(), worlds.clone());
        let twin = move || {
            let number = 1_000 + worlds.fetch_add(1, Ordering::SeqCst);
            Documents::new(&handle, &server, number, "field: updated")
        };
        let why = caught(check, twin).await;
        assert!(why.contains(lost), "{why}");
    }
}
