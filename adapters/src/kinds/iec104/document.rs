//! The document of an IEC 60870-5-104 source.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::apci::Limits;
use super::controlling::Plan;
use super::session::Line;
use super::source::{Rule, cell_names};
use crate::adapter_document;
use crate::contract::AdapterError;
use crate::dial;
use crate::document::{Common, DocumentError, Period};
use crate::mapping::Mapper;
use crate::strict::nearest;
use crate::tls;

adapter_document! {
    /// An IEC 60870-5-104 source as written.
    pub struct Iec104Doc {
        /// Where the outstation is.
        pub connect: Connect,
        /// Common addresses of the stations whose points are wanted.
        pub stations: Spanned<Vec<u16>>,
        /// The zone in which the stations' clocks run.
        pub zone: Spanned<String>,
        /// When events are acknowledged at the outstation.
        #[serde(default)]
        pub acknowledge: Acknowledge,
        /// Windows and timers.
        #[serde(default)]
        pub link: Timing,
        /// Sets the stations' clocks after each connect.
        #[serde(default)]
        pub set_clock: bool,
    }
}

/// Where the outstation is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// `iec104://host:port` or `iec104s://host:port`; ports 2404 and 19998 when left out.
    pub url: Spanned<String>,
    /// Certificates that are trusted, a PEM file.
    #[serde(default)]
    pub ca: Option<String>,
    /// Own certificate, a PEM file.
    #[serde(default)]
    pub cert: Option<String>,
    /// Key of the own certificate, a PEM file.
    #[serde(default)]
    pub key: Option<String>,
}

/// When events are acknowledged at the outstation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// Once they are durable with us, however long that takes.
    #[default]
    Durable,
    /// After `w` frames or `t2` at the latest, as the standard wants it.
    InTime,
}

/// Windows and timers as written; those of the standard where nothing is said.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Most own frames without an acknowledgement.
    #[serde(default)]
    pub k: Option<u16>,
    /// Most frames of the other side without an acknowledgement.
    #[serde(default)]
    pub w: Option<u16>,
    /// Longest wait for an answer.
    #[serde(default)]
    pub t1: Option<Period>,
    /// Longest time without an acknowledgement.
    #[serde(default)]
    pub t2: Option<Period>,
    /// Silence after which the other side is tested.
    #[serde(default)]
    pub t3: Option<Period>,
}

impl Timing {
    /// The limits; `path` is where they stand in the document.
    pub fn limits(&self, path: &str) -> Result<Limits, DocumentError> {
        let usual = Limits::default();
        let time = |written: Option<Period>, usual| written.map_or(usual, |p| p.0);
        let limits = Limits {
            k: self.k.map_or(usual.k, u64::from),
            w: self.w.map_or(usual.w, u64::from),
            t1: time(self.t1, usual.t1),
            t2: time(self.t2, usual.t2),
            t3: time(self.t3, usual.t3),
        };
        let windows = [limits.k, limits.w].iter().all(|n| (1..=32_767).contains(n));
        let second = Duration::from_secs(1);
        let times = [limits.t1, limits.t2].iter().all(|t| (second..=second * 255).contains(t));
        if !windows || !times || !(second..=second * 172_800).contains(&limits.t3) || limits.t2 >= limits.t1 {
            let detail = "k and w from 1 to 32767, t1 and t2 from 1s to 255s with t2 below t1, t3 from 1s to 48h";
            return Err(DocumentError::rule(path, detail));
        }
        Ok(limits)
    }
}

/// The zone of a name.
pub fn zone(name: &Spanned<String>, path: &str) -> Result<TimeZone, DocumentError> {
    TimeZone::get(&name.value).map_err(|_| {
        DocumentError::at(name, path, format!("`{}` is not an IANA time zone such as Europe/Berlin", name.value))
    })
}

impl Iec104Doc {
    /// Host, port and whether TLS is spoken.
    pub fn address(&self) -> Result<(String, u16, bool), DocumentError> {
        dial::address(&self.connect.url, &dial::Scheme { plain: ("iec104://", 2404), secure: ("iec104s://", 19998) })
    }

    /// The meaning of everything but the mapping.
    pub fn check(&self) -> Result<(), DocumentError> {
        self.address()?;
        self.link.limits("link")?;
        zone(&self.zone, "zone")?;
        let stations = &self.stations.value;
        let mut once = stations.clone();
        once.sort_unstable();
        once.dedup();
        if stations.is_empty() || once.len() != stations.len() || once.iter().any(|s| matches!(s, 0 | 0xffff)) {
            let detail = "name each station once, by its common address from 1 to 65534";
            return Err(DocumentError::at(&self.stations, "stations", detail));
        }
        Ok(())
    }

    /// The mapping of points.
    pub fn rule(&self, common: &Common) -> Result<Rule, DocumentError> {
        let mapper = Mapper::open(common)?;
        for step in mapper.steps() {
            if cell_names().any(|name| name == step.from) {
                continue;
            }
            let hint = match nearest(&step.from, cell_names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", cell_names().collect::<Vec<_>>().join(", ")),
            };
            let detail = format!("a point has no `{}`; {hint}", step.from);
            return Err(DocumentError::rule(format!("map.{}.from", step.target), detail));
        }
        Ok(Rule { mapper, zone: zone(&self.zone, "zone")?, stations: self.stations.value.clone() })
    }

    /// The outstation and what is said to it. Certificates are read here.
    pub fn line(&self, base: &Path) -> Result<Line, AdapterError> {
        let (host, port, secure) = self.address()?;
        let c = &self.connect;
        let files = tls::Files { ca: c.ca.as_deref(), cert: c.cert.as_deref(), key: c.key.as_deref() };
        if !secure && (files.ca.is_some() || files.cert.is_some() || files.key.is_some()) {
            return Err(DocumentError::at(&c.url, "connect.url", "certificates need iec104s://").into());
        }
        let plan = Plan {
            stations: self.stations.value.clone(),
            limits: self.link.limits("link")?,
            hold: self.acknowledge == Acknowledge::Durable,
            clock: if self.set_clock { Some(zone(&self.zone, "zone")?) } else { None },
        };
        Ok(Line { host, port, tls: if secure { Some(tls::client(base, files)?) } else { None }, plan })
    }
}
