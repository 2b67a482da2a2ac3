//! Names of things: agencies, datasets, agreements, writers, operations.

use crate::cbor::{Canon, CborError, Dec, Enc};
use thiserror::Error;

/// A name that breaks its rule.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{what} \"{given}\": {rule}")]
pub struct IdError {
    /// What kind of name was expected.
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

fn err(what: &'static str, given: &str, rule: &'static str) -> IdError {
    IdError { what, given: given.chars().take(80).collect(), rule }
}

fn is_slug(s: &str, max: usize) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !s.is_empty() && s.len() <= max && s.starts_with(|c: char| c.is_ascii_lowercase()) && s.chars().all(ok)
}

macro_rules! text_id {
    ($(#[$m:meta])* $name:ident, $check:expr) => {
        $(#[$m])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(s: impl Into<String>) -> Result<Self, IdError> {
                let s = s.into();
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(&s)?;
                Ok(Self(s))
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }

        impl Canon for $name {
            fn put(&self, e: &mut Enc) {
                e.text(&self.0);
            }
            fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
                Self::new(d.text()?).map_err(|e| CborError::rule(stringify!($name), e.to_string()))
            }
        }
    };
}

text_id!(
    /// An agency: `police`. In documents it is written `org:police`.
    AgencyId,
    |s| if is_slug(s, 32) {
        Ok(())
    } else {
        Err(err("agency", s, "must be 1 to 32 of a-z, 0-9 and -, beginning with a letter"))
    }
);

impl AgencyId {
    /// Reads the document form `org:police`.
    pub fn from_org(s: &str) -> Result<Self, IdError> {
        s.strip_prefix("org:").ok_or_else(|| err("agency", s, "must begin with org:")).and_then(Self::new)
    }
    /// The document form, `org:police`.
    pub fn org(&self) -> String {
        format!("org:{}", self.0)
    }
    /// The name of the agency's account on the streams, in capitals with `_` for `-`: `POLICE`.
    pub fn account(&self) -> String {
        self.0.to_ascii_uppercase().replace('-', "_")
    }
}

text_id!(
    /// A dataset version: `ds:police/stops@1`. The agency in it is the owner.
    DatasetId,
    |s| {
        let rule = "must look like ds:agency/name@1";
        let rest = s.strip_prefix("ds:").ok_or_else(|| err("dataset", s, rule))?;
        let (agency, rest) = rest.split_once('/').ok_or_else(|| err("dataset", s, rule))?;
        let (name, version) = rest.split_once('@').ok_or_else(|| err("dataset", s, rule))?;
        let numbered = !version.starts_with('0') && version.len() <= 6 && version.parse::<u32>().is_ok_and(|v| v > 0);
        if is_slug(agency, 32) && is_slug(name, 48) && numbered { Ok(()) } else { Err(err("dataset", s, rule)) }
    }
);

impl DatasetId {
    fn parts(&self) -> (&str, &str, &str) {
        let rest = self.0.strip_prefix("ds:").unwrap_or(&self.0);
        let (agency, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
        (agency, name, version)
    }
    /// The agency that owns the dataset.
    pub fn owner(&self) -> AgencyId {
        AgencyId(self.parts().0.to_owned())
    }
    /// The name without agency and version: `stops`.
    pub fn name(&self) -> &str {
        self.parts().1
    }
    /// A form that is safe in file, stream and table names: `stops_1`.
    pub fn token(&self) -> String {
        let (_, name, version) = self.parts();
        format!("{}_{version}", name.replace('-', "_"))
    }
}

text_id!(
    /// An agreement: `AGR-2026-0142`.
    AgreementId,
    |s| {
        let ok = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        if (3..=40).contains(&s.len()) && s.starts_with(|c: char| c.is_ascii_uppercase()) && s.chars().all(ok) {
            Ok(())
        } else {
            Err(err("agreement", s, "must be 3 to 40 of A-Z, 0-9 and -, beginning with a letter"))
        }
    }
);

text_id!(
    /// A writer of operations, one signed sequence: `police/executor`.
    WriterId,
    |s| match s.split_once('/') {
        Some((a, n)) if is_slug(a, 32) && is_slug(n, 32) => Ok(()),
        _ => Err(err("writer", s, "must look like agency/name")),
    }
);

impl WriterId {
    /// The agency the writer belongs to.
    pub fn agency(&self) -> AgencyId {
        AgencyId(self.0.split('/').next().unwrap_or_default().to_owned())
    }
}

/// An operation's name everywhere: `op:5821`, its global index in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpRef(pub u64);

impl core::fmt::Display for OpRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "op:{}", self.0)
    }
}

impl core::str::FromStr for OpRef {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let digits = s.strip_prefix("op:").unwrap_or(s);
        digits.parse().map(Self).map_err(|_| err("operation", s, "must look like op:5821"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        let d = DatasetId::new("ds:police/stops@1").unwrap();
        assert_eq!((d.owner().as_str(), d.name(), d.token().as_str()), ("police", "stops", "stops_1"));
        for bad in [
            "ds:police/stops",
            "ds:police/stops@0",
            "ds:police/stops@01",
            "ds:Police/stops@1",
            "police/stops@1",
            "ds:p/../x@1",
        ] {
            assert!(DatasetId::new(bad).is_err(), "{bad}");
        }
        assert_eq!("op:58".parse::<OpRef>().unwrap(), OpRef(58));
        assert!("op:x".parse::<OpRef>().is_err());
        assert_eq!(AgencyId::from_org("org:fire-brigade").unwrap().account(), "FIRE_BRIGADE");
        assert!(WriterId::new("police").is_err());
    }
}
