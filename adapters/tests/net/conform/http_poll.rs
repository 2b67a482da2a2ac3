//! A service that lists what it has, in pages or since a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use concordat_adapters::contract::{AdapterError, Source};
use concordat_adapters::parse;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Peer, caught, conforms, mapped};
use crate::http::service;
use crate::sshd::Line;

/// Items of a page.
const PAGE: usize = 11;

#[derive(Default)]
struct List {
    rows: Vec<Value>,
    /// Rows that are in the middle of being written, and how many answers break off within them.
    half: Vec<Value>,
    broken: u32,
    /// Grows with everything that changes.
    version: u64,
}

struct Service {
    list: Arc<Mutex<List>>,
    line: Line,
    dir: tempfile::TempDir,
    yaml: String,
}

fn time(row: &Value) -> Option<Timestamp> {
    row["t"].as_str()?.parse().ok()
}

/// The rows since a time, all at once or a page of them, with the version of the list where it is one page.
fn answer(list: &mut List, query: &HashMap<String, String>, headers: &HeaderMap) -> Response<Body> {
    let since: Option<Timestamp> = query.get("since").and_then(|t| t.parse().ok());
    let mut rows: Vec<Value> = list.rows.iter().filter(|row| time(row) >= since).cloned().collect();
    let broken = list.broken > 0;
    if broken {
        list.broken -= 1;
        rows.extend(list.half.iter().cloned());
    }
    let mut body = json!({"list": rows});
    let mut reply = Response::builder();
    if let Some(page) = query.get("page") {
        let page: usize = page.parse().unwrap();
        let next = (rows.len() > (page + 1) * PAGE && !broken).then(|| format!("/list?page={}", page + 1));
        let of_page: Vec<Value> = if broken { rows } else { rows.into_iter().skip(page * PAGE).take(PAGE).collect() };
        body = json!({"list": of_page, "next": next});
    } else {
        let tag = format!("\"{}\"", list.version);
        if !broken && headers.get("if-none-match").is_some_and(|v| v == tag.as_str()) {
            return reply.status(304).body(Body::empty()).unwrap();
        }
        reply = reply.header("etag", tag);
    }
    let text = body.to_string();
    if !broken {
        return reply.body(text.into()).unwrap();
    }
    // It breaks off before the last row is whole.
    let head = text.as_bytes()[..text.len() - 20].to_vec();
    let parts = [Ok(head), Err(std::io::Error::other("gone"))];
    reply.body(Body::from_stream(futures::stream::iter(parts))).unwrap()
}

impl Service {
    fn new(handle: &Handle, query: &str, more: &str) -> Self {
        let list = Arc::<Mutex<List>>::default();
        let theirs = list.clone();
        let say = move |_: u64, query: &HashMap<String, String>, headers: &HeaderMap| {
            answer(&mut theirs.lock().unwrap(), query, headers)
        };
        let url = handle.block_on(service(say)).url;
        let line = Line::to(url.rsplit_once(':').unwrap().1.parse().unwrap());
        let yaml = format!(
            "adapter: conform\nkind: http-poll\nconnect: {{url: \"http://127.0.0.1:{}/list{query}\"}}\nitems: $.list\n{more}\
             poll: {{every: 20ms, statement_timeout: 5s}}\n{}",
            line.port,
            mapped("n", "t")
        );
        Self { list, line, dir: tempfile::tempdir().unwrap(), yaml }
    }

    fn changed(&self, change: impl FnOnce(&mut List)) {
        let mut list = self.list.lock().unwrap();
        change(&mut list);
        list.version += 1;
    }
}

impl Peer for Service {
    const RENAMED: &'static str = "n";

    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.yaml)?.open(self.dir.path())
    }

    fn put(&mut self, rows: &[Value]) {
        self.changed(|list| list.rows.extend_from_slice(rows));
    }

    fn half(&mut self, rows: &[Value]) -> bool {
        self.changed(|list| (list.half, list.broken) = (rows.to_vec(), 2));
        true
    }

    /// Listed twice from now on, and under a new version.
    fn again(&mut self, rows: &[Value]) {
        self.put(rows);
    }

    fn cut(&mut self, cut: bool) {
        self.line.cut(cut);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_pages_conforms() {
    let handle = Handle::current();
    conforms(&[], move || Service::new(&handle, "?page=0", "paging: {next: $.next}\n")).await;
}

const SINCE: &str = "since: {parameter: since, path: $.t, overlap: OVERLAP}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_asked_for_what_is_new_conforms() {
    let handle = Handle::current();
    conforms(&[], move || Service::new(&handle, "", &SINCE.replace("OVERLAP", "3h"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twin_without_an_overlap_is_caught() {
    let handle = Handle::current();
    let twin = move || Service::new(&handle, "", &SINCE.replace(", overlap: OVERLAP", ""));
    let why = caught("late-row", twin).await;
    assert!(why.contains("after LateRow: 1 lost"), "{why}");
}
