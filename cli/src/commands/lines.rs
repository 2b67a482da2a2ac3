//! JSON lines of a file or of standard input: numbered, bounded, and with a place that a later run can go on from.

use crate::failure::{Exit, Failure};
use concordat_protocol::hash::{Hash, sha256};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read};

/// Lines of one batch (one envelope) at most.
const BATCH_LINES: usize = 256;
/// Bytes of one batch's lines: its envelope must fit one message of the streams.
const BATCH_BYTES: usize = 384 * 1024;
/// Longest line.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A line that may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the input, from 1.
    pub number: u64,
    /// As it is sent, without its end.
    pub bytes: Vec<u8>,
    chain: Hash,
}

/// What a name keeps at the node: how far the input was read, and a hash chain over all lines up to there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    lines: u64,
    chain: String,
}

impl Line {
    /// The place behind this line.
    pub fn place(&self) -> Vec<u8> {
        let place = Place { v: 1, lines: self.number, chain: hex::encode(self.chain) };
        serde_json::to_vec(&place).unwrap_or_default()
    }
}

/// One line as read.
enum Read1 {
    Line(Line),
    Bad(u64, &'static str, String),
    Blank,
}

/// Reads lines in order.
pub struct Reader<R> {
    input: R,
    bare: bool,
    number: u64,
    chain: Hash,
    bytes: u64,
}

impl<R: BufRead> Reader<R> {
    /// Lines of `input`; `bare` ones are records without their envelope.
    pub fn new(input: R, bare: bool) -> Self {
        Self { input, bare, number: 0, chain: [0; 32], bytes: 0 }
    }

    fn read(&mut self) -> Result<Option<Read1>, Failure> {
        let (mut line, mut over) = (Vec::new(), false);
        let failed = |e: std::io::Error| Failure::new(Exit::Failed, "input", format!("the input cannot be read: {e}"));
        loop {
            let mut part = Vec::new();
            let n = (&mut self.input).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut part).map_err(failed)?;
            self.bytes += n as u64;
            let text = part.strip_suffix(b"\n").unwrap_or(&part);
            if !text.is_empty() {
                self.chain = sha256(&[&self.chain, text]);
            }
            let ended = n == 0 || part.last() == Some(&b'\n');
            if line.len() + part.len() > LINE_BYTES_MAX {
                over = true;
                line.clear();
            }
            if !over {
                line.extend_from_slice(&part);
            }
            if n == 0 && line.is_empty() && !over {
                return Ok(None);
            }
            if ended {
                break;
            }
        }
        self.number += 1;
        // With and without its end, a last line is the same one: a file may have grown since.
        self.chain = sha256(&[&self.chain, b"\n"]);
        while line.last().is_some_and(|b| b"\r\n".contains(b)) {
            line.pop();
        }
        if over {
            let message = format!("the line is longer than {LINE_BYTES_MAX} bytes: split it");
            return Ok(Some(Read1::Bad(self.number, "line-length", message)));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(Read1::Blank));
        }
        if self.bare {
            // Only a whole object may be wrapped: anything else could close the wrapping by itself.
            if let Err(e) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line) {
                return Ok(Some(Read1::Bad(self.number, "json", format!("must be one JSON object: {e}"))));
            }
            line = [&b"{\"data\":"[..], &line, b"}"].concat();
        }
        Ok(Some(Read1::Line(Line { number: self.number, bytes: line, chain: self.chain })))
    }

    /// Passes over the lines before a place that was kept, making sure that they are the same ones. Returns how many.
    pub fn skip_to(&mut self, place: &[u8]) -> Result<u64, Failure> {
        if place.is_empty() {
            return Ok(0);
        }
        let changed = |why: String| {
            let text = format!("{why}: give the same input again, or take another --adapter name");
            Failure::new(Exit::Conflict, "input-changed", text)
        };
        let place: Place = serde_json::from_slice(place)
            .map_err(|_| changed("this name is an adapter's, its position is not a place in lines".into()))?;
        while self.number < place.lines {
            if self.read()?.is_none() {
                return Err(changed(format!(
                    "the input ends before line {}, up to which it was published",
                    place.lines
                )));
            }
        }
        if place.v != 1 || hex::encode(self.chain) != place.chain {
            return Err(changed(format!("the first {} lines differ from those that were published", place.lines)));
        }
        Ok(self.number)
    }
}

/// One batch with the lines that cannot be sent at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// What is sent.
    pub lines: Vec<Line>,
    /// Number, rule, sentence.
    pub refused: Vec<(u64, &'static str, String)>,
}

/// The lines in batches.
pub struct Batches<R> {
    reader: Reader<R>,
    held: Option<Line>,
}

impl<R: BufRead> Batches<R> {
    /// Batches of what is left in `reader`.
    pub fn new(reader: Reader<R>) -> Self {
        Self { reader, held: None }
    }

    /// Bytes read.
    pub fn position(&self) -> u64 {
        self.reader.bytes
    }

    /// The next batch; none at the end.
    pub fn next(&mut self) -> Result<Option<Batch>, Failure> {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        loop {
            let line = match self.held.take() {
                Some(line) => line,
                None => match self.reader.read()? {
                    None => break,
                    Some(Read1::Blank) => continue,
                    Some(Read1::Bad(number, rule, message)) => {
                        batch.refused.push((number, rule, message));
                        if batch.refused.len() >= BATCH_LINES {
                            return Ok(Some(batch));
                        }
                        continue;
                    }
                    Some(Read1::Line(line)) => line,
                },
            };
            bytes += line.bytes.len() + 1;
            if !batch.lines.is_empty() && bytes > BATCH_BYTES {
                self.held = Some(line);
                break;
            }
            batch.lines.push(line);
            if batch.lines.len() == BATCH_LINES {
                break;
            }
        }
        Ok((!batch.lines.is_empty() || !batch.refused.is_empty()).then_some(batch))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all(text: &[u8], bare: bool) -> Vec<Batch> {
        let mut batches = Batches::new(Reader::new(text, bare));
        std::iter::from_fn(|| batches.next().unwrap()).collect()
    }

    #[test]
    fn lines_keep_their_number_and_batches_their_bounds() {
        let mut text = b"\n{\"data\":{\"n\":1}}\r\n  \n".to_vec();
        (0..300).for_each(|_| text.extend_from_slice(b"{}\n"));
        text.extend_from_slice(b"{\"last\":1}");
        let found = all(&text, false);
        assert_eq!(found.iter().map(|b| b.lines.len()).collect::<Vec<_>>(), [256, 46]);
        assert_eq!((found[0].lines[0].number, &found[0].lines[0].bytes[..]), (2, &b"{\"data\":{\"n\":1}}"[..]));
        assert_eq!((found[1].lines[45].number, &found[1].lines[45].bytes[..]), (304, &b"{\"last\":1}"[..]));
        let large = [b"{\"x\":\"".to_vec(), vec![b'a'; 200_000], b"\"}\n".to_vec()].concat().repeat(3);
        assert_eq!(all(&large, false).iter().map(|b| b.lines.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_the_rest_goes_on() {
        let text =
            [b"{}\n".to_vec(), vec![b' '; 2 * LINE_BYTES_MAX + 5], b"\n{}\n".to_vec(), vec![b'x'; LINE_BYTES_MAX + 1]]
                .concat();
        let found = all(&text, false);
        assert_eq!(found[0].lines.iter().map(|l| l.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(
            found[0].refused.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(),
            [(2, "line-length"), (4, "line-length")]
        );
    }

    #[test]
    fn bare_records_are_wrapped_and_cannot_break_out() {
        let found = all(b"{\"n\":1}\n1},{\"n\":2\n[]\n{\"n\":2},\"id\":\"x\"\n{\"a\":1.50}", true);
        let sent: Vec<&[u8]> = found[0].lines.iter().map(|l| &l.bytes[..]).collect();
        assert_eq!(sent, [&b"{\"data\":{\"n\":1}}"[..], b"{\"data\":{\"a\":1.50}}"]);
        assert_eq!(found[0].refused.iter().map(|r| r.0).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_place_is_found_again_only_in_the_same_lines() {
        let text = b"{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}\n";
        let place = all(text, false)[0].lines[1].place();
        let mut again = Reader::new(&text[..], false);
        assert_eq!(again.skip_to(&place).unwrap(), 3);
        let rest = Batches::new(again).next().unwrap().unwrap();
        assert_eq!(rest.lines.iter().map(|l| l.number).collect::<Vec<_>>(), [4]);
        let last = all(&text[..text.len() - 1], false)[0].lines[2].place();
        let mut grown = Reader::new(&b"{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n"[..], false);
        assert_eq!(grown.skip_to(&last).unwrap(), 4, "a file that has grown goes on");
        for other in [&b"{\"n\":1}\n\n{\"n\":9}\n{\"n\":3}\n"[..], b"{\"n\":1}\n"] {
            assert_eq!(Reader::new(other, false).skip_to(&place).unwrap_err().code, "input-changed");
        }
        let foreign = br#"{"v":1,"file":"a.csv","row":3,"chain":"00"}"#;
        assert_eq!(Reader::new(&text[..], false).skip_to(foreign).unwrap_err().exit, Exit::Conflict);
    }
}
