//! Agreements of the tests' own: each test has its own names, so that none disturbs another.

use super::{City, SOON, until};

/// An agreement document, police to court over the stops, with one clause and a purpose of its own.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// `AGR-2026-9...`
    pub id: String,
    /// Its version.
    pub version: u64,
    /// Its purpose, `purp:...`.
    pub purpose: String,
    /// Lines added to the clause's duties.
    pub duties: Vec<String>,
}

impl Agreement {
    /// Version 1 without duties beyond the fields.
    pub fn new(id: &str, purpose: &str) -> Self {
        Self { id: id.into(), version: 1, purpose: format!("purp:{purpose}"), duties: vec![] }
    }

    /// The document.
    pub fn yaml(&self) -> String {
        let duties: String = self.duties.iter().map(|d| format!("  - {d}\n")).collect();
        format!(
            r#"agreement: {}
version: {}
paper: {{title: "Tests", sha256: "0000000000000000000000000000000000000000000000000000000000000901"}}
assigner: org:police
assignee: org:court
target: ds:police/stops@1
valid: {{from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}}
approvals: {{assigner: [legal, data-steward], assignee: [legal]}}
clauses:
- id: C1
  text: The tests may look up stops.
  effect: permit
  assignee: {{org: org:court, role: role:clerk}}
  actions: [query]
  evidence: strict
  purpose: {}
  legal_basis: "Testing the system"
  duties:
  - {{type: fields, allow: [stop_id, time, problem, citation_issued, neighborhood]}}
{duties}"#,
            self.id, self.version, self.purpose
        )
    }

    /// Puts the document into the folders of both parties, as people do who agreed on it.
    pub fn write(&self, city: &City) -> String {
        for agency in ["police", "court"] {
            let path = city.dir(agency).join(format!("agreements/{}.yaml", self.id));
            std::fs::write(&path, self.yaml()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        city.dir("police").join(format!("agreements/{}.yaml", self.id)).to_string_lossy().into_owned()
    }

    /// Writes and proposes it.
    pub fn propose(&self, city: &City) {
        let path = self.write(city);
        city.at("police", &["agreement", "propose", &path]).done();
        for agency in ["police", "court"] {
            self.reaches(city, agency, "proposed");
        }
    }

    /// Brings it into force by the command line: each role with its own key.
    pub fn activate(&self, city: &City) {
        self.propose(city);
        for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
            city.at(agency, &["agreement", "approve", &self.id, "--role", role]).done();
        }
        for agency in ["police", "court"] {
            self.reaches(city, agency, "active");
        }
    }

    /// Waits until a node shows this version in a state.
    pub fn reaches(&self, city: &City, agency: &str, status: &str) {
        let api = city.api(agency, "operator");
        until(&format!("{} version {} is {status} at {agency}", self.id, self.version), SOON, || {
            let answer = api.get(&format!("/v1/agreements/{}", self.id));
            let versions = answer.body["versions"].as_array().cloned().unwrap_or_default();
            let own = versions.into_iter().find(|v| v["version"] == self.version).unwrap_or_default();
            if own["status"] == status { Ok(()) } else { Err(format!("{}", own["status"])) }
        });
    }
}
