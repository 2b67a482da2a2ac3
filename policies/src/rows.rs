//! Policy rows: what Casbin is loaded with, and the duties beside them. Made by the compiler only; their hash is part
//! of the terms and of every operation's commitment.

use crate::document::{Agreement, Clause, Who};
use crate::filter::canonical_json;
use concordat_protocol::canon_struct;
use concordat_protocol::cbor;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::terms::Effect;

/// Clause id of the first row of every policy: a denial that matches nobody, so that no policy is ever empty.
pub const SENTINEL: &str = "C0";
/// The action under which an override (break-glass) is asked for; prohibitions of `query` hold for it too.
pub const BREAK_GLASS: &str = "break-glass";
/// Matches everything in `org`, `role` and `purp` of a row.
pub const ANY: &str = "*";

canon_struct! {
    /// One Casbin row. All values are text; times have fixed width.
    pub struct Row {
        /// Clause id.
        pub clause: String,
        /// `org:court` or `*`.
        pub org: String,
        /// `role:clerk` or `*`.
        pub role: String,
        /// `query`, ... or `break-glass`.
        pub act: String,
        /// `purp:..` or `*`.
        pub purp: String,
        /// Not before, inclusive.
        pub nb: String,
        /// Not after, exclusive.
        pub na: String,
        /// `allow` or `deny`.
        pub eft: String,
    }
}

impl Row {
    /// The values in the order of the model's policy definition.
    pub fn values(&self) -> Vec<String> {
        let Self { clause, org, role, act, purp, nb, na, eft } = self;
        [clause, org, role, act, purp, nb, na, eft].map(String::clone).to_vec()
    }

    fn sentinel() -> Self {
        let t = "1970-01-01T00:00:00.000Z";
        let text = |s: &str| s.to_owned();
        Self {
            clause: text(SENTINEL),
            org: text("org:none"),
            role: text("role:none"),
            act: text("none"),
            purp: text("purp:none"),
            nb: text(t),
            na: text(t),
            eft: text("deny"),
        }
    }
}

canon_struct! {
    /// A duty of a clause, as canonical JSON.
    pub struct DutyRow {
        /// Clause id.
        pub clause: String,
        /// The duty.
        pub json: String,
    }
}

canon_struct! {
    /// All rows of one agreement version, in a fixed order: the sentinel, then clause by clause, action by action.
    pub struct PolicyRows {
        /// Rows for Casbin.
        pub rows: Vec<Row>,
        /// Duties.
        pub duties: Vec<DutyRow>,
    }
}

impl PolicyRows {
    /// The rows of a checked document.
    pub fn of(doc: &Agreement) -> Self {
        let mut rows = vec![Row::sentinel()];
        rows.extend(doc.clauses.iter().flat_map(clause_rows));
        let duty = |c: &Clause| -> Vec<DutyRow> {
            c.duties.iter().map(|d| DutyRow { clause: c.id.clone(), json: canonical_json(&d.to_json()) }).collect()
        };
        Self { rows, duties: doc.clauses.iter().flat_map(duty).collect() }
    }

    /// `rows_hash`: SHA-256 of the canonical bytes.
    pub fn hash(&self) -> Hash {
        sha256(&[&cbor::encode(self)])
    }
}

fn clause_rows(c: &Clause) -> Vec<Row> {
    let (nb, na) = c.valid.texts();
    let (org, role) = match &c.who {
        Who::Any => (ANY.to_owned(), ANY.to_owned()),
        Who::Org { org, role } => (org.org(), role.clone().unwrap_or_else(|| ANY.to_owned())),
    };
    let mut acts: Vec<&str> = Vec::new();
    for a in &c.actions {
        if c.effect != Effect::BreakGlass {
            acts.push(a.word());
        }
        if *a == concordat_protocol::terms::Action::Query && c.effect != Effect::Permit {
            acts.push(BREAK_GLASS);
        }
    }
    let row = |act: &str| Row {
        clause: c.id.clone(),
        org: org.clone(),
        role: role.clone(),
        act: act.to_owned(),
        purp: c.purpose.clone().unwrap_or_else(|| ANY.to_owned()),
        nb: nb.clone(),
        na: na.clone(),
        eft: if c.effect == Effect::Prohibit { "deny" } else { "allow" }.to_owned(),
    };
    acts.into_iter().map(row).collect()
}
