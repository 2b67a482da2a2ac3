//! Exact decimals: what a source wrote is what a consumer reads, with no float in between.

use std::fmt;

/// Most significant digits a value may have.
pub const DIGITS_MAX: usize = 34;
/// Largest exponent, either way.
const EXPONENT_MAX: i32 = 64;
/// Largest integer that every JSON reader keeps (I-JSON, RFC 7493).
pub const INTEGER_MAX: i64 = (1 << 53) - 1;

/// `coefficient * 10^-scale`, kept with no trailing zero, so that equal numbers are equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    coefficient: u128,
    scale: i32,
}

/// Why a text is not a number here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not written as a number.
    #[error("not a decimal number")]
    Syntax,
    /// Too many digits or too large an exponent.
    #[error("more than 34 significant digits or an exponent beyond 64")]
    Range,
}

impl DecimalError {
    /// The rule's name in a dead letter.
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "number.syntax",
            Self::Range => "number.range",
        }
    }
}

impl Decimal {
    /// Parses `[+-]digits[point digits][e[+-]digits]`; `point` is the decimal mark.
    pub fn parse(text: &str, point: char) -> Result<Self, DecimalError> {
        let (negative, body) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match body.find(['e', 'E']) {
            Some(at) => (&body[..at], exponent(&body[at + 1..])?),
            None => (body, 0),
        };
        let (whole, fraction) = match mantissa.split_once(point) {
            Some((_, "")) => return Err(DecimalError::Syntax),
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        if whole.is_empty() {
            return Err(DecimalError::Syntax);
        }
        let mut coefficient = 0_u128;
        let mut digits = 0_usize;
        for b in whole.bytes().chain(fraction.bytes()) {
            if !b.is_ascii_digit() {
                return Err(DecimalError::Syntax);
            }
            if digits > 0 || b != b'0' {
                digits += 1;
            }
            if digits > DIGITS_MAX {
                return Err(DecimalError::Range);
            }
            coefficient = coefficient * 10 + u128::from(b - b'0');
        }
        let fraction = i32::try_from(fraction.len()).map_err(|_| DecimalError::Range)?;
        Self::of(negative, coefficient, fraction - exponent)
    }

    /// True when a text is written as a value of this type is, so that nothing is gained by reading it: no sign but `-`,
    /// no exponent, no zero too many, a point as its mark.
    pub fn is_plain(text: &str) -> bool {
        let body = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = body.split_once('.').unwrap_or((body, "1"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        body.len() <= DIGITS_MAX
            && digits(whole)
            && digits(fraction)
            && !fraction.ends_with('0')
            && (whole == "0" || !whole.starts_with('0'))
            && text != "-0"
    }

    fn of(negative: bool, mut coefficient: u128, mut scale: i32) -> Result<Self, DecimalError> {
        if coefficient == 0 {
            return Ok(Self { negative: false, coefficient: 0, scale: 0 });
        }
        // Nearly every value has at most 19 digits, and a machine divides by these at once.
        if let Ok(mut short) = u64::try_from(coefficient) {
            while short.is_multiple_of(10) {
                short /= 10;
                scale -= 1;
            }
            coefficient = short.into();
        }
        while coefficient.is_multiple_of(10) {
            coefficient /= 10;
            scale -= 1;
        }
        if scale.abs() > EXPONENT_MAX {
            return Err(DecimalError::Range);
        }
        Ok(Self { negative, coefficient, scale })
    }

    /// The exact product.
    pub fn times(self, other: Self) -> Result<Self, DecimalError> {
        let coefficient = self.coefficient.checked_mul(other.coefficient).ok_or(DecimalError::Range)?;
        Self::of(self.negative != other.negative, coefficient, self.scale + other.scale)
    }

    /// The value as an integer within I-JSON's range, if it is one.
    pub fn integer(self) -> Option<i64> {
        if self.scale > 0 {
            return None;
        }
        let power = 10_u128.checked_pow(self.scale.unsigned_abs())?;
        let value = i64::try_from(self.coefficient.checked_mul(power)?).ok()?;
        let value = if self.negative { -value } else { value };
        (value.abs() <= INTEGER_MAX).then_some(value)
    }

    /// True when the value has no fraction, whatever its size.
    pub fn is_whole(self) -> bool {
        self.scale <= 0
    }
}

fn exponent(text: &str) -> Result<i32, DecimalError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DecimalError::Syntax);
    }
    let value: i32 = text.parse().map_err(|_| DecimalError::Range)?;
    if value.abs() > EXPONENT_MAX {
        return Err(DecimalError::Range);
    }
    Ok(value)
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let digits = self.coefficient.to_string();
        if self.scale <= 0 {
            let zeros = "0".repeat(self.scale.unsigned_abs() as usize);
            return write!(f, "{sign}{digits}{zeros}");
        }
        let scale = self.scale.unsigned_abs() as usize;
        if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            write!(f, "{sign}{whole}.{fraction}")
        } else {
            write!(f, "{sign}0.{digits:0>scale$}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn d(text: &str) -> Decimal {
        Decimal::parse(text, '.').unwrap()
    }

    #[test]
    fn one_number_has_one_spelling() {
        for (text, want) in [
            ("0.432980", "0.43298"),
            ("1195.0", "1195"),
            ("-0.0", "0"),
            ("+7", "7"),
            ("007.50", "7.5"),
            ("1e3", "1000"),
            ("12.5E-4", "0.00125"),
            ("-93.24645826", "-93.24645826"),
            ("100", "100"),
            ("0", "0"),
        ] {
            assert_eq!(d(text).to_string(), want, "{text}");
        }
        assert_eq!(Decimal::parse("3,25", ',').unwrap().to_string(), "3.25");
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", "-", ".5", "5.", "1.2.3", "0x10", "NaN", "inf", "1e", "1e+", " 1", "1 ", "1_000", "--1", "１"]
        {
            assert_eq!(Decimal::parse(text, '.'), Err(DecimalError::Syntax), "{text:?}");
        }
        for text in ["1e65", "1e99999999999", "12345678901234567890123456789012345"] {
            assert_eq!(Decimal::parse(text, '.'), Err(DecimalError::Range), "{text}");
        }
    }

    #[test]
    fn integers_stay_in_the_json_range() {
        assert_eq!(d("9007199254740991").integer(), Some(INTEGER_MAX));
        assert_eq!(d("9007199254740992").integer(), None);
        assert_eq!(d("-9007199254740991").integer(), Some(-INTEGER_MAX));
        assert_eq!(d("1.5").integer(), None);
        assert_eq!(d("5e2").integer(), Some(500));
    }

    proptest! {
        #[test]
        fn spelling_survives_a_round_trip(n in any::<i64>(), places in 0_u32..12) {
            let value = Decimal::of(n < 0, u128::from(n.unsigned_abs()), places as i32).unwrap();
            prop_assert_eq!(d(&value.to_string()), value);
        }

        #[test]
        fn products_are_exact(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_i64..1_000_000) {
            let product = d(&a.to_string()).times(d(&format!("{b}e-3"))).unwrap();
            let want = d(&format!("{}e-3", i128::from(a) * i128::from(b)));
            prop_assert_eq!(product, want);
        }

        #[test]
        fn a_plain_text_is_the_spelling(text in "-?[0-9]{0,3}[.]?[0-9]{0,3}|-?[0-9.]{0,40}") {
            let spelling = Decimal::parse(&text, '.').map(|n| n.to_string());
            prop_assert!(!Decimal::is_plain(&text) || spelling == Ok(text.clone()), "{text}");
            // The twin: what is spelt so, and is not long, is seen to be.
            prop_assert!(spelling != Ok(text.clone()) || text.len() > 30 || Decimal::is_plain(&text), "{text}");
        }

        #[test]
        fn any_text_is_answered_without_panic(text in "\\PC{0,40}") {
            let _ = Decimal::parse(&text, '.');
        }
    }
}
