//! Configuration of the exchange's stream server.
//!
//! Accounts are the outer wall between agencies. The feed stream of a consumer is named like its account, so that one set of
//! exports serves every agency and the server itself enforces the importer's name. Every agency may provide and consume.

use std::fmt::Write;

use zeroize::Zeroizing;

/// Largest message, bytes.
pub const MAX_PAYLOAD: usize = 8_388_608;
/// Name of the exchange's account.
pub const EXCHANGE_ACCOUNT: &str = "EXCHANGE";
/// User of the exchange manager.
pub const EXCHANGE_USER: &str = "exchange";

/// One account and its user.
pub struct Account {
    /// Account name, capitals.
    pub account: String,
    /// User name.
    pub user: String,
    /// Password, hexadecimal.
    pub password: Zeroizing<String>,
}

/// What the server needs to know.
pub struct StreamServer<'a> {
    /// `host:port` it listens on.
    pub listen: &'a str,
    /// Name of the server, unique in a cluster.
    pub name: &'a str,
    /// Folder of its streams.
    pub store_dir: &'a str,
    /// Password of the exchange manager.
    pub exchange_password: &'a str,
    /// The agencies.
    pub accounts: &'a [Account],
}

/// What no agency's user does, even in its own account: evidence is not deleted over the wire, it ages out by the stream's limits.
const AGENCY_DENY: &str = r#"["$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.PURGE.>", "$JS.API.STREAM.MSG.DELETE.>"]"#;
/// The exchange manager purges one subscription's subject, and deletes no stream.
const EXCHANGE_DENY: &str = r#"["$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.MSG.DELETE.>"]"#;

/// Renders `nats.conf`. It holds passwords: write it with mode 0600.
pub fn nats_conf(server: &StreamServer<'_>) -> Zeroizing<String> {
    let mut out = Zeroizing::new(format!(
        "# Written by concordat. Accounts keep agencies apart; every acknowledgement comes after fsync.
listen: \"{listen}\"
server_name: \"{name}\"
max_payload: {MAX_PAYLOAD}
jetstream {{ store_dir: \"{store}\", sync_interval: always }}
accounts {{
  {EXCHANGE_ACCOUNT}: {{
    jetstream: enabled
    users: [ {{user: \"{EXCHANGE_USER}\", password: \"{password}\", permissions: {{publish: {{deny: {EXCHANGE_DENY}}}}}}} ]
    exports: [
      {{service: \"feed.*.*.>\", account_token_position: 2}}
      {{service: \"q.*.*.>\", account_token_position: 2}}
      {{service: \"$JS.API.STREAM.INFO.*\", account_token_position: 5}}
      {{service: \"$JS.API.CONSUMER.INFO.*.*\", account_token_position: 5}}
      {{service: \"$JS.API.CONSUMER.MSG.NEXT.*.*\", account_token_position: 6, response_type: stream}}
      {{service: \"$JS.ACK.*.>\", account_token_position: 3}}
    ]
    imports: [
",
        listen = server.listen,
        name = server.name,
        store = server.store_dir,
        password = server.exchange_password,
    ));
    // One line a pair: `q.*.POLICE.>` would overlap with the police's own import `q.POLICE.*.>`, and the server refuses that
    // as a cycle (sometimes only: it depends on the order in which it meets the accounts).
    for provider in server.accounts {
        for consumer in server.accounts.iter().filter(|c| c.account != provider.account) {
            // Writing to a String does not fail.
            let _ = writeln!(
                out,
                "      {{service: {{account: \"{0}\", subject: \"q.{1}.{0}.>\"}}}}",
                provider.account, consumer.account
            );
        }
    }
    out.push_str("    ]\n  }\n");
    for a in server.accounts {
        agency_account(&mut out, a);
    }
    out.push_str("}\n");
    out
}

fn agency_account(out: &mut String, a: &Account) {
    let _ = write!(
        out,
        "  \"{acc}\": {{
    jetstream: enabled
    users: [ {{user: \"{user}\", password: \"{password}\", permissions: {{publish: {{deny: {AGENCY_DENY}}}}}}} ]
    exports: [ {{service: \"q.*.{acc}.>\", accounts: [{EXCHANGE_ACCOUNT}]}} ]
    imports: [
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"feed.{acc}.*.>\"}}, to: \"feed.*.>\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"q.{acc}.*.>\"}}, to: \"query.*.>\", share: true}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.API.STREAM.INFO.{acc}\"}}, to: \"XJS.API.STREAM.INFO.{acc}\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.API.CONSUMER.INFO.{acc}.*\"}}, to: \"XJS.API.CONSUMER.INFO.{acc}.*\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.API.CONSUMER.MSG.NEXT.{acc}.*\"}}, to: \"XJS.API.CONSUMER.MSG.NEXT.{acc}.*\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.ACK.{acc}.>\"}}}}
    ]
  }}
",
        acc = a.account,
        user = a.user,
        password = a.password.as_str(),
    );
}
