//! Time-stamps of RFC 3161: a request's bytes, and the judgement of an answer or of a kept token. No clock, network or file.
//!
//! A token counts when one of the *given* certificates signed it: whose certificate that is, and whether it was revoked,
//! the operator knows, not this module.

use aws_lc_rs::digest;
use cms::cert::IssuerAndSerialNumber;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use concordat_protocol::hash::Hash;
use der::asn1::{Int, ObjectIdentifier, OctetString};
use der::{Any, Decode, Encode, Tag, Tagged};
use spki::AlgorithmIdentifierOwned;
use x509_cert::Certificate;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier};

pub(crate) mod asn1;
pub(crate) mod signature;
mod time;

use asn1::{
    EssCertIdV2, MessageImprint, SigningCertificate, SigningCertificateV2, TimeStampReq, TimeStampResp, TstInfo,
};
use time::generalized_ms;

#[cfg(test)]
mod tests;

/// Longest answer read, bytes.
pub const RESPONSE_BYTES_MAX: usize = 65_536;
/// How far the authority's clock may stand before the ledger's tick, milliseconds, beyond its own accuracy.
pub const TOLERANCE_MS: i64 = 60_000;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 16;

/// Why an answer or a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TspError {
    /// It is not the DER structure that it should be.
    #[error("the {0} is not the DER structure of RFC 3161")]
    Malformed(&'static str),
    /// The authority did not grant a token.
    #[error("the authority granted no time-stamp: status {status} {text}")]
    NotGranted {
        /// PKIStatus.
        status: u8,
        /// Its words.
        text: String,
    },
    /// The token is for another hash.
    #[error("the token is for another hash than the checkpoint's: it proves nothing of it")]
    Imprint,
    /// The token answers another request.
    #[error("the token has another nonce than the request: it answers another one, or is an old one repeated")]
    Nonce,
    /// None of the given certificates is the signer's.
    #[error("none of the given certificates is the signer's: give the certificate of this authority")]
    Signer,
    /// The certificate may not sign time-stamps, or not at that time.
    #[error("the signer's certificate {0}")]
    Certificate(&'static str),
    /// The signed attributes lack something or contradict the token.
    #[error("the signed attributes {0}")]
    Attributes(&'static str),
    /// An algorithm that is not accepted.
    #[error("the algorithm {0} is not accepted: RSA from 2048 bits and ECDSA on P-256 and P-384, with SHA-2, are")]
    Algorithm(String),
    /// The signature is not the certificate's over these bytes.
    #[error("the token's signature does not verify: it was changed, or another key signed it")]
    Signature,
    /// The token's time lies before what it stamps.
    #[error("the token's time lies {0} s before the checkpoint's tick: one of the clocks is wrong")]
    Time(u64),
}

impl TspError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "timestamp-malformed",
            Self::NotGranted { .. } => "timestamp-not-granted",
            Self::Imprint => "timestamp-imprint",
            Self::Nonce => "timestamp-nonce",
            Self::Signer => "timestamp-signer",
            Self::Certificate(_) => "timestamp-certificate",
            Self::Attributes(_) => "timestamp-attributes",
            Self::Algorithm(_) => "timestamp-algorithm",
            Self::Signature => "timestamp-signature",
            Self::Time(_) => "timestamp-time",
        }
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stamp {
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// How exact, milliseconds; 0 when it does not say.
    pub accuracy_ms: i64,
    /// The authority's number of the token, hex.
    pub serial: String,
    /// The policy under which it was given.
    pub policy: String,
    /// Subject of the signer's certificate.
    pub signer: String,
}

impl Stamp {
    /// Milliseconds from the checkpoint's tick to the token's time.
    ///
    /// # Errors
    /// The token is older than the tick by more than its accuracy and [`TOLERANCE_MS`].
    pub fn lag_ms(&self, tick_ms: u64) -> Result<i64, TspError> {
        let lag = self.time_ms.saturating_sub(i64::try_from(tick_ms).unwrap_or(i64::MAX));
        if lag.saturating_add(self.accuracy_ms).saturating_add(TOLERANCE_MS) < 0 {
            return Err(TspError::Time(lag.unsigned_abs() / 1_000));
        }
        Ok(lag)
    }
}

/// Reads certificates: PEM blocks one after another, or one in DER.
///
/// # Errors
/// There is none, or one does not parse.
pub fn read_certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, TspError> {
    let bad = |_| TspError::Malformed("certificate");
    let found = if bytes.starts_with(b"-----BEGIN") || bytes.windows(11).any(|w| w == b"\n-----BEGIN") {
        let all = Certificate::load_pem_chain(bytes).map_err(bad)?;
        all.iter().map(Encode::to_der).collect::<Result<Vec<_>, _>>().map_err(bad)?
    } else {
        Certificate::from_der(bytes).map_err(bad)?;
        vec![bytes.to_vec()]
    };
    if found.is_empty() { Err(TspError::Malformed("certificate")) } else { Ok(found) }
}

/// A request for a time-stamp of a SHA-256, with the authority's certificate in the answer.
///
/// # Errors
/// None in practice: the encoder's.
pub fn request(imprint: &Hash, nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>, TspError> {
    let bad = |_| TspError::Malformed("request");
    let message_imprint = MessageImprint {
        hash_algorithm: AlgorithmIdentifierOwned { oid: asn1::SHA256, parameters: Some(Any::null()) },
        hashed_message: OctetString::new(imprint.to_vec()).map_err(bad)?,
    };
    let nonce = Int::new(&positive(nonce)).map_err(bad)?;
    TimeStampReq { version: 1, message_imprint, nonce, cert_req: true }.to_der().map_err(bad)
}

/// The same number in one encoding: positive, and with as many bytes as it came with.
fn positive(mut nonce: [u8; NONCE_LEN]) -> [u8; NONCE_LEN] {
    nonce[0] = nonce[0] & 0x3f | 0x40;
    nonce
}

/// Judges an authority's answer; returns the token's DER.
///
/// # Errors
/// Whatever is wrong with it.
pub fn check_response(
    response: &[u8],
    imprint: &Hash,
    nonce: [u8; NONCE_LEN],
    certificates: &[Vec<u8>],
) -> Result<(Vec<u8>, Stamp), TspError> {
    if response.len() > RESPONSE_BYTES_MAX {
        return Err(TspError::Malformed("answer"));
    }
    let answer = TimeStampResp::from_der(response).map_err(|_| TspError::Malformed("answer"))?;
    // 0 granted, 1 granted with modifications.
    if answer.status.status > 1 {
        let text = answer.status.status_string.unwrap_or_default().join(" ");
        return Err(TspError::NotGranted { status: answer.status.status, text });
    }
    let token = answer.token.ok_or(TspError::Malformed("answer"))?;
    let token = token.to_der().map_err(|_| TspError::Malformed("answer"))?;
    let stamp = check(&token, imprint, Some(&positive(nonce)), certificates)?;
    Ok((token, stamp))
}

/// Judges a kept token.
///
/// # Errors
/// Whatever is wrong with it.
pub fn check_token(token: &[u8], imprint: &Hash, certificates: &[Vec<u8>]) -> Result<Stamp, TspError> {
    check(token, imprint, None, certificates)
}

fn check(token: &[u8], imprint: &Hash, nonce: Option<&[u8]>, given: &[Vec<u8>]) -> Result<Stamp, TspError> {
    let malformed = |_| TspError::Malformed("token");
    if token.len() > RESPONSE_BYTES_MAX {
        return Err(TspError::Malformed("token"));
    }
    let content = ContentInfo::from_der(token).map_err(malformed)?;
    if content.content_type != asn1::ID_SIGNED_DATA {
        return Err(TspError::Malformed("token"));
    }
    let signed: SignedData = content.content.decode_as().map_err(malformed)?;
    if signed.encap_content_info.econtent_type != asn1::ID_CT_TST_INFO {
        return Err(TspError::Malformed("token"));
    }
    let content = signed.encap_content_info.econtent.as_ref().ok_or(TspError::Malformed("token"))?;
    if content.tag() != Tag::OctetString {
        return Err(TspError::Malformed("token"));
    }
    let info = TstInfo::from_der(content.value()).map_err(malformed)?;
    let wanted = |i: &MessageImprint| i.hash_algorithm.oid == asn1::SHA256 && i.hashed_message.as_bytes() == imprint;
    if info.version != 1 || !wanted(&info.message_imprint) {
        return Err(if info.version == 1 { TspError::Imprint } else { TspError::Malformed("token") });
    }
    if nonce.is_some_and(|n| info.nonce.as_ref().map(Int::as_bytes) != Some(n)) {
        return Err(TspError::Nonce);
    }
    let (time_ms, accuracy_ms) = times(&info)?;
    // RFC 3161: a token has the authority's signature and no other.
    let [signer] = signed.signer_infos.0.as_slice() else { return Err(TspError::Malformed("token")) };
    let (raw, certificate) = signers_certificate(signer, given)?;
    certificate_fits(&certificate, time_ms)?;
    attributes_fit(signer, content.value(), raw)?;
    signature::verify(signer, &certificate)?;
    Ok(Stamp {
        time_ms,
        accuracy_ms,
        serial: hex::encode(info.serial_number.as_bytes()),
        policy: info.policy.to_string(),
        signer: certificate.tbs_certificate.subject.to_string(),
    })
}

fn times(info: &TstInfo) -> Result<(i64, i64), TspError> {
    if info.gen_time.tag() != Tag::GeneralizedTime {
        return Err(TspError::Malformed("token's time"));
    }
    let time = generalized_ms(info.gen_time.value()).ok_or(TspError::Malformed("token's time"))?;
    let accuracy = info.accuracy.as_ref().map_or(0, |a| {
        let part = |v: Option<u16>| i64::from(v.unwrap_or(0));
        i64::from(a.seconds.unwrap_or(0)) * 1_000 + part(a.millis) + i64::from(part(a.micros) > 0)
    });
    Ok((time, accuracy))
}

/// The given certificate that the signer names.
fn signers_certificate<'a>(signer: &SignerInfo, given: &'a [Vec<u8>]) -> Result<(&'a [u8], Certificate), TspError> {
    for raw in given {
        let certificate = Certificate::from_der(raw).map_err(|_| TspError::Malformed("certificate"))?;
        let tbs = &certificate.tbs_certificate;
        let named = match &signer.sid {
            SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber { issuer, serial_number }) => {
                *issuer == tbs.issuer && *serial_number == tbs.serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(id) => {
                matches!(tbs.get::<SubjectKeyIdentifier>(), Ok(Some((_, own))) if own == *id)
            }
        };
        if named {
            return Ok((raw, certificate));
        }
    }
    Err(TspError::Signer)
}

/// RFC 3161, 2.3: the key signs time-stamps and nothing else, and says so critically.
fn certificate_fits(certificate: &Certificate, time_ms: i64) -> Result<(), TspError> {
    let tbs = &certificate.tbs_certificate;
    let bad = |_| TspError::Certificate("has an extension that does not parse");
    match tbs.get::<ExtendedKeyUsage>().map_err(bad)? {
        Some((true, usage)) if usage.0 == [asn1::ID_KP_TIME_STAMPING] => {}
        Some((false, usage)) if usage.0 == [asn1::ID_KP_TIME_STAMPING] => {
            return Err(TspError::Certificate("does not mark its use for time-stamps as critical"));
        }
        _ => return Err(TspError::Certificate("is not for time-stamps alone")),
    }
    if let Some((_, usage)) = tbs.get::<KeyUsage>().map_err(bad)?
        && !(usage.digital_signature() || usage.non_repudiation())
    {
        return Err(TspError::Certificate("is not for signatures"));
    }
    let ms = |t: &x509_cert::time::Time| i64::try_from(t.to_unix_duration().as_millis()).unwrap_or(i64::MAX);
    if time_ms < ms(&tbs.validity.not_before) {
        return Err(TspError::Certificate("was not valid yet at the token's time"));
    }
    if time_ms > ms(&tbs.validity.not_after) {
        return Err(TspError::Certificate("had expired at the token's time"));
    }
    Ok(())
}

/// The one value of an attribute, none if it is not there.
fn attribute(signer: &SignerInfo, oid: ObjectIdentifier) -> Result<Option<&Any>, TspError> {
    let mut found = signer.signed_attrs.iter().flat_map(|a| a.iter()).filter(|a| a.oid == oid);
    let Some(first) = found.next() else { return Ok(None) };
    match (first.values.as_slice(), found.next()) {
        ([one], None) => Ok(Some(one)),
        _ => Err(TspError::Attributes("repeat one of them")),
    }
}

fn attributes_fit(signer: &SignerInfo, content: &[u8], certificate: &[u8]) -> Result<(), TspError> {
    let kind = attribute(signer, asn1::ID_CONTENT_TYPE)?.and_then(|v| v.decode_as::<ObjectIdentifier>().ok());
    if kind != Some(asn1::ID_CT_TST_INFO) {
        return Err(TspError::Attributes("do not say that this is a time-stamp"));
    }
    let hash = digest_of(&signer.digest_alg, content)?;
    let said = attribute(signer, asn1::ID_MESSAGE_DIGEST)?.and_then(|v| v.decode_as::<OctetString>().ok());
    if said.as_ref().map(OctetString::as_bytes) != Some(hash.as_ref()) {
        return Err(TspError::Attributes("have the hash of another content"));
    }
    let other = TspError::Attributes("name another certificate");
    let mut named = false;
    if let Some(value) = attribute(signer, asn1::ID_SIGNING_CERT_V2)? {
        let list: SigningCertificateV2 = value.decode_as().map_err(|_| other.clone())?;
        let first = list.certs.first().ok_or_else(|| other.clone())?;
        named = first.cert_hash.as_bytes() == ess_hash(first, certificate)?.as_ref();
        if !named {
            return Err(other);
        }
    }
    if let Some(value) = attribute(signer, asn1::ID_SIGNING_CERT)? {
        let list: SigningCertificate = value.decode_as().map_err(|_| other.clone())?;
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
        named = list.certs.first().is_some_and(|c| c.cert_hash.as_bytes() == hash.as_ref());
    }
    if named { Ok(()) } else { Err(other) }
}

fn ess_hash(id: &EssCertIdV2, certificate: &[u8]) -> Result<digest::Digest, TspError> {
    match &id.hash_algorithm {
        Some(algorithm) => digest_of(algorithm, certificate),
        None => Ok(digest::digest(&digest::SHA256, certificate)),
    }
}

fn digest_of(algorithm: &AlgorithmIdentifierOwned, bytes: &[u8]) -> Result<digest::Digest, TspError> {
    let algorithm = match algorithm.oid {
        asn1::SHA256 => &digest::SHA256,
        asn1::SHA384 => &digest::SHA384,
        asn1::SHA512 => &digest::SHA512,
        other => return Err(TspError::Algorithm(other.to_string())),
    };
    Ok(digest::digest(algorithm, bytes))
}
