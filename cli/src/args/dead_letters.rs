//! Arguments about rows that adapters refused.

use clap::{Args, Subcommand};

/// `dead-letter`
#[derive(Debug, Subcommand)]
pub enum DeadLetter {
    /// Rows that adapters refused, newest last
    List {
        /// The adapter; by default all
        adapter: Option<String>,
        /// At most so many of the newest
        #[arg(long, default_value = "50")]
        limit: usize,
        /// Those that left instead: replayed or discarded, when, by whom and why
        #[arg(long)]
        gone: bool,
    },
    /// One refused row, with its original bytes
    Show {
        /// The adapter
        adapter: String,
        /// Its id, or the beginning of it
        id: String,
        /// Only the original bytes, as they were
        #[arg(long)]
        raw: bool,
    },
    /// Put refused rows through the adapter's document as it is now, and publish those that are good
    #[command(
        after_help = "Correct the mapping in adapters/NAME.yaml first, then try with --dry-run. A row keeps the id that it would have\n\
            had. It leaves the dead letters once it is durable at the broker (or in the holding, for records alone); broken off\n\
            before, it is replayed again under the same id. The adapter may run meanwhile: its own place is not touched.\n\
            Exit code 8: some rows were refused again, 1: all were."
    )]
    Replay {
        /// The adapter
        adapter: String,
        /// Which ones
        #[command(flatten)]
        which: Which,
        /// Only show which would pass; nothing is published and nothing changes
        #[arg(long)]
        dry_run: bool,
    },
    /// Give refused rows up: their bytes are deleted, a line says who did so and why
    Discard {
        /// The adapter
        adapter: String,
        /// Which ones
        #[command(flatten)]
        which: Which,
        /// Why, for those who ask later
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// It cannot be undone
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters a command is about.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The one with this id, or the beginning of it
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// All of the adapter's
    #[arg(long)]
    pub all: bool,
    /// Those of a rule, number.syntax, or of a class of rules, number
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("concordat").chain(line.split(' '))).map(|c| c.command)
    }

    #[test]
    fn a_replay_says_which_rows_and_a_discard_also_why() {
        let Command::DeadLetter(DeadLetter::Replay { which, dry_run: true, .. }) =
            parse("dead-letter replay load --rule time --dry-run").unwrap()
        else {
            panic!("another command")
        };
        assert_eq!((which.rule.as_deref(), which.all, which.id), (Some("time"), false, None));
        for bad in ["replay load", "replay load --all --id 1", "discard load --all --yes", "discard load --reason x"] {
            assert_eq!(parse(&format!("dead-letter {bad}")).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
