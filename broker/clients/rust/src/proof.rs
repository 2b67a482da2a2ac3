//! Whether a receipt proves an answer: the receipt itself, then that it is of this question and of these very rows.

use crate::{Answer, Query};
use concordat_protocol::cbor::Bytes;
use concordat_protocol::session::Content;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Invalid, Verified, verify};

fn need(ok: bool, check: &'static str, sentence: impl FnOnce() -> String) -> Result<(), Invalid> {
    if ok { Ok(()) } else { Err(Invalid { check, sentence: sentence() }) }
}

/// What the receipt proves of the answer.
///
/// # Errors
/// The first check that fails: those of the verifier, then `release`, `answer`.
pub fn prove(receipt: &[u8], trust: &Trust, query: &Query, answer: &Answer) -> Result<Verified, Invalid> {
    let mut secret = [0; 32];
    let readable = hex::decode_to_slice(&answer.content_secret, &mut secret).is_ok();
    need(readable, "content_root", || "content_secret: 64 hexadecimal digits".into())?;
    let rows = answer.rows.iter().map(|r| Bytes(r.get().as_bytes().to_vec())).collect();
    let proven = verify(receipt, trust, Some(&Content { secret, rows }))?;
    need(proven.accepted(), "verdict", || "the ledger did not accept the operation".into())?;
    need(proven.released, "release", || "the receipt proves no release".into())?;
    let provider = query.dataset.trim_start_matches("ds:").split('/').next().unwrap_or_default();
    let opened = |name: &str| proven.opened.get(name).cloned().unwrap_or_default();
    for (what, said, expected) in [
        ("operation", format!("op:{}", proven.index), answer.operation.as_str()),
        ("provider", proven.provider.to_string(), provider),
        ("agreement", proven.agreement.clone().unwrap_or_default(), &answer.agreement),
        ("clause", proven.clause.clone().unwrap_or_default(), &answer.clause),
        ("purpose", opened("purpose"), &query.purpose),
        ("case", opened("case"), &query.case),
    ] {
        need(said == expected, "answer", || format!("{what}: the receipt says {said}, expected was {expected}"))?;
    }
    Ok(proven)
}
