//! `feed stats`: what this agency publishes, and what it delivers to whom.

use super::Ctx;
use crate::failure::{Exit, Failure};
use crate::output::{Format, table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Heads of datasets by name.
type Heads = BTreeMap<String, u64>;

fn rows<'a>(answer: &'a Value, member: &str) -> &'a [Value] {
    answer[member].as_array().map_or(&[][..], Vec::as_slice)
}

fn heads(answer: &Value) -> Heads {
    let head = |d: &Value| Some((d["dataset"].as_str()?.to_owned(), d["head_seq"].as_u64()?));
    rows(answer, "feeds").iter().filter_map(head).collect()
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} KB", n / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", n / 1_000_000),
        _ => format!("{} GB", n / 1_000_000_000),
    }
}

/// Adds to each dataset its messages a second since `before`, where that is known.
fn with_rates(answer: &mut Value, before: Option<&(Instant, Heads)>) {
    let Some((at, heads)) = before else { return };
    let seconds = at.elapsed().as_secs_f64().max(0.001);
    for d in answer["feeds"].as_array_mut().into_iter().flatten() {
        let old = d["dataset"].as_str().and_then(|n| heads.get(n));
        if let (Some(old), Some(new)) = (old, d["head_seq"].as_u64()) {
            d["per_second"] = json!((new.saturating_sub(*old) as f64 / seconds).round());
        }
    }
}

fn word<'a>(v: &'a Value, member: &str) -> &'a str {
    v[member].as_str().unwrap_or("-")
}

/// The side that publishes.
fn published(answer: &Value) -> String {
    let mut feeds = rows(answer, "feeds").to_vec();
    for f in &mut feeds {
        let stream = &f["stream"];
        let held = stream["bytes"].as_u64().map(|n| match stream["bytes_max"].as_u64() {
            Some(max) => format!("{} of {}", bytes(n), bytes(max)),
            None => bytes(n),
        });
        f["stream"] = json!(held);
    }
    if feeds.is_empty() {
        return "this agency publishes no feed: see `concordat dataset list`".to_owned();
    }
    let columns = [
        "dataset",
        "state",
        "head_seq",
        "anchored_seq",
        "unanchored",
        "per_second",
        "adapter",
        "batch_no",
        "stream",
        "why",
    ];
    table(&feeds, &columns)
}

/// The side that delivers; an executor that does not answer is said to.
fn delivered(answer: &Value) -> String {
    let mut deliveries = rows(&answer["executor"], "subscriptions").to_vec();
    for d in &mut deliveries {
        let under = format!("{}/{}", word(d, "agreement"), word(d, "clause"));
        let lag = match (d["lag_ms"].as_u64(), d["max_lag_ms"].as_u64()) {
            (_, None | Some(0)) => "-".to_owned(),
            (lag, Some(max)) => format!("{} of {max} ms", lag.unwrap_or_default()),
        };
        (d["under"], d["lag"]) = (json!(under), json!(lag));
    }
    if answer["executor"].is_string() {
        return "deliveries: the executor does not answer".to_owned();
    }
    if deliveries.is_empty() {
        return "nothing is delivered to anyone".to_owned();
    }
    let columns = [
        "subscription",
        "consumer",
        "dataset",
        "under",
        "state",
        "last_sub_seq",
        "anchored_sub_seq",
        "unsent",
        "lag",
        "why",
    ];
    table(&deliveries, &columns)
}

/// `feed stats`
pub async fn stats(ctx: &Ctx, watch: Option<u64>) -> Result<(), Failure> {
    let api = ctx.api("operator")?;
    let mut before: Option<(Instant, Heads)> = None;
    loop {
        let mut answer = api.get("/v1/feeds").await?;
        with_rates(&mut answer, before.as_ref());
        before = Some((Instant::now(), heads(&answer)));
        ctx.out.result(&answer, || format!("{}\n\n{}", published(&answer), delivered(&answer)));
        let silent = answer["executor"].is_string();
        let Some(seconds) = watch else {
            if silent {
                let next = "the executor does not say how deliveries stand: see `concordat node status`";
                return Err(Failure::new(Exit::Partial, "executor-silent", next));
            }
            return Ok(());
        };
        if ctx.out.format == Format::Table {
            ctx.out.result(&Value::Null, String::new);
        }
        tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rates_come_from_two_looks_and_lags_stand_beside_their_bound() {
        let mut now = json!({
            "feeds": [{"dataset": "ds:grid/load@1", "head_seq": 300, "anchored_seq": 256, "unanchored": 44,
                       "stream": {"bytes": 2_500_000, "bytes_max": 20_000_000}}],
            "executor": {"subscriptions": [
                {"subscription": 5, "consumer": "transport", "agreement": "AGR-2026-0143", "clause": "F1", "lag_ms": 40, "max_lag_ms": 2000},
                {"subscription": 6, "consumer": "court", "agreement": "AGR-2026-0144", "clause": "P1", "max_lag_ms": 0},
            ]},
        });
        with_rates(&mut now, None);
        assert!(now["feeds"][0]["per_second"].is_null(), "one look has no rate");
        let at = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        with_rates(&mut now, Some(&(at, Heads::from([("ds:grid/load@1".into(), 100)]))));
        assert_eq!(now["feeds"][0]["per_second"], 20.0);
        let text = format!("{}{}", published(&now), delivered(&now));
        for part in ["40 of 2000 ms", "AGR-2026-0143/F1", "2500 KB"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
