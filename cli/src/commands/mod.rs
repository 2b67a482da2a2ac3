//! The commands.

mod acts;
pub mod adapter;
pub mod adapter_status;
pub mod adapter_try;
pub mod agreement;
pub mod apply;
pub mod break_glass;
pub mod dataset;
pub mod dead_letter;
mod dead_letter_replay;
pub mod evidence;
pub mod feed;
pub mod key;
pub mod ledger_export;
pub mod ledger_timestamp;
mod lines;
mod mandate;
pub mod message;
pub mod node;
pub mod notice;
pub mod op;
pub mod pod;
pub mod query;
pub mod record;
pub mod replay;
pub mod role_map;
pub mod sink;
pub mod sse;
pub mod stats;
pub mod subject;
pub mod subscription;
pub mod trust;
pub mod verify;
pub mod verify_list;
pub mod verify_report;

use crate::args::Global;
use crate::context::{Api, resolve};
use crate::failure::Failure;
use crate::output::Output;
use std::path::PathBuf;

/// What every command has.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Where results go.
    pub out: Output,
    /// Options of every command.
    pub global: Global,
}

impl Ctx {
    /// The node's folder.
    pub fn dir(&self) -> Result<PathBuf, Failure> {
        resolve(self.global.context.as_deref(), self.global.dir.as_deref()).map(|(dir, _)| dir)
    }

    /// The gateway of the node, as the user named or the first with `role`.
    pub fn api(&self, role: &str) -> Result<Api, Failure> {
        let (dir, user) = resolve(self.global.context.as_deref(), self.global.dir.as_deref())?;
        Api::of(&dir, user.as_deref(), role)
    }
}
