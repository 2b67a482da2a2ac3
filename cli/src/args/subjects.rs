//! `subject`

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `subject`
#[derive(Debug, Subcommand)]
pub enum Subject {
    /// Everybody who looked at a person's records, in words
    Log(Who),
    /// The same list with its proof, as a file for the person: `verify list` checks it
    Proof {
        /// Whose.
        #[command(flatten)]
        who: Who,
        /// Where to write it
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Who may see the accesses to somebody else's records: a lawyer, a guardian
    #[command(subcommand)]
    Mandate(Mandate),
    /// What citizens and their representatives looked at, without names
    Looks,
    /// Forget a person: key, salts, stored answers and held records. It cannot be undone
    Erase {
        /// The dataset, ds:police/stops@1
        #[arg(long)]
        dataset: String,
        /// The person's id, as the dataset's subject field has it
        #[arg(long)]
        subject: String,
        /// Leave the held records as they are
        #[arg(long)]
        keep_records: bool,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

/// `subject mandate`
#[derive(Debug, Subcommand)]
pub enum Mandate {
    /// Register a mandate after seeing its document; ids are kept as keyed hashes
    Add {
        /// The dataset, ds:police/stops@1
        #[arg(long)]
        dataset: String,
        /// The represented person's id, as the dataset's subject field has it
        #[arg(long = "for", value_name = "ID")]
        subject: String,
        /// The representative: their `sub` at the citizens' issuer
        #[arg(long = "to", value_name = "SUB")]
        holder: String,
        /// The last day, 2027-01-31 (UTC)
        #[arg(long, value_name = "DATE")]
        until: String,
        /// The document that was shown; its hash is kept
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
    },
    /// All mandates, without the persons
    List,
    /// End a mandate at once
    Revoke {
        /// mnd-...
        mandate: String,
    },
}

/// Whose records.
#[derive(Debug, Args)]
pub struct Who {
    /// The dataset, ds:police/stops@1
    #[arg(long)]
    pub dataset: String,
    /// The person's id, as the dataset's subject field has it
    #[arg(long)]
    pub subject: String,
    /// Leave out what ended before this time (2026-01-31T00:00:00Z)
    #[arg(long)]
    pub from: Option<String>,
}
