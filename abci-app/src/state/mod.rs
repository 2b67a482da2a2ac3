//! The replicated state: what all agencies' nodes compute alike from the chain alone.
//!
//! Nothing here reads a clock, uses a float, depends on map order, starts a thread or links a post-quantum library.
//! [`apply`](apply::apply) computes a block beside the committed [`State`]; [`State::merge`] takes the result in at
//! Commit, after it is durable.

pub mod acts;
pub mod agreements;
pub mod apply;
pub mod ballots;
pub mod bounded;
pub mod checkpoints;
pub mod disputes;
pub mod epochs;
pub mod genesis;
pub mod governance;
pub mod head;
pub mod history;
pub mod leaf_keys;
pub mod ops;
pub mod overlay;
pub mod role_maps;
pub mod rows;
pub mod runs;
pub mod slots;
pub mod table;
pub mod trees;

use std::collections::BTreeMap;

use concordat_protocol::cbor::{self, CborError};
use concordat_protocol::evidence::DisputeView;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, DatasetId, WriterId};
use concordat_protocol::keys::{KeyId, Signature};
use concordat_protocol::node::{KeyView, RoleMapView, StoreRoots};
use concordat_protocol::tree::Frontier;

use ballots::BallotRow;
use disputes::DoublePromise;
use epochs::{EpochRow, RootPending};
use overlay::{Changes, Overlay, Table, merge};
use rows::{
    AgencyRow, AgreementKey, AgreementRow, Counters, DatasetHead, DatasetRow, DutyKey, EquivocationRow, HandleRow,
    Head, QuotaKey, QuotaRow, SessionRow, SubKey, SubRow, WriterRow,
};
use trees::Trees;

/// The version of the rules in this crate: a block is computed alike by every node of this version.
pub const APP_VERSION: u64 = 1;

/// A row of a table as it is stored: key and value, `None` where it is removed.
pub type StoredRow = (Vec<u8>, Option<Vec<u8>>);

macro_rules! tables {
    ($($(#[$m:meta])* $id:literal $name:ident : $k:ty => $v:ty),* $(,)?) => {
        /// All tables of the committed state.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tables { $($(#[$m])* pub $name: Table<$k, $v>),* }

        /// The tables while a block is computed.
        #[derive(Debug)]
        pub struct View<'a> { $($(#[$m])* pub $name: Overlay<'a, $k, $v>),* }

        /// What a block changed in the tables.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct TableChanges { $($(#[$m])* pub $name: Changes<$k, $v>),* }

        impl<'a> View<'a> {
            /// The committed tables, unchanged so far.
            pub fn new(base: &'a Tables) -> Self {
                Self { $($name: Overlay::new(&base.$name)),* }
            }
            /// What was changed.
            pub fn into_changes(self) -> TableChanges {
                TableChanges { $($name: self.$name.into_changes()),* }
            }
        }

        impl TableChanges {
            /// The changed rows as they are stored; a key begins with its table's number.
            pub fn rows(&self) -> Vec<StoredRow> {
                let mut out = Vec::new();
                $(for (k, v) in &self.$name {
                    let mut key = vec![$id];
                    key.extend(cbor::encode(k));
                    out.push((key, v.as_ref().map(cbor::encode)));
                })*
                out
            }
        }

        impl Tables {
            /// Takes a block's changes in.
            pub fn merge(&mut self, changes: TableChanges) {
                $(merge(&mut self.$name, changes.$name);)*
            }
            /// Takes a stored row in.
            ///
            /// # Errors
            /// An unknown table or a row that is not canonical.
            pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), CborError> {
                let (table, key) = key.split_first().ok_or_else(|| CborError::rule("row key", "is empty"))?;
                match table {
                    $($id => { self.$name.insert(cbor::decode(key)?, cbor::decode(value)?); })*
                    n => return Err(CborError::rule("row key", format!("names an unknown table {n}"))),
                }
                Ok(())
            }
        }
    };
}

tables! {
    /// Agencies.
    1 agencies: AgencyId => AgencyRow,
    /// Keys of agencies.
    2 keys: KeyId => KeyView,
    /// Counters of keys that signed acts.
    3 counters: KeyId => Counters,
    /// Writers of operations.
    4 writers: WriterId => WriterRow,
    /// Datasets by name.
    5 datasets: DatasetId => DatasetRow,
    /// Published heads of datasets, by number.
    6 dataset_heads: u64 => DatasetHead,
    /// Agreement versions.
    7 agreements: AgreementKey => AgreementRow,
    /// What each handle stands for.
    8 handles: u64 => HandleRow,
    /// Sessions.
    9 sessions: u64 => SessionRow,
    /// Sessions by their key.
    10 session_keys: [u8; 32] => u64,
    /// Sessions by their end: (milliseconds, session).
    11 session_ends: (u64, u64) => u64,
    /// Use of quotas.
    12 quotas: QuotaKey => QuotaRow,
    /// Subscriptions' anchored deliveries.
    13 subscriptions: SubKey => SubRow,
    /// Reviews that are due, with their time.
    14 duties: DutyKey => u64,
    /// Parameters.
    15 params: String => u64,
    /// Proven equivocations.
    16 equivocations: (WriterId, u64) => EquivocationRow,
    /// Slots of the heads tree that may be given again.
    17 free_slots: u64 => u64,
    /// Epochs.
    30 epochs: u64 => EpochRow,
    /// Root keys' signatures on epochs; they have no leaf.
    31 epoch_votes: (u64, AgencyId) => Signature,
    /// Root keys that wait for their time.
    32 root_pending: AgencyId => RootPending,
    /// Decisions that agencies gather votes for, by the hash of their act's body.
    33 ballots: Hash => BallotRow,
    /// Heights from which an application version is needed.
    34 upgrades: u64 => u64,
    /// Disputed operations.
    35 disputes: u64 => DisputeView,
    /// Pairs of promises that exclude each other: (subscription, first number they share).
    36 double_promises: (SubKey, u64) => DoublePromise,
    /// Role maps that agencies recorded, by number.
    37 role_maps: (AgencyId, u64) => RoleMapView,
}

/// The committed state.
#[derive(Debug, Clone)]
pub struct State {
    /// Shared numbers.
    pub head: Head,
    /// Tables.
    pub tables: Tables,
    /// The right edge of the log's tree.
    pub log: Frontier,
    /// The meta and heads trees.
    pub trees: Trees,
}

impl State {
    /// The state before genesis.
    pub fn empty() -> Self {
        let head = Head {
            chain: String::new(),
            height: 0,
            tick_ms: 0,
            meta_rev: 0,
            next_session: 1,
            next_handle: 1,
            next_dataset: 1,
            slots: 0,
            runs: runs::Runs::empty(),
            checkpoints: checkpoints::Checkpoints::empty(),
        };
        Self { head, tables: Tables::default(), log: Frontier::new(), trees: Trees::default() }
    }

    /// Rebuilds the trees from rows that were loaded.
    pub fn from_rows(head: Head, tables: Tables, log: Frontier) -> Self {
        let trees = Trees::build(&head, &tables);
        Self { head, tables, log, trees }
    }

    /// The roots of the four trees.
    pub fn roots(&self) -> StoreRoots {
        StoreRoots {
            heads: self.trees.heads.root(),
            log: self.log.root(),
            meta: self.trees.meta.root(),
            runs: self.head.runs.tree().root(),
        }
    }

    /// The app hash.
    pub fn app_hash(&self) -> Hash {
        trees::app_hash(&self.roots())
    }

    /// What undoes a computed block, for proofs at earlier heights.
    pub fn undo(&self, applied: &apply::Applied) -> trees::Undo {
        self.trees.undo(&self.tables, applied)
    }

    /// Takes a computed block in.
    pub fn merge(&mut self, applied: apply::Applied) {
        self.trees.merge(applied.leaves);
        self.tables.merge(applied.changes);
        self.head = applied.head;
        self.log = applied.log;
    }

    /// The approval roles, writers and so on of one agency are few: a plain scan serves.
    pub fn keys_of<'a>(&'a self, agency: &'a AgencyId) -> impl Iterator<Item = (&'a KeyId, &'a KeyView)> {
        self.tables.keys.iter().filter(move |(_, k)| k.agency == *agency)
    }
}

/// A map by leaf key.
pub type Leaves<T> = BTreeMap<Vec<u8>, T>;
