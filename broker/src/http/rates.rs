//! How many requests a caller may send: `limits.requests_per_second` and `limits.request_burst` of `node.yaml`, each
//! caller by itself. Adapters are not counted: intake has a way of its own to hold them back.

use super::problem::Problem;
use crate::config::NodeLimits;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;

/// draft-ietf-httpapi-ratelimit-headers
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Callers that are remembered before those that were quiet are forgotten.
const CALLERS: usize = 10_000;

type Limiter = RateLimiter<String, HashMapStateStore<String>, MonotonicClock, StateInformationMiddleware>;

/// The counts of all callers.
pub struct Rates {
    limiter: Limiter,
    burst: u32,
    policy: HeaderValue,
}

/// What a caller has left.
pub(super) struct Left {
    requests: u32,
    /// Until the next one, where none is left.
    wait: Duration,
}

impl Rates {
    /// Limits of zero count as one.
    pub fn new(limits: &NodeLimits) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let (rate, burst) = (at_least_one(limits.requests_per_second), at_least_one(limits.request_burst));
        let limiter = RateLimiter::hashmap_with_clock(Quota::per_second(rate).allow_burst(burst), MonotonicClock);
        let window = burst.get().div_ceil(rate.get());
        let policy = HeaderValue::from_str(&format!("\"caller\";q={burst};w={window}"));
        Self {
            limiter: limiter.with_middleware(),
            burst: burst.get(),
            policy: policy.unwrap_or_else(|_| HeaderValue::from_static("\"caller\"")),
        }
    }

    /// Counts a request of a caller; the error is what it has to wait.
    pub(super) fn count(&self, caller: &str) -> Result<Left, Left> {
        if self.limiter.len() > CALLERS {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(&caller.to_owned()) {
            Ok(state) => Ok(Left { requests: state.remaining_burst_capacity(), wait: Duration::ZERO }),
            Err(not) => Err(Left { requests: 0, wait: not.wait_time_from(MonotonicClock.now()) }),
        }
    }

    /// Says on an answer what is left.
    pub(super) fn say(&self, left: &Left, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&format!("\"caller\";r={};t={}", left.requests, left.seconds())) {
            headers.insert(LIMIT, value);
        }
        headers.insert(POLICY, self.policy.clone());
    }

    /// 429.
    pub(super) fn refuse(&self, left: &Left) -> Response {
        let seconds = left.seconds().max(1);
        let detail = format!("more than {} requests at once, or more than they are replenished", self.burst);
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", detail).retry(true);
        let mut response = problem.next(format!("wait {seconds} s; limits are in the node.yaml")).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

impl Left {
    /// Whole seconds, upwards.
    fn seconds(&self) -> u64 {
        self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_caller_has_a_burst_of_its_own() {
        let rates = Rates::new(&NodeLimits { requests_per_second: 1, request_burst: 3, ..NodeLimits::default() });
        let left: Vec<_> = (0..4).map(|_| rates.count("a").map(|l| l.requests).map_err(|l| l.seconds())).collect();
        assert_eq!(left, [Ok(2), Ok(1), Ok(0), Err(1)]);
        assert!(rates.count("b").is_ok(), "another caller is not held back");
        let response = rates.refuse(&rates.count("a").err().unwrap());
        assert_eq!((response.status().as_u16(), response.headers()[header::RETRY_AFTER].to_str().unwrap()), (429, "1"));
        let mut headers = HeaderMap::new();
        rates.say(&rates.count("c").ok().unwrap(), &mut headers);
        assert_eq!(headers[LIMIT], "\"caller\";r=2;t=0");
        assert_eq!(headers[POLICY], "\"caller\";q=3;w=3");
    }
}
