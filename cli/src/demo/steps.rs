//! A check of the tour: its line for people, its object for programs.

use crate::commands::Ctx;
use crate::failure::{Exit, Failure};
use crate::output::Format;
use serde_json::{Value, json};

/// What a check found.
#[derive(Debug, Clone)]
pub struct Found {
    /// One line for people.
    pub text: String,
    /// The figures behind it.
    pub facts: Value,
}

/// A check's result: found, or why it failed.
pub type Checked = Result<Found, String>;

/// Collects the results of a tour.
#[derive(Debug, Default)]
pub struct Tour {
    failed: Vec<String>,
}

impl Tour {
    /// Prints a check's result and keeps whether it failed.
    pub fn add(&mut self, ctx: &Ctx, number: u32, name: &str, result: Checked) {
        let (ok, text, facts) = match result {
            Ok(found) => (true, found.text, found.facts),
            Err(why) => (false, why, Value::Null),
        };
        if !ok {
            self.failed.push(format!("{number} {name}"));
        }
        let line = || format!("{number} {name:<10} {text:<108} {}", if ok { "ok" } else { "FAILED" });
        let object = json!({"check": number, "name": name, "ok": ok, "detail": text, "facts": facts});
        match ctx.out.format {
            Format::Table => ctx.out.result(&object, line),
            // One object a check, a line each, whichever JSON was asked for.
            Format::Json | Format::Ndjson => println!("{object}"),
        }
    }

    /// The tour's end: an error if a check failed.
    pub fn end(self) -> Result<(), Failure> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let what =
            format!("failed: {}; see the logs/ folders of the nodes (concordat demo status)", self.failed.join(", "));
        Err(Failure::new(Exit::Failed, "tour-failed", what))
    }
}

/// Says what was expected where a check finds something else.
pub fn expect(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

/// A count for people: 12,400.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_400, 1_234_567].map(thousands), ["0", "999", "1,000", "12,400", "1,234,567"]);
    }
}
