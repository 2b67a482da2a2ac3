//! Where the time of a strict query goes, from the metrics of the consumer's gateway and of the provider's executor.

use super::city::City;
use super::failed::BenchError;
use super::http::Connection;
use super::report::Results;
use concordat_broker::config::RpcAddr;
use std::collections::BTreeMap;

/// Stages at the consumer's gateway.
const GATEWAY: &str = "concordat_query_duration_seconds_sum{stage=\"";
/// Queries that went through it.
const ASKED: &str = "concordat_query_duration_seconds_count{stage=\"total\"}";
/// Stages at the provider's executor.
const EXECUTOR: &str = "concordat_executor_stage_seconds{stage=\"";
/// Queries that it released.
const RELEASED: &str = "concordat_executor_queries";

/// Sums of both sides at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    asked: f64,
    released: f64,
    gateway: BTreeMap<String, f64>,
    executor: BTreeMap<String, f64>,
}

/// Mean milliseconds of a query by stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares {
    /// All of them, at the gateway.
    pub total: f64,
    /// Name and mean; the first five add up to the total, the others are parts of them.
    pub stages: Vec<(&'static str, f64)>,
}

impl Sums {
    /// Asks both sides.
    pub async fn now(city: &City) -> Result<Self, BenchError> {
        let mut sums = Self::default();
        for (agency, user) in [("court", "clerk"), ("police", "clerk")] {
            let (addr, _) = city.gateway(agency, user)?;
            sums.take(&page(&addr).await?, agency == "court");
        }
        Ok(sums)
    }

    fn take(&mut self, page: &str, consumer: bool) {
        for line in page.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let stage = |prefix: &str| Some(name.strip_prefix(prefix)?.strip_suffix("\"}")?.to_owned());
            match (consumer, stage(GATEWAY), stage(EXECUTOR)) {
                (true, Some(stage), _) => drop(self.gateway.insert(stage, value)),
                (false, _, Some(stage)) => drop(self.executor.insert(stage, value)),
                (true, ..) if name == ASKED => self.asked = value,
                (false, ..) if name == RELEASED => self.released = value,
                _ => {}
            }
        }
    }

    /// What was spent since `before`, a query.
    pub fn since(&self, before: &Self) -> Shares {
        let mean = |now: &BTreeMap<String, f64>, then: &BTreeMap<String, f64>, stage: &str, count: f64| {
            let at = |of: &BTreeMap<String, f64>| of.get(stage).copied().unwrap_or_default();
            if count > 0.0 { (at(now) - at(then)) * 1e3 / count } else { 0.0 }
        };
        let gateway = |stage: &str| mean(&self.gateway, &before.gateway, stage, self.asked - before.asked);
        let executor = |stage: &str| mean(&self.executor, &before.executor, stage, self.released - before.released);
        let (total, provider) = (gateway("total"), gateway("provider"));
        let (admit, prepare, store) = (executor("admit"), executor("prepare"), executor("store"));
        let (ledger, release) = (executor("order"), executor("release"));
        let stages = vec![
            ("gateway", total - provider),
            ("streams", provider - (admit + prepare + store + ledger + release)),
            ("executor", admit + prepare + store),
            ("ledger", ledger),
            ("release", release),
            ("gateway_sign", gateway("session")),
            ("gateway_verify", gateway("verify")),
            ("gateway_store", gateway("store")),
            ("executor_admit", admit),
            ("executor_prepare", prepare),
            ("executor_store", store),
        ];
        Shares { total, stages }
    }
}

impl Shares {
    /// Adds the rows `NAME_stage_*`, as ratios to the whole.
    pub fn rows(&self, name: &str, results: &mut Results) {
        let total = format!("{name}_stage_total");
        results.add(&total, self.total, "ms", None);
        for (stage, ms) in &self.stages {
            results.add(&format!("{name}_stage_{stage}"), *ms, "ms", Some(&total));
        }
    }
}

async fn page(addr: &RpcAddr) -> Result<String, BenchError> {
    let answer = Connection::new(addr).get("/metrics").await.map_err(|e| BenchError::io("the metrics", e))?;
    if answer.status != 200 {
        return Err(BenchError::refused("the metrics", String::from_utf8_lossy(&answer.body)));
    }
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COURT: &str = "# HELP concordat_query_duration_seconds Seconds
concordat_query_duration_seconds_bucket{stage=\"total\",le=\"0.1\"} 3
concordat_query_duration_seconds_sum{stage=\"session\"} 0.2
concordat_query_duration_seconds_sum{stage=\"provider\"} 6
concordat_query_duration_seconds_sum{stage=\"total\"} 8
concordat_query_duration_seconds_count{stage=\"total\"} 10
concordat_executor_queries 99
";
    const POLICE: &str = "concordat_executor_queries 20
concordat_executor_stage_seconds{stage=\"admit\"} 1
concordat_executor_stage_seconds{stage=\"prepare\"} 2
concordat_executor_stage_seconds{stage=\"order\"} 6
concordat_executor_stage_seconds{stage=\"release\"} 1
concordat_query_duration_seconds_sum{stage=\"total\"} 70
";

    #[test]
    fn the_five_stages_add_up_to_the_whole() {
        let mut sums = Sums::default();
        sums.take(COURT, true);
        sums.take(POLICE, false);
        let shares = sums.since(&Sums::default());
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let of = |name: &str| shares.stages.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!(close(shares.total, 800.0), "{shares:?}");
        assert!(
            close(of("gateway"), 200.0) && close(of("executor"), 150.0) && close(of("ledger"), 300.0),
            "{shares:?}"
        );
        assert!(close(of("streams"), 100.0) && close(of("gateway_sign"), 20.0), "{shares:?}");
        assert!(close(shares.stages.iter().take(5).map(|(_, ms)| ms).sum(), shares.total), "{shares:?}");
        assert_eq!(sums.since(&sums).total, 0.0, "nothing was asked");
    }
}
