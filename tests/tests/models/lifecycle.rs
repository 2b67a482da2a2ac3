//! The life of an agreement: two versions, approvals of three keys, suspension, resumption, revocation, rejection, and somebody
//! who sends old approvals again. A small table of the rules says what must hold; the shipped ledger says what does.

use crate::kit::{Ledger, START, act, agency, batch};
use concordat_protocol::acts::{ActBody, ApprovalKind, SessionKey};
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgreementId, DatasetId};
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::terms::{Action, ClauseTerms, Effect, Evidence, Status, Terms};
use stateright::{Checker, Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as StdHash, Hasher};
use std::sync::Arc;

const DAY: u64 = 86_400_000;
/// Who has to approve: (agency, key).
const APPROVERS: [(&str, &str); 3] = [("court", "legal"), ("police", "legal"), ("police", "steward")];
/// Acts in a life.
const DEPTH: u8 = 7;

/// The model; `readdresses` seeds the bug: an old approval counts for whatever revision there is.
struct Lifecycle {
    readdresses: bool,
}

/// What the rules say of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Word {
    Absent,
    Proposed,
    Active,
    Suspended,
    Revoked,
    Superseded,
}

impl Word {
    fn of(status: Option<Status>) -> Self {
        match status {
            None => Self::Absent,
            Some(Status::Proposed) => Self::Proposed,
            Some(Status::Active) => Self::Active,
            Some(Status::Suspended) => Self::Suspended,
            Some(Status::Revoked) => Self::Revoked,
            Some(Status::Superseded) => Self::Superseded,
            Some(Status::Rejected) => panic!("nobody rejects here"),
        }
    }
}

#[derive(Clone)]
struct Life {
    ledger: Arc<Ledger>,
    counters: BTreeMap<(&'static str, &'static str, bool), u64>,
    /// The rules' own account, by version.
    said: [Word; 2],
    /// Approvers of a version since its state last changed.
    approved: [BTreeSet<usize>; 2],
    /// Approvals that were given, to be sent again.
    kept: Vec<(usize, ActBody)>,
    left: u8,
}

impl Life {
    fn mark(&self) -> impl StdHash + PartialEq + use<> {
        (self.ledger.state.app_hash(), self.said, self.approved.clone(), self.kept.len(), self.left)
    }

    fn statuses(&self) -> [Word; 2] {
        [1, 2].map(|v| {
            let found = self.ledger.state.tables.agreements.iter().find(|((_, version), _)| *version == v);
            Word::of(found.map(|(_, row)| row.view.status))
        })
    }

    fn send(&mut self, who: &'static str, name: &'static str, body: ActBody) -> u16 {
        let counter = self.counters.entry((who, name, body.is_urgent())).or_default();
        *counter += 1;
        let (next, codes) = self.ledger.block(vec![act(who, name, *counter, body)]);
        self.ledger = Arc::new(next);
        codes[1]
    }

    fn change(&mut self, version: usize, word: Word) {
        self.said[version] = word;
        self.approved[version].clear();
    }
}

impl PartialEq for Life {
    fn eq(&self, other: &Self) -> bool {
        self.mark() == other.mark()
    }
}

impl StdHash for Life {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.mark().hash(to);
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rules {:?} ledger {:?} approved {:?}", self.said, self.statuses(), self.approved)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Propose(usize),
    /// An approver signs what the version wants now.
    Approve(usize, usize),
    /// Somebody gets an old approval signed and sent again.
    Replay(usize),
    Suspend(usize, &'static str),
    Revoke(usize, &'static str),
}

fn id() -> AgreementId {
    AgreementId::new("AGR-1").unwrap()
}

fn terms(version: u64) -> Terms {
    let clause = ClauseTerms {
        id: "C1".into(),
        effect: Effect::Permit,
        actions: Action::Query.bit(),
        purpose: [5; 32],
        evidence: Evidence::Strict {},
        from_ms: 0,
        until_ms: START + 300 * DAY,
        quota: None,
        review_ms: 0,
    };
    Terms {
        agreement: id(),
        version,
        assigner: agency("police"),
        assignee: Some(agency("court")),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        assigner_roles: vec!["data-steward".into(), "legal".into()],
        assignee_roles: vec!["legal".into()],
        clauses: vec![clause],
        yaml_hash: [version as u8; 32],
        rows_hash: [2; 32],
        text_hash: [3; 32],
        paper_hashes: vec![],
        compiler_version: 1,
    }
}

/// The terms that approval of a version replaces.
fn replaced(life: &Life, version: usize, what: ApprovalKind) -> Hash {
    let views: Vec<_> = life.ledger.state.tables.agreements.values().map(|row| row.view.clone()).collect();
    concordat_protocol::node::replaced_terms(&views, &id(), version as u64 + 1, what)
}

/// What an approver may be asked to approve in this state.
fn wanted(word: Word) -> Option<ApprovalKind> {
    match word {
        Word::Proposed => Some(ApprovalKind::Activate),
        Word::Suspended => Some(ApprovalKind::Resume),
        _ => None,
    }
}

fn in_force(word: Word) -> bool {
    matches!(word, Word::Active | Word::Suspended)
}

impl Lifecycle {
    fn approval(life: &Life, version: usize, approver: usize) -> Option<ActBody> {
        let what = wanted(life.said[version])?;
        let row = life.ledger.state.tables.agreements.get(&(id(), version as u64 + 1))?;
        let role = if APPROVERS[approver].1 == "steward" { "data-steward" } else { "legal" };
        Some(ActBody::Approve {
            agreement: id(),
            version: version as u64 + 1,
            revision: row.view.revision,
            what,
            terms_hash: terms(version as u64 + 1).hash(),
            prev_terms_hash: replaced(life, version, what),
            role: role.into(),
            expires_ms: START + DAY,
        })
    }

    /// The rules: an approval counts in its state, once an approver; with all of them the version is active, and the other
    /// one in force is superseded.
    fn count(life: &mut Life, version: usize, approver: usize) {
        life.approved[version].insert(approver);
        if life.approved[version].len() < APPROVERS.len() {
            return;
        }
        let other = 1 - version;
        if in_force(life.said[other]) {
            life.change(other, Word::Superseded);
        }
        life.change(version, Word::Active);
    }

    /// An old approval again: it counts only if nothing has changed since it was given.
    fn replay(&self, life: &mut Life, k: usize) -> Option<()> {
        let (approver, mut body) = life.kept.get(k)?.clone();
        let ActBody::Approve { version, revision, prev_terms_hash, what, .. } = &mut body else { return None };
        let (at, given) = (*version as usize - 1, *what);
        let row = life.ledger.state.tables.agreements.get(&(id(), *version))?;
        let current = row.view.revision == *revision && wanted(life.said[at]) == Some(given);
        let current = current && *prev_terms_hash == replaced(life, at, given);
        if self.readdresses {
            // The bug: whoever sends it makes it fit, and the ledger cannot know that nobody signed it for this.
            *revision = row.view.revision;
            *what = wanted(life.said[at])?;
            *prev_terms_hash = replaced(life, at, *what);
        }
        let (who, name) = APPROVERS[approver];
        life.send(who, name, body);
        if current && !life.approved[at].contains(&approver) {
            Self::count(life, at, approver);
        }
        Some(())
    }

    /// Whether the ledger accepts a query under a version's clause now.
    fn accepts(life: &Life, version: usize) -> bool {
        let handle = life.ledger.state.tables.agreements.get(&(id(), version as u64 + 1));
        let Some(handle) = handle.and_then(|row| row.view.handles.first().copied()) else { return false };
        let day = life.ledger.state.head.tick_ms / DAY;
        let op = Op::Query { handle, session: 1, n: 1, day, tags: Tags::none(), commitment: [1; 32] };
        let (after, _) = life.ledger.block(vec![batch(1, [0; 32], vec![op]).0]);
        after.entries.last().is_some_and(|e| e.verdict == Verdict::Accepted)
    }
}

impl Model for Lifecycle {
    type State = Life;
    type Action = Do;

    fn init_states(&self) -> Vec<Life> {
        let ledger = Arc::new(Ledger::genesis());
        let mut life = Life {
            ledger,
            counters: BTreeMap::new(),
            said: [Word::Absent; 2],
            approved: Default::default(),
            kept: Vec::new(),
            left: DEPTH,
        };
        let dataset = ActBody::Dataset { id: terms(1).dataset, schema_hash: [1; 32] };
        assert_eq!(life.send("police", "gateway", dataset), 0);
        let key = crate::kit::Key::of("session", concordat_protocol::keys::Suite::Ed25519).public.ed25519;
        let keys = vec![SessionKey { key: key.0.try_into().unwrap() }];
        let open = ActBody::SessionOpen { provider: agency("police"), keys, expires_ms: START + DAY };
        assert_eq!(life.send("court", "gateway", open), 0);
        // A proposal that is approved by all but one, so that deep states are near.
        assert_eq!(self.next_state(&life, Do::Propose(0)).unwrap().said[0], Word::Proposed);
        life = self.next_state(&life, Do::Propose(0)).unwrap();
        for approver in [0, 1] {
            life = self.next_state(&life, Do::Approve(0, approver)).unwrap();
        }
        vec![Life { left: DEPTH, ..life }]
    }

    fn actions(&self, life: &Life, out: &mut Vec<Do>) {
        if life.left == 0 {
            return;
        }
        for version in 0..2 {
            let word = life.said[version];
            let newest = life.said[version + 1..].iter().all(|w| *w == Word::Absent);
            if word == Word::Absent && newest {
                out.push(Do::Propose(version));
            }
            if wanted(word).is_some() {
                let fresh = (0..APPROVERS.len()).filter(|a| !life.approved[version].contains(a));
                out.extend(fresh.map(|a| Do::Approve(version, a)));
            }
            if word == Word::Active {
                out.push(Do::Suspend(version, "court"));
            }
            if in_force(word) {
                out.push(Do::Revoke(version, "police"));
            }
        }
        out.extend((0..life.kept.len()).map(Do::Replay));
    }

    fn next_state(&self, last: &Life, action: Do) -> Option<Life> {
        let mut life = last.clone();
        life.left = life.left.saturating_sub(1);
        let number = |version: usize| version as u64 + 1;
        match action {
            Do::Propose(version) => {
                let body =
                    ActBody::Propose { terms: cbor::encode(&terms(number(version))).into(), expires_ms: START + DAY };
                life.send("police", "gateway", body);
                life.change(version, Word::Proposed);
            }
            Do::Approve(version, approver) => {
                let body = Self::approval(&life, version, approver)?;
                let (who, name) = APPROVERS[approver];
                life.kept.push((approver, body.clone()));
                life.send(who, name, body);
                Self::count(&mut life, version, approver);
            }
            Do::Replay(k) => self.replay(&mut life, k)?,
            Do::Suspend(version, who) => {
                let body = ActBody::Suspend { agreement: id(), version: number(version), reason: [0; 32] };
                life.send(who, "legal", body);
                life.change(version, Word::Suspended);
            }
            Do::Revoke(version, who) => {
                let body = ActBody::Revoke { agreement: id(), version: number(version), reason: [0; 32] };
                life.send(who, "legal", body);
                life.change(version, Word::Revoked);
            }
        }
        Some(life)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the ledger holds what the rules say", |_, life: &Life| life.statuses() == life.said),
            Property::always("a query is accepted under the active version only", |_, life: &Life| {
                (0..2).all(|v| Self::accepts(life, v) == (life.said[v] == Word::Active))
            }),
            Property::sometimes("a suspended version is resumed", |_, life: &Life| {
                life.said[0] == Word::Active && life.kept.len() >= 6
            }),
            Property::sometimes("a second version supersedes the first", |_, life: &Life| {
                life.said == [Word::Superseded, Word::Active]
            }),
        ]
    }
}

/// How many states the bounded run looks at.
fn states() -> usize {
    std::env::var("CONCORDAT_MODEL_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(12_000)
}

#[test]
fn an_agreement_lives_by_its_rules() {
    let checker = Lifecycle { readdresses: false }.checker().threads(2).target_state_count(states()).spawn_bfs().join();
    for name in ["the ledger holds what the rules say", "a query is accepted under the active version only"] {
        if let Some(path) = checker.discovery(name) {
            panic!("{name}: {:?} ends in {:?}", path.clone().into_actions(), path.last_state());
        }
    }
    for name in ["a suspended version is resumed", "a second version supersedes the first"] {
        assert!(checker.discovery(name).is_some(), "{name}: not within {} states", checker.unique_state_count());
    }
    println!("{} states of an agreement", checker.unique_state_count());
}

#[test]
fn an_approval_that_revives_is_found() {
    let checker = Lifecycle { readdresses: true }.checker().threads(2).target_state_count(states()).spawn_bfs().join();
    assert!(checker.discovery("the ledger holds what the rules say").is_some());
}
