//! Library part of the `concordat` program: folders of nodes, the supervisor, and the servers it starts.

pub mod layout;
pub mod servers;
pub mod supervisor;
