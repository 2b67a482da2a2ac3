//! Pseudonyms of this agency's people: another one towards every provider and in every month, so that providers cannot
//! put together who asked what; opened here, to oversight, from what this agency kept of its own queries.

use concordat_protocol::hash::hmac_sha256;
use concordat_protocol::ids::AgencyId;
use jiff::tz::TimeZone;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Makes pseudonyms. Cheap to clone.
#[derive(Clone)]
pub struct Actors(Arc<Zeroizing<[u8; 32]>>);

/// The month (UTC) of a ledger time in milliseconds: `2026-11`. Pseudonyms change with it.
#[must_use]
pub fn month(tick_ms: u64) -> String {
    let at = i64::try_from(tick_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m").to_string()
}

impl Actors {
    /// From the agency's secret: only who has it can trace a pseudonym back.
    #[must_use]
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(Arc::new(secret))
    }

    /// The pseudonym of a caller towards a provider in a month: `psn:` and 128 bits of HMAC-SHA-256 (RFC 2104) in hex.
    #[must_use]
    pub fn pseudonym(&self, provider: &AgencyId, month: &str, name: &str) -> String {
        let lengths = [provider.as_str(), month].map(|part| (part.len() as u64).to_be_bytes());
        let parts =
            [b"actor", &lengths[0][..], provider.as_str().as_bytes(), &lengths[1], month.as_bytes(), name.as_bytes()];
        format!("psn:{}", hex::encode(&hmac_sha256(&self.0, &parts)[..16]))
    }

    /// A name under which the broker keeps a person without naming them: HMAC-SHA-256 of a purpose and parts, with the
    /// length of each.
    pub(crate) fn hidden(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let all: Vec<&str> = std::iter::once(purpose).chain(parts.iter().copied()).collect();
        let lengths: Vec<[u8; 8]> = all.iter().map(|p| (p.len() as u64).to_be_bytes()).collect();
        let mut message: Vec<&[u8]> = vec![b"hidden"];
        for (length, part) in lengths.iter().zip(&all) {
            message.extend([&length[..], part.as_bytes()]);
        }
        hmac_sha256(&self.0, &message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_person_has_another_name_towards_each_provider_and_in_each_month() {
        let (ours, others) = (Actors::new(Zeroizing::new([1; 32])), Actors::new(Zeroizing::new([2; 32])));
        let agency = |name| AgencyId::new(name).unwrap();
        let all = [
            ours.pseudonym(&agency("police"), "2026-11", "anna"),
            ours.pseudonym(&agency("police"), "2026-12", "anna"),
            ours.pseudonym(&agency("grid"), "2026-11", "anna"),
            ours.pseudonym(&agency("police"), "2026-11", "bert"),
            others.pseudonym(&agency("police"), "2026-11", "anna"),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all[0], ours.pseudonym(&agency("police"), "2026-11", "anna"));
        assert!(all[0].starts_with("psn:") && all[0].len() == 36);
    }

    #[test]
    fn a_hidden_name_depends_on_every_part_and_where_it_ends() {
        let actors = Actors::new(Zeroizing::new([1; 32]));
        let all = [
            actors.hidden("subject", &["ds:a/b@1", "17"]),
            actors.hidden("holder", &["ds:a/b@1", "17"]),
            actors.hidden("subject", &["ds:a/b@11", "7"]),
            actors.hidden("subject", &["ds:a/b@1", "18"]),
            Actors::new(Zeroizing::new([2; 32])).hidden("subject", &["ds:a/b@1", "17"]),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all[0], actors.hidden("subject", &["ds:a/b@1", "17"]));
    }

    #[test]
    fn months_are_those_of_utc() {
        assert_eq!(month(0), "1970-01");
        // 2026-11-30T23:59:59.999Z and the millisecond after it.
        assert_eq!((month(1_796_083_199_999), month(1_796_083_200_000)), ("2026-11".into(), "2026-12".into()));
    }
}
