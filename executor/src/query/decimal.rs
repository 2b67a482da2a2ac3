//! Exact sums and means of decimals of any size.

use num_bigint::{BigInt, Sign};

/// Digits that a mean has after the point beyond those of its sum.
const MEAN_DIGITS: u32 = 6;

/// A decimal number: `digits` times ten to the power of minus `scale`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exact {
    digits: BigInt,
    scale: i64,
}

impl Exact {
    /// Reads a decimal as JSON or a database writes it, none where it is none.
    pub fn read(text: &str) -> Option<Self> {
        super::value::decimal_key(text)?;
        Self::read_wide(text)
    }

    /// The same without the bounds of a field's value: a sum may be longer.
    pub fn read_wide(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: BigInt = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { digits, scale: i64::try_from(fraction.len()).ok()? - exponent })
    }

    /// Adds another number.
    pub fn add(&mut self, other: &Self) {
        let scale = self.scale.max(other.scale);
        self.digits = self.at(scale) + other.at(scale);
        self.scale = scale;
    }

    fn at(&self, scale: i64) -> BigInt {
        &self.digits * power(scale - self.scale)
    }

    /// The number divided by `n`, rounded half to even at six digits more than this number has after the point; none
    /// of no numbers.
    pub fn mean(&self, n: u64) -> Option<Self> {
        if n == 0 {
            return None;
        }
        let scale = self.trimmed().scale.max(0) + i64::from(MEAN_DIGITS);
        let (digits, n) = (self.trimmed().at(scale), BigInt::from(n));
        let (mut quotient, rest) = (&digits / &n, &digits % &n);
        let twice = BigInt::from_biguint(Sign::Plus, rest.magnitude() * 2u8);
        let odd = quotient.magnitude().bit(0);
        if twice > n || (twice == n && odd) {
            quotient += if digits.sign() == Sign::Minus { -1 } else { 1 };
        }
        Some(Self { digits: quotient, scale })
    }

    fn trimmed(&self) -> Self {
        let mut text = self.digits.to_string();
        let mut scale = self.scale;
        if text == "0" {
            return Self::default();
        }
        while text.ends_with('0') {
            text.pop();
            scale -= 1;
        }
        Self { digits: text.parse().unwrap_or_default(), scale }
    }
}

fn power(exponent: i64) -> BigInt {
    BigInt::from(10u8).pow(u32::try_from(exponent).unwrap_or(0))
}

/// Plain digits, without an exponent and without zeros that say nothing: one number has one text.
impl std::fmt::Display for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.trimmed();
        let whole = usize::try_from(-short.scale).unwrap_or(0);
        let scale = usize::try_from(short.scale).unwrap_or(0);
        let sign = if short.digits.sign() == Sign::Minus { "-" } else { "" };
        let digits = format!("{}{}", short.digits.magnitude(), "0".repeat(whole));
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (a, b) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{a}.{b}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(list: &[&str]) -> Exact {
        let mut sum = Exact::default();
        list.iter().for_each(|t| sum.add(&Exact::read(t).unwrap()));
        sum
    }

    #[test]
    fn sums_are_exact_and_one_number_has_one_text() {
        for (list, text) in [
            (vec![], "0"),
            (vec!["0.1", "0.2"], "0.3"),
            (vec!["1.50"], "1.5"),
            (vec!["-0.0"], "0"),
            (vec!["1e3", "-999.5"], "0.5"),
            (vec!["9007199254740991", "9007199254740991"], "18014398509481982"),
            (vec!["1e40", "1e-3"], "10000000000000000000000000000000000000000.001"),
            (vec!["1200", "-0.05", "0.05"], "1200"),
            (vec!["-0.25"], "-0.25"),
        ] {
            assert_eq!(sum(&list).to_string(), text, "{list:?}");
        }
        assert_eq!(Exact::read("NaN"), None);
    }

    #[test]
    fn means_are_rounded_half_to_even() {
        let mean = |text: &str, n| Exact::read(text).unwrap().mean(n).unwrap().to_string();
        assert_eq!(mean("10", 4), "2.5");
        assert_eq!(mean("1", 3), "0.333333");
        assert_eq!(mean("-2", 3), "-0.666667");
        assert_eq!(mean("0.000001", 2), "0.0000005");
        assert_eq!(mean("1", 2_000_000), "0", "half of the last digit, the even neighbour");
        assert_eq!(mean("3", 2_000_000), "0.000002");
        assert_eq!(mean("-3", 2_000_000), "-0.000002");
        assert_eq!(mean("100", 1), "100");
        assert_eq!(Exact::default().mean(0), None);
    }

    proptest! {
        #[test]
        fn the_order_of_adding_does_not_matter(mut list in prop::collection::vec((-999_999i64..999_999, -20i32..20), 0..20)) {
            let add = |list: &[(i64, i32)]| {
                let mut sum = Exact::default();
                list.iter().for_each(|(m, e)| sum.add(&Exact::read(&format!("{m}e{e}")).unwrap()));
                sum.to_string()
            };
            let one = add(&list);
            list.reverse();
            prop_assert_eq!(&one, &add(&list));
            prop_assert_eq!(Exact::read_wide(&one).unwrap().to_string(), one);
        }
    }
}
