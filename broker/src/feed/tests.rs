//! Tests of the consumer's checks: see `host::feed::tests` for the provider's half.
