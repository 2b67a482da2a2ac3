//! Configuration of the exchange's stream server.
//!
//! Accounts are the outer wall between agencies. The feed stream of a consumer is named like its account, so that one set of
//! exports serves every agency and the server itself enforces the importer's name. Every agency may provide and consume.

use std::fmt::Write;

use concordat_broker::config::FEED_STREAM_BYTES;
use zeroize::Zeroizing;

/// Largest message, bytes.
pub const MAX_PAYLOAD: usize = 8_388_608;
/// Name of the exchange's account.
pub const EXCHANGE_ACCOUNT: &str = "EXCHANGE";
/// User of the exchange manager.
pub const EXCHANGE_USER: &str = "exchange";

/// What one agency's account may keep on disk, bytes. At the limit its own appends are refused and no other agency's.
const ACCOUNT_FILE_BYTES: u64 = 64 << 30;
/// What one account may keep in memory, bytes: nothing that counts lives there.
const ACCOUNT_MEMORY_BYTES: u64 = 64 << 20;
/// Streams of one account: a dataset has one, and in the exchange an agency.
const ACCOUNT_STREAMS: usize = 1_024;

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
    /// `host:port` of its monitoring page, by which nodes see that it syncs always; loopback or a guarded network only.
    pub monitor: &'a str,
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
    // The server grants its accounts together no more than it has itself. The exchange has room for every feed stream.
    let agencies = server.accounts.len() as u64;
    let feeds = FEED_STREAM_BYTES * agencies;
    let mut out = Zeroizing::new(format!(
        "# Written by concordat. Accounts keep agencies apart; every acknowledgement comes after fsync.
listen: \"{listen}\"
http: \"{monitor}\"
server_name: \"{name}\"
max_payload: {MAX_PAYLOAD}
jetstream {{ store_dir: \"{store}\", sync_interval: always, max_file_store: {file}, max_memory_store: {memory} }}
accounts {{
  {EXCHANGE_ACCOUNT}: {{
    jetstream: {limits}
    users: [ {{user: \"{EXCHANGE_USER}\", password: \"{password}\", permissions: {{publish: {{deny: {EXCHANGE_DENY}}}}}}} ]
    exports: [
      {{service: \"feed.*.*.*\", account_token_position: 2}}
      {{service: \"xm.*.>\", account_token_position: 2}}
      {{service: \"q.*.*.>\", account_token_position: 2}}
      {{service: \"$JS.API.STREAM.INFO.*\", account_token_position: 5}}
      {{service: \"$JS.API.CONSUMER.INFO.*.*\", account_token_position: 5}}
      {{service: \"$JS.API.CONSUMER.MSG.NEXT.*.*\", account_token_position: 6, response_type: stream}}
      {{service: \"$JS.ACK.*.>\", account_token_position: 3}}
    ]
    imports: [
",
        listen = server.listen,
        monitor = server.monitor,
        limits = limits(feeds),
        file = ACCOUNT_FILE_BYTES * agencies + feeds,
        memory = ACCOUNT_MEMORY_BYTES * (agencies + 1),
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

fn limits(file_bytes: u64) -> String {
    format!("{{max_file: {file_bytes}, max_memory: {ACCOUNT_MEMORY_BYTES}, max_streams: {ACCOUNT_STREAMS}}}")
}

fn agency_account(out: &mut String, a: &Account) {
    let _ = write!(
        out,
        "  \"{acc}\": {{
    jetstream: {limits}
    users: [ {{user: \"{user}\", password: \"{password}\", permissions: {{publish: {{deny: {AGENCY_DENY}}}}}}} ]
    exports: [ {{service: \"q.*.{acc}.>\", accounts: [{EXCHANGE_ACCOUNT}]}} ]
    imports: [
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"feed.{acc}.*.*\"}}, to: \"feed.*.*\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"xm.{acc}.>\"}}, to: \"exchange.>\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"q.{acc}.*.>\"}}, to: \"query.*.>\", share: true}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.API.STREAM.INFO.{acc}\"}}, to: \"XJS.API.STREAM.INFO.{acc}\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.API.CONSUMER.INFO.{acc}.*\"}}, to: \"XJS.API.CONSUMER.INFO.{acc}.*\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.API.CONSUMER.MSG.NEXT.{acc}.*\"}}, to: \"XJS.API.CONSUMER.MSG.NEXT.{acc}.*\"}}
      {{service: {{account: {EXCHANGE_ACCOUNT}, subject: \"$JS.ACK.{acc}.>\"}}}}
    ]
  }}
",
        acc = a.account,
        limits = limits(ACCOUNT_FILE_BYTES),
        user = a.user,
        password = a.password.as_str(),
    );
}
