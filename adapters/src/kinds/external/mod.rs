//! A program of any language as a source: it speaks JSON lines on stdin and stdout.

mod program;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use serde_saphyr::Spanned;

use crate::adapter_document;
use crate::contract::{
    AdapterError, Again, BATCH_BYTES_MAX, Batch, Beside, Checkpoint, Connector, Discovery, ErrorClass, Finding, Kind,
    Next, Origin, Setting, Source, Spec,
};
use crate::document::{Common, DocumentError, Period, Secret};
use crate::files::json::{JsonMapper, json_mapper};
use crate::json_sample::Sample;
use crate::mapping::Mapper;

use program::{Program, Setup};

/// How long an answer may take when the document does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Rows that a draft is made from.
const SAMPLE_ROWS: u64 = 200;

adapter_document! {
    /// A document of the kind `external`.
    pub struct ExternalDoc {
        /// The program and its arguments; it is started in the node folder, without a shell.
        pub command: Spanned<Vec<String>>,
        /// What it is told at its start.
        #[serde(default)]
        pub settings: BTreeMap<String, Value>,
        /// Variables of its environment, by reference.
        #[serde(default)]
        pub env: BTreeMap<String, Secret>,
        /// How long an answer may take.
        #[serde(default)]
        pub timeout: Option<Period>,
    }
}

/// The kind `external`.
pub struct ExternalKind;

const SETTINGS: &[Setting] = &[
    Setting {
        name: "command",
        required: true,
        about: "The program and its arguments, started in the node folder without a shell.",
    },
    Setting { name: "settings", required: false, about: "Members that the program is told at its start." },
    Setting { name: "env", required: false, about: "Variables of its environment, `env:NAME` or `file:PATH` each." },
    Setting { name: "timeout", required: false, about: "How long an answer may take; 30s when left out." },
];

impl Kind for ExternalKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "external",
            title: "a program of any language that speaks JSON lines on stdin and stdout",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = ExternalDoc::parse(text)?;
        if doc.command.value.is_empty() {
            return Err(DocumentError::at(&doc.command, "command", "name the program"));
        }
        let setup = Setup {
            adapter: doc.adapter.value.clone(),
            command: doc.command.value.clone(),
            settings: doc.settings.clone(),
            env: doc.env.clone(),
            timeout: doc.timeout.map_or(TIMEOUT, |t| t.0),
        };
        Ok(Box::new(External { common: doc.common(), setup }))
    }
}

struct External {
    common: Common,
    setup: Setup,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    findings: Vec<FoundOne>,
}

#[derive(Deserialize)]
struct FoundOne {
    #[serde(default)]
    level: String,
    sentence: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Rows<'a> {
    #[serde(default, borrow)]
    rows: Vec<Given<'a>>,
    #[serde(default)]
    checkpoint: Option<String>,
    #[serde(default)]
    next: Option<Value>,
    #[serde(default)]
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Given<'a> {
    /// An object of cells.
    #[serde(borrow)]
    cells: &'a RawValue,
    /// The original text; the cells when left out.
    #[serde(default)]
    raw: Option<String>,
    /// A number that tells rows of the source apart.
    #[serde(default)]
    row: u64,
}

impl Connector for External {
    fn common(&self) -> &Common {
        &self.common
    }

    fn place(&self) -> String {
        self.setup.command.join(" ")
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Err(error) = mapper(&self.common) {
            found.push(Finding::failed("mapping", &error.into()));
        }
        let mut program = Program::new(self.setup.clone(), base);
        let answer = match program.ask("check", Map::new()) {
            Ok(answer) => answer,
            Err(error) => {
                found.push(Finding::failed("program", &error));
                return found;
            }
        };
        found.push(Finding::ok("program", format!("{} answers", program.name())));
        match serde_json::from_str::<Found>(answer.get()) {
            Ok(told) => found.extend(told.findings.into_iter().map(|one| match one.level.as_str() {
                "ok" => Finding::ok("source", one.sentence),
                "warn" => Finding::warn("source", one.sentence, one.next),
                _ => Finding::fail("source", one.sentence, one.next),
            })),
            Err(e) => found.push(Finding::fail("program", format!("its answer to check: {e}"), "correct the program")),
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let mut program = Program::new(self.setup.clone(), base);
        let answer = program.ask("discover", Map::from_iter([("max".to_owned(), json!(SAMPLE_ROWS))]))?;
        let told: Rows<'_> = parsed(&program.name(), &answer)?;
        let mut sample = Sample::default();
        told.rows.iter().for_each(|row| sample.see(row.cells.get().as_bytes(), &[]));
        Ok(sample.draft(&self.common))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        let every = self.common.poll.every.map_or(Duration::from_secs(2), |p| p.0);
        Ok(Box::new(ExternalSource {
            mapper: mapper(&self.common)?,
            program: Program::new(self.setup.clone(), base),
            every,
        }))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        let rows = mapper(&self.common)?;
        Ok(Box::new(move |origin, raw| {
            let own = origin.beside.as_ref().and_then(|b| b.cells.clone());
            rows.row(origin, raw, own.as_deref().map_or(raw, str::as_bytes), &|never| match *never {})
        }))
    }
}

fn mapper(common: &Common) -> Result<JsonMapper, DocumentError> {
    json_mapper(Mapper::open(common)?)
}

fn parsed<'a, T: Deserialize<'a>>(name: &str, answer: &'a RawValue) -> Result<T, AdapterError> {
    serde_json::from_str(answer.get()).map_err(|e| {
        let message = format!("{name}: its answer is not what the protocol says: {e}");
        AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", message)
    })
}

/// A checkpoint is the program's own text.
fn text_of(checkpoint: &Checkpoint) -> Result<Value, AdapterError> {
    if checkpoint.is_start() {
        return Ok(Value::Null);
    }
    let text = String::from_utf8(checkpoint.0.clone());
    text.map(Value::from).map_err(|e| AdapterError::Checkpoint { detail: e.to_string() })
}

struct ExternalSource {
    mapper: JsonMapper,
    program: Program,
    every: Duration,
}

impl Source for ExternalSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let name = self.program.name();
        let members = [
            ("from".to_owned(), text_of(from)?),
            ("max".to_owned(), json!(max)),
            ("max_bytes".to_owned(), json!(BATCH_BYTES_MAX)),
        ];
        let answer = self.program.ask("read", Map::from_iter(members))?;
        let told: Rows<'_> = parsed(&name, &answer)?;
        let broken = |detail: &str| {
            let message = format!("{name}: {detail}");
            AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", message)
        };
        if told.rows.len() > max {
            return Err(broken("it gave more rows than were asked for"));
        }
        let next = match told.next {
            None => Next::Idle(self.every),
            Some(Value::String(word)) if word == "more" => Next::More,
            Some(Value::String(word)) if word == "end" => Next::End,
            Some(Value::Object(idle)) => match idle.get("idle_ms").and_then(Value::as_u64) {
                Some(ms) => Next::Idle(Duration::from_millis(ms)),
                None => return Err(broken("`next` is `more`, `end` or {\"idle_ms\": n}")),
            },
            Some(_) => return Err(broken("`next` is `more`, `end` or {\"idle_ms\": n}")),
        };
        let mut batch = Batch::at(from, next);
        batch.notes = told.notes;
        for given in &told.rows {
            let cells = given.cells.get().as_bytes();
            let (mut origin, mut raw) = (Origin::row(name.clone(), given.row), cells);
            if let Some(text) = &given.raw {
                raw = text.as_bytes();
                let cells = Some(given.cells.get().to_owned());
                origin = origin.with(Beside { cells, ..Beside::default() });
            }
            batch.push(self.mapper.row(origin, raw, cells, &|never| match *never {}));
        }
        match told.checkpoint {
            Some(text) if !text.is_empty() => batch.checkpoint = Checkpoint(text.into_bytes()),
            _ if batch.rows() > 0 => return Err(broken("rows came without a checkpoint")),
            _ => {}
        }
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        let durable = text_of(durable)?;
        self.program.ask("ack", Map::from_iter([("checkpoint".to_owned(), durable)])).map(drop)
    }
}
