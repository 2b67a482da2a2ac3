//! The controlled station's side of a connection: sends events, answers interrogations with what it sent last, and
//! refuses every other command. Without a socket or a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::apci::{Heard, Limits, Link};
use super::asdu::{Asdu, Head, INTERROGATION, READ, WHOLE_STATION, cause};
use super::frame::Broken;
use super::value::PointType;

/// Address of all stations at once.
const ALL_STATIONS: u16 = 0xffff;

/// What is known of each point, by station and object: its type without a time, and its element.
pub type Image = BTreeMap<(u16, u32), (PointType, Vec<u8>)>;

/// A change of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Common address.
    pub station: u16,
    /// Object address.
    pub object: u32,
    /// Its type.
    pub kind: PointType,
    /// Its element, with its time where the type has one.
    pub element: Vec<u8>,
}

impl Event {
    fn asdu(&self) -> Vec<u8> {
        let head = Head::command(self.kind.id, cause::SPONTANEOUS, self.station);
        head.encode([(self.object, self.element.as_slice())])
    }

    fn note(&self, image: &mut Image) {
        let bare = self.element.get(..self.kind.bare_size()).unwrap_or_default().to_vec();
        image.insert((self.station, self.object), (self.kind.untagged(), bare));
    }
}

/// What the other side did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It wants data from now on: events that are not acknowledged are sent again.
    Started,
    /// It wants no more.
    Stopped,
    /// It has so many events more, in the order they were sent.
    Took(usize),
}

/// One connection.
#[derive(Debug)]
pub struct Controlled {
    link: Link,
    answers: VecDeque<Vec<u8>>,
    /// For each frame that is not acknowledged, its number and whether it is an event.
    sent: VecDeque<(u64, bool)>,
}

impl Controlled {
    /// A connection that was just accepted.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self { link: Link::new(limits, false, now), answers: VecDeque::new(), sent: VecDeque::new() }
    }

    /// What is to be written to the connection.
    pub fn out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.link.out)
    }

    /// When [`Controlled::tick`] is due.
    pub fn due(&self) -> Instant {
        self.link.due()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Result<(), Broken> {
        self.link.tick(now)
    }

    /// Takes bytes of the other side. `stations` are the ones that are here.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        now: Instant,
        stations: &[u16],
        image: &Image,
    ) -> (Vec<Did>, Result<(), Broken>) {
        let (mut heard, mut did) = (vec![], vec![]);
        let fed = self.link.feed(bytes, now, &mut heard);
        for heard in heard {
            match heard {
                Heard::Started => did.push(Did::Started),
                Heard::Stopped => did.push(Did::Stopped),
                Heard::Data { asdu, .. } => self.command(&asdu, stations, image),
                Heard::Acknowledged(before) => {
                    let count = self.sent.iter().take_while(|(number, _)| *number < before).count();
                    let events = self.sent.drain(..count).filter(|(_, event)| *event).count();
                    did.push(Did::Took(events));
                }
            }
        }
        (did, fed)
    }

    fn command(&mut self, bytes: &[u8], stations: &[u16], image: &Image) {
        let Some(asdu) = Asdu::parse(bytes) else { return };
        let asked = asdu.head;
        let mut answer = |cause, negative| {
            let mut bytes = bytes.to_vec();
            if let Some(reason) = bytes.get_mut(2) {
                *reason = *reason & 0x80 | u8::from(negative) << 6 | cause;
            }
            self.answers.push_back(bytes);
        };
        let all = asked.station == ALL_STATIONS;
        if !all && !stations.contains(&asked.station) {
            return answer(cause::UNKNOWN_STATION, true);
        }
        let object = |size| asdu.objects(size).and_then(|o| o.into_iter().next());
        match (asked.kind, asked.cause) {
            (INTERROGATION, cause::ACTIVATION) if object(1).is_some_and(|o| o.element == [WHOLE_STATION]) => {
                for station in stations.iter().filter(|s| all || **s == asked.station) {
                    self.state(*station, asked.originator, image);
                }
            }
            (INTERROGATION, cause::ACTIVATION) => answer(cause::CONFIRMED, true),
            (READ, cause::REQUESTED) => {
                let key = object(0).map(|o| (asked.station, o.address));
                match key.and_then(|key| Some((key.1, image.get(&key)?))) {
                    Some((address, (kind, element))) => {
                        let head = Head { kind: kind.id, ..asked };
                        self.answers.push_back(head.encode([(address, element.as_slice())]));
                    }
                    None => answer(cause::UNKNOWN_OBJECT, true),
                }
            }
            (INTERROGATION | READ, _) => answer(cause::UNKNOWN_CAUSE, true),
            // Nothing is commanded, set or switched from here.
            _ => answer(cause::UNKNOWN_TYPE, true),
        }
    }

    /// The answer to an interrogation of one station: what was sent last of each point.
    fn state(&mut self, station: u16, originator: u8, image: &Image) {
        let command = |cause| {
            let head = Head { originator, ..Head::command(INTERROGATION, cause, station) };
            head.encode([(0, [WHOLE_STATION].as_slice())])
        };
        self.answers.push_back(command(cause::CONFIRMED));
        let mut kinds: BTreeMap<u8, Vec<(u32, &[u8])>> = BTreeMap::new();
        for ((_, object), (kind, element)) in image.range((station, 0)..=(station, u32::MAX)) {
            kinds.entry(kind.id).or_default().push((*object, element));
        }
        for (kind, points) in kinds {
            let head = Head { originator, ..Head::command(kind, cause::INTERROGATED, station) };
            let size = points.first().map_or(1, |(_, element)| element.len());
            let asdus = points.chunks(Head::fitting(size)).map(|chunk| head.encode(chunk.iter().copied()));
            self.answers.extend(asdus);
        }
        self.answers.push_back(command(cause::ENDED));
    }

    /// Sends what the window has room for: answers first, then events. Returns how many events were sent.
    pub fn send<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>, image: &mut Image, now: Instant) -> usize {
        let (mut events, mut count) = (events.into_iter(), 0);
        while self.link.has_room() {
            let (asdu, event) = match (self.answers.pop_front(), &mut events) {
                (Some(answer), _) => (answer, false),
                (None, events) => {
                    let Some(event) = events.next() else { break };
                    event.note(image);
                    count += 1;
                    (event.asdu(), true)
                }
            };
            let number = self.link.send(asdu, now);
            self.sent.push_back((number, event));
        }
        count
    }
}
