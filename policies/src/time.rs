//! Durations as documents write them (`2s`, `24h`, `7d`) and fixed-width UTC times.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The last millisecond before 9999-12-30T22:00:00Z, with a four-digit year in every zone: later times are refused.
pub const UTC_MS_MAX: u64 = 253_402_207_199_999;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A length of time in milliseconds, written `500ms`, `2s`, `10m`, `24h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationMs(pub u64);

/// Reads `2s`, `24h`, `7d`: a whole number and one unit of `ms s m h d`. The error names the rule.
pub fn duration_ms(s: &str) -> Result<u64, String> {
    let rule = || {
        format!(
            "\"{}\" is not a duration: write a whole number and one of ms, s, m, h, d, like 24h",
            crate::yaml::clip(s)
        )
    };
    let split = s.find(|c: char| !c.is_ascii_digit()).ok_or_else(rule)?;
    let (number, unit) = s.split_at(split);
    let (_, ms) = UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(rule)?;
    let number: u64 = number.parse().map_err(|_| rule())?;
    number.checked_mul(*ms).filter(|n| *n <= UTC_MS_MAX).ok_or_else(rule)
}

/// Writes a duration in its largest whole unit: 86,400,000 is `1d`, 5,400,000 is `90m`.
pub fn duration_text(ms: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, n)| ms > 0 && ms.is_multiple_of(*n)).unwrap_or(&UNITS[0]);
    format!("{}{}", ms / unit.1, unit.0)
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        duration_ms(&String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for DurationMs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&duration_text(self.0))
    }
}

/// Reads an RFC 3339 time with a zone (`2026-01-01T00:00:00Z`) as milliseconds since 1970. The error names the rule.
pub fn utc_ms(s: &str) -> Result<u64, String> {
    let rule = || format!("\"{}\" is not a time: write it in UTC like 2026-01-01T00:00:00Z", crate::yaml::clip(s));
    let t: Timestamp = s.parse().map_err(|_| rule())?;
    if t.subsec_nanosecond() % 1_000_000 != 0 {
        return Err(format!("\"{}\" is finer than a millisecond", crate::yaml::clip(s)));
    }
    u64::try_from(t.as_millisecond()).ok().filter(|ms| *ms <= UTC_MS_MAX).ok_or_else(rule)
}

/// A time as text of fixed width, `2026-01-01T00:00:00.000Z`: comparing the texts compares the times.
/// `None` past [`UTC_MS_MAX`].
pub fn utc_text(ms: u64) -> Option<String> {
    let t = Timestamp::from_millisecond(i64::try_from(ms).ok().filter(|_| ms <= UTC_MS_MAX)?).ok()?;
    let text = t.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    (text.len() == 24).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, ms) in [("2s", 2_000), ("24h", 86_400_000), ("7d", 604_800_000), ("250ms", 250), ("0s", 0)] {
            assert_eq!(duration_ms(text).unwrap(), ms);
        }
        assert_eq!(duration_text(86_400_000), "1d");
        assert_eq!(duration_text(5_400_000), "90m");
        for bad in ["", "2", "s", "2 s", "-2s", "1.5h", "2S", "2w", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_one_width_and_sort_as_text() {
        assert_eq!(utc_text(utc_ms("2026-01-01T00:00:00Z").unwrap()).unwrap(), "2026-01-01T00:00:00.000Z");
        assert_eq!(utc_ms("2026-01-01T01:00:00+01:00"), utc_ms("2026-01-01T00:00:00Z"));
        let times = [0, 1, 999, 1_000, 1_767_225_600_000, UTC_MS_MAX];
        let texts: Vec<_> = times.iter().map(|t| utc_text(*t).unwrap()).collect();
        assert!(texts.windows(2).all(|w| w[0] < w[1]) && texts.iter().all(|t| t.len() == 24));
        assert_eq!(utc_text(UTC_MS_MAX + 1), None);
        assert_eq!(utc_text(u64::MAX), None);
        for bad in
            ["2026-01-01", "2026-01-01T00:00:00", "yesterday", "1969-12-31T23:59:59Z", "2026-01-01T00:00:00.0001Z"]
        {
            assert!(utc_ms(bad).is_err(), "{bad}");
        }
    }
}
