//! Asynchronous drivers asked from a plain thread.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::session::{Cause, Failure};

/// A runtime of one session's own.
#[derive(Debug)]
pub(crate) struct Own(Option<Runtime>);

impl Own {
    /// Makes one.
    pub(crate) fn new() -> Result<Self, Failure> {
        let made = Builder::new_current_thread().enable_all().build();
        made.map(|r| Self(Some(r))).map_err(|e| Failure::new(Cause::Lost, format!("no runtime: {e}")))
    }

    /// Waits for a future. Never within another runtime's task.
    pub(crate) fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        let runtime = self.0.as_ref().ok_or_else(|| Failure::new(Cause::Lost, "the session is closed"))?;
        Ok(runtime.block_on(future))
    }

    /// Does something that starts tasks of this runtime.
    pub(crate) fn enter<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        let guard = self.0.as_ref()?.enter();
        let done = f();
        drop(guard);
        Some(done)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // A source may be dropped within a task, where waiting is forbidden.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
