//! The exchange manager.
