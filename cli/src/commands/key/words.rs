//! What an act says, in words: made from the bytes that are signed, never from what somebody wrote beside them.

use concordat_protocol::acts::{Act, ActBody};
use concordat_protocol::evidence::EpochView;
use concordat_protocol::keys::KeyId;

fn moment(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{ms} ms"), |t| t.to_string())
}

/// What revoking does.
pub(super) fn revoke(key: &KeyId, since_ms: u64) -> String {
    let contested = match since_ms {
        0 => "What it signed until then stays good.".to_owned(),
        since => format!("What it signed since {} is contested.", moment(since)),
    };
    format!("Revokes key {key} at once and for ever. {contested}")
}

/// The lines of an act; `None` for a kind that is not signed this way.
pub(super) fn act(act: &Act, epoch: Option<&EpochView>) -> Option<Vec<String>> {
    let what = match (&act.body, epoch) {
        (ActBody::KeyAdd { role, label, key }, _) => {
            format!("Registers key {} ({}) as {role} key \"{label}\".", key.key_id(), key.suite)
        }
        (ActBody::KeyRevoke { key_id, compromised_since_ms }, _) => revoke(key_id, *compromised_since_ms),
        (ActBody::Epoch { .. }, Some(_)) => "Signs an epoch with the agency's root key of the epoch before.".to_owned(),
        _ => return None,
    };
    let mut lines = vec![
        format!("chain    {}", act.chain),
        format!("agency   {}", act.agency),
        format!("signed   by key {}, its act number {}", act.key_id, act.counter),
        format!("says     {what}"),
    ];
    lines.extend(epoch.into_iter().flat_map(self::epoch));
    Some(lines)
}

/// The lines of an epoch.
pub(super) fn epoch(view: &EpochView) -> Vec<String> {
    let mut lines = vec![format!("epoch    {} from height {}", view.body.n, view.body.from_height)];
    for v in &view.validators {
        lines.push(format!("         validator {} with power {}, key {}", v.agency, v.power, hex::encode(v.key)));
    }
    for k in &view.keys {
        let cosign = k.cosign.as_ref().map_or_else(|| "none".to_owned(), |c| c.key_id().to_string());
        lines.push(format!("         {}: root key {}, cosigning key {cosign}", k.agency, k.root.key_id()));
    }
    lines
}
