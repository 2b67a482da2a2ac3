//! The elements of monitored points: from octets to exact text and back.

use jiff::tz::TimeZone;

use super::time;
use crate::convert::Fault;

/// What the octets of an element mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One bit.
    Single,
    /// Two bits.
    Double,
    /// A step position, -64 to 63, and whether it moves.
    Step,
    /// 32 bits.
    Bits,
    /// A fraction of 1 in 16 bits.
    Normalized,
    /// The same without a quality.
    NormalizedBare,
    /// A whole number in 16 bits.
    Scaled,
    /// A single-precision number.
    Float,
    /// A counter in 32 bits.
    Counter,
}

/// A type of monitored point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointType {
    /// Its number.
    pub id: u8,
    /// Its name in the standard.
    pub name: &'static str,
    /// Its element.
    pub form: Form,
    /// Seven octets of time follow.
    pub tagged: bool,
}

const fn point(id: u8, name: &'static str, form: Form, tagged: bool) -> PointType {
    PointType { id, name, form, tagged }
}

/// The types that are read and written. Those with three octets of time are not allowed in IEC 60870-5-104.
const TYPES: &[PointType] = &[
    point(1, "M_SP_NA_1", Form::Single, false),
    point(3, "M_DP_NA_1", Form::Double, false),
    point(5, "M_ST_NA_1", Form::Step, false),
    point(7, "M_BO_NA_1", Form::Bits, false),
    point(9, "M_ME_NA_1", Form::Normalized, false),
    point(11, "M_ME_NB_1", Form::Scaled, false),
    point(13, "M_ME_NC_1", Form::Float, false),
    point(15, "M_IT_NA_1", Form::Counter, false),
    point(21, "M_ME_ND_1", Form::NormalizedBare, false),
    point(30, "M_SP_TB_1", Form::Single, true),
    point(31, "M_DP_TB_1", Form::Double, true),
    point(32, "M_ST_TB_1", Form::Step, true),
    point(33, "M_BO_TB_1", Form::Bits, true),
    point(34, "M_ME_TD_1", Form::Normalized, true),
    point(35, "M_ME_TE_1", Form::Scaled, true),
    point(36, "M_ME_TF_1", Form::Float, true),
    point(37, "M_IT_TB_1", Form::Counter, true),
];

impl PointType {
    /// The type of a number.
    pub fn of(id: u8) -> Option<Self> {
        TYPES.iter().find(|t| t.id == id).copied()
    }

    /// The type of a name.
    pub fn named(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.name == name).copied()
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TYPES.iter().map(|t| t.name)
    }

    /// The type with the same element and no time, which answers an interrogation.
    pub fn untagged(self) -> Self {
        TYPES.iter().find(|t| t.form == self.form && !t.tagged).copied().unwrap_or(self)
    }

    /// Octets of the element without its time.
    pub fn bare_size(self) -> usize {
        match self.form {
            Form::Single | Form::Double => 1,
            Form::Step | Form::NormalizedBare => 2,
            Form::Normalized | Form::Scaled => 3,
            Form::Bits | Form::Float | Form::Counter => 5,
        }
    }

    /// Octets of the element.
    pub fn size(self) -> usize {
        self.bare_size() + if self.tagged { time::BYTES } else { 0 }
    }
}

/// A flag of quality: its name as a cell, its word and its bit.
type Flag = (&'static str, &'static str, u8);
/// The flags of points.
const FLAGS: &[Flag] = &[
    ("invalid", "invalid", 0x80),
    ("not_topical", "not-topical", 0x40),
    ("substituted", "substituted", 0x20),
    ("blocked", "blocked", 0x10),
    ("overflow", "overflow", 0x01),
];
/// Those of one and two bits, where the lowest bits are the value.
const FLAGS_OF_BITS: &[Flag] = &[FLAGS[0], FLAGS[1], FLAGS[2], FLAGS[3]];
/// Those of counters.
const FLAGS_OF_COUNTERS: &[Flag] = &[FLAGS[0], ("adjusted", "adjusted", 0x40), ("carry", "carry", 0x20)];

fn flags(form: Form) -> &'static [Flag] {
    match form {
        Form::Single | Form::Double => FLAGS_OF_BITS,
        Form::Counter => FLAGS_OF_COUNTERS,
        Form::NormalizedBare => &[],
        _ => FLAGS,
    }
}

/// Names of all flags as cells.
pub fn flag_names() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().chain(FLAGS_OF_COUNTERS.iter().skip(1)).map(|f| f.0)
}

/// What an element says.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    form: Form,
    /// The value's exact text.
    pub value: Result<String, Fault>,
    /// A step position that moves.
    pub transient: Option<bool>,
    /// Number of a counter's reading, 0 to 31.
    pub counted: Option<u8>,
    quality: u8,
    /// The time, of tagged types.
    pub tag: Option<time::Tag>,
}

impl Reading {
    /// Reads an element; none when it has another number of octets.
    pub fn decode(point: PointType, element: &[u8], zone: &TimeZone) -> Option<Self> {
        let (bare, tag) = element.split_at_checked(point.bare_size())?;
        let tag = match point.tagged {
            true => Some(time::decode(tag.try_into().ok()?, zone)),
            false if tag.is_empty() => None,
            false => return None,
        };
        let (mut transient, mut counted) = (None, None);
        let (value, quality) = match (point.form, bare) {
            (Form::Single, [q]) => (Ok((q & 1).to_string()), *q),
            (Form::Double, [q]) => (Ok((q & 3).to_string()), *q),
            (Form::Step, [v, q]) => {
                transient = Some(v & 0x80 != 0);
                // Seven bits with a sign.
                (Ok(((v << 1).cast_signed() >> 1).to_string()), *q)
            }
            (Form::Bits, [a, b, c, d, q]) => (Ok(u32::from_le_bytes([*a, *b, *c, *d]).to_string()), *q),
            (Form::Normalized, [a, b, q]) => (Ok(fraction(i16::from_le_bytes([*a, *b]))), *q),
            (Form::NormalizedBare, [a, b]) => (Ok(fraction(i16::from_le_bytes([*a, *b]))), 0),
            (Form::Scaled, [a, b, q]) => (Ok(i16::from_le_bytes([*a, *b]).to_string()), *q),
            (Form::Float, [a, b, c, d, q]) => (float(f32::from_le_bytes([*a, *b, *c, *d])), *q),
            (Form::Counter, [a, b, c, d, q]) => {
                counted = Some(q & 0x1f);
                (Ok(i32::from_le_bytes([*a, *b, *c, *d]).to_string()), *q)
            }
            _ => return None,
        };
        Some(Self { form: point.form, value, transient, counted, quality, tag })
    }

    /// A flag of quality by the name of its cell; none where the type has no such flag.
    pub fn flag(&self, name: &str) -> Option<bool> {
        flags(self.form).iter().find(|f| f.0 == name).map(|f| self.quality & f.2 != 0)
    }

    /// All flags that are set, joined by `+`; `good` when there is none.
    pub fn quality(&self) -> String {
        let set: Vec<&str> = flags(self.form).iter().filter(|f| self.quality & f.2 != 0).map(|f| f.1).collect();
        if set.is_empty() { "good".to_owned() } else { set.join("+") }
    }
}

/// `n / 32768` with all its digits.
fn fraction(n: i16) -> String {
    let (sign, n) = (if n < 0 { "-" } else { "" }, u64::from(n.unsigned_abs()));
    // 1 / 2^15 is 5^15 / 10^15.
    let (whole, rest) = (n >> 15, (n & 0x7fff) * 30_517_578_125);
    let digits = format!("{rest:015}");
    match digits.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        digits => format!("{sign}{whole}.{digits}"),
    }
}

/// The shortest decimal that means this single-precision number and no other.
fn float(n: f32) -> Result<String, Fault> {
    if n.is_finite() {
        return Ok(if n == 0.0 { "0".to_owned() } else { n.to_string() });
    }
    Err(Fault::new("number.finite", "the value is infinite or no number; the station has nothing to say"))
}

/// Writes an element without its time, from a value's text and the words of a quality.
pub fn encode(point: PointType, value: &str, quality: &str) -> Result<Vec<u8>, Fault> {
    let wrong = |what: &str| Fault::new("sink.value", format!("the value is no {what}, as {} needs it", point.name));
    let mut bits = 0;
    for word in quality.split(['+', ' ', ',']).filter(|w| !w.is_empty() && *w != "good") {
        let flag = flags(point.form).iter().find(|f| f.1 == word);
        bits |= flag.ok_or_else(|| Fault::new("sink.quality", format!("no flag of {} has that name", point.name)))?.2;
    }
    let whole = |low: i64, high: i64, what: &str| {
        value.parse::<i64>().ok().filter(|n| (low..=high).contains(n)).ok_or_else(|| wrong(what))
    };
    let octets = |n: i64, count: usize| n.to_le_bytes().into_iter().take(count).collect::<Vec<u8>>();
    let mut out = match point.form {
        Form::Single => match value {
            "1" | "true" | "on" => vec![1],
            "0" | "false" | "off" => vec![0],
            _ => return Err(wrong("0, 1, true, false, on or off")),
        },
        Form::Double => match value {
            "false" | "off" => vec![1],
            "true" | "on" => vec![2],
            _ => octets(whole(0, 3, "number from 0 to 3, true, false, on or off")?, 1),
        },
        Form::Step => vec![octets(whole(-64, 63, "step from -64 to 63")?, 1).first().copied().unwrap_or(0) & 0x7f],
        Form::Bits => octets(whole(0, i64::from(u32::MAX), "number of 32 bits")?, 4),
        Form::Counter => octets(whole(i32::MIN.into(), i32::MAX.into(), "whole number of 32 bits with a sign")?, 4),
        Form::Scaled => octets(whole(i16::MIN.into(), i16::MAX.into(), "whole number from -32768 to 32767")?, 2),
        Form::Normalized | Form::NormalizedBare => {
            let n: f64 = value.parse().map_err(|_| wrong("number from -1 to 1"))?;
            let n = (n * 32_768.0).round();
            // 1 itself is one step too high for the format.
            if !(-32_768.0..=32_768.0).contains(&n) {
                return Err(wrong("number from -1 to 1"));
            }
            octets((n as i64).min(32_767), 2)
        }
        Form::Float => {
            let n: f32 = value.parse().ok().filter(|n: &f32| n.is_finite()).ok_or_else(|| wrong("number"))?;
            n.to_le_bytes().to_vec()
        }
    };
    match point.form {
        Form::Single | Form::Double => out.iter_mut().for_each(|octet| *octet |= bits),
        Form::NormalizedBare => {}
        _ => out.push(bits),
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str, element: &[u8]) -> Reading {
        Reading::decode(PointType::named(name).unwrap(), element, &TimeZone::UTC).unwrap()
    }

    #[test]
    fn values_are_exact_text_and_qualities_words() {
        for (name, element, value, quality) in [
            ("M_SP_NA_1", &[0x81u8][..], "1", "invalid"),
            ("M_DP_NA_1", &[0x32], "2", "substituted+blocked"),
            ("M_ST_NA_1", &[0xff, 0], "-1", "good"),
            ("M_ST_NA_1", &[0x3f, 0x40], "63", "not-topical"),
            ("M_BO_NA_1", &[0xff, 0xff, 0xff, 0xff, 0], "4294967295", "good"),
            ("M_ME_NA_1", &[1, 0, 1], "0.000030517578125", "overflow"),
            ("M_ME_NA_1", &[0, 0x80, 0], "-1", "good"),
            ("M_ME_ND_1", &[0, 0xc0], "-0.5", "good"),
            ("M_ME_NB_1", &[0xff, 0xff, 0], "-1", "good"),
            ("M_ME_NC_1", &[0x9a, 0x99, 0x99, 0x3f, 0], "1.2", "good"),
            ("M_ME_NC_1", &[0, 0, 0, 0x80, 0], "0", "good"),
            ("M_IT_NA_1", &[0xfe, 0xff, 0xff, 0xff, 0x65], "-2", "adjusted+carry"),
        ] {
            let read = read(name, element);
            assert_eq!((read.value.as_deref().unwrap(), read.quality().as_str()), (value, quality), "{name}");
        }
        assert_eq!(read("M_IT_NA_1", &[0, 0, 0, 0, 0x65]).counted, Some(5));
        assert_eq!(read("M_IT_NA_1", &[0, 0, 0, 0, 0x65]).flag("overflow"), None);
        assert_eq!(read("M_ST_NA_1", &[0xff, 0]).transient, Some(true));
        assert_eq!(read("M_ME_NC_1", &[0, 0, 0xc0, 0x7f, 0]).value.unwrap_err().rule, "number.finite");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_repeated() {
        for (name, value, quality) in [
            ("M_SP_NA_1", "2", ""),
            ("M_ST_NA_1", "64", ""),
            ("M_ME_NB_1", "32768", ""),
            ("M_ME_NB_1", "1.5", ""),
            ("M_ME_NA_1", "1.1", ""),
            ("M_ME_NC_1", "1e39", ""),
            ("M_SP_NA_1", "1", "overflow"),
            ("M_ME_NC_1", "secret", "secret"),
        ] {
            let fault = encode(PointType::named(name).unwrap(), value, quality).unwrap_err();
            assert!(!fault.message.contains("secret") && fault.rule.starts_with("sink."), "{fault:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_again(at in 0..TYPES.len(), bytes: [u8; 12]) {
            let point = TYPES[at].untagged();
            let element = &bytes[..point.size()];
            let read = Reading::decode(point, element, &TimeZone::UTC).unwrap();
            if let Ok(value) = &read.value {
                let again = encode(point, value, &read.quality()).unwrap();
                let twice = Reading::decode(point, &again, &TimeZone::UTC).unwrap();
                prop_assert_eq!((&twice.value, twice.quality()), (&read.value, read.quality()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(at in 0..TYPES.len(), bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let read = Reading::decode(TYPES[at], &bytes, &TimeZone::UTC);
            prop_assert_eq!(read.is_some(), bytes.len() == TYPES[at].size());
        }
    }
}
