//! CSV framing (RFC 4180, strict) that keeps the original bytes, the line and the column of all it
//! reads. A broken row costs that row only: an open quote gives back the lines it swallowed.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

/// Longest row, in bytes.
pub const ROW_BYTES_MAX: usize = 256 * 1024;
/// Most lines a row with quoted line breaks may span.
pub const ROW_LINES_MAX: u64 = 1_000;
/// How much of a row that is too long a dead letter keeps.
pub const KEPT_BYTES_MAX: usize = 64 * 1024;

/// One value of a row: where it stands in the row's bytes and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: usize,
    end: usize,
    doubled_quotes: bool,
    /// Lines after the row's first line.
    pub line: u64,
    /// Byte column in its line, from 1.
    pub column: u64,
}

/// Why a row could not be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Stable name of the rule.
    pub rule: &'static str,
    /// One sentence.
    pub message: &'static str,
    /// Byte column in the row's first line, from 1.
    pub column: u64,
}

/// What the scanner found; the bytes are in [`Scanner::raw`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    /// A well-formed row, its values in [`Scanner::spans`].
    Row,
    /// One line that is not a row.
    Broken(Broken),
}

/// Reads rows from a byte stream.
pub struct Scanner<R> {
    input: R,
    delimiter: u8,
    raw: Vec<u8>,
    spans: Vec<Span>,
    carry: Vec<u8>,
    carry_at: usize,
    line: u64,
    next_line: u64,
    truncated: bool,
}

enum Quote {
    Outside,
    Inside { start: usize, doubled: bool, line: u64, column: u64, first_column: u64 },
}

impl<R: BufRead> Scanner<R> {
    /// A scanner at the first line of `input`.
    pub fn new(input: R, delimiter: u8) -> Self {
        Self {
            input,
            delimiter,
            raw: Vec::new(),
            spans: Vec::new(),
            carry: Vec::new(),
            carry_at: 0,
            line: 1,
            next_line: 1,
            truncated: false,
        }
    }

    /// Bytes of the row read last, line end included.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Line where the row read last begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// True when the row read last was cut to [`KEPT_BYTES_MAX`].
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Values of the row read last.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The bytes of one value, copied only when quotes were doubled.
    pub fn bytes(&self, span: &Span) -> Cow<'_, [u8]> {
        let bytes = self.raw.get(span.start..span.end).unwrap_or_default();
        if !span.doubled_quotes {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut skip = false;
        for &b in bytes {
            skip = b == b'"' && !skip;
            if !skip {
                out.push(b);
            }
        }
        Cow::Owned(out)
    }

    /// The next row, or `None` at the end. Empty lines are passed over.
    pub fn next_row(&mut self) -> io::Result<Option<Framed>> {
        loop {
            self.raw.clear();
            self.spans.clear();
            self.truncated = false;
            self.line = self.next_line;
            if !self.take_line()? {
                return Ok(None);
            }
            if self.raw.len() > ROW_BYTES_MAX {
                self.truncated = true;
                self.raw.truncate(KEPT_BYTES_MAX);
                return Ok(Some(Framed::Broken(Broken {
                    rule: "csv.row-too-long",
                    message: "the line is longer than 262144 bytes; only its beginning is kept",
                    column: 1,
                })));
            }
            if !trimmed(&self.raw).is_empty() {
                return self.frame().map(Some);
            }
        }
    }

    /// Splits the row that begins in `raw`, pulling more lines while a quote is open.
    fn frame(&mut self) -> io::Result<Framed> {
        let first_end = self.raw.len();
        let mut at = 0;
        let mut line_start = 0;
        let mut lines = 0_u64;
        let mut quote = Quote::Outside;
        loop {
            let end = trimmed(&self.raw).len();
            match self.split(&mut at, end, line_start, lines, quote) {
                Ok(None) => return Ok(Framed::Row),
                Ok(Some(open)) => quote = open,
                Err(broken) => return Ok(self.give_back(first_end, broken)),
            }
            line_start = self.raw.len();
            lines += 1;
            let column = match &quote {
                Quote::Inside { first_column, .. } => *first_column,
                Quote::Outside => 1,
            };
            let open = Broken {
                rule: "csv.quote-open",
                message: "a quoted value is never closed; close it, or double a quote that belongs to the text",
                column,
            };
            if lines > ROW_LINES_MAX || self.raw.len() > ROW_BYTES_MAX || !self.take_line()? {
                return Ok(self.give_back(first_end, open));
            }
            at = line_start;
        }
    }

    /// Splits `raw[at..end]`. `Ok(Some(_))` means a quote is open at the end of the line.
    fn split(
        &mut self,
        at: &mut usize,
        end: usize,
        line_start: usize,
        lines: u64,
        mut quote: Quote,
    ) -> Result<Option<Quote>, Broken> {
        let first_column = |pos: usize| if lines == 0 { (pos - line_start) as u64 + 1 } else { 1 };
        loop {
            if let Quote::Inside { start, doubled, line, column, first_column: first } = quote {
                let Some(close) = position(&self.raw, *at, self.raw.len(), b'"') else {
                    return Ok(Some(quote));
                };
                if self.raw.get(close + 1) == Some(&b'"') {
                    *at = close + 2;
                    quote = Quote::Inside { start, doubled: true, line, column, first_column: first };
                    continue;
                }
                self.spans.push(Span { start, end: close, doubled_quotes: doubled, line, column });
                *at = close + 1;
                quote = Quote::Outside;
                if *at >= end {
                    return Ok(None);
                }
                if self.raw.get(*at) != Some(&self.delimiter) {
                    return Err(Broken {
                        rule: "csv.quote-text",
                        message: "text follows a closing quote; double a quote that belongs to the text",
                        column: first,
                    });
                }
                *at += 1;
                continue;
            }
            let column = (*at - line_start) as u64 + 1;
            if self.raw.get(*at) == Some(&b'"') && *at < end {
                *at += 1;
                let first_column = first_column(*at - 1);
                quote = Quote::Inside { start: *at, doubled: false, line: lines, column, first_column };
                continue;
            }
            let stop = position(&self.raw, *at, end, self.delimiter).unwrap_or(end);
            if let Some(inner) = position(&self.raw, *at, stop, b'"') {
                return Err(Broken {
                    rule: "csv.quote-inside",
                    message: "a quote stands inside an unquoted value; quote the value and double the quote",
                    column: first_column(inner),
                });
            }
            self.spans.push(Span { start: *at, end: stop, doubled_quotes: false, line: lines, column });
            if stop == end {
                return Ok(None);
            }
            *at = stop + 1;
        }
    }

    /// Keeps the first line as the broken row and returns all others to be read again.
    fn give_back(&mut self, first_end: usize, broken: Broken) -> Framed {
        let mut rest = self.raw.split_off(first_end.min(self.raw.len()));
        rest.extend_from_slice(self.carry.get(self.carry_at..).unwrap_or_default());
        self.carry = rest;
        self.carry_at = 0;
        self.next_line = self.line + 1;
        self.spans.clear();
        Framed::Broken(broken)
    }

    /// Appends the next physical line to `raw`; false at the end of the input. A line beyond the
    /// limit is read to its end, but only as much is kept as shows that it is too long.
    fn take_line(&mut self) -> io::Result<bool> {
        let waiting = self.carry.get(self.carry_at..).unwrap_or_default();
        let found = if waiting.is_empty() {
            let room = (ROW_BYTES_MAX + 1) as u64;
            let got = (&mut self.input).take(room).read_until(b'\n', &mut self.raw)?;
            if got as u64 == room && self.raw.last() != Some(&b'\n') {
                self.input.skip_until(b'\n')?;
            }
            got > 0
        } else {
            let len = waiting.iter().position(|b| *b == b'\n').map_or(waiting.len(), |n| n + 1);
            self.raw.extend_from_slice(waiting.get(..len).unwrap_or_default());
            self.carry_at += len;
            true
        };
        self.next_line += u64::from(found);
        Ok(found)
    }
}

/// A line without its line end.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn position(bytes: &[u8], from: usize, to: usize, wanted: u8) -> Option<usize> {
    bytes.get(from..to)?.iter().position(|b| *b == wanted).map(|n| n + from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    type Seen = Vec<(u64, Result<Vec<String>, &'static str>)>;

    fn scan(text: &[u8]) -> Seen {
        let mut scanner = Scanner::new(text, b',');
        let mut seen = Seen::new();
        while let Some(framed) = scanner.next_row().unwrap() {
            let row = match framed {
                Framed::Broken(broken) => Err(broken.rule),
                Framed::Row => Ok(scanner
                    .spans()
                    .iter()
                    .map(|s| String::from_utf8_lossy(&scanner.bytes(s)).into_owned())
                    .collect()),
            };
            seen.push((scanner.line(), row));
        }
        seen
    }

    fn good(line: u64, values: &[&str]) -> (u64, Result<Vec<String>, &'static str>) {
        (line, Ok(values.iter().map(|v| (*v).to_string()).collect()))
    }

    #[test]
    fn rows_keep_their_lines() {
        let text = b"a,b\r\n\r\n1,\"x\ny, \"\"z\"\"\"\n,\n\"\",end";
        assert_eq!(
            scan(text),
            vec![good(1, &["a", "b"]), good(3, &["1", "x\ny, \"z\""]), good(5, &["", ""]), good(6, &["", "end"]),]
        );
    }

    #[test]
    fn a_broken_row_costs_itself_only() {
        let text = b"1,\"open\n2,b\n3,\"c\"\n4,d\"e\n5,\"f\"g\n6,h\n7,\"never\n8,i\n";
        assert_eq!(
            scan(text),
            vec![
                (1, Err("csv.quote-text")),
                good(2, &["2", "b"]),
                good(3, &["3", "c"]),
                (4, Err("csv.quote-inside")),
                (5, Err("csv.quote-text")),
                good(6, &["6", "h"]),
                (7, Err("csv.quote-open")),
                good(8, &["8", "i"]),
            ]
        );
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_rest_goes_on() {
        let mut text = vec![b'x'; 3 * ROW_BYTES_MAX];
        text.extend_from_slice(b"\n1,2\n");
        let mut scanner = Scanner::new(text.as_slice(), b',');
        assert!(matches!(scanner.next_row().unwrap(), Some(Framed::Broken(Broken { rule: "csv.row-too-long", .. }))));
        assert!(scanner.truncated());
        assert_eq!(scanner.raw().len(), KEPT_BYTES_MAX);
        assert_eq!(scanner.next_row().unwrap(), Some(Framed::Row));
        assert_eq!((scanner.line(), scanner.raw()), (2, b"1,2\n".as_slice()));
    }

    #[test]
    fn spans_say_line_and_column() {
        let mut scanner = Scanner::new(b"aa,\"b\nb\",cc\n".as_slice(), b',');
        scanner.next_row().unwrap();
        let places: Vec<_> = scanner.spans().iter().map(|s| (s.line, s.column)).collect();
        assert_eq!(places, vec![(0, 1), (0, 4), (1, 4)]);
    }

    proptest! {
        /// What a well-kept CSV library writes, we read, and the raw bytes add up to the input.
        #[test]
        fn reads_what_the_csv_crate_writes(
            rows in prop::collection::vec(prop::collection::vec("[a-c\",\r\n é]{0,6}", 2..4), 1..12)
        ) {
            let mut out = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows { out.write_record(row).unwrap(); }
            let text = out.into_inner().unwrap();
            let got: Vec<_> = scan(&text).into_iter().map(|(_, r)| r.unwrap()).collect();
            prop_assert_eq!(got, rows);
        }

        /// Any bytes: no panic, and every byte but empty lines belongs to exactly one row.
        #[test]
        fn no_byte_is_lost(text in prop::collection::vec(prop::sample::select(b"a,\"\n\r\x00\xff".to_vec()), 0..200)) {
            let mut scanner = Scanner::new(text.as_slice(), b',');
            let mut joined = Vec::new();
            let mut lines = Vec::new();
            while scanner.next_row().unwrap().is_some() {
                joined.extend_from_slice(scanner.raw());
                lines.push(scanner.line());
            }
            let lone = |b: &[u8]| b.iter().filter(|b| !matches!(**b, b'\n' | b'\r')).copied().collect::<Vec<u8>>();
            prop_assert_eq!(lone(&joined), lone(&text));
            prop_assert!(lines.windows(2).all(|w| matches!(w, [a, b] if a < b)));
        }
    }
}
