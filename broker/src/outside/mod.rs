//! What this agency shows to outside witnesses: the log in tiles with a signed note, and checkpoints to time-stamp
//! authorities. `docs/outside.md` says what each of them gives.

pub mod export;
pub mod http;
pub mod note_key;
pub mod timestamp;
pub mod tsp;
