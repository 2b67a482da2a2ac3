//! Notices by mail.

use super::{Deliver, MailConfig};
use crate::config::ConfigError;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::AgencyId;
use futures::future::BoxFuture;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// How long the server may take.
const WITHIN: Duration = Duration::from_secs(20);

/// Why a notice was not mailed.
#[derive(Debug, Error)]
pub enum MailError {
    /// The message cannot be made.
    #[error("the message: {0}")]
    Message(#[from] lettre::error::Error),
    /// The server did not take it.
    #[error("the mail server: {0}")]
    Smtp(#[from] lettre::transport::smtp::Error),
}

impl MailError {
    /// A stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Message(_) => "mail-message",
            Self::Smtp(_) => "mail-server",
        }
    }
}

/// A mail server with who sends and who gets.
pub struct Mailer {
    smtp: AsyncSmtpTransport<Tokio1Executor>,
    agency: AgencyId,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    /// As configured.
    ///
    /// # Errors
    /// An address that is none, or a password that is not there.
    pub fn new(config: &MailConfig, agency: &AgencyId, dir: &Path) -> Result<Self, ConfigError> {
        let bad = |field: &str, rule: String| ConfigError::Field {
            path: dir.join(crate::config::NODE_FILE),
            field: format!("notices.mail.{field}"),
            rule,
        };
        let mailbox = |field: &'static str, text: &str| {
            text.parse::<Mailbox>().map_err(|e| bad(field, format!("\"{text}\" is no mail address: {e}")))
        };
        if config.to.is_empty() {
            return Err(bad("to", "names nobody".into()));
        }
        let to = config.to.iter().map(|t| mailbox("to", t)).collect::<Result<Vec<_>, _>>()?;
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&config.server)
            .map_err(|e| bad("server", format!("{e}: write smtps://host or smtp://host:587?tls=required")))?;
        let mut builder = builder.timeout(Some(WITHIN));
        if let Some(user) = &config.user {
            let password = config.password.as_ref().map(|p| p.resolve(dir)).transpose()?.unwrap_or_default();
            builder = builder.credentials(Credentials::new(user.clone(), password.trim().to_owned()));
        }
        Ok(Self { smtp: builder.build(), agency: agency.clone(), from: mailbox("from", &config.from)?, to })
    }

    async fn send(&self, notice: &Value) -> Result<(), MailError> {
        let text = |name: &str| notice[name].as_str().unwrap_or_default();
        let domain = self.from.email.domain();
        let name = format!("<{}@{domain}>", hex::encode(&sha256(&[text("id").as_bytes()])[..16]));
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(format!("Concordat at {}: {}", self.agency.org(), text("kind")))
            // The same id again is the same notice, for mail programs that look.
            .message_id(Some(name))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        // Neither case nor person: only what the sentence says leaves by mail.
        let body = format!("{}\r\n\r\n{}\r\n", text("text"), text("id"));
        self.smtp.send(message.body(body)?).await?;
        Ok(())
    }
}

impl Deliver for Mailer {
    fn deliver<'a>(&'a self, notice: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.send(notice).await.map_err(|e| format!("{}: {e}", e.code())) })
    }
}
