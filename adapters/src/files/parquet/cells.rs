//! Values of Parquet as exact text.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use num_bigint::BigInt;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::data_type::Int96;
use parquet::schema::types::ColumnDescriptor;

use crate::convert::Fault;
use crate::mapping::Cell;

/// Seconds of a day.
const DAY_S: i64 = 86_400;
/// The Julian day on which 1970 began.
const EPOCH_JULIAN: i64 = 2_440_588;

/// One value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// No value.
    None,
    /// The value's exact text.
    Text(String),
    /// A value that has no text, and what a dead letter keeps of it.
    Bad(Fault, String),
}

impl Value {
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Self::None => Cell::Null,
            Self::Text(text) => Cell::Text(Cow::Borrowed(text)),
            Self::Bad(fault, _) => Cell::Bad(fault.clone()),
        }
    }

    /// What a dead letter keeps.
    pub fn kept(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Text(text) | Self::Bad(_, text) => Some(text),
        }
    }
}

/// What a column's values are, beyond their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// True or false.
    Boolean,
    /// A whole number.
    Signed,
    /// A whole number without a sign.
    Unsigned,
    /// A number with so many decimal places.
    Decimal(i32),
    /// A floating number.
    Real,
    /// A floating number of two bytes.
    Half,
    /// Text.
    Text,
    /// Bytes: base64 in the cell.
    Bytes,
    /// An identifier of sixteen bytes.
    Uuid,
    /// A day.
    Date,
    /// A time of day, in so many parts of a second.
    Time(i64),
    /// An instant (true) or a wall clock without a zone, in so many parts of a second.
    Stamp(i64, bool),
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

impl Shape {
    /// What the values of a column are; the error says which type has no text.
    pub fn of(column: &ColumnDescriptor) -> Result<Self, String> {
        let (physical, converted) = (column.physical_type(), column.converted_type());
        let scale = column.type_scale();
        let shape = match column.logical_type_ref() {
            Some(LogicalType::Integer(int)) if int.is_signed => Self::Signed,
            Some(LogicalType::Integer(_)) => Self::Unsigned,
            Some(LogicalType::Decimal(decimal)) => Self::Decimal(decimal.scale),
            Some(LogicalType::Date) => Self::Date,
            Some(LogicalType::Time(time)) => Self::Time(per_second(time.unit)),
            Some(LogicalType::Timestamp(stamp)) => Self::Stamp(per_second(stamp.unit), stamp.is_adjusted_to_u_t_c),
            Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => Self::Text,
            Some(LogicalType::Uuid) => Self::Uuid,
            Some(LogicalType::Float16) => Self::Half,
            Some(LogicalType::Bson | LogicalType::Unknown) | None => match converted {
                ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
                    Self::Unsigned
                }
                ConvertedType::DECIMAL => Self::Decimal(scale),
                ConvertedType::DATE => Self::Date,
                ConvertedType::TIME_MILLIS => Self::Time(1_000),
                ConvertedType::TIME_MICROS => Self::Time(1_000_000),
                // The older annotation knows instants alone.
                ConvertedType::TIMESTAMP_MILLIS => Self::Stamp(1_000, true),
                ConvertedType::TIMESTAMP_MICROS => Self::Stamp(1_000_000, true),
                ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => Self::Text,
                ConvertedType::INTERVAL => return Err("is an INTERVAL, which has no text here".to_owned()),
                _ => match physical {
                    Type::BOOLEAN => Self::Boolean,
                    Type::INT32 | Type::INT64 => Self::Signed,
                    // It says no zone: Spark writes UTC, others their own clock.
                    Type::INT96 => Self::Stamp(1_000_000_000, false),
                    Type::FLOAT | Type::DOUBLE => Self::Real,
                    Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => Self::Bytes,
                },
            },
            Some(other) => return Err(format!("is of the type {}, which has no text here", name(other))),
        };
        if shape.fits(physical) {
            Ok(shape)
        } else {
            Err(format!("is {shape:?} written as {physical}, which is no Parquet"))
        }
    }

    fn fits(self, physical: Type) -> bool {
        match self {
            Self::Boolean => physical == Type::BOOLEAN,
            Self::Signed | Self::Unsigned | Self::Time(_) => matches!(physical, Type::INT32 | Type::INT64),
            Self::Stamp(..) => matches!(physical, Type::INT64 | Type::INT96),
            Self::Date => physical == Type::INT32,
            Self::Real => matches!(physical, Type::FLOAT | Type::DOUBLE),
            Self::Decimal(scale) => {
                scale >= 0 && !matches!(physical, Type::BOOLEAN | Type::INT96 | Type::FLOAT | Type::DOUBLE)
            }
            Self::Text => physical == Type::BYTE_ARRAY,
            Self::Bytes => matches!(physical, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY),
            Self::Half | Self::Uuid => physical == Type::FIXED_LEN_BYTE_ARRAY,
        }
    }

    pub fn int32(self, value: i32) -> Value {
        match self {
            Self::Unsigned => Value::Text((value as u32).to_string()),
            Self::Date => date(value),
            other => other.int64(value.into()),
        }
    }

    pub fn int64(self, value: i64) -> Value {
        match self {
            Self::Unsigned => Value::Text((value as u64).to_string()),
            Self::Decimal(scale) => Value::Text(decimal(&value.into(), scale)),
            Self::Time(unit) => time(value, unit),
            Self::Stamp(unit, utc) => {
                let (second, part) = (value.div_euclid(unit), value.rem_euclid(unit));
                stamp(second, part * (1_000_000_000 / unit), utc).unwrap_or_else(|| out_of_range(value))
            }
            _ => Value::Text(value.to_string()),
        }
    }

    pub fn int96(self, value: &Int96) -> Value {
        let &[low, high, day] = value.data() else { return out_of_range(0) };
        let nanos = (u64::from(high) << 32 | u64::from(low)).cast_signed();
        let second = (i64::from(day) - EPOCH_JULIAN) * DAY_S + nanos.div_euclid(1_000_000_000);
        stamp(second, nanos.rem_euclid(1_000_000_000), false).unwrap_or_else(|| out_of_range(nanos))
    }

    pub fn bytes(self, bytes: &[u8]) -> Value {
        match self {
            Self::Decimal(scale) => Value::Text(decimal(&BigInt::from_signed_bytes_be(bytes), scale)),
            Self::Half => match bytes {
                [a, b] => real(half(u16::from_le_bytes([*a, *b]))),
                _ => Value::Bad(Fault::new("text.syntax", "a number of two bytes has another length"), String::new()),
            },
            Self::Text => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => {
                    let fault = Fault::new("text.utf8", "the value is not UTF-8; correct it at the source");
                    Value::Bad(fault, STANDARD.encode(bytes))
                }
            },
            Self::Uuid if bytes.len() == 16 => {
                let hex = hex::encode(bytes);
                let part = |from, to| hex.get(from..to).unwrap_or_default();
                Value::Text([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
            }
            _ => Value::Text(STANDARD.encode(bytes)),
        }
    }
}

fn name(logical: &LogicalType) -> &'static str {
    match logical {
        LogicalType::Variant(_) => "VARIANT",
        LogicalType::Geometry(_) => "GEOMETRY",
        LogicalType::Geography(_) => "GEOGRAPHY",
        _ => "a newer version",
    }
}

/// A floating number in the fewest digits that are read back as the same number.
pub(super) fn real<T: std::fmt::Display + Into<f64> + Copy>(value: T) -> Value {
    let wide: f64 = value.into();
    if wide.is_finite() {
        return Value::Text(value.to_string());
    }
    Value::Bad(Fault::new("number.not-finite", "the value is no number; write none at the source"), value.to_string())
}

/// A floating number of two bytes; four hold it exactly.
fn half(bits: u16) -> f32 {
    let (sign, exponent, part) = (bits >> 15, (bits >> 10) & 0x1f, f32::from(bits & 0x3ff));
    let size = match exponent {
        0 => part * 2_f32.powi(-24),
        0x1f if part == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        e => (1024.0 + part) * 2_f32.powi(i32::from(e) - 25),
    };
    if sign == 1 { -size } else { size }
}

/// All digits of a number, `scale` of them behind the point.
fn decimal(unscaled: &BigInt, scale: i32) -> String {
    let (text, scale) = (unscaled.magnitude().to_string(), usize::try_from(scale).unwrap_or(0));
    let digits = format!("{text:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if unscaled.sign() == num_bigint::Sign::Minus { "-" } else { "" };
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{part}")
}

fn date(days: i32) -> Value {
    let day = Date::constant(1970, 1, 1).checked_add(jiff::Span::new().days(days.clamp(-5_000_000, 5_000_000)));
    day.map_or_else(|_| out_of_range(days.into()), |day| Value::Text(day.to_string()))
}

fn time(value: i64, unit: i64) -> Value {
    let (seconds, part) = (value.div_euclid(unit), value.rem_euclid(unit));
    let nanos = i32::try_from(part * (1_000_000_000 / unit)).unwrap_or_default();
    let field = |n: i64| i8::try_from(n).ok();
    let made = (0..DAY_S)
        .contains(&seconds)
        .then(|| Time::new(field(seconds / 3_600)?, field(seconds / 60 % 60)?, field(seconds % 60)?, nanos).ok());
    made.flatten().map_or_else(|| out_of_range(value), |time| Value::Text(time.to_string()))
}

/// ISO 8601, with `Z` for an instant and without an offset for a wall clock.
fn stamp(second: i64, nanos: i64, utc: bool) -> Option<Value> {
    let at = Timestamp::new(second, i32::try_from(nanos).ok()?).ok()?;
    let text = if utc { at.to_string() } else { TimeZone::UTC.to_datetime(at).to_string() };
    Some(Value::Text(text))
}

fn out_of_range(value: i64) -> Value {
    Value::Bad(Fault::new("time.range", "the time is outside the years 1 to 9999"), value.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(value: Value) -> String {
        match value {
            Value::Text(text) => text,
            Value::Bad(fault, kept) => format!("{} {kept}", fault.rule),
            Value::None => String::new(),
        }
    }

    #[test]
    fn every_digit_of_a_decimal_is_there() {
        for (unscaled, scale, want) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 3, "0.005"),
            (-5, 3, "-0.005"),
            (-12345, 2, "-123.45"),
            (1200, 2, "12.00"),
        ] {
            assert_eq!(decimal(&BigInt::from(unscaled), scale), want);
            assert_eq!(text(Shape::Decimal(scale).int64(unscaled)), want);
        }
        let wide = Shape::Decimal(10)
            .bytes(&[0x4b, 0x3b, 0x4c, 0xa8, 0x5a, 0x86, 0xc4, 0x7a, 0x09, 0x8a, 0x22, 0x3f, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(text(wide), "9999999999999999999999999999.9999999999");
        assert_eq!(text(Shape::Decimal(1).bytes(&[0xff])), "-0.1");
    }

    #[test]
    fn times_are_iso_8601_and_keep_their_parts() {
        for (shape, value, want) in [
            (Shape::Stamp(1_000, true), 1_456_790_400_123, "2016-03-01T00:00:00.123Z"),
            (Shape::Stamp(1_000_000, false), 1_456_790_400_000_001, "2016-03-01T00:00:00.000001"),
            (Shape::Stamp(1_000_000_000, true), -1, "1969-12-31T23:59:59.999999999Z"),
            (Shape::Stamp(1_000, true), i64::MAX, "time.range 9223372036854775807"),
            (Shape::Time(1_000), 36_000_000, "10:00:00"),
            (Shape::Time(1_000_000), 86_399_999_999, "23:59:59.999999"),
            (Shape::Time(1_000), 86_400_000, "time.range 86400000"),
            (Shape::Signed, i64::MIN, "-9223372036854775808"),
            (Shape::Unsigned, -1, "18446744073709551615"),
        ] {
            assert_eq!(text(shape.int64(value)), want);
        }
        assert_eq!(text(Shape::Date.int32(16_861)), "2016-03-01");
        assert_eq!(text(Shape::Date.int32(-719_162)), "0001-01-01");
        assert_eq!(text(Shape::Date.int32(i32::MAX)), "time.range 2147483647");
        assert_eq!(text(Shape::Unsigned.int32(-1)), "4294967295");
        let mut spark = Int96::new();
        spark.set_data(1, 0, 2_457_449);
        assert_eq!(text(Shape::Stamp(1, false).int96(&spark)), "2016-03-01T00:00:00.000000001");
    }

    #[test]
    fn other_values_are_as_they_are_or_bad() {
        assert_eq!(text(real(0.1_f64)), "0.1");
        assert_eq!(text(real(0.1_f32)), "0.1");
        assert_eq!(text(real(f64::NAN)), "number.not-finite NaN");
        for (bits, want) in [(0x3c00, "1"), (0xc000, "-2"), (0x3555, "0.33325195"), (0x0001, "0.000000059604645")] {
            assert_eq!(text(Shape::Half.bytes(&u16::to_le_bytes(bits))), want);
        }
        assert_eq!(text(Shape::Half.bytes(&[0, 0x7c])), "number.not-finite inf");
        assert_eq!(text(Shape::Text.bytes("é".as_bytes())), "é");
        assert_eq!(text(Shape::Text.bytes(b"\xff")), "text.utf8 /w==");
        assert_eq!(text(Shape::Bytes.bytes(b"\xff")), "/w==");
        let uuid = text(Shape::Uuid.bytes(&[0x12; 16]));
        assert_eq!(uuid, "12121212-1212-1212-1212-121212121212");
    }
}
