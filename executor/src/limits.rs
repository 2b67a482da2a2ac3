//! Every limit of the query language and of holdings, in one place.

use std::time::Duration;

/// Levels of `and`, `or`, `not` a filter may nest.
pub const MAX_FILTER_DEPTH: usize = 8;
/// Conditions (field and operator) in one filter.
pub const MAX_CONDITIONS: usize = 256;
/// Values in one `in` list, and members of one `and` or `or`.
pub const MAX_LIST: usize = 1_000;
/// Constants in one filter, all lists together.
pub const MAX_CONSTANTS: usize = 4_000;
/// Bytes of one text constant in a filter.
pub const MAX_CONSTANT_BYTES: usize = 1_024;
/// Bytes of a query as JSON text.
pub const MAX_QUERY_BYTES: usize = 256 * 1_024;
/// Nesting of JSON text before it is looked at, so that a parser cannot be driven deep.
pub const MAX_JSON_DEPTH: usize = 32;
/// Rows of one page, and the largest `limit`.
pub const MAX_PAGE_ROWS: u32 = 1_000;
/// Rows of a page where the query names no `limit`.
pub const DEFAULT_PAGE_ROWS: u32 = 100;
/// Bytes of the rows of one page (projected JSON); a page ends early before it passes this.
pub const MAX_PAGE_BYTES: usize = 4 * 1_024 * 1_024;
/// Fields of a dataset.
pub const MAX_FIELDS: usize = 512;
/// Bytes of a field name.
pub const MAX_FIELD_NAME: usize = 63;
/// Fields that make up a row's key.
pub const MAX_KEY_FIELDS: usize = 8;
/// Bytes of a row's key text.
pub const MAX_KEY_BYTES: usize = 512;
/// Indexes of a dataset, and fields of one index.
pub const MAX_INDEXES: usize = 16;
/// Bytes of one row as JSON text.
pub const MAX_ROW_BYTES: usize = 256 * 1_024;
/// Rows of one `put_many`.
pub const MAX_PUT_ROWS: usize = 20_000;
/// Significant digits of a decimal.
pub const MAX_DECIMAL_DIGITS: usize = 60;
/// Largest magnitude of an integer that JSON carries exactly (RFC 7493): 2^53 - 1.
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;
/// How long a store may work on one read before it is stopped.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a store waits for a lock before it says so.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Read connections of an embedded store.
pub const READERS: usize = 4;
/// Rows that a store may hand over for one query whose filter or totals the executor finishes itself.
pub const MAX_REFINED_ROWS: usize = 100_000;
/// Queries at work on one networked store at once, where the provider does not say.
pub const CONCURRENT_QUERIES: usize = 4;
/// Radius of a `near`, metres.
pub const MAX_NEAR_METRES: u32 = 500_000;
/// Smallest group of totals, where the query does not say.
pub const DEFAULT_MIN_GROUP: u64 = 5;
/// Groups in one answer of totals.
pub const MAX_GROUPS: usize = 1_000;
/// Groups that the executor adds up for one answer, the small ones included.
pub const MAX_REFINED_GROUPS: usize = 50_000;
/// Fields that totals group by, add up, or take the mean of; each list.
pub const MAX_TOTAL_FIELDS: usize = 8;
/// Signatures over requests that are remembered as good: of the calls that are on their way.
pub const KEPT_SIGNATURES: usize = 256;
/// How long after its intent a write may be without its outcome, by the ledger's time, before people are told.
pub const OUTCOME_WITHIN: Duration = Duration::from_secs(60);
/// Ids of writes that a store looks through at once when it forgets old ones.
pub const WRITE_IDS_AT_ONCE: u32 = 1_000;
/// How long a store keeps the id of a write, at least: whoever may still repeat it (a former executor that stood still, one
/// that starts again) has done so long before.
pub const WRITE_IDS_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
