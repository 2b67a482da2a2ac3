//! What a next version would do with the requests of the past: each recorded request is decided again.

use crate::ask::{Ask, Decision};
use crate::duty::SignIn;
use crate::evaluate::AgreementSet;
use crate::time::utc_ms;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::terms::Action;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// A request as a file of recorded ones has it, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The dataset; left out: the agreement's.
    #[serde(default)]
    pub dataset: Option<DatasetId>,
    /// The agency that asked: `court` or `org:court`; left out: the agreement's assignee.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Roles of the person, `clerk` or `role:clerk`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// `query`, `subscribe`, ...; left out: `query`.
    #[serde(default)]
    pub action: Option<String>,
    /// Whether it was an override.
    #[serde(default)]
    pub break_glass: bool,
    /// The purpose.
    pub purpose: String,
    /// The clause relied on, `C1` or `AGR-2026-0142/C1`.
    #[serde(default)]
    pub clause: Option<String>,
    /// The case.
    #[serde(default)]
    pub case: Option<String>,
    /// When, `2026-06-01T00:00:00Z`; left out: now.
    #[serde(default)]
    pub at: Option<String>,
    /// How and when the person signed in.
    #[serde(default)]
    pub sign_in: Option<RecordedSignIn>,
    /// What was decided then. Left out: what the versions in force decide.
    #[serde(default)]
    pub recorded: Option<Outcome>,
}

/// A sign-in as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedSignIn {
    /// Its strength (`acr`).
    pub level: String,
    /// When.
    pub at: String,
}

/// What was decided, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Whether it was permitted.
    pub permitted: bool,
    /// The clause that permitted, `AGR-2026-0142/C1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clause: Option<String>,
    /// The reason of a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A recorded request that cannot be read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct RecordedError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl RecordedError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        "recorded-request"
    }
}

/// How one request fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// The line in the file.
    pub line: usize,
    /// Before.
    pub before: Outcome,
    /// With the next version.
    pub after: Outcome,
}

/// How all requests fare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Simulation {
    /// Requests decided.
    pub requests: usize,
    /// Requests of other datasets or consumers, left out.
    pub foreign: usize,
    /// Permitted before, denied after.
    pub newly_denied: usize,
    /// Denied before, permitted after.
    pub newly_permitted: usize,
    /// Permitted both times, under another clause.
    pub other_clause: usize,
    /// Denied both times, for another reason.
    pub other_reason: usize,
    /// The requests whose outcome changes, in the file's order.
    pub changed: Vec<Fate>,
    /// Denials after, by reason.
    pub denials: BTreeMap<String, usize>,
}

/// Reads a file of recorded requests, one JSON object a line; empty lines are skipped.
pub fn read(text: &str) -> Result<Vec<(usize, Recorded)>, RecordedError> {
    let lines = (1..).zip(text.lines()).filter(|(_, l)| !l.trim().is_empty());
    let parsed = lines.map(|(line, text)| {
        let recorded = serde_json::from_str(text).map_err(|e| RecordedError { line, problem: e.to_string() })?;
        Ok((line, recorded))
    });
    parsed.collect()
}

impl Recorded {
    /// The ask, with the agreement's consumer and `now_ms` where it names none. The error is what is wrong.
    pub fn ask(&self, consumer: Option<&AgencyId>, now_ms: u64) -> Result<(Ask, Option<SignIn>), String> {
        let agency = |s: &String| match s.strip_prefix("org:") {
            Some(_) => AgencyId::from_org(s),
            None => AgencyId::new(s.clone()),
        };
        let consumer = match (&self.consumer, consumer) {
            (Some(s), _) => agency(s).map_err(|e| e.to_string())?,
            (None, Some(c)) => c.clone(),
            (None, None) => {
                return Err("consumer: the agreement is for anybody, so the request must say who asks".into());
            }
        };
        let word = self.action.as_deref().unwrap_or("query");
        let action = Action::ALL.iter().find(|a| a.word() == word).copied();
        let role = |r: &String| if r.starts_with("role:") { r.clone() } else { format!("role:{r}") };
        let (agreement, clause) = match self.clause.as_deref().map(|c| c.split_once('/').ok_or(c)) {
            None => (None, None),
            Some(Err(clause)) => (None, Some(clause.to_owned())),
            Some(Ok((a, c))) => (Some(AgreementId::new(a).map_err(|e| e.to_string())?), Some(c.to_owned())),
        };
        let time = |t: &String| utc_ms(t);
        let sign_in =
            self.sign_in.as_ref().map(|s| Ok::<_, String>(SignIn { level: s.level.clone(), at_ms: utc_ms(&s.at)? }));
        let ask = Ask {
            consumer,
            roles: self.roles.iter().map(role).collect(),
            action: action.ok_or_else(|| format!("action: \"{}\" is none", crate::yaml::clip(word)))?,
            break_glass: self.break_glass,
            purpose: self.purpose.clone(),
            agreement,
            clause,
            case: self.case.clone().filter(|c| !c.is_empty()),
            at_ms: self.at.as_ref().map_or(Ok(now_ms), time)?,
        };
        Ok((ask, sign_in.transpose()?))
    }
}

impl Outcome {
    /// The outcome of a decision.
    pub fn of(decision: &Decision) -> Self {
        match decision.grant() {
            Some(g) => Self {
                permitted: true,
                clause: Some(format!("{}/{}", g.clause.agreement, g.clause.clause)),
                reason: None,
            },
            None => {
                let reason = decision.denial().map(|d| d.reason.word().to_owned());
                Self { permitted: false, clause: None, reason }
            }
        }
    }
}

/// Decides every recorded request on what is in force and on what would be. `sets` makes both for a consumer.
pub fn simulate(
    recorded: &[(usize, Recorded)],
    dataset: &DatasetId,
    consumer: Option<&AgencyId>,
    now_ms: u64,
    sets: impl Fn(&AgencyId) -> (AgreementSet, AgreementSet),
) -> Result<Simulation, RecordedError> {
    let mut all = Simulation::default();
    for (line, r) in recorded {
        let (ask, sign_in) = r.ask(consumer, now_ms).map_err(|problem| RecordedError { line: *line, problem })?;
        let other_consumer = consumer.is_some_and(|c| *c != ask.consumer);
        if r.dataset.as_ref().is_some_and(|d| d != dataset) || other_consumer {
            all.foreign += 1;
            continue;
        }
        let (now, next) = sets(&ask.consumer);
        let before = r.recorded.clone().unwrap_or_else(|| Outcome::of(&now.decide_for(&ask, sign_in.as_ref())));
        let after = Outcome::of(&next.decide_for(&ask, sign_in.as_ref()));
        all.add(*line, before, after);
    }
    Ok(all)
}

impl Simulation {
    fn add(&mut self, line: usize, before: Outcome, after: Outcome) {
        self.requests += 1;
        if let Some(reason) = &after.reason {
            *self.denials.entry(reason.clone()).or_default() += 1;
        }
        let differs = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        let counter = match (before.permitted, after.permitted) {
            (true, false) => &mut self.newly_denied,
            (false, true) => &mut self.newly_permitted,
            (true, true) if differs(&before.clause, &after.clause) => &mut self.other_clause,
            (false, false) if differs(&before.reason, &after.reason) => &mut self.other_reason,
            _ => return,
        };
        *counter += 1;
        self.changed.push(Fate { line, before, after });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{NOW, demo, evaluator};
    use std::sync::Arc;

    const LINES: &str = r#"
{"roles":["clerk"],"purpose":"purp:pending-case","case":"26-CR-1042"}
{"roles":["judge"],"purpose":"purp:pending-case","case":"26-CR-1042","consumer":"org:court"}
{"roles":["clerk"],"purpose":"purp:pending-case","case":"26-CR-1042","dataset":"ds:police/other@1"}
{"roles":["clerk"],"purpose":"purp:pending-case","case":"26-CR-1042","consumer":"grid"}
{"roles":["clerk"],"purpose":"purp:profiling","recorded":{"permitted":true,"clause":"AGR-2026-0142/C1"}}
"#;

    fn run(next: &str, lines: &str) -> Result<Simulation, RecordedError> {
        let old = Arc::new(evaluator(&demo("AGR-2026-0142")));
        let new = Arc::new(evaluator(next));
        let (dataset, court) = (DatasetId::new("ds:police/stops@1").unwrap(), AgencyId::new("court").unwrap());
        let set = |e: &Arc<crate::evaluate::Evaluator>, c: &AgencyId| {
            AgreementSet::new(dataset.clone(), c.clone(), [e.clone()])
        };
        simulate(&read(lines)?, &dataset, Some(&court), NOW, |c| (set(&old, c), set(&new, c)))
    }

    #[test]
    fn each_request_is_decided_again() {
        let next =
            demo("AGR-2026-0142").replacen("version: 1", "version: 2", 1).replacen("role:clerk", "role:judge", 1);
        let s = run(&next, LINES).unwrap();
        assert_eq!((s.requests, s.foreign, s.newly_denied, s.newly_permitted), (3, 2, 2, 1));
        let changed: Vec<_> = s.changed.iter().map(|f| (f.line, f.after.permitted)).collect();
        assert_eq!(changed, [(2, false), (3, true), (6, false)]);
        assert_eq!(s.denials.into_iter().collect::<Vec<_>>(), [("prohibited".to_owned(), 1), ("role".to_owned(), 1)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (lines, says) in [
            ("{}", "purpose"),
            ("\n{\"purpose\":\"purp:x\",\"rolls\":[]}", "rolls"),
            ("{\"purpose\":\"purp:x\",\"action\":\"look\"}", "look"),
            ("{\"purpose\":\"purp:x\",\"at\":\"today\"}", "today"),
        ] {
            let e = run(&demo("AGR-2026-0142"), lines).unwrap_err();
            assert!(e.to_string().contains(says) && e.line == lines.lines().count(), "{e}");
        }
    }
}
