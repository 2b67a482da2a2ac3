//! The receipt verifier for a browser: bytes in, one JSON text out. No clock, network, files or randomness; the page around
//! it (`page/`) only shows what is answered here.
//!
//! The page calls [`reserve`] for each input, writes the bytes there, calls [`judge`], and reads the answer where it lies.
#![allow(
    unsafe_code,
    reason = "functions that JavaScript calls by name, and memory that it writes, cannot be had without"
)]

use concordat_protocol::keys::{KeyError, self_test};
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Invalid, verify, verify_access};
use serde_json::{Value, json};
use std::sync::{Mutex, OnceLock};

/// First byte of a list's canonical bytes: an array of ten. A receipt is an array of thirteen.
const LIST: u8 = 0x8a;

/// Evidence and trust as the page wrote them, and the last answer.
static PLACES: Mutex<[Vec<u8>; 3]> = Mutex::new([Vec::new(), Vec::new(), Vec::new()]);
const EVIDENCE: usize = 0;
const TRUST: usize = 1;
const ANSWER: usize = 2;

/// Makes room of `len` bytes for an input (0 the evidence, 1 trust.json) and says where it is. The page fills all of it before
/// the next call. Null for an unknown input.
#[unsafe(no_mangle)]
pub extern "C" fn reserve(input: usize, len: usize) -> *mut u8 {
    let (Ok(mut places), EVIDENCE..=TRUST) = (PLACES.lock(), input) else { return std::ptr::null_mut() };
    places[input] = vec![0; len];
    places[input].as_mut_ptr()
}

/// Judges what lies in the inputs. Returns the length of the answer, a JSON text in UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn judge() -> usize {
    let Ok(mut places) = PLACES.lock() else { return 0 };
    let answer = answer(&places[EVIDENCE], &places[TRUST]).to_string().into_bytes();
    places[ANSWER] = answer;
    places[ANSWER].len()
}

/// Where the last answer lies.
#[unsafe(no_mangle)]
pub extern "C" fn answer_at() -> *const u8 {
    PLACES.lock().map_or(std::ptr::null(), |places| places[ANSWER].as_ptr())
}

/// What the verifier says: as `concordat verify --output json`, with `of` (`receipt`, `list`, or `trust` where there is no
/// evidence yet) and, once trust.json holds together, its `chain` and `fingerprint`.
fn answer(evidence: &[u8], trust: &[u8]) -> Value {
    let of = match evidence.first() {
        None => "trust",
        Some(&LIST) => "list",
        Some(_) => "receipt",
    };
    let trust = tried().and_then(|()| read_trust(trust));
    let mut out = match trust.as_ref().map_err(Invalid::clone).and_then(|trust| judged(of, evidence, trust)) {
        Ok(value) => value,
        Err(e) => json!({"valid": false, "check": e.check, "detail": e.sentence}),
    };
    out["of"] = of.into();
    if let Ok(trust) = trust {
        out["chain"] = trust.chain.as_str().into();
        out["fingerprint"] = trust.fingerprint().into();
    }
    out
}

/// What every process tries at its start, once.
fn tried() -> Result<(), Invalid> {
    static TRIED: OnceLock<Result<(), Invalid>> = OnceLock::new();
    let fail = |e: KeyError| Invalid { check: "self_test", sentence: e.to_string() };
    TRIED.get_or_init(|| self_test().map_err(fail)).clone()
}

fn read_trust(bytes: &[u8]) -> Result<Trust, Invalid> {
    let refuse = |sentence: String| Invalid { check: "trust", sentence };
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("trust.json is not UTF-8".to_owned()))?;
    let trust = Trust::from_json(text).map_err(|e| refuse(e.to_string()))?;
    trust.check().map_err(|e| refuse(e.to_string()))?;
    Ok(trust)
}

fn judged(of: &str, evidence: &[u8], trust: &Trust) -> Result<Value, Invalid> {
    match of {
        "trust" => Ok(json!({"valid": true, "epochs": trust.epochs.len()})),
        "list" => verify_access(evidence, trust).map(|v| v.to_json()),
        _ => verify(evidence, trust, None).map(|v| v.to_json()),
    }
}
