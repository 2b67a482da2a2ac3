#![allow(clippy::unwrap_used)]
//! The peer is the openssl command: it is the authority, and signs by hand what an authority would not.
use super::*;
use concordat_protocol::hash::sha256;
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/outside/tsa.sh");
const NONCE: [u8; NONCE_LEN] = [7; NONCE_LEN];

/// The authorities; none where the openssl command is missing.
fn lab() -> Option<&'static Path> {
    static LAB: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let made = LAB.get_or_init(|| {
        if Command::new("openssl").arg("version").output().is_err() {
            println!("SKIPPED rfc3161: the openssl command is not here");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(Command::new(SCRIPT).arg(dir.path()).output().unwrap().status.success());
        Some(dir)
    });
    made.as_ref().map(|d| d.path())
}

fn imprint() -> Hash {
    sha256(&[b"checkpoint"])
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    out.stdout
}

fn answer(lab: &Path, name: &str) -> Vec<u8> {
    run(Command::new(SCRIPT).arg(lab).arg(name), &request(&imprint(), NONCE).unwrap())
}

fn certificate(lab: &Path, name: &str) -> Vec<Vec<u8>> {
    read_certificates(&std::fs::read(lab.join(format!("{name}.pem"))).unwrap()).unwrap()
}

/// The same content signed by `name` without the scruples of an authority.
fn signed_by(lab: &Path, token: &[u8], name: &str, more: &[&str]) -> Vec<u8> {
    let content = run(Command::new("openssl").args("cms -verify -noverify -nosigs -inform DER".split(' ')), token);
    let file = |end: &str| lab.join(format!("{name}.{end}"));
    let mut sign = Command::new("openssl");
    sign.args("cms -sign -binary -nodetach -outform DER -econtent_type id-smime-ct-TSTInfo".split(' '));
    sign.arg("-signer").arg(file("pem")).arg("-inkey").arg(file("key")).args(more);
    run(&mut sign, &content)
}

#[test]
fn tokens_of_an_authority_are_accepted() {
    let Some(lab) = lab() else { return };
    for name in ["rsa", "p256", "p384"] {
        let given = certificate(lab, name);
        let (token, stamp) = check_response(&answer(lab, name), &imprint(), NONCE, &given).unwrap();
        assert_eq!((stamp.signer.as_str(), stamp.policy.as_str()), (&*format!("CN=Test TSA {name}"), "1.2.3.4.1"));
        assert_eq!(stamp.accuracy_ms, 1_000);
        assert_eq!(check_token(&token, &imprint(), &given), Ok(stamp.clone()));
        let now = jiff::Timestamp::now().as_millisecond();
        assert!((now - stamp.time_ms).abs() < 600_000, "{} is not now", stamp.time_ms);
        // Among several certificates the signer's is found.
        let several = [certificate(lab, "other"), given].concat();
        assert!(check_token(&token, &imprint(), &several).is_ok());
        for (more, digest) in [(vec!["-cades"], "sha384"), (vec!["-cades", "-keyid"], "sha512")] {
            let by_hand = signed_by(lab, &token, name, &[&more[..], &["-md", digest]].concat());
            assert_eq!(check_token(&by_hand, &imprint(), &several).as_ref(), Ok(&stamp), "{name} {digest}");
        }
    }
    let (token, _) = check_response(&answer(lab, "rsa"), &imprint(), NONCE, &certificate(lab, "rsa")).unwrap();
    let pss = ["-cades", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:32"];
    let pss = signed_by(lab, &token, "rsa", &pss);
    assert!(check_token(&pss, &imprint(), &certificate(lab, "rsa")).is_ok());
}

#[test]
fn what_is_not_a_stamp_of_this_checkpoint_is_refused() {
    let Some(lab) = lab() else { return };
    let (good, given) = (answer(lab, "p256"), certificate(lab, "p256"));
    let (token, stamp) = check_response(&good, &imprint(), NONCE, &given).unwrap();
    let refused = |said: Result<_, TspError>, code: &str| assert_eq!(said.err().map(|e| e.code()), Some(code));
    refused(check_response(&good, &imprint(), [8; NONCE_LEN], &given).map(drop), "timestamp-nonce");
    refused(check_response(&good, &sha256(&[b"another"]), NONCE, &given).map(drop), "timestamp-imprint");
    refused(check_response(&good, &imprint(), NONCE, &certificate(lab, "other")).map(drop), "timestamp-signer");
    refused(check_response(&good, &imprint(), NONCE, &[]).map(drop), "timestamp-signer");
    // Another key under the signer's name and number.
    let mut twin = given.clone();
    let at = twin[0].windows(2).rposition(|w| w == [0x03, 0x42]).unwrap() + 10;
    twin[0][at] ^= 1;
    assert!(check_token(&token, &imprint(), &twin).is_err());
    for (name, code) in [
        ("expired", "timestamp-certificate"),
        ("plain", "timestamp-certificate"),
        ("loose", "timestamp-certificate"),
        ("wide", "timestamp-certificate"),
    ] {
        let bad = signed_by(lab, &token, name, &["-cades"]);
        refused(check_token(&bad, &imprint(), &certificate(lab, name)).map(drop), code);
    }
    // Without the attribute that names the certificate, and with none at all.
    for more in [&[][..], &["-noattr"]] {
        let bad = signed_by(lab, &token, "p256", more);
        refused(check_token(&bad, &imprint(), &given).map(drop), "timestamp-attributes");
    }
    // The authority says no.
    let md5 = run(Command::new(SCRIPT).arg(lab).arg("p256"), &{
        let mut query = request(&imprint(), NONCE).unwrap();
        let at = query.windows(9).position(|w| w == [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]).unwrap();
        query[at + 8] = 0x02;
        query
    });
    refused(check_response(&md5, &imprint(), NONCE, &given).map(drop), "timestamp-not-granted");
    // The tick that it stamps may lie before it, not after it.
    let tick = u64::try_from(stamp.time_ms).unwrap();
    assert_eq!(stamp.lag_ms(tick - 5_000), Ok(5_000));
    assert_eq!(stamp.lag_ms(tick + 61_000), Ok(-61_000));
    assert_eq!(stamp.lag_ms(tick + 61_001), Err(TspError::Time(61)));
    assert!(stamp.lag_ms(u64::MAX).is_err());
}

#[test]
fn a_flipped_byte_never_changes_what_a_token_says() {
    let Some(lab) = lab() else { return };
    let given = certificate(lab, "p256");
    let (token, stamp) = check_response(&answer(lab, "p256"), &imprint(), NONCE, &given).unwrap();
    let last = token.len() - 1;
    for at in 0..token.len() {
        let mut other = token.clone();
        other[at] ^= 1;
        // Copies of certificates and lists of algorithms are not signed: those may change, what it says may not.
        match check_token(&other, &imprint(), &given) {
            Ok(said) => assert_eq!(said, stamp, "byte {at}"),
            Err(e) => assert!(at != last || e == TspError::Signature, "{e}"),
        }
    }
    let mut cut = token.clone();
    cut.pop();
    assert!(check_token(&cut, &imprint(), &given).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(check_token(&bytes, &imprint(), std::slice::from_ref(&bytes)).is_err());
        prop_assert!(check_response(&bytes, &imprint(), NONCE, &[]).is_err());
        let _ = read_certificates(&bytes);
        let _ = time::generalized_ms(&bytes);
    }

    /// Bytes that begin like a token reach deeper.
    #[test]
    fn a_mangled_token_never_panics(edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6), cut in any::<proptest::sample::Index>()) {
        type Made = Option<(Vec<u8>, Vec<Vec<u8>>)>;
        static TOKEN: OnceLock<Made> = OnceLock::new();
        let made = TOKEN.get_or_init(|| lab().map(|lab| (answer(lab, "p384"), certificate(lab, "p384"))));
        let Some((answer, given)) = made else { return Ok(()) };
        let mut bytes = answer.clone();
        for (at, byte) in edits { let at = at.index(bytes.len()); bytes[at] = byte; }
        let _ = check_response(&bytes, &imprint(), NONCE, given);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(check_response(&bytes, &imprint(), NONCE, given).is_err());
    }
}
