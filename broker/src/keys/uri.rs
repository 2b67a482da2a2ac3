//! PKCS#11 URIs (RFC 7512), as far as a key needs them:
//! `pkcs11:token=police;object=release?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=env:TOKEN_PIN`.

use super::KeyFileError;
use crate::config::SecretRef;
use std::path::PathBuf;

/// What every such URI begins with.
pub const SCHEME: &str = "pkcs11:";

/// A key in a token. Which attributes there are is which ones the key is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUri {
    /// The URI as it was written.
    pub text: String,
    /// Label of the token.
    pub token: String,
    /// Serial number of the token, where two have one label.
    pub serial: Option<String>,
    /// Label of the key.
    pub object: String,
    /// The module, a shared library.
    pub module: PathBuf,
    /// Where the PIN comes from; a person is asked where there is none.
    pub pin: Option<SecretRef>,
    /// File with the ML-DSA half of a hybrid key (`x-pq-file`), relative to the folder of the file with the URI.
    pub pq_file: Option<PathBuf>,
}

/// Percent-decoding to UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        out.push(digit(*high)? * 16 + digit(*low)?);
        rest = tail;
    }
    String::from_utf8(out).ok()
}

impl TokenUri {
    /// Reads a URI. Every attribute is known or refused: one that is passed over could mean another key.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let text = text.trim();
        // A PIN in clear must not get into a message.
        let shown = if text.contains("pin-value") { "pkcs11:...".to_owned() } else { text.to_owned() };
        let fail = |rule: String| KeyFileError::Uri { uri: shown.clone(), rule };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| fail("begins with pkcs11:".into()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parts = path.split(';').chain(query.split('&')).filter(|p| !p.is_empty());
        let mut found = std::collections::BTreeMap::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| fail(format!("{part} has no value")))?;
            let value = decoded(value).ok_or_else(|| fail(format!("{name}: broken percent-encoding")))?;
            match name {
                "token" | "serial" | "object" | "module-path" | "pin-source" | "x-pq-file" => {}
                "type" if value == "private" => continue,
                "pin-value" => {
                    return Err(fail("names a PIN in clear: write pin-source=env:NAME or file:PATH".into()));
                }
                _ => {
                    return Err(fail(format!(
                        "{name} is not known here: token, serial, object, module-path, pin-source, x-pq-file"
                    )));
                }
            }
            if found.insert(name, value).is_some() {
                return Err(fail(format!("{name} is named twice")));
            }
        }
        let pin =
            found.remove("pin-source").map(|s| s.parse::<SecretRef>().map_err(|e| fail(format!("pin-source: {e}"))));
        let mut must = |name: &str| found.remove(name).ok_or_else(|| fail(format!("{name} is missing")));
        let (token, object, module) = (must("token")?, must("object")?, must("module-path")?);
        Ok(Self {
            text: text.to_owned(),
            token,
            object,
            module: module.into(),
            serial: found.remove("serial"),
            pin: pin.transpose()?,
            pq_file: found.remove("x-pq-file").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_uri_names_token_key_module_and_where_the_pin_is() {
        let text = "pkcs11:token=city%20police;object=release;type=private?module-path=/usr/lib/p11.so&pin-source=env:PIN&x-pq-file=cosign.pq.key.age\n";
        let uri = TokenUri::parse(text).unwrap();
        assert_eq!((uri.token.as_str(), uri.object.as_str()), ("city police", "release"));
        assert_eq!((uri.pin, uri.pq_file), (Some(SecretRef::Env("PIN".into())), Some("cosign.pq.key.age".into())));
        assert_eq!((uri.module, uri.serial), (PathBuf::from("/usr/lib/p11.so"), None));
    }

    #[test]
    fn what_is_missing_unknown_twice_or_secret_is_refused() {
        let module = "?module-path=/p11.so";
        for (text, word) in [
            ("file:release.key".to_owned(), "begins with"),
            (format!("pkcs11:token=t{module}"), "object is missing"),
            ("pkcs11:token=t;object=o".to_owned(), "module-path is missing"),
            (format!("pkcs11:token=t;object=o;slot-id=1{module}"), "slot-id is not known"),
            (format!("pkcs11:token=t;token=u;object=o{module}"), "twice"),
            (format!("pkcs11:token=t;object=%4{module}"), "percent"),
            (format!("pkcs11:token=t;object=o{module}&pin-source=1234"), "pin-source"),
        ] {
            let e = TokenUri::parse(&text).unwrap_err();
            assert!(e.to_string().contains(word) && e.code() == "key-uri", "{text}: {e}");
        }
        let e = TokenUri::parse(&format!("pkcs11:token=t;object=o{module}&pin-value=987654")).unwrap_err().to_string();
        assert!(e.contains("PIN in clear") && !e.contains("987654"), "{e}");
    }
}
