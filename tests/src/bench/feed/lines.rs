//! Batches of JSON lines, 256 bytes each, made by writing numbers into a template: the load generator leaves the machine to
//! what is measured.

/// Bytes of a line without its end.
pub const LINE: usize = 256;
/// Digits of a message's number.
const DIGITS: usize = 12;
const NUMBER: &str = "000000000000";

/// Lines whose numbers can be written over.
pub struct Lines {
    bytes: Vec<u8>,
    /// Where the two numbers stand in a line: in its id and in its data.
    at: [usize; 2],
}

fn template() -> (String, [usize; 2]) {
    let head = format!(r#"{{"id":"00000000000000000000{NUMBER}","time":"2026-01-01T00:00:00Z","data":{{"feeder":"#);
    let data = r#""feeder-0017","kv":"110.25","mvar":"0.4123","mw":"1.23457","remark":""#;
    let tail = format!(r#"","seq":"{NUMBER}","time":"2026-01-01T00:00:00Z"}}}}"#);
    let pad = LINE.saturating_sub(head.len() + data.len() + tail.len());
    let line = format!("{head}{data}{}{tail}", "x".repeat(pad));
    let first = line.find(NUMBER).map_or(0, |at| at + 20);
    let last = line.rfind(NUMBER).unwrap_or_default();
    (line + "\n", [first, last])
}

impl Lines {
    /// Room for so many lines.
    pub fn new(most: usize) -> Self {
        let (line, at) = template();
        Self { bytes: line.repeat(most).into_bytes(), at }
    }

    /// The lines of `count` messages from number `first` on.
    pub fn numbered(&mut self, first: u64, count: usize) -> &[u8] {
        let whole = LINE + 1;
        for i in 0..count {
            let mut n = first + i as u64;
            let mut digits = [b'0'; DIGITS];
            for d in digits.iter_mut().rev() {
                *d = b'0' + (n % 10) as u8;
                n /= 10;
            }
            for at in self.at {
                self.bytes[i * whole + at..][..DIGITS].copy_from_slice(&digits);
            }
        }
        &self.bytes[..count * whole]
    }
}

/// The number of a message that came.
pub fn number(message: &serde_json::Value) -> Option<u64> {
    message["data"]["seq"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn lines_are_256_bytes_of_seven_fields_and_every_one_has_its_own_number() {
        let mut lines = Lines::new(4);
        lines.numbered(900, 4);
        let text = String::from_utf8(lines.numbered(41, 3).to_vec()).unwrap();
        let parsed: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(text.lines().all(|l| l.len() == LINE), "{text}");
        assert_eq!(parsed.iter().map(number).collect::<Vec<_>>(), [Some(41), Some(42), Some(43)]);
        assert_eq!(parsed[2]["id"], "00000000000000000000000000000043");
        assert_eq!(parsed[0]["data"].as_object().unwrap().len(), 7);
    }
}
