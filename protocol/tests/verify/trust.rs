//! trust.json: pinned by its fingerprint, chained by signatures.

use crate::world::{
    AGENCIES, CHAIN, Spec, agency, agency_keys, genesis, listed, make, oversight, root_key, trust, vals,
};
use concordat_protocol::cbor::encode;
use concordat_protocol::keys::{SigningKey, Statement};
use concordat_protocol::trust::{Epoch, EpochSignature, Trust, TrustError};
use concordat_protocol::verify::verify;

fn sign(epoch: &mut Epoch, signers: &[(&str, SigningKey)]) {
    let body = encode(&epoch.body());
    let one = |(name, key): &(&str, SigningKey)| EpochSignature {
        agency: agency(name),
        signature: key.sign(Statement::Epoch, CHAIN, &body),
    };
    epoch.signatures = signers.iter().map(one).collect();
}

fn roots(names: &[&'static str]) -> Vec<(&'static str, SigningKey)> {
    names.iter().map(|n| (*n, root_key(n))).collect()
}

/// The city after it changed all validator keys at height 100.
fn chained(signers: &[(&'static str, SigningKey)]) -> Trust {
    let mut trust = trust();
    let mut next = Epoch::next(trust.epochs.last(), 100, listed(&vals("b")), agency_keys());
    sign(&mut next, signers);
    trust.epochs.push(next);
    trust
}

#[test]
fn later_epochs_are_believed_when_two_thirds_of_the_one_before_signed() {
    let trust = chained(&roots(&AGENCIES[1..]));
    trust.check().unwrap();
    let late = || Spec { height: 120, vals: vals("b"), ..Spec::default() };
    verify(&make(&late()).bytes(), &trust, None).unwrap();
    verify(&make(&Spec::default()).bytes(), &trust, None).unwrap();
    // New validators cannot speak for old heights, nor old ones for new.
    assert_eq!(
        verify(&make(&Spec { vals: vals("b"), ..Spec::default() }).bytes(), &trust, None).unwrap_err().check,
        "validators"
    );
    assert_eq!(
        verify(&make(&Spec { height: 120, ..Spec::default() }).bytes(), &trust, None).unwrap_err().check,
        "validators"
    );
    assert_eq!(verify(&make(&late()).bytes(), &crate::world::trust(), None).unwrap_err().check, "validators");
}

#[test]
fn forged_epochs_are_refused() {
    let two = chained(&roots(&AGENCIES[..2]));
    let twice = chained(&roots(&["court", "court", "grid"]));
    let stranger = chained(&[roots(&AGENCIES[..2]), roots(&["stranger"])].concat_all());
    let wrong = chained(&[roots(&AGENCIES[..2]), vec![("police", root_key("grid"))]].concat_all());
    for forged in [&two, &twice, &stranger, &wrong] {
        let err = forged.check().unwrap_err();
        assert!(matches!(err, TrustError::Epoch { n: 1, .. }), "{err}");
        let e = verify(&make(&Spec::default()).bytes(), forged, None).unwrap_err();
        assert_eq!(e.check, "trust", "{e}");
    }
    // Signed, then changed.
    let change: [fn(&mut Epoch); 6] = [
        |e| e.from_height += 1,
        |e| e.validators = listed(&vals("c")),
        |e| {
            (e.validators, e.validators_hash) = {
                let v = listed(&vals("c"));
                let h = concordat_protocol::trust::validators_hash(&v);
                (v, h)
            }
        },
        |e| e.prev_hash[0] ^= 1,
        // One agency cannot call another's validator its own, nor all of them: the next epoch's signers are counted so.
        |e| (e.validators[0].key, e.validators[1].key) = (e.validators[1].key, e.validators[0].key),
        |e| e.validators.iter_mut().for_each(|v| v.agency = agency("grid")),
    ];
    for change in change {
        let mut trust = chained(&roots(&AGENCIES));
        trust.check().unwrap();
        change(&mut trust.epochs[1]);
        assert!(trust.check().is_err());
    }
}

trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}

impl<T, const N: usize> ConcatAll<T> for [Vec<T>; N] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn the_fingerprint_pins_genesis_and_oversight_and_outlives_epochs() {
    let first = trust();
    let print = first.fingerprint();
    assert_eq!(print.split(' ').map(str::len).collect::<Vec<_>>(), [4; 8]);
    assert_eq!(chained(&roots(&AGENCIES)).fingerprint(), print);
    assert_ne!(Trust { oversight: vec![], ..first.clone() }.fingerprint(), print);
    // With this genesis there are no other validators or keys: the fingerprint covers them.
    let forged = |validators, keys| {
        let epochs = vec![Epoch::next(None, 1, validators, keys)];
        let forged = Trust { epochs, ..first.clone() };
        assert_eq!(forged.fingerprint(), print, "a forger keeps the fingerprint");
        let err = Trust::from_json(&forged.to_json()).unwrap_err();
        assert!(matches!(err, TrustError::Genesis(_)), "{err}");
        assert_eq!(verify(&make(&Spec::default()).bytes(), &forged, None).unwrap_err().check, "trust");
    };
    forged(listed(&vals("forger")), agency_keys());
    let mut keys = agency_keys();
    keys[0].root = root_key("forger").public().clone();
    forged(listed(&vals("a")), keys);
    let mut keys = agency_keys();
    keys[0].cosign = keys[1].cosign.clone();
    forged(listed(&vals("a")), keys);
    // Nor may the genesis file name one set of validators to CometBFT and another to the application.
    let mixed =
        genesis(&vals("a")).replace(&hex::encode(vals("a")[0].key.verifying_key().to_bytes()), &hex::encode([7; 32]));
    assert!(matches!(Trust::from_genesis(mixed, oversight()), Err(TrustError::Genesis(_))));
}

#[test]
fn the_file_reads_back_and_refuses_what_it_does_not_know() {
    let trust = chained(&roots(&AGENCIES[..3]));
    let text = trust.to_json();
    assert_eq!(Trust::from_json(&text).unwrap(), trust);
    let unknown = text.replacen("\"version\"", "\"extra\": 1, \"version\"", 1);
    assert!(matches!(Trust::from_json(&unknown), Err(TrustError::Parse(_))));
    let future = text.replacen("\"version\": 1", "\"version\": 2", 1);
    assert!(matches!(Trust::from_json(&future), Err(TrustError::Version(2))));
    assert!(Trust::from_json("{}").is_err());
}

#[test]
fn the_validators_hash_is_cometbfts() {
    let mut vals = vals("x");
    for (v, power) in vals.iter_mut().zip([1, 127, 128, 70_000]) {
        v.power = power;
    }
    let info = |v: &crate::world::Val| {
        let key = tendermint::PublicKey::from_raw_ed25519(v.key.verifying_key().as_bytes()).unwrap();
        tendermint::validator::Info::new(key, v.power.try_into().unwrap())
    };
    let theirs = tendermint::validator::Set::new(vals.iter().map(info).collect(), None).hash();
    assert_eq!(theirs.as_bytes(), concordat_protocol::trust::validators_hash(&listed(&vals)));
}
