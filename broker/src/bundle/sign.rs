//! The signature over the manifest: CAdES-B, detached (ETSI EN 319 122-1), ECDSA on P-256 with a self-signed certificate.
//!
//! The key signs manifests and nothing else, it is not on the ledger, and no proof rests on it: it says only which node
//! exported (docs/adr/0023). P-256, because that is what readers of such containers know.

use super::BundleError;
use crate::outside::tsp::{asn1, signature};
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use concordat_protocol::hash::sha256;
use der::asn1::{BitString, GeneralizedTime, ObjectIdentifier, OctetString, SetOfVec, UtcTime};
use der::{Any, Decode, Encode};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::attr::Attribute;
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::ext::Extension;
use x509_cert::name::RdnSequence;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

/// Files of the key and of its certificate in the folder of keys.
pub const KEY_FILE: &str = "bundle.key";
/// See [`KEY_FILE`].
pub const CERTIFICATE_FILE: &str = "bundle.crt";
/// Twenty years: the certificate says whose it is, not until when a proof holds.
const VALID: Duration = Duration::from_secs(20 * 365 * 86_400);

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// The key with its certificate.
pub struct BundleKey {
    key: EcdsaKeyPair,
    certificate: Certificate,
    der: Vec<u8>,
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut out = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).unwrap_or_default());
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// A certificate as PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der).to_string()
}

fn unpem(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let body: Zeroizing<String> =
        Zeroizing::new(text.trim().strip_prefix(&begin)?.strip_suffix(&end)?.split_whitespace().collect());
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}

impl BundleKey {
    /// Reads the key of an agency, or makes it with its certificate where there is none (mode 0600).
    ///
    /// # Errors
    /// A file cannot be read or written, others can read the key, or the two do not belong together.
    pub fn open(keys: &Path, agency: &str, now_ms: u64) -> Result<Self, BundleError> {
        let path = keys.join(KEY_FILE);
        let fail = |why: &str| BundleError::Key(format!("{}: {why}", path.display()));
        match std::fs::metadata(&path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                Err(fail("others can read it: remove it and bundle.crt; the next export makes others"))
            }
            Ok(_) => Self::load(keys),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
                let made = made.map_err(|_| fail("the system gives no key"))?;
                let key = Self::make(made.as_ref(), agency, now_ms)?;
                let write = |name: &str, text: &str| -> std::io::Result<()> {
                    let mut file =
                        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(keys.join(name))?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                };
                // The certificate first: without its key it is made again.
                write(CERTIFICATE_FILE, &certificate_pem(&key.der)).map_err(|e| fail(&e.to_string()))?;
                write(KEY_FILE, &pem("PRIVATE KEY", made.as_ref())).map_err(|e| fail(&e.to_string()))?;
                Ok(key)
            }
            Err(e) => Err(fail(&e.to_string())),
        }
    }

    fn load(keys: &Path) -> Result<Self, BundleError> {
        let read = |name: &str, label: &str| {
            let path = keys.join(name);
            let text = std::fs::read_to_string(&path).map(Zeroizing::new);
            let text = text.map_err(|e| BundleError::Key(format!("{}: {e}", path.display())))?;
            unpem(&text, label).ok_or_else(|| BundleError::Key(format!("{}: it is no PEM {label}", path.display())))
        };
        let (secret, der) = (read(KEY_FILE, "PRIVATE KEY")?, read(CERTIFICATE_FILE, "CERTIFICATE")?);
        let bad = |why: &str| BundleError::Key(format!("{}: {why}", keys.join(CERTIFICATE_FILE).display()));
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &secret)
            .map_err(|_| BundleError::Key(format!("{}: it is no P-256 key", keys.join(KEY_FILE).display())))?;
        let certificate = Certificate::from_der(&der).map_err(|_| bad("it does not parse"))?;
        let public = certificate.tbs_certificate.subject_public_key_info.subject_public_key.as_bytes();
        if public != Some(key.public_key().as_ref()) {
            return Err(bad("it is of another key than bundle.key: remove both, the next export makes others"));
        }
        Ok(Self { key, certificate, der: der.to_vec() })
    }

    fn make(pkcs8: &[u8], agency: &str, now_ms: u64) -> Result<Self, BundleError> {
        let failed = |_| BundleError::Sign("its certificate could not be encoded");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| BundleError::Sign("the key was refused"))?;
        let from = Duration::from_secs(now_ms / 1_000);
        let time = |d| GeneralizedTime::from_unix_duration(d).map(Time::GeneralTime);
        // RFC 5280: years up to 2049 are UTCTime.
        let time = |d| UtcTime::from_unix_duration(d).map(Time::UtcTime).or_else(|_| time(d));
        let name: RdnSequence = format!("CN=Concordat evidence export,O={agency}").parse().map_err(failed)?;
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|_| BundleError::Sign("the system gives no randomness"))?;
        serial[0] = serial[0] & 0x3f | 0x40;
        let curve = AlgorithmIdentifierOwned { oid: asn1::EC_KEY, parameters: Some(Any::from(asn1::P256)) };
        let public = BitString::from_bytes(key.public_key().as_ref()).map_err(failed)?;
        let extension = |extn_id, value: &[u8]| -> Result<Extension, BundleError> {
            Ok(Extension { extn_id, critical: true, extn_value: OctetString::new(value).map_err(failed)? })
        };
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial).map_err(failed)?,
            signature: ecdsa(),
            issuer: name.clone(),
            validity: Validity {
                not_before: time(from).map_err(failed)?,
                not_after: time(from + VALID).map_err(failed)?,
            },
            subject: name,
            subject_public_key_info: SubjectPublicKeyInfoOwned { algorithm: curve, subject_public_key: public },
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(vec![
                // digitalSignature and nonRepudiation; no CA.
                extension(KEY_USAGE, &[0x03, 0x02, 0x06, 0xc0])?,
                extension(BASIC_CONSTRAINTS, &[0x30, 0x00])?,
            ]),
        };
        let signed = tbs_certificate.to_der().map_err(failed)?;
        let signature = sign(&key, &signed)?;
        let signature = BitString::from_bytes(&signature).map_err(failed)?;
        let certificate = Certificate { tbs_certificate, signature_algorithm: ecdsa(), signature };
        let der = certificate.to_der().map_err(failed)?;
        Ok(Self { key, certificate, der })
    }

    /// Signs a manifest: DER of a `ContentInfo`.
    ///
    /// # Errors
    /// The library fails.
    pub fn sign(&self, manifest: &[u8], now_ms: u64) -> Result<Vec<u8>, BundleError> {
        let failed = |_| BundleError::Sign("it could not be encoded");
        let time = UtcTime::from_unix_duration(Duration::from_secs(now_ms / 1_000)).map_err(failed)?;
        let named = asn1::SigningCertificateV2 {
            certs: vec![asn1::EssCertIdV2 {
                hash_algorithm: None,
                cert_hash: OctetString::new(sha256(&[&self.der])).map_err(failed)?,
                issuer_serial: None,
            }],
            policies: None,
        };
        let digest = OctetString::new(sha256(&[manifest])).map_err(failed)?;
        let attribute = |oid, value: Any| one(value).map(|values| Attribute { oid, values });
        let attributes = vec![
            attribute(asn1::ID_CONTENT_TYPE, Any::from(ID_DATA))?,
            attribute(asn1::ID_MESSAGE_DIGEST, Any::encode_from(&digest).map_err(failed)?)?,
            attribute(ID_SIGNING_TIME, Any::encode_from(&time).map_err(failed)?)?,
            attribute(asn1::ID_SIGNING_CERT_V2, Any::encode_from(&named).map_err(failed)?)?,
        ];
        let attributes = SetOfVec::try_from(attributes).map_err(failed)?;
        let signature = sign(&self.key, &attributes.to_der().map_err(failed)?)?;
        let hash = AlgorithmIdentifierOwned { oid: asn1::SHA256, parameters: None };
        let tbs = &self.certificate.tbs_certificate;
        let signer = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: tbs.issuer.clone(),
                serial_number: tbs.serial_number.clone(),
            }),
            digest_alg: hash.clone(),
            signed_attrs: Some(attributes),
            signature_algorithm: ecdsa(),
            signature: OctetString::new(signature).map_err(failed)?,
            unsigned_attrs: None,
        };
        let signed = SignedData {
            version: CmsVersion::V1,
            digest_algorithms: one(hash)?,
            encap_content_info: EncapsulatedContentInfo { econtent_type: ID_DATA, econtent: None },
            certificates: Some(CertificateSet(one(CertificateChoices::Certificate(self.certificate.clone()))?)),
            crls: None,
            signer_infos: SignerInfos(one(signer)?),
        };
        let content = Any::encode_from(&signed).map_err(failed)?;
        ContentInfo { content_type: asn1::ID_SIGNED_DATA, content }.to_der().map_err(failed)
    }
}

fn one<T: der::DerOrd>(value: T) -> Result<SetOfVec<T>, BundleError> {
    let mut set = SetOfVec::new();
    set.insert(value).map_err(|_| BundleError::Sign("it could not be encoded"))?;
    Ok(set)
}

fn ecdsa() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: asn1::ECDSA_SHA256, parameters: None }
}

fn sign(key: &EcdsaKeyPair, bytes: &[u8]) -> Result<Vec<u8>, BundleError> {
    let signature = key.sign(&SystemRandom::new(), bytes).map_err(|_| BundleError::Sign("the library failed"))?;
    Ok(signature.as_ref().to_vec())
}

/// Who signed a manifest, by the certificate that came along: it names the exporter, and nobody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Signer {
    /// Subject of the certificate.
    pub subject: String,
    /// When, by the signer's own clock, milliseconds since 1970.
    pub time_ms: u64,
    /// SHA-256 of the certificate, hex.
    pub certificate_sha256: String,
}

/// Checks a signature over a manifest.
///
/// # Errors
/// One sentence about what is wrong.
pub fn verify(p7s: &[u8], manifest: &[u8]) -> Result<Signer, String> {
    let not = |_| "it is no CMS SignedData".to_owned();
    let content = ContentInfo::from_der(p7s).map_err(not)?;
    if content.content_type != asn1::ID_SIGNED_DATA {
        return Err("it is no CMS SignedData".into());
    }
    let signed: SignedData = content.content.decode_as().map_err(not)?;
    if signed.encap_content_info.econtent.is_some() {
        return Err("it carries a content of its own: it must be detached".into());
    }
    let [signer] = signed.signer_infos.0.as_slice() else { return Err("it must have one signer".into()) };
    let certificates = signed.certificates.as_ref().map(|c| c.0.as_slice()).unwrap_or_default();
    let [CertificateChoices::Certificate(certificate)] = certificates else {
        return Err("it must carry the signer's certificate and no other".into());
    };
    let der = certificate.to_der().map_err(not)?;
    let tbs = &certificate.tbs_certificate;
    let by = IssuerAndSerialNumber { issuer: tbs.issuer.clone(), serial_number: tbs.serial_number.clone() };
    if signer.sid != SignerIdentifier::IssuerAndSerialNumber(by) || signer.digest_alg.oid != asn1::SHA256 {
        return Err("its signer is not the one of the certificate, or it is not over SHA-256".into());
    }
    let value = |oid| -> Result<&Any, String> {
        let mut found = signer.signed_attrs.iter().flat_map(|a| a.iter()).filter(|a| a.oid == oid);
        match (found.next().map(|a| a.values.as_slice()), found.next()) {
            (Some([one]), None) => Ok(one),
            _ => Err(format!("the signed attribute {oid} is not there once")),
        }
    };
    let wrong = |_| "a signed attribute does not parse".to_owned();
    if value(asn1::ID_CONTENT_TYPE)?.decode_as::<ObjectIdentifier>().map_err(wrong)? != ID_DATA {
        return Err("its content type is another".into());
    }
    let said: OctetString = value(asn1::ID_MESSAGE_DIGEST)?.decode_as().map_err(wrong)?;
    if said.as_bytes() != digest::digest(&digest::SHA256, manifest).as_ref() {
        return Err("it is over another manifest: the manifest was altered".into());
    }
    let named: asn1::SigningCertificateV2 = value(asn1::ID_SIGNING_CERT_V2)?.decode_as().map_err(wrong)?;
    let own = sha256(&[&der]);
    let fits = |c: &asn1::EssCertIdV2| c.hash_algorithm.is_none() && c.cert_hash.as_bytes() == own;
    if !named.certs.first().is_some_and(fits) {
        return Err("it names another certificate than the one it carries".into());
    }
    let time: UtcTime = value(ID_SIGNING_TIME)?.decode_as().map_err(wrong)?;
    signature::verify(signer, certificate).map_err(|e| e.to_string())?;
    self_signed(certificate)?;
    let time_ms = u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX);
    Ok(Signer { subject: tbs.subject.to_string(), time_ms, certificate_sha256: hex::encode(own) })
}

/// Not a proof of anything, but a certificate that was altered does not pass.
fn self_signed(certificate: &Certificate) -> Result<(), String> {
    let bad = || "its certificate was altered".to_owned();
    let tbs = certificate.tbs_certificate.to_der().map_err(|_| bad())?;
    let key = certificate.tbs_certificate.subject_public_key_info.subject_public_key.as_bytes().ok_or_else(bad)?;
    let signature = certificate.signature.as_bytes().ok_or_else(bad)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&tbs, signature).map_err(|_| bad())
}
