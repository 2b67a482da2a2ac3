//! A cluster as one topic sees it: who leads which partition, and what each of them is asked.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::link::{Link, Reach, lost, refusal};
use crate::contract::{AdapterError, ErrorClass};

/// Where a partition begins and where it ends, as a question for offsets.
pub(crate) const OLDEST: i64 = -2;
/// The offset behind the newest message that is read.
pub(crate) const NEWEST: i64 = -1;
/// Only what was committed is read.
const COMMITTED: i8 = 1;
/// Most bytes of one answer, and least and most of one partition in it; one batch always fits.
const ANSWER_BYTES: i32 = 8 * 1024 * 1024;
const PARTITION_BYTES: std::ops::RangeInclusive<i32> = 64 * 1024..=1024 * 1024;

/// What one fetch gave of a partition.
pub(crate) struct Fetched {
    /// Its number.
    pub partition: i32,
    /// Its data, or that the wanted offset is not there.
    pub data: Option<PartitionData>,
}

/// A topic and the servers that keep it.
pub(crate) struct Cluster {
    reach: Reach,
    /// Servers that are asked first, in the order of the document.
    first: Vec<(String, u16)>,
    topic: String,
    servers: BTreeMap<i32, (String, u16)>,
    leaders: BTreeMap<i32, i32>,
    links: BTreeMap<i32, Link>,
    /// What tells this topic from an earlier one of its name; none where servers do not say.
    pub id: Option<String>,
}

impl Cluster {
    /// A cluster that nobody has asked yet.
    pub(crate) fn new(reach: Reach, first: Vec<(String, u16)>, topic: String) -> Self {
        let (servers, leaders, links) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { reach, first, topic, servers, leaders, links, id: None }
    }

    /// The topic's name.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The partitions that are known.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.leaders.keys().copied()
    }

    /// Forgets who leads what, and all connections.
    pub(crate) fn forget(&mut self) {
        self.links.clear();
        self.leaders.clear();
    }

    fn place(&self, partition: i32) -> String {
        format!("topic `{}`, partition {partition}", self.topic)
    }

    /// Asks who leads which partition.
    pub(crate) async fn look(&mut self) -> Result<(), AdapterError> {
        let topic = MetadataRequestTopic::default().with_name(Some(self.name()));
        // A question must not make the topic.
        let question = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = self.anyone(&question).await?;
        let Some(topic) = answer.topics.first() else {
            return Err(lost(&format!("topic `{}`", self.topic), "the server says nothing of it"));
        };
        match ResponseError::try_from_code(topic.error_code) {
            None => {}
            Some(ResponseError::UnknownTopicOrPartition | ResponseError::InvalidTopicException) => {
                let message = format!("topic `{}` is not there; correct `topic`, or have it made", self.topic);
                return Err(AdapterError::source_failed(ErrorClass::Permanent, "source.missing", message));
            }
            Some(code) => return Err(refusal(&format!("topic `{}`", self.topic), code)),
        }
        self.id = (!topic.topic_id.is_nil()).then(|| topic.topic_id.simple().to_string());
        self.servers = answer
            .brokers
            .iter()
            .map(|b| (b.node_id.0, (b.host.to_string(), u16::try_from(b.port).unwrap_or_default())))
            .collect();
        self.leaders = topic.partitions.iter().map(|p| (p.partition_index, p.leader_id.0)).collect();
        Ok(())
    }

    /// Asks whoever answers first.
    async fn anyone(&mut self, question: &MetadataRequest) -> Result<MetadataResponse, AdapterError> {
        const VERSIONS: (i16, i16) = (4, 12);
        while let Some((node, mut link)) = self.links.pop_first() {
            if let Ok(answer) = link.ask(ApiKey::Metadata, VERSIONS, question).await {
                self.links.insert(node, link);
                return Ok(answer);
            }
        }
        let mut failed = None;
        for (host, port) in &self.first {
            let answer = match Link::connect(&self.reach, host, *port).await {
                Ok(mut link) => {
                    let answer = link.ask(ApiKey::Metadata, VERSIONS, question).await;
                    answer.map_err(|e| self.shy(link.name(), e))
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if error.class() == ErrorClass::Transient => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| lost("connect.brokers", "nobody is named")))
    }

    /// A server that wants a login says so by hanging up.
    fn shy(&self, name: &str, error: AdapterError) -> AdapterError {
        match error.class() {
            ErrorClass::Transient if self.reach.login.is_none() => {
                lost(name, "it hangs up at the first question; it may want a login")
            }
            _ => error,
        }
    }

    fn name(&self) -> TopicName {
        TopicName(StrBytes::from_string(self.topic.clone()))
    }

    /// Asks one server, by its number.
    async fn ask<Q, A>(&mut self, node: i32, key: ApiKey, versions: (i16, i16), question: &Q) -> Result<A, AdapterError>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let mut link = match self.links.remove(&node).filter(|link| !link.is_stale()) {
            Some(link) => link,
            None => {
                let Some((host, port)) = self.servers.get(&node) else {
                    return Err(lost(&format!("topic `{}`", self.topic), "a partition has no leader at present"));
                };
                Link::connect(&self.reach, host, *port).await?
            }
        };
        let answer = link.ask(key, versions, question).await?;
        // After an error the connection is dropped: an answer may still be on its way.
        self.links.insert(node, link);
        Ok(answer)
    }

    /// Partitions by the server that leads them, each list in the given order.
    fn by_leader(&self, partitions: impl Iterator<Item = i32>) -> Vec<(i32, Vec<i32>)> {
        let mut groups: Vec<(i32, Vec<i32>)> = Vec::new();
        for partition in partitions {
            let leader = self.leaders.get(&partition).copied().unwrap_or(-1);
            match groups.iter_mut().find(|(node, _)| *node == leader) {
                Some((_, list)) => list.push(partition),
                None => groups.push((leader, vec![partition])),
            }
        }
        groups
    }

    /// The offset of each partition at [`OLDEST`] or [`NEWEST`].
    pub(crate) async fn offsets(&mut self, of: &[i32], at: i64) -> Result<BTreeMap<i32, i64>, AdapterError> {
        let mut found = BTreeMap::new();
        for (node, partitions) in self.by_leader(of.iter().copied()) {
            let wanted = |p: i32| ListOffsetsPartition::default().with_partition_index(p).with_timestamp(at);
            let partitions = partitions.into_iter().map(wanted).collect();
            let topic = ListOffsetsTopic::default().with_name(self.name()).with_partitions(partitions);
            let question = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_isolation_level(COMMITTED)
                .with_topics(vec![topic]);
            let answer: ListOffsetsResponse = self.ask(node, ApiKey::ListOffsets, (1, 6), &question).await?;
            for partition in answer.topics.iter().flat_map(|t| &t.partitions) {
                if let Some(code) = ResponseError::try_from_code(partition.error_code) {
                    return Err(refusal(&self.place(partition.partition_index), code));
                }
                found.insert(partition.partition_index, partition.offset);
            }
        }
        match of.iter().find(|p| !found.contains_key(p)) {
            Some(partition) => Err(lost(&self.place(*partition), "the server says nothing of it")),
            None => Ok(found),
        }
    }

    /// What there is behind these offsets, without waiting for more.
    pub(crate) async fn fetch(&mut self, wanted: &[(i32, i64)]) -> Result<Vec<Fetched>, AdapterError> {
        let share = ANSWER_BYTES / i32::try_from(wanted.len().max(1)).unwrap_or(i32::MAX);
        let share = share.clamp(*PARTITION_BYTES.start(), *PARTITION_BYTES.end());
        let mut fetched = Vec::new();
        for (node, partitions) in self.by_leader(wanted.iter().map(|(p, _)| *p)) {
            let from = |p: &i32| wanted.iter().find(|(partition, _)| partition == p).map_or(0, |(_, offset)| *offset);
            let wanted = |p: i32| {
                let offset = from(&p);
                FetchPartition::default().with_partition(p).with_fetch_offset(offset).with_partition_max_bytes(share)
            };
            let topic = FetchTopic::default()
                .with_topic(self.name())
                .with_partitions(partitions.into_iter().map(wanted).collect());
            let question = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(0)
                .with_min_bytes(0)
                .with_max_bytes(ANSWER_BYTES)
                .with_isolation_level(COMMITTED)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            let answer: FetchResponse = self.ask(node, ApiKey::Fetch, (4, 12), &question).await?;
            if let Some(code) = ResponseError::try_from_code(answer.error_code) {
                return Err(refusal(&format!("topic `{}`", self.topic), code));
            }
            for data in answer.responses.into_iter().flat_map(|t| t.partitions) {
                let partition = data.partition_index;
                match ResponseError::try_from_code(data.error_code) {
                    None => fetched.push(Fetched { partition, data: Some(data) }),
                    Some(ResponseError::OffsetOutOfRange) => fetched.push(Fetched { partition, data: None }),
                    Some(code) => return Err(refusal(&self.place(partition), code)),
                }
            }
        }
        Ok(fetched)
    }
}
