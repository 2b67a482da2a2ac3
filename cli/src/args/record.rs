//! `record`

use clap::{Args, Subcommand};

/// `record`
#[derive(Debug, Subcommand)]
pub enum Record {
    /// Add a record at its provider
    Insert(RecordInsert),
    /// Change fields of a record at its provider
    Modify(RecordModify),
    /// Delete a record at its provider
    Delete(RecordDelete),
}

/// Under which agreement a record is written.
#[derive(Debug, Args)]
pub struct Under {
    /// The dataset, ds:police/stops@1
    pub dataset: String,
    /// The purpose, purp:pending-case
    #[arg(long)]
    pub purpose: String,
    /// The case reference
    #[arg(long)]
    pub case: Option<String>,
    /// The clause relied on, C1 or AGR-2026-0142/C1
    #[arg(long)]
    pub clause: Option<String>,
    /// The same key and write is done once
    #[arg(long)]
    pub idempotency_key: Option<String>,
}

/// `record insert`
#[derive(Debug, Args)]
pub struct RecordInsert {
    /// Under which agreement
    #[command(flatten)]
    pub under: Under,
    /// The record, a file with a JSON object, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub data: String,
}

/// `record modify`
#[derive(Debug, Args)]
pub struct RecordModify {
    /// Under which agreement
    #[command(flatten)]
    pub under: Under,
    /// The record's key
    #[arg(long)]
    pub key: String,
    /// The fields to change, a file with a JSON object (null takes a field away), or - for standard input
    #[arg(long, value_name = "FILE")]
    pub data: String,
    /// The version that is changed, as `query run --include version` shows it, or * for any
    #[arg(long, value_name = "VERSION")]
    pub if_match: String,
}

/// `record delete`
#[derive(Debug, Args)]
pub struct RecordDelete {
    /// Under which agreement
    #[command(flatten)]
    pub under: Under,
    /// The record's key
    #[arg(long)]
    pub key: String,
    /// The version that is deleted, as `query run --include version` shows it, or * for any
    #[arg(long, value_name = "VERSION")]
    pub if_match: String,
}
