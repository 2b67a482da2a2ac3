//! What tells the checkpoints of one process from those of others.

/// Eight bytes that no other run has.
pub(crate) fn run_id() -> [u8; 8] {
    let text = format!("{} {}", jiff::Timestamp::now().as_nanosecond(), std::process::id());
    let hash = concordat_protocol::hash::sha256(&[text.as_bytes()]);
    let mut id = [0; 8];
    id.iter_mut().zip(hash).for_each(|(a, b)| *a = b);
    id
}
