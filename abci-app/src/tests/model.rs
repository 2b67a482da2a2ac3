//! A small model of the rules beside the shipped application: random lives of an agreement, each verdict predicted.
//!
//! The model knows nothing of tables, trees or stores. That it can tell right from wrong is shown by flipping verdicts.

use std::collections::{BTreeMap, BTreeSet};

use concordat_protocol::acts::ApprovalKind;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::limits::SESSION_WINDOW;
use concordat_protocol::ops::Op;
use proptest::prelude::*;

use super::kit::{Agreement, City, DAY, approvers, terms};

#[derive(Debug, Clone)]
enum Step {
    /// A query under C1 (no quota) or Q1 (two a day).
    Query {
        quota: bool,
        n: u64,
    },
    /// Withholds the operation that was recorded so many before.
    Withhold {
        back: usize,
    },
    /// Publishes so many messages up to this one.
    Publish {
        last: u64,
        count: u64,
    },
    Suspend,
    Resume,
    Revoke,
    NextDay,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), 1u64..9).prop_map(|(quota, n)| Step::Query { quota, n }),
        2 => (any::<bool>(), 4_000u64..12_000).prop_map(|(quota, n)| Step::Query { quota, n }),
        3 => (0usize..6).prop_map(|back| Step::Withhold { back }),
        3 => (1u64..6, 0u64..4).prop_map(|(last, count)| Step::Publish { last, count }),
        2 => Just(Step::Suspend),
        2 => Just(Step::Resume),
        1 => Just(Step::NextDay),
        1 => Just(Step::Revoke),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Active,
    Suspended,
    Revoked,
}

struct Model {
    state: State,
    used: BTreeSet<u64>,
    day: u64,
    quota: BTreeMap<u64, u64>,
    /// By operation: (with quota, day) where it is an accepted query.
    queries: Vec<Option<(bool, u64)>>,
    withheld: BTreeSet<usize>,
    head: u64,
}

impl Model {
    fn query(&mut self, quota: bool, n: u64) -> u16 {
        let newest = self.used.last().copied().unwrap_or(0);
        if n + SESSION_WINDOW <= newest {
            return codes::SESSION_WINDOW;
        }
        if !self.used.insert(n) {
            return codes::REPLAY;
        }
        match self.state {
            State::Suspended => return codes::SUSPENDED,
            State::Revoked => return codes::REVOKED,
            State::Active => {}
        }
        let used = self.quota.entry(self.day).or_default();
        if quota && *used >= 2 {
            return codes::QUOTA;
        }
        *used += u64::from(quota);
        codes::OK
    }

    fn withhold(&mut self, back: usize) -> u16 {
        let Some(at) = self.queries.len().checked_sub(back + 1) else { return codes::UNKNOWN_REF };
        let Some((quota, day)) = self.queries[at] else { return codes::UNKNOWN_REF };
        if !self.withheld.insert(at) {
            return codes::REF_DONE;
        }
        if quota && let Some(used) = self.quota.get_mut(&day) {
            *used -= 1;
        }
        codes::OK
    }

    fn publish(&mut self, last: u64, count: u64) -> u16 {
        if count == 0 {
            return codes::BAD_VALUE;
        }
        if last.checked_sub(count) != Some(self.head) {
            return codes::DATASET_HEAD;
        }
        self.head = last;
        codes::OK
    }

    /// The code that the ledger must give; `None` for a step that is no operation.
    fn step(&mut self, step: &Step) -> Option<u16> {
        let code = match step {
            Step::Query { quota, n } => self.query(*quota, *n),
            Step::Withhold { back } => self.withhold(*back),
            Step::Publish { last, count } => self.publish(*last, *count),
            Step::Suspend if self.state == State::Active => {
                self.state = State::Suspended;
                return None;
            }
            Step::Resume if self.state == State::Suspended => {
                self.state = State::Active;
                return None;
            }
            Step::Revoke => {
                self.state = State::Revoked;
                return None;
            }
            Step::NextDay => {
                self.day += 1;
                self.used.clear();
                return None;
            }
            Step::Suspend | Step::Resume => return None,
        };
        let query = match step {
            Step::Query { quota, .. } if code == codes::OK => Some((*quota, self.day)),
            _ => None,
        };
        self.queries.push(query);
        Some(code)
    }
}

/// What the shipped application said of each operation.
fn run(steps: &[Step]) -> Vec<u16> {
    let (mut city, Agreement { handles, mut session }) = City::ready();
    let dataset = city.dataset("ds:police/stops@1");
    let mut written = Vec::new();
    let mut said = Vec::new();
    for step in steps {
        let op = match step {
            Step::Query { quota, n } => city.query(handles[usize::from(*quota)], session, *n),
            Step::Withhold { back } => {
                let reference = written.len().checked_sub(back + 1).map_or(u64::MAX, |at| written[at]);
                Op::Withheld { reference, commitment: [0; 32] }
            }
            Step::Publish { last, count } => Op::Publish { dataset, last_seq: *last, count: *count, root: [0; 32] },
            Step::Suspend => {
                city.suspend("court", "security");
                continue;
            }
            Step::Resume => {
                let t = terms("AGR-1", 1);
                for (who, name) in approvers(&t) {
                    city.approve(&t, [0; 32], ApprovalKind::Resume, &who, name);
                }
                continue;
            }
            Step::Revoke => {
                city.revoke("police", "legal");
                continue;
            }
            Step::NextDay => {
                city.clock.advance(DAY);
                let name = format!("day {}", city.day());
                session = city.open_session("court", "police", &name);
                continue;
            }
        };
        written.push(city.log_size());
        let (verdict, code) = city.say("police/executor", op);
        assert_eq!(verdict == Verdict::Accepted, code == codes::OK);
        said.push(code);
    }
    said
}

fn check(steps: &[Step], said: &[u16]) -> Result<(), String> {
    let mut model = Model {
        state: State::Active,
        used: BTreeSet::new(),
        day: 0,
        quota: BTreeMap::new(),
        queries: Vec::new(),
        withheld: BTreeSet::new(),
        head: 0,
    };
    let mut said = said.iter();
    for (i, step) in steps.iter().enumerate() {
        if let Some(want) = model.step(step) {
            let got = said.next().ok_or("an operation is missing")?;
            if *got != want {
                return Err(format!("step {i}, {step:?}: the ledger says {got}, the rules say {want}"));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_application_does_what_the_rules_say(steps in proptest::collection::vec(any_step(), 1..40)) {
        let said = run(&steps);
        prop_assert_eq!(check(&steps, &said), Ok(()));
        // A ledger that took one refused operation, or refused one it had to take, is found out.
        for at in 0..said.len() {
            let mut wrong = said.clone();
            wrong[at] = if wrong[at] == codes::OK { codes::REPLAY } else { codes::OK };
            prop_assert!(check(&steps, &wrong).is_err());
        }
    }
}
