//! Every limit of the protocol in one place. Each is a rule both sides check; changing one is a protocol change.

/// Deepest nesting of arrays that a decoder follows.
pub const CBOR_DEPTH_MAX: u8 = 16;
/// Largest transaction accepted into a block, bytes (CometBFT's `mempool.max_tx_bytes`, a quarter of a 1 MB block).
pub const TX_BYTES_MAX: usize = 262_144;
/// Most operations in one batch.
pub const BATCH_OPS_MAX: usize = 8_192;
/// Batches of one writer that a client may have uncommitted.
pub const CLIENT_WINDOW_BATCHES: u64 = 4;
/// Batches of one writer that CheckTx accepts before answering 303.
pub const CHECK_WINDOW_BATCHES: u64 = 8;
/// How long a proposer leaves a gapped batch or act out before it is included to be refused, milliseconds (monotonic).
pub const GAP_WAIT_MS: u64 = 10_000;
/// Acts waiting for a block: how many in all, how many bytes in all, how many a key.
pub const WAITING_ACTS_MAX: usize = 1_000;
/// Bytes of acts waiting for a block.
pub const WAITING_ACTS_BYTES_MAX: usize = 1 << 20;
/// Acts of one key waiting for a block.
pub const WAITING_ACTS_PER_KEY: usize = 16;
/// How far a tick may be ahead of a validator's own clock, milliseconds.
pub const TICK_AHEAD_MS: u64 = 1_000;
/// Difference between tick and own clock at which a node raises an alarm, milliseconds.
pub const TICK_ALARM_MS: u64 = 2_000;
/// Most messages a `publish` covers.
pub const PUBLISH_MESSAGES_MAX: u64 = 65_536;
/// Longest life of a session, milliseconds.
pub const SESSION_LIFE_MS_MAX: u64 = 24 * 3_600_000;
/// Most sessions one act opens.
pub const SESSIONS_PER_ACT: usize = 256;
/// Width of the window in which the ledger remembers which `n` of a session were used.
pub const SESSION_WINDOW: u64 = 4_096;
/// Newest minus oldest open request that a gateway keeps in one session.
pub const GATEWAY_WINDOW: u64 = 2_048;
/// Most tags an operation carries; more travel as `bulk`.
pub const TAGS_MAX: usize = 1_024;
/// Numbers of tags that are allowed: fewer are padded with random ones.
pub const TAG_STEPS: [usize; 7] = [0, 1, 4, 16, 64, 256, 1_024];
/// Most requests under one signature.
pub const REQUESTS_PER_SIGNATURE: usize = 256;
/// How long a provider may take from commit to release, milliseconds (monotonic).
pub const RELEASE_WITHIN_MS: u64 = 10_000;
/// How long the same request gets the same bytes, milliseconds.
pub const RELEASE_REPEAT_MS: u64 = 600_000;
/// How long a consumer waits for its own node to show the ticket's entry before it complains, milliseconds.
pub const TICKET_CHECK_MS: u64 = 15_000;
/// Age of the newest block, on a monotonic clock, past which a node's processes act as if the ledger were lost, milliseconds.
/// An idle chain makes a block about every five seconds.
pub const HEAD_STALE_MS: u64 = 15_000;
/// Denials recorded one by one for each (session, reason) in a minute, before they are counted.
pub const DENIALS_PER_MINUTE: u32 = 10;
/// Most messages in one envelope.
pub const ENVELOPE_MESSAGES_MAX: usize = 256;
/// Largest event, bytes of JSON.
pub const EVENT_BYTES_MAX: usize = 262_144;
/// Largest checkpoint an adapter may put in an envelope, bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 4_096;
/// Most clauses in an agreement.
pub const CLAUSES_MAX: usize = 256;
/// Longest validity of a proposal's approvals, milliseconds.
pub const APPROVAL_LIFE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Largest body of an act, bytes.
pub const ACT_BYTES_MAX: usize = 65_536;
/// Largest receipt with four validators, bytes.
pub const RECEIPT_BYTES_MAX: usize = 16_384;
/// Largest frame on a node's own socket, bytes.
pub const NODE_FRAME_BYTES_MAX: usize = 16 << 20;
/// Largest stretch of log entries one question may ask for.
pub const LOG_RANGE_MAX: u64 = 10_000;
/// Most proofs that one question to a node may ask for.
pub const PROOFS_MAX: usize = 1_024;
/// Role maps that an agency may record within a UTC day of ledger time: each keeps its row for auditors.
pub const ROLE_MAPS_PER_DAY: usize = 32;
/// Subscriptions one consumer may have created at one provider, those that ended not counted.
pub const SUBSCRIPTIONS_PER_CONSUMER: usize = 256;
/// Longest name of a subscription, bytes.
pub const SUBSCRIPTION_NAME_MAX: usize = 64;
