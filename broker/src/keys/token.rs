//! Ed25519 keys in PKCS#11 tokens (CKM_EDDSA). The secret never leaves the token; this process logs in and asks for signatures.
//!
//! Tokens have no ML-DSA yet, so of a hybrid key the Ed25519 half alone is in the token ([`TokenUri::pq_file`]).

use super::{KeyFileError, Passphrases, TokenUri};
use concordat_protocol::keys::{ED25519_KEY_LEN, ED25519_SIGNATURE_LEN, Ed25519Signer, KeyError, SigningKey};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Name of the curve, DER PrintableString "edwards25519" (PKCS#11 3.0): what tokens of both generations take.
const CURVE: [u8; 14] = *b"\x13\x0cedwards25519";
/// What precedes the point in a DER OCTET STRING of 32 bytes.
const OCTETS: [u8; 2] = [4, ED25519_KEY_LEN as u8];

/// Modules of this process: a module is initialized once, however many keys are in its tokens.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// What went wrong, in words with what to do.
fn explained(uri: &TokenUri, e: &Error) -> String {
    let object = &uri.object;
    match e {
        Error::LibraryLoading(e) => {
            format!(
                "{} cannot be loaded ({e}): install the token's module or correct module-path",
                uri.module.display()
            )
        }
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
            "wrong PIN: correct what pin-source names; the token counts wrong PINs and locks itself".into()
        }
        Error::Pkcs11(RvError::PinLocked, _) => {
            "the PIN is locked after too many wrong ones: unlock it with the token's own tool".into()
        }
        Error::Pkcs11(
            RvError::DeviceRemoved | RvError::TokenNotPresent | RvError::SessionHandleInvalid | RvError::SessionClosed,
            _,
        ) => "the token was removed: put it back; the next signature finds it".into(),
        other => format!("{object}: {other}"),
    }
}

fn failed(uri: &TokenUri, e: &Error) -> KeyFileError {
    KeyFileError::Token { uri: uri.text.clone(), why: explained(uri, e) }
}

/// The module of a URI, loaded and initialized.
fn module(uri: &TokenUri) -> Result<Pkcs11, Error> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = modules.get(&uri.module) {
        return Ok(known.clone());
    }
    let context = Pkcs11::new(&uri.module)?;
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(e) => return Err(e),
    }
    modules.insert(uri.module.clone(), context.clone());
    Ok(context)
}

/// The slot that holds the URI's token now.
fn slot(context: &Pkcs11, uri: &TokenUri) -> Result<Slot, KeyFileError> {
    let fail = |e| failed(uri, &e);
    let mut found = Vec::new();
    for slot in context.get_slots_with_initialized_token().map_err(fail)? {
        // A token that goes away while it is looked at is one that is not there.
        let Ok(info) = context.get_token_info(slot) else { continue };
        let serial = uri.serial.as_deref().is_none_or(|s| s == info.serial_number().trim());
        if info.label().trim() == uri.token && serial {
            found.push(slot);
        }
    }
    let why = match found.as_slice() {
        [one] => return Ok(*one),
        [] => format!("no token \"{}\" is there: put it in, or correct the label", uri.token),
        more => format!("{} tokens have the label \"{}\": name the serial too", more.len(), uri.token),
    };
    Err(KeyFileError::Token { uri: uri.text.clone(), why })
}

/// A session that is logged in. A login holds for the whole process, so a second one finds it done.
fn session(uri: &TokenUri, pin: &str, write: bool) -> Result<Session, KeyFileError> {
    let fail = |e| failed(uri, &e);
    let context = module(uri).map_err(fail)?;
    let slot = slot(&context, uri)?;
    let session = if write { context.open_rw_session(slot) } else { context.open_ro_session(slot) };
    let session = session.map_err(fail)?;
    match session.login(UserType::User, Some(&pin.to_owned().into())) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(e) => Err(fail(e)),
    }
}

/// The one object of a class with the URI's label.
fn object(session: &Session, uri: &TokenUri, class: ObjectClass) -> Result<Option<ObjectHandle>, KeyFileError> {
    let template = [Attribute::Class(class), Attribute::Label(uri.object.clone().into_bytes())];
    let found = session.find_objects(&template).map_err(|e| failed(uri, &e))?;
    if found.len() > 1 {
        let why = format!("{} keys have the label {}: remove or rename those not in use", found.len(), uri.object);
        return Err(KeyFileError::Token { uri: uri.text.clone(), why });
    }
    Ok(found.into_iter().next())
}

fn must(session: &Session, uri: &TokenUri, class: ObjectClass) -> Result<ObjectHandle, KeyFileError> {
    let kind = if class == ObjectClass::PUBLIC_KEY { "public" } else { "private" };
    object(session, uri, class)?.ok_or_else(|| {
        let why =
            format!("there is no {kind} key with the label {}: make one with `concordat key generate`", uri.object);
        KeyFileError::Token { uri: uri.text.clone(), why }
    })
}

/// The public key's point: 32 bytes, by the standard inside a DER OCTET STRING.
fn point(session: &Session, uri: &TokenUri) -> Result<[u8; ED25519_KEY_LEN], KeyFileError> {
    let key = must(session, uri, ObjectClass::PUBLIC_KEY)?;
    let found = session.get_attributes(key, &[AttributeType::EcPoint]).map_err(|e| failed(uri, &e))?;
    let bytes = found.into_iter().find_map(|a| if let Attribute::EcPoint(bytes) = a { Some(bytes) } else { None });
    let bytes = bytes.unwrap_or_default();
    let bytes = bytes.strip_prefix(&OCTETS).filter(|b| b.len() == ED25519_KEY_LEN).unwrap_or(&bytes);
    bytes.try_into().map_err(|_| {
        let why = format!("{} is no Ed25519 key (its point has {} bytes)", uri.object, bytes.len());
        KeyFileError::Token { uri: uri.text.clone(), why }
    })
}

fn pin(uri: &TokenUri, passphrases: &Passphrases) -> Result<Zeroizing<String>, KeyFileError> {
    let what = format!("PIN of the token \"{}\"", uri.token);
    let pin = passphrases.pin(uri.pin.as_ref(), &what);
    pin.map_err(|why| KeyFileError::Token { uri: uri.text.clone(), why: format!("no PIN: {why}") })
}

struct Open {
    session: Session,
    key: ObjectHandle,
}

/// A key in a token. One session, used by one signature at a time; it is opened again after the token was away.
struct TokenKey {
    uri: TokenUri,
    pin: Zeroizing<String>,
    open: Mutex<Option<Open>>,
}

impl TokenKey {
    fn open(&self) -> Result<Open, KeyFileError> {
        let session = session(&self.uri, &self.pin, false)?;
        let key = must(&session, &self.uri, ObjectClass::PRIVATE_KEY)?;
        Ok(Open { session, key })
    }
}

fn signature(open: &Open, msg: &[u8]) -> Result<Vec<u8>, Error> {
    let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
    open.session.sign(&mechanism, open.key, msg)
}

impl Ed25519Signer for TokenKey {
    fn sign_message(&self, msg: &[u8]) -> Result<[u8; ED25519_SIGNATURE_LEN], KeyError> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let token = |why: String| KeyError::Token(format!("{}: {why}", self.uri.text));
        // What was open may have gone with the token: then once again from the beginning.
        if let Some(open) = slot.take()
            && let Ok(made) = signature(&open, msg)
        {
            *slot = Some(open);
            return made.try_into().map_err(|_| token("its signature has not 64 bytes".into()));
        }
        let open = self.open().map_err(|e| KeyError::Token(e.to_string()))?;
        let made = signature(&open, msg).map_err(|e| token(explained(&self.uri, &e)))?;
        *slot = Some(open);
        made.try_into().map_err(|_| token("its signature has not 64 bytes".into()))
    }
}

/// Opens a key; with the seed of its ML-DSA half it is a hybrid one.
pub(super) fn open(
    uri: &TokenUri,
    mldsa_seed: Option<&[u8]>,
    passphrases: &Passphrases,
) -> Result<SigningKey, KeyFileError> {
    let key = TokenKey { uri: uri.clone(), pin: pin(uri, passphrases)?, open: Mutex::default() };
    let open = key.open()?;
    let point = point(&open.session, uri)?;
    *key.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
    SigningKey::with_signer(&point, Box::new(key), mldsa_seed)
        .map_err(|e| KeyFileError::Token { uri: uri.text.clone(), why: e.to_string() })
}

/// Makes an Ed25519 key in the token, under the URI's label, that can never be read out.
///
/// # Errors
/// A key with the label is there already, or the token refuses.
pub fn generate(uri: &TokenUri, passphrases: &Passphrases) -> Result<(), KeyFileError> {
    let session = session(uri, &pin(uri, passphrases)?, true)?;
    if object(&session, uri, ObjectClass::PRIVATE_KEY)?.is_some() {
        let why = format!("a key with the label {} is there already: choose another label", uri.object);
        return Err(KeyFileError::Token { uri: uri.text.clone(), why });
    }
    let label = || Attribute::Label(uri.object.clone().into_bytes());
    let id = || Attribute::Id(uri.object.clone().into_bytes());
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(CURVE.to_vec()),
        label(),
        id(),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        label(),
        id(),
    ];
    let made = session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private);
    made.map(drop).map_err(|e| failed(uri, &e))
}
