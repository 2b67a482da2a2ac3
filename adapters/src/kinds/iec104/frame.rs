//! APDUs of IEC 60870-5-104 as bytes: a start octet, a length, four control octets, and an ASDU in frames that number.

use std::time::Duration;

/// Longest ASDU of a frame, in bytes.
pub const ASDU_MAX: usize = 249;
const START: u8 = 0x68;
const CONTROL_BYTES: usize = 4;
const BODY_MAX: usize = CONTROL_BYTES + ASDU_MAX;

/// What a frame without numbers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Begin to send data.
    StartAct,
    /// It is begun.
    StartCon,
    /// Stop sending data.
    StopAct,
    /// It is stopped.
    StopCon,
    /// Is anybody there?
    TestAct,
    /// Yes.
    TestCon,
}

impl Control {
    const ALL: [(Self, u8); 6] = [
        (Self::StartAct, 0x07),
        (Self::StartCon, 0x0b),
        (Self::StopAct, 0x13),
        (Self::StopCon, 0x23),
        (Self::TestAct, 0x43),
        (Self::TestCon, 0x83),
    ];

    fn octet(self) -> u8 {
        Self::ALL.iter().find(|(control, _)| *control == self).map_or(0x43, |(_, octet)| *octet)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Data with its number, modulo 2^15, and the number of the next frame that is expected.
    Data {
        /// N(S).
        sent: u16,
        /// N(R).
        expected: u16,
        /// The ASDU.
        asdu: Vec<u8>,
    },
    /// An acknowledgement alone.
    Acknowledge {
        /// N(R).
        expected: u16,
    },
    /// A frame without numbers.
    Control(Control),
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Other bytes.
    #[error("it sent bytes that are no IEC 60870-5-104")]
    Syntax,
    /// A number was left out or came twice.
    #[error("a frame is missing: its numbers have a gap")]
    Gap,
    /// Something was acknowledged that was never sent.
    #[error("it acknowledged a frame that was never sent")]
    Acknowledged,
    /// Data came although nobody asked for it to begin, or more of it than can be numbered.
    #[error("it sent data out of turn")]
    Turn,
    /// Nothing came in time.
    #[error("no {what} within {} seconds", .within.as_secs_f32())]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
    },
}

impl Frame {
    /// The bytes of the frame. An ASDU has at most [`ASDU_MAX`] bytes; what is longer is cut.
    pub fn encode(&self) -> Vec<u8> {
        let (control, asdu): ([u8; CONTROL_BYTES], &[u8]) = match self {
            Self::Data { sent, expected, asdu } => {
                let ([a, b], [c, d]) = ((sent << 1).to_le_bytes(), (expected << 1).to_le_bytes());
                ([a, b, c, d], asdu.get(..ASDU_MAX).unwrap_or(asdu))
            }
            Self::Acknowledge { expected } => {
                let [c, d] = (expected << 1).to_le_bytes();
                ([1, 0, c, d], &[])
            }
            Self::Control(control) => ([control.octet(), 0, 0, 0], &[]),
        };
        let length = u8::try_from(CONTROL_BYTES + asdu.len()).unwrap_or(u8::MAX);
        [&[START, length], control.as_slice(), asdu].concat()
    }

    /// Reads what stands behind the length octet.
    fn decode(body: &[u8]) -> Option<Self> {
        let (control, asdu) = body.split_first_chunk::<CONTROL_BYTES>()?;
        let [a, b, c, d] = *control;
        let expected = u16::from_le_bytes([c, d]) >> 1;
        match a & 3 {
            0 | 2 if c & 1 == 0 && !asdu.is_empty() => {
                Some(Self::Data { sent: u16::from_le_bytes([a, b]) >> 1, expected, asdu: asdu.to_vec() })
            }
            1 if asdu.is_empty() => Some(Self::Acknowledge { expected }),
            3 if asdu.is_empty() => {
                Control::ALL.iter().find(|(_, octet)| *octet == a).map(|(control, _)| Self::Control(*control))
            }
            _ => None,
        }
    }
}

/// Frames out of a stream of bytes.
#[derive(Debug, Default)]
pub struct Reader {
    rest: Vec<u8>,
}

impl Reader {
    /// Takes bytes and gives the frames that are whole.
    ///
    /// # Errors
    /// [`Broken::Syntax`] at the first byte that cannot be: where frames begin is not known any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, Broken> {
        self.rest.extend_from_slice(bytes);
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some((&start, rest)) = self.rest.get(at..).and_then(<[u8]>::split_first) {
            if start != START {
                return Err(Broken::Syntax);
            }
            let Some((&length, rest)) = rest.split_first() else { break };
            let length = usize::from(length);
            if !(CONTROL_BYTES..=BODY_MAX).contains(&length) {
                return Err(Broken::Syntax);
            }
            let Some(body) = rest.get(..length) else { break };
            frames.push(Frame::decode(body).ok_or(Broken::Syntax)?);
            at += 2 + length;
        }
        self.rest.drain(..at);
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let number = 0u16..0x8000;
        prop_oneof![
            (number.clone(), number.clone(), prop::collection::vec(any::<u8>(), 1..=ASDU_MAX))
                .prop_map(|(sent, expected, asdu)| Frame::Data { sent, expected, asdu }),
            number.prop_map(|expected| Frame::Acknowledge { expected }),
            (0usize..6).prop_map(|n| Frame::Control(Control::ALL[n].0)),
        ]
    }

    #[test]
    fn frames_are_those_of_the_standard() {
        assert_eq!(Frame::Control(Control::StartAct).encode(), [0x68, 4, 7, 0, 0, 0]);
        assert_eq!(Frame::Acknowledge { expected: 5 }.encode(), [0x68, 4, 1, 0, 10, 0]);
        let data = Frame::Data { sent: 2599, expected: 62, asdu: vec![0x65] };
        assert_eq!(data.encode(), [0x68, 5, 0x4e, 0x14, 0x7c, 0, 0x65]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(list in prop::collection::vec(frames(), 0..20), cut in 1usize..40) {
            let bytes: Vec<u8> = list.iter().flat_map(Frame::encode).collect();
            let mut reader = Reader::default();
            let read: Vec<Frame> = bytes.chunks(cut).flat_map(|c| reader.feed(c).unwrap()).collect();
            prop_assert_eq!(read, list);
            prop_assert!(reader.rest.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut reader = Reader::default();
            for part in parts {
                if reader.feed(&part).is_err() {
                    break;
                }
                prop_assert!(reader.rest.len() < 2 + BODY_MAX);
            }
        }
    }
}
