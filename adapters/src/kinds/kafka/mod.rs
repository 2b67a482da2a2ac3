//! Messages of a Kafka topic. See the page of the kind.

mod batch;
mod cluster;
pub mod document;
mod link;
mod rows;
mod scram;
mod source;

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::Path;

use cluster::{Cluster, NEWEST, OLDEST};
use document::{KafkaDoc, LoginMode, TlsMode};
use source::{KafkaSource, Waits};

use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError};
use crate::json_sample::Sample;

/// Messages of a sample, and questions for them at most.
const SAMPLE_MAX: usize = 500;
const SAMPLE_ROUNDS: usize = 16;
/// Partitions whose offsets a checkpoint certainly holds.
const PARTITIONS_SURE: usize = 100;

/// The kind `kafka`.
pub struct KafkaKind;

const fn setting(name: &'static str, required: bool, about: &'static str) -> Setting {
    Setting { name, required, about }
}

const SETTINGS: &[Setting] = &[
    setting("connect.brokers", true, "Some of the cluster's servers, [HOST:PORT]; they name the others."),
    setting("connect.tls", false, "require, or off on a network that is trusted; require when left out."),
    setting("connect.login", false, "scram-sha-512, scram-sha-256 or plain; scram-sha-512 when left out."),
    setting("connect.user", false, "The user."),
    setting("connect.password", false, "The password by reference, env:NAME or file:PATH."),
    setting("connect.ca", false, "Certificates that are trusted, a PEM file; those of the machine when left out."),
    setting("connect.cert", false, "Own certificate, a PEM file."),
    setting("connect.key", false, "Key of the own certificate, a PEM file."),
    setting("topic", true, "The topic."),
    setting("partitions", false, "Only these partitions, by number; all when left out."),
    setting("start", false, "earliest, or latest for what comes from now on; earliest when left out."),
    setting("format", false, "What a value is: json."),
    setting("gone", false, "stop, or skip what was deleted at the server before it was read; stop when left out."),
];

impl Kind for KafkaKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "kafka",
            title: "messages of a Kafka topic",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = KafkaDoc::parse(text)?;
        doc.check()?;
        Ok(Box::new(KafkaConnector { common: doc.common(), doc }))
    }
}

struct KafkaConnector {
    common: Common,
    doc: KafkaDoc,
}

/// Oldest offset and the one behind the newest message, by partition.
type Ranges = BTreeMap<i32, (i64, i64)>;

impl KafkaConnector {
    fn mapping(&self) -> Finding {
        match self.doc.rows(&self.common) {
            Ok(_) => Finding::ok("mapping", "the mapping can be used"),
            Err(e) if self.common.map.is_empty() => Finding::warn(
                "mapping",
                format!("there is none yet ({e})"),
                "`concordat adapter discover` drafts one from messages",
            ),
            Err(e) => Finding::failed("mapping", &e.into()),
        }
    }

    fn names(&self) -> Result<Vec<Finding>, DocumentError> {
        let look = |(host, port): (String, u16)| match (host.as_str(), port).to_socket_addrs() {
            Ok(addresses) => Finding::ok("dns", format!("{host} has {} addresses", addresses.count())),
            Err(e) => Finding::fail("dns", format!("{host}: {e}"), "correct `connect.brokers`"),
        };
        Ok(self.doc.addresses()?.into_iter().map(look).collect())
    }

    /// The partitions that are read and what they keep.
    async fn ranges(&self, cluster: &mut Cluster) -> Result<Ranges, AdapterError> {
        let only = self.doc.partitions.as_ref().map(|list| &list.value);
        let wanted = |p: &i32| only.is_none_or(|only| only.contains(p));
        let all: Vec<i32> = cluster.partitions().filter(wanted).collect();
        let (oldest, newest) = (cluster.offsets(&all, OLDEST).await?, cluster.offsets(&all, NEWEST).await?);
        Ok(oldest.into_iter().map(|(p, from)| (p, (from, newest.get(&p).copied().unwrap_or(from)))).collect())
    }

    /// Looks at the topic; what was found before an error stays.
    async fn look(&self, cluster: &mut Cluster, found: &mut Vec<Finding>) -> Result<(), AdapterError> {
        cluster.look().await?;
        let c = &self.doc.connect;
        found.push(match c.tls {
            TlsMode::Require => Finding::ok("tls", "the servers' certificates are trusted"),
            TlsMode::Off if c.user.is_some() && c.login == LoginMode::Plain => {
                Finding::warn("tls", "the password is sent in the clear", "remove `tls: off`, or use a login by SCRAM")
            }
            TlsMode::Off => Finding::warn("tls", "the connection is not encrypted", "use TLS outside one machine"),
        });
        found.push(Finding::ok("login", "the servers took the connection"));
        let ranges = self.ranges(cluster).await?;
        let topic = cluster.topic().to_owned();
        found.push(Finding::ok("topic", format!("`{topic}` is there, with {} partitions to read", ranges.len())));
        let wanted: Vec<(i32, i64)> = ranges.iter().map(|(p, (oldest, _))| (*p, *oldest)).collect();
        cluster.fetch(&wanted).await?;
        found.push(Finding::ok("rights", format!("`{topic}` can be read")));
        let kept = |(p, (oldest, newest)): (&i32, &(i64, i64))| format!("{p}: {oldest} to {newest}");
        let list: Vec<String> = ranges.iter().map(kept).take(8).collect();
        found.push(Finding::ok("offsets", format!("oldest offset and end of a partition: {}", list.join(", "))));
        if ranges.len() > PARTITIONS_SURE {
            let sentence = format!("the offsets of {} partitions may be too long for a checkpoint", ranges.len());
            found.push(Finding::warn("partitions", sentence, "share them out to several adapters by `partitions`"));
        }
        Ok(())
    }

    async fn sample(&self, cluster: &mut Cluster) -> Result<Sample, AdapterError> {
        cluster.look().await?;
        let mut sample = Sample::default();
        let ranges = self.ranges(cluster).await?;
        let share = (SAMPLE_MAX / ranges.len().max(1)).max(1) as i64;
        let newest = |(p, (oldest, end)): (&i32, &(i64, i64))| (*p, end.saturating_sub(share).max(*oldest));
        let mut at: BTreeMap<i32, i64> = ranges.iter().map(newest).collect();
        for _ in 0..SAMPLE_ROUNDS {
            at.retain(|p, offset| ranges.get(p).is_some_and(|(_, end)| *offset < *end));
            if at.is_empty() || sample.count() >= SAMPLE_MAX as u64 {
                break;
            }
            let wanted: Vec<(i32, i64)> = at.iter().map(|(p, offset)| (*p, *offset)).collect();
            for fetched in cluster.fetch(&wanted).await? {
                let offset = at.get(&fetched.partition).copied().unwrap_or_default();
                let records = fetched.data.and_then(|d| d.records).unwrap_or_default();
                // What cannot be unpacked is told when the adapter runs.
                let Ok(found) = batch::stretch(records, offset, &[]) else {
                    at.remove(&fetched.partition);
                    continue;
                };
                for message in &found.messages {
                    let key = message.key.as_ref().and_then(|k| std::str::from_utf8(k).ok());
                    let words: Vec<_> = key.map(|k| ("$key".to_owned(), k.to_owned())).into_iter().collect();
                    sample.see(message.value.as_deref().unwrap_or_default(), &words);
                }
                at.insert(fetched.partition, found.next);
            }
        }
        Ok(sample)
    }
}

impl Connector for KafkaConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn place(&self) -> String {
        let brokers: Vec<&str> = self.doc.connect.brokers.iter().map(|b| b.value.as_str()).collect();
        format!("{}, topic {}", brokers.join(" "), self.doc.topic.value)
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = vec![self.mapping()];
        match self.names() {
            Ok(names) => found.extend(names),
            Err(e) => found.push(Finding::failed("dns", &e.into())),
        }
        let nobody = !found.iter().any(|f| f.name == "dns" && f.level == crate::contract::Level::Ok);
        if nobody {
            return found;
        }
        let opened = self.doc.cluster(base).and_then(|cluster| Ok((cluster, Waits::new()?)));
        let looked = opened.and_then(|(mut cluster, waits)| waits.on(self.look(&mut cluster, &mut found)));
        if let Err(e) = looked {
            let name = match e.code() {
                "source.tls" => "tls",
                "source.login" | "source.secret" => "login",
                "source.rights" => "rights",
                "source.missing" => "topic",
                _ => "reach",
            };
            found.push(Finding::failed(name, &e));
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let (mut cluster, waits) = (self.doc.cluster(base)?, Waits::new()?);
        let sample = waits.on(self.sample(&mut cluster))?;
        if sample.count() == 0 {
            let detail = format!("topic `{}` has no message with JSON; try again when some came", cluster.topic());
            return Err(AdapterError::source_failed(ErrorClass::Transient, "source.missing", detail));
        }
        Ok(sample.draft(&self.common))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        let rows = self.doc.rows(&self.common)?;
        Ok(Box::new(KafkaSource::new(&self.doc, self.doc.cluster(base)?, rows)?))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        let rows = self.doc.rows(&self.common)?;
        Ok(Box::new(move |origin, raw| rows.again(origin, raw)))
    }
}
