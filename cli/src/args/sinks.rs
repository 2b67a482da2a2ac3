//! Arguments of sinks.

use clap::Subcommand;
use std::path::PathBuf;

/// `sink`
#[derive(Debug, Subcommand)]
pub enum Sink {
    /// Deliver a subscription to files, a table, an MQTT server or an address; it runs until it is stopped
    #[command(
        after_help = "A message is acknowledged at the own gateway only after the sink has it. Messages that the sink refuses for good\n\
            are kept in sinks/NAME.dead.jsonl of the node's folder."
    )]
    Run {
        /// The sink's document
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        /// End when nothing is left
        #[arg(long)]
        once: bool,
    },
    /// The kinds of sink
    Kinds,
}
