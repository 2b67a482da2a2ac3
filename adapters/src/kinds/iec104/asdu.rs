//! ASDUs of IEC 60870-5-101 and -104 as bytes: a head, and information objects at addresses. Sizes of fields are those
//! of -104: cause 2 octets, common address 2, object address 3.

use std::borrow::Cow;

use super::frame::ASDU_MAX;

/// General interrogation command.
pub const INTERROGATION: u8 = 100;
/// Clock synchronisation command.
pub const CLOCK: u8 = 103;
/// Read command.
pub const READ: u8 = 102;
/// End of initialisation: a station has started.
pub const STARTED: u8 = 70;
/// Qualifier of an interrogation of the whole station.
pub const WHOLE_STATION: u8 = 20;

/// Causes of transmission that are looked at.
pub mod cause {
    /// It changed.
    pub const SPONTANEOUS: u8 = 3;
    /// It was asked for by a read.
    pub const REQUESTED: u8 = 5;
    /// A command.
    pub const ACTIVATION: u8 = 6;
    /// The answer to a command.
    pub const CONFIRMED: u8 = 7;
    /// A command is done.
    pub const ENDED: u8 = 10;
    /// It was asked for by an interrogation of the whole station.
    pub const INTERROGATED: u8 = 20;
    /// A type that the station does not know.
    pub const UNKNOWN_TYPE: u8 = 44;
    /// A cause that the station does not know.
    pub const UNKNOWN_CAUSE: u8 = 45;
    /// A common address that the station does not have.
    pub const UNKNOWN_STATION: u8 = 46;
    /// An object address that the station does not have.
    pub const UNKNOWN_OBJECT: u8 = 47;

    /// True for what an interrogation or a cycle brings again by itself.
    pub fn comes_again(cause: u8) -> bool {
        matches!(cause, 1 | 2 | 20..=36)
    }
}

const HEAD_BYTES: usize = 6;
const ADDRESS_BYTES: usize = 3;
/// Highest address of an object.
pub const OBJECT_MAX: u32 = 0x00ff_ffff;

/// The head of an ASDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Type of its objects.
    pub kind: u8,
    /// Cause of transmission, 0 to 63.
    pub cause: u8,
    /// A negative answer.
    pub negative: bool,
    /// Sent as a test.
    pub test: bool,
    /// Who asked, 0 when nobody says.
    pub originator: u8,
    /// Common address: the station.
    pub station: u16,
}

/// An object and the octets of its element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its address, 24 bits.
    pub address: u32,
    /// What is said of it.
    pub element: Vec<u8>,
}

/// An ASDU before its objects are taken apart: their size depends on their type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asdu<'a> {
    /// Its head.
    pub head: Head,
    /// The objects follow one another from the first one's address.
    sequence: bool,
    count: usize,
    body: &'a [u8],
}

impl<'a> Asdu<'a> {
    /// Reads the head; none when it is not whole.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[kind, shape, reason, originator, low, high], body) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let head = Head {
            kind,
            cause: reason & 0x3f,
            negative: reason & 0x40 != 0,
            test: reason & 0x80 != 0,
            originator,
            station: u16::from_le_bytes([low, high]),
        };
        Some(Self { head, sequence: shape & 0x80 != 0, count: usize::from(shape & 0x7f), body })
    }

    /// Its objects, each with `size` octets behind its address. None when the number of octets is another one.
    pub fn objects(&self, size: usize) -> Option<Vec<Object>> {
        let address = |b: &[u8]| Some(u32::from_le_bytes([*b.first()?, *b.get(1)?, *b.get(2)?, 0]));
        if self.sequence {
            let (first, elements) = self.body.split_at_checked(ADDRESS_BYTES)?;
            let first = address(first)?;
            let last = first.checked_add(u32::try_from(self.count).ok()?)?;
            if elements.len() != self.count * size || size == 0 || last > OBJECT_MAX + 1 {
                return None;
            }
            let object = |(address, element): (u32, &[u8])| Object { address, element: element.to_vec() };
            return Some((first..).zip(elements.chunks_exact(size)).map(object).collect());
        }
        let whole = ADDRESS_BYTES + size;
        if self.body.len() != self.count * whole {
            return None;
        }
        let object = |b: &[u8]| Some(Object { address: address(b)?, element: b.get(ADDRESS_BYTES..)?.to_vec() });
        self.body.chunks_exact(whole).map(object).collect()
    }
}

impl Head {
    /// An ASDU with this head and these objects, which are of one size and fit a frame.
    pub fn encode<'a>(&self, objects: impl IntoIterator<Item = (u32, &'a [u8])>) -> Vec<u8> {
        let reason = self.cause & 0x3f | u8::from(self.negative) << 6 | u8::from(self.test) << 7;
        let [low, high] = self.station.to_le_bytes();
        let mut bytes = vec![self.kind, 0, reason, self.originator, low, high];
        let mut count = 0;
        for (address, element) in objects {
            bytes.extend(address.to_le_bytes().into_iter().take(ADDRESS_BYTES));
            bytes.extend_from_slice(element);
            count += 1;
        }
        bytes.splice(1..2, [count]);
        bytes
    }

    /// Objects with `size` octets that fit one frame.
    pub fn fitting(size: usize) -> usize {
        ((ASDU_MAX - HEAD_BYTES) / (ADDRESS_BYTES + size)).min(127)
    }

    /// A command to a station, or an answer to one, about object 0.
    pub fn command(kind: u8, cause: u8, station: u16) -> Self {
        Self { kind, cause, negative: false, test: false, originator: 0, station }
    }
}

/// The cause in a word.
pub fn cause_word(cause: u8) -> Cow<'static, str> {
    let word = match cause {
        1 => "periodic",
        2 => "background",
        cause::SPONTANEOUS => "spontaneous",
        4 => "initialized",
        cause::REQUESTED => "requested",
        11 => "returned-remote",
        12 => "returned-local",
        cause::INTERROGATED => "interrogated",
        21..=36 => return format!("interrogated-{}", cause - cause::INTERROGATED).into(),
        37 => "counters",
        38..=41 => return format!("counters-{}", cause - 37).into(),
        other => return other.to_string().into(),
    };
    word.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn objects_stand_one_by_one_or_in_a_row() {
        let single = [1, 2, 3, 0, 47, 0, 1, 0, 0, 1, 0x10, 0x20, 0x30, 0x80];
        let asdu = Asdu::parse(&single).unwrap();
        assert_eq!((asdu.head.cause, asdu.head.station), (cause::SPONTANEOUS, 47));
        let objects = asdu.objects(1).unwrap();
        assert_eq!((objects[1].address, &objects[1].element[..]), (0x30_2010, &[0x80u8][..]));
        assert_eq!(asdu.head.encode(objects.iter().map(|o| (o.address, &o.element[..]))), single);
        let row = [1, 0x83, 20, 0, 47, 0, 7, 0, 0, 1, 0, 1];
        let addresses: Vec<u32> = Asdu::parse(&row).unwrap().objects(1).unwrap().iter().map(|o| o.address).collect();
        assert_eq!(addresses, [7, 8, 9]);
        assert_eq!(Asdu::parse(&row).unwrap().objects(2), None);
        // A row that would run over the last address.
        assert_eq!(Asdu::parse(&[1, 0x82, 20, 0, 1, 0, 0xff, 0xff, 0xff, 1, 1]).unwrap().objects(1), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..260), size in 0usize..20) {
            if let Some(asdu) = Asdu::parse(&bytes)
                && let Some(objects) = asdu.objects(size)
            {
                prop_assert!(objects.iter().all(|o| o.element.len() == size && o.address <= OBJECT_MAX));
            }
        }
    }
}
