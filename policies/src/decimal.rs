//! Exact decimals, for rounding numbers as they stand in a row: no floating point touches a value.

/// A decimal number: `units` of 10^-`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    units: i128,
    scale: u32,
}

/// Most digits that are read on either side of the point.
const DIGITS_MAX: usize = 18;
/// Most digits of a step on either side of the point.
const STEP_DIGITS_MAX: usize = 9;

impl Decimal {
    /// Reads `-12.50`; also `1.5e-7`, as JSON numbers are written. `None` for anything else or anything longer.
    pub fn read(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let plain = Self::plain(mantissa, DIGITS_MAX)?;
        match exponent {
            0 => Some(plain),
            -18..=-1 => Some(Self { units: plain.units, scale: plain.scale + exponent.unsigned_abs() }),
            1..=18 => Some(Self { units: plain.units.checked_mul(10i128.pow(exponent.unsigned_abs()))?, ..plain }),
            _ => None,
        }
    }

    /// Reads the step of a `coarsen` duty: above 0, without sign or exponent.
    pub fn step(text: &str) -> Option<Self> {
        Self::plain(text, STEP_DIGITS_MAX).filter(|d| d.units > 0 && !text.starts_with('-'))
    }

    fn plain(text: &str, digits: usize) -> Option<Self> {
        let (sign, rest) = text.strip_prefix('-').map_or((1, text), |r| (-1, r));
        let (whole, part) = rest.split_once('.').map_or((rest, None), |(w, p)| (w, Some(p)));
        let number = |s: &str| !s.is_empty() && s.len() <= digits && s.bytes().all(|b| b.is_ascii_digit());
        if !number(whole) || part.is_some_and(|p| !number(p)) {
            return None;
        }
        let part = part.unwrap_or_default();
        let units: i128 = format!("{whole}{part}").parse().ok()?;
        Some(Self { units: sign * units, scale: u32::try_from(part.len()).ok()? })
    }

    /// The greatest multiple of `step` that is not above this, written with the digits of the step.
    pub fn floor_to(self, step: Self) -> Option<Self> {
        let scale = self.scale.max(step.scale);
        let (value, unit) = (self.at(scale)?, step.at(scale)?);
        let down = value.checked_div_euclid(unit)?.checked_mul(step.units)?;
        Some(Self { units: down, scale: step.scale })
    }

    fn at(self, scale: u32) -> Option<i128> {
        self.units.checked_mul(10i128.checked_pow(scale - self.scale)?)
    }

    /// The number if it is whole and fits.
    pub fn whole(self) -> Option<i64> {
        let unit = 10i128.checked_pow(self.scale)?;
        (self.units % unit == 0).then(|| i64::try_from(self.units / unit).ok()).flatten()
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let digits = format!("{:0width$}", self.units.unsigned_abs(), width = self.scale as usize + 1);
        let (whole, part) = digits.split_at(digits.len() - self.scale as usize);
        if part.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{part}") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn floor(value: &str, step: &str) -> String {
        Decimal::read(value).unwrap().floor_to(Decimal::step(step).unwrap()).unwrap().to_string()
    }

    #[test]
    fn numbers_are_rounded_down_to_the_step() {
        for (value, step, want) in [
            ("44.966617", "0.01", "44.96"),
            ("-93.246457", "0.01", "-93.25"),
            ("17", "5", "15"),
            ("-17", "5", "-20"),
            ("15", "5", "15"),
            ("1.5e-7", "0.001", "0.000"),
            ("7", "0.25", "7.00"),
            ("7.3", "0.25", "7.25"),
            ("0", "0.5", "0.0"),
        ] {
            assert_eq!(floor(value, step), want, "{value} to {step}");
        }
        for bad in ["", "-", ".5", "5.", "1_000", "0x1", "NaN", "1e99", "+1", "1 ", "9999999999999999999"] {
            assert_eq!(Decimal::read(bad), None, "{bad}");
        }
        for bad in ["0", "-1", "0.00", "1e2", ""] {
            assert_eq!(Decimal::step(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_a_multiple_below_the_value_by_less_than_a_step(v in any::<i64>(), vs in 0u32..9, s in 1i64..1_000_000, ss in 0u32..9) {
            let (v, vs, s, ss) = (i128::from(v) % 1_000_000_000_000, vs, i128::from(s), ss);
            let down = Decimal { units: v, scale: vs }.floor_to(Decimal { units: s, scale: ss }).unwrap();
            let at = |u: i128, scale: u32| u * 10i128.pow(9 - scale);
            let (value, step, shown) = (at(v, vs), at(s, ss), at(down.units, down.scale));
            prop_assert!(shown <= value && value < shown + step && shown % step == 0);
        }
    }
}
