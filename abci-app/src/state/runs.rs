//! Subject runs (PROTOCOL 4): which operations touched which tag, closed by time or size, sorted, and entered into state
//! some heights after they closed.
//!
//! Time does not act by itself: a run closes, and a root enters, in the next block that holds more than its tick, before
//! anything else of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use concordat_protocol::canon_struct;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ops::{Op, Tag, Tags};
use concordat_protocol::runs::{BULK_TAG, RUN_ENTRIES_MAX, RunView, run_key};
use concordat_protocol::tree::{Frontier, value_leaf};

use super::apply::Work;
use crate::sorted::SortedRun;
use crate::tiles::{self, Completed};

canon_struct! {
    /// A run that is closed and whose root is not in state yet: `run.root` is zeros.
    pub struct Closed {
        /// Height at which it closed.
        pub height: u64,
        /// What it covers.
        pub run: RunView,
    }
}

canon_struct! {
    /// Where the runs stand.
    pub struct Runs {
        /// Number of the open run, from 0.
        pub open: u64,
        /// First log index that it covers: where the one before ended.
        pub first_index: u64,
        /// Its entries so far.
        pub count: u64,
        /// Tick of its first entry, milliseconds.
        pub from_ms: u64,
        /// Closed runs on their way into state, oldest first.
        pub closed: Vec<Closed>,
        /// Runs in state.
        pub size: u64,
        /// Peaks of their tree.
        pub peaks: Vec<Hash>,
    }
}

impl Runs {
    /// Before the first entry.
    pub const fn empty() -> Self {
        Self { open: 0, first_index: 0, count: 0, from_ms: 0, closed: Vec::new(), size: 0, peaks: Vec::new() }
    }

    /// The tree of runs in state. A store whose peaks do not fit its size is refused when it is opened.
    pub fn tree(&self) -> Frontier {
        Frontier::from_parts(self.size, self.peaks.clone()).unwrap_or_default()
    }

    /// First log index that no run in state covers.
    pub fn end_index(&self) -> u64 {
        self.closed.first().map_or(self.first_index, |c| c.run.first_index)
    }

    fn close(&mut self, height: u64, tick_ms: u64, end_index: u64) {
        let (first_index, from_ms, count) = (self.first_index, self.from_ms, self.count);
        let run = RunView { first_index, end_index, from_ms, to_ms: tick_ms, count, root: [0; 32] };
        self.closed.push(Closed { height, run });
        (self.open, self.first_index, self.count, self.from_ms) = (self.open + 1, end_index, 0, 0);
    }
}

/// An entry: (run, tag, log index, operation's hash).
pub type RunEntry = (u64, Tag, u64, Hash);

/// A run whose root entered state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Its number.
    pub number: u64,
    /// The run.
    pub run: RunView,
    /// Its entries.
    pub sorted: Arc<SortedRun>,
}

/// What a block does to the runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunNews {
    /// Entries, in the order of the log.
    pub entries: Vec<RunEntry>,
    /// Runs that entered state.
    pub entered: Vec<Entered>,
    /// Subtrees that their tree completed and tiles keep.
    pub completed: Vec<Completed>,
}

impl Work<'_> {
    /// A parameter, at least 1.
    pub(super) fn param(&self, name: &str) -> u64 {
        self.view.params.get(&name.to_owned()).copied().unwrap_or(1).max(1)
    }

    /// What the block's tick brings about.
    pub fn time_passes(&mut self) {
        let (close_ms, delay) = (self.param("run_close_ms"), self.param("run_root_delay"));
        let (height, tick_ms, end) = (self.head.height, self.head.tick_ms, self.next_index());
        let runs = &mut self.head.runs;
        if runs.count > 0 && tick_ms / close_ms > runs.from_ms / close_ms {
            runs.close(height, tick_ms, end);
        }
        while let Some(due) = self.head.runs.closed.first().filter(|c| c.height + delay <= height) {
            let (number, mut run) = (self.head.runs.size, due.run.clone());
            let sorted = self.recall.past.run(number);
            run.root = sorted.root;
            let mut tree = self.head.runs.tree();
            let leaf = value_leaf(&run_key(number), &cbor::encode(&run));
            tiles::push(&mut tree, leaf, &mut self.runs.completed);
            let runs = &mut self.head.runs;
            (runs.size, runs.peaks) = (tree.size(), tree.peaks().to_vec());
            runs.closed.remove(0);
            self.runs.entered.push(Entered { number, run, sorted });
        }
    }

    /// Enters the subjects of an operation that stands at a log index. A refused one touched nobody.
    pub fn index_subjects(&mut self, op: &Op, index: u64, op_hash: &Hash, verdict: Verdict) {
        if verdict == Verdict::Refused {
            return;
        }
        let bulk = [BULK_TAG];
        let tags: &[Tag] = match op.tags() {
            Some(Tags::List(tags)) => tags,
            Some(Tags::Bulk { .. }) => &bulk,
            None => &[],
        };
        if tags.is_empty() {
            return;
        }
        let runs = &mut self.head.runs;
        if runs.count == 0 {
            runs.from_ms = self.head.tick_ms;
        }
        // An operation that repeats a tag has one entry under it.
        let distinct: BTreeSet<&Tag> = tags.iter().collect();
        runs.count += distinct.len() as u64;
        self.runs.entries.extend(distinct.into_iter().map(|tag| (runs.open, *tag, index, *op_hash)));
        if runs.count >= RUN_ENTRIES_MAX {
            runs.close(self.head.height, self.head.tick_ms, index + 1);
        }
    }
}
