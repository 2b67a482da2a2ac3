#![allow(clippy::unwrap_used)]
use super::*;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Extension, Router};
use std::process::Command;

/// An authority, a server's certificate and two applications', made with openssl; none where it is not there.
fn lab(dir: &Path) -> Option<()> {
    let script = r#"set -e
ca() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.pem -days 2 -subj /CN=$1; }
leaf() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $2.key -out $2.csr -subj /CN=$2
  printf "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=$3\n" > $2.ext
  openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -CAcreateserial -out $2.pem -days 2 -extfile $2.ext; }
ca ours; ca theirs; leaf ours server serverAuth; leaf ours case clientAuth; leaf ours unlisted clientAuth; leaf theirs stranger clientAuth"#;
    let out = Command::new("bash").args(["-c", script]).current_dir(dir).output().ok()?;
    out.status.success().then_some(())
}

fn client(dir: &Path, identity: Option<&str>) -> reqwest::Client {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let ca = reqwest::Certificate::from_pem(&read("ours.pem")).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([ca]);
    if let Some(name) = identity {
        let pem = [read(&format!("{name}.key")), read(&format!("{name}.pem"))].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn a_certificate_counts_when_the_authority_issued_it_and_the_file_names_it() {
    let dir = tempfile::tempdir().unwrap();
    if lab(dir.path()).is_none() {
        return eprintln!("SKIPPED mtls: openssl is not here");
    }
    let der = CertificateDer::from_pem_file(dir.path().join("case.pem")).unwrap();
    let listed = hex::encode(sha256(&[der.as_ref()]));
    let yaml = format!("applications: [{{name: case-system, roles: [clerk], certificate: {listed}}}]\n");
    std::fs::write(dir.path().join("applications.yaml"), yaml).unwrap();
    let known = Arc::new(Applications::load(&dir.path().join("applications.yaml")).unwrap());
    let cfg: TlsConfig =
        serde_saphyr::from_str("listen: x:1\ncertificate: server.pem\nkey: server.key\nclients: ours.pem\n").unwrap();
    let listener = TlsListener::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), &cfg, dir.path()).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let who = async |ConnectInfo(peer): ConnectInfo<Peer>, Extension(known): Extension<Arc<Applications>>| {
        known.find(&peer).map_or("nobody".to_owned(), |c| c.name.clone())
    };
    let app = Router::new().route("/", get(who)).layer(Extension(known));
    tokio::spawn(async move { axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).await });
    for (identity, expected) in [(Some("case"), "mtls:case-system"), (Some("unlisted"), "nobody"), (None, "nobody")] {
        let answer = client(dir.path(), identity).get(&url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), expected, "{identity:?}");
    }
    assert!(client(dir.path(), Some("stranger")).get(&url).send().await.is_err(), "another authority's");
    assert!(reqwest::get(&url).await.is_err(), "the server is not known to the world");
}

#[test]
fn applications_are_read_strictly() {
    let (a, b) = ("ab".repeat(32), "cd".repeat(32));
    let one = |name: &str, cert: &str| format!("{{name: {name}, roles: [clerk], certificate: {cert}}}");
    assert!(Applications::parse(&format!("applications: [{}, {}]", one("x", &a), one("y", &b))).is_ok());
    for bad in [
        format!("applications: [{}, {}]", one("x", &a), one("x", &b)),
        format!("applications: [{}, {}]", one("x", &a), one("y", &a)),
        format!("applications: [{}]", one("x", "abcd")),
        format!("applications: [{}]", one("'a b'", &a)),
        format!("applications: [{{name: x, roles: [], certificate: {a}}}]"),
        format!("aplications: [{}]", one("x", &a)),
    ] {
        assert!(Applications::parse(&bad).is_err(), "{bad}");
    }
}
