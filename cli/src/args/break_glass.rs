//! `break-glass`

use super::QueryRun;
use clap::{Args, Subcommand, ValueEnum};

/// `break-glass`
#[derive(Debug, Subcommand)]
pub enum BreakGlass {
    /// Override under a break-glass clause: rows come at once where the clause allows it, their record follows
    Query(Box<Override>),
    /// Say what the review of an override found; overdue reviews stop the clause
    Review {
        /// op:N
        op: String,
        /// What the review found; it stays in this agency, the ledger has its commitment
        #[arg(long)]
        text: String,
        /// What it came to
        #[arg(long, value_enum, default_value = "justified")]
        outcome: Outcome,
    },
    /// Overrides that wait for a review, the first to be due first
    Due,
    /// Overrides at this provider, newest first
    Notices {
        /// How many
        #[arg(long, default_value = "20")]
        limit: u32,
    },
}

/// `break-glass query`
#[derive(Debug, Args)]
pub struct Override {
    /// What is asked
    #[command(flatten)]
    pub query: QueryRun,
    /// Why: it is recorded, opened to the provider and reviewed
    #[arg(long)]
    pub justification: String,
}

/// What a review came to.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Outcome {
    /// There was reason enough
    Justified,
    /// There was not
    Unjustified,
}

impl Outcome {
    /// As the API has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Justified => "justified",
            Self::Unjustified => "unjustified",
        }
    }
}
