//! Events, messages and envelopes (PROTOCOL 8).
