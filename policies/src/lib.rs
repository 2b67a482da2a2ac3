//! Policies: the agreement document, its compiler and its evaluator.
//!
//! A YAML document ([`document`]) compiles ([`compile()`](compile::compile)) to ledger terms, Casbin rows and rendered
//! sentences. An [`evaluate::Evaluator`] decides asks on one agreement version, an [`evaluate::AgreementSet`] on all
//! that are active between two agencies for a dataset. One clause decides; prohibitions win; all else is denied, with
//! its reason.
//!
//! Before anybody signs: [`lint`], [`uniqueness`], [`diff`], [`simulate`], [`explain`], [`readers`]; [`schema`] and
//! [`templates`] help to write a document. [`view`] and [`groups`] say what duties show of a row.

pub mod ask;
pub mod capabilities;
pub mod compile;
mod conditions;
pub mod dataset;
pub mod decimal;
pub mod diff;
pub mod document;
mod document_raw;
pub mod duty;
mod duty_raw;
mod duty_text;
mod engines;
pub mod evaluate;
pub mod explain;
pub mod filter;
mod gate;
pub use gate::GateError;
mod languages;
pub mod lint;
pub mod lint_whole;
mod memo;
pub mod readers;
pub mod render;
pub mod rows;
pub mod schema;
pub mod simulate;
pub mod template;
pub mod templates;
#[cfg(test)]
mod testing;
pub mod time;
pub mod uniqueness;
pub mod view;
pub mod yaml;
