//! Nodes and the demo's city.

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

/// `demo`
#[derive(Debug, Subcommand)]
pub enum Demo {
    /// Set up, tour, and (unless DEMO=keep) stop: what `make demo` runs
    Run,
    /// Set the city up and start it
    Up,
    /// Run the checks; every line is one, and a failed one ends with exit code 1
    Tour,
    /// Show every process of the city
    Status,
    /// Stop the city
    Stop,
    /// Stop the city and remove its folders
    Reset,
}

/// `node`
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Supervise all processes of a folder, in the foreground
    Up,
    /// Stop the supervisor of a folder
    Down,
    /// Show the processes of a folder
    Status,
    /// The replicated application (started by the supervisor)
    App,
    /// The light client of a hosted agency, in place of application and CometBFT (started by the supervisor)
    Light,
    /// The data executor (started by the supervisor)
    Executor,
    /// The broker (started by the supervisor)
    Broker,
    /// The exchange manager (started by the supervisor)
    Exchange,
    /// Runs a command that dies with its parent (used by the supervisor)
    #[command(hide = true)]
    Guard {
        /// Process id of the supervisor
        parent: u32,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// `pod`
#[derive(Debug, Subcommand)]
pub enum Pod {
    /// Copy mounted secrets into keys/, mode 0600
    Keys {
        /// Where they are mounted
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
    },
    /// Wait for the application, then become CometBFT
    Comet {
        /// This validator never signed: make its signing state if there is none
        #[arg(long)]
        first_start: bool,
        /// Seconds to wait for the application
        #[arg(long, default_value = "300")]
        wait: u64,
    },
    /// Whether a part of the validator is well
    Probe {
        /// Which
        part: PodPart,
    },
    /// Wait until a URL answers 200
    Ready {
        /// The broker's /readyz
        #[arg(long)]
        url: String,
        /// Seconds to wait
        #[arg(long, default_value = "60")]
        wait: u64,
    },
}

/// A part of the validator.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PodPart {
    /// The application
    App,
    /// CometBFT
    Comet,
}
