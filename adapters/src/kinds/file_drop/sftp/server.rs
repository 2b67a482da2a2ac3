//! An SFTP server as a document names it.

use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use russh::keys::ssh_key::Fingerprint;

use super::super::document::SftpDoc;
use crate::document::{DocumentError, Secret};

/// Wait for a connection and for answers where the document says nothing.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of a file where the document says nothing.
const BYTES_MAX: u64 = 4 << 30;

/// A server, a folder of it, and who asks.
#[derive(Debug, Clone)]
pub(in super::super) struct Server {
    /// Name or address.
    pub host: String,
    /// Port, 22 when the document names none.
    pub port: u16,
    /// The account.
    pub user: String,
    /// The folder: from the server's root, or from the account's home where it does not begin with `/`.
    pub folder: String,
    /// The address without anything secret, as errors call the folder.
    pub shown: String,
    /// The key that the server must show.
    pub host_key: Fingerprint,
    /// The account's private key.
    pub key: Option<Secret>,
    /// What the private key is encrypted with.
    pub passphrase: Option<Secret>,
    /// The account's password.
    pub password: Option<Secret>,
    /// Longest wait for a connection with its login, and for an answer.
    pub timeout: Duration,
    /// Most bytes of a file.
    pub bytes_max: u64,
}

impl Server {
    /// Checks what a document says.
    ///
    /// # Errors
    /// An address that is not one of SFTP, no fingerprint, no way to log in.
    pub fn new(doc: &SftpDoc) -> Result<Self, DocumentError> {
        let bad = |detail: &str| DocumentError::at(&doc.url, "watch.sftp.url", detail);
        let form = "write sftp://USER@HOST:PORT/FOLDER";
        let url = Url::parse(&doc.url.value).map_err(|_| bad(form))?;
        if url.password().is_some() {
            return Err(bad("a password never stands in an address: use `watch.sftp.password`"));
        }
        let (Some(host), "sftp") = (url.host_str(), url.scheme()) else { return Err(bad(form)) };
        let (user, path) = (decoded(url.username()), decoded(url.path()));
        let (Some(user), Some(path)) = (user.filter(|u| !u.is_empty()), path) else { return Err(bad(form)) };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("a folder has no `?` and no `#`; write them as %3F and %23"));
        }
        let folder = match path.strip_prefix("/~") {
            Some(home) if home.is_empty() || home.starts_with('/') => match home.trim_matches('/') {
                "" => ".".to_owned(),
                below => below.to_owned(),
            },
            _ if path.trim_matches('/').is_empty() => "/".to_owned(),
            _ => path.trim_end_matches('/').to_owned(),
        };
        if doc.key.is_none() && doc.password.is_none() {
            return Err(DocumentError::rule(
                "watch.sftp",
                "say how to log in: `key: file:PATH` or `password: env:NAME`",
            ));
        }
        if doc.passphrase.is_some() && doc.key.is_none() {
            return Err(DocumentError::rule("watch.sftp.passphrase", "it opens a `key`; name that, or use `password`"));
        }
        let timeout = doc.timeout.map_or(TIMEOUT, |period| period.0);
        if timeout < Duration::from_secs(1) {
            return Err(DocumentError::rule("watch.sftp.timeout", "at least 1s"));
        }
        Ok(Self {
            // An address of version 6 stands in brackets in a URL alone.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(22),
            user,
            folder,
            shown: url.as_str().trim_end_matches('/').to_owned(),
            host_key: host_key(doc)?,
            key: doc.key.clone(),
            passphrase: doc.passphrase.clone(),
            password: doc.password.clone(),
            timeout,
            bytes_max: doc.bytes_max.unwrap_or(BYTES_MAX),
        })
    }
}

fn host_key(doc: &SftpDoc) -> Result<Fingerprint, DocumentError> {
    let detail = "write the fingerprint of the server's key, `SHA256:` and 43 characters; the people of the server read it \
                  with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`";
    let parsed = Fingerprint::from_str(doc.host_key.value.trim_end_matches('='));
    match parsed {
        Ok(key) if doc.host_key.value.starts_with("SHA256:") => Ok(key),
        _ => Err(DocumentError::at(&doc.host_key, "watch.sftp.host_key", detail)),
    }
}

/// Text of an address without its `%XX`; none when that is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|code| hex::decode(code).ok());
        match code {
            Some(code) => {
                out.extend_from_slice(&code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn server(members: &str) -> Result<Server, String> {
        let doc: SftpDoc = crate::strict::from_str(&format!("host_key: {KEY}\n{members}\n")).map_err(|e| e.detail)?;
        Server::new(&doc).map_err(|e| e.to_string())
    }

    #[test]
    fn addresses_name_user_host_port_and_folder() {
        for (url, user, host, port, folder) in [
            ("sftp://meter@files.example/in/", "meter", "files.example", 22, "/in"),
            ("sftp://m%40x@files.example:2022/a%20b/c", "m@x", "files.example", 2022, "/a b/c"),
            ("sftp://m@[::1]/~/in", "m", "::1", 22, "in"),
            ("sftp://m@h/~", "m", "h", 22, "."),
            ("sftp://m@h/~other/in", "m", "h", 22, "/~other/in"),
            ("sftp://m@h", "m", "h", 22, "/"),
        ] {
            let server = server(&format!("url: {url}\npassword: env:X")).unwrap();
            let found = (server.user.as_str(), server.host.as_str(), server.port, server.folder.as_str());
            assert_eq!(found, (user, host, port, folder), "{url}");
        }
    }

    #[test]
    fn mistakes_are_named_and_no_secret_is_repeated() {
        for (members, wanted) in [
            ("url: sftp://m:hunter2@h/in\npassword: env:X", "watch.sftp.password"),
            ("url: ftp://m@h/in\npassword: env:X", "write sftp://"),
            ("url: sftp://h/in\npassword: env:X", "write sftp://"),
            ("url: sftp://m@h/in?x\npassword: env:X", "no `?`"),
            ("url: sftp://m@h/in", "say how to log in"),
            ("url: sftp://m@h/in\npassword: env:X\npassphrase: env:Y", "it opens a `key`"),
            ("url: sftp://m@h/in\npassword: env:X\ntimeout: 5ms", "at least 1s"),
            ("url: sftp://m@h/in\npassword: hunter2", "a secret is never written here"),
        ] {
            let error = server(members).unwrap_err();
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{members}: {error}");
        }
        let other: SftpDoc =
            crate::strict::from_str("url: sftp://m@h/in\npassword: env:X\nhost_key: MD5:00\n").unwrap();
        assert!(Server::new(&other).unwrap_err().to_string().contains("ssh-keygen -lf"));
        let none = crate::strict::from_str::<SftpDoc>("url: sftp://m@h/in\npassword: env:X\n").unwrap_err().detail;
        assert!(none.contains("key `host_key` is missing"), "{none}");
    }
}
