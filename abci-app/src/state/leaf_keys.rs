//! The keys by which rows stand in the trees.

use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId, WriterId};

use super::rows::{QuotaKey, SubKey};

/// Leaf keys of the `meta` tree.
pub mod meta_key {
    use super::{AgencyId, AgreementId, DatasetId, Hash, SubKey, WriterId};

    /// An agency.
    pub fn agency(id: &AgencyId) -> Vec<u8> {
        format!("agency/{id}").into_bytes()
    }
    /// An agreement version; the number is padded so that versions sort.
    pub fn agreement(id: &AgreementId, version: u64) -> Vec<u8> {
        format!("agreement/{id}/{version:010}").into_bytes()
    }
    /// A dataset.
    pub fn dataset(id: &DatasetId) -> Vec<u8> {
        format!("dataset/{id}").into_bytes()
    }
    /// A parameter.
    pub fn param(name: &str) -> Vec<u8> {
        format!("param/{name}").into_bytes()
    }
    /// A writer's equivocation.
    pub fn equivocation(writer: &WriterId, incarnation: u64) -> Vec<u8> {
        format!("equivocation/{writer}/{incarnation}").into_bytes()
    }
    /// An epoch.
    pub fn epoch(n: u64) -> Vec<u8> {
        format!("epoch/{n:010}").into_bytes()
    }
    /// A root key that waits for its time.
    pub fn root_pending(agency: &AgencyId) -> Vec<u8> {
        format!("root-pending/{agency}").into_bytes()
    }
    /// A decision that agencies gather votes for.
    pub fn ballot(body: &Hash) -> Vec<u8> {
        format!("ballot/{}", hex::encode(body)).into_bytes()
    }
    /// The height from which an application version is needed.
    pub fn upgrade(app_version: u64) -> Vec<u8> {
        format!("upgrade/{app_version:010}").into_bytes()
    }
    /// A disputed operation.
    pub fn dispute(reference: u64) -> Vec<u8> {
        format!("dispute/{reference:020}").into_bytes()
    }
    /// A role map; the number is padded so that the newest one is the last.
    pub fn role_map((agency, number): &(AgencyId, u64)) -> Vec<u8> {
        format!("role-map/{agency}/{number:010}").into_bytes()
    }
    /// Two promises that exclude each other.
    pub fn double_promise((provider, subscription): &SubKey, sub_seq: u64) -> Vec<u8> {
        format!("double-promise/{provider}/{subscription}/{sub_seq:020}").into_bytes()
    }
}

/// Leaf keys of the `heads` tree.
pub mod heads_key {
    use super::{QuotaKey, SubKey, WriterId};

    /// A writer.
    pub fn writer(id: &WriterId) -> Vec<u8> {
        format!("writer/{id}").into_bytes()
    }
    /// A quota.
    pub fn quota((session, (agreement, clause)): &QuotaKey) -> Vec<u8> {
        format!("quota/{agreement}/{clause}/{session}").into_bytes()
    }
    /// A dataset's head, by number.
    pub fn dataset(number: u64) -> Vec<u8> {
        format!("dataset/{number}").into_bytes()
    }
    /// A subscription.
    pub fn subscription((provider, number): &SubKey) -> Vec<u8> {
        format!("subscription/{provider}/{number}").into_bytes()
    }
}
