//! Server-sent events as a browser reads them (WHATWG HTML, section 9.2): pure, fed with pieces of any size.

/// Longest event that is taken, bytes.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its id, where it has one: what `Last-Event-ID` repeats.
    pub id: Option<String>,
    /// Its name; empty stands for `message`.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// Takes pieces of a stream and gives whole events.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// The events that this piece completes; an error when one grows over the limit.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, String> {
        self.rest.extend_from_slice(piece);
        let mut found = Vec::new();
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            found.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        if self.rest.len() + self.event.data.len() > EVENT_BYTES_MAX {
            return Err(format!("an event is longer than {EVENT_BYTES_MAX} bytes"));
        }
        Ok(found)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        // A comment keeps the connection alive; one that says something is handed on.
        if let Some(comment) = line.strip_prefix(':') {
            let said = Event { name: "comment".into(), data: comment.trim().to_owned(), ..Event::default() };
            return (!matches!(said.data.as_str(), "" | "alive")).then_some(said);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            // `retry` is our own matter.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = ": alive\n\n: hello\n\nid: 12.3\ndata: {\"a\":1}\n\nevent: state\r\ndata:one\r\ndata: two\r\n\r\nid: 9\n\ndata: \u{e9}nd\n\ndata: torn";
        let event = |id: Option<&str>, name: &str, data: &str| Event {
            id: id.map(Into::into),
            name: name.into(),
            data: data.into(),
        };
        let want = vec![
            event(None, "comment", "hello"),
            event(Some("12.3"), "", "{\"a\":1}"),
            event(None, "state", "one\ntwo"),
            event(None, "", "\u{e9}nd"),
        ];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let found: Vec<Event> = text.as_bytes().chunks(size).flat_map(|c| parser.push(c).unwrap()).collect();
            assert_eq!(found, want, "pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        assert!((0..20).any(|_| parser.push(&vec![b'x'; 1 << 20]).is_err()));
    }
}
