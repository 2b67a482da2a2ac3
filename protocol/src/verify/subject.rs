//! What the entry is about: an operation of a writer, or an act of an agency.

use super::{Invalid, fail};
use crate::acts::{Act, act_hash};
use crate::cbor;
use crate::hash::Hash;
use crate::ids::{AgencyId, WriterId};
use crate::ops::Op;
use crate::receipt::Receipt;

pub(super) enum Subject {
    /// An operation.
    Op(Op, AgencyId),
    /// An act.
    Act(Box<Act>),
}

impl Subject {
    /// Decodes the operation or act, and checks that it is the entry's.
    pub(super) fn read(r: &Receipt) -> Result<Self, Invalid> {
        let bad = |e: cbor::CborError| fail("op_hash", format!("the operation does not decode: {e}"));
        let (subject, hash) = match r.entry.writer.strip_prefix("act:") {
            Some(agency) => {
                let act: Act = cbor::decode(&r.op).map_err(bad)?;
                if act.agency.as_str() != agency || act.counter != r.entry.seq || act.chain != r.chain {
                    return Err(fail("op_hash", "the act is of another agency, counter or chain than the entry"));
                }
                let hash = act_hash(&act);
                (Self::Act(Box::new(act)), hash)
            }
            None => {
                let op: Op = cbor::decode(&r.op).map_err(bad)?;
                let writer = WriterId::new(r.entry.writer.clone()).map_err(|e| fail("op_hash", e.to_string()))?;
                let hash = op.hash();
                (Self::Op(op, writer.agency()), hash)
            }
        };
        if hash == r.entry.op_hash {
            Ok(subject)
        } else {
            Err(fail("op_hash", "the operation shown is not the one in the log"))
        }
    }

    pub(super) fn op(&self) -> Option<&Op> {
        match self {
            Self::Op(op, _) => Some(op),
            Self::Act(_) => None,
        }
    }

    /// The agency that answers for it.
    pub(super) fn agency(&self) -> &AgencyId {
        match self {
            Self::Op(_, agency) => agency,
            Self::Act(act) => &act.agency,
        }
    }

    pub(super) fn kind(&self) -> String {
        match self {
            Self::Op(op, _) => op.kind_word(),
            Self::Act(act) => act.body.kind_word(),
        }
    }
}

/// The commitment of an operation; a publication has none.
pub(super) fn commitment(op: &Op) -> Option<&Hash> {
    match op {
        Op::Publish { .. } => None,
        Op::Deliver { commitment, .. }
        | Op::Query { commitment, .. }
        | Op::Intent { commitment, .. }
        | Op::BreakGlass { commitment, .. }
        | Op::Deny { commitment, .. }
        | Op::Outcome { commitment, .. }
        | Op::Withheld { commitment, .. }
        | Op::Review { commitment, .. }
        | Op::Annotate { commitment, .. }
        | Op::Erase { commitment, .. }
        | Op::Ack { commitment, .. } => Some(commitment),
    }
}
