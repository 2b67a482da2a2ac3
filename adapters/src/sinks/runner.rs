//! The loop of a sink: a page of the subscription, delivered, acknowledged; from what is acknowledged on.

use std::time::Duration;

use tokio::sync::watch;

use super::document::Head;
use super::{Gateway, Message, Sink};
use crate::contract::{AdapterError, ErrorClass};
use crate::dead_letter::DeadLetters;
use crate::document::{OnAuth, OnTransient};
use crate::pace::backoff_ms;

/// How far a sink is; counts are of this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages that are acknowledged.
    pub delivered: u64,
    /// Of these, refused by the sink for good.
    pub dead_letters: u64,
    /// Place of the last one.
    pub cursor: Option<String>,
    /// Failed tries since the last success.
    pub failures: u32,
    /// The last error.
    pub last_error: Option<String>,
}

struct Run<'a, F> {
    gateway: &'a Gateway,
    head: &'a Head,
    dead: &'a mut DeadLetters,
    stop: watch::Receiver<bool>,
    report: F,
    progress: Progress,
}

/// Runs until `stop` becomes true, an error stops it, or, with `once`, nothing is left. `report` is called after each
/// page and each failure.
pub async fn run(
    sink: Box<dyn Sink>,
    gateway: &Gateway,
    head: &Head,
    dead: &mut DeadLetters,
    once: bool,
    stop: watch::Receiver<bool>,
    report: impl FnMut(&Progress) + Send,
) -> Result<Progress, AdapterError> {
    let mut run = Run { gateway, head, dead, stop, report, progress: Progress::default() };
    run.deliver_all(sink, once).await?;
    Ok(run.progress)
}

impl<F: FnMut(&Progress) + Send> Run<'_, F> {
    async fn deliver_all(&mut self, mut sink: Box<dyn Sink>, once: bool) -> Result<(), AdapterError> {
        let wait = if once { Duration::ZERO } else { self.head.wait };
        while !self.stopped() {
            let asked = self.gateway.messages(&self.head.subscription, self.head.max, wait);
            let page = tokio::select! {
                page = asked => page,
                () = stopping(self.stop.clone()) => return Ok(()),
            };
            let (page, cursor) = match page {
                Ok((page, Some(cursor))) if !page.is_empty() => (page, cursor),
                Ok(_) if once => return Ok(()),
                Ok(_) => {
                    // Somebody who does not wait is not asked in a circle.
                    self.sleep(20).await;
                    continue;
                }
                Err(error) => {
                    self.wait_after(error).await?;
                    continue;
                }
            };
            sink = self.deliver(sink, page, &cursor).await?;
        }
        Ok(())
    }

    /// Delivers a page until the sink has it and the gateway knows.
    async fn deliver(
        &mut self,
        sink: Box<dyn Sink>,
        page: Vec<Message>,
        cursor: &str,
    ) -> Result<Box<dyn Sink>, AdapterError> {
        let (mut sink, mut page, mut given) = (sink, page, false);
        loop {
            if self.stopped() {
                return Ok(sink);
            }
            if !given {
                let work = tokio::task::spawn_blocking(move || {
                    let told = sink.deliver(&page);
                    (sink, page, told)
                });
                let (again, same, told) = work.await.map_err(|e| {
                    AdapterError::source_failed(
                        ErrorClass::Permanent,
                        "source.protocol",
                        format!("the sink broke: {e}"),
                    )
                })?;
                (sink, page) = (again, same);
                match told {
                    Ok(refused) => {
                        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                        self.dead.append(&refused, &self.head.subscription, &at)?;
                        self.progress.dead_letters += refused.len() as u64;
                        given = true;
                    }
                    Err(error) => {
                        self.wait_after(error).await?;
                        continue;
                    }
                }
            }
            match self.gateway.acknowledge(&self.head.subscription, cursor).await {
                Ok(()) => break,
                // The subscription was sought meanwhile: what it gives now is asked for.
                Err(error) if error.code() == "source.changed" => return Ok(sink),
                Err(error) => self.wait_after(error).await?,
            }
        }
        self.progress.delivered += page.len() as u64;
        self.progress.cursor = Some(cursor.to_owned());
        self.progress.failures = 0;
        (self.report)(&self.progress);
        Ok(sink)
    }

    async fn wait_after(&mut self, error: AdapterError) -> Result<(), AdapterError> {
        let retry = match error.class() {
            ErrorClass::Transient => self.head.transient == OnTransient::Retry,
            ErrorClass::Auth => self.head.auth == OnAuth::Retry,
            ErrorClass::Data | ErrorClass::Permanent => false,
        };
        if !retry {
            return Err(error);
        }
        let wait_ms = backoff_ms(self.progress.failures, error.retry_after_ms());
        tracing::warn!(sink = %self.head.sink, code = error.code(), wait_ms, "{error}");
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.progress.last_error = Some(error.to_string());
        (self.report)(&self.progress);
        self.sleep(wait_ms).await;
        Ok(())
    }

    async fn sleep(&self, ms: u64) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
            () = stopping(self.stop.clone()) => {}
        }
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

async fn stopping(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|s| *s).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}
