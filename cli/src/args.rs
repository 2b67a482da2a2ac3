//! The command line.

pub mod agreements;
pub mod break_glass;
pub mod dead_letters;
pub mod evidence;
pub mod feeds;
pub mod keys;
mod nodes;
pub mod outside;
mod record;
pub mod role_map;
pub mod sinks;
pub mod subjects;

pub use agreements::{AgreementTool, StopKind};
pub use break_glass::BreakGlass;
pub use dead_letters::{DeadLetter, Which};
pub use evidence::Evidence;
pub use feeds::{Adapter, Dataset, Feed, Message, Subscription};
pub use keys::Key;
pub use nodes::{Demo, Node, Pod, PodPart};
pub use outside::Ledger;
pub use record::{Record, RecordDelete, RecordInsert, RecordModify, Under};
pub use role_map::RoleMap;
pub use sinks::Sink;
pub use subjects::{Mandate, Subject, Who};

use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Agencies exchange live feeds and records without handing over their databases, and prove later who saw what.
#[derive(Debug, Parser)]
#[command(
    name = "concordat",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 denied, 4 proof invalid, 5 not found, 6 conflict, 7 unavailable or timeout, 8 partial."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// A node of the demo and a user of its gateway: AGENCY[/USER], for example court/clerk
    #[arg(long, global = true, value_name = "AGENCY[/USER]")]
    pub context: Option<String>,
    /// A node's folder
    #[arg(long, global = true, env = "CONCORDAT_DIR", value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// How results are written
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub output: Format,
    /// No messages
    #[arg(long, global = true)]
    pub quiet: bool,
    /// No colours (there are none in this version)
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A city of four agencies on this machine
    #[command(subcommand)]
    Demo(Demo),
    /// One agency's node: its processes
    #[command(subcommand)]
    Node(Node),
    /// Ask a provider for held records
    #[command(subcommand)]
    Query(Query),
    /// Write records that another agency holds, under an agreement
    #[command(subcommand)]
    Record(Record),
    /// Override in an emergency, and review such overrides
    #[command(subcommand)]
    BreakGlass(BreakGlass),
    /// What people of this agency are told of: approvals, expiry, reviews, overrides
    #[command(subcommand)]
    Notice(Notice),
    /// Agreements: write, check, try, propose, approve, stop
    #[command(subcommand)]
    Agreement(Agreement),
    /// Operations on the ledger
    #[command(subcommand)]
    Op(Op),
    /// Persons: who looked at their records, and forgetting them
    #[command(subcommand)]
    Subject(Subject),
    /// The map that turns claims of this agency's people into roles
    #[command(subcommand)]
    RoleMap(RoleMap),
    /// Check evidence offline
    #[command(subcommand)]
    Verify(Verify),
    /// Evidence of a case as one file for a court
    #[command(subcommand)]
    Evidence(Evidence),
    /// Why a request was answered or denied: an operation (op:5821) or a request id
    Why {
        /// op:N or a request id
        what: String,
    },
    /// The ledger
    #[command(subcommand)]
    Ledger(Ledger),
    /// Adapters: connect a source
    #[command(subcommand)]
    Adapter(Adapter),
    /// Bring a folder's datasets, schemas and adapters into this node, each document checked first
    Apply {
        /// A folder with datasets/, schemas/ and adapters/
        #[arg(short = 'f', long = "file", value_name = "FOLDER")]
        folder: std::path::PathBuf,
        /// Only show what would change
        #[arg(long)]
        diff: bool,
    },
    /// Datasets: register, list, show
    #[command(subcommand)]
    Dataset(Dataset),
    /// Messages: publish into a feed of this agency
    #[command(subcommand)]
    Message(Message),
    /// Feeds: follow what a provider publishes, see how the own ones do
    #[command(subcommand)]
    Feed(Feed),
    /// Subscriptions to feeds of other agencies
    #[command(subcommand)]
    Subscription(Subscription),
    /// Sinks: deliver a subscription to files, a table, an MQTT server, an address or a control centre
    #[command(subcommand)]
    Sink(Sink),
    /// Rows that adapters refused
    #[command(subcommand)]
    DeadLetter(DeadLetter),
    /// What a verifier must trust
    #[command(subcommand)]
    Trust(Trust),
    /// Keys: list, make, rotate, revoke, encrypt, sign acts offline
    #[command(subcommand)]
    Key(Key),
    /// Steps of the Helm chart's containers
    #[command(subcommand, hide = true)]
    Pod(Pod),
    /// Shell completions
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `query`
#[derive(Debug, Subcommand)]
pub enum Query {
    /// Run a query; rows come only after the ledger has accepted its record
    Run(QueryRun),
}

/// `query run`
#[derive(Debug, Args)]
pub struct QueryRun {
    /// The dataset, ds:police/stops@1
    #[arg(long)]
    pub dataset: String,
    /// The filter as JSON: '{"time": {"range": {"from": "...", "to": "..."}}}'
    #[arg(long = "where", value_name = "JSON", default_value = "{}")]
    pub filter: String,
    /// The fields, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub select: Vec<String>,
    /// Totals instead of rows, as JSON: '{"by": ["precinct", {"time": "month"}]}'; '{}' for the groups of the clause
    #[arg(long, value_name = "JSON", conflicts_with_all = ["select", "order", "limit"])]
    pub aggregate: Option<String>,
    /// The purpose, purp:pending-case
    #[arg(long)]
    pub purpose: String,
    /// The clause relied on, C1 or AGR-2026-0142/C1
    #[arg(long)]
    pub clause: Option<String>,
    /// The case reference
    #[arg(long)]
    pub case: Option<String>,
    /// key or -key
    #[arg(long)]
    pub order: Option<String>,
    /// At most so many rows
    #[arg(long)]
    pub limit: Option<u32>,
    /// version: each row says which version of the record it is, for `record modify` and `record delete`
    #[arg(long, value_delimiter = ',')]
    pub include: Vec<String>,
    /// The same key and body give the same answer, once
    #[arg(long)]
    pub idempotency_key: Option<String>,
    /// Also write the receipt to this file
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
}

/// `agreement`
#[derive(Debug, Subcommand)]
pub enum Agreement {
    /// Tools before anybody signs, and what ends or renews one.
    #[command(flatten)]
    Tool(AgreementTool),
    /// Propose a document's terms on the ledger
    Propose {
        /// The document
        file: PathBuf,
        /// How long approvals may take
        #[arg(long, default_value = "7")]
        days: u64,
    },
    /// Approve a proposal with the key of one role
    Approve(Approve),
    /// Suspend at once
    Suspend(Stop),
    /// Approve the resumption of a suspended agreement with the key of one role
    Resume(Approve),
    /// End for ever, at once
    Revoke(Stop),
    /// State of all agreements, or of one
    Status {
        /// The agreement
        agreement: Option<String>,
    },
}

/// `agreement approve|resume`
#[derive(Debug, Args)]
pub struct Approve {
    /// The agreement
    pub agreement: String,
    /// In which role; the key is keys/approver-ROLE.key of the node's folder
    #[arg(long)]
    pub role: String,
    /// The document that was read: its terms must be the ones on the ledger
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// Approve new dates: the document that `agreement renew` proposed
    #[arg(long, value_name = "FILE", conflicts_with = "document")]
    pub renewal: Option<PathBuf>,
}

/// `agreement suspend|revoke`
#[derive(Debug, Args)]
pub struct Stop {
    /// The agreement
    pub agreement: String,
    /// Why, for the record (only its salted hash is on the ledger)
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `notice`
#[derive(Debug, Subcommand)]
pub enum Notice {
    /// What waits for this agency's approval, expires soon, is to be reviewed, or was overridden
    List {
        /// Only this kind: approval, expires, review, break-glass
        #[arg(long)]
        kind: Option<String>,
        /// At most so many
        #[arg(long, default_value = "50")]
        limit: u32,
    },
}

/// `op`
#[derive(Debug, Subcommand)]
pub enum Op {
    /// The newest operations
    List {
        /// How many
        #[arg(long, default_value = "20")]
        limit: u32,
    },
    /// One operation
    Show {
        /// op:N
        op: String,
        /// Decide it again, at the provider: exit 4 if ledger, document or evaluator say another thing than the record
        #[arg(long)]
        replay: bool,
        /// With --replay: the folder of the approved documents; by default agreements/ of the node
        #[arg(long, value_name = "DIR", requires = "replay")]
        documents: Option<PathBuf>,
    },
    /// The receipt of an operation, as a file
    Receipt {
        /// op:N
        op: String,
        /// Where to write it; by default op-N.receipt
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only a final one: cosigned by more than 2/3 of the validator agencies; waits 30 s, or as --wait says
        #[arg(long = "final")]
        only_final: bool,
        /// Wait so many seconds until it is final
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Deny on the ledger that this agency asked for an operation that names one of its sessions
    Dispute {
        /// op:N
        op: String,
        /// Why, for the record (only its salted hash is on the ledger)
        #[arg(long)]
        reason: String,
    },
}

/// `verify`
#[derive(Debug, Subcommand)]
pub enum Verify {
    /// Check a list of who looked at a person's records (`subject proof`) with nothing but itself and trust.json
    List {
        /// The list
        file: PathBuf,
        /// trust.json
        #[arg(long, value_name = "FILE")]
        trust: PathBuf,
    },
    /// Check a bundle (`evidence export`) with nothing but itself and trust.json
    Bundle {
        /// The bundle
        file: PathBuf,
        /// trust.json, got by another way than the bundle
        #[arg(long, value_name = "FILE")]
        trust: PathBuf,
    },
    /// Check a report of an agreement (`agreement report --file`) with nothing but itself and trust.json
    Report {
        /// The report
        file: PathBuf,
        /// trust.json
        #[arg(long, value_name = "FILE")]
        trust: PathBuf,
    },
    /// Check a receipt with nothing but itself and trust.json; no network, no node
    Receipt {
        /// The receipt
        file: PathBuf,
        /// trust.json
        #[arg(long, value_name = "FILE")]
        trust: PathBuf,
    },
}

/// `trust`
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// The fingerprint, to be compared by voice
    Show {
        /// trust.json
        #[arg(long, value_name = "FILE")]
        trust: Option<PathBuf>,
    },
    /// Write the trust.json of this node's chain
    Export {
        /// Where to
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}
