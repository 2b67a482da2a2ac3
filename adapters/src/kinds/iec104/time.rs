//! Seven octets of time: a clock reading in the station's zone, to the millisecond.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::convert::Fault;

/// Octets of a time.
pub const BYTES: usize = 7;

/// A time tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// When it was; none when the station marks its own clock as invalid.
    pub instant: Option<Result<Timestamp, Fault>>,
    /// The time was added or changed on the way.
    pub substituted: bool,
}

/// Reads a time. The summer-time mark decides between two equal readings.
pub fn decode(bytes: [u8; BYTES], zone: &TimeZone) -> Tag {
    let [low, high, minute, hour, day, month, year] = bytes;
    let substituted = minute & 0x40 != 0;
    if minute & 0x80 != 0 {
        return Tag { instant: None, substituted };
    }
    let ms = u16::from_le_bytes([low, high]);
    let small = |n: u8| i8::try_from(n).unwrap_or(i8::MAX);
    let clock = DateTime::new(
        2000 + i16::from(year & 0x7f),
        small(month & 0x0f),
        small(day & 0x1f),
        small(hour & 0x1f),
        small(minute & 0x3f),
        i8::try_from(ms / 1000).unwrap_or(i8::MAX),
        i32::from(ms % 1000) * 1_000_000,
    );
    let bad = || Fault::new("time.syntax", "the time tag is no date and time; correct the station's clock");
    let instant = clock.map_err(|_| bad()).and_then(|clock| {
        let found = zone.to_ambiguous_timestamp(clock);
        let instant = match (found.offset(), hour & 0x80 != 0) {
            (AmbiguousOffset::Unambiguous { .. }, _) => found.unambiguous(),
            (AmbiguousOffset::Fold { .. }, true) => found.earlier(),
            (AmbiguousOffset::Fold { .. }, false) => found.later(),
            (AmbiguousOffset::Gap { .. }, _) => {
                let detail = "the local time does not exist in `zone`: name the zone in which the station's clock runs";
                return Err(Fault::new("time.nonexistent", detail));
            }
        };
        instant.map_err(|_| bad())
    });
    Tag { instant: Some(instant), substituted }
}

/// Writes a time; years beyond 2099 wrap around as the format has two digits.
pub fn encode(instant: Timestamp, zone: &TimeZone) -> [u8; BYTES] {
    let local = instant.to_zoned(zone.clone());
    let summer = zone.to_offset_info(instant).dst().is_dst();
    let octet = |n: i8| u8::try_from(n).unwrap_or(0);
    let ms = u16::from(octet(local.second())) * 1000 + u16::try_from(local.millisecond()).unwrap_or(0);
    let [low, high] = ms.to_le_bytes();
    [
        low,
        high,
        octet(local.minute()),
        octet(local.hour()) | u8::from(summer) << 7,
        octet(local.day()) | octet(local.weekday().to_monday_one_offset()) << 5,
        octet(local.month()),
        u8::try_from(local.year().rem_euclid(100)).unwrap_or(0),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn both_readings_of_the_hour_that_comes_twice_are_told_apart() {
        for text in ["2026-10-25T00:30:00.250Z", "2026-10-25T01:30:00.250Z"] {
            let instant: Timestamp = text.parse().unwrap();
            let bytes = encode(instant, &zone("Europe/Berlin"));
            assert_eq!((bytes[0], bytes[2], bytes[3] & 0x1f), (250, 30, 2));
            assert_eq!(decode(bytes, &zone("Europe/Berlin")).instant, Some(Ok(instant)));
        }
        let missing = decode([0, 0, 30, 2, 29, 3, 26], &zone("Europe/Berlin"));
        assert_eq!(missing.instant.unwrap().unwrap_err().rule, "time.nonexistent");
        assert_eq!(decode([0, 0, 0x80, 2, 29, 3, 26], &zone("UTC")).instant, None);
        assert_eq!(
            decode([0xff, 0xff, 0, 2, 29, 3, 26], &zone("UTC")).instant.unwrap().unwrap_err().rule,
            "time.syntax"
        );
    }

    proptest! {
        #[test]
        fn every_instant_comes_back(ms in 946_684_800_000i64..4_070_908_799_000, berlin: bool) {
            let zone = zone(if berlin { "Europe/Berlin" } else { "UTC" });
            let instant = Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(decode(encode(instant, &zone), &zone).instant, Some(Ok(instant)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: [u8; 7]) {
            decode(bytes, &zone("America/Chicago"));
        }
    }
}
