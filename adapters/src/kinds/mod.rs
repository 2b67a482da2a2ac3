//! Kinds of source, one cargo feature and one folder each.

#[cfg(feature = "external")]
pub mod external;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "file-drop")]
pub mod file_drop;
#[cfg(feature = "http-poll")]
pub mod http_poll;
#[cfg(feature = "iec104")]
pub mod iec104;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "postgres-changes")]
pub mod postgres_changes;
#[cfg(feature = "sql-poll")]
pub mod sql_poll;
#[cfg(feature = "webhook")]
pub mod webhook;

use crate::contract::{Connector, Kind};
use crate::document::{DocumentError, kind_of};
use crate::strict::nearest;

/// All kinds that this program was built with, by name.
pub fn kinds() -> Vec<&'static dyn Kind> {
    let all: &[&'static dyn Kind] = &[
        #[cfg(feature = "external")]
        &external::ExternalKind,
        #[cfg(feature = "file")]
        &file::FileKind,
        #[cfg(feature = "file-drop")]
        &file_drop::DropKind,
        #[cfg(feature = "http-poll")]
        &http_poll::HttpPollKind,
        #[cfg(feature = "iec104")]
        &iec104::Iec104Kind,
        #[cfg(feature = "kafka")]
        &kafka::KafkaKind,
        #[cfg(feature = "mongodb")]
        &mongodb::MongoKind,
        #[cfg(feature = "webhook")]
        &webhook::WebhookKind,
        #[cfg(feature = "mqtt")]
        &mqtt::MqttKind,
        #[cfg(feature = "sql-poll")]
        &sql_poll::SqlPollKind,
        #[cfg(feature = "postgres-changes")]
        &postgres_changes::PostgresChangesKind,
    ];
    let mut all = all.to_vec();
    all.sort_by_key(|k| k.spec().kind);
    all
}

/// The kind of a name.
pub fn kind(name: &str) -> Option<&'static dyn Kind> {
    kinds().into_iter().find(|k| k.spec().kind == name)
}

/// Reads an adapter document of any kind.
pub fn parse(text: &str) -> Result<Box<dyn Connector>, DocumentError> {
    let name = kind_of(text)?;
    if let Some(kind) = kind(&name.value) {
        return kind.parse(text);
    }
    let known: Vec<&str> = kinds().iter().map(|k| k.spec().kind).collect();
    let hint = match nearest(&name.value, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    Err(DocumentError::at(&name, "kind", format!("unknown kind `{}`; {hint}", name.value)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_has_a_page_and_an_example_that_parses() {
        assert!(!kinds().is_empty());
        for kind in kinds() {
            let spec = kind.spec();
            let connector = parse(spec.example).map_err(|e| format!("{}: {e}", spec.kind)).unwrap();
            assert_eq!(connector.common().kind.value, spec.kind);
            assert!(
                spec.readme.starts_with("# ") && spec.readme.contains(&format!("`{}`", spec.kind)),
                "{}",
                spec.kind
            );
            for setting in spec.settings {
                assert!(setting.about.ends_with('.'), "{}: {}", spec.kind, setting.name);
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_named_with_place_and_remedy() {
        let error = parse("adapter: x\nkind: fil\n").err().unwrap().to_string();
        assert!(error.contains("line 2, column 7") && error.contains("did you mean `file`?"), "{error}");
        assert!(parse("adapter: x\n").err().unwrap().to_string().contains("key `kind` is missing"));
    }
}
