//! How a file is written, made ready to read it.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use super::content::Content;
use super::csv::{CsvForm, CsvReader, Head};
use super::json::{JsonMapper, JsonReader, json_mapper};
use super::{MapColumns, Rows, again, unpacked};
use crate::contract::{AdapterError, Again};
use crate::document::{Common, DocumentError};
use crate::format::CsvFormat;
use crate::mapping::Mapper;

/// How rows are made of a file's bytes.
#[derive(Clone)]
pub enum Form {
    /// Comma-separated values.
    Csv(CsvForm, Head),
    /// One JSON object a line.
    Json(Arc<JsonMapper>),
    /// Parquet.
    #[cfg(feature = "parquet")]
    Parquet(MapColumns),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Csv(..) => "csv",
            Self::Json(..) => "json-lines",
            #[cfg(feature = "parquet")]
            Self::Parquet(..) => "parquet",
        })
    }
}

/// The mapping of whatever columns a file has.
fn mapped(common: &Common, nulls: &[String], point: char) -> MapColumns {
    let (common, nulls) = (common.clone(), nulls.to_vec());
    Arc::new(move |columns| {
        Mapper::of_columns(&common, columns, "the columns of the file").map(|m| m.written(&nulls, point))
    })
}

#[cfg(not(feature = "parquet"))]
pub(super) fn without_parquet() -> DocumentError {
    DocumentError::rule("format.parquet", "this program was built without the feature `parquet`")
}

impl Form {
    /// CSV as a document describes it: with `columns` exactly these, without any that the mapping accounts for.
    ///
    /// # Errors
    /// Columns that the mapping does not account for, and what [`CsvForm::new`] refuses.
    pub fn csv(common: &Common, format: &CsvFormat) -> Result<Self, DocumentError> {
        let form = CsvForm::new(format)?;
        let (nulls, point) = (form.nulls.clone(), form.point);
        if format.columns.is_empty() {
            return Ok(Self::Csv(form, Head::Mapped(mapped(common, &nulls, point))));
        }
        let columns: Vec<String> = format.columns.iter().map(|c| c.value.clone()).collect();
        let mapper = Mapper::of_columns(common, &columns, "`format.csv.columns`")?.written(&nulls, point);
        Ok(Self::Csv(form, Head::Exactly(columns, Arc::new(mapper))))
    }

    /// JSON lines.
    ///
    /// # Errors
    /// A mapping that does not fit members of objects.
    pub fn json(common: &Common) -> Result<Self, DocumentError> {
        Ok(Self::Json(Arc::new(json_mapper(Mapper::open(common)?)?)))
    }

    /// Parquet.
    ///
    /// # Errors
    /// A program that was built without it.
    pub fn parquet(common: &Common) -> Result<Self, DocumentError> {
        #[cfg(feature = "parquet")]
        return Ok(Self::Parquet(mapped(common, &[], '.')));
        #[cfg(not(feature = "parquet"))]
        {
            let _ = common;
            Err(without_parquet())
        }
    }

    /// The rows of a file; `name` is what origins and errors call it.
    ///
    /// # Errors
    /// A header, an encoding or columns that are not the expected ones, a file that is cut or damaged.
    pub fn open(&self, name: &str, content: &Content) -> Result<Box<dyn Rows>, AdapterError> {
        let text = || {
            let io = |source| AdapterError::Io { file: name.to_owned(), action: "open", source };
            unpacked(content.from(0)).map_err(io)
        };
        Ok(match self {
            Self::Csv(form, head) => Box::new(CsvReader::open(name, text()?, form, head)?),
            Self::Json(mapper) => Box::new(JsonReader::open(name, text()?, Arc::clone(mapper))?),
            #[cfg(feature = "parquet")]
            Self::Parquet(mapper) => Box::new(super::parquet::ParquetReader::open(name, content, mapper)?),
        })
    }

    /// Maps rows that became dead letters once more, from their original bytes.
    pub fn again(&self, common: &Common) -> Again {
        match self {
            Self::Csv(form, head) => {
                let columns = if let Head::Exactly(columns, _) = head { columns.clone() } else { Vec::new() };
                again::csv(form.clone(), columns, mapped(common, &form.nulls, form.point))
            }
            Self::Json(rows) => again::json(Arc::clone(rows)),
            #[cfg(feature = "parquet")]
            Self::Parquet(map) => again::texts(Arc::clone(map)),
        }
    }

    /// Reads a file that is packed to its end and keeps nothing: one that was cut or damaged is refused before a row of it is
    /// read.
    ///
    /// # Errors
    /// [`AdapterError::Truncated`] and [`AdapterError::Encoding`].
    pub fn check_whole(&self, name: &str, content: &Content) -> Result<(), AdapterError> {
        #[cfg(feature = "parquet")]
        if matches!(self, Self::Parquet(_)) {
            return super::parquet::check_whole(name, content);
        }
        let io = |source: std::io::Error| match source.kind() {
            ErrorKind::UnexpectedEof => AdapterError::Truncated { file: name.to_owned(), row: 0 },
            ErrorKind::InvalidInput | ErrorKind::InvalidData => AdapterError::Encoding {
                file: name.to_owned(),
                detail: format!("the packed file is damaged: {source}"),
            },
            _ => AdapterError::Io { file: name.to_owned(), action: "read", source },
        };
        let mut magic = [0; 2];
        let n = content.from(0).read(&mut magic).map_err(io)?;
        if n == 2 && magic == [0x1f, 0x8b] {
            std::io::copy(&mut unpacked(content.from(0)).map_err(io)?, &mut std::io::sink()).map_err(io)?;
        }
        Ok(())
    }
}
