//! Calendar periods as spans of instants: the operator `time`.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A period that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPeriod {
    /// The text is none.
    Text,
    /// The zone is not known.
    Zone,
}

/// First instant and first instant after a year, month, day or hour in a zone of the tz database (`UTC` without one).
pub(super) fn span(text: &str, zone: Option<&str>) -> Result<(Timestamp, Timestamp), NoPeriod> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { 'd' } else { c }).collect();
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<i16>().ok());
    let part = |range| number(range).and_then(|n| i8::try_from(n).ok()).ok_or(NoPeriod::Text);
    let year = number(0..4).ok_or(NoPeriod::Text)?;
    let (month, day, hour, length) = match shape.as_str() {
        "dddd" => (1, 1, 0, Span::new().years(1)),
        "dddd-dd" => (part(5..7)?, 1, 0, Span::new().months(1)),
        "dddd-dd-dd" => (part(5..7)?, part(8..10)?, 0, Span::new().days(1)),
        "dddd-dd-ddTdd" => (part(5..7)?, part(8..10)?, part(11..13)?, Span::new().hours(1)),
        _ => return Err(NoPeriod::Text),
    };
    let start = Date::new(year, month, day).map_err(|_| NoPeriod::Text)?;
    let start: DateTime = start.at(0, 0, 0, 0).checked_add(Span::new().hours(hour)).map_err(|_| NoPeriod::Text)?;
    if hour > 23 {
        return Err(NoPeriod::Text);
    }
    let end = start.checked_add(length).map_err(|_| NoPeriod::Text)?;
    let zone = match zone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|_| NoPeriod::Zone)?,
    };
    let at = |civil: DateTime| zone.to_timestamp(civil).map_err(|_| NoPeriod::Text);
    Ok((at(start)?, at(end)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_those_of_the_calendar_in_their_zone() {
        let spans = |text: &str, zone: Option<&str>| {
            let (a, b) = span(text, zone).unwrap();
            format!("{a} {b}")
        };
        assert_eq!(spans("2016", None), "2016-01-01T00:00:00Z 2017-01-01T00:00:00Z");
        assert_eq!(spans("2016-02", None), "2016-02-01T00:00:00Z 2016-03-01T00:00:00Z");
        assert_eq!(spans("2017-12-31", None), "2017-12-31T00:00:00Z 2018-01-01T00:00:00Z");
        assert_eq!(spans("2017-03-14T23", None), "2017-03-14T23:00:00Z 2017-03-15T00:00:00Z");
        // The day on which the clocks went forward in Chicago had 23 hours.
        assert_eq!(spans("2017-03-12", Some("America/Chicago")), "2017-03-12T06:00:00Z 2017-03-13T05:00:00Z");
        for bad in ["", "17", "2017-13", "2017-02-30", "2017-03-14T24", "2017-3", "2017-03-14T10:00", "٢٠١٧", "x"] {
            assert_eq!(span(bad, None), Err(NoPeriod::Text), "{bad}");
        }
        assert_eq!(span("2017", Some("Nowhere/City")), Err(NoPeriod::Zone));
    }
}
