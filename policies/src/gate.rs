//! Casbin, held so that it cannot fail open.
//!
//! Casbin 2.20 allows everything on an empty policy with empty values, ignores an effect written `Deny`, ignores rows
//! of an unknown section, keeps the first of two equal rows, and panics inside some matchers. So: rows come from our
//! compiler only and are counted and compared after loading; a sentinel row keeps the policy from being empty; the
//! matcher knows equality, order on fixed-width times and one total function of our own; empty and over-long values are
//! refused before they reach it; a panic or an error is never an allow.

use crate::rows::{PolicyRows, SENTINEL};
use casbin::function_map::OperatorFunction;
use casbin::rhai::Dynamic;
use casbin::{CoreApi, DefaultModel, EnforceContext, Enforcer, Model, NullAdapter};
use futures::FutureExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use thiserror::Error;

/// The model. `r.clause` names the clause that is relied on, so that one clause decides; a denial needs no name.
const REQUEST: &str = "clause, org, user, act, purp, t";
const POLICY: &str = "clause, org, role, act, purp, nb, na, eft";
const EFFECT: &str = "some(where (p.eft == allow)) && !some(where (p.eft == deny))";
const NO_DENIAL: &str = "!some(where (p.eft == deny))";
const MATCHER: &str = "(p.eft == \"deny\" || r.clause == p.clause) && r.act == p.act \
    && (p.org == \"*\" || r.org == p.org) && (p.purp == \"*\" || r.purp == p.purp) \
    && r.t >= p.nb && r.t < p.na && (p.role == \"*\" || holds(r.user, p.role))";
/// Longest value of a request, bytes.
const VALUE_BYTES_MAX: usize = 2_048;
/// Separates the roles in `r.user`; no role name has it.
pub(crate) const ROLE_SEPARATOR: char = '|';
/// Relied on when only denials are asked for; no clause has this id.
const NO_CLAUSE: &str = "-";

/// Why a policy was not loaded or an ask not evaluated; always a denial.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GateError {
    /// The rows are not what our compiler makes.
    #[error("policy rows: {0}: recompile the agreement document")]
    Rows(String),
    /// Casbin refused the model or a row, or failed.
    #[error("policy engine: {0}: denied; report this")]
    Engine(String),
    /// The ask has an empty or over-long value.
    #[error("ask: the value of {0} is empty or too long")]
    Value(&'static str),
}

impl GateError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rows(_) => "policy-rows",
            Self::Engine(_) => "policy-engine",
            Self::Value(_) => "policy-ask",
        }
    }
}

/// What is asked of Casbin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probe {
    /// The clause relied on; `None` asks only whether a prohibition matches.
    pub clause: Option<String>,
    /// `org:court`.
    pub org: String,
    /// Roles joined by [`ROLE_SEPARATOR`], which also stands first and last.
    pub user: String,
    /// Action word.
    pub act: String,
    /// Purpose.
    pub purp: String,
    /// Fixed-width time.
    pub t: String,
}

/// One immutable Casbin enforcer over the rows of one agreement version.
pub(crate) struct Gate {
    enforcer: Enforcer,
}

/// Whether a joined list of roles holds one. Total: other types than text hold nothing.
fn holds(user: Dynamic, role: Dynamic) -> Dynamic {
    let both = user.into_immutable_string().ok().zip(role.into_immutable_string().ok());
    let held = |u: &str, r: &str| {
        let list = u.strip_prefix(ROLE_SEPARATOR).and_then(|u| u.strip_suffix(ROLE_SEPARATOR));
        list.is_some_and(|l| !r.is_empty() && l.split(ROLE_SEPARATOR).any(|x| x == r))
    };
    both.is_some_and(|(u, r)| held(&u, &r)).into()
}

fn engine(e: impl std::fmt::Display) -> GateError {
    GateError::Engine(crate::yaml::clip(&e.to_string()))
}

/// Rules every row keeps, whoever hands it over.
fn check_rows(rows: &[Vec<String>]) -> Result<(), GateError> {
    let bad = |why: &str| Err(GateError::Rows(why.to_owned()));
    if rows.first().is_none_or(|r| r.first().map(String::as_str) != Some(SENTINEL)) {
        return bad("the first row is not the sentinel");
    }
    for r in rows {
        let [_, _, _, _, _, nb, na, eft] = r.as_slice() else { return bad("a row has not 8 values") };
        if r.iter().any(|v| v.is_empty() || v.len() > VALUE_BYTES_MAX) {
            return bad("a row has an empty or over-long value");
        }
        if eft != "allow" && eft != "deny" {
            return bad("an effect is neither allow nor deny");
        }
        if nb.len() != 24 || na.len() != 24 {
            return bad("a time has not the fixed width");
        }
    }
    Ok(())
}

impl Gate {
    /// Loads the rows, counts and compares what was loaded, and tries that it denies.
    pub(crate) fn new(rows: &PolicyRows) -> Result<Self, GateError> {
        let rows: Vec<Vec<String>> = rows.rows.iter().map(crate::rows::Row::values).collect();
        check_rows(&rows)?;
        let mut model = DefaultModel::default();
        for (section, key, value) in
            [("r", "r", REQUEST), ("p", "p", POLICY), ("e", "e", EFFECT), ("e", "e2", NO_DENIAL), ("m", "m", MATCHER)]
        {
            if !model.add_def(section, key, value) {
                return Err(engine(format!("the model's {key} was not taken")));
            }
        }
        for r in &rows {
            model.add_policy("p", "p", r.clone());
        }
        if model.get_policy("p", "p") != rows {
            return Err(GateError::Rows("what was loaded is not what was given (a row stands twice?)".to_owned()));
        }
        // Building reads nothing from outside, so the future is ready at once.
        let built = catch_unwind(AssertUnwindSafe(|| Enforcer::new_raw(model, NullAdapter).now_or_never()));
        let mut enforcer = match built {
            Ok(Some(Ok(e))) => e,
            Ok(Some(Err(e))) => return Err(engine(e)),
            Ok(None) | Err(_) => return Err(engine("it did not start")),
        };
        enforcer.add_function("holds", OperatorFunction::Arg2(holds));
        let gate = Self { enforcer };
        gate.self_test()?;
        Ok(gate)
    }

    fn self_test(&self) -> Result<(), GateError> {
        let text = |s: &str| s.to_owned();
        let (org, user, act, purp) = (text("org:none"), text("|role:none|"), text("none"), text("purp:none"));
        let t = text("1970-01-01T00:00:00.000Z");
        let probe = Probe { clause: Some(text(SENTINEL)), org, user, act, purp, t };
        match (self.allows(&probe), self.prohibits(&Probe { clause: None, ..probe })) {
            (Ok(false), Ok(false)) => Ok(()),
            (Ok(true), _) => Err(engine("it allowed what nothing permits")),
            (Ok(false), Ok(true)) => Err(engine("it denied by a row that matches nobody")),
            (Err(e), _) | (_, Err(e)) => Err(e),
        }
    }

    /// Whether the named clause's row allows and no prohibition matches. Anything odd is an error, never `true`.
    pub(crate) fn allows(&self, p: &Probe) -> Result<bool, GateError> {
        let values = values(p)?;
        let verdict = catch_unwind(AssertUnwindSafe(|| self.enforcer.enforce(values)));
        verdict.map_err(|_| engine("it panicked"))?.map_err(engine)
    }

    /// Whether a prohibition matches. On an error the caller denies.
    pub(crate) fn prohibits(&self, p: &Probe) -> Result<bool, GateError> {
        let values = values(p)?;
        let word = |s: &str| s.to_owned();
        let context = EnforceContext { r_type: word("r"), p_type: word("p"), e_type: word("e2"), m_type: word("m") };
        let verdict = catch_unwind(AssertUnwindSafe(|| self.enforcer.enforce_with_context(context, values)));
        verdict.map_err(|_| engine("it panicked"))?.map(|free| !free).map_err(engine)
    }
}

fn values(p: &Probe) -> Result<Vec<String>, GateError> {
    let clause = p.clause.as_deref().unwrap_or(NO_CLAUSE);
    let named = [
        ("clause", clause),
        ("org", &p.org),
        ("roles", &p.user),
        ("action", &p.act),
        ("purpose", &p.purp),
        ("time", &p.t),
    ];
    if let Some((name, _)) = named.iter().find(|(_, v)| v.is_empty() || v.len() > VALUE_BYTES_MAX) {
        return Err(GateError::Value(name));
    }
    if p.t.len() != 24 {
        return Err(GateError::Value("time"));
    }
    Ok(named.iter().map(|(_, v)| (*v).to_owned()).collect())
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
