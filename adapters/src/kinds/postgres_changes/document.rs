//! The members of a document of this kind.

use std::time::Duration;

use serde_saphyr::Spanned;

use super::stream::Wanted;
use crate::adapter_document;
use crate::document::DocumentError;
use crate::kinds::sql_poll::Connect;

adapter_document! {
    /// A document of kind `postgres-changes`.
    pub struct ChangesDoc {
        /// Which database, and how.
        pub connect: Connect,
        /// The table, `schema.table` or `table`.
        pub table: Spanned<String>,
        /// The publication that has the table.
        pub publication: Spanned<String>,
        /// The replication slot; made at the first run.
        pub slot: Spanned<String>,
    }
}

impl ChangesDoc {
    /// Checks what does not need the database.
    pub(super) fn check(&self) -> Result<(), DocumentError> {
        if !self.connect.read_only {
            return Err(DocumentError::rule(
                "connect.read_only",
                "an adapter never writes to its source; remove the key",
            ));
        }
        let table = &self.table.value;
        if table.split('.').any(str::is_empty) || table.split('.').count() > 2 {
            return Err(DocumentError::at(&self.table, "table", "write `table` or `schema.table`"));
        }
        let slot = &self.slot.value;
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=63).contains(&slot.len()) || !slot.bytes().all(good) {
            return Err(DocumentError::at(&self.slot, "slot", "use 1 to 63 of a-z, 0-9 and _"));
        }
        if self.publication.value.is_empty() || self.publication.value.contains('\0') {
            return Err(DocumentError::at(&self.publication, "publication", "name the publication"));
        }
        Ok(())
    }

    /// Longest a statement of the first look may take.
    pub(super) fn timeout(&self) -> Duration {
        self.poll.statement_timeout.map_or(Duration::from_secs(30), |p| p.0)
    }

    /// What is read from the stream.
    pub(super) fn wanted(&self) -> Wanted {
        let (schema, table) = match self.table.value.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
            None => (None, self.table.value.clone()),
        };
        Wanted { slot: self.slot.value.clone(), publication: self.publication.value.clone(), table: (schema, table) }
    }
}
