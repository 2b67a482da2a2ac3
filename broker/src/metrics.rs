//! Metrics under `concordat_`, in Prometheus's text form. No label names an actor, a subject or a case.

use crate::host::feed::FeedsStatus;
use crate::host::lead::Leading;
use crate::host::stages::StageTimes;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::node::AgreementView;
use concordat_protocol::ops::LogEntry;
use concordat_protocol::terms::{Status, Terms};
use prometheus::{
    CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Different words a label may take before the rest counts as `other`: words of other agencies are not trusted.
const WORDS_MAX: usize = 64;

/// All metrics of a broker. Cheap to clone: every request carries them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}

/// The metrics themselves, by name.
pub struct Families {
    registry: Registry,
    reasons: Mutex<BTreeSet<String>>,
    decisions: IntCounterVec,
    /// Seconds a query spends in a stage: `session`, `provider`, `verify`, `store`, `total`.
    pub query_duration: HistogramVec,
    executor_queries: IntGauge,
    executor_stage: GaugeVec,
    /// Messages taken in by dataset and result.
    pub intake_messages: IntCounterVec,
    /// Age of the newest event an adapter published, seconds.
    pub adapter_source_age: GaugeVec,
    /// Dead letters of this node's adapters by class.
    pub adapter_dead_letters: IntGaugeVec,
    /// Evidence lag of bounded deliveries by agreement, seconds.
    pub evidence_lag: GaugeVec,
    /// Limit of the evidence lag by agreement, seconds.
    pub evidence_lag_limit: GaugeVec,
    /// Messages of a subscription that were not acknowledged.
    pub subscription_pending: IntGaugeVec,
    /// Messages of feeds handed on to applications by dataset, those read again included.
    pub feed_messages: IntCounterVec,
    /// Operations that wait for the ledger.
    pub oplog_unanchored: IntGauge,
    /// Seconds from sending an operation to its commit.
    pub ledger_commit_duration: HistogramVec,
    ledger_head_age: GaugeVec,
    ledger_refused: IntCounterVec,
    /// Another batch stood where this writer's should be.
    pub sequence_conflict: IntCounter,
    agreement_expiry: IntGaugeVec,
    /// Use of a quota between 0 and 1.
    pub quota_used_ratio: GaugeVec,
    /// Overrides: queries of this agency under a break-glass clause, and such queries that this provider answered.
    pub break_glass: IntCounter,
    /// Overrides of this agency's agreements whose review is overdue.
    pub review_overdue: IntGauge,
    /// Answers that did not prove themselves, by check.
    pub proof_invalid: CounterVec,
    /// Start-up checks: 1 passed.
    pub self_test_ok: IntGaugeVec,
    /// Answers of the HTTP API by status class.
    pub http_answers: IntCounterVec,
    /// Height of the newest checkpoint.
    pub checkpoint_height: IntGauge,
    /// Height of the newest checkpoint that this agency cosigned.
    pub cosigned_height: IntGauge,
    /// 1 while this agency must not cosign: see the log.
    pub cosign_stopped: IntGauge,
    /// Disputes that this agency filed.
    pub disputes: IntCounter,
    executor_active: IntGauge,
    executor_term: IntGauge,
    /// Writes at this provider without an outcome for too long.
    pub writes_overdue: IntGauge,
}

fn put<C: Collector + Clone + 'static>(registry: &Registry, made: C) -> prometheus::Result<C> {
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

macro_rules! vector {
    ($registry:expr, $kind:ident, $name:literal, $help:literal, $labels:expr) => {
        put(&$registry, $kind::new(Opts::new(concat!("concordat_", $name), $help), $labels)?)?
    };
}

macro_rules! single {
    ($registry:expr, $kind:ident, $name:literal, $help:literal) => {
        put(&$registry, $kind::new(concat!("concordat_", $name), $help)?)?
    };
}

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
    let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
    put(registry, HistogramVec::new(HistogramOpts::new(format!("concordat_{name}"), help).buckets(buckets), labels)?)
}

impl Metrics {
    /// A registry of its own with all metrics.
    ///
    /// # Errors
    /// A name that stands twice in this file.
    pub fn new() -> prometheus::Result<Self> {
        let r = Registry::new();
        let build = vector!(r, IntGaugeVec, "build_info", "Version of this program", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self(Arc::new(Families {
            decisions: vector!(
                r,
                IntCounterVec,
                "decisions_total",
                "Requests by what was decided",
                &["action", "effect", "reason"]
            ),
            query_duration: seconds(&r, "query_duration_seconds", "Seconds of a query by stage", &["stage"])?,
            executor_queries: single!(
                r,
                IntGauge,
                "executor_queries",
                "Queries that the executor at work released under the ledger's verdict, since it started"
            ),
            executor_stage: vector!(
                r,
                GaugeVec,
                "executor_stage_seconds",
                "Seconds of all of them by stage: admit, prepare, store, order, release",
                &["stage"]
            ),
            intake_messages: vector!(
                r,
                IntCounterVec,
                "intake_messages_total",
                "Messages taken in",
                &["dataset", "result"]
            ),
            adapter_source_age: vector!(
                r,
                GaugeVec,
                "adapter_source_age_seconds",
                "Age of the newest event an adapter published",
                &["adapter"]
            ),
            adapter_dead_letters: vector!(
                r,
                IntGaugeVec,
                "adapter_dead_letters",
                "Dead letters of this node's adapters",
                &["class"]
            ),
            evidence_lag: vector!(
                r,
                GaugeVec,
                "evidence_lag_seconds",
                "Age of the oldest delivery without its record",
                &["agreement"]
            ),
            evidence_lag_limit: vector!(
                r,
                GaugeVec,
                "evidence_lag_limit_seconds",
                "The agreement's limit",
                &["agreement"]
            ),
            subscription_pending: vector!(
                r,
                IntGaugeVec,
                "subscription_pending",
                "Messages not acknowledged",
                &["subscription"]
            ),
            feed_messages: vector!(
                r,
                IntCounterVec,
                "feed_messages_total",
                "Messages of feeds handed on",
                &["dataset"]
            ),
            oplog_unanchored: single!(r, IntGauge, "oplog_unanchored", "Operations that wait for the ledger"),
            ledger_commit_duration: seconds(
                &r,
                "ledger_commit_duration_seconds",
                "Seconds from sending to commit",
                &["kind"],
            )?,
            ledger_head_age: vector!(
                r,
                GaugeVec,
                "ledger_head_age_seconds",
                "Age of the newest block at this node",
                &[]
            ),
            ledger_refused: vector!(
                r,
                IntCounterVec,
                "ledger_refused_total",
                "Own operations that the ledger refused",
                &["code"]
            ),
            sequence_conflict: single!(
                r,
                IntCounter,
                "sequence_conflict_total",
                "Batches in the place of this writer's"
            ),
            agreement_expiry: vector!(
                r,
                IntGaugeVec,
                "agreement_expiry_timestamp_seconds",
                "End of an agreement",
                &["agreement"]
            ),
            quota_used_ratio: vector!(r, GaugeVec, "quota_used_ratio", "Use of a quota", &["agreement", "clause"]),
            break_glass: single!(r, IntCounter, "break_glass_total", "Overrides asked for or answered here"),
            review_overdue: single!(r, IntGauge, "review_overdue", "Overrides whose review is overdue"),
            proof_invalid: vector!(
                r,
                CounterVec,
                "proof_invalid_total",
                "Answers that did not prove themselves",
                &["check"]
            ),
            self_test_ok: vector!(r, IntGaugeVec, "self_test_ok", "Start-up checks, 1 passed", &["check"]),
            http_answers: vector!(r, IntCounterVec, "http_answers_total", "Answers of the HTTP API", &["class"]),
            checkpoint_height: single!(r, IntGauge, "checkpoint_height", "Height of the newest checkpoint"),
            cosigned_height: single!(r, IntGauge, "cosigned_height", "Height of the newest checkpoint cosigned here"),
            cosign_stopped: single!(r, IntGauge, "cosign_stopped", "1 while this agency must not cosign"),
            disputes: single!(r, IntCounter, "disputes_total", "Disputes filed by this agency"),
            executor_active: single!(r, IntGauge, "executor_active", "1 while an executor of this node is at work"),
            executor_term: single!(
                r,
                IntGauge,
                "executor_term",
                "Term of the executor at work: grows with each one that takes over"
            ),
            writes_overdue: single!(
                r,
                IntGauge,
                "writes_overdue",
                "Writes whose intent was accepted long ago and that have no outcome"
            ),
            reasons: Mutex::default(),
            registry: r,
        })))
    }

    /// A word that came from elsewhere, as a label: at most [`WORDS_MAX`] different ones.
    fn word(&self, word: &str) -> String {
        let plain = word.len() <= 40
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        let mut known = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if plain && (known.contains(word) || known.len() < WORDS_MAX) {
            known.insert(word.to_owned());
            return word.to_owned();
        }
        "other".to_owned()
    }

    /// Counts a decision. `effect`: `permit`, `deny` or `error`.
    pub fn decision(&self, action: &str, effect: &str, reason: &str) {
        self.decisions.with_label_values(&[action, effect, &self.word(reason)]).inc();
    }

    /// Sets the age of the newest block.
    pub fn head_age(&self, seconds: f64) {
        self.ledger_head_age.with_label_values(&[] as &[&str]).set(seconds);
    }

    /// How old the deliveries without their record are at this provider. Subscriptions of one agreement share a label: the
    /// worst of them counts.
    pub fn deliveries(&self, status: &FeedsStatus) {
        let mut worst = BTreeMap::<&str, (u64, u64)>::new();
        for s in status.subscriptions.iter().filter(|s| s.max_lag_ms > 0) {
            let (lag, limit) = worst.entry(s.agreement.as_str()).or_default();
            (*lag, *limit) = ((*lag).max(s.lag_ms), (*limit).max(s.max_lag_ms));
        }
        for (agreement, (lag, limit)) in worst {
            self.evidence_lag.with_label_values(&[agreement]).set(lag as f64 / 1_000.0);
            self.evidence_lag_limit.with_label_values(&[agreement]).set(limit as f64 / 1_000.0);
        }
    }

    /// Which executor of this node is at work.
    pub fn executor(&self, leading: &Leading) {
        self.executor_active.set(i64::from(leading.is_active()));
        self.executor_term.set(i64::try_from(leading.term).unwrap_or(i64::MAX));
    }

    /// Where the time of the executor's queries went so far.
    pub fn stages(&self, times: &StageTimes) {
        self.executor_queries.set(i64::try_from(times.queries).unwrap_or(i64::MAX));
        for (stage, seconds) in &times.seconds {
            self.executor_stage.with_label_values(&[stage.as_str()]).set(*seconds);
        }
    }

    /// Sets the ends of the agreements in force: the first millisecond at which no clause holds any more.
    pub fn agreements(&self, views: &[AgreementView]) {
        self.agreement_expiry.reset();
        for view in views.iter().filter(|v| v.status == Status::Active) {
            let Ok(terms) = cbor::decode::<Terms>(&view.terms) else { continue };
            let end = terms.clauses.iter().map(|c| c.until_ms).max().unwrap_or_default();
            self.agreement_expiry.with_label_values(&[view.agreement.as_str()]).set((end / 1_000) as i64);
        }
    }

    /// Counts an own operation that the ledger refused.
    pub fn ledger_entry(&self, entry: &LogEntry) {
        if entry.verdict != Verdict::Accepted {
            self.ledger_refused.with_label_values(&[entry.code.to_string().as_str()]).inc();
        }
    }

    /// The registry, for further collectors of this process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in Prometheus's text form.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics not written");
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_the_documented_ones_and_foreign_words_stay_bounded() {
        let m = Metrics::new().unwrap();
        for i in 0..200 {
            m.decision("query", "deny", &format!("reason-{i}"));
        }
        m.decision("query", "deny", "case 26-CR-1042");
        m.head_age(0.5);
        let text = m.text();
        assert_eq!(text.matches("concordat_decisions_total{").count(), WORDS_MAX + 1);
        assert!(!text.contains("26-CR-1042"));
        assert!(text.contains("concordat_build_info{version="));
        assert!(text.contains("concordat_ledger_head_age_seconds 0.5"));
    }
}
