//! The signature over a token's signed attributes, verified with aws-lc-rs.

use super::{TspError, asn1};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use cms::signed_data::SignerInfo;
use der::Encode;
use der::asn1::ObjectIdentifier;
use x509_cert::Certificate;

/// Bits of a hash, where the algorithm is one of SHA-2.
fn bits(hash: ObjectIdentifier) -> Option<u16> {
    match hash {
        asn1::SHA256 => Some(256),
        asn1::SHA384 => Some(384),
        asn1::SHA512 => Some(512),
        _ => None,
    }
}

/// How the signature is verified: by the key's kind, the signature's algorithm and, where that leaves it open, the digest's.
fn algorithm(
    key: ObjectIdentifier,
    curve: Option<ObjectIdentifier>,
    signature: ObjectIdentifier,
    digest: ObjectIdentifier,
) -> Option<&'static dyn VerificationAlgorithm> {
    let hash = match signature {
        asn1::RSA_SHA256 | asn1::ECDSA_SHA256 => 256,
        asn1::RSA_SHA384 | asn1::ECDSA_SHA384 => 384,
        asn1::RSA_SHA512 | asn1::ECDSA_SHA512 => 512,
        asn1::RSA | asn1::RSA_PSS => bits(digest)?,
        _ => return None,
    };
    let ecdsa = matches!(signature, asn1::ECDSA_SHA256 | asn1::ECDSA_SHA384 | asn1::ECDSA_SHA512);
    let out: &dyn VerificationAlgorithm = match (key, curve, ecdsa, hash) {
        (asn1::EC_KEY, Some(asn1::P256), true, 256) => &ECDSA_P256_SHA256_ASN1,
        (asn1::EC_KEY, Some(asn1::P256), true, 384) => &ECDSA_P256_SHA384_ASN1,
        (asn1::EC_KEY, Some(asn1::P256), true, _) => &ECDSA_P256_SHA512_ASN1,
        (asn1::EC_KEY, Some(asn1::P384), true, 256) => &ECDSA_P384_SHA256_ASN1,
        (asn1::EC_KEY, Some(asn1::P384), true, 384) => &ECDSA_P384_SHA384_ASN1,
        (asn1::EC_KEY, Some(asn1::P384), true, _) => &ECDSA_P384_SHA512_ASN1,
        (asn1::RSA | asn1::RSA_PSS, _, false, hash) => match (signature == asn1::RSA_PSS, hash) {
            (true, 256) => &RSA_PSS_2048_8192_SHA256,
            (true, 384) => &RSA_PSS_2048_8192_SHA384,
            (true, _) => &RSA_PSS_2048_8192_SHA512,
            // A key for PSS alone signs nothing else.
            (false, _) if key == asn1::RSA_PSS => return None,
            (false, 256) => &RSA_PKCS1_2048_8192_SHA256,
            (false, 384) => &RSA_PKCS1_2048_8192_SHA384,
            (false, _) => &RSA_PKCS1_2048_8192_SHA512,
        },
        _ => return None,
    };
    Some(out)
}

/// Verifies the signer's signature with its certificate's key. What is signed is the attributes as a SET (RFC 5652, 5.4).
pub(crate) fn verify(signer: &SignerInfo, certificate: &Certificate) -> Result<(), TspError> {
    let attributes = signer.signed_attrs.as_ref().ok_or(TspError::Attributes("are missing"))?;
    let signed = attributes.to_der().map_err(|_| TspError::Malformed("token"))?;
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
    let unknown = || TspError::Algorithm(signer.signature_algorithm.oid.to_string());
    let algorithm = algorithm(key.algorithm.oid, curve, signer.signature_algorithm.oid, signer.digest_alg.oid);
    let key = key.subject_public_key.as_bytes().ok_or(TspError::Malformed("certificate"))?;
    UnparsedPublicKey::new(algorithm.ok_or_else(unknown)?, key)
        .verify(&signed, signer.signature.as_bytes())
        .map_err(|_| TspError::Signature)
}
