//! What an agency may cosign, and what it must dispute first (PROTOCOL 4): pure, of what the ledger says and what this
//! agency knows.

use super::shelf::Place;
use concordat_protocol::codes;
use concordat_protocol::evidence::NamedOp;
use concordat_protocol::hash::Hash;
use concordat_protocol::node::WriterView;
use concordat_protocol::ops::LogEntry;
use thiserror::Error;

/// Operations that nobody here asked for, in one look, above which a person has to see why: a store that was lost looks
/// the same as a provider that invents.
pub const ACCUSED_MAX: usize = 64;

/// An operation that this agency denies having asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accused {
    /// The operation.
    pub index: u64,
    /// Why, in words.
    pub reason: String,
}

/// Judges one operation that names a session of this agency. `entry` is what the log says of it.
pub fn named(op: &NamedOp, entry: &LogEntry, place: Place) -> Option<Accused> {
    // A denial that counts several names no single request.
    if op.n == 0 {
        return None;
    }
    let accuse = |reason: String| Some(Accused { index: op.index, reason });
    if !place.asked {
        return accuse(format!("this agency signed no request {} in session {}", op.n, op.session));
    }
    match place.released {
        // The ledger itself said that this number had been used.
        Some(other) if other != op.index && entry.code != codes::REPLAY => {
            accuse(format!("request {} of session {} was answered under op:{other}", op.n, op.session))
        }
        _ => None,
    }
}

/// What this agency knows of one of its writers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnWriter {
    /// Incarnation and end of what it has seen committed, with the batch's hash; none before its first start.
    pub mark: Option<(u64, u64, Hash)>,
    /// Batches that may be on their way: last number and hash.
    pub open: Vec<(u64, Hash)>,
    /// Where another batch stood than its own, if that happened.
    pub conflict: Option<u64>,
}

/// Why an agency must not cosign.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Doubt {
    /// Another batch stands under an own writer.
    #[error(
        "writer {writer}: another batch stands at number {seq}: its key is used elsewhere; revoke it, reset the writer"
    )]
    Equivocation {
        /// The writer.
        writer: String,
        /// The number.
        seq: u64,
    },
    /// The ledger has more under an own writer than it ever wrote.
    #[error("writer {writer}: the ledger has operations up to {ledger}, this agency wrote up to {own}")]
    Foreign {
        /// The writer.
        writer: String,
        /// Last number on the ledger.
        ledger: u64,
        /// Last number written here.
        own: u64,
    },
    /// The validators signed another state than the own node computed.
    #[error(
        "height {height}: the validators signed another app hash than the own node computed; compare it with its peers"
    )]
    State {
        /// Height of the state.
        height: u64,
    },
    /// Too much is denied at once.
    #[error(
        "{0} operations name sessions of this agency that it knows nothing of, at most {ACCUSED_MAX} are disputed at once: \
         was broker.sqlite lost or restored? look at them with `op show`, dispute them with `op dispute`"
    )]
    TooMany(usize),
}

impl Doubt {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Equivocation { .. } => "writer-equivocation",
            Self::Foreign { .. } => "writer-foreign",
            Self::State { .. } => "state-differs",
            Self::TooMany(_) => "too-many-unknown",
        }
    }
}

/// Whether everything under a writer is its own. `view` was read before `own`, so that what is on the ledger was kept here
/// before.
pub fn writer(view: &WriterView, own: &OwnWriter) -> Result<(), Doubt> {
    let name = || view.writer.to_string();
    if let Some(seq) = own.conflict {
        return Err(Doubt::Equivocation { writer: name(), seq });
    }
    // Before its first start it has written nothing, and a reset begins anew.
    let (last, hash) = match own.mark {
        Some((incarnation, last, hash)) if incarnation == view.incarnation => (last, hash),
        Some((incarnation, ..)) if incarnation > view.incarnation => return Ok(()),
        _ => (0, [0; 32]),
    };
    // It has seen more committed meanwhile, and compared it operation by operation.
    if last > view.last_seq {
        return Ok(());
    }
    let equal = |l: u64, h: &Hash| l == view.last_seq && (l == 0 || *h == view.last_hash);
    if equal(last, &hash) || own.open.iter().any(|(l, h)| equal(*l, h)) {
        return Ok(());
    }
    let end = own.open.iter().map(|(l, _)| *l).chain([last]).max().unwrap_or_default();
    if view.last_seq > end {
        return Err(Doubt::Foreign { writer: name(), ledger: view.last_seq, own: end });
    }
    Err(Doubt::Equivocation { writer: name(), seq: view.last_seq })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::codes::Verdict;
    use concordat_protocol::ids::WriterId;

    fn op(n: u64) -> NamedOp {
        NamedOp { index: 40, session: 7, n, kind: 3, op_hash: [1; 32] }
    }

    fn entry(verdict: Verdict, code: u16) -> LogEntry {
        LogEntry {
            height: 3,
            tick_ms: 1,
            writer: "police/executor".into(),
            incarnation: 1,
            seq: 9,
            op_hash: [1; 32],
            verdict,
            code,
        }
    }

    #[test]
    fn only_what_was_asked_is_not_disputed() {
        let taken = entry(Verdict::Accepted, codes::OK);
        let mine = Place { asked: true, released: Some(40) };
        assert_eq!(named(&op(5), &taken, mine), None);
        assert_eq!(named(&op(5), &taken, Place { asked: true, released: None }), None, "still on its way, or denied");
        let invented = named(&op(6), &taken, Place::default()).unwrap();
        assert!(invented.index == 40 && invented.reason.contains("request 6 in session 7"), "{invented:?}");
        let refused = entry(Verdict::Refused, codes::CLAUSE);
        assert!(named(&op(6), &refused, Place::default()).is_some(), "a refused one names a request as well");
        let twice = Place { asked: true, released: Some(39) };
        assert!(named(&op(5), &taken, twice).unwrap().reason.contains("op:39"));
        assert_eq!(named(&op(5), &entry(Verdict::Refused, codes::REPLAY), twice), None, "the ledger said so itself");
        assert_eq!(named(&op(0), &taken, Place::default()), None, "a count of denials");
    }

    fn view(last_seq: u64, hash: u8) -> WriterView {
        let writer = WriterId::new("court/broker").unwrap();
        WriterView { writer, key: [0; 32], incarnation: 1, last_seq, last_hash: [hash; 32] }
    }

    #[test]
    fn a_writer_is_its_own_up_to_what_it_wrote() {
        let own = OwnWriter { mark: Some((1, 10, [1; 32])), open: vec![(12, [2; 32]), (15, [3; 32])], conflict: None };
        for (last, hash) in [(10, 1), (12, 2), (15, 3)] {
            assert_eq!(writer(&view(last, hash), &own), Ok(()));
        }
        assert_eq!(writer(&view(8, 9), &own), Ok(()), "an older view of what was compared meanwhile");
        let code = |v: &WriterView, own: &OwnWriter| writer(v, own).unwrap_err().code();
        assert_eq!(code(&view(10, 9), &own), "writer-equivocation");
        assert_eq!(code(&view(12, 9), &own), "writer-equivocation");
        assert_eq!(code(&view(11, 9), &own), "writer-equivocation", "no batch of its own ends there");
        assert_eq!(code(&view(16, 3), &own), "writer-foreign");
        assert_eq!(code(&view(10, 1), &OwnWriter { conflict: Some(4), ..own.clone() }), "writer-equivocation");
        assert_eq!(writer(&view(0, 0), &OwnWriter::default()), Ok(()), "nothing was written yet");
        assert_eq!(code(&view(1, 1), &OwnWriter::default()), "writer-foreign");
        let reset = WriterView { incarnation: 2, ..view(0, 0) };
        assert_eq!(writer(&reset, &own), Ok(()), "a new incarnation begins anew");
    }
}
