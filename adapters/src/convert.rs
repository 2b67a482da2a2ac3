//! From the text of one value to its JSON value, exactly or not at all.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde_json::Value;

use crate::decimal::Decimal;
use crate::document::{Fold, Precision};

/// First second of the year 1: RFC 3339 has no earlier years.
const FIRST_SECOND: i64 = -62_135_596_800;

/// Why a value could not be converted. Messages never repeat the value: it may be personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable name of the rule.
    pub rule: &'static str,
    /// One sentence.
    pub message: String,
}

impl Fault {
    /// A fault by a rule.
    pub fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

/// How a text becomes a value.
#[derive(Debug, Clone)]
pub enum Conversion {
    /// As it stands.
    Text,
    /// A whole number, times a factor.
    Integer(Option<Decimal>),
    /// An exact decimal, times a factor.
    Decimal(Option<Decimal>),
    /// One of two sets of words.
    Boolean {
        /// Words for true.
        yes: Vec<String>,
        /// Words for false.
        no: Vec<String>,
    },
    /// An instant.
    Time(TimeRule),
}

/// How a wall clock becomes an instant.
#[derive(Debug, Clone)]
pub struct TimeRule {
    /// The clock's zone, or `None` when every value carries its offset.
    pub zone: Option<TimeZone>,
    /// Which of two equal times.
    pub fold: Option<Fold>,
    /// `strptime` pattern, ISO 8601 without.
    pub format: Option<String>,
    /// Precision kept.
    pub precision: Precision,
}

impl Conversion {
    /// Converts one value; `point` is the file's decimal mark.
    pub fn apply(&self, text: &str, point: char) -> Result<Value, Fault> {
        match self {
            Self::Text => Ok(Value::from(text)),
            Self::Integer(scale) => integer(text, point, *scale),
            Self::Decimal(None) if point == '.' && Decimal::is_plain(text) => Ok(Value::from(text)),
            Self::Decimal(scale) => number(text, point, *scale).map(|n| Value::from(n.to_string())),
            Self::Boolean { yes, no } => {
                if yes.iter().any(|w| w == text) {
                    Ok(Value::Bool(true))
                } else if no.iter().any(|w| w == text) {
                    Ok(Value::Bool(false))
                } else {
                    Err(Fault::new(
                        "boolean.word",
                        format!(
                            "the value is none of the words for true ({}) or false ({}); correct it, or add the word to `words` or `nulls`",
                            yes.join(", "),
                            no.join(", ")
                        ),
                    ))
                }
            }
            Self::Time(rule) => rule.instant(text).map(Value::from),
        }
    }
}

fn number(text: &str, point: char, scale: Option<Decimal>) -> Result<Decimal, Fault> {
    let value = Decimal::parse(text, point);
    let scaled = match scale {
        Some(scale) => value.and_then(|n| n.times(scale)),
        None => value,
    };
    scaled.map_err(|e| Fault::new(e.code(), format!("the value is {e}")))
}

fn integer(text: &str, point: char, scale: Option<Decimal>) -> Result<Value, Fault> {
    let value = number(text, point, scale)?;
    match value.integer() {
        Some(whole) => Ok(Value::from(whole)),
        None if value.is_whole() => {
            Err(Fault::new("number.range", "the value is beyond plus or minus 9007199254740991; map it as decimal"))
        }
        None => {
            Err(Fault::new("number.integer", "the value has a fraction but the field is an integer; map it as decimal"))
        }
    }
}

/// What a text says: an instant, or a clock reading that needs a zone.
enum Reading {
    Instant(Timestamp),
    Clock(DateTime),
}

impl TimeRule {
    /// The instant as RFC 3339 text in UTC, always of the field's precision.
    pub fn instant(&self, text: &str) -> Result<String, Fault> {
        let reading = match &self.format {
            Some(format) => read_pattern(format, text),
            None => read_iso(text),
        };
        let stamp = match reading? {
            Reading::Instant(stamp) => stamp,
            Reading::Clock(clock) => self.resolve(clock)?,
        };
        self.write(stamp)
    }

    fn resolve(&self, clock: DateTime) -> Result<Timestamp, Fault> {
        let Some(zone) = &self.zone else {
            return Err(Fault::new(
                "time.zone",
                "the time has no offset; give the field the `zone` of the source's clock",
            ));
        };
        let ambiguous = zone.to_ambiguous_timestamp(clock);
        let name = zone.iana_name().unwrap_or("its zone");
        let out_of_range = |_| Fault::new("time.range", "the time is outside the years 1 to 9999");
        match (ambiguous.offset(), self.fold) {
            (AmbiguousOffset::Unambiguous { .. }, _) => ambiguous.unambiguous().map_err(out_of_range),
            (AmbiguousOffset::Gap { .. }, _) => Err(Fault::new(
                "time.nonexistent",
                format!(
                    "the local time does not exist in {name}: the clock was set forward past it; correct it at the source"
                ),
            )),
            (AmbiguousOffset::Fold { .. }, Some(Fold::Earlier)) => ambiguous.earlier().map_err(out_of_range),
            (AmbiguousOffset::Fold { .. }, Some(Fold::Later)) => ambiguous.later().map_err(out_of_range),
            (AmbiguousOffset::Fold { .. }, None) => Err(Fault::new(
                "time.ambiguous",
                format!("the local time happens twice in {name}: say `fold: earlier` or `fold: later` in the mapping"),
            )),
        }
    }

    fn write(&self, stamp: Timestamp) -> Result<String, Fault> {
        if stamp.as_second() < FIRST_SECOND {
            return Err(Fault::new("time.range", "the time is outside the years 1 to 9999"));
        }
        if !self.precision.holds(stamp) {
            return Err(Fault::new(
                "time.precision",
                "the time is finer than the field's precision; set `precision: ms`, `us` or `ns`, or round it at the source",
            ));
        }
        Ok(DateTimePrinter::new().precision(Some(self.precision.digits())).timestamp_to_string(&stamp))
    }
}

fn syntax() -> Fault {
    Fault::new("time.syntax", "not a time as the mapping expects it (ISO 8601, or the field's `format`)")
}

fn read_iso(text: &str) -> Result<Reading, Fault> {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 16
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-')
        && matches!(bytes.get(10), Some(b'T' | b' '))
        && bytes.get(13) == Some(&b':')
        // A leap second would silently become the second before it.
        && bytes.get(17..19) != Some(b"60".as_slice())
        && !text.contains('[');
    if !shape {
        return Err(syntax());
    }
    let clock = bytes.get(16..).unwrap_or_default();
    if clock.iter().any(|b| matches!(b, b'Z' | b'z' | b'+' | b'-')) {
        return text.parse().map(Reading::Instant).map_err(|_| syntax());
    }
    text.parse().map(Reading::Clock).map_err(|_| syntax())
}

fn read_pattern(format: &str, text: &str) -> Result<Reading, Fault> {
    let parts = strtime::parse(format, text).map_err(|_| syntax())?;
    if parts.second() == Some(60) {
        return Err(syntax());
    }
    if parts.offset().is_some() {
        return parts.to_timestamp().map(Reading::Instant).map_err(|_| syntax());
    }
    parts.to_datetime().map(Reading::Clock).map_err(|_| syntax())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn rule(zone: Option<&str>, fold: Option<Fold>) -> TimeRule {
        TimeRule { zone: zone.map(|z| TimeZone::get(z).unwrap()), fold, format: None, precision: Precision::Second }
    }

    #[test]
    fn clocks_become_instants() {
        let chicago = rule(Some("America/Chicago"), None);
        for (text, want) in [
            ("2016-10-01 00:00:00", Ok("2016-10-01T05:00:00Z")),
            ("2017-03-12 01:59:59", Ok("2017-03-12T07:59:59Z")),
            ("2017-03-12 02:00:00", Err("time.nonexistent")),
            ("2017-03-12 03:00:00", Ok("2017-03-12T08:00:00Z")),
            ("2016-11-06 01:00:00", Err("time.ambiguous")),
            ("2016-11-06T01:00:00-06:00", Ok("2016-11-06T07:00:00Z")),
            ("2016-10-01 00:00:00.5", Err("time.precision")),
            ("2016-10-01", Err("time.syntax")),
            ("2016-02-30 00:00:00", Err("time.syntax")),
            ("2016-12-31T23:59:60Z", Err("time.syntax")),
            ("0000-01-01T00:00:00Z", Err("time.range")),
            ("", Err("time.syntax")),
        ] {
            let got = chicago.instant(text);
            let got = got.as_deref().map_err(|f| f.rule);
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn a_time_that_happens_twice_is_the_one_the_mapping_says() {
        for (fold, want) in [(Fold::Earlier, "2016-11-06T06:00:00Z"), (Fold::Later, "2016-11-06T07:00:00Z")] {
            let rule = rule(Some("America/Chicago"), Some(fold));
            assert_eq!(rule.instant("2016-11-06 01:00:00").unwrap(), want);
        }
    }

    #[test]
    fn without_a_zone_a_clock_is_refused() {
        let rule = rule(None, None);
        assert_eq!(rule.instant("2016-10-01T00:00:00").unwrap_err().rule, "time.zone");
        assert_eq!(rule.instant("2016-10-01T02:00:00+02:00").unwrap(), "2016-10-01T00:00:00Z");
    }

    #[test]
    fn patterns_and_milliseconds() {
        let mut rule = rule(Some("Europe/Berlin"), None);
        rule.format = Some("%d.%m.%Y %H:%M".to_owned());
        rule.precision = Precision::Millisecond;
        assert_eq!(rule.instant("01.07.2016 12:30").unwrap(), "2016-07-01T10:30:00.000Z");
        rule.format = None;
        let text = "2016-07-01 12:30:00.123456";
        assert_eq!(rule.instant(text).unwrap_err().rule, "time.precision");
        rule.precision = Precision::Microsecond;
        assert_eq!(rule.instant(text).unwrap(), "2016-07-01T10:30:00.123456Z");
        assert_eq!(rule.instant("2016-07-01 12:30:00.1234567").unwrap_err().rule, "time.precision");
        rule.precision = Precision::Nanosecond;
        assert_eq!(rule.instant(text).unwrap(), "2016-07-01T10:30:00.123456000Z");
        rule.format = Some("%d.%m.%Y %H:%M".to_owned());
        assert_eq!(rule.instant("2016-07-01 12:30").unwrap_err().rule, "time.syntax");
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let milli = Decimal::parse("0.001", '.').unwrap();
        for (conversion, text, want) in [
            (Conversion::Integer(None), "1195.0", Ok(Value::from(1195))),
            (Conversion::Integer(None), "1195.5", Err("number.integer")),
            (Conversion::Integer(None), "1e30", Err("number.range")),
            (Conversion::Integer(None), "n/a", Err("number.syntax")),
            (Conversion::Decimal(Some(milli)), "12345", Ok(Value::from("12.345"))),
            (Conversion::Decimal(None), "0.30", Ok(Value::from("0.3"))),
        ] {
            assert_eq!(conversion.apply(text, '.').map_err(|f| f.rule), want, "{text}");
        }
    }

    #[test]
    fn a_fault_never_repeats_the_value() {
        let secret = "Hannah-Canary";
        let conversions = [
            Conversion::Integer(None),
            Conversion::Decimal(None),
            Conversion::Boolean { yes: vec!["Y".into()], no: vec!["N".into()] },
            Conversion::Time(rule(Some("UTC"), None)),
        ];
        for conversion in conversions {
            let fault = conversion.apply(secret, '.').unwrap_err();
            assert!(!fault.message.contains("Canary"), "{fault:?}");
        }
    }
}
