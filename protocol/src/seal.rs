//! Sealing (PROTOCOL 8).
