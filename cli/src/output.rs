//! Data goes to stdout, messages to stderr; tables for people, JSON for programs.

use clap::ValueEnum;
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON value.
    Json,
    /// One JSON value a line.
    Ndjson,
}

/// Where results and messages go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The format.
    pub format: Format,
    /// No messages.
    pub quiet: bool,
}

impl Output {
    /// Writes a result: `text` for people, `value` for programs.
    pub fn result(&self, value: &Value, text: impl FnOnce() -> String) {
        let line = match self.format {
            Format::Table => text(),
            Format::Json => serde_json::to_string_pretty(value).unwrap_or_default(),
            Format::Ndjson => value.to_string(),
        };
        // A closed pipe (`| head`) is the reader's choice, not an error.
        let _ = writeln!(std::io::stdout(), "{}", line.trim_end());
    }

    /// Writes a list: a table, a JSON array, or a line each.
    pub fn list(&self, rows: &[Value], columns: &[&str]) {
        match self.format {
            Format::Table => self.result(&Value::Null, || table(rows, columns)),
            Format::Json => self.result(&Value::Array(rows.to_vec()), String::new),
            Format::Ndjson => rows.iter().for_each(|r| self.result(r, String::new)),
        }
    }

    /// A message for people, on stderr.
    pub fn say(&self, message: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", message.as_ref());
        }
    }

    /// A progress bar on stderr, hidden where nobody looks at a terminal.
    pub fn bar(&self, total: u64, what: &str) -> indicatif::ProgressBar {
        if self.quiet || !std::io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
        let bar = indicatif::ProgressBar::new(total).with_message(what.to_owned());
        style.map_or_else(|_| bar.clone(), |s| bar.clone().with_style(s))
    }
}

/// One cell as text.
fn cell(v: Option<&Value>) -> String {
    match v {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

/// A plain table with aligned columns.
pub fn table(rows: &[Value], columns: &[&str]) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|c| c.to_uppercase()).collect()];
    lines.extend(rows.iter().map(|r| columns.iter().map(|c| cell(r.get(c))).collect()));
    let width = |i: usize| lines.iter().map(|l: &Vec<String>| l[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |l: &Vec<String>| {
        let cells: Vec<String> = l.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn tables_align_and_keep_missing_cells_empty() {
        let rows = [json!({"a": "x", "n": 10}), json!({"a": "long"})];
        assert_eq!(super::table(&rows, &["a", "n"]), "A     N\nx     10\nlong");
    }
}
