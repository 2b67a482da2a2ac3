//! The verdict on one operation (PROTOCOL 3, 5 and 6). Verdicts do not depend on how operations are split into batches.

use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::limits::PUBLISH_MESSAGES_MAX;
use concordat_protocol::ops::{Op, Recorded};
use concordat_protocol::terms::{Action, Effect, Evidence, QuotaBy, Status};

use super::apply::{Work, counts};
use super::history::{PastOp, mark};
use super::rows::{DAY_MS, DatasetHead, HandleRow, QuotaKey, QuotaRow, Use};

const WRITES: u64 = Action::Insert as u64 | Action::Modify as u64 | Action::Delete as u64;

pub(super) type Said = Result<(), (Verdict, u16)>;

/// What a request came to, with the consumer it belongs to.
pub(super) struct Outcome {
    /// The verdict's code, where it is not accepted.
    pub said: Said,
    /// The consumer's number.
    pub consumer: u16,
}

impl From<u16> for Outcome {
    fn from(code: u16) -> Self {
        Self { said: Err((Verdict::Refused, code)), consumer: 0 }
    }
}

pub(super) fn refused(code: u16) -> (Verdict, u16) {
    (Verdict::Refused, code)
}

impl Work<'_> {
    /// The verdict and code of an operation, and what stays known of it.
    pub fn operation(&mut self, agency: &AgencyId, number: u16, op: &Op) -> (Verdict, u16, PastOp) {
        let mut past = PastOp {
            kind: op.kind() as u8,
            verdict: 0,
            provider: number,
            consumer: 0,
            handle: 0,
            session: 0,
            tick_ms: self.head.tick_ms,
        };
        let said = match op {
            Op::Publish { dataset, last_seq, count, .. } => self.publish(agency, *dataset, *last_seq, *count),
            Op::Deliver { handle, .. } => {
                past.handle = *handle;
                let outcome = self.deliver(agency, op);
                past.consumer = outcome.consumer;
                outcome.said
            }
            Op::Query { .. } | Op::Intent { .. } | Op::BreakGlass { .. } | Op::Deny { .. } => {
                let outcome = match op.recorded() {
                    Some(r) => {
                        (past.handle, past.session) = (r.handle, r.session);
                        self.request(agency, op, r)
                    }
                    None => codes::UNKNOWN_KIND.into(),
                };
                past.consumer = outcome.consumer;
                outcome.said
            }
            Op::Outcome { reference, .. } => self.outcome(number, *reference),
            Op::Withheld { reference, .. } => self.withheld(number, *reference),
            Op::Review { reference, .. } => self.review(number, *reference),
            Op::Annotate { reference, .. } => {
                self.reference(*reference, |p| p.provider == number || p.consumer == number).map(drop)
            }
            Op::Erase { reference, .. } => self.reference(*reference, |p| p.provider == number).map(drop),
            Op::Ack { reference, .. } => self.ack(number, *reference),
        };
        let (verdict, code) = said.err().unwrap_or((Verdict::Accepted, codes::OK));
        past.verdict = verdict as u8;
        (verdict, code, past)
    }

    fn publish(&mut self, agency: &AgencyId, dataset: u64, last_seq: u64, count: u64) -> Said {
        let row: &mut DatasetHead = self.view.dataset_heads.edit(&dataset).ok_or(refused(codes::UNKNOWN_DATASET))?;
        if row.id.owner() != *agency {
            return Err(refused(codes::UNKNOWN_DATASET));
        }
        if count == 0 {
            return Err(refused(codes::BAD_VALUE));
        }
        if count > PUBLISH_MESSAGES_MAX {
            return Err(refused(codes::TOO_LARGE));
        }
        if last_seq.checked_sub(count) != Some(row.head) {
            return Err(refused(codes::DATASET_HEAD));
        }
        row.head = last_seq;
        Ok(())
    }

    pub(super) fn day_fits(&self, day: u64) -> Said {
        let today = self.head.tick_ms / DAY_MS;
        if day == today || day.checked_add(1) == Some(today) { Ok(()) } else { Err(refused(codes::WRONG_DAY)) }
    }

    /// `query`, `intent`, `break-glass` and `deny`. The number is used up first, whatever the verdict.
    fn request(&mut self, agency: &AgencyId, op: &Op, r: Recorded<'_>) -> Outcome {
        let deny = matches!(op, Op::Deny { .. });
        let tick = self.head.tick_ms;
        let consumer = match self.view.sessions.get(&r.session) {
            Some(s) if s.provider == *agency => s.consumer.clone(),
            _ => return codes::SESSION_UNKNOWN.into(),
        };
        let consumer_number = self.agency_number(&consumer);
        let said = (|| {
            if r.n == 0 && !deny {
                return Err(refused(codes::BAD_VALUE));
            }
            if r.n > 0 {
                let row = self.view.sessions.edit(&r.session).ok_or(refused(codes::SESSION_UNKNOWN))?;
                let over = tick >= row.expires_ms && !deny;
                match row.take(r.n) {
                    Use::Again => return Err(refused(codes::REPLAY)),
                    Use::Behind => return Err(refused(codes::SESSION_WINDOW)),
                    Use::Fresh if over => return Err(refused(codes::SESSION_EXPIRED)),
                    Use::Fresh => {}
                }
            }
            r.tags.check().map_err(refused)?;
            self.day_fits(r.day)?;
            if deny && r.handle == 0 {
                return Ok(());
            }
            let row = self.handle(agency, r.handle)?.clone();
            if row.assignee.as_ref().is_some_and(|a| *a != consumer) {
                return Err(refused(codes::NO_AGREEMENT));
            }
            if deny { Ok(()) } else { self.covered(&row, op, r.session) }
        })();
        Outcome { said, consumer: consumer_number }
    }

    /// A handle that this provider may use.
    pub(super) fn handle(&self, agency: &AgencyId, handle: u64) -> Result<&HandleRow, (Verdict, u16)> {
        self.view.handles.get(&handle).filter(|row| row.assigner == *agency).ok_or(refused(codes::NO_AGREEMENT))
    }

    /// Whether the clause covers the operation now; its quota is charged if data went out.
    pub(super) fn covered(&mut self, row: &HandleRow, op: &Op, session: u64) -> Said {
        let bounded = matches!(row.clause.evidence, Evidence::Bounded { .. });
        let verdict = if bounded { Verdict::Uncovered } else { Verdict::Refused };
        let said = self.standing(row, op).and_then(|()| self.quota_left(row, session)).map_err(|code| (verdict, code));
        let said = said.and_then(|()| self.in_time(row, op));
        let verdict = said.err().map_or(Verdict::Accepted, |(v, _)| v);
        if counts(verdict) {
            self.charge(row, session);
            if verdict == Verdict::Accepted || bounded {
                self.review_due(row, op);
            }
        }
        said
    }

    /// The agreement's state, the clause, its window and its duties.
    fn standing(&self, row: &HandleRow, op: &Op) -> Result<(), u16> {
        let key = (row.agreement.clone(), row.version);
        let agreement = self.view.agreements.get(&key).ok_or(codes::NO_AGREEMENT)?;
        match agreement.view.status {
            Status::Active => {}
            Status::Suspended => return Err(codes::SUSPENDED),
            Status::Revoked => return Err(codes::REVOKED),
            Status::Superseded => return Err(codes::SUPERSEDED),
            Status::Proposed | Status::Rejected => return Err(codes::NO_AGREEMENT),
        }
        let clause = &row.clause;
        let (effect, actions) = match op {
            Op::Query { .. } => (Effect::Permit, Action::Query.bit()),
            Op::Intent { .. } => (Effect::Permit, WRITES),
            Op::BreakGlass { .. } => (Effect::BreakGlass, Action::Query.bit()),
            _ => (Effect::Permit, Action::Subscribe.bit()),
        };
        if clause.effect != effect || clause.actions & actions == 0 {
            return Err(codes::CLAUSE);
        }
        let tick = self.head.tick_ms;
        if tick < clause.from_ms {
            return Err(codes::NOT_YET);
        }
        if tick >= clause.until_ms {
            return Err(codes::EXPIRED);
        }
        if agreement.view.bounded_suspended != 0 && matches!(clause.evidence, Evidence::Bounded { .. }) {
            return Err(codes::BOUNDED_SUSPENDED);
        }
        if effect == Effect::BreakGlass && self.overdue(row) { Err(codes::DUTY_OVERDUE) } else { Ok(()) }
    }

    fn in_time(&self, row: &HandleRow, op: &Op) -> Said {
        match (op, &row.clause.evidence) {
            (Op::Deliver { oldest_ms, .. }, Evidence::Bounded { max_lag_ms })
                if self.head.tick_ms > oldest_ms.saturating_add(*max_lag_ms) =>
            {
                Err((Verdict::Late, codes::BOUNDED_LATE))
            }
            _ => Ok(()),
        }
    }

    fn overdue(&self, row: &HandleRow) -> bool {
        let first = (row.agreement.clone(), (row.clause.id.clone(), 0));
        let last = (row.agreement.clone(), (row.clause.id.clone(), u64::MAX));
        self.view.duties.range(first, last).any(|(_, due)| *due <= self.head.tick_ms)
    }

    fn review_due(&mut self, row: &HandleRow, op: &Op) {
        if matches!(op, Op::BreakGlass { .. }) && row.clause.review_ms > 0 {
            let due = self.head.tick_ms.saturating_add(row.clause.review_ms);
            let key = (row.agreement.clone(), (row.clause.id.clone(), self.next_index()));
            self.view.duties.put(key, due);
        }
    }

    fn quota_key(row: &HandleRow, session: u64) -> Option<(QuotaKey, u64, u64)> {
        let quota = row.clause.quota.as_ref()?;
        let by = if quota.by == QuotaBy::Session { session } else { 0 };
        Some(((by, (row.agreement.clone(), row.clause.id.clone())), quota.per.ms(), quota.max))
    }

    fn quota_left(&self, row: &HandleRow, session: u64) -> Result<(), u16> {
        let Some((key, per_ms, max)) = Self::quota_key(row, session) else { return Ok(()) };
        let period = self.head.tick_ms / per_ms;
        let used = self.view.quotas.get(&key).filter(|q| q.period == period).map_or(0, |q| q.used);
        if used < max { Ok(()) } else { Err(codes::QUOTA) }
    }

    fn charge(&mut self, row: &HandleRow, session: u64) {
        let Some((key, per_ms, _)) = Self::quota_key(row, session) else { return };
        let period = self.head.tick_ms / per_ms;
        if let Some(quota) = self.view.quotas.edit(&key) {
            quota.used = if quota.period == period { quota.used.saturating_add(1) } else { 1 };
            quota.period = period;
            return;
        }
        let slot = self.slot();
        self.view.quotas.put(key, QuotaRow { period, used: 1, slot });
    }

    /// An earlier operation (never an act) for which `allowed` holds.
    fn reference(&self, index: u64, allowed: impl Fn(&PastOp) -> bool) -> Result<PastOp, (Verdict, u16)> {
        self.recall.op(index).filter(|p| p.kind != 0 && allowed(p)).ok_or(refused(codes::UNKNOWN_REF))
    }

    fn outcome(&mut self, number: u16, index: u64) -> Said {
        self.reference(index, |p| p.provider == number && p.kind == kind::INTENT && p.accepted())?;
        self.mark_once(index, mark::OUTCOME | mark::WITHHELD, mark::OUTCOME)
    }

    /// Data that was never released: it counts neither as a disclosure nor against the quota.
    fn withheld(&mut self, number: u16, index: u64) -> Said {
        let releases = [kind::QUERY, kind::INTENT, kind::BREAK_GLASS];
        let past = self.reference(index, |p| p.provider == number && p.accepted() && releases.contains(&p.kind))?;
        self.mark_once(index, mark::OUTCOME | mark::WITHHELD, mark::WITHHELD)?;
        let Some(row) = self.view.handles.get(&past.handle).cloned() else { return Ok(()) };
        if past.kind == kind::BREAK_GLASS {
            self.view.duties.remove((row.agreement.clone(), (row.clause.id.clone(), index)));
        }
        if let Some((key, per_ms, _)) = Self::quota_key(&row, past.session)
            && self.view.quotas.get(&key).is_some_and(|q| q.period == past.tick_ms / per_ms)
            && let Some(quota) = self.view.quotas.edit(&key)
        {
            quota.used = quota.used.saturating_sub(1);
        }
        Ok(())
    }

    fn review(&mut self, number: u16, index: u64) -> Said {
        let party = |p: &PastOp| p.provider == number || p.consumer == number;
        let used = |p: &PastOp| p.verdict != Verdict::Refused as u8;
        let past = self.reference(index, |p| p.kind == kind::BREAK_GLASS && party(p) && used(p))?;
        self.mark_once(index, mark::REVIEWED, mark::REVIEWED)?;
        if let Some(row) = self.view.handles.get(&past.handle).cloned() {
            self.view.duties.remove((row.agreement, (row.clause.id, index)));
        }
        Ok(())
    }

    fn ack(&mut self, number: u16, index: u64) -> Said {
        let used = |p: &PastOp| p.verdict != Verdict::Refused as u8;
        self.reference(index, |p| number != 0 && p.consumer == number && used(p))?;
        self.mark_once(index, mark::ACKED, mark::ACKED)
    }

    fn mark_once(&mut self, index: u64, unless: u8, mark: u8) -> Said {
        if self.recall.marks(index) & unless != 0 {
            return Err(refused(codes::REF_DONE));
        }
        self.recall.mark(index, mark);
        Ok(())
    }
}

/// Kinds of operations by number ([`Op::kind`]).
mod kind {
    pub const QUERY: u8 = 3;
    pub const INTENT: u8 = 4;
    pub const BREAK_GLASS: u8 = 5;
}
