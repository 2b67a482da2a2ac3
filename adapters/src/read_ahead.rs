//! A source on a blocking thread: one batch is read ahead of what is being sent, and acknowledgements go in between.

use tokio::task::JoinHandle;

use crate::contract::{AdapterError, Checkpoint, Next, Source};
use crate::lines::Ready;

/// What was asked of the source: a batch from here, at most so many rows.
type Asked = (Checkpoint, usize);
/// What came of it.
type Told = Result<Ready, AdapterError>;

/// What the thread did.
struct Done<S> {
    source: S,
    acked: Result<(), AdapterError>,
    read: Option<(Asked, Told)>,
}

enum State<S> {
    /// At rest; the batch is one that was read ahead.
    Rest(S, Option<(Asked, Told)>),
    /// On its thread, with the acknowledgement it carries.
    Busy(JoinHandle<Done<S>>, Option<Checkpoint>),
    /// Its thread is lost.
    Gone,
}

/// Drives a source. Every wait here can be given up and taken up again: nothing is lost by it.
pub(crate) struct Reader<S> {
    state: State<S>,
    ack: Option<Checkpoint>,
    ack_error: Option<AdapterError>,
}

impl<S: Source> Reader<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { state: State::Rest(source, None), ack: None, ack_error: None }
    }

    /// Everything up to `durable` is durable; the source is told before its next read, or by [`Reader::acknowledge`].
    pub(crate) fn durable(&mut self, durable: Checkpoint) {
        self.ack = Some(durable);
    }

    /// True when the source was not told yet what is durable.
    pub(crate) fn owes(&self) -> bool {
        self.ack.is_some() || self.ack_error.is_some() || matches!(self.state, State::Busy(_, Some(_)))
    }

    /// The batch after `from`; the one after that is read while the caller sends this one.
    pub(crate) async fn read(&mut self, from: &Checkpoint, max: usize) -> Told {
        loop {
            self.rest().await?;
            if let Some(error) = self.ack_error.take() {
                return Err(error);
            }
            let State::Rest(_, ahead) = &mut self.state else { return Err(gone()) };
            match ahead.take() {
                Some((asked, told)) if asked == (from.clone(), max) => {
                    if let Ok(Ready { next: Next::More, checkpoint, .. }) = &told {
                        self.start(Some((checkpoint.clone(), max)));
                    }
                    return told;
                }
                _ => self.start(Some((from.clone(), max))),
            }
        }
    }

    /// Tells the source what is durable, and waits until it was told.
    pub(crate) async fn acknowledge(&mut self) -> Result<(), AdapterError> {
        loop {
            self.rest().await?;
            if let Some(error) = self.ack_error.take() {
                return Err(error);
            }
            if self.ack.is_none() {
                return Ok(());
            }
            self.start(None);
        }
    }

    /// Waits until the source is at rest.
    async fn rest(&mut self) -> Result<(), AdapterError> {
        let State::Busy(task, carried) = &mut self.state else { return Ok(()) };
        let done = match task.await {
            Ok(done) => done,
            Err(e) => {
                self.state = State::Gone;
                return Err(broken(e.to_string()));
            }
        };
        if let Err(error) = done.acked {
            // It is told again, unless there is something newer by then.
            self.ack = self.ack.take().or_else(|| carried.take());
            self.ack_error = Some(error);
        }
        self.state = State::Rest(done.source, done.read);
        Ok(())
    }

    /// Sends the source to its thread: first what is durable, then the read. A batch that was read ahead is kept when
    /// nothing is read.
    fn start(&mut self, read: Option<Asked>) {
        let (mut source, ahead) = match std::mem::replace(&mut self.state, State::Gone) {
            State::Rest(source, ahead) => (source, ahead),
            other => {
                self.state = other;
                return;
            }
        };
        let ack = self.ack.take();
        let carried = ack.clone();
        let task = tokio::task::spawn_blocking(move || {
            let acked = ack.map_or(Ok(()), |durable| source.ack(&durable));
            let read = match read {
                Some((from, max)) if acked.is_ok() => {
                    let told = source.read(&from, max).map(Ready::from);
                    Some(((from, max), told))
                }
                Some(_) => None,
                None => ahead,
            };
            Done { source, acked, read }
        });
        self.state = State::Busy(task, carried);
    }
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
