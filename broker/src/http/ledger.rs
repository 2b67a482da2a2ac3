//! `/v1/ledger`: where the own node stands, and the way in for other agencies' signed batches.

use super::body::Body;
use super::openapi::{ANYBODY, Doc, PEOPLE};
use super::{AppState, Caller, Problem, Side};
use crate::ledger::rpc::Submission;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_protocol::cbor;
use concordat_protocol::keys::{Statement, signed_bytes, verify_ed25519};
use concordat_protocol::limits::{BATCH_OPS_MAX, TX_BYTES_MAX};
use concordat_protocol::ops::{Batch, Tx};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/ledger/status", get(status)).route("/v1/ledger/batches", post(batch))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("get", "/v1/ledger/status", "Where this agency's node of the ledger stands.", PEOPLE).gives(
            200,
            "The node's head.",
            "agency:str chain:str height:int tick_ms:int app_hash:str log_size:int meta_rev:int app_version:int head_age_s:int? \
             stale:bool agencies:[any] comet:obj",
        ),
        Doc::new("post", "/v1/ledger/batches", "A signed batch of any agency.", ANYBODY)
            .takes_bytes("application/cbor", "The transaction's canonical CBOR.")
            .gives(200, "It was committed before.", "result:str last_seq:int last_hash:str")
            .gives(202, "It was handed on.", "result:str last_seq:int"),
    ]
}

async fn status(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let head = state.node.head().await?;
    let comet = state.rpc.status().await;
    let age = state.watch.now().map(|n| n.at.elapsed().as_secs());
    let stale = state.watch.fresh().is_err();
    let comet = match comet {
        Ok(c) => json!({"height": c.height, "app_hash": c.app_hash, "catching_up": c.catching_up}),
        Err(e) => json!({"error": e.to_string()}),
    };
    Ok(Json(json!({
        "agency": state.cfg.agency,
        "chain": head.chain,
        "height": head.height,
        "tick_ms": head.tick_ms,
        "app_hash": hex::encode(head.app_hash),
        "log_size": head.log_size,
        "meta_rev": head.meta_rev,
        "app_version": head.app_version,
        "head_age_s": age,
        "stale": stale,
        "agencies": state.node.agencies().await?,
        "comet": comet,
    })))
}

/// Reads a batch strictly. The signature is checked against the writer's key afterwards.
fn read_batch(chain: &str, tx: &[u8]) -> Result<(Batch, Vec<u8>, [u8; 64]), Problem> {
    let bad = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-batch", detail);
    if tx.len() > TX_BYTES_MAX {
        return Err(bad(format!("the transaction has {} bytes, at most {TX_BYTES_MAX} are allowed", tx.len())));
    }
    let decoded: Tx = cbor::decode(tx).map_err(|e| bad(format!("transaction: {e}")))?;
    let Tx::Batch { body, signature } = decoded else { return Err(bad("the transaction is no batch".into())) };
    let batch: Batch = cbor::decode(&body).map_err(|e| bad(format!("batch: {e}")))?;
    if batch.chain != chain {
        return Err(bad(format!("chain: signed for {}, this is {chain}", batch.chain)));
    }
    if batch.ops.is_empty() || batch.ops.len() > BATCH_OPS_MAX {
        return Err(bad(format!("ops: 1 to {BATCH_OPS_MAX}")));
    }
    Ok((batch, body.0, signature))
}

async fn batch(State(state): State<AppState>, Body(tx): Body) -> Result<(StatusCode, Json<Value>), Problem> {
    let (batch, body, signature) = read_batch(&state.cfg.chain, &tx)?;
    let forbidden = |code: &str, detail: String| Problem::new(StatusCode::FORBIDDEN, code, detail);
    let view = state.node.writer(&batch.writer).await?;
    let view = view.ok_or_else(|| forbidden("unknown-writer", format!("writer {} is not registered", batch.writer)))?;
    verify_ed25519(&view.key, &signed_bytes(Statement::TxBatch, &state.cfg.chain, &body), &signature)
        .map_err(|e| forbidden("bad-signature", e.to_string()))?;
    if batch.incarnation == view.incarnation && batch.last_seq() <= view.last_seq {
        // Committed already: whether it is the same is the writer's to compare.
        let known = json!({"result": "committed", "last_seq": view.last_seq, "last_hash": hex::encode(view.last_hash)});
        return Ok((StatusCode::OK, Json(known)));
    }
    match state.rpc.submit(&tx).await {
        Submission::Pending => {
            Ok((StatusCode::ACCEPTED, Json(json!({"result": "pending", "last_seq": view.last_seq}))))
        }
        Submission::Unknown(why) => {
            let p = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ledger-busy", why);
            Err(p.on(Side::Ledger).retry(true).next("send the same bytes again"))
        }
        Submission::Refused { code, text } => Err(crate::ledger::LedgerError::Refused { code, text }.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::ids::WriterId;
    use concordat_protocol::ops::Op;

    #[test]
    fn only_whole_batches_of_this_chain_are_read() {
        let batch = |chain: &str, ops| Batch {
            chain: chain.into(),
            writer: WriterId::new("grid/broker").unwrap(),
            incarnation: 1,
            first_seq: 1,
            prev: [0; 32],
            ops,
        };
        let tx = |b: &Batch| cbor::encode(&Tx::Batch { body: cbor::encode(b).into(), signature: [0; 64] });
        let op = Op::Publish { dataset: 1, last_seq: 1, count: 1, root: [1; 32] };
        let good = tx(&batch("city", vec![op.clone()]));
        assert!(read_batch("city", &good).is_ok());
        let mut longer = good.clone();
        longer.push(0);
        let bad = [
            longer,
            good[..good.len() - 1].to_vec(),
            tx(&batch("town", vec![op])),
            tx(&batch("city", vec![])),
            cbor::encode(&Tx::Tick { ms: 1 }),
            vec![0; TX_BYTES_MAX + 1],
        ];
        for tx in bad {
            assert_eq!(read_batch("city", &tx).unwrap_err().code, "bad-batch");
        }
    }
}
