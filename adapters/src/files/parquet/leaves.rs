//! The columns of a Parquet file, row by row. Some hundred rows are in memory at once, and one page of each column.

use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::basic::{Compression, Repetition};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::schema::types::Type as Node;

use super::cells::{Shape, Value, real};
use crate::contract::AdapterError;
use crate::files::content::Content;

/// Rows that are decoded at once.
const CHUNK_ROWS: usize = 256;
/// The first and the last bytes of a file.
const MAGIC: &[u8; 4] = b"PAR1";

impl Length for Content {
    fn len(&self) -> u64 {
        self.size().unwrap_or(0)
    }
}

impl ChunkReader for Content {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(self.from(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A damaged file asks for more than there is: nothing is set aside for that.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF("behind the end of the file".to_owned()));
        }
        let mut bytes = vec![0; length];
        self.from(start).read_exact(&mut bytes).map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(bytes.into())
    }
}

/// A column as the mapping knows it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its name; `a.b` for a member of a group.
    pub name: String,
    /// Why it has no text, if it has none.
    pub refused: Option<String>,
    /// Which of the leaves it is, if it has text.
    pub leaf: Option<usize>,
}

/// One leaf of the schema.
struct Leaf {
    /// Its number in the file.
    index: usize,
    shape: Shape,
    /// Level at which there is a value.
    filled: i16,
}

/// An open file.
pub(super) struct Leaves {
    name: String,
    file: SerializedFileReader<Content>,
    pub columns: Vec<Column>,
    leaves: Vec<Leaf>,
    /// The next group of rows.
    group: usize,
    readers: Vec<ColumnReader>,
    /// Rows of the group that are not decoded yet.
    left: u64,
    /// By leaf: the values that are decoded, the next row last.
    chunk: Vec<Vec<Value>>,
    /// Rows decoded so far.
    row: u64,
}

impl Leaves {
    /// Reads what stands at the end of a file; `name` is what errors call it.
    pub fn open(name: &str, content: &Content) -> Result<Self, AdapterError> {
        check_ends(name, content)?;
        guarded(name, 0, || Self::parse(name, content))
    }

    fn parse(name: &str, content: &Content) -> Result<Self, AdapterError> {
        let file = SerializedFileReader::new(content.from(0)).map_err(|e| damaged(name, 0, &e))?;
        let meta = file.metadata();
        check_ways(name, meta)?;
        let schema = meta.file_metadata().schema_descr_ptr();
        let (mut columns, mut leaves, mut next) = (Vec::new(), Vec::new(), 0);
        for node in schema.root_schema().get_fields() {
            add(node, "", &mut next, &mut columns);
        }
        for column in &mut columns {
            let Some(index) = column.leaf.take() else { continue };
            let descr = schema.column(index);
            match Shape::of(&descr) {
                Ok(shape) => {
                    column.leaf = Some(leaves.len());
                    leaves.push(Leaf { index, shape, filled: descr.max_def_level() });
                }
                Err(why) => column.refused = Some(why),
            }
        }
        let chunk = leaves.iter().map(|_| Vec::new()).collect();
        Ok(Self { name: name.to_owned(), file, columns, leaves, group: 0, readers: Vec::new(), left: 0, chunk, row: 0 })
    }

    /// Reads every page and keeps nothing: a file that is damaged is refused before a row of it is read.
    pub fn check_pages(&self) -> Result<(), AdapterError> {
        let bad = |e: ParquetError| damaged(&self.name, 0, &e);
        guarded(&self.name, 0, || {
            for group in 0..self.file.num_row_groups() {
                let group = self.file.get_row_group(group).map_err(bad)?;
                for leaf in &self.leaves {
                    let mut pages = group.get_column_page_reader(leaf.index).map_err(bad)?;
                    while pages.get_next_page().map_err(bad)?.is_some() {}
                }
            }
            Ok(())
        })
    }

    /// The values of the next row, by leaf; false at the end of the file.
    pub fn next(&mut self, values: &mut Vec<Value>) -> Result<bool, AdapterError> {
        values.clear();
        if self.chunk.first().is_none_or(Vec::is_empty) {
            let (name, row) = (self.name.clone(), self.row);
            if !guarded(&name, row, || self.fill())? {
                return Ok(false);
            }
        }
        values.extend(self.chunk.iter_mut().map(|values| values.pop().unwrap_or(Value::None)));
        Ok(true)
    }

    /// Decodes some rows; false at the end of the file.
    fn fill(&mut self) -> Result<bool, AdapterError> {
        let (name, row) = (&self.name, self.row);
        let bad = |e: ParquetError| damaged(name, row, &e);
        while self.left == 0 {
            if self.group == self.file.num_row_groups() || self.leaves.is_empty() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.group).map_err(bad)?;
            let open = |leaf: &Leaf| group.get_column_reader(leaf.index);
            self.readers = self.leaves.iter().map(open).collect::<Result<_, _>>().map_err(bad)?;
            self.left = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
            self.group += 1;
        }
        let rows = CHUNK_ROWS.min(usize::try_from(self.left).unwrap_or(CHUNK_ROWS));
        for ((leaf, reader), values) in self.leaves.iter().zip(&mut self.readers).zip(&mut self.chunk) {
            *values = leaf.read(reader, rows).map_err(bad)?;
            values.reverse();
        }
        self.left -= rows as u64;
        self.row += rows as u64;
        Ok(true)
    }
}

impl Leaf {
    /// The values of the next rows.
    fn read(&self, reader: &mut ColumnReader, rows: usize) -> Result<Vec<Value>, ParquetError> {
        let shape = self.shape;
        match reader {
            ColumnReader::BoolColumnReader(r) => self.read_as(r, rows, |v| Value::Text(v.to_string())),
            ColumnReader::Int32ColumnReader(r) => self.read_as(r, rows, |v| shape.int32(*v)),
            ColumnReader::Int64ColumnReader(r) => self.read_as(r, rows, |v| shape.int64(*v)),
            ColumnReader::Int96ColumnReader(r) => self.read_as(r, rows, |v| shape.int96(v)),
            ColumnReader::FloatColumnReader(r) => self.read_as(r, rows, |v| real(*v)),
            ColumnReader::DoubleColumnReader(r) => self.read_as(r, rows, |v| real(*v)),
            ColumnReader::ByteArrayColumnReader(r) => self.read_as(r, rows, |v| shape.bytes(v.data())),
            ColumnReader::FixedLenByteArrayColumnReader(r) => self.read_as(r, rows, |v| shape.bytes(v.data())),
        }
    }

    fn read_as<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        text: impl Fn(&T::T) -> Value,
    ) -> Result<Vec<Value>, ParquetError> {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let (read, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
        if read != rows {
            return Err(ParquetError::EOF("a column has fewer rows than the file says".to_owned()));
        }
        let mut filled = values.iter();
        let mut next = || filled.next().map_or(Value::None, &text);
        if self.filled == 0 {
            return Ok((0..rows).map(|_| next()).collect());
        }
        Ok(levels.iter().map(|level| if *level == self.filled { next() } else { Value::None }).collect())
    }
}

/// The columns of a node of the schema: members of groups by path, lists and maps as one that is refused.
fn add(node: &Node, above: &str, next: &mut usize, columns: &mut Vec<Column>) {
    let info = node.get_basic_info();
    let name = if above.is_empty() { node.name().to_owned() } else { format!("{above}.{}", node.name()) };
    let list = info.has_repetition() && info.repetition() == Repetition::REPEATED;
    if node.is_primitive() && !list {
        columns.push(Column { name, refused: None, leaf: Some(*next) });
        *next += 1;
        return;
    }
    if list
        || (node.is_group()
            && node.get_fields().iter().any(|f| f.get_basic_info().repetition() == Repetition::REPEATED))
    {
        *next += count(node);
        columns.push(Column {
            name,
            refused: Some("is a list or a map, and a cell is one value".to_owned()),
            leaf: None,
        });
        return;
    }
    for field in node.get_fields() {
        add(field, &name, next, columns);
    }
}

/// Leaves below a node.
fn count(node: &Node) -> usize {
    if node.is_primitive() { 1 } else { node.get_fields().iter().map(|f| count(f)).sum() }
}

/// Tells a file that was cut from one that is none.
fn check_ends(name: &str, content: &Content) -> Result<(), AdapterError> {
    let io = |source| AdapterError::Io { file: name.to_owned(), action: "read", source };
    let size = content.size().map_err(io)?;
    let (mut first, mut last) = ([0; 4], [0; 4]);
    if size >= 4 {
        content.from(0).read_exact(&mut first).map_err(io)?;
        content.from(size - 4).read_exact(&mut last).map_err(io)?;
    }
    let refuse = |detail: &str| Err(AdapterError::Encoding { file: name.to_owned(), detail: detail.to_owned() });
    match (&first, &last) {
        (_, b"PARE") | (b"PARE", _) => {
            refuse("the Parquet file is encrypted; write it without, and protect the way it takes")
        }
        (MAGIC, MAGIC) if size >= 12 => Ok(()),
        (MAGIC, _) => Err(AdapterError::Truncated { file: name.to_owned(), row: 0 }),
        _ => refuse("the file is no Parquet file; correct `format` or the file"),
    }
}

/// Refuses what is packed in a way that is not known here.
fn check_ways(name: &str, meta: &ParquetMetaData) -> Result<(), AdapterError> {
    for column in meta.row_groups().iter().flat_map(|group| group.columns()) {
        match column.compression() {
            Compression::UNCOMPRESSED
            | Compression::SNAPPY
            | Compression::GZIP(_)
            | Compression::LZ4
            | Compression::LZ4_RAW
            | Compression::ZSTD(_) => {}
            other => {
                let detail = format!("the file is packed with {other}; write it with snappy, zstd, gzip or lz4");
                return Err(AdapterError::Encoding { file: name.to_owned(), detail });
            }
        }
    }
    Ok(())
}

/// The library asserts where a damaged file breaks its own rules: that is an error of the file here, and what was open of
/// it is not used again.
fn guarded<T>(name: &str, row: u64, read: impl FnOnce() -> Result<T, AdapterError>) -> Result<T, AdapterError> {
    let panicked = |_| Err(damaged(name, row, &ParquetError::General(String::new())));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(panicked)
}

/// The library's words may hold values: they are not repeated.
fn damaged(name: &str, row: u64, error: &ParquetError) -> AdapterError {
    let file = name.to_owned();
    if let ParquetError::External(source) = error
        && let Some(source) = source.downcast_ref::<std::io::Error>()
    {
        return AdapterError::Io { file, action: "read", source: std::io::Error::from(source.kind()) };
    }
    AdapterError::Encoding { file, detail: format!("the Parquet file is damaged behind row {row}; send it again") }
}
