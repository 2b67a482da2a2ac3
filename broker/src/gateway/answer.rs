//! The answer to an application.

use super::check::ProofError;
use concordat_protocol::ids::OpRef;
use concordat_protocol::session::Content;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// A verified answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Global index of its operation.
    pub index: u64,
    /// Height.
    pub height: u64,
    /// Agreement.
    pub agreement: String,
    /// Clause.
    pub clause: String,
    /// From sending to verified, milliseconds.
    pub released_after_ms: u64,
    /// Request id.
    pub request_id: String,
    /// The rows, with the secret that lets them be checked against the receipt.
    pub content: Content,
}

/// What goes to the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// JSON.
    pub body: Vec<u8>,
    /// Whether it was given before under the same Idempotency-Key.
    pub replayed: bool,
}

impl Answer {
    /// The JSON. Rows stand in it byte for byte as the provider committed to them.
    pub fn body(&self) -> Result<Vec<u8>, ProofError> {
        let op = OpRef(self.index);
        self.with(json!({
            "operation": op.to_string(),
            "height": self.height,
            "receipt": format!("/v1/operations/{op}/receipt"),
        }))
    }

    /// The JSON of an answer whose record is promised: where it will stand is asked under `decision`.
    pub fn provisional_body(&self, due_ms: u64) -> Result<Vec<u8>, ProofError> {
        self.with(json!({
            "operation": null,
            "height": null,
            "receipt": null,
            "provisional": {"recorded_by_ms": due_ms},
            "decision": format!("/v1/decisions/{}", self.request_id),
        }))
    }

    fn with(&self, place: Value) -> Result<Vec<u8>, ProofError> {
        let mut out = b"{\"rows\":[".to_vec();
        for (i, row) in self.content.rows.iter().enumerate() {
            let is_object = row.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(row).is_ok();
            if !is_object {
                return Err(ProofError { check: "content", sentence: format!("row {i} is no JSON object") });
            }
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(row);
        }
        let mut rest = json!({
            "count": self.content.rows.len(),
            "agreement": self.agreement,
            "clause": self.clause,
            "released_after_ms": self.released_after_ms,
            "request_id": self.request_id,
            "content_secret": hex::encode(self.content.secret),
        });
        if let (Some(rest), Value::Object(place)) = (rest.as_object_mut(), place) {
            rest.extend(place);
        }
        out.extend_from_slice(b"],");
        out.extend_from_slice(&rest.to_string().as_bytes()[1..]);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(rows: &[&str]) -> Answer {
        Answer {
            index: 5821,
            height: 58,
            agreement: "AGR-2026-0142".into(),
            clause: "C1".into(),
            released_after_ms: 7,
            request_id: "r".into(),
            content: Content { secret: [3; 32], rows: rows.iter().map(|r| r.as_bytes().to_vec().into()).collect() },
        }
    }

    #[test]
    fn rows_keep_their_bytes_and_nothing_else_gets_in() {
        let rows = [r#"{"a":1.0,"b":"x"}"#, r#"{"a":2}"#];
        let body = String::from_utf8(answer(&rows).body().unwrap()).unwrap();
        assert!(body.starts_with(r#"{"rows":[{"a":1.0,"b":"x"},{"a":2}],"#), "{body}");
        let v: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((v["count"].as_u64(), v["operation"].as_str()), (Some(2), Some("op:5821")));
        assert_eq!(v["receipt"], "/v1/operations/op:5821/receipt");
        for bad in [r#"{"a":1},{"b":2}"#, "[1]", "{", r#"{"a":1}]"#] {
            assert_eq!(answer(&[bad]).body().unwrap_err().code(), "content", "{bad}");
        }
        assert!(answer(&[]).body().unwrap().starts_with(br#"{"rows":[],"#));
    }
}
