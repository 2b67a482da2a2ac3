//! Tests of redaction, promises and sealing.
