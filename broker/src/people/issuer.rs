//! The issuer's keys: found by discovery, kept, fetched again when they age or when a token names one that is not there.

use super::config::{OidcConfig, is_safe};
use super::role_map::RoleMap;
use super::{Person, SetupError, TokenError, sign_in, token};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, RwLock};
use tracing::{info, warn};

/// Keys older than this are fetched again; meanwhile they are used.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// Keys older than this are not used: an issuer that took one back is believed by then.
const OLDEST: Duration = Duration::from_secs(60 * 60);
/// Between two fetches: tokens with invented key names must not make this broker flood the issuer.
const BETWEEN: Duration = Duration::from_secs(10);
/// How long one answer of the issuer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Largest answer of the issuer, bytes.
const ANSWER_MAX: usize = 256 * 1024;

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

#[derive(Default)]
struct Keys {
    keys: Vec<Jwk>,
    /// When they came.
    at: Option<Instant>,
}

/// Believes tokens of one issuer, for one audience.
pub struct Verifier {
    cfg: OidcConfig,
    http: reqwest::Client,
    keys: RwLock<Arc<Keys>>,
    /// When a fetch was last tried; held while one runs, so that there is one at a time.
    tried: Mutex<Option<Instant>>,
    between: Duration,
}

/// The issuer of `node.yaml`, with the role map.
pub struct Issuer {
    verifier: Verifier,
    /// The role map in use; another one takes its place when the file changes.
    map: std::sync::RwLock<Arc<RoleMap>>,
    map_file: PathBuf,
    /// SHA-256 of what the file held at the last look.
    seen: std::sync::Mutex<String>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("cfg", &self.verifier.cfg).finish_non_exhaustive()
    }
}

fn read_map(path: &Path) -> Result<RoleMap, SetupError> {
    let wrong = |rule: String| SetupError::File { path: path.to_owned(), rule };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    RoleMap::parse(&text).map_err(wrong)
}

impl Issuer {
    /// Reads the role map and the authority's certificates from the node's folder. Nothing is fetched yet.
    pub fn load(cfg: &OidcConfig, folder: &Path) -> Result<Self, SetupError> {
        let map_file = folder.join(&cfg.role_map);
        let map = read_map(&map_file)?;
        info!(issuer = cfg.issuer, role_map = map.sha256(), "people sign in at their issuer");
        let verifier = Verifier::new(cfg.clone(), folder)?;
        let seen = std::sync::Mutex::new(map.sha256().to_owned());
        Ok(Self { verifier, map: std::sync::RwLock::new(Arc::new(map)), map_file, seen })
    }

    /// The issuer's name.
    pub fn name(&self) -> &str {
        &self.verifier.cfg.issuer
    }

    /// The role map in use.
    pub fn role_map(&self) -> Arc<RoleMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the role map again; whether it is another one. One that cannot be read leaves the one in use, and one that was not
    /// the same at the look before is still being written: half a map may read as a whole one.
    pub fn reload(&self) -> Result<bool, SetupError> {
        let map = read_map(&self.map_file)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = *seen == map.sha256();
        map.sha256().clone_into(&mut seen);
        let changed = settled && map.sha256() != self.role_map().sha256();
        if changed {
            *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        }
        Ok(changed)
    }

    /// Who a token speaks for at `now`, seconds since 1970.
    pub async fn person(&self, token: &str, now: u64) -> Result<Person, TokenError> {
        let (subject, claims) = self.verifier.claims(token, now).await?;
        let map = self.role_map();
        let (roles, after_step_up) = map.roles(&claims, now);
        let role_map = map.sha256().to_owned();
        Ok(Person { subject, roles, after_step_up, sign_in: sign_in(&claims), role_map })
    }

    #[cfg(test)]
    pub(super) fn asks_again_after(mut self, between: Duration) -> Self {
        self.verifier.between = between;
        self
    }
}

impl Verifier {
    /// With the authority's certificates from the node's folder. Nothing is fetched yet.
    pub fn new(cfg: OidcConfig, folder: &Path) -> Result<Self, SetupError> {
        let mut http = reqwest::Client::builder().timeout(WITHIN).redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = &cfg.ca {
            let path = folder.join(ca);
            let wrong = |rule: String| SetupError::File { path: path.clone(), rule };
            let pem = std::fs::read(&path).map_err(|e| wrong(e.to_string()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(e.to_string()))?;
            http = http.tls_certs_merge(certificates);
        }
        let http = http.build().map_err(|e| SetupError::Client(e.to_string()))?;
        Ok(Self { cfg, http, keys: RwLock::default(), tried: Mutex::default(), between: BETWEEN })
    }

    /// What a token says, and its subject, at `now`, seconds since 1970: signature, issuer, audience and times hold.
    pub async fn claims(&self, token: &str, now: u64) -> Result<(String, Map<String, Value>), TokenError> {
        let seen = token::header(token, &self.cfg.algorithms)?;
        let mut keys = self.keys(FRESH).await?;
        if token::key(&keys.keys, &seen).is_none() {
            keys = self.keys(Duration::ZERO).await?;
        }
        let unknown = || TokenError::UnknownKey(seen.kid.clone().unwrap_or_default().chars().take(64).collect());
        let key = token::key(&keys.keys, &seen).ok_or_else(unknown)?;
        let claims = token::verified(token, &seen, key)?;
        Ok((token::judge(&claims, &self.cfg, now)?, claims))
    }

    /// Keys that are at most so old, where the issuer can be asked; older ones, up to an hour, where it cannot.
    async fn keys(&self, age: Duration) -> Result<Arc<Keys>, TokenError> {
        let is = |keys: &Keys, age: Duration| keys.at.is_some_and(|at| at.elapsed() <= age);
        let known = self.keys.read().await.clone();
        if is(&known, age) {
            return Ok(known);
        }
        let mut tried = self.tried.lock().await;
        let known = self.keys.read().await.clone();
        if is(&known, age) {
            return Ok(known);
        }
        let mut why = "they were asked for a moment ago".to_owned();
        if tried.is_none_or(|at| at.elapsed() >= self.between) {
            let fetched = self.fetch().await;
            *tried = Some(Instant::now());
            match fetched {
                Ok(keys) => {
                    let keys = Arc::new(Keys { keys, at: Some(Instant::now()) });
                    *self.keys.write().await = keys.clone();
                    return Ok(keys);
                }
                Err(e) => {
                    warn!(issuer = self.cfg.issuer, error = e, "the issuer's keys cannot be fetched");
                    why = e;
                }
            }
        }
        if is(&known, OLDEST) { Ok(known) } else { Err(TokenError::Unavailable(why)) }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let base = self.cfg.issuer.trim_end_matches('/');
        let found = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let found: Discovered = serde_json::from_slice(&found).map_err(|e| format!("discovery: {e}"))?;
        if found.issuer != self.cfg.issuer {
            return Err(format!("discovery: it names itself {}", found.issuer));
        }
        if !is_safe(&found.jwks_uri) {
            return Err("discovery: jwks_uri is no https address".into());
        }
        let set: Value = serde_json::from_slice(&self.get(&found.jwks_uri).await?).map_err(|e| format!("keys: {e}"))?;
        let list = set["keys"].as_array().ok_or("keys: the answer is no key set")?;
        // Keys of kinds that are not known here are somebody else's.
        let keys: Vec<Jwk> = list.iter().filter_map(|k| serde_json::from_value(k.clone()).ok()).collect();
        info!(issuer = self.cfg.issuer, keys = keys.len(), "the issuer's keys were fetched");
        Ok(keys)
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let said = |e: reqwest::Error| format!("{url}: {}", e.without_url());
        let mut answer = self.http.get(url).send().await.map_err(said)?;
        if answer.status() != 200 {
            return Err(format!("{url}: it answers {}", answer.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(said)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_MAX {
                return Err(format!("{url}: over {ANSWER_MAX} bytes"));
            }
        }
        Ok(bytes)
    }
}
