//! An adapter that runs against a broker of tests until a test has seen enough.

use std::path::Path;
use std::time::{Duration, Instant};

use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::AdapterError;
use concordat_adapters::dead_letter::DeadLetters;
use concordat_adapters::runner::{Progress, RunConfig, run};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fake_broker::{Act, FakeBroker, TOKEN};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// A name that is not installed is said, and the test passes.
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub struct Running {
    task: JoinHandle<Result<Progress, AdapterError>>,
    stop: watch::Sender<bool>,
    pub progress: watch::Receiver<Progress>,
}

impl Running {
    /// Starts the adapter of a document.
    pub fn start(dir: &Path, yaml: &str, broker: &FakeBroker) -> Self {
        Self::start_with(dir, yaml, broker, |_| {})
    }

    pub fn start_with(dir: &Path, yaml: &str, broker: &FakeBroker, change: impl FnOnce(&mut RunConfig)) -> Self {
        let connector = concordat_adapters::parse(yaml).unwrap();
        let source = connector.open(dir).unwrap();
        let mut config = RunConfig::of(connector.common());
        change(&mut config);
        let client = BrokerClient::new(&broker.url, TOKEN).unwrap();
        let mut dead = DeadLetters::open(dir, &config.adapter).unwrap();
        let (stop, stopping) = watch::channel(false);
        let (tell, progress) = watch::channel(Progress::default());
        let task = tokio::spawn(async move {
            run(source, &client, &mut dead, &config, stopping, |p| drop(tell.send_replace(p.clone()))).await
        });
        Self { task, stop, progress }
    }

    /// Asks it to stop, and waits for that.
    pub async fn stop(self) -> Progress {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it does not stop").unwrap().unwrap()
    }

    /// Ends it as a crash would.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// The error it ends with by itself.
    pub async fn error(self) -> AdapterError {
        tokio::time::timeout(DEADLINE, self.task).await.expect("it does not end").unwrap().unwrap_err()
    }
}

pub async fn broker() -> FakeBroker {
    FakeBroker::start(|_, _| Act::Serve).await
}

pub fn count(broker: &FakeBroker) -> usize {
    broker.kept.lock().unwrap().events.len()
}

/// A field of every event the broker has, in order.
pub fn fields(broker: &FakeBroker, name: &str) -> Vec<String> {
    let kept = broker.kept.lock().unwrap();
    assert_eq!(kept.broken_rules, Vec::<String>::new());
    kept.events.iter().map(|e| e["data"][name].to_string().trim_matches('"').to_owned()).collect()
}
