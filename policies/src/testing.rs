//! Documents and asks for tests.
#![allow(clippy::unwrap_used)]

use crate::ask::Ask;
use crate::compile::compile;
use crate::duty::Capabilities;
use crate::evaluate::Evaluator;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::terms::Action;

/// 2026-06-01T00:00:00Z, inside the windows of these documents.
pub const NOW: u64 = 1_780_272_000_000;

/// A document of the demo with its validity filled in.
pub fn demo(name: &str) -> String {
    let path = format!("{}/../cli/demo/agreements/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    crate::template::fill(&text, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap()
}

/// An agreement police -> court on the stops with these clauses.
pub fn court(clauses: &str) -> String {
    named_court("AGR-1", clauses)
}

/// The same under another name.
pub fn named_court(name: &str, clauses: &str) -> String {
    format!(
        "agreement: {name}\nversion: 1\nassigner: org:police\nassignee: org:court\ntarget: ds:police/stops@1\n\
         valid: {{from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}}\n\
         approvals: {{assigner: [legal], assignee: [legal]}}\nclauses:\n{clauses}\n"
    )
}

/// The evaluator of a document.
pub fn evaluator(yaml: &str) -> Evaluator {
    Evaluator::new(compile(yaml).unwrap(), Capabilities::default()).unwrap()
}

/// A clerk's query for a pending case.
pub fn clerk() -> Ask {
    Ask {
        consumer: AgencyId::new("court").unwrap(),
        roles: ["role:clerk".to_owned()].into(),
        action: Action::Query,
        break_glass: false,
        purpose: "purp:pending-case".to_owned(),
        agreement: None,
        clause: None,
        case: Some("26-CR-1042".to_owned()),
        at_ms: NOW,
    }
}
