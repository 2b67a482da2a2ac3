#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use super::*;
use concordat_protocol::acts::ApprovalKind;
use concordat_protocol::ids::{AgreementId, DatasetId};
use concordat_protocol::keys::KeyId;
use concordat_protocol::node::ApprovalView;
use concordat_protocol::terms::{ClauseTerms, Evidence};
use std::sync::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

const DAY: u64 = 86_400_000;
const NOW: u64 = 1_790_000_000_000;

fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

fn view(status: Status, until_ms: u64, approvals: &[(&str, &str)]) -> AgreementView {
    let clause = |id: &str, effect, until_ms| ClauseTerms {
        id: id.into(),
        effect,
        actions: 1,
        purpose: [1; 32],
        evidence: Evidence::Strict {},
        from_ms: 0,
        until_ms,
        quota: None,
        review_ms: 0,
    };
    let agreement = AgreementId::new("AGR-2026-9553").unwrap();
    let terms = Terms {
        agreement: agreement.clone(),
        version: 1,
        assigner: agency("police"),
        assignee: Some(agency("court")),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        assigner_roles: vec!["data-steward".into(), "legal".into()],
        assignee_roles: vec!["legal".into()],
        clauses: vec![clause("C1", Effect::Permit, until_ms), clause("X1", Effect::Prohibit, u64::MAX)],
        yaml_hash: [0; 32],
        rows_hash: [0; 32],
        text_hash: [0; 32],
        paper_hashes: vec![],
        compiler_version: 1,
    };
    let approvals = approvals.iter().map(|(a, role)| ApprovalView {
        agency: agency(a),
        role: (*role).into(),
        key_id: KeyId([0; 16]),
        what: ApprovalKind::Activate,
        act: vec![].into(),
        signature: vec![].into(),
    });
    AgreementView {
        agreement,
        version: 1,
        revision: 3,
        status,
        terms_hash: terms.hash(),
        terms: cbor::encode(&terms).into(),
        expires_ms: NOW + DAY,
        approvals: approvals.collect(),
        handles: vec![],
        bounded_suspended: 0,
    }
}

fn ids(agency_name: &str, v: AgreementView) -> Vec<String> {
    of_agreements(&agency(agency_name), &[v], NOW, 30 * DAY).into_iter().map(|n| n.id).collect()
}

#[test]
fn what_waits_for_this_agency_is_told_to_it_alone() {
    let proposed = || view(Status::Proposed, NOW + 400 * DAY, &[("police", "legal")]);
    assert_eq!(ids("police", proposed()), ["approval/AGR-2026-9553/1/3/data-steward"]);
    assert_eq!(ids("court", proposed()), ["approval/AGR-2026-9553/1/3/legal"]);
    assert!(ids("grid", proposed()).is_empty(), "no party");
    let late = AgreementView { expires_ms: NOW, ..proposed() };
    assert!(ids("court", late).is_empty(), "a proposal that expired waits for nobody");
    assert!(ids("court", view(Status::Suspended, NOW + 400 * DAY, &[])).is_empty(), "nobody began to resume it");
    assert_eq!(ids("court", view(Status::Suspended, NOW + 400 * DAY, &[("police", "legal")])).len(), 1);
}

#[test]
fn an_end_is_told_once_it_is_near() {
    let active = |until| view(Status::Active, until, &[]);
    let name = |until: u64| vec![format!("expires/AGR-2026-9553/1/{until}")];
    assert_eq!(ids("court", active(NOW + 30 * DAY)), name(NOW + 30 * DAY));
    assert!(ids("court", active(NOW + 30 * DAY + 1)).is_empty());
    assert!(ids("court", active(NOW)).is_empty(), "it is over");
    assert!(ids("court", view(Status::Revoked, NOW + DAY, &[])).is_empty());
}

fn notice(id: &str) -> Notice {
    let text = format!("{id} waits");
    Notice { id: id.into(), kind: "approval", text, due_ms: Some(5), about: json!({"role": "legal"}) }
}

#[tokio::test]
async fn each_is_told_once_though_the_broker_restarts_and_dies_after_so_many_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.sqlite");
    let outbox = || Outbox::new(Store::open(&path).unwrap(), 1_000, 3);
    let first = outbox();
    first.keep(Channel::Webhook, &[notice("a"), notice("b")], 10).await.unwrap();
    let due = first.due(10).await.unwrap();
    assert_eq!(due.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    first.tried(&due[0], None, 10).await.unwrap();
    first.tried(&due[1], Some("down".into()), 10).await.unwrap();
    drop(first);
    let again = outbox();
    again.keep(Channel::Webhook, &[notice("a"), notice("b")], 20).await.unwrap();
    assert!(again.due(1_009).await.unwrap().is_empty(), "one was told, the other waits a second");
    let due = again.due(1_010).await.unwrap();
    assert_eq!((due[0].id.as_str(), due[0].attempts), ("b", 1));
    again.tried(&due[0], Some("down".into()), 1_010).await.unwrap();
    assert!(again.due(3_009).await.unwrap().is_empty(), "then two seconds");
    let due = again.due(3_010).await.unwrap();
    again.tried(&due[0], Some("down".into()), 3_010).await.unwrap();
    assert!(again.due(u64::MAX >> 1).await.unwrap().is_empty(), "dead after three attempts");
    let mut states = again.states().await.unwrap();
    states.sort();
    let state = |id: &str, word: &str| (id.to_owned(), "webhook".to_owned(), word.to_owned());
    assert_eq!(states, [state("a", "sent"), state("b", "dead")]);
}

/// What a receiver got: head and body of each request.
type Got = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A receiver that answers the statuses one after another, then 200.
async fn receiver(statuses: &'static [u16]) -> (String, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let got = Got::default();
    let kept = got.clone();
    tokio::spawn(async move {
        for n in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            kept.lock().unwrap().push((head, body));
            let status = statuses.get(n).copied().unwrap_or(200);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, got)
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
}

#[tokio::test]
async fn a_receiver_gets_a_signed_body_and_a_failed_one_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    let secret = "a secret of the receiver's, 32 characters";
    std::fs::write(dir.path().join("keys/hook"), format!("{secret}\n")).unwrap();
    let only_own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.path().join("keys/hook"), only_own).unwrap();
    let (url, got) = receiver(&[503]).await;
    let config = WebhookConfig { url, secret: serde_json::from_value(json!("file:keys/hook")).unwrap() };
    let hook = Webhook::new(&config, dir.path()).unwrap();
    let body = notice("approval/AGR-1/1/1/legal").to_json();
    assert_eq!(hook.deliver(&body).await.unwrap_err(), "webhook-refused: the receiver answered 503");
    hook.deliver(&body).await.unwrap();
    let got = got.lock().unwrap().clone();
    assert_eq!(got.len(), 2);
    for (head, bytes) in &got {
        assert!(head.starts_with("POST /hook "), "{head}");
        assert_eq!(serde_json::from_slice::<Value>(bytes).unwrap(), body);
        assert_eq!(header(head, "concordat-notice"), "approval/AGR-1/1/1/legal");
        let signed = header(head, "concordat-signature");
        let seconds: u64 = signed.split(',').next().unwrap().strip_prefix("t=").unwrap().parse().unwrap();
        assert_eq!(signed, signature(secret, seconds, bytes), "the receiver makes the same signature");
        assert_ne!(signed, signature("another secret", seconds, bytes));
        assert_ne!(signed, signature(secret, seconds + 1, bytes), "the time is signed");
    }
    std::fs::write(dir.path().join("keys/hook"), "short").unwrap();
    assert!(Webhook::new(&config, dir.path()).is_err());
}

/// A mail server for one message: the conversation it had.
async fn mail_server(refuse: bool) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let talk = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 mail.example ready\r\n").await.unwrap();
        let (mut said, mut data) = (Vec::new(), false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return said;
            }
            let line = line.trim_end().to_owned();
            let answer = match line.split([' ', ':']).next().unwrap_or_default() {
                _ if data && line == "." => {
                    data = false;
                    "250 queued\r\n"
                }
                _ if data => "",
                "EHLO" => "250-mail.example\r\n250 8BITMIME\r\n",
                "RCPT" if refuse => "550 nobody of that name\r\n",
                "DATA" => {
                    data = true;
                    "354 go on\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            said.push(line);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, talk)
}

fn mailer(server: String) -> Mailer {
    let config = MailConfig {
        server,
        user: None,
        password: None,
        from: "Concordat <concordat@police.example>".into(),
        to: vec!["legal@police.example".into(), "Data office <data@police.example>".into()],
    };
    Mailer::new(&config, &agency("police"), Path::new("/")).unwrap()
}

use std::path::Path;

#[tokio::test]
async fn a_mail_server_gets_the_sentence_for_everybody_named() {
    let (server, talk) = mail_server(false).await;
    let mailer = mailer(server);
    mailer.deliver(&notice("approval/AGR-1/1/1/legal").to_json()).await.unwrap();
    drop(mailer);
    let said = talk.await.unwrap();
    let has = |line: &str| assert!(said.iter().any(|l| l == line), "{line} was not said: {said:#?}");
    has("MAIL FROM:<concordat@police.example>");
    has("RCPT TO:<legal@police.example>");
    has("RCPT TO:<data@police.example>");
    has("Subject: Concordat at org:police: approval");
    has("approval/AGR-1/1/1/legal waits");
    assert!(said.iter().any(|l| l.starts_with("Message-ID: <") && l.ends_with("@police.example>")), "{said:#?}");
}

#[tokio::test]
async fn a_mail_that_is_refused_is_an_error_that_says_so() {
    let (server, _talk) = mail_server(true).await;
    let said = mailer(server).deliver(&notice("a").to_json()).await.unwrap_err();
    assert!(said.starts_with("mail-server: ") && said.contains("nobody of that name"), "{said}");
    let bad = MailConfig {
        server: "mail.example".into(),
        user: None,
        password: None,
        from: "x".into(),
        to: vec!["a@b.example".into()],
    };
    assert!(Mailer::new(&bad, &agency("police"), Path::new("/")).is_err());
}

#[test]
fn a_write_without_an_outcome_is_told_after_its_time() {
    let limit = u64::try_from(OUTCOME_WITHIN.as_millis()).unwrap();
    let told = of_writes(&[(41, NOW - limit - 1), (42, NOW - limit), (43, NOW + 5)], NOW);
    assert_eq!(told.iter().map(|n| (n.id.as_str(), n.kind)).collect::<Vec<_>>(), [("write/op:41", "write")]);
    assert_eq!(told[0].to_json()["operation"], "op:41");
}
