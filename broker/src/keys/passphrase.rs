//! Where passphrases of key files and PINs of tokens come from: by reference from `node.yaml`, or from a person.

use crate::config::{NodeConfig, SecretRef};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Asks a person for a secret, given what it is for. An error where nobody can be asked.
pub type Prompt = fn(&str) -> std::io::Result<Zeroizing<String>>;

/// Where secrets that open keys come from. It holds references, never a secret.
#[derive(Debug, Clone, Default)]
pub struct Passphrases {
    dir: PathBuf,
    all: Option<SecretRef>,
    of: BTreeMap<String, SecretRef>,
    prompt: Option<Prompt>,
}

impl Passphrases {
    /// Those that `node.yaml` names.
    pub fn of(cfg: &NodeConfig) -> Self {
        let (all, of) = (cfg.key_passphrase.clone(), cfg.key_passphrases.clone());
        Self { dir: cfg.dir.clone(), all, of, prompt: None }
    }

    /// Those of no configuration: relative references are to `dir`.
    pub fn without_config(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), ..Self::default() }
    }

    /// One reference for every key, in place of what the configuration says.
    #[must_use]
    pub fn named(self, reference: SecretRef) -> Self {
        Self { all: Some(reference), of: BTreeMap::new(), ..self }
    }

    /// Also asks a person, where no reference says otherwise.
    #[must_use]
    pub fn asking(self, prompt: Prompt) -> Self {
        Self { prompt: Some(prompt), ..self }
    }

    /// The passphrase of the key file with this name (`release`), for a person described by `what`.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn get(&self, name: &str, what: &str) -> Result<Zeroizing<String>, String> {
        // `release.next`, `release.1f00aa17.old` and `release.1f00aa17.pq` open like `release`.
        let base = name.split('.').next().unwrap_or_default();
        match self.of.get(base).or(self.all.as_ref()) {
            Some(reference) => reference.resolve(&self.dir).map_err(|e| e.to_string()),
            None => self.ask(what, "no `key_passphrase` in node.yaml"),
        }
    }

    /// The PIN of a token.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn pin(&self, source: Option<&SecretRef>, what: &str) -> Result<Zeroizing<String>, String> {
        match source {
            Some(reference) => reference.resolve(&self.dir).map_err(|e| e.to_string()),
            None => self.ask(what, "no pin-source in the URI"),
        }
    }

    fn ask(&self, what: &str, otherwise: &str) -> Result<Zeroizing<String>, String> {
        let Some(prompt) = self.prompt else { return Err(otherwise.to_owned()) };
        prompt(what).map_err(|e| format!("{otherwise}, and nobody can be asked: {e}"))
    }
}
