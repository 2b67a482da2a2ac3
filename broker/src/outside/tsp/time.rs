//! `GeneralizedTime` as RFC 3161 writes it: `YYYYMMDDhhmmss[.f...]Z`.

#[cfg(test)]
use jiff::civil::date;
use jiff::tz::TimeZone;

/// Milliseconds since 1970; finer fractions are cut off. None for any other text.
pub(super) fn generalized_ms(text: &[u8]) -> Option<i64> {
    let text = core::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    // DER: no trailing zeros in the fraction.
    if whole.len() != 14 || !digits(whole) || fraction.is_some_and(|f| !digits(f) || f.ends_with('0')) {
        return None;
    }
    let part = |from: usize, to: usize| whole.get(from..to)?.parse::<i8>().ok();
    let year = whole.get(..4)?.parse::<i16>().ok()?;
    // The calendar's own constructors panic on a date that is not one.
    let day = jiff::civil::Date::new(year, part(4, 6)?, part(6, 8)?).ok()?;
    let at = jiff::civil::Time::new(part(8, 10)?, part(10, 12)?, part(12, 14)?, 0).ok()?;
    let whole = day.to_datetime(at).to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
    let ms: i64 = format!("{:0<3.3}", fraction.unwrap_or("")).parse().ok()?;
    Some(whole + ms)
}

#[test]
fn times_are_read_to_the_millisecond() {
    let noon = date(2026, 11, 23).at(12, 0, 1, 0).to_zoned(TimeZone::UTC).map(|z| z.timestamp().as_millisecond()).ok();
    assert_eq!(generalized_ms(b"20261123120001Z"), noon);
    assert_eq!(generalized_ms(b"20261123120001.2504Z"), noon.map(|n| n + 250));
    assert_eq!(generalized_ms(b"20261123120001.5Z"), noon.map(|n| n + 500));
    for bad in [
        "20261123120001",
        "20261323120001Z",
        "20261123120001.Z",
        "20261123120001.50Z",
        "2026112312000Z",
        "20261123240001Z",
        "+0261123120001Z",
    ] {
        assert_eq!(generalized_ms(bad.as_bytes()), None, "{bad}");
    }
}
