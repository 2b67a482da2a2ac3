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
    let head = |d: &Value| Some((d["dataset"].as_str()?.to_owned(), d["head"].as_u64()?));
    rows(answer, "datasets").iter().filter_map(head).collect()
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
    for d in answer["datasets"].as_array_mut().into_iter().flatten() {
        let old = d["dataset"].as_str().and_then(|n| heads.get(n));
        if let (Some(old), Some(new)) = (old, d["head"].as_u64()) {
            d["per_second"] = json!((new.saturating_sub(*old) as f64 / seconds).round());
        }
    }
}

/// Both halves as tables.
fn shown(answer: &Value) -> String {
    let mut datasets = rows(answer, "datasets").to_vec();
    for d in &mut datasets {
        if let Some(n) = d["stream_bytes"].as_u64() {
            d["stream"] = json!(bytes(n));
        }
    }
    let mut deliveries = rows(answer, "subscriptions").to_vec();
    for d in &mut deliveries {
        let clause = |k: &str| d[k].as_str().unwrap_or("-").to_owned();
        let under = format!("{}/{}", clause("agreement"), clause("clause"));
        let lag = match (d["lag_ms"].as_u64(), d["max_lag_ms"].as_u64()) {
            (_, None | Some(0)) => "-".to_owned(),
            (lag, Some(max)) => format!("{} of {max} ms", lag.unwrap_or_default()),
        };
        (d["under"], d["lag"]) = (json!(under), json!(lag));
    }
    let mut text = match datasets.is_empty() {
        true => "this agency publishes no feed".to_owned(),
        false => table(
            &datasets,
            &["dataset", "head", "anchored", "unanchored", "per_second", "adapter", "batch_no", "stream"],
        ),
    };
    text.push_str("\n\n");
    text.push_str(&match deliveries.is_empty() {
        true => "nothing is delivered to anyone".to_owned(),
        false => table(
            &deliveries,
            &[
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
            ],
        ),
    });
    text
}

/// `feed stats`
pub async fn stats(ctx: &Ctx, watch: Option<u64>) -> Result<(), Failure> {
    let api = ctx.api("operator")?;
    let mut before: Option<(Instant, Heads)> = None;
    loop {
        let mut answer = api.get("/v1/feeds").await?;
        with_rates(&mut answer, before.as_ref());
        before = Some((Instant::now(), heads(&answer)));
        ctx.out.result(&answer, || shown(&answer));
        let missing = answer["problem"].as_str().map(str::to_owned);
        let Some(seconds) = watch else {
            return match missing {
                Some(why) => Err(Failure::new(Exit::Partial, "executor-silent", why)),
                None => Ok(()),
            };
        };
        if let Some(why) = missing {
            ctx.out.say(why);
        }
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
            "datasets": [{"dataset": "ds:grid/load@1", "head": 300, "anchored": 256, "unanchored": 44, "stream_bytes": 2_500_000}],
            "subscriptions": [
                {"subscription": 5, "consumer": "transport", "agreement": "AGR-2026-0143", "clause": "F1", "lag_ms": 40, "max_lag_ms": 2000},
                {"subscription": 6, "consumer": "court", "agreement": "AGR-2026-0144", "clause": "P1", "max_lag_ms": 0},
            ],
        });
        with_rates(&mut now, None);
        assert!(now["datasets"][0]["per_second"].is_null(), "one look has no rate");
        let at = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        with_rates(&mut now, Some(&(at, Heads::from([("ds:grid/load@1".into(), 100)]))));
        assert_eq!(now["datasets"][0]["per_second"], 20.0);
        let text = shown(&now);
        assert!(
            text.contains("40 of 2000 ms") && text.contains("AGR-2026-0143/F1") && text.contains("2500 KB"),
            "{text}"
        );
        assert!(shown(&json!({})).contains("publishes no feed"));
    }
}
