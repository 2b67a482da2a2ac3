//! One connection's numbers and timers, for both ends, without a socket or a clock.
//!
//! Frames are counted from 0 without end here and modulo 2^15 on the wire. Times are passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{Broken, Control, Frame, Reader};

/// Numbers on the wire are modulo this.
const MODULUS: u64 = 1 << 15;
/// Most frames that may be unacknowledged either way, so that a number always means one frame.
const OPEN_MAX: u64 = MODULUS - 1;

/// Windows and timers, IEC 60870-5-104 section 9.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most own frames that are not acknowledged.
    pub k: u64,
    /// Most frames of the other side that are left without an acknowledgement, where they need not be durable for it.
    pub w: u64,
    /// How long an answer may take.
    pub t1: Duration,
    /// How long an acknowledgement is left out at most, where it need not wait for durability.
    pub t2: Duration,
    /// Silence after which the other side is asked whether it is there.
    pub t3: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { k: 12, w: 8, t1: s(15), t2: s(10), t3: s(20) }
    }
}

/// What the other side said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Data may be sent from now on: what was asked of us, or what we asked for.
    Started,
    /// No data any more.
    Stopped,
    /// Data, with its number from 0.
    Data {
        /// Its number.
        number: u64,
        /// The ASDU.
        asdu: Vec<u8>,
    },
    /// Own frames before this number have arrived.
    Acknowledged(u64),
}

/// The state of one connection.
#[derive(Debug)]
pub struct Link {
    limits: Limits,
    /// Acknowledge by [`Link::acknowledge`] alone, whatever `w` and `t2` say.
    hold: bool,
    reader: Reader,
    started: bool,
    /// Numbers of the next own frame, of the next one of the other side, and what each side has acknowledged.
    next: u64,
    expected: u64,
    acknowledged: u64,
    told: u64,
    /// When own frames that are not acknowledged were sent.
    sent_at: VecDeque<Instant>,
    /// Since when frames of the other side wait for an acknowledgement.
    waiting_since: Option<Instant>,
    start_asked: Option<Instant>,
    test_asked: Option<Instant>,
    heard_at: Instant,
    /// What is to be written to the connection.
    pub out: Vec<u8>,
}

impl Link {
    /// A connection that was just made. With `hold` only [`Link::acknowledge`] acknowledges.
    pub fn new(limits: Limits, hold: bool, now: Instant) -> Self {
        Self {
            limits,
            hold,
            reader: Reader::default(),
            started: false,
            next: 0,
            expected: 0,
            acknowledged: 0,
            told: 0,
            sent_at: VecDeque::new(),
            waiting_since: None,
            start_asked: None,
            test_asked: None,
            heard_at: now,
            out: Vec::new(),
        }
    }

    /// Asks the other side to begin.
    pub fn start(&mut self, now: Instant) {
        self.start_asked = Some(now);
        self.control(Control::StartAct);
    }

    /// True when another frame of data may be sent: data is begun and the window `k` has room.
    pub fn has_room(&self) -> bool {
        self.started && self.next - self.acknowledged < self.limits.k.min(OPEN_MAX)
    }

    /// Sends data and returns its number; [`Link::has_room`] was asked before.
    pub fn send(&mut self, asdu: Vec<u8>, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.sent_at.push_back(now);
        // Data carries the acknowledgement, as far as there is one.
        if !self.hold {
            self.told = self.expected;
            self.waiting_since = None;
        }
        self.write(&Frame::Data { sent: wire(number), expected: wire(self.told), asdu });
        number
    }

    /// Acknowledges the frames before a number.
    pub fn acknowledge(&mut self, before: u64) {
        let before = before.min(self.expected);
        if before > self.told {
            self.told = before;
            self.waiting_since = None;
            self.write(&Frame::Acknowledge { expected: wire(before) });
        }
    }

    /// Takes bytes of the other side.
    ///
    /// # Errors
    /// The connection cannot go on. What was heard before stands in `heard`.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, heard: &mut Vec<Heard>) -> Result<(), Broken> {
        for frame in self.reader.feed(bytes)? {
            self.heard_at = now;
            self.frame(frame, now, heard)?;
        }
        if !self.hold && self.expected - self.told >= self.limits.w {
            self.acknowledge(self.expected);
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame, now: Instant, heard: &mut Vec<Heard>) -> Result<(), Broken> {
        match frame {
            Frame::Data { sent, expected, asdu } => {
                if !self.started || self.expected - self.told >= OPEN_MAX {
                    return Err(Broken::Turn);
                }
                if sent != wire(self.expected) {
                    return Err(Broken::Gap);
                }
                self.confirmed(expected, heard)?;
                heard.push(Heard::Data { number: self.expected, asdu });
                self.expected += 1;
                self.waiting_since.get_or_insert(now);
            }
            Frame::Acknowledge { expected } => self.confirmed(expected, heard)?,
            Frame::Control(Control::StartAct) => {
                self.control(Control::StartCon);
                self.started = true;
                heard.push(Heard::Started);
            }
            Frame::Control(Control::StartCon) if self.start_asked.take().is_some() => {
                self.started = true;
                heard.push(Heard::Started);
            }
            Frame::Control(Control::StopAct) => {
                self.acknowledge(if self.hold { self.told } else { self.expected });
                self.control(Control::StopCon);
                self.started = false;
                heard.push(Heard::Stopped);
            }
            Frame::Control(Control::TestAct) => self.control(Control::TestCon),
            Frame::Control(Control::TestCon) => self.test_asked = None,
            Frame::Control(Control::StartCon | Control::StopCon) => return Err(Broken::Turn),
        }
        Ok(())
    }

    fn confirmed(&mut self, expected: u16, heard: &mut Vec<Heard>) -> Result<(), Broken> {
        let more = u64::from(expected).wrapping_sub(self.acknowledged) % MODULUS;
        if more > self.next - self.acknowledged {
            return Err(Broken::Acknowledged);
        }
        if more > 0 {
            self.acknowledged += more;
            self.sent_at.drain(..usize::try_from(more).unwrap_or(usize::MAX).min(self.sent_at.len()));
            heard.push(Heard::Acknowledged(self.acknowledged));
        }
        Ok(())
    }

    /// When [`Link::tick`] is due.
    pub fn due(&self) -> Instant {
        let t1 = [self.start_asked, self.test_asked, self.sent_at.front().copied()];
        let answers = t1.into_iter().flatten().map(|at| at + self.limits.t1);
        let acknowledgement = self.waiting_since.filter(|_| !self.hold).map(|at| at + self.limits.t2);
        let test = self.test_asked.is_none().then(|| self.heard_at + self.limits.t3);
        let far = self.heard_at + self.limits.t3 + self.limits.t1;
        answers.chain(acknowledgement).chain(test).min().unwrap_or(far)
    }

    /// Time has passed.
    ///
    /// # Errors
    /// An answer did not come within `t1`.
    pub fn tick(&mut self, now: Instant) -> Result<(), Broken> {
        let t1 = self.limits.t1;
        let late = |at: Option<Instant>| at.is_some_and(|at| now >= at + t1);
        let asked = [
            (self.start_asked, "answer to the start of data"),
            (self.test_asked, "answer to a test frame"),
            (self.sent_at.front().copied(), "acknowledgement"),
        ];
        if let Some((_, what)) = asked.into_iter().find(|(at, _)| late(*at)) {
            return Err(Broken::Silent { what, within: t1 });
        }
        if !self.hold && self.waiting_since.is_some_and(|at| now >= at + self.limits.t2) {
            self.acknowledge(self.expected);
        }
        if self.test_asked.is_none() && now >= self.heard_at + self.limits.t3 {
            self.test_asked = Some(now);
            self.control(Control::TestAct);
        }
        Ok(())
    }

    fn control(&mut self, control: Control) {
        self.write(&Frame::Control(control));
    }

    fn write(&mut self, frame: &Frame) {
        self.out.extend_from_slice(&frame.encode());
    }
}

/// A number as it stands in a frame.
fn wire(number: u64) -> u16 {
    (number % MODULUS) as u16
}

#[cfg(test)]
#[path = "apci_tests.rs"]
mod tests;
