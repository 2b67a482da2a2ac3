//! `agreement`: the tools before anybody signs, and what ends or renews one.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Tools on agreement documents; most need no node.
#[derive(Debug, Subcommand)]
pub enum AgreementTool {
    /// Begin a document from a template; without one, list the templates
    New(NewAgreement),
    /// Check a document; print its sentences and findings. Exit 1 if it should not be signed as it is
    Lint(Lint),
    /// Print the sentences that are approved with a document
    Render {
        /// The document
        file: PathBuf,
    },
    /// Show ten rows before and after a clause, from a file or from the provider's own holding
    Preview(Preview),
    /// Show what changes from one document to another, clause by clause
    Diff {
        /// The document as it is
        before: PathBuf,
        /// The document as it would be
        after: PathBuf,
    },
    /// Decide recorded requests again, under a next version
    Simulate(Simulate),
    /// Report what happened under an agreement, with a proof of each operation
    Report(Report),
    /// List everybody who can read a field under the agreements in force
    WhoCanRead(WhoCanRead),
    /// Say of every clause what a request lacks, and whom to ask
    Explain(Explain),
    /// Turn a proposal down, with the key of one approval role
    Reject(Reject),
    /// Propose new dates for an active version; then approve with `approve --renewal FILE`
    Renew {
        /// The document of the active version with other dates or papers, nothing else
        file: PathBuf,
        /// How long approvals may take
        #[arg(long, default_value = "7")]
        days: u64,
    },
    /// Print the JSON Schema of agreement documents, for an editor
    Schema,
}

/// `agreement new`
#[derive(Debug, Args)]
pub struct NewAgreement {
    /// The template
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// A placeholder's value; from and until default to today and a year on
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub values: Vec<String>,
    /// Where to write it; by default stdout
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Rows of a dataset to try a document on.
#[derive(Debug, Args)]
pub struct Rows {
    /// The dataset's document, its schema beside it or in ../; by default the one in the node's folder
    #[arg(long, value_name = "FILE")]
    pub dataset: Option<PathBuf>,
    /// Rows, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub dataset_rows: Option<PathBuf>,
    /// The rows that this provider's node holds (with --dir or --context)
    #[arg(long, conflicts_with = "dataset_rows")]
    pub held: bool,
    /// So many invented rows, made from the dataset's schema
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["dataset_rows", "held"])]
    pub synthetic: Option<u32>,
}

/// `agreement lint`
#[derive(Debug, Args)]
pub struct Lint {
    /// The document
    pub file: PathBuf,
    /// Rows on which the uniqueness of what is released is measured.
    #[command(flatten)]
    pub rows: Rows,
    /// Judge dates at this time instead of now: 2026-06-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// `agreement preview`
#[derive(Debug, Args)]
pub struct Preview {
    /// The document
    pub file: PathBuf,
    /// Only this clause
    #[arg(long)]
    pub clause: Option<String>,
    /// The rows.
    #[command(flatten)]
    pub rows: Rows,
    /// How many rows are shown
    #[arg(long, default_value = "10")]
    pub count: usize,
    /// Look at it at this time instead of now (for delays): 2026-06-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// The agreements in force.
#[derive(Debug, Args)]
pub struct InForce {
    /// Take every document of this folder as in force, instead of those that the ledger has as active (--dir, --context)
    #[arg(long, value_name = "FOLDER")]
    pub documents: Option<PathBuf>,
}

/// `agreement simulate`
#[derive(Debug, Args)]
pub struct Simulate {
    /// The next version
    pub file: PathBuf,
    /// Recorded requests, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub requests: Option<PathBuf>,
    /// The requests of this agency's people among the ledger's newest operations (with --dir or --context)
    #[arg(long, value_name = "COUNT", conflicts_with = "requests")]
    pub last: Option<u32>,
    /// What is in force now.
    #[command(flatten)]
    pub in_force: InForce,
}

/// `agreement who-can-read`
#[derive(Debug, Args)]
pub struct WhoCanRead {
    /// DATASET.FIELD, for example ds:police/stops@1.race
    pub field: String,
    /// What is in force now.
    #[command(flatten)]
    pub in_force: InForce,
}

/// `agreement report`
#[derive(Debug, Args)]
pub struct Report {
    /// The agreement
    pub agreement: String,
    /// First day or time (ledger time, UTC): 2026-01-31 or 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub from: String,
    /// First day or time after it
    #[arg(long, value_name = "TIME")]
    pub to: String,
    /// Also write the whole report with its proofs to this file, as JSON
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `agreement explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// The dataset, ds:police/stops@1
    #[arg(long)]
    pub dataset: String,
    /// The agency that asks; by default the node's own
    #[arg(long, value_name = "AGENCY")]
    pub consumer: Option<String>,
    /// Roles of the person, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub roles: Vec<String>,
    /// query, subscribe, insert, modify or delete
    #[arg(long, default_value = "query")]
    pub action: String,
    /// The purpose, purp:pending-case
    #[arg(long)]
    pub purpose: String,
    /// The clause relied on, C1 or AGR-2026-0142/C1
    #[arg(long)]
    pub clause: Option<String>,
    /// The case reference
    #[arg(long)]
    pub case: Option<String>,
    /// As an override
    #[arg(long)]
    pub break_glass: bool,
    /// How strongly the person signed in (acr); together with --signed-in
    #[arg(long, requires = "signed_in")]
    pub level: Option<String>,
    /// When the person signed in: 2026-06-01T00:00:00Z
    #[arg(long, value_name = "TIME", requires = "level")]
    pub signed_in: Option<String>,
    /// Decide at this time instead of now
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// What is in force now.
    #[command(flatten)]
    pub in_force: InForce,
}

/// `agreement reject`
#[derive(Debug, Args)]
pub struct Reject {
    /// The agreement
    pub agreement: String,
    /// In which role; the key is keys/approver-ROLE.key of the node's folder
    #[arg(long)]
    pub role: String,
    /// Why, for the record (only its salted hash is on the ledger)
    #[arg(long)]
    pub reason: String,
}

/// Kinds of stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StopKind {
    /// Until resumed.
    Suspend,
    /// For ever.
    Revoke,
}
