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

struct Ring {
    height: u64,
    frames: VecDeque<Arc<Frame>>,
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
        Self { ring: Mutex::new(Ring { height, frames: VecDeque::new() }), grown: Condvar::new() }
    }

    /// Publishes the frame of a block that is durable.
    pub fn publish(&self, frame: Frame) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.height = frame.height;
        ring.frames.push_back(Arc::new(frame));
        if ring.frames.len() > RING {
            ring.frames.pop_front();
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
