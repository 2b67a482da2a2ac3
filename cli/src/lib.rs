//! Library part of the `concordat` program: commands, the demo, folders of nodes, the supervisor, and the servers it starts.

pub mod args;
pub mod commands;
pub mod context;
pub mod demo;
pub mod failure;
pub mod layout;
pub mod output;
pub mod servers;
pub mod supervisor;
