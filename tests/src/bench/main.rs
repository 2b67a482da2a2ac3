//! `concordat-bench`: starts the shipped program with production settings, loads it, and writes the figures down.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod adapters;
mod bounded;
mod check;
mod city;
mod decisions;
mod evidence;
mod feed;
mod kvstore;
mod ordered;
mod query;
mod receipt;
mod report;
mod revocation;
mod rows;
mod stages;
mod tessera;

use clap::{Parser, Subcommand};
use concordat_tests::chain::{self, failed, http, process, supply};
use failed::BenchError;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures the shipped program, or checks the last figures against their floors.
#[derive(Debug, Parser)]
#[command(name = "concordat-bench", max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure. Takes about ten minutes, uses this machine only, and stops everything it started
    Run {
        /// Where the results go (JSON; a page with the same name and `.md` is written beside it); without it nothing is written
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Half a minute: shows that the bench works, proves nothing
        #[arg(long)]
        quick: bool,
        /// Only these parts
        #[arg(long, value_delimiter = ',', value_enum)]
        only: Vec<rows::Part>,
        /// The program to measure; by default `concordat` beside this one
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
    },
    /// Compare the last figures with their floors; exit code 1 when one does not hold
    Check {
        /// The results file
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.json")]
        results: PathBuf,
        /// The floors file
        #[arg(long, value_name = "FILE", default_value = "tests/bench-floors.json")]
        floors: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Check { results, floors } => check::check(&results, &floors).map(|(lines, ok)| {
            lines.iter().for_each(|line| println!("{line}"));
            ok
        }),
        Command::Run { out, quick, only, program } => run(&rows::Plan { out, quick, only, program }).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(1)
        }
    }
}

fn run(plan: &rows::Plan) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| BenchError::io("starting threads", e))?;
    runtime.block_on(async {
        // Dropping the run stops what it started.
        tokio::select! {
            result = rows::run(plan) => result,
            () = concordat_broker::stop_signal() => Err(BenchError::refused("the benchmark", "stopped by a signal")),
        }
    })
}
