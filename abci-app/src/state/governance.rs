//! Keys, datasets, sessions, writers and roles of an agency.

use concordat_protocol::acts::{KeyRole, SessionKey};
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, DatasetId, WriterId};
use concordat_protocol::keys::{KeyId, PublicKey, Suite};
use concordat_protocol::limits::{SESSION_LIFE_MS_MAX, SESSIONS_PER_ACT};
use concordat_protocol::node::KeyView;

use super::apply::Work;
use super::rows::{DatasetHead, DatasetRow, SessionRow, WriterRow, suite_fits, writer_of};

/// Longest label of a key, bytes.
pub const LABEL_MAX: usize = 64;
/// Most approval roles an agency or a document may need.
pub const ROLES_MAX: usize = 16;
/// How long a session's row stays after its end, so that late records are told "expired", not "unknown".
const SESSION_KEPT_MS: u64 = 3_600_000;
/// Most ended sessions that one act clears away.
const CLEARED_PER_ACT: usize = 2 * SESSIONS_PER_ACT;

/// Whether roles are sorted, distinct, named well and not too many.
pub fn roles_fit(roles: &[String]) -> bool {
    let named = |r: &String| {
        (1..=LABEL_MAX).contains(&r.len())
            && r.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    roles.len() <= ROLES_MAX && roles.iter().all(named) && roles.windows(2).all(|w| w[0] < w[1])
}

impl Work<'_> {
    /// Registers a key; a writer's key also registers the writer, or becomes the key of one that exists. A root key
    /// waits ([`Work::root_waits`]).
    pub fn key_add(&mut self, agency: &AgencyId, role: KeyRole, label: &str, key: &PublicKey) -> Result<(), u16> {
        if role == KeyRole::Root {
            return self.root_waits(agency, label, key);
        }
        self.register_key(agency, role, label, key)
    }

    /// Whether a key may be registered: well made for its role, and neither known already nor waiting.
    pub(super) fn key_fits(&self, role: KeyRole, label: &str, key: &PublicKey) -> Result<(), u16> {
        if label.is_empty() || label.len() > LABEL_MAX {
            return Err(codes::BAD_VALUE);
        }
        if !suite_fits(role, key) || key.check().is_err() {
            return Err(codes::BAD_KEY);
        }
        let waits = self.view.root_pending.iter().any(|(_, pending)| pending.key == *key);
        if waits || self.view.keys.has(&key.key_id()) { Err(codes::KEY_EXISTS) } else { Ok(()) }
    }

    /// Registers a key of any role at once: what genesis does.
    pub fn register_key(&mut self, agency: &AgencyId, role: KeyRole, label: &str, key: &PublicKey) -> Result<(), u16> {
        self.key_fits(role, label, key)?;
        let id = key.key_id();
        let row = KeyView {
            agency: agency.clone(),
            role,
            label: label.to_owned(),
            key: key.clone(),
            revoked_ms: 0,
            compromised_since_ms: 0,
        };
        if role == KeyRole::Approver && !roles_fit(&[label.to_owned()]) {
            return Err(codes::BAD_VALUE);
        }
        if role == KeyRole::Writer {
            let writer = writer_of(&row).ok_or(codes::BAD_VALUE)?;
            match self.view.writers.edit(&writer) {
                Some(known) => known.key_id = id,
                None => {
                    let slot = self.slot();
                    let new = WriterRow { key_id: id, incarnation: 1, last_seq: 0, last_hash: [0; 32], slot };
                    self.view.writers.put(writer, new);
                }
            }
        }
        if matches!(role, KeyRole::Root | KeyRole::Cosign)
            && let Some(agency) = self.view.agencies.edit(agency)
        {
            if role == KeyRole::Root { agency.root = id } else { agency.cosign.push(id) }
        }
        self.view.keys.put(id, row);
        Ok(())
    }

    /// Revokes a key at once, or takes a waiting root key back. The root key itself ends by rotation or with its agency.
    pub fn key_revoke(&mut self, agency: &AgencyId, id: &KeyId, compromised_since_ms: u64) -> Result<(), u16> {
        let tick = self.head.tick_ms;
        if self.view.root_pending.get(agency).is_some_and(|pending| pending.key.key_id() == *id) {
            self.view.root_pending.remove(agency.clone());
            return Ok(());
        }
        let key = self.view.keys.get(id).ok_or(codes::UNKNOWN_KEY)?;
        if key.agency != *agency {
            return Err(codes::WRONG_AGENCY);
        }
        if key.revoked_ms != 0 {
            return Err(codes::KEY_REVOKED);
        }
        if key.role == KeyRole::Root || compromised_since_ms > tick {
            return Err(codes::BAD_VALUE);
        }
        if key.role == KeyRole::Cosign
            && let Some(row) = self.view.agencies.edit(agency)
        {
            row.cosign.retain(|k| k != id);
        }
        if let Some(row) = self.view.keys.edit(id) {
            row.revoked_ms = tick.max(1);
            row.compromised_since_ms = compromised_since_ms;
        }
        Ok(())
    }

    /// Registers a dataset of the agency.
    pub fn dataset(&mut self, agency: &AgencyId, id: &DatasetId, schema_hash: &Hash) -> Result<(), u16> {
        if id.owner() != *agency {
            return Err(codes::WRONG_AGENCY);
        }
        if self.view.datasets.has(id) {
            return Err(codes::DATASET_EXISTS);
        }
        let number = self.head.next_dataset;
        self.head.next_dataset += 1;
        let slot = self.slot();
        self.view.datasets.put(id.clone(), DatasetRow { number, schema_hash: *schema_hash });
        self.view.dataset_heads.put(number, DatasetHead { id: id.clone(), head: 0, slot });
        Ok(())
    }

    /// Opens sessions of the agency towards a provider.
    pub fn session_open(
        &mut self,
        agency: &AgencyId,
        provider: &AgencyId,
        keys: &[SessionKey],
        expires_ms: u64,
    ) -> Result<(), u16> {
        let tick = self.head.tick_ms;
        if keys.is_empty() || expires_ms <= tick || expires_ms - tick > SESSION_LIFE_MS_MAX {
            return Err(codes::BAD_VALUE);
        }
        if keys.len() > SESSIONS_PER_ACT {
            return Err(codes::TOO_LARGE);
        }
        if !self.is_member(provider) {
            return Err(codes::BAD_VALUE);
        }
        for (i, SessionKey { key }) in keys.iter().enumerate() {
            let public = PublicKey { suite: Suite::Ed25519, ed25519: key.to_vec().into(), pq: Vec::new().into() };
            if public.check().is_err() {
                return Err(codes::BAD_KEY);
            }
            if self.view.session_keys.has(key) || keys[..i].iter().any(|k| k.key == *key) {
                return Err(codes::KEY_EXISTS);
            }
        }
        self.clear_sessions();
        for SessionKey { key } in keys {
            let number = self.head.next_session;
            self.head.next_session += 1;
            let row = SessionRow {
                consumer: agency.clone(),
                provider: provider.clone(),
                key: *key,
                expires_ms,
                newest_n: 0,
                window: SessionRow::empty_window(),
                slot: self.slot(),
            };
            self.view.sessions.put(number, row);
            self.view.session_keys.put(*key, number);
            self.view.session_ends.put((expires_ms, number), 0);
        }
        Ok(())
    }

    /// Removes sessions that ended a while ago, with their quotas, and gives their slots back.
    fn clear_sessions(&mut self) {
        let Some(before) = self.head.tick_ms.checked_sub(SESSION_KEPT_MS) else { return };
        let ended: Vec<(u64, u64)> = self
            .view
            .session_ends
            .iter()
            .map(|(key, _)| *key)
            .take_while(|(end, _)| *end <= before)
            .take(CLEARED_PER_ACT)
            .collect();
        for (end, number) in ended {
            self.view.session_ends.remove((end, number));
            let Some(row) = self.view.sessions.get(&number).cloned() else { continue };
            self.view.session_keys.remove(row.key);
            self.view.sessions.remove(number);
            self.free(row.slot);
            let quotas: Vec<_> = self
                .view
                .quotas
                .iter()
                .skip_while(|((session, _), _)| *session < number)
                .take_while(|((session, _), _)| *session == number)
                .map(|(key, quota)| (key.clone(), quota.slot))
                .collect();
            for (key, slot) in quotas {
                self.view.quotas.remove(key);
                self.free(slot);
            }
        }
    }

    /// Ends sessions of the agency now.
    pub fn session_close(&mut self, agency: &AgencyId, sessions: &[u64]) -> Result<(), u16> {
        if sessions.is_empty() || sessions.len() > SESSIONS_PER_ACT {
            return Err(codes::BAD_VALUE);
        }
        let own = |number: &u64| self.view.sessions.get(number).is_some_and(|s| s.consumer == *agency);
        if !sessions.iter().all(own) {
            return Err(codes::SESSION_UNKNOWN);
        }
        self.end_sessions(sessions);
        Ok(())
    }

    /// Ends sessions now.
    pub(super) fn end_sessions(&mut self, sessions: &[u64]) {
        let tick = self.head.tick_ms;
        for number in sessions {
            let Some(row) = self.view.sessions.edit(number) else { continue };
            let (old, new) = (row.expires_ms, row.expires_ms.min(tick));
            row.expires_ms = new;
            self.view.session_ends.remove((old, *number));
            self.view.session_ends.put((new, *number), 0);
        }
    }

    /// Starts a writer's next incarnation.
    pub fn reset(&mut self, agency: &AgencyId, writer: &WriterId, incarnation: u64) -> Result<(), u16> {
        if writer.agency() != *agency {
            return Err(codes::WRONG_AGENCY);
        }
        let row = self.view.writers.edit(writer).ok_or(codes::UNKNOWN_WRITER)?;
        if Some(incarnation) != row.incarnation.checked_add(1) {
            return Err(codes::BAD_VALUE);
        }
        row.incarnation = incarnation;
        row.last_seq = 0;
        row.last_hash = [0; 32];
        Ok(())
    }

    /// Sets the approval roles the agency always needs.
    pub fn roles(&mut self, agency: &AgencyId, roles: &[String]) -> Result<(), u16> {
        if !roles_fit(roles) {
            return Err(codes::BAD_VALUE);
        }
        let row = self.view.agencies.edit(agency).ok_or(codes::WRONG_AGENCY)?;
        row.roles = roles.to_vec();
        Ok(())
    }
}
