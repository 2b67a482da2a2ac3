//! What nodes and agencies say of checkpoints, epochs and disputes.

use crate::samples::{CHAIN, Sample, evidence as made};
use crate::{hx, kept, sampled, shape};
use concordat_protocol::cbor::{Canon, encode};
use concordat_protocol::evidence::SignedEpoch;
use concordat_protocol::hash::sha256;
use concordat_protocol::keys::{Statement, signed_bytes};
use concordat_protocol::receipt::Checkpoint;
use serde_json::{Value, json};

fn case<T: Canon + PartialEq>(shape: &str, s: &Sample<T>) -> Value {
    let mut case = sampled(&s.fields, &s.value, None);
    case["shape"] = shape.into();
    case
}

fn signed<T: Canon + PartialEq>(shape: &str, s: &Sample<T>, st: Statement) -> Value {
    let mut case = case(shape, s);
    case["statement"] = st.name().into();
    case["signed_bytes"] = hx(signed_bytes(st, CHAIN, &encode(&s.value)));
    case
}

#[test]
fn evidence() {
    let mut list = vec![
        case("checkpoint", &made::checkpoint()),
        signed("cosign", &made::cosign(), Statement::Cosign),
        case("cosignature", &made::cosignature()),
        signed("epoch body", &made::epoch_body(), Statement::Epoch),
        case("signed epoch", &made::signed_epoch()),
        case("dispute", &made::dispute()),
        case("leaves", &made::leaves()),
        case("time-stamp", &made::time_stamp()),
    ];
    list.extend(made::checkpoints().iter().map(|s| case("checkpoint view", s)));
    list.extend(made::epochs().iter().map(|s| case("epoch view", s)));
    list.extend(made::named().iter().map(|s| case("named operation", s)));
    let body = encode(&made::epoch_body().value);
    let refused_checkpoints = [("8466636974792d310c00", "cut short"), ("80", "no fields"), ("f6", "null")];
    let refused_epochs = [("8180", "without a signature"), ("82f680", "null for the body")];
    kept(
        "evidence.json",
        &json!({
            "about": "Checkpoints, epochs, disputes, named operations, proofs of leaves, time-stamps. Signatures are Ed25519 here to be short: the ledger asks for hybrid ones",
            "chain": CHAIN, "values": list, "epoch_body_sha256": hx(sha256(&[&body])),
            "checkpoint_sha256": hx(sha256(&[&encode(&made::checkpoint().value)])),
            "refused_checkpoints": shape::<Checkpoint>("checkpoint", &[], &refused_checkpoints)["refused"],
            "refused_signed_epochs": shape::<SignedEpoch>("signed epoch", &[], &refused_epochs)["refused"],
        }),
    );
}
