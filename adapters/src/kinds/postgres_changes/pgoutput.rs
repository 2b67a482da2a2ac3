//! Messages of the plugin `pgoutput`, protocol 1.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};

use crate::kinds::sql_poll::postgres::instant;

/// OIDs of types whose text is written anew.
const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const TIMESTAMPTZ: u32 = 1_184;

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Names and types of the columns.
    pub columns: Vec<(String, u32)>,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Datum {
    /// None.
    Null,
    /// Its text, as the mapping reads it.
    Text(String),
    /// A large value that did not change and is not sent.
    Unchanged,
    /// Not UTF-8.
    Bad,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// It came.
    Insert,
    /// It changed.
    Update,
    /// It went.
    Delete,
}

impl Op {
    /// Its word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// A transaction begins: place of its commit, and microseconds since 2000.
    Begin {
        /// Place of its commit.
        commit: u64,
        /// When, microseconds since 2000.
        micros: i64,
    },
    /// It is over; the next one begins behind `end`.
    Commit {
        /// Where it ends.
        end: u64,
    },
    /// A row of a table.
    Row {
        /// Which table.
        table: Arc<Table>,
        /// What happened.
        op: Op,
        /// The row; of a delete what its identity holds.
        data: Vec<Datum>,
    },
    /// A table lost all rows.
    Truncate(Vec<Arc<Table>>),
    /// Nothing for us.
    Other,
}

/// Decodes messages, keeping the tables that they speak of.
#[derive(Debug, Default)]
pub(super) struct Decoder(HashMap<u32, Arc<Table>>);

type Read<T> = Result<T, String>;

fn early<E>(_: E) -> String {
    "a message of pgoutput ends early".to_owned()
}

fn text(body: &mut Bytes) -> Read<String> {
    let end = body.iter().position(|b| *b == 0).ok_or("a name without an end")?;
    let text = String::from_utf8_lossy(&body.split_to(end)).into_owned();
    body.advance(1);
    Ok(text)
}

impl Decoder {
    /// Decodes one message.
    pub(super) fn message(&mut self, mut body: Bytes) -> Read<Message> {
        match body.try_get_u8().map_err(early)? {
            b'B' => {
                let commit = body.try_get_u64().map_err(early)?;
                Ok(Message::Begin { commit, micros: body.try_get_i64().map_err(early)? })
            }
            b'C' => {
                body.try_get_u8().map_err(early)?;
                body.try_get_u64().map_err(early)?;
                Ok(Message::Commit { end: body.try_get_u64().map_err(early)? })
            }
            b'R' => {
                let (id, table) = table(&mut body)?;
                self.0.insert(id, Arc::new(table));
                Ok(Message::Other)
            }
            kind @ (b'I' | b'U' | b'D') => self.row(kind, &mut body),
            b'T' => {
                let count = body.try_get_u32().map_err(early)?;
                body.try_get_u8().map_err(early)?;
                let mut tables = Vec::new();
                for _ in 0..count {
                    tables.push(self.table(&mut body)?);
                }
                Ok(Message::Truncate(tables))
            }
            _ => Ok(Message::Other),
        }
    }

    fn table(&self, body: &mut Bytes) -> Read<Arc<Table>> {
        let id = body.try_get_u32().map_err(early)?;
        self.0.get(&id).cloned().ok_or_else(|| "a row of a table that was not described".to_owned())
    }

    fn row(&self, kind: u8, body: &mut Bytes) -> Read<Message> {
        let table = self.table(body)?;
        let mut part = body.try_get_u8().map_err(early)?;
        let mut old = None;
        if matches!(part, b'K' | b'O') {
            old = Some(tuple(body, &table)?);
            if kind == b'U' {
                part = body.try_get_u8().map_err(early)?;
            }
        }
        let data = match (kind, part, old) {
            (b'D', _, Some(old)) => return Ok(Message::Row { table, op: Op::Delete, data: old }),
            (b'I' | b'U', b'N', old) => {
                let mut data = tuple(body, &table)?;
                for (new, before) in data.iter_mut().zip(old.unwrap_or_default()) {
                    if *new == Datum::Unchanged && before != Datum::Null {
                        *new = before;
                    }
                }
                data
            }
            _ => return Err("a row without its values".to_owned()),
        };
        Ok(Message::Row { table, op: if kind == b'I' { Op::Insert } else { Op::Update }, data })
    }
}

fn table(body: &mut Bytes) -> Read<(u32, Table)> {
    let id = body.try_get_u32().map_err(early)?;
    let (schema, name) = (text(body)?, text(body)?);
    body.try_get_u8().map_err(early)?;
    let mut columns = Vec::new();
    for _ in 0..body.try_get_u16().map_err(early)? {
        body.try_get_u8().map_err(early)?;
        let column = text(body)?;
        columns.push((column, body.try_get_u32().map_err(early)?));
        body.try_get_u32().map_err(early)?;
    }
    Ok((id, Table { schema, name, columns }))
}

fn tuple(body: &mut Bytes, table: &Table) -> Read<Vec<Datum>> {
    let mut data = Vec::new();
    for n in 0..usize::from(body.try_get_u16().map_err(early)?) {
        data.push(match body.try_get_u8().map_err(early)? {
            b'n' => Datum::Null,
            b'u' => Datum::Unchanged,
            b't' => {
                let length = body.try_get_u32().map_err(early)? as usize;
                if body.len() < length {
                    return Err(early(()));
                }
                let bytes = body.split_to(length);
                let kind = table.columns.get(n).map_or(0, |(_, kind)| *kind);
                std::str::from_utf8(&bytes).map_or(Datum::Bad, |text| Datum::Text(value(kind, text)))
            }
            other => return Err(format!("a value of kind {other}")),
        });
    }
    Ok(data)
}

/// The text of a value as the mapping reads it.
fn value(kind: u32, text: &str) -> String {
    match (kind, text) {
        (BOOL, "t") => "true".to_owned(),
        (BOOL, "f") => "false".to_owned(),
        (TIMESTAMPTZ, text) => instant(text),
        (BYTEA, text) => match text.strip_prefix("\\x").map(hex::decode) {
            Some(Ok(bytes)) => STANDARD.encode(bytes),
            _ => text.to_owned(),
        },
        (_, text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn relation() -> Bytes {
        let mut b = b"R\0\0\0\x07public\0t\0d\0\x03".to_vec();
        for (name, kind) in [("id", 20_u32), ("at", TIMESTAMPTZ), ("ok", BOOL)] {
            b.push(1);
            b.extend_from_slice(name.as_bytes());
            b.push(0);
            b.extend_from_slice(&kind.to_be_bytes());
            b.extend_from_slice(&(-1_i32).to_be_bytes());
        }
        b.into()
    }

    fn tuple_of(cells: &[Option<&str>]) -> Vec<u8> {
        let mut b = (cells.len() as u16).to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                None => b.push(b'n'),
                Some("*") => b.push(b'u'),
                Some(text) => {
                    b.push(b't');
                    b.extend_from_slice(&(text.len() as u32).to_be_bytes());
                    b.extend_from_slice(text.as_bytes());
                }
            }
        }
        b
    }

    #[test]
    fn rows_are_read_with_the_values_the_mapping_knows() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.message(relation()).unwrap(), Message::Other);
        let mut insert = b"I\0\0\0\x07N".to_vec();
        insert.extend(tuple_of(&[Some("7"), Some("2026-01-01 00:00:00+00"), Some("t")]));
        let Message::Row { op, data, .. } = decoder.message(insert.clone().into()).unwrap() else { panic!() };
        let texts = |list: &[&str]| list.iter().map(|t| Datum::Text((*t).to_owned())).collect::<Vec<_>>();
        assert_eq!((op, data), (Op::Insert, texts(&["7", "2026-01-01T00:00:00Z", "true"])));
        let mut update = b"U\0\0\0\x07O".to_vec();
        update.extend(tuple_of(&[Some("7"), Some("2026-01-01 00:00:00+00"), Some("f")]));
        update.push(b'N');
        update.extend(tuple_of(&[Some("8"), Some("*"), Some("f")]));
        let Message::Row { data, .. } = decoder.message(update.into()).unwrap() else { panic!() };
        assert_eq!(data, texts(&["8", "2026-01-01T00:00:00Z", "false"]));
        let mut delete = b"D\0\0\0\x07K".to_vec();
        delete.extend(tuple_of(&[Some("8"), None, None]));
        let Message::Row { op, data, .. } = decoder.message(delete.into()).unwrap() else { panic!() };
        assert_eq!((op, &data[1]), (Op::Delete, &Datum::Null));
        for cut in 0..insert.len() {
            assert!(decoder.message(Bytes::copy_from_slice(&insert[..cut])).is_err(), "cut at {cut}");
        }
        assert!(Decoder::default().message(insert.into()).is_err());
        assert_eq!(value(BYTEA, "\\x00ff"), "AP8=");
    }
}
