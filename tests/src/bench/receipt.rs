//! What a final receipt of four agencies weighs, and what checking it takes.

use super::city::City;
use super::failed::BenchError;
use super::http::Connection;
use super::query::Clerk;
use super::report::{Results, percentile};
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Status, verify};
use std::time::Instant;

/// Times a receipt is checked.
const ROUNDS: usize = 101;

/// Asks one query, waits until its receipt is final, and checks it with nothing but the exported trust.
pub async fn rows(city: &City, clerk: &Clerk, key: &str, results: &mut Results) -> Result<(), BenchError> {
    let mut connection = Connection::new(clerk.addr());
    let op = clerk.operation(&mut connection, key).await?;
    let path = format!("/v1/operations/{op}/receipt?wait=30");
    let headers = format!("{}Accept: application/cbor\r\n", clerk.headers());
    let answer = connection.get_with(&path, &headers).await.map_err(|e| BenchError::io("the gateway", e))?;
    if answer.status != 200 {
        return Err(BenchError::refused("a final receipt", String::from_utf8_lossy(&answer.body)));
    }
    let trust = Trust::from_json(&city.trust().await?).map_err(|e| BenchError::refused("trust.json", e))?;
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let found = verify(&answer.body, &trust, None).map_err(|e| BenchError::refused("a receipt", e.sentence))?;
        took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        if !matches!(found.status, Status::Final) {
            return Err(BenchError::refused("a receipt", "it is provisional"));
        }
    }
    results.add("receipt_bytes", answer.body.len() as f64, "bytes", None);
    results.add("receipt_verify_ms", percentile(&took, 0.5), "ms", None);
    Ok(())
}
