//! `citizens:` of `node.yaml`: how people outside the agency prove who they are, to see who looked at their records.
//!
//! They sign in at an issuer of their own (an electronic identity, say) with a token whose audience is for nothing else. A
//! claim of the token *is* the person's id in a dataset: nobody sends an id of themselves, so nobody can send another's.

use super::config::{Algorithm, OidcConfig, algorithms, skew};
use super::issuer::Verifier;
use super::role_map::{StepUp, claim};
use super::{SetupError, TokenError};
use crate::config::NodeLimits;
use crate::http::rates::Rates;
use concordat_protocol::ids::{AgencyId, DatasetId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Longest id of a person, bytes.
const ID_BYTES_MAX: usize = 128;
/// Requests a citizen may send at once; one more comes back each second.
const BURST: u32 = 30;

/// Which claim names a person in which datasets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectClaim {
    /// The claim, by name or JSON pointer; a text, equal to the value of the datasets' subject field.
    pub claim: String,
    /// Datasets of this agency whose subject field holds that id.
    pub datasets: Vec<DatasetId>,
}

/// Whose tokens are believed, and what they must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CitizensConfig {
    /// The issuer exactly as it names itself; `https`, or `http` on this machine.
    pub issuer: String,
    /// What a token's `aud` must hold; not the audience of the agency's own people.
    pub audience: String,
    /// Levels of assurance: the token's `acr` must be one of these.
    pub acr: Vec<String>,
    /// The sign-in (`auth_time`) is at most so old, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
    /// Which claim names a person in which datasets.
    pub subjects: Vec<SubjectClaim>,
    /// Algorithms that are taken.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from this one's, seconds.
    #[serde(default = "skew")]
    pub clock_skew_s: u64,
    /// Certificates (PEM) of the authority behind the issuer's TLS, where the machine does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl CitizensConfig {
    fn oidc(&self) -> OidcConfig {
        OidcConfig {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            role_map: PathBuf::new(),
            algorithms: self.algorithms.clone(),
            clock_skew_s: self.clock_skew_s,
            ca: self.ca.clone(),
        }
    }

    /// The member that breaks a rule, and the rule. `own` is how the agency's own people sign in.
    pub fn check(&self, agency: &AgencyId, own: Option<&OidcConfig>) -> Result<(), (&'static str, String)> {
        self.oidc().check().map_err(|(name, rule)| ("citizens", format!("{}: {rule}", name.replace("oidc.", ""))))?;
        if own.is_some_and(|o| o.audience == self.audience) {
            return Err(("citizens.audience", "is another than oidc.audience: a clerk's token is no citizen's".into()));
        }
        if self.acr.is_empty() || self.acr.iter().any(String::is_empty) {
            return Err(("citizens.acr", "names at least one level of assurance".into()));
        }
        let datasets: Vec<&DatasetId> = self.subjects.iter().flat_map(|s| &s.datasets).collect();
        let distinct: BTreeSet<&DatasetId> = datasets.iter().copied().collect();
        if datasets.is_empty() || self.subjects.iter().any(|s| s.claim.is_empty() || s.datasets.is_empty()) {
            return Err(("citizens.subjects", "each names a claim and at least one dataset".into()));
        }
        if distinct.len() != datasets.len() {
            return Err(("citizens.subjects", "names a dataset twice: one claim names its people".into()));
        }
        if datasets.iter().any(|d| d.owner() != *agency) {
            return Err(("citizens.subjects", "names another agency's dataset: only its provider can answer".into()));
        }
        Ok(())
    }

    fn wanted(&self) -> StepUp {
        StepUp { acr: self.acr.clone(), max_age_s: self.max_age_s }
    }

    /// Whether citizens may ask about a dataset.
    pub fn has(&self, dataset: &DatasetId) -> bool {
        self.subjects.iter().any(|s| s.datasets.contains(dataset))
    }

    /// Who verified claims speak for: strong and fresh enough a sign-in, at `now` seconds.
    fn judge(&self, subject: String, claims: &Map<String, Value>, now: u64) -> Result<Citizen, CitizenError> {
        let wanted = self.wanted();
        if !wanted.is_met(claims, now) {
            return Err(CitizenError::StepUp(wanted));
        }
        let id = |c: &SubjectClaim| {
            let id = claim(claims, &c.claim)?.as_str()?;
            let plain = (1..=ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control);
            plain.then(|| (id.to_owned(), c.datasets.clone()))
        };
        Ok(Citizen { subject, ids: self.subjects.iter().filter_map(id).collect() })
    }
}

/// Why somebody is not taken for a citizen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CitizenError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The sign-in is too weak or too old.
    #[error("this takes a stronger or fresher sign-in")]
    StepUp(StepUp),
}

/// A person who signed in. Shows nobody in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Citizen {
    /// The issuer's name of them, `sub`: what a mandate is given to.
    pub subject: String,
    ids: Vec<(String, Vec<DatasetId>)>,
}

impl std::fmt::Debug for Citizen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Citizen")
    }
}

impl Citizen {
    /// Their own id in a dataset; none where their token does not say it.
    pub fn id_in(&self, dataset: &DatasetId) -> Option<&str> {
        self.ids.iter().find(|(_, datasets)| datasets.contains(dataset)).map(|(id, _)| id.as_str())
    }
}

/// The door for citizens.
pub struct Citizens {
    /// What `node.yaml` says.
    pub cfg: CitizensConfig,
    verifier: Verifier,
    /// How much each may ask.
    pub(crate) rates: Rates,
}

impl std::fmt::Debug for Citizens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Citizens").field("cfg", &self.cfg).finish_non_exhaustive()
    }
}

impl Citizens {
    /// As `node.yaml` says. Nothing is fetched yet.
    pub fn load(cfg: &CitizensConfig, folder: &Path) -> Result<Self, SetupError> {
        let limits = NodeLimits { requests_per_second: 1, request_burst: BURST, ..NodeLimits::default() };
        Ok(Self { cfg: cfg.clone(), verifier: Verifier::new(cfg.oidc(), folder)?, rates: Rates::new(&limits) })
    }

    /// Who a token speaks for at `now`, seconds since 1970.
    pub async fn citizen(&self, token: &str, now: u64) -> Result<Citizen, CitizenError> {
        let (subject, claims) = self.verifier.claims(token, now).await?;
        self.cfg.judge(subject, &claims, now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn config() -> CitizensConfig {
        serde_json::from_value(json!({
            "issuer": "https://eid.example", "audience": "police-citizens", "acr": ["high"], "max_age_s": 900,
            "subjects": [
                {"claim": "person_no", "datasets": ["ds:police/stops@1", "ds:police/fines@1"]},
                {"claim": "/eid/tax_no", "datasets": ["ds:police/taxes@1"]}
            ]
        }))
        .unwrap()
    }

    fn ds(text: &str) -> DatasetId {
        text.parse().unwrap()
    }

    fn judged(claims: Value) -> Result<Citizen, CitizenError> {
        config().judge("eid-7".into(), claims.as_object().unwrap(), NOW)
    }

    #[test]
    fn a_claim_is_the_person_s_id_in_its_datasets_and_in_no_other() {
        let of = json!({"acr": "high", "auth_time": NOW, "person_no": "17-1", "eid": {"tax_no": "T9"}});
        let citizen = judged(of).unwrap();
        let id = |dataset: &str| citizen.id_in(&ds(dataset)).map(str::to_owned);
        assert_eq!(id("ds:police/stops@1").as_deref(), Some("17-1"));
        assert_eq!(id("ds:police/fines@1").as_deref(), Some("17-1"));
        assert_eq!(id("ds:police/taxes@1").as_deref(), Some("T9"));
        assert_eq!(id("ds:police/stops@2"), None);
        assert!(!format!("{citizen:?}").contains("17-1"), "a log that shows one shows nobody");
    }

    #[test]
    fn without_a_plain_text_in_the_claim_they_are_nobody() {
        for claim in [
            json!(null),
            json!(17),
            json!(["17-1"]),
            json!({"id": "17-1"}),
            json!(""),
            json!("17\n1"),
            json!("x".repeat(129)),
        ] {
            let citizen = judged(json!({"acr": "high", "auth_time": NOW, "person_no": claim})).unwrap();
            assert_eq!(citizen.id_in(&ds("ds:police/stops@1")), None, "{claim}");
        }
        // Names that look like the claim's.
        let citizen = judged(json!({"acr": "high", "auth_time": NOW, "Person_no": "17-1", "sub": "17-1"})).unwrap();
        assert_eq!(citizen.id_in(&ds("ds:police/stops@1")), None);
    }

    #[test]
    fn a_weak_or_an_old_sign_in_is_asked_to_come_again() {
        for (acr, at) in [
            (json!("low"), json!(NOW)),
            (json!(null), json!(NOW)),
            (json!("high"), json!(NOW - 901)),
            (json!("high"), json!(NOW + 3_600)),
            (json!("high"), json!(NOW * 1_000)),
            (json!("high"), json!(null)),
        ] {
            let refused = judged(json!({"acr": acr, "auth_time": at, "person_no": "17-1"}));
            let Err(CitizenError::StepUp(wanted)) = refused else { panic!("{acr} {at}: {refused:?}") };
            assert!(wanted.challenge().contains("acr_values=\"high\", max_age=\"900\""));
        }
        assert!(judged(json!({"acr": "high", "auth_time": NOW - 900, "person_no": "17-1"})).is_ok());
    }

    #[test]
    fn a_configuration_that_would_believe_too_much_is_refused() {
        let police: AgencyId = "police".parse().unwrap();
        let own: OidcConfig =
            serde_json::from_value(json!({"issuer": "https://eid.example", "audience": "police-staff"})).unwrap();
        assert_eq!(config().check(&police, Some(&own)), Ok(()));
        let mut shared = own.clone();
        shared.audience = "police-citizens".into();
        assert_eq!(config().check(&police, Some(&shared)).unwrap_err().0, "citizens.audience");
        let wrong = |change: fn(&mut CitizensConfig)| {
            let mut cfg = config();
            change(&mut cfg);
            cfg.check(&police, None).unwrap_err().0
        };
        assert_eq!(wrong(|c| c.acr.clear()), "citizens.acr");
        assert_eq!(wrong(|c| c.subjects.clear()), "citizens.subjects");
        assert_eq!(wrong(|c| c.subjects[1].datasets = c.subjects[0].datasets.clone()), "citizens.subjects");
        assert_eq!(wrong(|c| c.subjects[0].datasets[0] = "ds:court/register@1".parse().unwrap()), "citizens.subjects");
        assert_eq!(wrong(|c| c.issuer = "http://eid.example".into()), "citizens");
    }
}
