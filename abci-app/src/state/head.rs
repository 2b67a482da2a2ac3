//! The numbers that all of the state shares.

use concordat_protocol::canon_struct;

use super::checkpoints::Checkpoints;
use super::runs::Runs;

canon_struct! {
    /// Numbers that the whole state shares.
    pub struct Head {
        /// Chain id.
        pub chain: String,
        /// Height of the newest block.
        pub height: u64,
        /// Its tick, milliseconds; stands outside the app hash.
        pub tick_ms: u64,
        /// Grows when the meta tree changes.
        pub meta_rev: u64,
        /// Number the next session gets; numbers are never reused.
        pub next_session: u64,
        /// Number the next handle gets.
        pub next_handle: u64,
        /// Number the next dataset gets.
        pub next_dataset: u64,
        /// Slots of the heads tree so far, free ones included.
        pub slots: u64,
        /// Where the subject runs stand.
        pub runs: Runs,
        /// Where the checkpoints stand; outside the app hash.
        pub checkpoints: Checkpoints,
    }
}
