//! Frames of verdicts for subscribers: published after the durable commit, read by each subscriber at its own pace.
//!
//! The application never waits for a subscriber: frames stay in a short ring, and who falls behind it reads them from
//! the store.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use concordat_protocol::node::Frame;

/// Frames kept in memory.
const RING: usize = 64;
/// Entries of all frames kept in memory: four full blocks. A full block's frame takes 2 to 3 MB.
const RING_ENTRIES: usize = 65_536;

struct Ring {
    height: u64,
    frames: VecDeque<Arc<Frame>>,
    entries: usize,
}

/// The newest frames.
pub struct Frames {
    ring: Mutex<Ring>,
    grown: Condvar,
}

/// A frame that a subscriber asks for.
pub enum Next {
    /// It is in memory.
    Here(Arc<Frame>),
    /// It is in the store.
    Stored,
    /// It is not there yet.
    Wait,
}

impl Frames {
    /// No frames yet, the newest block being at `height`.
    pub fn new(height: u64) -> Self {
        Self { ring: Mutex::new(Ring { height, frames: VecDeque::new(), entries: 0 }), grown: Condvar::new() }
    }

    /// Publishes the frame of a block that is durable.
    pub fn publish(&self, frame: Frame) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.height = frame.height;
        ring.entries += frame.entries.len();
        ring.frames.push_back(Arc::new(frame));
        while ring.frames.len() > RING || ring.entries > RING_ENTRIES && ring.frames.len() > 1 {
            let Some(oldest) = ring.frames.pop_front() else { break };
            ring.entries -= oldest.entries.len();
        }
        self.grown.notify_all();
    }

    /// The frame of a height; waits at most `patience` for it.
    pub fn next(&self, height: u64, patience: Duration) -> Next {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.grown.wait_timeout_while(ring, patience, |ring| ring.height < height);
        let (ring, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if ring.height < height {
            return Next::Wait;
        }
        match ring.frames.iter().find(|f| f.height == height) {
            Some(frame) => Next::Here(Arc::clone(frame)),
            None => Next::Stored,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::codes::Verdict;
    use concordat_protocol::ops::LogEntry;

    fn frame(height: u64, entries: usize) -> Frame {
        let entry = LogEntry {
            height,
            tick_ms: 1,
            writer: "police/executor".into(),
            incarnation: 1,
            seq: 1,
            op_hash: [0; 32],
            verdict: Verdict::Accepted,
            code: 0,
        };
        let entries = vec![(0, entry); entries];
        Frame { height, tick_ms: 1, app_hash: [0; 32], meta_rev: 0, entries }
    }

    fn here(frames: &Frames, height: u64) -> bool {
        matches!(frames.next(height, Duration::ZERO), Next::Here(f) if f.height == height)
    }

    #[test]
    fn memory_is_bounded_by_frames_and_by_entries_and_the_newest_frame_is_always_there() {
        let frames = Frames::new(0);
        (1..=100).for_each(|height| frames.publish(frame(height, 1)));
        assert!(!here(&frames, 36) && here(&frames, 37) && here(&frames, 100));
        (101..=110).for_each(|height| frames.publish(frame(height, 20_000)));
        assert!(!here(&frames, 107) && here(&frames, 108), "three full blocks");
        frames.publish(frame(111, RING_ENTRIES + 1));
        assert!(here(&frames, 111) && !here(&frames, 110));
        frames.publish(frame(112, 1));
        assert!(here(&frames, 112) && !here(&frames, 111));
        assert!(matches!(frames.next(111, Duration::ZERO), Next::Stored));
        assert!(matches!(frames.next(113, Duration::ZERO), Next::Wait));
    }
}
