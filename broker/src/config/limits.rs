//! Bounds of a node, as its `node.yaml` may set them.

use serde::{Deserialize, Serialize};

/// Bounds of what a node takes on at once; each has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeLimits {
    /// Largest body the HTTP API reads, bytes.
    pub http_body_bytes: usize,
    /// Largest sealed response the executor stores, bytes.
    pub response_bytes: usize,
    /// Most rows of one released page.
    pub page_rows: usize,
    /// Most queries a gateway has open at once.
    pub queries_in_flight: usize,
    /// How long a query may take in all, milliseconds.
    pub query_ms: u64,
    /// Requests a second that a caller of the HTTP API may send for long; adapters are not counted.
    pub requests_per_second: u32,
    /// Requests that it may send at once.
    pub request_burst: u32,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            http_body_bytes: 8_000_000,
            response_bytes: 8_000_000,
            page_rows: 1_000,
            queries_in_flight: 2_048,
            query_ms: 30_000,
            requests_per_second: 5_000,
            request_burst: 10_000,
        }
    }
}
