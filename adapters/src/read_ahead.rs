//! Reads a source on a blocking thread, one batch ahead of what is being sent.

use tokio::task::JoinHandle;

use crate::contract::{AdapterError, Batch, Checkpoint, Source};

type ReadAhead<S> = JoinHandle<(S, Result<Batch, AdapterError>)>;

/// Reads on a blocking thread, one batch ahead of what is being sent.
pub(crate) struct Reader<S> {
    idle: Option<S>,
    ahead: Option<(Checkpoint, usize, ReadAhead<S>)>,
}

impl<S: Source> Reader<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { idle: Some(source), ahead: None }
    }

    /// The batch after `from`; the one after that is read while the caller sends this one.
    pub(crate) async fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        if let Some((at, asked, task)) = self.ahead.take() {
            let (source, result) = task.await.map_err(lost)?;
            if at == *from && asked == max {
                return self.and_ahead(source, result, max);
            }
            self.idle = Some(source);
        }
        let source = self.idle.take().ok_or_else(gone)?;
        let (source, result) = spawn(source, from.clone(), max).await.map_err(lost)?;
        self.and_ahead(source, result, max)
    }

    fn and_ahead(&mut self, source: S, result: Result<Batch, AdapterError>, max: usize) -> Result<Batch, AdapterError> {
        match &result {
            Ok(batch) if !batch.end => {
                let next = batch.checkpoint.clone();
                self.ahead = Some((next.clone(), max, spawn(source, next, max)));
            }
            _ => self.idle = Some(source),
        }
        result
    }
}

fn spawn<S: Source>(mut source: S, from: Checkpoint, max: usize) -> ReadAhead<S> {
    tokio::task::spawn_blocking(move || {
        let result = source.read(&from, max);
        (source, result)
    })
}

fn lost(error: tokio::task::JoinError) -> AdapterError {
    broken(error.to_string())
}

fn gone() -> AdapterError {
    broken("its thread is gone".to_owned())
}

fn broken(detail: String) -> AdapterError {
    AdapterError::Io {
        file: "source".to_owned(),
        action: "read",
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, detail),
    }
}
