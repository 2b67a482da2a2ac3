//! A server of Apache Kafka of this test run's own, and a client that makes topics and sends to them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use crate::mosquitto::free_port;
use crate::running::skipped;

const DEADLINE: Duration = Duration::from_secs(90);
/// The shell stops the server when this process ends, however that happens: its standard input closes.
const SHELL: &str = r#"
set -u
pid=
stop() { [[ -z $pid ]] || { kill "-$1" "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; pid=; }; }
trap 'stop KILL; rm -rf "$1"' EXIT
java=(java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData -cp "$2/*")
"${java[@]}" kafka.tools.StorageTool format --standalone -t MkU3OEVBNTcwNTJENDM2Qg -c "$1/conf" \
  --add-scram 'SCRAM-SHA-512=[name=grid,password=right]' --add-scram 'SCRAM-SHA-256=[name=grid,password=right]' \
  --add-scram 'SCRAM-SHA-512=[name=other,password=right]' >"$1/log" 2>&1 || exit 1
while read -r word; do
  case $word in
    start) "${java[@]}" kafka.Kafka "$1/conf" >>"$1/log" 2>&1 & pid=$! ;;
    *) stop "$word" ;;
  esac
  echo done
done
"#;

/// A certificate of `localhost` for the server, and one that it does not have; false without openssl.
fn certificates(folder: &Path) -> bool {
    let script = "cd \"$1\" && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem && \
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem && \
        cat key.pem cert.pem >both.pem";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(folder).stderr(Stdio::null()).status();
    made.is_ok_and(|status| status.success())
}

fn conf(folder: &Path, ports: [u16; 3], tls: Option<u16>) -> String {
    let [plain, sasl, controller] = ports;
    let jaas = "org.apache.kafka.common.security";
    let (mut listener, mut advertised, mut keys) = (String::new(), String::new(), String::new());
    if let Some(port) = tls {
        listener = format!(",TLS://127.0.0.1:{port}");
        advertised = format!(",TLS://localhost:{port}");
        keys = format!(
            "listener.name.tls.ssl.keystore.type=PEM\nlistener.name.tls.ssl.keystore.location={}/both.pem\n",
            folder.display()
        );
    }
    keys + &format!(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs={}/data\n\
         listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}{listener}\n\
         advertised.listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}{advertised}\n\
         listener.security.protocol.map=PLAIN:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAIN\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_grid=\"right\";\n\
         listener.name.sasl.scram-sha-256.sasl.jaas.config={jaas}.scram.ScramLoginModule required;\n\
         listener.name.sasl.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS;User:grid\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\nauto.create.topics.enable=true\n\
         log.segment.delete.delay.ms=100\n",
        folder.display()
    )
}

pub struct Kafka {
    shell: Mutex<(Child, BufReader<ChildStdout>)>,
    folder: PathBuf,
    /// In the open, with a login, and by TLS where there are certificates.
    pub port: u16,
    pub sasl: u16,
    pub tls: Option<u16>,
}

/// Where `tests/servers/ensure.sh kafka` puts the jars.
fn jars() -> Result<PathBuf, String> {
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers");
    let pins = std::fs::read_to_string(servers.join("versions.env")).unwrap();
    let version = pins.lines().find_map(|l| l.strip_prefix("KAFKA_VERSION=")).unwrap();
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let jars = base.join(format!("concordat/servers/kafka-{version}"));
    if !Command::new("java").arg("-version").output().is_ok_and(|o| o.status.success()) {
        return Err("java is not installed".to_owned());
    }
    if jars.join(format!("kafka_2.13-{version}.jar")).exists() {
        return Ok(jars);
    }
    Err("the jars of Kafka are not there; run tests/servers/ensure.sh kafka".to_owned())
}

impl Kafka {
    /// A server of a test's own; none where there is no Kafka.
    pub fn start(test: &str) -> Option<Self> {
        let jars = match jars() {
            Ok(jars) => jars,
            Err(why) => {
                skipped(test, &why);
                return None;
            }
        };
        let folder = tempfile::Builder::new().prefix("concordat-kafka-").tempdir().unwrap().keep();
        let ports = [free_port(), free_port(), free_port()];
        let tls = certificates(&folder).then(free_port);
        std::fs::write(folder.join("conf"), conf(&folder, ports, tls)).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", SHELL, "kafka"]).arg(&folder).arg(jars).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let out = BufReader::new(shell.stdout.take().unwrap());
        let server = Self { shell: Mutex::new((shell, out)), folder, port: ports[0], sasl: ports[1], tls };
        server.up();
        Some(server)
    }

    /// One server for all tests that do not stop it.
    pub fn shared(test: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(test)).as_ref()
    }

    /// Its folder, with `cert.pem` and `other.pem`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn say(&self, word: &str) {
        let mut shell = self.shell.lock().unwrap();
        writeln!(shell.0.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut answer = String::new();
        shell.1.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{}", self.log());
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().rev().take(30).collect::<Vec<_>>().join("\n")
    }

    /// Starts it, again on the same ports with what it kept.
    pub fn up(&self) {
        self.say("start");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < DEADLINE, "Kafka does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as a crash would.
    pub fn down(&self) {
        self.say("KILL");
    }

    pub fn peer(&self) -> Peer {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, count: 0 }
    }

    /// A topic with settings such as `("compression.type", "lz4")`, ready to be sent to.
    pub fn topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Peer {
        let mut peer = self.peer();
        let setting = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(settings.iter().map(setting).collect());
        let question = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let start = Instant::now();
        loop {
            let made: CreateTopicsResponse = peer.ask(ApiKey::CreateTopics, 5, &question);
            // 36: it is there. A topic of that name may still be on its way out.
            match made.topics[0].error_code {
                0 => break,
                code => assert!(start.elapsed() < DEADLINE, "error {code}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        peer.wait_for(name, partitions);
        peer
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let mut shell = self.shell.lock().unwrap();
        drop(shell.0.stdin.take());
        let _ = shell.0.wait();
    }
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

fn named(s: &str) -> TopicName {
    TopicName(text(s))
}

/// A client that expects no error.
pub struct Peer {
    stream: TcpStream,
    count: i32,
}

/// Key and value of a message.
pub type Sent<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Who sends within a transaction: the name, the number and the epoch.
type Sender = (TransactionalId, ProducerId, i16);

impl Peer {
    fn ask<Q: Encodable + HeaderVersion, A: Decodable + HeaderVersion>(&mut self, key: ApiKey, v: i16, q: &Q) -> A {
        self.count += 1;
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(v)
            .with_correlation_id(self.count)
            .with_client_id(Some(text("peer")));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, Q::header_version(v)).unwrap();
        q.encode(&mut frame, v).unwrap();
        let length = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).unwrap();
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(head) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, A::header_version(v)).unwrap();
        A::decode(&mut answer, v).unwrap()
    }

    /// Waits until a topic has so many partitions, each with a leader.
    fn wait_for(&mut self, topic: &str, partitions: i32) {
        let start = Instant::now();
        loop {
            let question = MetadataRequestTopic::default().with_name(Some(named(topic)));
            let question = MetadataRequest::default().with_topics(Some(vec![question]));
            let answer: MetadataResponse = self.ask(ApiKey::Metadata, 9, &question);
            let led = answer.topics[0].partitions.iter().filter(|p| p.error_code == 0 && p.leader_id.0 >= 0).count();
            if led as i32 == partitions {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn produce(&mut self, topic: &str, partition: i32, records: &[Record], id: Option<TransactionalId>) {
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, records, &options).unwrap();
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.freeze()));
        let topic = TopicProduceData::default().with_name(named(topic)).with_partition_data(vec![data]);
        let question = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_transactional_id(id)
            .with_topic_data(vec![topic]);
        let start = Instant::now();
        loop {
            let answer: ProduceResponse = self.ask(ApiKey::Produce, 9, &question);
            match answer.responses[0].partition_responses[0].error_code {
                0 => return,
                // No leader yet.
                3 | 5 | 6 => assert!(start.elapsed() < DEADLINE),
                code => panic!("error {code}: {answer:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends messages, key and value, as one batch.
    pub fn send(&mut self, topic: &str, partition: i32, messages: &[Sent<'_>]) {
        let list: Vec<Record> = messages.iter().enumerate().map(|(n, (k, v))| record(n, *k, *v, None)).collect();
        self.produce(topic, partition, &list, None);
    }

    /// Sends values without a key.
    pub fn values(&mut self, topic: &str, partition: i32, values: &[String]) {
        let list: Vec<_> = values.iter().map(|v| (None, Some(v.as_bytes()))).collect();
        self.send(topic, partition, &list);
    }

    /// Sends values in a transaction that is not ended yet.
    pub fn begin(&mut self, name: &str, topic: &str, partition: i32, values: &[String]) -> Sender {
        let id = TransactionalId(text(name));
        let question = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(name)]);
        let start = Instant::now();
        let sender = loop {
            let _: FindCoordinatorResponse = self.ask(ApiKey::FindCoordinator, 4, &question);
            let question = InitProducerIdRequest::default()
                .with_transactional_id(Some(id.clone()))
                .with_transaction_timeout_ms(60_000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let answer: InitProducerIdResponse = self.ask(ApiKey::InitProducerId, 3, &question);
            if answer.error_code == 0 {
                break (id, answer.producer_id, answer.producer_epoch);
            }
            assert!(start.elapsed() < DEADLINE, "{answer:?}");
            std::thread::sleep(Duration::from_millis(50));
        };
        let topics = vec![AddPartitionsToTxnTopic::default().with_name(named(topic)).with_partitions(vec![partition])];
        let question = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(sender.0.clone())
            .with_v3_and_below_producer_id(sender.1)
            .with_v3_and_below_producer_epoch(sender.2)
            .with_v3_and_below_topics(topics);
        let _: AddPartitionsToTxnResponse = self.ask(ApiKey::AddPartitionsToTxn, 3, &question);
        let of = Some((sender.1.0, sender.2));
        let list: Vec<Record> =
            values.iter().enumerate().map(|(n, v)| record(n, None, Some(v.as_bytes()), of)).collect();
        self.produce(topic, partition, &list, Some(sender.0.clone()));
        sender
    }

    /// Ends a transaction.
    pub fn end(&mut self, sender: Sender, committed: bool) {
        let question = EndTxnRequest::default()
            .with_transactional_id(sender.0)
            .with_producer_id(sender.1)
            .with_producer_epoch(sender.2)
            .with_committed(committed);
        let answer: EndTxnResponse = self.ask(ApiKey::EndTxn, 3, &question);
        assert_eq!(answer.error_code, 0);
    }

    /// Deletes what stands before an offset.
    pub fn delete_before(&mut self, topic: &str, partition: i32, offset: i64) {
        let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(named(topic)).with_partitions(vec![partition]);
        let question = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer: DeleteRecordsResponse = self.ask(ApiKey::DeleteRecords, 2, &question);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    }

    pub fn grow(&mut self, topic: &str, count: i32) {
        let wanted = CreatePartitionsTopic::default().with_name(named(topic)).with_count(count).with_assignments(None);
        let question = CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let answer: CreatePartitionsResponse = self.ask(ApiKey::CreatePartitions, 2, &question);
        assert_eq!(answer.results[0].error_code, 0, "{answer:?}");
        self.wait_for(topic, count);
    }

    pub fn drop_topic(&mut self, topic: &str) {
        let question = DeleteTopicsRequest::default().with_topic_names(vec![named(topic)]).with_timeout_ms(10_000);
        let answer: DeleteTopicsResponse = self.ask(ApiKey::DeleteTopics, 5, &question);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }
}

fn record(n: usize, key: Option<&[u8]>, value: Option<&[u8]>, of: Option<(i64, i16)>) -> Record {
    let (producer_id, producer_epoch) = of.unwrap_or((-1, -1));
    Record {
        transactional: of.is_some(),
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch,
        timestamp_type: TimestampType::Creation,
        offset: n as i64,
        sequence: if of.is_some() { n as i32 } else { n as i32 - 1 },
        timestamp: 1_767_225_600_000 + n as i64,
        key: key.map(Bytes::copy_from_slice),
        value: value.map(Bytes::copy_from_slice),
        headers: Default::default(),
    }
}
