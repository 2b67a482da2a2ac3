//! Who calls: service tokens from `keys/tokens.yaml` (mode 0600), compared in constant time.
//!
//! Roles are free words that agreements name (`clerk` is `role:clerk`), but for three: `operator` may do everything under
//! `/admin` and see every query of this agency, `data-protection` may say who looked at a person's records and forget the
//! person, `adapter` may only hand in messages.

use super::AppState;
use super::problem::Problem;
use crate::people::StepUp;
use crate::people::actors::month;
use axum::http::StatusCode;
use concordat_executor::policies::duty::SignIn;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgencyId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// File of the tokens in the folder of keys.
pub const TOKENS_FILE: &str = "tokens.yaml";
/// May administer and see all of this agency's queries.
pub const OPERATOR: &str = "operator";
/// May hand in messages, and nothing else.
pub const ADAPTER: &str = "adapter";
/// Answers people about their data, and forgets them.
pub const DATA_PROTECTION: &str = "data-protection";
/// May take evidence of all of this agency's queries out, and nothing else that an operator may.
pub const AUDITOR: &str = "auditor";
/// Shortest token, characters: 32 are 128 bits in hex.
pub const TOKEN_CHARS_MIN: usize = 32;

/// `tokens.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// All tokens.
    pub tokens: Vec<TokenEntry>,
}

/// One token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Whose: shown in logs and records of this agency.
    pub name: String,
    /// What it may do.
    pub roles: Vec<String>,
    /// The secret, at least [`TOKEN_CHARS_MIN`] characters.
    pub token: String,
}

impl std::fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEntry").field("name", &self.name).field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// Why the tokens cannot be used.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("{path} cannot be read ({source}): write the tokens there, mode 0600")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("{0}: others can read it: chmod 600 it and change the tokens")]
    Mode(PathBuf),
    /// A rule is broken. No token is repeated.
    #[error("{path}: {rule}")]
    Rule {
        /// The file.
        path: PathBuf,
        /// The rule.
        rule: String,
    },
}

impl TokenError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "tokens-read",
            Self::Mode(_) => "tokens-mode",
            Self::Rule { .. } => "tokens-rule",
        }
    }
}

/// Known tokens by their hash.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Vec<(Hash, Caller)>,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token; of a person `oidc:` and the issuer's name of them.
    pub name: String,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Roles that a person would have after a stronger or fresher sign-in.
    pub after_step_up: BTreeMap<String, StepUp>,
    /// How and when a person signed in at the issuer.
    pub sign_in: Option<SignIn>,
    /// SHA-256 of the role map that made a person's roles, hexadecimal.
    pub role_map: Option<String>,
}

impl Caller {
    /// Whether the caller has this role.
    pub fn has(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// 403 unless the caller has one of these roles.
    pub fn require(&self, roles: &[&str]) -> Result<(), Problem> {
        if roles.iter().any(|r| self.has(r)) {
            return Ok(());
        }
        if let Some((role, wanted)) = self.after_step_up.iter().find(|(role, _)| roles.contains(&role.as_str())) {
            return Err(self.step_up(role, wanted));
        }
        let detail = format!("{} may not do this: it takes a token with the role {}", self.name, roles.join(" or "));
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).next("use another token of keys/tokens.yaml"))
    }

    fn step_up(&self, role: &str, wanted: &StepUp) -> Problem {
        let detail = format!("{} may do this as {role} after a stronger or fresher sign-in", self.name);
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "step-up", detail).challenge(wanted.challenge());
        problem.next("sign in again as the WWW-Authenticate header asks")
    }

    /// 403 for an adapter, and for a person to whom the role map gives no role; 401 where a stronger sign-in would give one.
    pub fn require_person(&self) -> Result<(), Problem> {
        if self.roles.iter().any(|r| r != ADAPTER) {
            return Ok(());
        }
        if let Some((role, wanted)) = self.after_step_up.iter().next() {
            return Err(self.step_up(role, wanted));
        }
        let detail = match self.is_adapter() {
            true => format!("{} is an adapter: it may only hand in messages", self.name),
            false => format!("{} has no role here: the role map gives none for these claims", self.name),
        };
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }

    /// Whether the caller is an adapter and nothing else.
    pub fn is_adapter(&self) -> bool {
        !self.roles.is_empty() && self.roles.iter().all(|r| r == ADAPTER)
    }

    /// The roles that agreements may name.
    pub fn agreement_roles(&self) -> Vec<String> {
        self.roles
            .iter()
            .filter(|r| ![OPERATOR, ADAPTER, DATA_PROTECTION, AUDITOR].contains(&r.as_str()))
            .cloned()
            .collect()
    }
}

/// The pseudonym of a caller towards a provider, of this month by the ledger's time.
pub(crate) fn pseudonym(state: &AppState, caller: &Caller, provider: &AgencyId) -> String {
    let tick_ms = state.watch.now().map_or(0, |n| n.tick_ms);
    state.actors.pseudonym(provider, &month(tick_ms), &caller.name)
}

impl Tokens {
    /// Reads `tokens.yaml`; without the file nobody is known.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let read = |source| TokenError::Read { path: path.to_owned(), source };
        let mut file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(read(e)),
        };
        if file.metadata().map_err(read)?.permissions().mode() & 0o077 != 0 {
            return Err(TokenError::Mode(path.to_owned()));
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(read)?;
        let rule = |rule: String| TokenError::Rule { path: path.to_owned(), rule };
        let file: TokenFile =
            serde_saphyr::from_str(&text).map_err(|e| rule(e.without_snippet().to_string().replace('\n', " ")))?;
        Self::new(file).map_err(rule)
    }

    /// Checks and takes tokens.
    pub fn new(file: TokenFile) -> Result<Self, String> {
        let (mut names, mut known) = (BTreeSet::new(), Vec::new());
        let word = |w: &str| {
            !w.is_empty() && w.len() <= 64 && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        for entry in file.tokens {
            let token = Zeroizing::new(entry.token);
            if !word(&entry.name) || !names.insert(entry.name.clone()) {
                return Err("tokens.name: each is named once, 1 to 64 of a-z, A-Z, 0-9, - _ and .".into());
            }
            if entry.roles.is_empty() || !entry.roles.iter().all(|r| word(r)) {
                return Err(format!(
                    "tokens.roles of {}: at least one; 1 to 64 of a-z, A-Z, 0-9, - _ and .",
                    entry.name
                ));
            }
            if token.len() < TOKEN_CHARS_MIN {
                return Err(format!("tokens.token of {}: at least {TOKEN_CHARS_MIN} characters", entry.name));
            }
            let hash = sha256(&[token.as_bytes()]);
            if known.iter().any(|(h, _)| *h == hash) {
                return Err(format!("tokens.token of {}: another name has the same one", entry.name));
            }
            known.push((
                hash,
                Caller {
                    name: entry.name,
                    roles: entry.roles.into_iter().collect(),
                    after_step_up: BTreeMap::new(),
                    sign_in: None,
                    role_map: None,
                },
            ));
        }
        Ok(Self { known })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Everybody's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|(_, caller)| caller.name.as_str())
    }

    /// Who presents this token. Always looks at every known one, and compares hashes without an early end.
    pub fn find(&self, token: &str) -> Option<&Caller> {
        let hash = sha256(&[token.as_bytes()]);
        self.known.iter().fold(None, |found, (known, caller)| {
            let differs = known.iter().zip(&hash).fold(0, |d, (a, b)| d | (a ^ b));
            if std::hint::black_box(differs) == 0 { Some(caller) } else { found }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(name: &str, token: &str) -> TokenEntry {
        TokenEntry { name: name.into(), roles: vec!["clerk".into()], token: token.into() }
    }

    #[test]
    fn tokens_are_found_only_whole() {
        let (a, b) = ("a".repeat(32), "b".repeat(40));
        let tokens = Tokens::new(TokenFile { tokens: vec![entry("one", &a), entry("two", &b)] }).unwrap();
        assert_eq!(tokens.find(&a).unwrap().name, "one");
        assert_eq!(tokens.find(&b).unwrap().name, "two");
        for bad in ["", &a[..31], &format!("{a}a"), &"A".repeat(32)] {
            assert!(tokens.find(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn weak_double_and_readable_tokens_are_refused_without_showing_them() {
        let good = "0123456789abcdef0123456789abcdef";
        for file in [
            vec![entry("one", "short")],
            vec![entry("one", good), entry("one", &"c".repeat(32))],
            vec![entry("one", good), entry("two", good)],
            vec![entry("", good)],
            vec![TokenEntry { roles: vec![], ..entry("one", good) }],
        ] {
            let said = Tokens::new(TokenFile { tokens: file }).unwrap_err();
            assert!(!said.contains(good) && !said.contains("short"), "{said}");
        }
        assert!(!format!("{:?}", entry("one", good)).contains(good));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKENS_FILE);
        assert!(Tokens::load(&path).unwrap().is_empty(), "no file: nobody is known");
        std::fs::write(&path, format!("tokens: [{{name: one, roles: [clerk], token: {good}}}]\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Tokens::load(&path).unwrap_err().code(), "tokens-mode");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Tokens::load(&path).unwrap().find(good).unwrap().name, "one");
        std::fs::write(&path, format!("tokens: [{{name: one, roles: [clerk], tokn: {good}}}]\n")).unwrap();
        let said = Tokens::load(&path).unwrap_err();
        assert!(said.code() == "tokens-rule" && !said.to_string().contains(good), "{said}");
    }

    #[test]
    fn operator_and_adapter_are_no_roles_of_agreements() {
        let roles = ["clerk", OPERATOR, ADAPTER].map(String::from).into();
        let caller =
            |roles| Caller { name: "x".into(), roles, after_step_up: BTreeMap::new(), sign_in: None, role_map: None };
        let adapter = caller([ADAPTER.to_owned()].into());
        let caller = caller(roles);
        assert_eq!(caller.agreement_roles(), ["clerk"]);
        assert_eq!(adapter.require_person().unwrap_err().status.as_u16(), 403);
        assert_eq!(adapter.require(&[OPERATOR]).unwrap_err().code, "forbidden");
        assert!(adapter.require(&[OPERATOR, ADAPTER]).is_ok());
        let mut nobody = Caller { roles: BTreeSet::new(), ..adapter };
        assert!(!nobody.is_adapter() && nobody.require_person().unwrap_err().detail.contains("no role"));
        nobody.after_step_up.insert("clerk".into(), StepUp { acr: vec!["mfa".into()], max_age_s: None });
        let asked = nobody.require_person().unwrap_err();
        assert_eq!((asked.status.as_u16(), asked.code.as_str()), (401, "step-up"));
        assert!(asked.respond().headers()["www-authenticate"].to_str().unwrap().contains("acr_values=\"mfa\""));
    }
}
