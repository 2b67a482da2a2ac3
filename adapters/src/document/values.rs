//! Members with a spelling of their own: paces, periods, secrets, what to do about errors.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::contract::AdapterError;

/// How fast a feed is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the broker acknowledges.
    #[default]
    Max,
    /// This many rows per second, 1 to 1,000,000.
    RowsPerSecond(u32),
}

impl Pace {
    /// Reads `max` or a number of rows per second.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse() {
            Ok(rows @ 1..=1_000_000) => Ok(Self::RowsPerSecond(rows)),
            _ => Err("pace must be `max` or rows per second from 1 to 1000000".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Pace {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// What to do about errors of each class; permanent ones always stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnError {
    /// For what may pass by itself.
    #[serde(default)]
    pub transient: OnTransient,
    /// For bad rows.
    #[serde(default)]
    pub data: OnData,
    /// For refused credentials.
    #[serde(default)]
    pub auth: OnAuth,
}

/// For what may pass by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTransient {
    /// Try again with back-off.
    #[default]
    Retry,
    /// Stop with the error.
    Stop,
}

/// For bad rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnData {
    /// Keep them as dead letters and go on.
    #[default]
    DeadLetter,
    /// Keep them as dead letters and stop.
    Stop,
}

/// For refused credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAuth {
    /// Stop with the error.
    #[default]
    Stop,
    /// Try again with back-off.
    Retry,
}

/// How long something takes, written as a whole number with a unit: `500ms`, `2s`, `10m`, `24h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// A period of so many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// Reads `500ms`, `2s`, `10m`, `24h` or `7d`; at most ten years.
    pub fn parse(text: &str) -> Result<Self, String> {
        const MOST_MS: u64 = 10 * 366 * 86_400_000;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(format!("`{text}` is no period: write a whole number with ms, s, m, h or d, such as 30s")),
        };
        let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).filter(|ms| *ms <= MOST_MS);
        ms.map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| format!("`{text}` is no period of at most ten years"))
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_millis();
        let (n, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
            .into_iter()
            .find(|(size, _)| ms != 0 && ms.is_multiple_of(*size))
            .map_or((ms, "ms"), |(size, unit)| (ms / size, unit));
        write!(f, "{n}{unit}")
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// How often a source is asked, and how much at once; a kind says what it does where a member is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// Wait between two questions when there was nothing new.
    #[serde(default)]
    pub every: Option<Period>,
    /// Most rows of one question to the source.
    #[serde(default)]
    pub max_rows: Option<u32>,
    /// Longest time one question may take at the source.
    #[serde(default)]
    pub statement_timeout: Option<Period>,
}

/// Where something stands that is not written into a document: `env:NAME` or `file:PATH` (relative to the node folder).
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A variable of the environment.
    Env(String),
    /// A file; a line end at its end is not part of it.
    File(String),
}

/// Most bytes of a secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl Secret {
    /// Reads a reference; a literal is refused and not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            _ => Err("a secret is never written here: say where it stands, `env:NAME` or `file:PATH`".to_owned()),
        }
    }

    /// The secret itself; it is wiped from memory when dropped. Paths are relative to `base`, the node folder.
    pub fn reveal(&self, base: &Path) -> Result<Zeroizing<String>, AdapterError> {
        let missing = |detail: String| {
            let message = format!("{self}: {detail}");
            AdapterError::source_failed(crate::contract::ErrorClass::Auth, "source.secret", message)
        };
        match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Ok(Zeroizing::new(text)),
                Err(std::env::VarError::NotPresent) => {
                    Err(missing("the variable is not set; set it for the process that runs the adapter".to_owned()))
                }
                Err(std::env::VarError::NotUnicode(_)) => Err(missing("the variable is not UTF-8".to_owned())),
            },
            Self::File(path) => {
                let path = base.join(path);
                let size = std::fs::metadata(&path).map_err(|e| missing(e.to_string()))?.len();
                if size > SECRET_BYTES_MAX {
                    return Err(missing(format!("the file has {size} bytes, a secret has at most {SECRET_BYTES_MAX}")));
                }
                let mut text = Zeroizing::new(std::fs::read_to_string(&path).map_err(|e| missing(e.to_string()))?);
                let kept = text.trim_end_matches(['\n', '\r']).len();
                text.truncate(kept);
                Ok(text)
            }
        }
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whose data a record is: the words of the dataset's document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Subject {
    /// Nobody's.
    #[default]
    None,
    /// The person whom this field names.
    Field {
        /// Field of the dataset.
        field: String,
        /// What the person is in the record, for example `principal`.
        role: Option<String>,
    },
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            field: String,
            #[serde(default)]
            role: Option<String>,
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Subject;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`none`, or {field: NAME, role: ROLE}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Subject, E> {
                match text {
                    "none" => Ok(Subject::None),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<Subject, M::Error> {
                let named = Named::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Subject::Field { field: named.field, role: named.role })
            }
        }
        d.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn periods_have_one_spelling() {
        for (text, ms) in [("500ms", 500), ("2s", 2_000), ("10m", 600_000), ("24h", 86_400_000), ("7d", 604_800_000)] {
            let period = Period::parse(text).unwrap();
            assert_eq!(period.0, Duration::from_millis(ms), "{text}");
            assert_eq!(Period::parse(&period.to_string()).unwrap(), period);
        }
        for bad in ["", "s", "2", "2 s", "1.5s", "-1s", "2S", "2w", "99999999d", "18446744073709551616ms"] {
            assert!(Period::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_stand_elsewhere_and_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pw"), "hunter2\r\n").unwrap();
        let secret = Secret::parse("file:pw").unwrap();
        assert_eq!(secret.reveal(dir.path()).unwrap().as_str(), "hunter2");
        assert_eq!(format!("{secret:?} {secret}"), "Secret(file:pw) file:pw");
        let error = Secret::parse("hunter2").unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("env:NAME"), "{error}");
        let error = Secret::parse("env:CONCORDAT_NO_SUCH_VARIABLE").unwrap().reveal(dir.path()).unwrap_err();
        assert_eq!((error.class(), error.code()), (crate::contract::ErrorClass::Auth, "source.secret"));
        assert!(Secret::parse("file:gone").unwrap().reveal(dir.path()).unwrap_err().to_string().contains("file:gone"));
    }
}
