//! Duties that a request must meet before anything is looked up: a reference, a fresh sign-in.

use crate::duty::Duty;
use crate::time::duration_text;
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Longest pattern of a `reference` duty, bytes.
pub const PATTERN_BYTES_MAX: usize = 512;
/// Largest compiled pattern, bytes.
const PATTERN_COMPILED_MAX: usize = 1 << 18;
/// Compiled patterns of references, by their text: compiling one costs more than all the rest of a decision.
static PATTERNS: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
/// Most of them; at the limit all are forgotten.
const PATTERNS_MAX: usize = 256;

fn compiled_pattern(p: &str) -> Option<Regex> {
    let mut known = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(p) {
        return Some(found.clone());
    }
    let compiled = pattern(p).ok()?;
    if known.len() >= PATTERNS_MAX {
        known.clear();
    }
    known.insert(p.to_owned(), compiled.clone());
    Some(compiled)
}

pub(crate) fn pattern(p: &str) -> Result<Regex, String> {
    if p.len() > PATTERN_BYTES_MAX {
        return Err(format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    if !p.starts_with('^') || !p.ends_with('$') || p.ends_with("\\$") {
        return Err("the pattern must begin with ^ and end with $, so that it describes the whole reference".to_owned());
    }
    // The inside must stand by itself (`^a)|(b$` does not), and in a group, so that `^a|b$` matches no part only.
    let inside = &p[1..p.len() - 1];
    let build = |text: &str| regex::RegexBuilder::new(text).size_limit(PATTERN_COMPILED_MAX).build();
    build(inside)
        .and_then(|_| build(&format!("^(?:{inside})$")))
        .map_err(|e| format!("the pattern does not compile: {}", e.to_string().lines().last().unwrap_or_default()))
}

/// Checks every `reference` duty against the request's case reference. The error is the missing term.
pub fn check_reference(duties: &[Duty], case: Option<&str>) -> Result<(), String> {
    for d in duties {
        let Duty::Reference { field, pattern: p } = d else { continue };
        let given = if field == "case" { case } else { None };
        let ok = given.is_some_and(|g| g.len() <= 256 && compiled_pattern(p).is_some_and(|re| re.is_match(g)));
        if !ok {
            return Err(format!("a {field} reference of the form {p}"));
        }
    }
    Ok(())
}

/// How and when the person behind a request signed in, as the consumer's gateway vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// The strength, as the issuer names it (`acr`).
    pub level: String,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

/// Checks every `step-up` duty. The error is the missing term. A sign-in of the future counts for nothing.
pub fn check_step_up(duties: &[Duty], sign_in: Option<&SignIn>, now_ms: u64) -> Result<(), String> {
    for d in duties {
        let Duty::StepUp { level, within_ms } = d else { continue };
        let fresh = |s: &SignIn| now_ms.checked_sub(s.at_ms).is_some_and(|age| age <= *within_ms);
        if !sign_in.is_some_and(|s| s.level == *level && fresh(s)) {
            return Err(format!("a sign-in of the strength {level} at most {} ago", duration_text(*within_ms)));
        }
    }
    Ok(())
}
