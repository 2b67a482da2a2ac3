//! How values compare, the same on every store: each value becomes an order key.
//!
//! A store keeps rows as they were published (`"1.50"` stays `"1.50"`) and compares keys.

use serde_json::Value;

use super::fields::FieldType;
use crate::limits::{MAX_DECIMAL_DIGITS, MAX_INTEGER};

/// A value's order key. Keys of one field are always of one variant; text compares by bytes
/// (which in UTF-8 is by code points).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// An integer, or a timestamp in nanoseconds since 1970.
    Int(i64),
    /// Text, or a decimal in an order-preserving encoding.
    Text(String),
}

impl Key {
    /// The key of a row's value, or `None` when it is null or not of the type.
    pub fn of(ty: FieldType, value: &Value) -> Option<Self> {
        match (ty, value) {
            (FieldType::String, Value::String(s)) => (!s.contains('\0')).then(|| Self::Text(s.clone())),
            (FieldType::Boolean, Value::Bool(b)) => Some(Self::Bool(*b)),
            (FieldType::Integer, Value::Number(n)) => {
                n.as_i64().filter(|i| (-MAX_INTEGER..=MAX_INTEGER).contains(i)).map(Self::Int)
            }
            (FieldType::Decimal, Value::String(s)) => decimal_key(s).map(Self::Text),
            (FieldType::Decimal, Value::Number(n)) => decimal_key(&n.to_string()).map(Self::Text),
            (FieldType::Timestamp, Value::String(s)) => timestamp_nanos(s).map(Self::Int),
            _ => None,
        }
    }
}

/// A constant of a filter: as it was written, and its order key.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    value: Value,
    key: Key,
}

impl Scalar {
    /// A constant of the type, or `None` when the value is not of it.
    pub fn new(ty: FieldType, value: Value) -> Option<Self> {
        let key = Key::of(ty, &value)?;
        Some(Self { value, key })
    }
    /// The JSON value as written.
    pub fn value(&self) -> &Value {
        &self.value
    }
    /// What it compares as.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// Nanoseconds since 1970 of an RFC 3339 instant (`T`, seconds and a zone are required; years
/// 1678 to 2261).
pub fn timestamp_nanos(text: &str) -> Option<i64> {
    if !rfc3339_shape(text.as_bytes()) {
        return None;
    }
    let instant: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(instant.as_nanosecond()).ok()
}

/// The instant in UTC, seconds always, a fraction only where there is one.
pub fn timestamp_text(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).map(|t| t.to_string()).unwrap_or_default()
}

// The date library reads more than RFC 3339 (spaces, missing seconds, zone names): stores would
// then hold texts that other programs cannot read.
fn rfc3339_shape(b: &[u8]) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    let like = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(c, p)| match p {
                b'd' => c.is_ascii_digit(),
                _ => c == p,
            })
    };
    let Some((head, mut rest)) = b.split_at_checked(pattern.len()) else {
        return false;
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    like(head, pattern) && (rest == b"Z" || like(rest, b"+dd:dd") || like(rest, b"-dd:dd"))
}

/// An order-preserving text of a decimal written as a JSON number, or `None` when it is none.
///
/// With value = ±0.D × 10^E (D without leading or trailing zeros): zero is `1`; positive is `2`,
/// E + 5000 in four digits, D; negative is `0` and the nines' complement of the same, closed by
/// `~`, which sorts after every digit.
pub fn decimal_key(text: &str) -> Option<String> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((m, e)) => (m, exponent(e)?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((w, f)) if !f.is_empty() => (w, f),
        Some(_) => return None,
        None => (mantissa, ""),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    if (whole.len() > 1 && whole.starts_with('0')) || text.len() > 512 {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some("1".into());
    }
    let leading = (all.len() - significant.len()) as i64;
    let significant = significant.trim_end_matches('0');
    if significant.len() > MAX_DECIMAL_DIGITS {
        return None;
    }
    let power = whole.len() as i64 - leading + exponent + 5_000;
    let body = format!("{power:04}{significant}");
    if !negative {
        return Some(format!("2{body}"));
    }
    let complement: String = body.bytes().map(|b| char::from(b'9' - (b - b'0'))).collect();
    Some(format!("0{complement}~"))
}

fn exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i64 = digits.parse().ok()?;
    if value > 400 {
        return None;
    }
    Some(if text.starts_with('-') { -value } else { value })
}

/// The least text that is greater than every text with the prefix, if there is one.
pub fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            char::MAX => None,
            c => char::from_u32(u32::from(c) + 1),
        };
        if let Some(c) = next {
            chars.push(c);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_equal_by_value_and_ordered() {
        for (a, b) in [("1.50", "1.5"), ("0", "-0.00"), ("1e3", "1000"), ("0.01", "1E-2")] {
            assert_eq!(decimal_key(a), decimal_key(b), "{a} {b}");
        }
        let rising = [
            "-100",
            "-99.99",
            "-1.23",
            "-1.2",
            "-0.001",
            "0",
            "0.001",
            "0.0011",
            "1",
            "1.2",
            "1.23",
            "9.9",
            "10",
            "44.96661711",
            "1e300",
        ];
        for pair in rising.windows(2) {
            assert!(decimal_key(pair[0]).unwrap() < decimal_key(pair[1]).unwrap(), "{pair:?}");
        }
        for bad in ["", "-", "+1", "1.", ".5", "01", "1e", "1e999", "NaN", "1,5", "0x1", " 1", "1e+-3"] {
            assert_eq!(decimal_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn timestamps_compare_as_instants_and_need_a_zone() {
        let t = timestamp_nanos;
        assert_eq!(t("2017-03-14T02:00:00+02:00"), t("2017-03-14T00:00:00Z"));
        assert_eq!(t("2017-03-14T00:00:00.500Z"), t("2017-03-14T00:00:00.5Z"));
        for bad in [
            "2017-03-14",
            "2017-03-14T00:00:00",
            "2017-03-14 00:00:00Z",
            "2017-02-30T00:00:00Z",
            "2017-03-14T00:00Z",
            "2017-03-14T00:00:00.Z",
            "2017-03-14T00:00:00Z[UTC]",
            "1500-01-01T00:00:00Z",
        ] {
            assert_eq!(t(bad), None, "{bad}");
        }
        assert_eq!(timestamp_text(t("2017-03-14T02:00:00+02:00").unwrap()), "2017-03-14T00:00:00Z");
    }

    proptest! {
        #[test]
        fn decimal_order_is_number_order(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000, sa in 0u32..9, sb in 0u32..9) {
            let text = |v: i64, scale: u32| {
                let unit = 10i64.pow(scale);
                let (w, f) = (v.abs() / unit, v.abs() % unit);
                let sign = if v < 0 { "-" } else { "" };
                if scale == 0 { format!("{sign}{w}") } else { format!("{sign}{w}.{f:0width$}", width = scale as usize) }
            };
            let exact = (i128::from(a) * 10i128.pow(9 - sa)).cmp(&(i128::from(b) * 10i128.pow(9 - sb)));
            prop_assert_eq!(decimal_key(&text(a, sa)).unwrap().cmp(&decimal_key(&text(b, sb)).unwrap()), exact);
        }

        #[test]
        fn no_text_panics(s in "\\PC{0,40}") {
            let _ = decimal_key(&s);
            let _ = timestamp_nanos(&s);
        }
    }
}
