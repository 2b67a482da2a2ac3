//! Feeds of the tests' own: datasets with their documents, agreements about them, and what is published.

use super::{Answer, City, SOON, act, until};
use concordat_broker::keys::GATEWAY;
use concordat_protocol::acts::ActBody;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Schema of every test feed: a number, a zone, a decimal, and a note that no agreement opens.
const SCHEMA: &str = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{
"n":{"type":"integer"},"zone":{"type":"string"},"mw":{"type":"string","format":"decimal"},"note":{"type":"string"},
"at":{"type":"string","format":"date-time"}},
"required":["n","zone","mw"],"additionalProperties":false}"#;

/// A dataset of an agency that is published as messages.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Whose it is.
    pub provider: String,
    /// `ds:grid/meter@1`
    pub id: String,
    name: String,
}

/// The `n`-th message's data.
pub fn row(n: u64) -> Value {
    let zone = ["N", "E", "S", "W"][(n % 4) as usize];
    json!({"n": n, "zone": zone, "mw": format!("{}.{}", n / 4, n % 4 + 1), "note": format!("hidden-{n}")})
}

/// What a consumer sees of [`row`] under the clause of [`FeedAgreement`].
pub fn seen(n: u64) -> Value {
    let mut data = row(n);
    data.as_object_mut().expect("an object").remove("note");
    data
}

/// The stream of a feed's envelopes in its provider's own account.
pub fn own_envelope_stream(city: &City, feed: &Feed) -> async_nats::jetstream::stream::Stream {
    let js = super::jetstream(super::streams(city, &feed.provider));
    let name = format!("PUB_{}_1", feed.name.to_ascii_uppercase());
    super::wait(js.get_stream(&name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Writes a file of a node's folder, for its owner alone like all others there.
pub fn put(path: &Path, text: &str) {
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    written.and_then(|mut file| file.write_all(text.as_bytes())).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

impl Feed {
    /// Puts the documents of several datasets into an agency's folder, starts its broker and executor again so that they
    /// know them, and registers them on the ledger.
    pub fn make(city: &City, provider: &str, names: &[&str]) -> Vec<Self> {
        let feeds: Vec<Self> = names.iter().map(|n| Self::named(provider, n)).collect();
        for f in &feeds {
            put(&city.dir(provider).join(format!("schemas/{}@1.json", f.name)), SCHEMA);
            f.write(city, "7d, stream_bytes: 1GB");
        }
        Self::reload(city, provider);
        for f in &feeds {
            let id = DatasetId::new(&f.id).expect("a dataset");
            let body = ActBody::Dataset { id, schema_hash: sha256(&[SCHEMA.as_bytes()]) };
            act(city, provider, &city.key(provider, GATEWAY), body).expect("the dataset is registered");
        }
        feeds
    }

    /// A feed that was made before.
    pub fn named(provider: &str, name: &str) -> Self {
        Self { provider: provider.into(), id: format!("ds:{provider}/{name}@1"), name: name.into() }
    }

    /// Writes its document with a retention of its stream. A broker that runs does not see it.
    pub fn write(&self, city: &City, retention: &str) {
        let (id, name) = (&self.id, &self.name);
        let text = format!(
            "dataset: {id}\ntitle: A feed of the tests\nkind: feed\nschema: schemas/{name}@1.json\nkey: [n]\n\
             subject: none\nsensitive: {{}}\nretention: {{stream: {retention}}}\n"
        );
        put(&city.dir(&self.provider).join(format!("datasets/{name}.yaml")), &text);
    }

    /// Starts an agency's broker and executors again.
    pub fn reload(city: &City, provider: &str) {
        let all = city.state(provider).processes;
        for process in all.iter().filter(|p| p.name.starts_with("executor") || p.name == "broker") {
            city.killed_and_back(provider, &process.name);
        }
    }

    /// A path below the dataset's resource.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/datasets/{}{rest}", self.id.replace('/', "%2F"))
    }

    /// Publishes one batch as the agency's adapter user, with headers.
    pub fn post(&self, city: &City, data: &[Value], headers: &[(&str, &str)]) -> Answer {
        let lines: Vec<Value> = data.iter().map(|d| json!({"data": d})).collect();
        let api = city.api(&self.provider, "adapter");
        api.post_lines(&self.path("/messages"), &lines, headers)
    }

    /// Publishes these messages, a batch for every 256; each is acknowledged.
    pub fn publish(&self, city: &City, numbers: std::ops::Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        for batch in numbers.chunks(256) {
            let data: Vec<Value> = batch.iter().map(|n| row(*n)).collect();
            // A broker that was just started reads its streams first.
            let answer = until(&format!("{} takes messages", self.id), SOON, || {
                let answer = self.post(city, &data, &[]);
                if answer.status == 503 { Err(answer.body) } else { Ok(answer) }
            });
            assert_eq!(answer.is(200).body["accepted"], batch.len() as u64);
        }
    }
}

/// An agreement that lets somebody follow a feed.
#[derive(Debug, Clone)]
pub struct FeedAgreement {
    /// `AGR-2026-9...`
    pub id: String,
    /// The feed.
    pub feed: Feed,
    /// The consumer; none for public data.
    pub consumer: Option<&'static str>,
    /// Its bound, such as `8s`.
    pub max_lag: &'static str,
    /// Fields that the clause opens.
    pub allow: &'static str,
    /// Lines added to the clause's duties.
    pub duties: Vec<String>,
}

impl FeedAgreement {
    /// To one agency, for everything but the note.
    pub fn new(id: &str, feed: &Feed, consumer: &'static str) -> Self {
        Self {
            id: id.into(),
            feed: feed.clone(),
            consumer: Some(consumer),
            max_lag: "8s",
            allow: "n, zone, mw",
            duties: vec![],
        }
    }

    /// For everybody.
    pub fn public(id: &str, feed: &Feed) -> Self {
        Self { consumer: None, ..Self::new(id, feed, "nobody") }
    }

    /// The document.
    pub fn yaml(&self) -> String {
        let Self { id, feed, allow, .. } = self;
        let (provider, dataset) = (&feed.provider, &feed.id);
        let duties: String = self.duties.iter().map(|d| format!("  - {d}\n")).collect();
        let (assignee, roles, who, evidence) = match self.consumer {
            Some(c) => (
                format!("org:{c}"),
                ", assignee: [legal]",
                format!("{{org: org:{c}}}"),
                format!("{{bounded: {{max_lag: {}}}}}", self.max_lag),
            ),
            None => ("any".into(), "", "any".into(), "none".to_owned()),
        };
        let purpose = if self.consumer.is_some() {
            "  purpose: purp:test-feed\n  legal_basis: \"Testing the system\"\n"
        } else {
            ""
        };
        let paper = if self.consumer.is_some() {
            "paper: {title: \"Tests\", sha256: \"0000000000000000000000000000000000000000000000000000000000000902\"}\n"
        } else {
            ""
        };
        format!(
            r#"agreement: {id}
version: 1
{paper}assigner: org:{provider}
assignee: {assignee}
target: {dataset}
valid: {{from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}}
approvals: {{assigner: [legal, data-steward]{roles}}}
clauses:
- id: F1
  text: The tests may follow the feed without its notes.
  effect: permit
  assignee: {who}
  actions: [subscribe]
  evidence: {evidence}
{purpose}  duties:
  - {{type: fields, allow: [{allow}]}}
{duties}"#
        )
    }

    fn parties(&self) -> Vec<&str> {
        std::iter::once(self.feed.provider.as_str()).chain(self.consumer).collect()
    }

    /// Proposes it and brings it into force: each role with its own key.
    pub fn activate(&self, city: &City) {
        let mut own = String::new();
        for agency in self.parties() {
            let path = city.dir(agency).join(format!("agreements/{}.yaml", self.id));
            put(&path, &self.yaml());
            if agency == self.feed.provider {
                own = path.to_string_lossy().into_owned();
            }
        }
        city.at(&self.feed.provider, &["agreement", "propose", &own]).done();
        for agency in self.parties() {
            self.reaches(city, agency, "proposed");
        }
        for role in ["legal", "data-steward"] {
            self.approve(city, &self.feed.provider, role);
        }
        if let Some(consumer) = self.consumer {
            self.approve(city, consumer, "legal");
        }
        for agency in self.parties() {
            self.reaches(city, agency, "active");
        }
    }

    fn approve(&self, city: &City, agency: &str, role: &str) {
        city.at(agency, &["agreement", "approve", &self.id, "--role", role]).done();
    }

    /// Waits until a node shows it in a state.
    pub fn reaches(&self, city: &City, agency: &str, status: &str) {
        let api = city.api(agency, "operator");
        until(&format!("{} is {status} at {agency}", self.id), SOON, || {
            let answer = api.get(&format!("/v1/agreements/{}", self.id));
            let now = answer.body["versions"][0]["status"].clone();
            if now == status { Ok(()) } else { Err(format!("{now}")) }
        });
    }
}
