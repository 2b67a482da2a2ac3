//! One token: what its header may be, which key it is to be held against, what its claims must say. Pure.

use super::TokenError;
use super::config::{Algorithm, OidcConfig};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm as Jwa, DecodingKey, Header, Validation};
use serde_json::{Map, Value};

/// Longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 16_384;
/// Longest `sub`, characters (OpenID Connect Core, section 2).
const SUBJECT_MAX: usize = 255;
/// Kinds of token that are access tokens; many issuers still write `JWT`.
const TYPES: [&str; 3] = ["at+jwt", "application/at+jwt", "jwt"];

impl Algorithm {
    fn jwa(self) -> Jwa {
        match self {
            Self::RS256 => Jwa::RS256,
            Self::RS384 => Jwa::RS384,
            Self::RS512 => Jwa::RS512,
            Self::PS256 => Jwa::PS256,
            Self::PS384 => Jwa::PS384,
            Self::PS512 => Jwa::PS512,
            Self::ES256 => Jwa::ES256,
            Self::ES384 => Jwa::ES384,
            Self::EdDSA => Jwa::EdDSA,
        }
    }

    /// Whether a key is of the kind that this algorithm has. Without this a token could choose how a key is read.
    fn fits(self, key: &Jwk) -> bool {
        let curve = |wanted: EllipticCurve| match &key.algorithm {
            AlgorithmParameters::EllipticCurve(p) => p.curve == wanted,
            AlgorithmParameters::OctetKeyPair(p) => p.curve == wanted,
            _ => false,
        };
        let kind = match self {
            Self::ES256 => curve(EllipticCurve::P256),
            Self::ES384 => curve(EllipticCurve::P384),
            Self::EdDSA => curve(EllipticCurve::Ed25519),
            _ => matches!(key.algorithm, AlgorithmParameters::RSA(_)),
        };
        let named = key.common.key_algorithm.as_ref().is_none_or(|a| a.to_string() == format!("{:?}", self.jwa()));
        let signs = key.common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
        kind && named && signs
    }
}

/// A token's header, its algorithm being one of those that are allowed.
pub(super) struct Seen {
    pub alg: Algorithm,
    pub kid: Option<String>,
}

/// Reads the header. The algorithm is chosen here, from the list, before any key is looked for.
pub(super) fn header(token: &str, allowed: &[Algorithm]) -> Result<Seen, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed(format!("over {TOKEN_BYTES_MAX} bytes")));
    }
    // The library knows no `none`: such a header does not decode.
    let header: Header = jsonwebtoken::decode_header(token).map_err(|e| TokenError::Malformed(e.to_string()))?;
    let alg = allowed.iter().copied().find(|a| a.jwa() == header.alg);
    let alg = alg.ok_or_else(|| TokenError::Algorithm(format!("{:?}", header.alg)))?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed("crit: it has extensions that are not known here".into()));
    }
    if header.typ.as_ref().is_some_and(|t| !TYPES.contains(&t.to_lowercase().as_str())) {
        return Err(TokenError::Malformed("typ: it is no access token".into()));
    }
    Ok(Seen { alg, kid: header.kid })
}

/// The one key for a token; none where the issuer has no such key.
pub(super) fn key<'a>(keys: &'a [Jwk], seen: &Seen) -> Option<&'a Jwk> {
    let mut fitting = keys.iter().filter(|k| seen.alg.fits(k));
    match &seen.kid {
        Some(kid) => fitting.find(|k| k.common.key_id.as_ref() == Some(kid)),
        // Without a name there must be no choice.
        None => fitting.next().filter(|_| fitting.next().is_none()),
    }
}

/// Verifies the signature and returns the claims, which are not judged yet.
pub(super) fn verified(token: &str, seen: &Seen, key: &Jwk) -> Result<Map<String, Value>, TokenError> {
    let key = DecodingKey::from_jwk(key).map_err(|e| TokenError::Malformed(format!("the issuer's key: {e}")))?;
    // Claims are judged in `judge`, with a time that is passed in.
    let mut rules = Validation::new(seen.alg.jwa());
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    let read = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &rules);
    use jsonwebtoken::errors::ErrorKind;
    read.map(|t| t.claims).map_err(|e| match e.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        _ => TokenError::Malformed(e.to_string()),
    })
}

/// Judges claims at `now` (seconds since 1970); the subject.
pub(super) fn judge(claims: &Map<String, Value>, cfg: &OidcConfig, now: u64) -> Result<String, TokenError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&cfg.issuer) {
        return Err(TokenError::Issuer);
    }
    let is_for = match claims.get("aud") {
        Some(Value::String(aud)) => *aud == cfg.audience,
        Some(Value::Array(list)) => list.iter().any(|a| a.as_str() == Some(&cfg.audience)),
        _ => false,
    };
    if !is_for {
        return Err(TokenError::Audience);
    }
    // NumericDate may have a fraction (RFC 7519).
    let seconds = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(v) => match v.as_f64() {
            Some(s) if s.is_finite() && (0.0..1e15).contains(&s) => Ok(Some(s as u64)),
            _ => Err(TokenError::Malformed(format!("{name}: seconds since 1970"))),
        },
    };
    let exp = seconds("exp")?.ok_or_else(|| TokenError::Malformed("exp is missing".into()))?;
    if now >= exp.saturating_add(cfg.clock_skew_s) {
        return Err(TokenError::Expired);
    }
    for name in ["nbf", "iat"] {
        if seconds(name)?.is_some_and(|s| s > now.saturating_add(cfg.clock_skew_s)) {
            return Err(TokenError::NotYet);
        }
    }
    if claims.contains_key("cnf") {
        return Err(TokenError::Bound);
    }
    let subject =
        text("sub").filter(|s| (1..=SUBJECT_MAX).contains(&s.chars().count()) && !s.chars().any(char::is_control));
    subject.map(str::to_owned).ok_or_else(|| TokenError::Malformed("sub: 1 to 255 characters".into()))
}
