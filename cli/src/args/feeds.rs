//! Arguments of what feeds need: datasets, messages, subscriptions, adapters.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::str::FromStr;

/// `message`
#[derive(Debug, Subcommand)]
pub enum Message {
    /// Publish JSON lines into a feed of this agency; every line is answered for after it is on disk
    #[command(
        after_help = "A line's id, where it has none, is made of the dataset's key, so the same record always has the same id. The\n\
            stream does not compare ids: run again without --adapter and the lines are published again. With --adapter NAME\n\
            the node keeps how far NAME has come in the same write as the messages: run again, and it goes on from there.\n\
            Refused lines are named on stderr, the rest goes on. Exit code 8: some lines were refused, 1: all were."
    )]
    Publish(Publish),
}

/// `message publish`
#[derive(Debug, Args)]
pub struct Publish {
    /// The dataset, ds:grid/load@1
    pub dataset: String,
    /// JSON lines {"id"?, "time"?, "data": {..}}; - is standard input
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Lines are bare records: each becomes {"data": <line>}
    #[arg(long)]
    pub bare: bool,
    /// Publish under this name and keep the position at the node: the same file again goes on where it stopped
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Give up when nothing was taken for so many seconds
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    pub timeout: u64,
}

/// `dataset`
#[derive(Debug, Subcommand)]
pub enum Dataset {
    /// Check a document with its schema and put the dataset on the ledger; done already is fine
    Register {
        /// The document, datasets/NAME.yaml
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        /// Also copy the document and its schema into the node's folder (the node must be restarted)
        #[arg(long)]
        install: bool,
    },
    /// All datasets on the ledger, and what this node has of them
    List,
    /// One dataset: its fields, and the agreements that open it
    Show {
        /// The dataset, ds:grid/load@1
        dataset: String,
        /// Print its JSON Schema
        #[arg(long)]
        schema: bool,
    },
}

/// `adapter`
#[derive(Debug, Subcommand)]
pub enum Adapter {
    /// Kinds of source that this program can read, or one kind's page and example
    Kinds {
        /// The kind
        kind: Option<String>,
    },
    /// Write adapters/NAME.yaml to begin with, from a kind's example
    New {
        /// Name of the adapter: a-z, 0-9 and -
        name: String,
        /// The kind of source, see `adapter kinds`
        #[arg(long)]
        kind: String,
    },
    /// Look at a source and draft its schema, its dataset and its mapping; nothing is published
    Discover {
        /// adapters/NAME.yaml in the node's folder; it needs no mapping yet
        name: String,
        /// Write the drafts below this folder; by default they are shown
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Try the source and the document: names, TLS, login, rights, clock, and of files the first rows; nothing is written
    Check {
        /// adapters/NAME.yaml in the node's folder
        name: String,
        /// How many rows of a file to try
        #[arg(long, default_value = "1000")]
        rows: u64,
    },
    /// Publish until the source ends, or for ever where it does not
    Run {
        /// adapters/NAME.yaml in the node's folder
        name: String,
        /// At most so many rows, then stop
        #[arg(long)]
        rows: Option<u64>,
        /// Rows a second, or max
        #[arg(long)]
        pace: Option<String>,
        /// Stop as soon as the source has nothing more at present
        #[arg(long)]
        once: bool,
        /// Read from the beginning and show each row beside what it would become; nothing is published or acknowledged
        #[arg(long, conflicts_with_all = ["rows", "pace", "once"])]
        dry_run: bool,
        /// How many rows a dry run shows
        #[arg(long, default_value = "20", requires = "dry_run")]
        limit: u64,
    },
    /// Load a records dataset into the node's holding
    Load {
        /// adapters/NAME.yaml in the node's folder
        name: String,
    },
    /// Let an adapter read nothing more until it is resumed, over restarts too
    Pause {
        /// adapters/NAME.yaml in the node's folder
        name: String,
    },
    /// Let a paused adapter go on
    Resume {
        /// adapters/NAME.yaml in the node's folder
        name: String,
    },
    /// Where adapters stand and what they refused
    Status {
        /// The adapter; by default all
        name: Option<String>,
    },
    /// Run the conformance kit against a source: it must hold small data that may be read again and again
    #[command(
        after_help = "Without --changes the checks run that change nothing; the others are skipped. The program is run in the base\n\
            folder with one argument: fresh rows equal-cursor late-row poison half-written finished resent skewed-clock\n\
            changed-header drift cut restored. It prints {\"expected\": [{KEY FIELDS}, ..], \"dead\": N}; exit code 3 skips the\n\
            check. adapters/README.md says what each change is; adapters/src/conform/changes.py is a whole one."
    )]
    Conform {
        /// The adapter's document
        #[arg(short = 'f', long = "file", value_name = "FILE")]
        file: PathBuf,
        /// The folder that its paths are relative to; by default the document's own
        #[arg(long, value_name = "FOLDER")]
        base: Option<PathBuf>,
        /// A program that changes the source: asked with the name of a change, it prints what must come of it, or exits with 3
        #[arg(long, value_name = "PROGRAM")]
        changes: Option<PathBuf>,
    },
}

/// `feed`
#[derive(Debug, Subcommand)]
pub enum Feed {
    /// Messages of a subscription, oldest first, verified
    Tail {
        /// The subscription; by default the only one
        subscription: Option<String>,
        /// How
        #[command(flatten)]
        tail: TailOptions,
    },
    /// This agency's feeds: what is published, and what is delivered to whom
    Stats {
        /// Show it again every so many seconds, with rates
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
        watch: Option<u64>,
    },
}

/// How messages of a subscription are followed.
#[derive(Debug, Clone, Default, Args)]
pub struct TailOptions {
    /// Stop after so many messages
    #[arg(long)]
    pub max: Option<u64>,
    /// Acknowledge what was shown
    #[arg(long)]
    pub ack: bool,
    /// Stop when nothing came for so many seconds (5 when pulled; --follow waits for ever)
    #[arg(long, value_name = "SECONDS")]
    pub idle: Option<u64>,
    /// Keep a stream of events open, and open it again where it broke off
    #[arg(long, visible_alias = "sse")]
    pub follow: bool,
}

/// `subscription`
#[derive(Debug, Subcommand)]
pub enum Subscription {
    /// Ask a provider for a subscription; the same name and terms again are the same subscription
    Create(Create),
    /// All subscriptions of this agency
    List,
    /// One subscription
    Show {
        /// The subscription, grid-17
        id: String,
    },
    /// Its messages, oldest first, verified
    Tail {
        /// The subscription, grid-17
        id: String,
        /// How
        #[command(flatten)]
        tail: TailOptions,
    },
    /// Fetch nothing until it is resumed; what was promised is still delivered to this agency's stream
    Pause {
        /// The subscription, grid-17
        id: String,
    },
    /// Go on where it was paused
    Resume {
        /// The subscription, grid-17
        id: String,
    },
    /// Read again from a place of what was delivered
    Seek {
        /// The subscription, grid-17
        id: String,
        /// earliest, latest, sub-seq:N, cursor:12.3 or time:2026-01-31T08:00:00Z
        #[arg(long, value_name = "PLACE")]
        to: SeekTo,
    },
    /// Acknowledge everything up to and with a cursor
    Ack {
        /// The subscription, grid-17
        id: String,
        /// The cursor of a message, 12.3
        cursor: String,
    },
    /// End a subscription that this agency created
    Delete {
        /// The subscription, grid-17
        id: String,
    },
    /// Deliveries that were refused because they did not prove themselves
    DeadLetters {
        /// The subscription, grid-17
        id: String,
    },
}

/// `subscription create`
#[derive(Debug, Args)]
pub struct Create {
    /// The dataset, ds:grid/load@1
    pub dataset: String,
    /// Its name here, 1 to 64 of a-z, 0-9 and -
    #[arg(long)]
    pub name: Option<String>,
    /// The agreement relied on, AGR-2026-0143
    #[arg(long)]
    pub agreement: Option<String>,
    /// The clause relied on, F1
    #[arg(long)]
    pub clause: Option<String>,
    /// The purpose, purp:load-forecast
    #[arg(long)]
    pub purpose: Option<String>,
    /// The case reference
    #[arg(long)]
    pub case: Option<String>,
    /// Only these rows, as JSON: '{"zone": "north"}'
    #[arg(long = "where", value_name = "JSON")]
    pub filter: Option<String>,
    /// Only these fields, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub select: Vec<String>,
    /// earliest, latest, seq:N or time:2026-01-31T08:00:00Z
    #[arg(long, value_name = "PLACE")]
    pub from: Option<StartAt>,
}

/// Where a new subscription begins, as the API takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartAt(pub Value);

/// Where a subscription is set back to, as the API takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekTo(pub Value);

/// `word` or `kind:value`; the sentence names all forms.
fn place(text: &str, number: &str, cursor: bool, forms: &str) -> Result<Value, String> {
    let wrong = || format!("is {forms}");
    match text.split_once(':') {
        None if text == "earliest" || text == "latest" => Ok(json!(text)),
        Some((word, n)) if word == number => {
            let n: u64 = n.parse().map_err(|_| format!("{word}: takes a whole number, {word}:1200"))?;
            Ok(json!({ number.replace('-', "_"): n }))
        }
        Some(("time", t)) => {
            let at: jiff::Timestamp =
                t.parse().map_err(|_| "time: takes RFC 3339 with a zone, time:2026-01-31T08:00:00Z".to_owned())?;
            Ok(json!({"time": at.to_string()}))
        }
        Some(("cursor", c)) if cursor => {
            let parts = c.split_once('.').is_some_and(|(a, b)| a.parse::<u64>().is_ok() && b.parse::<u64>().is_ok());
            if parts {
                Ok(json!({"cursor": c}))
            } else {
                Err("cursor: takes the cursor of a message, cursor:12.3".into())
            }
        }
        _ => Err(wrong()),
    }
}

impl FromStr for StartAt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        place(text, "seq", false, "earliest, latest, seq:N or time:2026-01-31T08:00:00Z").map(Self)
    }
}

impl FromStr for SeekTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        place(text, "sub-seq", true, "earliest, latest, sub-seq:N, cursor:12.3 or time:2026-01-31T08:00:00Z").map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::{Cli, Command};
    use clap::{CommandFactory, Parser};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("concordat").chain(line.split(' '))).map(|c| c.command)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn places_are_words_numbers_cursors_and_times() {
        let from = |t: &str| t.parse::<StartAt>().map(|f| f.0);
        let to = |t: &str| t.parse::<SeekTo>().map(|f| f.0);
        assert_eq!(from("earliest").unwrap(), json!("earliest"));
        assert_eq!(from("seq:17").unwrap(), json!({"seq": 17}));
        assert_eq!(from("time:2026-01-31T09:00:00+01:00").unwrap(), json!({"time": "2026-01-31T08:00:00Z"}));
        assert_eq!(to("sub-seq:3").unwrap(), json!({"sub_seq": 3}));
        assert_eq!(to("cursor:12.3").unwrap(), json!({"cursor": "12.3"}));
        for bad in
            ["", "first", "seq:-1", "seq:x", "time:yesterday", "time:2026-01-31T09:00:00", "cursor:12.3", "sub-seq:1"]
        {
            assert!(from(bad).is_err(), "{bad}");
        }
        for bad in ["seq:1", "cursor:12", "cursor:a.b", "sub-seq:"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_read_as_people_write_them() {
        let Command::Subscription(Subscription::Create(c)) =
            parse("subscription create ds:grid/load@1 --select time,mw --from seq:4").unwrap()
        else {
            panic!("another command")
        };
        assert_eq!((c.select, c.from), (vec!["time".into(), "mw".into()], Some(StartAt(json!({"seq": 4})))));
        let Command::Feed(Feed::Stats { watch: Some(2) }) = parse("feed stats --watch").unwrap() else { panic!("2 s") };
        for bad in [
            "subscription seek grid-17",
            "subscription seek grid-17 --to nowhere",
            "message publish",
            "dataset register",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
