#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::SecretRef;
use concordat_protocol::keys::Statement;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Passphrases of a folder in which a file holds this one.
fn passphrases(dir: &Path, passphrase: &str) -> Passphrases {
    let path = dir.join("passphrase");
    let _ = std::fs::remove_file(&path);
    write_new(&path, passphrase).unwrap();
    Passphrases::without_config(dir).named(SecretRef::File(path))
}

#[test]
fn keys_come_back_and_a_readable_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyFolder::new(dir.path().join("keys"));
    let made = keys.create_signing(GATEWAY, Suite::Ed25519).unwrap();
    assert_eq!(keys.signing(GATEWAY).unwrap().key_id(), made.key_id());
    assert!(keys.create_signing(GATEWAY, Suite::Ed25519).is_err(), "never overwritten");
    mode(&keys.path(GATEWAY).unwrap(), 0o640);
    assert_eq!(keys.signing(GATEWAY).err().unwrap().code(), "key-mode");
    let kem = keys.create_kem().unwrap();
    assert_eq!(keys.kem().unwrap().public().key_id(), kem.public().key_id());
    assert_eq!(keys.list().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["gateway", "kem"]);
}

#[test]
fn an_encrypted_key_signs_with_its_passphrase_and_is_refused_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let folder = KeyFolder::new(dir.path().join("keys"));
    let made = folder.create_signing(RELEASE, Suite::Ed25519).unwrap();
    let plain = folder.path(RELEASE).unwrap();
    let locked = lock_file(&plain, "correct horse").unwrap();
    assert!(!plain.exists() && locked.ends_with("release.key.age"));
    assert!(!std::fs::read_to_string(&locked).unwrap().contains("concordat-secret"));
    assert_eq!(lock_file(&locked, "again").unwrap_err().code(), "key-damaged", "not twice");

    let opened = folder.clone().with(passphrases(dir.path(), "correct horse")).signing(RELEASE).unwrap();
    let signature = opened.try_sign(Statement::Release, "city", b"\x80").unwrap();
    made.public().verify_full(Statement::Release, "city", b"\x80", &signature).unwrap();

    let e = folder.clone().with(passphrases(dir.path(), "wrong horse")).signing(RELEASE).unwrap_err();
    assert!(e.code() == "key-passphrase" && e.to_string().contains("release.key.age"), "{e}");
    let e = folder.signing(RELEASE).unwrap_err();
    assert!(e.code() == "key-no-passphrase" && e.to_string().contains("key_passphrase: env:"), "{e}");

    mode(&locked, 0o604);
    let right = passphrases(dir.path(), "correct horse");
    assert_eq!(folder.clone().with(right.clone()).signing(RELEASE).unwrap_err().code(), "key-mode");
    mode(&locked, 0o600);

    let text = std::fs::read_to_string(&locked).unwrap();
    std::fs::write(&locked, &text[..text.len() - 80]).unwrap();
    let e = folder.clone().with(right.clone()).signing(RELEASE).unwrap_err();
    assert_eq!(e.code(), "key-damaged", "{e}");
    std::fs::write(&locked, &text).unwrap();

    let back = unlock_file(&locked, &right).unwrap();
    assert!(back == plain && !locked.exists());
    assert_eq!(folder.signing(RELEASE).unwrap().key_id(), made.key_id());
}

#[test]
fn two_files_of_one_key_are_refused_and_a_person_is_asked_last() {
    let dir = tempfile::tempdir().unwrap();
    let folder = KeyFolder::new(dir.path());
    folder.create_signing(ENVELOPE, Suite::Ed25519).unwrap();
    std::fs::copy(dir.path().join("envelope.key"), dir.path().join("envelope.key.age")).unwrap();
    assert_eq!(folder.signing(ENVELOPE).unwrap_err().code(), "key-twice");
    let nobody = Passphrases::without_config(dir.path());
    assert!(nobody.get("root", "").unwrap_err().contains("no `key_passphrase`"));
    let person = nobody.asking(|what| Ok(zeroize::Zeroizing::new(format!("for {what}"))));
    assert_eq!(person.get("root", "root.key.age").unwrap().as_str(), "for root.key.age");
    assert_eq!(person.pin(Some(&SecretRef::Env("PATH".into())), "").unwrap().as_str(), std::env::var("PATH").unwrap());
}
