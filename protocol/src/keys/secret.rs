//! How secrets are written to key files.

use super::{KeyError, Suite};
use zeroize::Zeroizing;

const PREFIX: &str = "concordat-secret-1";

/// One line: `concordat-secret-1:<suite>:<seed in hex>`.
pub(super) fn secret_text(suite: Suite, seed: &[u8]) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex::encode(seed));
    // Reserved at once, so that no half-written copy stays behind in freed memory.
    let mut out = Zeroizing::new(String::with_capacity(PREFIX.len() + suite.word().len() + digits.len() + 3));
    for part in [PREFIX, ":", suite.word(), ":", digits.as_str(), "\n"] {
        out.push_str(part);
    }
    out
}

/// Reads what [`secret_text`] wrote.
pub(super) fn read_secret_text(text: &str) -> Result<(Suite, Zeroizing<Vec<u8>>), KeyError> {
    let mut parts = text.trim().splitn(3, ':');
    if parts.next() != Some(PREFIX) {
        return Err(KeyError::Secret("the file does not begin with concordat-secret-1"));
    }
    let suite = parts.next().and_then(Suite::from_word).ok_or(KeyError::Secret("the suite is unknown"))?;
    let digits = parts.next().ok_or(KeyError::Secret("the seed is missing"))?;
    let mut seed = Zeroizing::new(vec![0; suite.seed_len()]);
    hex::decode_to_slice(digits, &mut seed)
        .map_err(|_| KeyError::Secret("the seed has a wrong length or is not hex"))?;
    Ok((suite, seed))
}
