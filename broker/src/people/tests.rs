#![allow(clippy::unwrap_used)]
//! Forged, old and confused tokens against an issuer of our own; the real one is in the end-to-end tests.
use super::*;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm as Jwa, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

// Keys of these tests alone.
const EC: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCjIb+tvDRLBPvNKGCVf9c2BYW94D08xBnUcth2fvI1OhRANCAARu42C0K78ROyEdnBxgK0C0y4DNujLGvd0VeU+WpVQGV8+AfQv5mDK/6sK7NdL4qj8fJ2rSXWVR0GNA0BqY2cja";
const EC_OTHER: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkADC85zdvMOQ1Ta61WVIAxqarkUknSNhDk2mBxDcGyqhRANCAATV36ZfPwcK4LCfOJW3qcnlzQiHRu+Zj/vYfITi5dyYtOJVCyS/phWPUtoia6U0BizKpWYz777VTa4ElOXLcNyr";
const RSA: &str = "MIIEowIBAAKCAQEApR7rWfXjTk+L68jPMh7M2Df7AomvQrJ2/UC1PPoiaxRPE2MQOuFOwtKjdch1+EV328V3KhqGTiWHIlzlfs5Hhry8SsHTjRaRQjDlD8F6CgjMon/sfm6Ng6CmHKK7cV5pbQW8Qr+66KELStIuAu8G7KEg787AXZ3jexK06OIE6oopdsZugr/Og3x32Z7FJSKTvzJHJBOkTBGVpQcVi0SOFsCAAuv3UB0uE1mZQqYq4WxyCookqQwQ2XNisof9ydopJcGlzSndawEkgJTQ/IyRluJIL3j/iqi20niEZnEMf/NkPKfza+6MQRuZy1QuYwcrTR8NpN1HkvQD+ukOpgjVhwIDAQABAoIBACS+lLEYPtUWbpSxwynsILmc+4a9DPtSq5f/5lUDdNVPV6mAygPQT66bITT8vwPYsat+bd44uNp7D29eLNPjI5egOGaKa4FiHEEWkGLJM1c4ThF7Vi1sfKFmBpEoxX2c/Oj99b8E25sY+2JTE1ojxu6xjJrQ743lrNGegBOy+FUYvj3JmNdkfuizkKuSWFmnGffGvMK5b1S/G2x41smjUOynD5gcblBfdQlQRmBznRIKssLH3G7VW1DpzLreFUrY1BqnBnBsIEpUj7F3dfnKYzyt8M3BPg4buXfKmlrbvR57kthKDhkIOxnbxOFKEgNE/iJDc85kydUaZ1Z6Rbtwv8ECgYEA1dzkUNgy7Nqo/0cE6PZrki9dp8L2uCFS7KKd83IB6OEfUJO2htdjYH/Hgfk9/u77nAwpHHYS3CDLcZAqSEK4QwT4CtW7lwMAAymElflYXxz6iW7FxI1y+QDEpgrNfQMsHKoqyeyoNXSQV+bN5g9TclrABggGKr6iraLoZeSd4zUCgYEAxaeB8mWloGjjULTP/xQvAiSr9ZOO6fO5dhyYimSiF2C9wg4+LGuQkA42HbvSGQfKNEPYROMJ4Q6CEVnJIjPkRP8Hp8FSLUv5XwXFQHecuklL6hR/6EnaMKCfMCGs+DUl55eZRqbnnj13wpOEHj7LtgLF/0uFqRVm4p2gZGhF0UsCgYB5LIBc4jLwivBIO+gnS0AmAxpwrIH4UEFY/Ma8IjO8zJleoWNBQZb4HU5gcWVUJfqAL0+35ZrICPjcro+Wg989cfpMwU9ZwARoxkRuaWpN8fBuoEoEFRU4ytuhLOvDUmHTGAPIh4PDTflfJNIy8SoZ2BuHD1LXM06fTXeaDA/9pQKBgFv3qxE8lqpi45JD75wCqjTXF2Q2+oKFM0Bv4dJTLNCv5NuMgQVuL1+4HRoMsJ+Q7lcPUmwLMCeV9pNYMaxGdOpduBQocbI97ZR3PObYQQa04CvUygctheamdiuRH8iGAlMWSO2E77TDaRwSQ6FHGsZf1/0ICPM50BuVuHG/yuytAoGBAIONDBH6+Gm5rVni7fAUb2W16QcuujKQGrVGKD6VdojC7Ncjp9rKQFD5DOeSwqhz4cJssx058Chxilm666z/KSUxw0X9u80KipQjS7AfQyGp1HvoDQzxVcP5GmHCHkT8Y57RyXlE8iuDp16e72PnCD3U1Fo3C65rGKgX/W4Y7nYY";
const NOW: u64 = 1_800_000_000;
const MAP: &str = "version: 1
roles:
- role: clerk
  any_of: [{claim: groups, has: court-clerks}, {claim: /realm_access/roles, has: clerk}]
- role: operator
  any_of: [{claim: groups, has: court-it}]
  step_up: {acr: [mfa], max_age_s: 900}
";

fn ec(text: &str) -> EncodingKey {
    EncodingKey::from_ec_der(&STANDARD.decode(text).unwrap())
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_der(&STANDARD.decode(RSA).unwrap())
}

fn public(key: &EncodingKey, alg: Jwa, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, alg).unwrap();
    jwk.common.key_id = Some(kid.into());
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("alg");
    jwk
}

/// Whether an error is the one that is wanted.
type Expected = Box<dyn Fn(&TokenError) -> bool>;

/// An issuer that serves what it is told to, and counts how often it is asked.
struct Fake {
    url: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<Mutex<u32>>,
}

async fn fake() -> Fake {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keys = json!({"keys": [
        public(&ec(EC), Jwa::ES256, "e1"),
        public(&rsa(), Jwa::RS256, "r1"),
        {"kty": "AKP", "alg": "ML-DSA-65", "kid": "later", "pub": "AA"},
    ]});
    let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(Mutex::new(0)));
    let found = json!({"issuer": url, "jwks_uri": format!("{url}/jwks")});
    let (served, counted) = (keys.clone(), asked.clone());
    let app = Router::new().route("/.well-known/openid-configuration", get(async move || Json(found))).route(
        "/jwks",
        get(async move || {
            *counted.lock().unwrap() += 1;
            Json(served.lock().unwrap().clone())
        }),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    Fake { url, keys, asked }
}

fn issuer(url: &str, between: Duration) -> Issuer {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("role-map.yaml"), MAP).unwrap();
    let cfg: OidcConfig = serde_saphyr::from_str(&format!("issuer: {url}\naudience: concordat-court\n")).unwrap();
    cfg.check().unwrap();
    Issuer::load(&cfg, dir.path()).unwrap().asks_again_after(between)
}

fn claims(url: &str) -> Value {
    json!({"iss": url, "aud": ["concordat-court", "other"], "sub": "anna", "exp": NOW + 300, "iat": NOW, "groups": ["court-clerks"]})
}

fn signed(alg: Jwa, kid: &str, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(alg);
    (header.kid, header.typ) = (Some(kid.into()), Some("at+jwt".into()));
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[tokio::test]
async fn a_token_of_the_issuer_becomes_a_person_with_roles() {
    let fake = fake().await;
    let issuer = issuer(&fake.url, Duration::ZERO);
    for token in [
        signed(Jwa::ES256, "e1", &ec(EC), &claims(&fake.url)),
        signed(Jwa::RS256, "r1", &rsa(), &claims(&fake.url)),
        signed(Jwa::PS256, "r1", &rsa(), &with(claims(&fake.url), "aud", json!("concordat-court"))),
    ] {
        let person = issuer.person(&token, NOW).await.unwrap();
        assert_eq!((person.subject.as_str(), person.roles), ("anna", ["clerk".to_owned()].into()));
    }
    let nested = with(with(claims(&fake.url), "groups", json!("x")), "realm_access", json!({"roles": ["clerk"]}));
    assert!(issuer.person(&signed(Jwa::ES256, "e1", &ec(EC), &nested), NOW).await.unwrap().roles.contains("clerk"));
    assert_eq!(*fake.asked.lock().unwrap(), 1, "keys are kept");
}

#[tokio::test]
async fn forged_tokens_are_refused_each_by_its_own_check() {
    let fake = fake().await;
    let issuer = issuer(&fake.url, Duration::ZERO);
    let good = claims(&fake.url);
    let es = |claims: &Value| signed(Jwa::ES256, "e1", &ec(EC), claims);
    let b64 = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let unsigned = format!("{}.{}.", b64(&json!({"alg": "none", "typ": "at+jwt"})), b64(&good));
    // The public key, which everybody has, taken as the secret of an HMAC.
    let shared = EncodingKey::from_secret(public(&rsa(), Jwa::RS256, "r1")["n"].as_str().unwrap().as_bytes());
    let mut parts: Vec<String> = es(&good).split('.').map(str::to_owned).collect();
    parts[1] = b64(&with(good.clone(), "groups", json!(["court-it"])));
    let mut critical = Header::new(Jwa::ES256);
    (critical.kid, critical.crit) = (Some("e1".into()), Some(vec!["b64".into()]));
    let mut logout = Header::new(Jwa::ES256);
    (logout.kid, logout.typ) = (Some("e1".into()), Some("logout+jwt".into()));
    let encode = |header: &Header| jsonwebtoken::encode(header, &good, &ec(EC)).unwrap();
    let malformed = |e: &TokenError| matches!(e, TokenError::Malformed(_));
    let algorithm = |e: &TokenError| matches!(e, TokenError::Algorithm(_));
    let unknown = |e: &TokenError| matches!(e, TokenError::UnknownKey(_));
    let is = |wanted: TokenError| move |e: &TokenError| *e == wanted;
    let cases: Vec<(&str, String, Expected)> = vec![
        ("alg none", unsigned, Box::new(malformed)),
        ("HMAC by the public key", signed(Jwa::HS256, "r1", &shared, &good), Box::new(algorithm)),
        ("another key", signed(Jwa::ES256, "e1", &ec(EC_OTHER), &good), Box::new(is(TokenError::Signature))),
        ("changed claims", parts.join("."), Box::new(is(TokenError::Signature))),
        ("an algorithm that is not the key's", signed(Jwa::RS256, "e1", &rsa(), &good), Box::new(unknown)),
        ("an algorithm outside the list", signed(Jwa::RS512, "r1", &rsa(), &good), Box::new(algorithm)),
        ("a key that is not there", signed(Jwa::ES256, "e9", &ec(EC), &good), Box::new(unknown)),
        (
            "another issuer",
            es(&with(good.clone(), "iss", json!("https://evil.example"))),
            Box::new(is(TokenError::Issuer)),
        ),
        ("another audience", es(&with(good.clone(), "aud", json!("court"))), Box::new(is(TokenError::Audience))),
        ("no audience", es(&with(good.clone(), "aud", json!(null))), Box::new(is(TokenError::Audience))),
        ("expired", es(&with(good.clone(), "exp", json!(NOW - 60))), Box::new(is(TokenError::Expired))),
        ("no end", es(&with(good.clone(), "exp", json!(null))), Box::new(malformed)),
        ("not yet", es(&with(good.clone(), "nbf", json!(NOW + 61))), Box::new(is(TokenError::NotYet))),
        ("from the future", es(&with(good.clone(), "iat", json!(NOW + 61))), Box::new(is(TokenError::NotYet))),
        ("bound to a key", es(&with(good.clone(), "cnf", json!({"jkt": "x"}))), Box::new(is(TokenError::Bound))),
        ("nobody's", es(&with(good.clone(), "sub", json!(""))), Box::new(malformed)),
        ("critical extensions", encode(&critical), Box::new(malformed)),
        ("no access token", encode(&logout), Box::new(malformed)),
        ("too long", "e".repeat(token::TOKEN_BYTES_MAX + 1), Box::new(malformed)),
        ("no token", "a.b.c".into(), Box::new(malformed)),
    ];
    for (what, token, expected) in cases {
        let error = issuer.person(&token, NOW).await.err().unwrap_or_else(|| panic!("{what} was believed"));
        assert!(expected(&error), "{what}: {error:?}");
    }
    // The clocks may differ by a minute, not by more.
    let old = es(&with(good.clone(), "exp", json!(NOW - 59)));
    assert!(issuer.person(&old, NOW).await.is_ok() && issuer.person(&old, NOW + 2).await.is_err());
}

#[tokio::test]
async fn keys_rotate_and_unknown_names_do_not_flood_the_issuer() {
    let fake = fake().await;
    let rotating = issuer(&fake.url, Duration::ZERO);
    let old = signed(Jwa::ES256, "e1", &ec(EC), &claims(&fake.url));
    assert!(rotating.person(&old, NOW).await.is_ok());
    *fake.keys.lock().unwrap() = json!({"keys": [public(&ec(EC_OTHER), Jwa::ES256, "e2")]});
    let new = signed(Jwa::ES256, "e2", &ec(EC_OTHER), &claims(&fake.url));
    assert!(rotating.person(&new, NOW).await.is_ok(), "a key that is not known yet is looked up");
    assert!(matches!(rotating.person(&old, NOW).await, Err(TokenError::UnknownKey(_))), "what was taken back is gone");
    let patient = issuer(&fake.url, Duration::from_secs(3_600));
    let before = *fake.asked.lock().unwrap();
    for n in 0..50 {
        let invented = signed(Jwa::ES256, &format!("x{n}"), &ec(EC), &claims(&fake.url));
        assert!(patient.person(&invented, NOW).await.is_err());
    }
    assert_eq!(*fake.asked.lock().unwrap() - before, 1);
    let gone = issuer("http://127.0.0.1:1", Duration::ZERO);
    assert_eq!(gone.person(&new, NOW).await.unwrap_err().code(), "issuer-unavailable");
}

#[test]
fn a_role_may_ask_for_a_stronger_and_fresh_sign_in() {
    let map = RoleMap::parse(MAP).unwrap();
    let roles = |claims: Value| map.roles(claims.as_object().unwrap(), NOW);
    let (now, later) = roles(json!({"groups": ["court-it"], "acr": "pwd", "auth_time": NOW}));
    assert!(now.is_empty());
    assert_eq!(
        later["operator"].challenge(),
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\", max_age=\"900\""
    );
    for (acr, auth_time, has) in
        [("mfa", json!(NOW - 900), true), ("mfa", json!(NOW - 901), false), ("mfa", json!(null), false)]
    {
        let (now, later) = roles(json!({"groups": ["court-it"], "acr": acr, "auth_time": auth_time}));
        assert_eq!((now.contains("operator"), later.is_empty()), (has, has), "{auth_time}");
    }
}

#[test]
fn a_role_map_is_strict_and_has_a_hash() {
    let map = RoleMap::parse(MAP).unwrap();
    assert_eq!(map.sha256().len(), 64);
    assert_ne!(map.sha256(), RoleMap::parse(&format!("{MAP}\n")).unwrap().sha256());
    for bad in [
        "version: 2\nroles: []\n",
        "version: 1\nrols: []\n",
        "version: 1\nroles: [{role: clerk, any_of: []}]\n",
        "version: 1\nroles: [{role: clerk, any_of: [{claim: groups, is: x}]}]\n",
        "version: 1\nroles: [{role: adapter, any_of: [{claim: groups, has: x}]}]\n",
        "version: 1\nroles: [{role: clerk, any_of: [{claim: groups, has: x}], step_up: {}}]\n",
        "version: 1\nroles: [{role: 'a b', any_of: [{claim: groups, has: x}]}]\n",
    ] {
        assert!(RoleMap::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_configuration_that_would_believe_too_much_is_refused() {
    let read = |text: &str| serde_saphyr::from_str::<OidcConfig>(text);
    for alg in ["none", "HS256", "RSA1_5"] {
        assert!(read(&format!("issuer: https://i\naudience: a\nalgorithms: [{alg}]\n")).is_err(), "{alg}");
    }
    for text in [
        "issuer: http://login.example\naudience: a\n",
        "issuer: https://u:p@login.example\naudience: a\n",
        "issuer: https://login.example\naudience: ''\n",
        "issuer: https://login.example\naudience: a\nalgorithms: []\n",
        "issuer: https://login.example\naudience: a\nclock_skew_s: 3600\n",
    ] {
        assert!(read(text).unwrap().check().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_is_taken_for_a_header_that_is_not_one(text in ".{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,60}", 0..5)) {
        let allowed = [Algorithm::RS256, Algorithm::ES256];
        for token in [text, parts.join(".")] {
            prop_assert!(token::header(&token, &allowed).is_err(), "{token}");
        }
    }

    #[test]
    fn a_role_map_is_read_or_refused(text in "[a-z0-9: {},\\[\\]\\-\n'/]{0,200}") {
        if let Ok(map) = RoleMap::parse(&text) {
            prop_assert!(map.roles(&serde_json::Map::new(), NOW).0.is_empty(), "no claims, no roles");
        }
    }

    #[test]
    fn claims_of_any_shape_give_no_role_by_themselves(value in prop_oneof![Just(json!(1)), Just(json!({"has": "court-it"})), Just(json!([["court-it"]])), Just(json!("COURT-IT")), Just(json!(null))]) {
        let map = RoleMap::parse(MAP).unwrap();
        let claims = json!({"groups": value, "acr": value, "auth_time": value, "realm_access": value});
        let (roles, later) = map.roles(claims.as_object().unwrap(), NOW);
        prop_assert!(roles.is_empty() && later.is_empty());
    }
}

#[test]
fn a_role_map_counts_once_its_file_was_the_same_twice() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("role-map.yaml"), text).unwrap();
    write(MAP);
    let cfg: OidcConfig =
        serde_saphyr::from_str("issuer: https://issuer.example\naudience: concordat-court\n").unwrap();
    let issuer = Issuer::load(&cfg, dir.path()).unwrap();
    let before = issuer.role_map().sha256().to_owned();
    // What a writer that is still at it has put there, and the rest of it.
    let whole = MAP.replace("court-clerks", "court-judges");
    write(&format!("{MAP}# half of it\n"));
    assert!(!issuer.reload().unwrap());
    write(&whole);
    assert!(!issuer.reload().unwrap());
    assert_eq!(issuer.role_map().sha256(), before);
    assert!(issuer.reload().unwrap());
    assert_ne!(issuer.role_map().sha256(), before);
    assert!(!issuer.reload().unwrap());
}
