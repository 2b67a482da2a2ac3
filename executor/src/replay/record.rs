//! What is recorded of a decision.

use concordat_policies::ask::Grant;
use concordat_policies::evaluate::AgreementSet;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::session::{Denied, Request};
use serde::{Deserialize, Serialize};

/// An agreement version that was in force when something was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its name.
    pub agreement: AgreementId,
    /// Its version.
    pub version: u64,
    /// Hash of its terms, hex.
    pub terms_hash: String,
    /// Hash of its policy rows, hex.
    pub rows_hash: String,
}

/// A denial as it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The reason's word.
    pub reason: String,
    /// The clause that was named, or nothing.
    pub clause: String,
}

/// A decision as the executor records it, JSON in its store. Erasing a person it names empties it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Permitted: the agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Permitted: the clause's id. Denied: the clause that is named, `AGR-2026-0142/C1`, or nothing.
    #[serde(default)]
    pub clause: String,
    /// Permitted: hash of the agreement's policy rows, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_hash: Option<String>,
    /// Permitted: how many rows were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Denied: the reason's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// Denied: the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Denied: the missing term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Denied though the terms permit it, by the state of the ledger: the reason's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// Denied: what the consumer was told instead, where the clause is in an agreement that is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
    /// Height of the newest block that was known.
    #[serde(default)]
    pub height: u64,
    /// Its tick, milliseconds.
    #[serde(default)]
    pub tick_ms: u64,
    /// Who asked.
    #[serde(default)]
    pub consumer: String,
    /// Canonical request, hex.
    #[serde(default)]
    pub request: String,
    /// The query document as it came.
    #[serde(default)]
    pub query: String,
    /// The versions that were asked.
    #[serde(default)]
    pub in_force: Vec<InForce>,
}

/// What is decided, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The request.
    pub request: &'a Request,
    /// The query document's bytes.
    pub query: &'a [u8],
    /// Who asked.
    pub consumer: &'a AgencyId,
    /// Height of the newest block.
    pub height: u64,
    /// Its tick, milliseconds.
    pub tick_ms: u64,
}

impl Record {
    /// What is known before the decision.
    #[must_use]
    pub fn of(asked: &Asked<'_>, set: &AgreementSet) -> Self {
        let in_force = set.evaluators().iter().map(|e| InForce {
            agreement: e.agreement().clone(),
            version: e.version(),
            terms_hash: hex::encode(e.terms_hash()),
            rows_hash: hex::encode(e.compiled().terms.rows_hash),
        });
        Self {
            height: asked.height,
            tick_ms: asked.tick_ms,
            consumer: asked.consumer.to_string(),
            request: hex::encode(cbor::encode(asked.request)),
            query: String::from_utf8_lossy(asked.query).into_owned(),
            in_force: in_force.collect(),
            ..Self::default()
        }
    }

    /// It was permitted.
    #[must_use]
    pub fn permitted(self, grant: &Grant, rows: u64) -> Self {
        Self {
            agreement: Some(grant.clause.agreement.clone()),
            version: Some(grant.clause.version),
            clause: grant.clause.clause.clone(),
            rows_hash: Some(hex::encode(grant.rows_hash)),
            rows: Some(rows),
            ..self
        }
    }

    /// It was denied.
    #[must_use]
    pub fn denied(self, denied: &Denied) -> Self {
        Self {
            clause: denied.clause.clone(),
            denied: Some(denied.reason.clone()),
            code: Some(denied.code),
            missing: Some(denied.missing.clone()),
            ..self
        }
    }

    /// A denial is told like this.
    #[must_use]
    pub fn told(self, denied: &Denied) -> Self {
        let (reason, clause) = (denied.reason.clone(), denied.clause.clone());
        let same = self.denied.as_deref() == Some(reason.as_str()) && self.clause == clause;
        Self { told: (!same).then_some(Told { reason, clause }), ..self }
    }

    /// The terms permit it, the state of the ledger does not.
    #[must_use]
    pub fn denied_beside(self, denied: &Denied) -> Self {
        let beside = Some(denied.reason.clone());
        Self { beside, ..self.denied(denied) }
    }

    /// The record as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
