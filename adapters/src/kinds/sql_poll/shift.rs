//! The start of the overlap: a cursor's value moved back, written the way the database wrote it.
//!
//! Instants keep the form they have (separator, digits of the fraction, offset), so that the database reads the result as it
//! read the value; whole numbers stay whole numbers.

use std::time::Duration;

use jiff::civil::DateTime;

/// How far back rows may appear after later ones were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// Of a cursor that is an instant, a clock reading or a day.
    Time(Duration),
    /// Of a cursor that is a whole number.
    Steps(u64),
}

/// `value` moved back by `overlap`; none when it is not written as a value of that kind. A time in the future counts as `now`
/// (in UTC, which only makes the overlap of a clock east of it longer), so that one wrong clock hides no rows.
pub(crate) fn back(value: &str, overlap: Overlap, now: DateTime) -> Option<String> {
    match overlap {
        Overlap::Steps(steps) => {
            let number: i128 = value.parse().ok()?;
            Some((number - i128::from(steps)).to_string())
        }
        Overlap::Time(by) => clock_back(value, by, now),
    }
}

/// True when `value` lies before `than` for sure, to the second.
pub(crate) fn before(value: &str, than: &str, overlap: Overlap) -> bool {
    match overlap {
        Overlap::Steps(_) => matches!((value.parse::<i128>(), than.parse::<i128>()), (Ok(a), Ok(b)) if a < b),
        Overlap::Time(_) => match (value.get(..19).or(value.get(..10)), than.get(..19).or(than.get(..10))) {
            (Some(a), Some(b)) => a.len() == b.len() && a.replace('T', " ") < b.replace('T', " "),
            _ => false,
        },
    }
}

fn clock_back(value: &str, by: Duration, now: DateTime) -> Option<String> {
    let by = jiff::SignedDuration::try_from(by).ok()?;
    if value.len() == 10 {
        let day: jiff::civil::Date = value.parse().ok()?;
        let latest = now.date();
        let earlier = day.min(latest).to_datetime(jiff::civil::Time::MIN).saturating_sub(by);
        return Some(earlier.date().to_string());
    }
    let (head, rest) = (value.get(..19)?, value.get(19..)?);
    let separator = head.get(10..11)?;
    if !matches!(separator, " " | "T") {
        return None;
    }
    let clock: DateTime = head.replace(' ', "T").parse().ok()?;
    let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    let offset = rest.get(digits..)?;
    let known = offset.is_empty() || offset == "Z" || offset.starts_with(['+', '-']);
    // The fraction stays: the overlap is rounded up to whole seconds.
    let whole = by.as_secs() + i64::from(by.subsec_nanos() > 0);
    let earlier = clock.min(now).saturating_sub(jiff::SignedDuration::from_secs(whole));
    known.then(|| format!("{}{rest}", earlier.strftime(&format!("%Y-%m-%d{separator}%H:%M:%S"))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_keep_their_form() {
        let ten = Overlap::Time(Duration::from_secs(600));
        let now: DateTime = "2026-06-01T12:00:00".parse().unwrap();
        for (value, want) in [
            ("2026-01-01 00:05:00.123456+00", Some("2025-12-31 23:55:00.123456+00")),
            ("2026-01-01T00:05:00Z", Some("2025-12-31T23:55:00Z")),
            ("2026-03-01 00:05:00", Some("2026-02-28 23:55:00")),
            ("2026-03-01", Some("2026-02-28")),
            ("2099-01-01 00:00:00.5+00", Some("2026-06-01 11:50:00.5+00")),
            ("2099-01-01 00:00:00", Some("2026-06-01 11:50:00")),
            ("2099-01-01", Some("2026-05-31")),
            ("infinity", None),
            ("2026-03-01 00:05:00 BC", None),
            ("1234", None),
            ("", None),
        ] {
            assert_eq!(back(value, ten, now).as_deref(), want, "{value}");
        }
        assert_eq!(back("1000", Overlap::Steps(30), now).as_deref(), Some("970"));
        assert_eq!(back("-5", Overlap::Steps(30), now).as_deref(), Some("-35"));
        assert_eq!(back("x", Overlap::Steps(30), now), None);
        assert_eq!(
            back("2026-01-01 00:00:01", Overlap::Time(Duration::from_millis(1)), now).as_deref(),
            Some("2026-01-01 00:00:00")
        );
    }
}
