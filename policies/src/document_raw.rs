//! The agreement document as it is written, read with the place of every value, into [`crate::document`] types.

use crate::document::{Agreement, Clause, Paper, Who, Window};
use crate::duty_raw::{RawDuty, word};
use crate::languages::{RawText, agree, read as read_text};
use crate::time::{DurationMs, duration_text, utc_ms};
use crate::yaml::{Pos, Spanned, YamlError, parse};
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId, IdError};
use concordat_protocol::limits::CLAUSES_MAX;
use concordat_protocol::terms::{Action, Effect, Evidence};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Longest sentence of a clause, characters.
pub const TEXT_CHARS_MAX: usize = 600;
/// Longest `max_lag`, milliseconds.
pub const MAX_LAG_MS_MAX: u64 = 24 * 3_600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgreement {
    agreement: Spanned<String>,
    version: Spanned<u64>,
    paper: Option<RawPaper>,
    assigner: Spanned<String>,
    assignee: Spanned<String>,
    target: Spanned<String>,
    valid: RawValid,
    approvals: RawApprovals,
    prevails: Option<Spanned<String>>,
    clauses: Spanned<Vec<RawClause>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPaper {
    title: Spanned<String>,
    sha256: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawValid {
    from: Spanned<String>,
    until: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApprovals {
    assigner: Spanned<Vec<Spanned<String>>>,
    assignee: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClause {
    id: Spanned<String>,
    text: Spanned<RawText>,
    effect: Spanned<String>,
    assignee: Spanned<RawWho>,
    actions: Spanned<Vec<Spanned<String>>>,
    evidence: Option<Spanned<RawEvidence>>,
    purpose: Option<Spanned<String>>,
    legal_basis: Option<Spanned<RawText>>,
    valid: Option<RawValid>,
    duties: Option<Vec<RawDuty>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrg {
    org: Spanned<String>,
    role: Option<Spanned<String>>,
}

/// `any`, or `{org: .., role: ..}`.
enum RawWho {
    Word(String),
    Org(RawOrg),
}

impl<'de> Deserialize<'de> for RawWho {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = RawWho;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any, or {org: org:.., role: role:..}")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<RawWho, E> {
                Ok(RawWho::Word(s.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, m: A) -> Result<RawWho, A::Error> {
                RawOrg::deserialize(serde::de::value::MapAccessDeserializer::new(m)).map(RawWho::Org)
            }
        }
        d.deserialize_any(V)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawEvidence {
    None,
    Strict,
    Bounded(RawBounded),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBounded {
    max_lag: Spanned<DurationMs>,
}

fn id<T>(v: &Spanned<String>, make: impl FnOnce(&str) -> Result<T, IdError>) -> Result<T, YamlError> {
    make(&v.value).map_err(|e| YamlError::new(Pos::of(v), e.to_string()))
}

/// A word with its prefix, like `role:clerk`.
pub(crate) fn prefixed(prefix: &str, s: &str) -> Result<(), String> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let slug = |t: &str| t.len() <= 48 && t.starts_with(|c: char| c.is_ascii_lowercase()) && t.chars().all(ok);
    match s.strip_prefix(prefix) {
        Some(t) if slug(t) => Ok(()),
        _ => Err(format!("\"{}\" must look like {prefix}some-name (a-z, 0-9, -)", crate::yaml::clip(s))),
    }
}

fn with_prefix(v: Spanned<String>, prefix: &str) -> Result<String, YamlError> {
    prefixed(prefix, &v.value).map_err(|e| YamlError::new(Pos::of(&v), e))?;
    Ok(v.value)
}

/// Text that people sign must look like what it is: no control, no invisible and no direction-changing characters.
pub(crate) fn plain(v: &Spanned<String>, what: &str) -> Result<String, YamlError> {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}')
    };
    let at = Pos::of(v);
    let text = v.value.trim();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return Err(YamlError::new(at, format!("{what} must have 1 to {TEXT_CHARS_MAX} characters")));
    }
    if text.chars().any(hidden) {
        return Err(YamlError::new(
            at,
            format!("{what} holds a line break, a control or an invisible character: remove it"),
        ));
    }
    Ok(text.to_owned())
}

fn window(v: &RawValid) -> Result<Window, YamlError> {
    let time = |s: &Spanned<String>| utc_ms(&s.value).map_err(|e| YamlError::new(Pos::of(s), e));
    let w = Window { from_ms: time(&v.from)?, until_ms: time(&v.until)? };
    if w.from_ms >= w.until_ms {
        return Err(YamlError::new(Pos::of(&v.until), "valid.until must be later than valid.from"));
    }
    Ok(w)
}

fn roles(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, YamlError> {
    let mut out = Vec::new();
    for r in &list.value {
        prefixed("", &r.value).map_err(|e| YamlError::new(Pos::of(r), e))?;
        if out.contains(&r.value) {
            return Err(YamlError::new(Pos::of(r), format!("the approval role {} is listed twice", r.value)));
        }
        out.push(r.value.clone());
    }
    out.sort();
    Ok(out)
}

fn paper(p: RawPaper) -> Result<Paper, YamlError> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&p.sha256.value, &mut sha256).map_err(|_| {
        YamlError::new(Pos::of(&p.sha256), "paper.sha256 must be 64 hexadecimal digits: take them from sha256sum")
    })?;
    Ok(Paper { title: plain(&p.title, "paper.title")?, sha256 })
}

/// Reads a document; the rules of the whole are checked by the caller.
pub(crate) fn read(yaml: &str) -> Result<Agreement, YamlError> {
    let raw: RawAgreement = parse(yaml)?;
    let valid = window(&raw.valid)?;
    if raw.version.value == 0 {
        return Err(YamlError::new(Pos::of(&raw.version), "versions begin with 1"));
    }
    let count = raw.clauses.value.len();
    if count == 0 || count > CLAUSES_MAX {
        return Err(YamlError::new(Pos::of(&raw.clauses), format!("an agreement has 1 to {CLAUSES_MAX} clauses")));
    }
    let assigner_roles = roles(&raw.approvals.assigner)?;
    if assigner_roles.is_empty() {
        return Err(YamlError::new(
            Pos::of(&raw.approvals.assigner),
            "approvals.assigner is empty: the provider always approves",
        ));
    }
    let assignee = if raw.assignee.value == "any" { None } else { Some(id(&raw.assignee, AgencyId::from_org)?) };
    let mut clauses: Vec<Clause> = raw.clauses.value.into_iter().map(|c| clause(c, valid)).collect::<Result<_, _>>()?;
    let prevails = agree(&mut clauses, raw.prevails.as_ref())?;
    Ok(Agreement {
        agreement: id(&raw.agreement, |s| AgreementId::new(s))?,
        version: raw.version.value,
        paper: raw.paper.map(paper).transpose()?,
        assigner: id(&raw.assigner, AgencyId::from_org)?,
        assignee,
        target: id(&raw.target, |s| DatasetId::new(s))?,
        valid,
        assigner_roles,
        assignee_roles: raw.approvals.assignee.as_ref().map_or(Ok(Vec::new()), roles)?,
        prevails,
        clauses,
    })
}

fn clause_id(v: &Spanned<String>) -> Result<String, YamlError> {
    let s = &v.value;
    let ok = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
    if s == crate::rows::SENTINEL {
        return Err(YamlError::new(Pos::of(v), format!("the clause id {s} is reserved")));
    }
    if s.starts_with(|c: char| c.is_ascii_uppercase()) && s.len() <= 16 && s.chars().all(ok) {
        return Ok(s.clone());
    }
    Err(YamlError::new(
        Pos::of(v),
        format!("\"{}\" is not a clause id: write up to 16 of A-Z, 0-9, -, like C1", crate::yaml::clip(s)),
    ))
}

fn clause(c: RawClause, outer: Window) -> Result<Clause, YamlError> {
    let at = Pos::of(&c.id);
    let effect = word(&c.effect, "effect", Effect::ALL)?;
    let actions = actions(&c.actions)?;
    let (text, texts) = read_text(c.text, "text")?;
    let legal = c.legal_basis.map(|t| read_text(t, "legal_basis")).transpose()?;
    let (legal_basis, legal_bases) = legal.map_or_else(Default::default, |(plain, all)| (Some(plain), all));
    Ok(Clause {
        id: clause_id(&c.id)?,
        text,
        texts,
        effect,
        who: who(c.assignee)?,
        evidence: evidence(c.evidence, effect, &actions, at)?,
        actions,
        purpose: c.purpose.map(|p| with_prefix(p, "purp:")).transpose()?,
        legal_basis,
        legal_bases,
        duties: c.duties.unwrap_or_default().into_iter().map(|d| d.duty().map(|(d, _)| d)).collect::<Result<_, _>>()?,
        valid: c.valid.as_ref().map_or(Ok(outer), window)?,
        at,
    })
}

fn actions(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<Action>, YamlError> {
    let mut out = Vec::new();
    for a in &list.value {
        let action = word(a, "action", Action::ALL)?;
        if out.contains(&action) {
            return Err(YamlError::new(Pos::of(a), format!("the action {action} is listed twice; keep one")));
        }
        out.push(action);
    }
    if out.is_empty() {
        return Err(YamlError::new(Pos::of(list), "actions is empty; name at least one"));
    }
    out.sort();
    Ok(out)
}

fn who(v: Spanned<RawWho>) -> Result<Who, YamlError> {
    let at = Pos::of(&v);
    match v.value {
        RawWho::Word(w) if w == "any" => Ok(Who::Any),
        RawWho::Word(w) => Err(YamlError::unknown(at, "assignee", &w, &["any", "{org: org:.., role: role:..}"])),
        RawWho::Org(o) => Ok(Who::Org {
            org: id(&o.org, AgencyId::from_org)?,
            role: o.role.map(|r| with_prefix(r, "role:")).transpose()?,
        }),
    }
}

/// Evidence as written, or the default: strict for queries and writes. A feed must say what it wants.
fn evidence(
    v: Option<Spanned<RawEvidence>>,
    effect: Effect,
    actions: &[Action],
    at: Pos,
) -> Result<Evidence, YamlError> {
    match (v, effect) {
        (None, Effect::Prohibit) => Ok(Evidence::None {}),
        (Some(e), Effect::Prohibit) => {
            Err(YamlError::new(Pos::of(&e), "a prohibition has no evidence: nothing is released under it"))
        }
        (None, _) if actions.contains(&Action::Subscribe) => {
            Err(YamlError::new(at, "a clause with subscribe must say its evidence: strict or {bounded: {max_lag: 2s}}"))
        }
        (None, _) => Ok(Evidence::Strict {}),
        (Some(e), _) => match e.value {
            RawEvidence::None => Ok(Evidence::None {}),
            RawEvidence::Strict => Ok(Evidence::Strict {}),
            RawEvidence::Bounded(b) => {
                let (at, ms) = (Pos::of(&b.max_lag), b.max_lag.value.0);
                if ms == 0 || ms > MAX_LAG_MS_MAX {
                    let rule = format!("max_lag must be above 0 and at most {}", duration_text(MAX_LAG_MS_MAX));
                    return Err(YamlError::new(at, rule));
                }
                Ok(Evidence::Bounded { max_lag_ms: ms })
            }
        },
    }
}
