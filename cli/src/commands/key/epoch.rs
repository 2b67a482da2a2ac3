//! Epochs: the ledger writes them, agencies sign them with the root key of the epoch before.

use super::ledger::Desk;
use super::offline::Unsigned;
use super::{confirmed, root_key, words};
use crate::args::keys::EpochSign;
use crate::commands::Ctx;
use crate::failure::{Exit, Failure};
use concordat_broker::keys;
use concordat_protocol::acts::ActBody;
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::evidence::{EpochView, SignedEpoch};
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{KeyId, PublicKey, SigningKey, Statement};
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::trust::{AgencyKeys, Validator, pq_keys_hash, validators_hash};
use serde_json::json;

fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(Exit::ProofInvalid, "epoch", what)
}

/// Whether the hashes that are signed are those of what is shown.
pub(super) fn check(view: &EpochView) -> Result<(), Failure> {
    let validators: Vec<Validator> = view.validators.iter().map(Into::into).collect();
    let lines: Vec<AgencyKeys> = view.keys.iter().map(Into::into).collect();
    if validators_hash(&validators) != view.body.validators_hash {
        return Err(wrong("the epoch's validators are not those that its hash names"));
    }
    if pq_keys_hash(&lines, &validators) != view.body.pq_keys_hash {
        return Err(wrong("the epoch's keys are not those that its hash names"));
    }
    Ok(())
}

/// The oldest epoch that this agency has to sign and has not, with the root key that signs it.
fn due<'a>(views: &'a [EpochView], agency: &AgencyId) -> Option<(&'a EpochView, &'a PublicKey)> {
    views.windows(2).find_map(|pair| {
        let (before, view) = (&pair[0], &pair[1]);
        let signed = view.votes.iter().any(|v| v.agency == *agency);
        let votes = before.validators.iter().any(|v| v.agency == *agency);
        let line = before.keys.iter().find(|k| k.agency == *agency)?;
        (votes && !signed).then_some((view, &line.root))
    })
}

/// What the ledger has for this agency to sign.
pub(super) async fn waiting(desk: &Desk) -> Result<Option<(EpochView, KeyId)>, Failure> {
    let views = match desk.node().ask(&NodeRequest::Epochs {}).await? {
        NodeReply::Epochs { body } => body,
        other => return Err(wrong(format!("the node answered something else: {other:?}"))),
    };
    let Some((view, root)) = due(&views, &desk.cfg.agency) else { return Ok(None) };
    check(view)?;
    let before = views.iter().find(|v| v.body.n + 1 == view.body.n).map(|v| sha256(&[&encode(&v.body)]));
    if before != Some(view.body.prev_hash) {
        return Err(wrong("the epoch does not follow the one before it"));
    }
    Ok(Some((view.clone(), root.key_id())))
}

/// Signs an epoch: what an act of kind `epoch` carries.
pub(super) fn signed(chain: &str, view: &EpochView, key: &SigningKey) -> Result<ActBody, Failure> {
    let signature = key.try_sign(Statement::Epoch, chain, &encode(&view.body));
    let signature = signature.map_err(|e| Failure::new(Exit::Failed, e.code().to_string(), e.to_string()))?;
    Ok(ActBody::Epoch { body: Bytes(encode(&SignedEpoch { body: view.body.clone(), signature })) })
}

/// The root key of the epoch before: named, the root key of now, or one that was kept when it was replaced.
fn epoch_key(desk: &Desk, e: &EpochSign, wanted: KeyId) -> Result<SigningKey, Failure> {
    let key = match (&e.epoch_key, desk.holder(wanted)) {
        (Some(named), _) => keys::open_signing(named, desk.folder.passphrases())?,
        (None, Some(path)) => keys::open_signing(&path.to_string_lossy(), desk.folder.passphrases())?,
        (None, None) => root_key(&desk.folder, e.root.as_deref())?,
    };
    if key.key_id() == wanted {
        return Ok(key);
    }
    let what =
        format!("the epoch is signed with root key {wanted}, this is {}: name it with --epoch-key", key.key_id());
    Err(Failure::new(Exit::Conflict, "epoch-key", what))
}

/// `key epoch-sign`
pub(super) async fn sign(ctx: &Ctx, e: &EpochSign) -> Result<(), Failure> {
    let desk = Desk::open(ctx, &e.opening)?;
    let Some((view, wanted)) = waiting(&desk).await? else {
        ctx.out.result(&json!({"state": "nothing"}), || "no epoch waits for this agency's signature".to_owned());
        return Ok(());
    };
    if let (true, Some(out)) = (e.offline, &e.out) {
        return Unsigned::epoch(&desk, view, None).await?.write(ctx, out);
    }
    let lines = words::epoch(&view).join("\n");
    ctx.out.say(&lines);
    confirmed(ctx, e.yes, "Sign this epoch?")?;
    let body = signed(&desk.cfg.chain, &view, &epoch_key(&desk, e, wanted)?)?;
    let answer = desk.act(&root_key(&desk.folder, e.root.as_deref())?, body).await?;
    let operation = answer["operation"].as_str().unwrap_or_default().to_owned();
    let value = json!({"state": "signed", "epoch": view.body.n, "operation": operation});
    ctx.out.result(&value, || format!("epoch {} signed: {operation}", view.body.n));
    Ok(())
}
