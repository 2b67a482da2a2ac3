//! `evidence`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `evidence`
#[derive(Debug, Subcommand)]
pub enum Evidence {
    /// Write all that proves a case's queries into one file: receipts, trust, agreements, and a page for people
    Export(EvidenceExport),
}

/// `evidence export`
#[derive(Debug, Args)]
pub struct EvidenceExport {
    /// The case reference, as the queries carried it
    #[arg(long)]
    pub case: String,
    /// Where to: FILE.asice
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The time zone of local times on the page
    #[arg(long, default_value = "UTC", value_name = "AREA/CITY")]
    pub zone: String,
    /// Only queries from this time on: 2026-11-23T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only queries before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}
