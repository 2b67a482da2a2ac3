//! `role-map`

use clap::Subcommand;

/// `role-map`
#[derive(Debug, Subcommand)]
pub enum RoleMap {
    /// The map in use here, and what the ledger has; of another agency what it recorded
    Show {
        /// Another agency: all maps that it recorded
        #[arg(long)]
        agency: Option<String>,
    },
}
