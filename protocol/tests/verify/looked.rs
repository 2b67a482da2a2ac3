//! A log with tagged operations, its runs, and the access lists that a provider makes of them.

use crate::comet::block;
use crate::world::{CHAIN, Spec, TICK, cosign};
use concordat_protocol::access::{
    ACCESS_VERSION, AccessEntry, AccessList, RunPart, bulk_leaf, bulk_root, days_of, subject_tag,
};
use concordat_protocol::cbor::encode;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::DatasetId;
use concordat_protocol::leaves::{COMMITMENT_NAMES, LeafSet, commitment as names};
use concordat_protocol::node::StoreRoots;
use concordat_protocol::ops::{LogEntry, Op, Tag, Tags, log_key};
use concordat_protocol::receipt::{Path, app_hash};
use concordat_protocol::runs::{BULK_TAG, RunView, entry_leaf, run_key};
use concordat_protocol::tree::{self, SortedLeaf, SortedProof};
use std::collections::BTreeMap;

const DAY_MS: u64 = 86_400_000;
const LOG_SIZE: u64 = 72;
/// The date on which sealed entries open.
pub const OPEN_BY: u64 = TICK + 90 * DAY_MS;

/// A person, by a name that their key is made of.
pub fn subject_key(name: &str) -> [u8; 32] {
    sha256(&[b"subject/", name.as_bytes()])
}

pub fn dataset() -> DatasetId {
    DatasetId::new("ds:police/stops@1").unwrap()
}

/// What an operation says of its subjects.
#[derive(Clone, Copy, PartialEq)]
pub enum About {
    /// These persons, by tags of their day.
    Named(&'static [&'static str]),
    /// More than a thousand, these persons among them.
    Many(&'static [&'static str]),
}

/// What the provider shows of it.
#[derive(Clone, Copy, PartialEq)]
pub enum Shows {
    All,
    Date,
    Nothing,
}

/// One tagged operation of the log.
#[derive(Clone)]
pub struct Planned {
    pub index: u64,
    pub tick_ms: u64,
    pub writer: &'static str,
    pub kind: fn(Common) -> Op,
    pub about: About,
    pub shows: Shows,
    /// Whether the provider has kept the tags of a bulk.
    pub provable: bool,
    pub verdict: Verdict,
    /// Days before the tick's.
    pub days_before: u64,
}

/// What all kinds of operation have.
pub struct Common {
    pub index: u64,
    pub day: u64,
    pub tags: Tags,
    pub commitment: Hash,
}

fn query(c: Common) -> Op {
    Op::Query { handle: 5, session: 7, n: c.index, day: c.day, tags: c.tags, commitment: c.commitment }
}

fn break_glass(c: Common) -> Op {
    Op::BreakGlass { handle: 6, session: 7, n: c.index, day: c.day, tags: c.tags, commitment: c.commitment }
}

fn deny(c: Common) -> Op {
    Op::Deny { handle: 5, session: 7, n: c.index, day: c.day, tags: c.tags, commitment: c.commitment }
}

fn deliver(c: Common) -> Op {
    let (last_sub_seq, root) = (c.index, sha256(&[b"feed"]));
    let rest = (c.day, c.tags, c.commitment);
    Op::Deliver {
        handle: 8,
        subscription: 41,
        last_sub_seq,
        count: 1,
        root,
        oldest_ms: TICK,
        day: rest.0,
        tags: rest.1,
        commitment: rest.2,
    }
}

fn plan(index: u64, tick_ms: u64, kind: fn(Common) -> Op, about: About) -> Planned {
    let writer = "police/executor";
    let verdict = Verdict::Accepted;
    Planned { index, tick_ms, writer, kind, about, shows: Shows::All, provable: true, verdict, days_before: 0 }
}

/// The city's log: what happened to Anna, to Ben, to many. Nobody ever looked at Clara by name.
pub fn happened() -> Vec<Planned> {
    let (anna, ben) = (About::Named(&["anna"]), About::Named(&["ben"]));
    let t = |days: u64, minutes: u64| TICK - days * DAY_MS + minutes * 60_000;
    vec![
        plan(3, t(3, 0), query, ben),
        plan(7, t(3, 5), query, About::Named(&["dora", "emil"])),
        plan(12, t(2, 0), query, anna),
        Planned { shows: Shows::Date, ..plan(15, t(2, 1), query, anna) },
        plan(18, t(2, 2), query, About::Named(&["anna", "ben", "dora"])),
        Planned { verdict: Verdict::Late, ..plan(22, t(2, 3), deliver, anna) },
        Planned { shows: Shows::Date, ..plan(26, t(2, 4), break_glass, anna) },
        Planned { shows: Shows::Nothing, ..plan(30, t(2, 5), query, anna) },
        Planned { days_before: 1, ..plan(44, t(1, 0), query, anna) },
        plan(47, t(1, 2), deny, anna),
        plan(50, t(1, 3), query, ben),
        plan(63, t(0, 1), query, ben),
    ]
}

/// Operations whose tags travel as bulk: with Anna, without her, unknown, another agency's.
pub fn in_bulk() -> Vec<Planned> {
    let t = |minutes: u64| TICK - 2 * DAY_MS + minutes * 60_000;
    let many = |index, minutes, about| plan(index, t(minutes), query, About::Many(about));
    vec![
        many(32, 7, &["anna", "ben"]),
        many(34, 8, &["ben"]),
        Planned { provable: false, shows: Shows::Nothing, ..many(36, 9, &["ben"]) },
        Planned { writer: "grid/executor", shows: Shows::Nothing, provable: false, ..many(38, 10, &[]) },
    ]
}

/// Misuse of tags: the bulk tag in a list, and a subject's tag in another agency's operation.
fn misused() -> Vec<Planned> {
    let bulk_tag = |mut c: Common| {
        if let Tags::List(tags) = &mut c.tags {
            tags[0] = BULK_TAG;
        }
        query(c)
    };
    let t = TICK - 2 * DAY_MS + 30_000;
    let copied =
        Planned { writer: "grid/executor", shows: Shows::Nothing, ..plan(14, t, query, About::Named(&["anna"])) };
    vec![plan(13, t, bulk_tag, About::Named(&["ben"])), copied]
}

/// (first index, end index, days before TICK at which it closes).
const RUNS: [(u64, u64, u64); 4] = [(0, 10, 2), (10, 40, 1), (40, 60, 0), (60, 70, 0)];

/// The log and everything under its roots.
pub struct Log {
    ops: BTreeMap<u64, (Planned, Op, LogEntry, LeafSet)>,
    leaves: Vec<Hash>,
    runs: Vec<(RunView, Vec<SortedLeaf>)>,
    pub roots: StoreRoots,
}

fn filler(label: &str, i: u64) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(&sha256(&[label.as_bytes(), &i.to_be_bytes()])[..16]);
    tag
}

fn persons(p: &Planned, day: u64) -> Vec<Tag> {
    let (About::Named(names) | About::Many(names)) = p.about;
    names.iter().map(|n| subject_tag(&subject_key(n), &dataset(), day)).collect()
}

/// All tags of a bulk, sorted.
fn bulk_tags(p: &Planned, day: u64) -> Vec<Tag> {
    let mut tags = persons(p, day);
    tags.extend((tags.len() as u64..1_500).map(|i| filler("many", p.index << 16 | i)));
    tags.sort();
    tags
}

fn tags_of(p: &Planned, day: u64) -> Tags {
    match p.about {
        About::Many(_) => {
            let tags = bulk_tags(p, day);
            Tags::Bulk { count: tags.len() as u64, root: bulk_root(&tags) }
        }
        About::Named(_) => {
            let mut tags = persons(p, day);
            let padded = if tags.len() > 1 { 4 } else { 1 };
            tags.extend((tags.len() as u64..padded).map(|i| filler("padding", p.index << 16 | i)));
            Tags::List(tags)
        }
    }
}

fn committed(p: &Planned) -> LeafSet {
    let mut fields: BTreeMap<String, Vec<u8>> = COMMITMENT_NAMES.iter().map(|n| ((*n).to_owned(), vec![])).collect();
    let text = |t: &str| t.as_bytes().to_vec();
    let open_by = if p.shows == Shows::Date { OPEN_BY.to_be_bytes().to_vec() } else { vec![] };
    let filled = [
        (names::CONSUMER, text("court")),
        (names::ACTOR, text("clerk-4711")),
        (names::CLAUSE, text("AGR-2026-0142/C1")),
        (names::PURPOSE, text("purp:pending-case")),
        (names::CASE, text(&format!("27-CR-{:04}", p.index))),
        (names::COUNT, 3u64.to_be_bytes().to_vec()),
        (names::EVIDENCE, text("strict")),
        (names::OPEN_BY, open_by),
    ];
    fields.extend(filled.map(|(n, v)| (n.to_owned(), v)));
    LeafSet::new(&sha256(&[b"access/", &p.index.to_be_bytes()]), fields).unwrap()
}

impl Log {
    pub fn new(mut planned: Vec<Planned>) -> Self {
        planned.sort_by_key(|p| p.index);
        let mut leaves: Vec<Hash> =
            (0..LOG_SIZE).map(|i| tree::value_leaf(&log_key(i), &sha256(&[&i.to_be_bytes()]))).collect();
        let mut ops = BTreeMap::new();
        for p in planned {
            let (day, set) = (p.tick_ms / DAY_MS - p.days_before, committed(&p));
            let op = (p.kind)(Common { index: p.index, day, tags: tags_of(&p, day), commitment: set.root() });
            let (height, verdict) = (2 + p.index / 8, p.verdict);
            let code = if verdict == Verdict::Late { 500 } else { 0 };
            let (writer, seq) = (p.writer.to_owned(), p.index);
            let entry =
                LogEntry { height, tick_ms: p.tick_ms, writer, incarnation: 1, seq, op_hash: op.hash(), verdict, code };
            leaves[p.index as usize] = tree::value_leaf(&log_key(p.index), &encode(&entry));
            ops.insert(p.index, (p, op, entry, set));
        }
        let runs: Vec<_> = RUNS.iter().map(|r| run(&ops, *r)).collect();
        let run_leaves: Vec<Hash> =
            runs.iter().zip(0..).map(|((view, _), n)| tree::value_leaf(&run_key(n), &encode(view))).collect();
        let roots = StoreRoots {
            heads: sha256(&[b"heads"]),
            log: tree::root(&leaves),
            meta: sha256(&[b"meta"]),
            runs: tree::root(&run_leaves),
        };
        Self { ops, leaves, runs, roots }
    }

    /// The list of a person's accesses from a run on, as their provider makes it.
    pub fn list(&self, person: &str, first_run: u64, spec: &Spec) -> AccessList {
        let key = subject_key(person);
        let run_leaves: Vec<Hash> =
            self.runs.iter().zip(0..).map(|((v, _), n)| tree::value_leaf(&run_key(n), &encode(v))).collect();
        let (mut runs, mut indexes) = (Vec::new(), std::collections::BTreeSet::new());
        for (number, (view, leaves)) in (0u64..).zip(&self.runs).skip(first_run as usize) {
            let tags = days_of(view).map(|day| subject_tag(&key, &dataset(), day)).chain([BULK_TAG]);
            let lists: Vec<_> = tags.map(|tag| SortedProof::prove(leaves, &tag).unwrap()).collect();
            for leaf in lists.iter().flat_map(|l| &l.found) {
                indexes.insert(u64::from_be_bytes(leaf.key.0[16..].try_into().unwrap()));
            }
            let hashes = tree::inclusion_path(&run_leaves, number as usize).unwrap();
            let path = Path::of(number, run_leaves.len() as u64, &hashes).unwrap();
            runs.push(RunPart { number, run: view.clone(), path, lists });
        }
        let packed = block(spec, &app_hash(&self.roots));
        AccessList {
            version: ACCESS_VERSION,
            chain: CHAIN.into(),
            dataset: dataset(),
            subject_key: key,
            roots: self.roots.clone(),
            runs,
            entries: indexes.into_iter().map(|i| self.entry(i, &key)).collect(),
            header: packed.header.into(),
            validators: packed.validators.into(),
            checkpoint: cosign(spec, &self.roots),
        }
    }

    fn entry(&self, index: u64, key: &[u8; 32]) -> AccessEntry {
        let (p, op, entry, set) = &self.ops[&index];
        let hashes = tree::inclusion_path(&self.leaves, index as usize).unwrap();
        let day = p.tick_ms / DAY_MS - p.days_before;
        let bulk = (matches!(p.about, About::Many(_)) && p.provable).then(|| {
            let leaves: Vec<SortedLeaf> = bulk_tags(p, day).iter().map(bulk_leaf).collect();
            SortedProof::prove(&leaves, &subject_tag(key, &dataset(), day)).unwrap()
        });
        let openings = match p.shows {
            Shows::All => Some(set.redact(|n| n != names::ACTOR)),
            Shows::Date => Some(set.redact(|n| n == names::OPEN_BY)),
            Shows::Nothing => None,
        };
        let sentence = if p.shows == Shows::All { "The court may look up stops in a pending case." } else { "" };
        AccessEntry {
            index,
            entry: entry.clone(),
            log_path: Path::of(index, LOG_SIZE, &hashes).unwrap(),
            op: encode(op).into(),
            openings,
            bulk,
            sentence: sentence.into(),
        }
    }
}

/// A run over the operations between two indexes.
fn run(
    ops: &BTreeMap<u64, (Planned, Op, LogEntry, LeafSet)>,
    (first, end, days): (u64, u64, u64),
) -> (RunView, Vec<SortedLeaf>) {
    let mut leaves = Vec::new();
    for (index, (_, op, ..)) in ops.range(first..end) {
        match op.tags() {
            Some(Tags::List(tags)) => leaves.extend(tags.iter().map(|t| entry_leaf(t, *index, &op.hash()))),
            _ => leaves.push(entry_leaf(&BULK_TAG, *index, &op.hash())),
        }
    }
    leaves.sort_by(|a, b| a.key.cmp(&b.key));
    let hashes: Vec<Hash> = leaves.iter().map(SortedLeaf::hash).collect();
    let to_ms = TICK - days * DAY_MS + 3_600_000;
    let from_ms = ops.range(first..end).next().map_or(to_ms, |(_, (p, ..))| p.tick_ms);
    (
        RunView {
            first_index: first,
            end_index: end,
            from_ms,
            to_ms,
            count: leaves.len() as u64,
            root: tree::root(&hashes),
        },
        leaves,
    )
}

/// A spec whose header follows everything in the log.
pub fn spec() -> Spec {
    Spec { height: 20, log_size: LOG_SIZE, ..Spec::default() }
}

/// The log without bulk, with it, and with misused tags.
pub fn logs() -> [Log; 3] {
    [happened(), [happened(), in_bulk()].concat(), [happened(), misused()].concat()].map(Log::new)
}

/// Lists that are valid, by name.
pub fn valid() -> Vec<(&'static str, AccessList)> {
    let [plain, all, odd] = logs();
    let last = || Spec { cosigners: crate::vectors::all(), ..spec() };
    let mut cut = plain.list("anna", 0, &spec());
    cut.runs.truncate(2);
    cut.entries.retain(|e| e.index < 40);
    vec![
        ("anna", plain.list("anna", 0, &spec())),
        ("anna-final", plain.list("anna", 0, &last())),
        ("nobody-looked", plain.list("clara", 0, &spec())),
        ("nobody-looked-final", plain.list("clara", 0, &last())),
        ("from-run-2", plain.list("anna", 2, &spec())),
        ("up-to-run-1", cut),
        ("bulk-anna", all.list("anna", 0, &spec())),
        ("bulk-ben", all.list("ben", 0, &spec())),
        ("bulk-final", all.list("clara", 1, &last())),
        ("misused-tags", odd.list("anna", 0, &spec())),
    ]
}
