//! Holdings block; the drivers of networked stores do not. This is where the two meet.

use std::future::Future;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};

use super::HoldingError;

/// A runtime that belongs to one holding. Its caller waits on a channel and may therefore be any thread, one of another
/// runtime included, which then is blocked as by every other call of a holding.
pub(super) struct Bridge {
    runtime: Option<Runtime>,
}

impl Bridge {
    pub(super) fn new(name: &str) -> Result<Self, HoldingError> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build();
        let runtime = runtime.map_err(|e| HoldingError::Setup(format!("no threads for the store: {e}")))?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs the work to its end and answers with what it answered.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HoldingError>> + Send + 'static,
    ) -> Result<T, HoldingError> {
        let stopped = || HoldingError::Store("its worker stopped".into());
        let runtime = self.runtime.as_ref().ok_or_else(stopped)?;
        let (told, answer) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Nobody listens any more only where the caller's thread died.
            let _ = told.send(work.await);
        });
        answer.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which a thread of another runtime may not do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
