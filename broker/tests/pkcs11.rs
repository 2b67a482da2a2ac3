//! Keys in a PKCS#11 token, with SoftHSM2. The module reads its configuration from the environment, so the checks run in a
//! process of their own.
#![cfg(feature = "pkcs11")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use concordat_broker::config::SecretRef;
use concordat_broker::keys::{KeyFolder, Passphrases, RELEASE, TokenUri, generate_in_token, open_signing, write_new};
use concordat_protocol::keys::{SigningKey, Statement, Suite};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the child finds its folder and the module.
const FOLDER: &str = "CONCORDAT_TEST_TOKEN";
const MODULE: &str = "CONCORDAT_TEST_MODULE";

/// Module and tool, or why there are none.
fn softhsm() -> Result<(String, String), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/softhsm.sh");
    let out = Command::new(script).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&out.stdout);
    match said.lines().collect::<Vec<_>>().as_slice() {
        [module, util] if out.status.success() => Ok(((*module).to_owned(), (*util).to_owned())),
        _ => Err(text(&out.stderr).trim().to_owned()),
    }
}

#[test]
fn keys_in_a_token_sign_and_say_what_is_wrong() {
    let (module, util) = match softhsm() {
        Ok(found) => found,
        Err(why) => return eprintln!("SKIPPED pkcs11: keys_in_a_token_sign_and_say_what_is_wrong: {why}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let (tokens, conf) = (dir.path().join("tokens"), dir.path().join("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    std::fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
    let init = ["--init-token", "--free", "--label", "police", "--pin", "482913", "--so-pin", "7351"];
    let made = Command::new(util).args(init).args(["--module", &module]).env("SOFTHSM2_CONF", &conf).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_the_child", "--ignored", "--nocapture"])
        .env("SOFTHSM2_CONF", &conf)
        .env(FOLDER, dir.path())
        .env(MODULE, &module)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&child.stdout), text(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

fn pin(dir: &Path, name: &str, pin: &str) -> PathBuf {
    let path = dir.join(name);
    write_new(&path, pin).unwrap();
    path
}

fn verified(key: &SigningKey, text: &[u8]) {
    let signature = key.try_sign(Statement::Release, "city", text).unwrap();
    key.public().verify_full(Statement::Release, "city", text, &signature).unwrap();
    assert!(key.public().verify_full(Statement::Release, "city", b"other", &signature).is_err());
}

#[test]
#[ignore = "run by keys_in_a_token_sign_and_say_what_is_wrong, with a token"]
fn in_the_child() {
    let dir = PathBuf::from(std::env::var(FOLDER).unwrap());
    let module = std::env::var(MODULE).unwrap();
    let (right, wrong) = (pin(&dir, "pin", "482913"), pin(&dir, "wrong-pin", "482914"));
    let with = |object: &str, pin: &Path, token: &str| {
        format!("pkcs11:token={token};object={object}?module-path={module}&pin-source=file:{}", pin.display())
    };
    let none = Passphrases::without_config(&dir);

    // Before anybody is logged in: a wrong PIN is named, and so is a token that is not there.
    let e = open_signing(&with("release", &wrong, "police"), &none).unwrap_err();
    assert!(e.code() == "key-token" && e.to_string().contains("wrong PIN"), "{e}");
    let e = open_signing(&with("release", &right, "fire"), &none).unwrap_err();
    assert!(e.to_string().contains("no token \"fire\""), "{e}");
    let e = open_signing(&with("release", &right, "police"), &none).unwrap_err();
    assert!(e.to_string().contains("no private key with the label release"), "{e}");

    let uri = with("release", &right, "police");
    generate_in_token(&TokenUri::parse(&uri).unwrap(), &none).unwrap();
    let again = generate_in_token(&TokenUri::parse(&uri).unwrap(), &none).unwrap_err();
    assert!(again.to_string().contains("there already"), "{again}");

    // As a node's process finds it: a file that names the token.
    let folder = KeyFolder::new(dir.join("keys"));
    write_new(&dir.join("keys/release.key"), &format!("{uri}\n")).unwrap();
    let key = folder.signing(RELEASE).unwrap();
    assert!(key.in_token() && key.public().suite == Suite::Ed25519 && key.to_secret_text().is_empty());
    verified(&key, b"one");
    assert_eq!(open_signing(&uri, &none).unwrap().key_id(), key.key_id(), "the same key each time");

    // A hybrid key: one half in the token, the other in an encrypted file beside the one with the URI.
    let half = SigningKey::generate(Suite::MlDsa65).unwrap();
    write_new(&dir.join("keys/cosign.pq.key"), &half.to_secret_text()).unwrap();
    let passphrase = pin(&dir, "passphrase", "correct horse");
    concordat_broker::keys::lock_file(&dir.join("keys/cosign.pq.key"), "correct horse").unwrap();
    let named = none.clone().named(SecretRef::File(passphrase));
    generate_in_token(&TokenUri::parse(&with("cosign", &right, "police")).unwrap(), &none).unwrap();
    let text = format!("{}&x-pq-file=cosign.pq.key.age\n", with("cosign", &right, "police"));
    write_new(&dir.join("keys/cosign.key"), &text).unwrap();
    let hybrid = folder.clone().with(named).signing("cosign").unwrap();
    assert_eq!(hybrid.public().suite, Suite::Hybrid);
    verified(&hybrid, b"two");
    assert_eq!(folder.signing("cosign").unwrap_err().code(), "key-no-passphrase");

    // The token goes away: an error, never another signature. A process gets it back when it starts again.
    let (tokens, away) = (dir.join("tokens"), dir.join("away"));
    std::fs::rename(&tokens, &away).unwrap();
    let gone = key.try_sign(Statement::Release, "city", b"three");
    assert!(gone.is_err(), "a signature without a token");
}
