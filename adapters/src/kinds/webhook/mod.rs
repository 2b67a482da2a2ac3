//! What others send to us over HTTP. See the page of the kind.

mod items;
pub mod listener;
pub mod source;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::HeaderName;
use listener::{Auth, Listener, Settings};
use serde::Deserialize;
use serde_saphyr::Spanned;
use source::WebhookSource;

use crate::adapter_document;
use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError, Secret};
use crate::json_rows::{JsonRows, again};
use crate::json_sample::Sample;
use crate::mapping::Mapper;

/// How long a sample waits.
const PATIENCE: Duration = Duration::from_secs(20);
const BYTES_DEFAULT: usize = 1024 * 1024;
const BYTES_MAX: usize = 16 * 1024 * 1024;

adapter_document! {
    /// A webhook as written.
    pub struct WebhookDoc {
        /// Where the adapter listens.
        pub listen: Listen,
        /// Who may send.
        pub auth: AuthDoc,
        /// The header that tells requests apart.
        #[serde(default)]
        pub id_header: Option<String>,
        /// Bounds of requests.
        #[serde(default)]
        pub limits: LimitsDoc,
    }
}

/// Where the adapter listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port, for example `127.0.0.1:8600`.
    pub address: Spanned<String>,
    /// The path; `/` when left out.
    #[serde(default = "root")]
    pub path: Spanned<String>,
    /// Something in front of it speaks TLS: it may listen to other machines.
    #[serde(default)]
    pub behind_tls: bool,
}

fn root() -> Spanned<String> {
    let (referenced, defined) = (serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN);
    Spanned { value: "/".to_owned(), referenced, defined }
}

/// Who may send; one way.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum AuthDoc {
    /// Who knows a token.
    Token(Secret),
    /// Who signs the body.
    Hmac {
        /// The shared secret.
        secret: Secret,
        /// The header with the signature.
        #[serde(default = "signature_header")]
        header: String,
        /// What stands before the signature.
        #[serde(default = "signature_prefix")]
        prefix: String,
    },
}

fn signature_header() -> String {
    "x-hub-signature-256".to_owned()
}

fn signature_prefix() -> String {
    "sha256=".to_owned()
}

/// Bounds of requests.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsDoc {
    /// Most bytes of a request.
    #[serde(default)]
    pub bytes: Option<usize>,
    /// Most requests that wait.
    #[serde(default)]
    pub pending: Option<usize>,
}

impl WebhookDoc {
    /// What the listener is told.
    pub fn settings(&self, base: &Path) -> Result<Settings, DocumentError> {
        let listen = &self.listen;
        let bad = |detail: &str| DocumentError::at(&listen.address, "listen.address", detail);
        let address: SocketAddr =
            listen.address.value.parse().map_err(|_| bad("write an address and a port, such as 127.0.0.1:8600"))?;
        if !address.ip().is_loopback() && !listen.behind_tls {
            return Err(bad(
                "it would speak plain HTTP to other machines: put TLS in front and say `behind_tls: true`",
            ));
        }
        let path = &listen.path.value;
        if !path.starts_with('/') || path.contains(['{', '}', '*', '?', '#', ' ']) {
            return Err(DocumentError::at(&listen.path, "listen.path", "a plain path that begins with `/`"));
        }
        let header = |text: &str, field: &str| {
            HeaderName::try_from(text).map_err(|_| DocumentError::rule(field, "it is no name of a header"))
        };
        let auth = match &self.auth {
            AuthDoc::Token(secret) => Auth::Token(secret.clone()),
            AuthDoc::Hmac { secret, header: name, prefix } => {
                Auth::Hmac { secret: secret.clone(), header: header(name, "auth.hmac.header")?, prefix: prefix.clone() }
            }
        };
        let bytes_max = self.limits.bytes.unwrap_or(BYTES_DEFAULT);
        let pending_max = self.limits.pending.unwrap_or(256);
        if !(1..=BYTES_MAX).contains(&bytes_max) || !(1..=400).contains(&pending_max) {
            return Err(DocumentError::rule("limits", "bytes from 1 to 16777216, pending from 1 to 400"));
        }
        let id_header = self.id_header.as_deref().map(|name| header(name, "id_header")).transpose()?;
        Ok(Settings { base: base.to_owned(), address, path: path.clone(), auth, id_header, bytes_max, pending_max })
    }
}

/// The kind `webhook`.
pub struct WebhookKind;

const fn setting(name: &'static str, required: bool, about: &'static str) -> Setting {
    Setting { name, required, about }
}

const SETTINGS: &[Setting] = &[
    setting("listen.address", true, "Address and port; other machines only behind TLS."),
    setting("listen.path", false, "The path that takes requests; / when left out."),
    setting("listen.behind_tls", false, "true when something in front of it speaks TLS."),
    setting("auth.token", false, "Who may send: a token by reference, Authorization: Bearer."),
    setting("auth.hmac", false, "Who may send: {secret, header, prefix}, HMAC-SHA-256 of the body in hexadecimal."),
    setting("id_header", false, "The header that tells requests apart; their bytes do when left out."),
    setting("limits", false, "{bytes, pending}: most bytes of a request, most requests that wait; 1 MiB and 256."),
];

impl Kind for WebhookKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "webhook",
            title: "what others send to us over HTTP",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = WebhookDoc::parse(text)?;
        doc.settings(Path::new("."))?;
        Ok(Box::new(WebhookConnector { common: doc.common(), doc }))
    }
}

struct WebhookConnector {
    common: Common,
    doc: WebhookDoc,
}

impl WebhookConnector {
    fn rows(&self) -> Result<JsonRows<()>, DocumentError> {
        JsonRows::new(Mapper::open(&self.common)?, |_| None)
    }
}

impl Connector for WebhookConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = vec![match self.rows() {
            Ok(_) => Finding::ok("mapping", "the mapping can be used"),
            Err(e) => Finding::failed("mapping", &e.into()),
        }];
        let secret = match &self.doc.auth {
            AuthDoc::Token(secret) | AuthDoc::Hmac { secret, .. } => secret,
        };
        found.push(match secret.reveal(base) {
            Ok(text) if text.len() < 16 => {
                Finding::warn("login", "the secret has fewer than 16 characters", "take a longer one, made by chance")
            }
            Ok(_) => Finding::ok("login", "the secret can be read"),
            Err(e) => Finding::failed("login", &e),
        });
        match self.doc.settings(base) {
            Ok(settings) => found.push(match std::net::TcpListener::bind(settings.address) {
                Ok(_) => Finding::ok("listen", format!("{} is free", settings.address)),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Finding::warn(
                    "listen",
                    format!("{} is taken", settings.address),
                    "fine while the adapter runs; otherwise choose another port",
                ),
                Err(e) => Finding::fail("listen", format!("{}: {e}", settings.address), "correct `listen.address`"),
            }),
            Err(e) => found.push(Finding::failed("listen", &e.into())),
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let settings = self.doc.settings(base)?;
        let failed = |detail: String| AdapterError::source_failed(ErrorClass::Transient, "source.missing", detail);
        let listener = Listener::start(settings).map_err(|e| failed(format!("cannot listen: {e}")))?;
        let (start, mut sample, mut seen) = (Instant::now(), Sample::default(), 0);
        // Nobody is answered: what is sent now is sent again when the adapter runs.
        while start.elapsed() < PATIENCE && sample.count() < 200 {
            let inbox = listener.shared.wait(listener.shared.inbox(), Duration::from_millis(200));
            for pending in inbox.pending.iter().filter(|p| p.seq > seen) {
                items::items(&pending.body).unwrap_or_default().iter().for_each(|item| sample.see(item, &[]));
            }
            seen = inbox.pending.back().map_or(seen, |p| p.seq);
        }
        if sample.count() == 0 {
            return Err(failed("nothing was sent within 20 seconds; try again while something is sent".to_owned()));
        }
        Ok(sample.draft(&self.common))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(WebhookSource::new(self.doc.settings(base)?, self.rows()?, crate::run_id::run_id())))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(again(self.rows()?))
    }
}
