//! The document of a MongoDB source.

use std::path::Path;
use std::time::Duration;

use mongodb::bson::{Bson, DateTime};
use serde::Deserialize;
use serde_saphyr::Spanned;
use zeroize::Zeroizing;

use crate::adapter_document;
use crate::contract::AdapterError;
use crate::document::{DocumentError, Period, Secret};

adapter_document! {
    /// A MongoDB source as written.
    pub struct MongoDoc {
        /// Where the server is.
        pub connect: Connect,
        /// The collection.
        pub collection: String,
        /// How what is new is found.
        #[serde(default)]
        pub read: Read,
        /// The field that grows.
        #[serde(default)]
        pub cursor: Option<Cursor>,
    }
}

/// Where the server is and who asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// `mongodb://host:port` without user and password, or where it stands, `env:NAME`.
    pub uri: Spanned<String>,
    /// The database.
    pub database: String,
    /// User.
    #[serde(default)]
    pub user: Option<String>,
    /// Password, by reference.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The database that knows the user.
    #[serde(default)]
    pub auth_source: Option<String>,
    /// Certificates that are trusted, a PEM file.
    #[serde(default)]
    pub ca: Option<String>,
}

/// How what is new is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Read {
    /// By a field that grows.
    #[default]
    Poll,
    /// By the server's change stream, after a load of everything.
    Changes,
}

/// The field that grows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Its name.
    pub field: String,
    /// Only from this instant on.
    #[serde(default)]
    pub start: Option<Spanned<String>>,
    /// So much before the newest value is read again: for documents that appear late.
    #[serde(default)]
    pub overlap: Option<Period>,
}

impl MongoDoc {
    /// Checks what needs no server.
    pub fn check(&self) -> Result<(), DocumentError> {
        let uri = &self.connect.uri;
        let bad = |detail: &str| DocumentError::at(uri, "connect.uri", detail);
        let reference = Secret::parse(&uri.value).is_ok();
        if !reference && !uri.value.starts_with("mongodb://") && !uri.value.starts_with("mongodb+srv://") {
            return Err(bad("write mongodb://HOST:PORT, or where it stands: env:NAME"));
        }
        if !reference && uri.value.contains('@') {
            return Err(bad(
                "user and password never stand here: use `user` and `password`, or env:NAME for the whole",
            ));
        }
        if self.connect.user.is_some() != self.connect.password.is_some() {
            return Err(DocumentError::at(uri, "connect", "`user` and `password` come together"));
        }
        match (self.read, &self.cursor) {
            (Read::Poll, None) => Err(DocumentError::rule("cursor", "name the field that grows: {field: updated}")),
            (Read::Changes, Some(_)) => Err(DocumentError::rule("cursor", "a change stream needs none; remove it")),
            (Read::Poll, Some(_)) => self.start().map(|_| ()),
            (Read::Changes, None) => Ok(()),
        }
    }

    /// The first value of the cursor.
    pub fn start(&self) -> Result<Option<Bson>, DocumentError> {
        let Some(start) = self.cursor.as_ref().and_then(|c| c.start.as_ref()) else { return Ok(None) };
        if let Ok(number) = start.value.parse::<i64>() {
            return Ok(Some(Bson::Int64(number)));
        }
        let stamp: jiff::Timestamp = start.value.parse().map_err(|_| {
            DocumentError::at(start, "cursor.start", "an instant such as 2026-01-01T00:00:00Z, or a whole number")
        })?;
        Ok(Some(Bson::DateTime(DateTime::from_millis(stamp.as_millisecond()))))
    }

    /// The address with its secrets, if they stand in it.
    pub fn uri(&self, base: &Path) -> Result<Zeroizing<String>, AdapterError> {
        let uri = &self.connect.uri.value;
        match Secret::parse(uri) {
            Ok(secret) => secret.reveal(base),
            Err(_) => Ok(Zeroizing::new(uri.clone())),
        }
    }

    /// What messages call the source.
    pub fn place(&self) -> String {
        format!("{}.{}", self.connect.database, self.collection)
    }

    /// Longest time of one question.
    pub fn timeout(&self) -> Duration {
        self.poll.statement_timeout.map_or(Duration::from_secs(10), |p| p.0)
    }

    /// Wait between two questions.
    pub fn every(&self) -> Duration {
        self.poll.every.map_or(Duration::from_secs(5), |p| p.0)
    }

    /// Most documents of one question.
    pub fn page(&self) -> i64 {
        i64::from(self.poll.max_rows.unwrap_or(2_000).max(1))
    }
}
