//! `ledger`, with what it shows to outside witnesses.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `ledger`
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Height, tick, app hash, peers
    Status,
    /// Write or continue the log as a folder for outside witnesses: C2SP tiles and a signed checkpoint
    Export(Export),
    /// Keep an outside witness's cosignature beside the exported checkpoint
    Witness(Witness),
    /// Have the newest checkpoint stamped by a time-stamp authority (RFC 3161)
    Timestamp(Timestamp),
    /// Kept time-stamps
    #[command(subcommand)]
    Timestamps(Timestamps),
}

/// `ledger export`
#[derive(Debug, Args)]
pub struct Export {
    /// The folder; by default broker/log of the node's, which its gateway serves under /v1/log
    #[arg(long, value_name = "FOLDER")]
    pub tiles: Option<PathBuf>,
}

/// `ledger witness`
#[derive(Debug, Args)]
pub struct Witness {
    /// What the witness answered: a note, or its signature lines
    #[arg(long, value_name = "FILE")]
    pub add: PathBuf,
    /// The witness's verifier key: name+id+base64
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The exported folder; by default broker/log of the node's
    #[arg(long, value_name = "FOLDER")]
    pub tiles: Option<PathBuf>,
}

/// `ledger timestamp`
#[derive(Debug, Args)]
pub struct Timestamp {
    /// The authority: http://host/path
    #[arg(long, value_name = "URL")]
    pub tsa: String,
    /// Its certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub tsa_cert: PathBuf,
}

/// `ledger timestamps`
#[derive(Debug, Subcommand)]
pub enum Timestamps {
    /// The newest ones
    List,
    /// Check kept tokens again; all, or one
    Verify {
        /// Its number
        id: Option<i64>,
        /// With this certificate instead of the one that was given when it was made
        #[arg(long, value_name = "FILE")]
        tsa_cert: Option<PathBuf>,
    },
    /// Write checkpoint and token as files for other tools (openssl ts -verify)
    Export {
        /// Its number
        id: i64,
        /// Where to
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}
