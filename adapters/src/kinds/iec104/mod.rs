//! Points of a substation by IEC 60870-5-104. See the page of the kind.

pub mod apci;
pub mod asdu;
pub mod controlled;
pub mod controlling;
pub mod document;
pub mod frame;
pub mod outstation;
pub mod session;
pub mod source;
pub mod time;
pub mod value;

use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::{Duration, Instant};

use document::{Acknowledge, Iec104Doc};
use session::{News, Session};
use source::Iec104Source;

use crate::contract::{
    AdapterError, Again, Column, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec,
};
use crate::discover::draft;
use crate::document::{Common, DocumentError, FieldKind, Precision};

/// How long a sample waits for a whole interrogation.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kind `iec104`.
pub struct Iec104Kind;

const fn setting(name: &'static str, required: bool, about: &'static str) -> Setting {
    Setting { name, required, about }
}

const SETTINGS: &[Setting] = &[
    setting("connect.url", true, "iec104://HOST:PORT, or iec104s://HOST:PORT for TLS (IEC 62351-3)."),
    setting("connect.ca", false, "Certificates that are trusted, a PEM file; those of the machine when left out."),
    setting("connect.cert", false, "Own certificate, a PEM file."),
    setting("connect.key", false, "Key of the own certificate, a PEM file."),
    setting("stations", true, "Common addresses of the stations whose points are wanted, a list."),
    setting("zone", true, "The zone in which the stations' clocks run, such as UTC or Europe/Berlin."),
    setting("acknowledge", false, "durable, or in-time to keep w and t2; durable when left out."),
    setting("link.k", false, "Most own frames without an acknowledgement; 12 when left out."),
    setting("link.w", false, "Most frames left without an acknowledgement, with in-time; 8 when left out."),
    setting("link.t1", false, "Longest wait for an answer; 15s when left out."),
    setting("link.t2", false, "Longest time without an acknowledgement, with in-time; 10s when left out."),
    setting("link.t3", false, "Silence after which the outstation is tested; 20s when left out."),
    setting("set_clock", false, "true sets the stations' clocks after each connect; false when left out."),
];

impl Kind for Iec104Kind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "iec104",
            title: "points of a substation by IEC 60870-5-104",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = Iec104Doc::parse(text)?;
        doc.check()?;
        Ok(Box::new(Iec104Connector { common: doc.common(), doc }))
    }
}

struct Iec104Connector {
    common: Common,
    doc: Iec104Doc,
}

impl Iec104Connector {
    fn mapping(&self) -> Finding {
        match self.doc.rule(&self.common) {
            Ok(_) => Finding::ok("mapping", format!("{} stations are mapped", self.doc.stations.value.len())),
            Err(e) if self.common.map.is_empty() => {
                Finding::warn("mapping", format!("there is none yet ({e})"), "`concordat adapter discover` drafts one")
            }
            Err(e) => Finding::failed("mapping", &e.into()),
        }
    }

    fn reach(&self, base: &Path, found: &mut Vec<Finding>) -> Result<(), Finding> {
        let line = self.doc.line(base).map_err(|e| Finding::failed("login", &e))?;
        match (line.host.as_str(), line.port).to_socket_addrs() {
            Ok(list) => found.push(Finding::ok("dns", format!("{} has {} addresses", line.host, list.count()))),
            Err(e) => return Err(Finding::fail("dns", format!("{}: {e}", line.host), "correct `connect.url`")),
        }
        line.knock().map_err(|e| Finding::failed(if e.code() == "source.tls" { "tls" } else { "reach" }, &e))?;
        found.push(match line.tls.is_some() {
            true => Finding::ok("tls", "the outstation's certificate is trusted"),
            false => Finding::warn("tls", "the connection is not encrypted", "use iec104s:// outside a closed network"),
        });
        found.push(Finding::ok("reach", "the outstation answers; its stations are asked when the adapter runs"));
        if self.doc.acknowledge == Acknowledge::InTime {
            let next = "leave `acknowledge` out, unless the outstation breaks connections while our broker is away";
            found.push(Finding::warn("rights", "events are acknowledged before they are durable", next));
        }
        Ok(())
    }
}

impl Connector for Iec104Connector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn place(&self) -> String {
        self.doc.address().map(|(host, port, _)| format!("{host}:{port}")).unwrap_or_default()
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = vec![self.mapping()];
        if let Err(last) = self.reach(base, &mut found) {
            found.push(last);
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        // Events are left without an acknowledgement, so that they stay at the outstation.
        let mut line = self.doc.line(base)?;
        line.plan.hold = true;
        let mut session = Session::new(line);
        let (start, mut frames, mut free, mut connection) = (Instant::now(), 0, true, 0);
        while start.elapsed() < PATIENCE && !session.complete() {
            for news in session.receive(64, Duration::from_millis(200))? {
                let (number, asdu) = match news {
                    News::Up { connection: stands } => {
                        connection = stands;
                        continue;
                    }
                    News::Frame { number, asdu, .. } => (number, asdu),
                };
                let Some(asdu) = asdu::Asdu::parse(&asdu) else { continue };
                let state = asdu::cause::comes_again(asdu.head.cause);
                frames += u64::from(state);
                free &= state || asdu.head.kind >= asdu::STARTED;
                if free {
                    session.acknowledge(connection, number + 1);
                }
            }
        }
        if frames == 0 {
            let detail = "no station told its state; check `stations`, and that no events wait there for the adapter";
            return Err(AdapterError::source_failed(ErrorClass::Transient, "source.missing", detail));
        }
        let mut drafts = draft(&self.common, columns(), frames);
        drafts.adapter = drafts.adapter.replace("zone: offset", "zone: offset, precision: ms");
        Ok(drafts)
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        let rule = self.doc.rule(&self.common)?;
        Ok(Box::new(Iec104Source::new(Session::new(self.doc.line(base)?), rule, crate::run_id::run_id())))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        let (rule, place) = (self.doc.rule(&self.common)?, self.place());
        Ok(Box::new(move |origin, raw| rule.again(&place, origin, raw)))
    }
}

/// The columns that most readers of points want.
fn columns() -> Vec<Column> {
    let column = |(name, kind, zone): (&str, FieldKind, Option<&str>)| Column {
        name: name.to_owned(),
        kind,
        nullable: false,
        key: false,
        zone: zone.map(str::to_owned),
        personal: None,
        precision: Precision::Millisecond,
    };
    [
        ("station", FieldKind::Integer, None),
        ("object", FieldKind::Integer, None),
        ("at", FieldKind::Timestamp, Some("offset")),
        ("type", FieldKind::String, None),
        ("cause", FieldKind::String, None),
        ("value", FieldKind::Decimal, None),
        ("quality", FieldKind::String, None),
    ]
    .map(column)
    .into()
}
