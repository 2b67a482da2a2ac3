//! Acts signed on a machine without a network: prepared here, signed there, submitted here.
//!
//! An unsigned file is JSON: the act's canonical bytes, for an epoch also what its hashes stand for, and a summary. Who signs
//! is shown the summary made again from the bytes; a file whose summary says something else is refused.

use super::epoch;
use super::ledger::Desk;
use super::{confirmed, label_of, passphrases, words};
use crate::args::keys::{Opening, Prepare, Sign};
use crate::commands::Ctx;
use crate::failure::{Exit, Failure, read_text};
use concordat_broker::keys::{self, write_new};
use concordat_protocol::acts::{Act, ActBody, KeyRole};
use concordat_protocol::cbor::{self, Bytes, Canon};
use concordat_protocol::evidence::EpochView;
use concordat_protocol::keys::{PublicKey, Statement};
use concordat_protocol::ops::Tx;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

const UNSIGNED: &str = "concordat-unsigned-act-1";
const SIGNED: &str = "concordat-signed-act-1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnsignedFile {
    kind: String,
    summary: Vec<String>,
    act: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedFile {
    kind: String,
    summary: Vec<String>,
    tx: String,
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {why}", path.display()))
}

fn decoded<T: Canon>(path: &Path, what: &str, hex: &str) -> Result<T, Failure> {
    let bytes = hex::decode(hex).map_err(|e| bad(path, format!("{what}: {e}")))?;
    cbor::decode(&bytes).map_err(|e| bad(path, format!("{what}: {e}")))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| bad(path, e))?;
    Ok(write_new(path, &format!("{text}\n"))?)
}

/// An act that nobody signed yet. Of an epoch the body is empty: what goes there is signed too.
pub(super) struct Unsigned {
    act: Act,
    epoch: Option<EpochView>,
}

impl Unsigned {
    async fn of(desk: &Desk, body: ActBody, epoch: Option<EpochView>, counter: Option<u64>) -> Result<Self, Failure> {
        let root = desk.active(KeyRole::Root, None).await?;
        let none = || Failure::new(Exit::NotFound, "no-root-key", "the ledger has no root key of this agency");
        let key_id = root.ok_or_else(none)?;
        let counter = match counter {
            Some(counter) => counter,
            None => desk.counter(key_id, &body).await?,
        };
        let (chain, agency) = (desk.cfg.chain.clone(), desk.cfg.agency.clone());
        Ok(Self { act: Act { chain, agency, key_id, counter, body }, epoch })
    }

    /// The signature on an epoch.
    pub(super) async fn epoch(desk: &Desk, view: EpochView, counter: Option<u64>) -> Result<Self, Failure> {
        Self::of(desk, ActBody::Epoch { body: Bytes::default() }, Some(view), counter).await
    }

    fn words(&self) -> Result<Vec<String>, Failure> {
        let lines = words::act(&self.act, self.epoch.as_ref());
        lines.ok_or_else(|| Failure::usage("only key-add, key-revoke and epoch are signed this way"))
    }

    /// Writes it for the offline machine.
    pub(super) fn write(&self, ctx: &Ctx, out: &Path) -> Result<(), Failure> {
        let summary = self.words()?;
        let epoch = self.epoch.as_ref().map(|view| hex::encode(cbor::encode(view)));
        let act = hex::encode(cbor::encode(&self.act));
        write(out, &UnsignedFile { kind: UNSIGNED.into(), summary: summary.clone(), act, epoch })?;
        let key = self.act.key_id.to_string();
        ctx.out.result(&json!({"file": out, "summary": summary, "key_id": key}), || {
            format!("{}\n{}: sign it with `key sign` where root key {key} is", summary.join("\n"), out.display())
        });
        Ok(())
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let file: UnsignedFile = serde_json::from_str(&read_text(path)?).map_err(|e| bad(path, e))?;
        if file.kind != UNSIGNED {
            return Err(bad(path, format!("is \"{}\", not an unsigned act of this release", file.kind)));
        }
        let act: Act = decoded(path, "act", &file.act)?;
        let epoch: Option<EpochView> = file.epoch.as_deref().map(|e| decoded(path, "epoch", e)).transpose()?;
        let placeholder = matches!(&act.body, ActBody::Epoch { body } if body.0.is_empty());
        if placeholder != epoch.is_some() {
            return Err(bad(path, "names an epoch in one place and none in the other"));
        }
        epoch.as_ref().map_or(Ok(()), epoch::check)?;
        let unsigned = Self { act, epoch };
        if unsigned.words()? != file.summary {
            return Err(bad(path, "the summary does not say what the act says: do not sign it, prepare it again"));
        }
        Ok(unsigned)
    }
}

/// `key prepare`
pub(super) async fn prepare(ctx: &Ctx, p: &Prepare) -> Result<(), Failure> {
    let desk = Desk::open(ctx, &Opening::default())?;
    match p {
        Prepare::Add { role, label, public, to } => {
            let label = label_of(*role, label.as_ref())?;
            let key = PublicKey::from_text(public).map_err(|e| Failure::usage(format!("--public: {e}")))?;
            let body = ActBody::KeyAdd { role: *role, label, key };
            Unsigned::of(&desk, body, None, to.counter).await?.write(ctx, &to.out)
        }
        Prepare::Revoke { key_id, compromised_since, to } => {
            let compromised_since_ms = compromised_since.unwrap_or_default();
            let body = ActBody::KeyRevoke { key_id: *key_id, compromised_since_ms };
            Unsigned::of(&desk, body, None, to.counter).await?.write(ctx, &to.out)
        }
        Prepare::Epoch { to } => match epoch::waiting(&desk).await? {
            Some((view, _)) => Unsigned::epoch(&desk, view, to.counter).await?.write(ctx, &to.out),
            None => Err(Failure::new(Exit::NotFound, "no-epoch", "no epoch waits for this agency's signature")),
        },
    }
}

/// `key sign`
pub(super) fn sign(ctx: &Ctx, s: &Sign) -> Result<(), Failure> {
    let Unsigned { mut act, epoch } = Unsigned::read(&s.file)?;
    let lines = words::act(&act, epoch.as_ref()).unwrap_or_default();
    ctx.out.say(lines.join("\n"));
    confirmed(ctx, s.yes, "Sign this?")?;
    let passphrases = passphrases(ctx, &s.opening)?;
    let key = keys::open_signing(&s.key, &passphrases)?;
    if key.key_id() != act.key_id {
        let what = format!("the act is for root key {}, this is {}", act.key_id, key.key_id());
        return Err(Failure::new(Exit::Conflict, "other-key", what));
    }
    if let Some(view) = &epoch {
        let other = s.epoch_key.as_deref().map(|named| keys::open_signing(named, &passphrases)).transpose()?;
        act.body = epoch::signed(&act.chain, view, other.as_ref().unwrap_or(&key))?;
    }
    let body = cbor::encode(&act);
    let signature = key.try_sign(Statement::Act, &act.chain, &body);
    let signature = signature.map_err(|e| Failure::new(Exit::Failed, e.code().to_string(), e.to_string()))?;
    let tx = hex::encode(cbor::encode(&Tx::Act { body: Bytes(body), signature }));
    write(&s.out, &SignedFile { kind: SIGNED.into(), summary: lines, tx })?;
    ctx.out.result(&json!({"file": s.out}), || {
        format!("{}: submit it with `key submit` at the agency's node", s.out.display())
    });
    Ok(())
}

/// `key submit`
pub(super) async fn submit(ctx: &Ctx, path: &Path) -> Result<(), Failure> {
    let file: SignedFile = serde_json::from_str(&read_text(path)?).map_err(|e| bad(path, e))?;
    if file.kind != SIGNED {
        return Err(bad(path, format!("is \"{}\", not a signed act of this release", file.kind)));
    }
    let tx = hex::decode(&file.tx).map_err(|e| bad(path, format!("tx: {e}")))?;
    let answer = Desk::open(ctx, &Opening::default())?.submit(tx).await?;
    ctx.out.result(&answer, || format!("taken: {}", answer["operation"].as_str().unwrap_or_default()));
    Ok(())
}
