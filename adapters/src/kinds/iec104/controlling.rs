//! The controlling station's side of a connection: begins, asks each station for its whole state, and takes what comes.
//! Without a socket or a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::apci::{Heard, Limits, Link};
use super::asdu::{Asdu, CLOCK, Head, INTERROGATION, STARTED, WHOLE_STATION, cause};
use super::frame::Broken;
use super::time;

/// Longest time from the start to the end of one station's interrogation.
const INTERROGATION_MAX: Duration = Duration::from_secs(120);

/// What is said to an outstation.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Common addresses that are interrogated.
    pub stations: Vec<u16>,
    /// Windows and timers.
    pub limits: Limits,
    /// Frames are acknowledged only when that is said.
    pub hold: bool,
    /// The zone of the stations' clocks, when they are set.
    pub clock: Option<TimeZone>,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The protocol was broken, or nothing came.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The interrogation of a station was refused.
    #[error("station {station} refused the interrogation: {why}; correct `stations`")]
    Refused {
        /// Its common address.
        station: u16,
        /// The reason.
        why: &'static str,
    },
    /// The interrogation of a station was not answered.
    #[error("no {what} the interrogation of station {station}; check `stations` and the outstation")]
    Unanswered {
        /// Its common address.
        station: u16,
        /// What did not come.
        what: &'static str,
    },
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// The other side began.
    Up,
    /// A frame of data; all of them come, so that all can be acknowledged.
    Frame {
        /// Its number on the connection, from 0.
        number: u64,
        /// The ASDU.
        asdu: Vec<u8>,
    },
}

#[derive(Debug)]
struct Asking {
    station: u16,
    confirmed: bool,
    until: Instant,
}

/// One connection.
#[derive(Debug)]
pub struct Controlling {
    link: Link,
    plan: Plan,
    to_ask: VecDeque<u16>,
    asking: Option<Asking>,
    commands: VecDeque<Vec<u8>>,
}

impl Controlling {
    /// A connection that was just made: asks the other side to begin.
    pub fn new(plan: Plan, now: Instant) -> Self {
        let mut link = Link::new(plan.limits, plan.hold, now);
        link.start(now);
        Self { link, plan, to_ask: VecDeque::new(), asking: None, commands: VecDeque::new() }
    }

    /// What is to be written to the connection.
    pub fn out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.link.out)
    }

    /// Takes bytes of the other side.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, wall: Timestamp) -> (Vec<Came>, Result<(), End>) {
        let (mut heard, mut came) = (vec![], vec![]);
        let fed = self.link.feed(bytes, now, &mut heard);
        for heard in heard {
            match heard {
                Heard::Started => {
                    came.push(Came::Up);
                    if let Some(zone) = &self.plan.clock {
                        let tag = time::encode(wall, zone);
                        let set = |s: &u16| Head::command(CLOCK, cause::ACTIVATION, *s).encode([(0, tag.as_slice())]);
                        self.commands.extend(self.plan.stations.iter().map(set));
                    }
                    self.to_ask = self.plan.stations.iter().copied().collect();
                }
                Heard::Data { number, asdu } => {
                    let looked = self.look(&asdu);
                    came.push(Came::Frame { number, asdu });
                    if let Err(end) = looked {
                        return (came, Err(end));
                    }
                }
                Heard::Stopped | Heard::Acknowledged(_) => {}
            }
        }
        self.send(now);
        (came, fed.map_err(End::from))
    }

    /// Looks for answers to what was asked, and for stations that started anew.
    fn look(&mut self, asdu: &[u8]) -> Result<(), End> {
        let Some(Asdu { head, .. }) = Asdu::parse(asdu) else { return Ok(()) };
        let station = head.station;
        if head.kind == STARTED && self.plan.stations.contains(&station) && !self.to_ask.contains(&station) {
            self.to_ask.push_back(station);
        }
        let Some(asking) = self.asking.as_mut().filter(|a| head.kind == INTERROGATION && a.station == station) else {
            return Ok(());
        };
        let why = match head.cause {
            cause::UNKNOWN_TYPE => "it knows no interrogation",
            cause::UNKNOWN_CAUSE => "it does not take the cause of the command",
            cause::UNKNOWN_STATION => "there is no station of this common address",
            cause::UNKNOWN_OBJECT => "it does not take the object's address",
            cause::CONFIRMED if head.negative => "it said no",
            cause::CONFIRMED => {
                asking.confirmed = true;
                return Ok(());
            }
            cause::ENDED => {
                self.asking = None;
                return Ok(());
            }
            _ => return Ok(()),
        };
        Err(End::Refused { station, why })
    }

    fn send(&mut self, now: Instant) {
        if self.asking.is_none()
            && let Some(station) = self.to_ask.pop_front()
        {
            let head = Head::command(INTERROGATION, cause::ACTIVATION, station);
            self.commands.push_back(head.encode([(0, [WHOLE_STATION].as_slice())]));
            self.asking = Some(Asking { station, confirmed: false, until: now + INTERROGATION_MAX });
        }
        while self.link.has_room() {
            let Some(command) = self.commands.pop_front() else { break };
            self.link.send(command, now);
        }
    }

    /// All frames before a number are safe with us.
    pub fn acknowledge(&mut self, before: u64) {
        self.link.acknowledge(before);
    }

    /// When [`Controlling::tick`] is due.
    pub fn due(&self) -> Instant {
        self.asking.as_ref().map_or(self.link.due(), |asking| asking.until.min(self.link.due()))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Result<(), End> {
        self.link.tick(now)?;
        match &self.asking {
            Some(asking) if now >= asking.until => {
                let what = if asking.confirmed { "end of" } else { "answer to" };
                Err(End::Unanswered { station: asking.station, what })
            }
            _ => Ok(()),
        }
    }

    /// True once every station has told its whole state.
    pub fn complete(&self) -> bool {
        self.asking.is_none() && self.to_ask.is_empty() && self.link.has_room()
    }
}
