//! Arguments of `key`.

use clap::{Args, Subcommand};
use concordat_broker::config::SecretRef;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::keys::{KeyId, Suite};
use std::path::PathBuf;

/// `key`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// The agency's keys on the ledger, and the files that hold them here
    List,
    /// Make a new key; nothing is registered
    Generate(Generate),
    /// Make a new key, register it by a root act, and put it in the place of the old one
    Rotate(Rotate),
    /// Revoke a key at once, by a root act
    Revoke(Revoke),
    /// Put a key file under a passphrase: NAME.key becomes NAME.key.age
    Encrypt {
        /// The file
        file: PathBuf,
        /// How keys are opened
        #[command(flatten)]
        opening: Opening,
    },
    /// Take a key file's passphrase away: NAME.key.age becomes NAME.key
    Decrypt {
        /// The file
        file: PathBuf,
        /// How keys are opened
        #[command(flatten)]
        opening: Opening,
    },
    /// Sign the ledger's newest change of validators, roots and cosigning keys
    EpochSign(EpochSign),
    /// Write an act for an offline machine to sign
    #[command(subcommand)]
    Prepare(Prepare),
    /// Sign a prepared act; needs no network and no node
    Sign(Sign),
    /// Submit a signed act through the gateway
    Submit {
        /// What `key sign` wrote
        file: PathBuf,
    },
}

/// How keys are opened.
#[derive(Debug, Clone, Default, Args)]
pub struct Opening {
    /// Passphrase of encrypted key files, env:NAME or file:PATH; else node.yaml's, else you are asked
    #[arg(long, value_name = "REFERENCE")]
    pub passphrase: Option<SecretRef>,
}

/// What kind of key, and where it goes.
#[derive(Debug, Clone, Args)]
pub struct Kind {
    /// root, approver, security, writer, envelope, gateway, release, cosign or kem
    #[arg(long, value_parser = role)]
    pub role: KeyRole,
    /// Approval role, writer's name or a name; by default the role's own
    #[arg(long)]
    pub label: Option<String>,
    /// ed25519 or hybrid, where the role leaves a choice
    #[arg(long, value_parser = suite)]
    pub suite: Option<Suite>,
    /// Write the file under a passphrase
    #[arg(long)]
    pub encrypt: bool,
    /// Make the Ed25519 half in this token: pkcs11:token=T;object=O?module-path=/lib.so&pin-source=env:PIN
    #[arg(long, value_name = "URI")]
    pub token: Option<String>,
}

/// `key generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// Which
    #[command(flatten)]
    pub kind: Kind,
    /// Where to write it; with --encrypt the name ends in .age
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How keys are opened
    #[command(flatten)]
    pub opening: Opening,
}

/// `key rotate`
#[derive(Debug, Args)]
pub struct Rotate {
    /// Which
    #[command(flatten)]
    pub kind: Kind,
    /// The root key, a file or a pkcs11: URI; by default root in the node's keys folder
    #[arg(long, value_name = "KEY")]
    pub root: Option<String>,
    /// Also revoke the old key, once the new one is in use
    #[arg(long)]
    pub revoke_old: bool,
    /// Restart the process that uses the key through the node's supervisor
    #[arg(long)]
    pub restart: bool,
    /// How keys are opened
    #[command(flatten)]
    pub opening: Opening,
}

/// `key revoke`
#[derive(Debug, Args)]
pub struct Revoke {
    /// The key
    pub key_id: KeyId,
    /// Since when others may have signed with it (RFC 3339, or milliseconds): from there on its signatures are contested
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub compromised_since: Option<u64>,
    /// The root key, a file or a pkcs11: URI; by default root in the node's keys folder
    #[arg(long, value_name = "KEY")]
    pub root: Option<String>,
    /// Do it: a key is never unrevoked
    #[arg(long)]
    pub yes: bool,
    /// How keys are opened
    #[command(flatten)]
    pub opening: Opening,
}

/// `key epoch-sign`
#[derive(Debug, Args)]
pub struct EpochSign {
    /// The root key that signs the act, a file or a pkcs11: URI; by default root in the node's keys folder
    #[arg(long, value_name = "KEY")]
    pub root: Option<String>,
    /// The root key of the epoch before, where it was replaced since; by default searched in the keys folder
    #[arg(long, value_name = "KEY")]
    pub epoch_key: Option<String>,
    /// Only write it for an offline machine
    #[arg(long, requires = "out")]
    pub offline: bool,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
    /// How keys are opened
    #[command(flatten)]
    pub opening: Opening,
}

/// `key prepare`
#[derive(Debug, Subcommand)]
pub enum Prepare {
    /// Register a key
    Add {
        /// root, approver, security, writer, envelope, gateway, release, cosign or kem
        #[arg(long, value_parser = role)]
        role: KeyRole,
        /// Approval role, writer's name or a name; by default the role's own
        #[arg(long)]
        label: Option<String>,
        /// Its public key as `key generate` printed it
        #[arg(long, value_name = "HEX")]
        public: String,
        /// Where and how
        #[command(flatten)]
        to: PrepareTo,
    },
    /// Revoke a key
    Revoke {
        /// The key
        key_id: KeyId,
        /// Since when its signatures are contested
        #[arg(long, value_name = "TIME", value_parser = time)]
        compromised_since: Option<u64>,
        /// Where and how
        #[command(flatten)]
        to: PrepareTo,
    },
    /// Sign the ledger's newest epoch
    Epoch {
        /// Where and how
        #[command(flatten)]
        to: PrepareTo,
    },
}

/// Where a prepared act goes.
#[derive(Debug, Clone, Args)]
pub struct PrepareTo {
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Its counter, when several are prepared before the first is submitted; by default the ledger's next
    #[arg(long)]
    pub counter: Option<u64>,
}

/// `key sign`
#[derive(Debug, Args)]
pub struct Sign {
    /// What `key prepare` wrote
    pub file: PathBuf,
    /// The key that signs, a file or a pkcs11: URI
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// Of an epoch: the root key of the epoch before, where it is another one
    #[arg(long, value_name = "KEY")]
    pub epoch_key: Option<String>,
    /// Where to write the signed act
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
    /// How keys are opened
    #[command(flatten)]
    pub opening: Opening,
}

fn role(text: &str) -> Result<KeyRole, String> {
    KeyRole::from_word(text)
        .ok_or_else(|| "root, approver, security, writer, envelope, gateway, release, cosign or kem".to_owned())
}

fn suite(text: &str) -> Result<Suite, String> {
    Suite::from_word(text)
        .filter(|s| matches!(s, Suite::Ed25519 | Suite::Hybrid))
        .ok_or_else(|| "ed25519 or hybrid".to_owned())
}

/// Milliseconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let time: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    u64::try_from(time.as_millisecond()).map_err(|_| "before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn times_are_read_in_both_forms_and_words_are_exact() {
        assert_eq!(super::time("2026-11-23T00:00:00Z").unwrap(), 1_795_392_000_000);
        assert_eq!(super::time("17").unwrap(), 17);
        assert!(super::time("yesterday").is_err() && super::time("1969-01-01T00:00:00Z").is_err());
        assert!(super::role("boss").is_err() && super::suite("x-wing").is_err());
    }
}
