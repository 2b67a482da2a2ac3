//! Documents of a MongoDB collection. See the page of the kind.

pub mod changes;
pub mod document;
pub mod poll;
pub mod store;
pub mod values;

use std::path::Path;

use changes::{ChangesSource, Op};
use document::{MongoDoc, Read};
use mongodb::bson::{Bson, doc};
use poll::PollSource;
use store::Store;

use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError};
use crate::json_rows::{JsonRows, again};
use crate::json_sample::Sample;
use crate::mapping::Mapper;

/// A clock that is further away is told.
const SKEW_MAX_MS: u64 = 30_000;
const SAMPLE: i64 = 500;

/// The kind `mongodb`.
pub struct MongoKind;

const fn setting(name: &'static str, required: bool, about: &'static str) -> Setting {
    Setting { name, required, about }
}

const SETTINGS: &[Setting] = &[
    setting("connect.uri", true, "mongodb://HOST:PORT without user and password, or env:NAME for the whole."),
    setting("connect.database", true, "The database."),
    setting("connect.user", false, "The user."),
    setting("connect.password", false, "The password by reference."),
    setting("connect.auth_source", false, "The database that knows the user; admin when left out."),
    setting("connect.ca", false, "Certificates that are trusted, a PEM file."),
    setting("collection", true, "The collection."),
    setting(
        "read",
        false,
        "poll by a field that grows, or changes for the server's change stream; poll when left out.",
    ),
    setting("cursor.field", false, "The field that grows; needed for poll."),
    setting("cursor.start", false, "Only from this instant or number on."),
    setting("cursor.overlap", false, "So much before the newest date is read again, for documents that appear late."),
];

impl Kind for MongoKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "mongodb",
            title: "documents of a MongoDB collection, by polling or by its change stream",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = MongoDoc::parse(text)?;
        doc.check()?;
        Ok(Box::new(MongoConnector { common: doc.common(), doc }))
    }
}

struct MongoConnector {
    common: Common,
    doc: MongoDoc,
}

impl MongoConnector {
    fn mapping(&self) -> Result<(), DocumentError> {
        let mapper = Mapper::open(&self.common)?;
        match self.doc.read {
            Read::Poll => JsonRows::<()>::new(mapper, |_| None).map(|_| ()),
            Read::Changes => JsonRows::new(mapper, Op::parse).map(|_| ()),
        }
    }

    fn look(&self, store: &Store, found: &mut Vec<Finding>) -> Result<(), AdapterError> {
        let clock = store.clock_ms()?;
        found.push(Finding::ok("login", "the server answers"));
        store.find(doc! {}, doc! {"_id": 1}, 1)?;
        found.push(Finding::ok("rights", format!("{} can be read", self.doc.place())));
        if let Some(cursor) = &self.doc.cursor {
            let indexes = store.indexes()?;
            found.push(match indexes.contains(&cursor.field) {
                true => Finding::ok("index", format!("`{}` has an index", cursor.field)),
                false => Finding::warn(
                    "index",
                    format!("`{}` has no index: each question reads the whole collection", cursor.field),
                    format!("create an index on {{{}: 1, _id: 1}}", cursor.field),
                ),
            });
            let without = store.count(doc! {cursor.field.as_str(): Bson::Null}, 1_000)?;
            if without > 0 {
                let sentence = format!("{without} documents or more have no `{}`: they are never read", cursor.field);
                found.push(Finding::warn("cursor", sentence, "give them a value, or choose another field"));
            }
        }
        found.push(match clock {
            Some(theirs) => {
                let skew = theirs.abs_diff(jiff::Timestamp::now().as_millisecond());
                match skew > SKEW_MAX_MS {
                    true => Finding::warn(
                        "clock",
                        format!("the server's clock is {} s off", skew / 1_000),
                        "synchronise both clocks",
                    ),
                    false => Finding::ok("clock", "the server's clock agrees with ours"),
                }
            }
            None => Finding::warn("clock", "the server does not say its time", "compare its clock by hand"),
        });
        Ok(())
    }
}

impl Connector for MongoConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = vec![match self.mapping() {
            Ok(()) => Finding::ok("mapping", "the mapping can be used"),
            Err(e) => Finding::failed("mapping", &e.into()),
        }];
        let mut store = match Store::open(&self.doc, base) {
            Ok(store) => store,
            Err(e) => {
                found.push(Finding::failed("login", &e));
                return found;
            }
        };
        if let Err(e) = self.look(&store, &mut found) {
            let name = match e.code() {
                "source.tls" => "tls",
                "source.login" => "login",
                "source.rights" => "rights",
                _ => "reach",
            };
            found.push(Finding::failed(name, &e));
        } else if self.doc.read == Read::Changes {
            found.push(match store.follow(None) {
                Ok(_) => Finding::ok("changes", "the server has change streams"),
                Err(e) => Finding::failed("changes", &e),
            });
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let store = Store::open(&self.doc, base)?;
        let mut sample = Sample::default();
        for document in store.find(doc! {}, doc! {"_id": -1}, SAMPLE)? {
            sample.see(values::json(&document).to_string().as_bytes(), &[]);
        }
        if sample.count() == 0 {
            let detail = format!("{} has no documents", self.doc.place());
            return Err(AdapterError::source_failed(ErrorClass::Permanent, "source.missing", detail));
        }
        Ok(sample.draft(&self.common))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        let mapper = Mapper::open(&self.common)?;
        Ok(match self.doc.read {
            Read::Poll => Box::new(PollSource::new(self.doc.clone(), JsonRows::new(mapper, |_| None)?, base)?),
            Read::Changes => Box::new(ChangesSource::new(self.doc.clone(), JsonRows::new(mapper, Op::parse)?, base)),
        })
    }

    fn again(&self) -> Result<Again, AdapterError> {
        let mapper = Mapper::open(&self.common)?;
        match self.doc.read {
            Read::Poll => Ok(again(JsonRows::new(mapper, |_| None)?)),
            Read::Changes => {
                let rows = JsonRows::new(mapper, Op::parse)?;
                Ok(Box::new(move |origin, raw| changes::row(&rows, origin, raw)))
            }
        }
    }
}
