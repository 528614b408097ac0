//! Records that are framed by the ids of a schema registry, on a real broker and with a real registry: what a client of others writes with a schema of its own is read by that
//! schema; what the registry does not know is put aside; a registry that is gone stops nothing that is known.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{LOADLINE, PATIENCE, Running, wait_for};
use crate::kafka::{Broker, answered, broker, free_port, installed, makes};
use crate::registry::Registry;
use crate::tail::Tail;
use loadline::edge::registry::{Registry as Client, RegistryError};
use loadline::log::kafka::{KafkaLog, Options, declaration};
use loadline::log::{Log, RawAppend, Topic};
use loadline::model::{Alert, AlertState, Amount, DeadLetter, Message, Part, PolicyAnnouncement, SchemaEntry, Signal};
use loadline::runtime::clock::{Clock as _, SystemClock};
use loadline::wire;
use loadline::wire::schemas::{RecordType, RegistryId};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

const TARGET: &str = "prod/Deployment/api";

/// Confluent's own client: registers a schema under the name of its record, and writes values by it.
const SENDS: &str = r#"
import json, sys
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, url, topic, partition, schema, value = sys.argv[1:]
framed = AvroSerializer(SchemaRegistryClient({"url": url}), schema, conf={"subject.name.strategy": record_subject_name_strategy})
producer = Producer({"bootstrap.servers": brokers, "acks": "all"})
def told(error, record):
    if error:
        raise SystemExit(error)
record = framed(json.loads(value), SerializationContext(topic, MessageField.VALUE))
producer.produce(topic, record, partition=int(partition), on_delivery=told)
producer.flush()
print(int.from_bytes(record[1:5], "big"))
"#;

/// Confluent's own client: reads the first value of a topic by the registry alone; the name of its record and its fields.
const READS: &str = r#"
import json, struct, sys
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, url, topic = sys.argv[1:]
registry = SchemaRegistryClient({"url": url})
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "theirs-" + topic, "auto.offset.reset": "earliest"})
consumer.subscribe([topic])
record = None
while record is None or record.error():
    record = consumer.poll(1)
value = AvroDeserializer(registry)(record.value(), SerializationContext(topic, MessageField.VALUE))
written = registry.get_schema(struct.unpack(">xI", record.value()[:5])[0])
headers = {name: text.decode() for name, text in record.headers() or []}
print(json.dumps([json.loads(written.schema_str)["name"], sorted(value), headers.get("ce_type")]))
consumer.close()
"#;

/// An installation with topics of its own, two partitions of each that has several; and Confluent's client.
struct Installation {
    options: Options,
    log: KafkaLog,
    python: PathBuf,
    home: tempfile::TempDir,
}

impl Installation {
    fn new() -> Installation {
        let partitions = declaration::partitions().unwrap();
        let partitions = Topic::ALL.into_iter().filter(|topic| partitions.of(*topic) > 1).fold(partitions, |p, topic| p.with(topic, 2));
        let options = Options { partitions: Some(partitions), ..broker().options(&Broker::prefix()) };
        makes(&options);
        let log = Broker::open(&options);
        let python = PathBuf::from(installed("python.sh"));
        Installation { options, log, python, home: tempfile::tempdir().unwrap() }
    }

    /// A Loadline of these roles.
    fn runs(&self, roles: &str, registry: &str) -> Running {
        self.runs_with(roles, registry, &[])
    }

    fn runs_with(&self, roles: &str, registry: &str, settings: &[&str]) -> Running {
        Running::spawn(self.command(roles, registry, settings))
    }

    fn command(&self, roles: &str, registry: &str, settings: &[&str]) -> Command {
        let mut command = Command::new(LOADLINE);
        command.current_dir(self.home.path()).args(["run", "--brokers", &self.options.brokers, "--roles", roles, "--listen", "127.0.0.1:0"]);
        command.args(["--pane", "250ms", "--grace", "100ms", "--set", "kafka.partitions=2", "--set", "kafka.replication=1"]).env_remove("LOADLINE_CONFIG");
        command.args(["--set", &format!("kafka.prefix={}", self.options.prefix), "--set", &format!("kafka.registry.url={registry}")]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        command
    }

    fn topic(&self, topic: Topic) -> String {
        format!("{}{topic}", self.options.prefix)
    }

    /// A value by Confluent's own client; the id that it was written with.
    fn sends(&self, registry: &str, topic: Topic, partition: u32, schema: &Value, value: &Value) -> u32 {
        let mut command = Command::new(&self.python);
        command.args(["-c", SENDS, &self.options.brokers, registry, &self.topic(topic), &partition.to_string(), &schema.to_string(), &value.to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// These bytes.
    fn puts(&self, topic: Topic, partition: i32, value: &[u8]) {
        self.puts_with(topic, partition, value, None);
    }

    /// These bytes, with a header.
    fn puts_with(&self, topic: Topic, partition: i32, value: &[u8], header: Option<(&str, &[u8])>) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &self.options.brokers).create().unwrap();
        let name = self.topic(topic);
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&name).partition(partition).payload(value);
        record.headers = header.map(|(key, value)| OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        producer.flush(PATIENCE).unwrap();
    }
}

/// Waits for a pane in which this was measured.
fn measures(signals: &mut Tail, value: i64) {
    signals.find(&format!("a pane of {value}"), |message| measured(message, value).then_some(()));
}

/// Waits for a dead letter with this reason.
fn find_letter(letters: &mut Tail, reason: &str) -> DeadLetter {
    letters.find(reason, |message| if let Message::DeadLetter(letter) = message { letter.reason.contains(reason).then(|| letter.clone()) } else { None })
}

fn measured(message: &Message, value: i64) -> bool {
    let Message::Signal(Signal::Part(Part { target, panes, .. })) = message else { return false };
    target.as_str() == TARGET && panes.iter().flat_map(|pane| pane.instances.values()).any(|reading| reading.max == Amount::from_units(value))
}

fn schema(record: RecordType) -> Value {
    serde_json::from_str(record.schema_json()).unwrap()
}

/// A sample by JSON's keys of Avro.
fn sample(value: i64) -> Value {
    let time = SystemClock.now().as_millis();
    json!({ "targets": [TARGET], "metric": "queue_depth", "time": time, "kind": "Gauge", "value": value })
}

fn batch(value: i64) -> Value {
    json!({ "samples": [sample(value)] })
}

/// A batch of a release with a field that this one does not have.
fn newer() -> Value {
    let mut newer = schema(RecordType::SampleBatch);
    let zone = json!({ "name": "zone", "type": ["null", { "type": "enum", "name": "Zone", "symbols": ["North", "South"] }], "default": null });
    newer["fields"].as_array_mut().unwrap().insert(0, zone);
    newer
}

/// A batch of a release that had no more than what must be said.
fn older() -> Value {
    let field = |name: &str, of: Value| json!({ "name": name, "type": of });
    let kind = json!({ "type": "enum", "name": "Kind", "symbols": ["Gauge", "Counter"] });
    let time = json!({ "type": "long", "logicalType": "timestamp-millis" });
    let fields = [
        field("targets", json!({ "type": "array", "items": "string" })),
        field("metric", json!("string")),
        field("time", time),
        field("kind", kind),
        field("value", json!("double")),
    ];
    let sample = json!({ "type": "record", "name": "Sample", "fields": fields });
    json!({ "type": "record", "name": "SampleBatch", "namespace": "dev.loadline", "fields": [field("samples", json!({ "type": "array", "items": sample }))] })
}

/// A record that is framed by an id.
fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

#[test]
fn samples_are_read_by_the_schema_of_their_id_and_a_registry_that_is_gone_stops_nothing_that_is_known() {
    let installation = Installation::new();
    let mut registry = Registry::start(free_port());
    let url = registry.url.clone();
    let loadline = installation.runs("aggregate,view", &url);
    let (mut signals, mut letters) = (Tail::new(&installation.log, Topic::Signals), Tail::new(&installation.log, Topic::DeadLetters));
    let mut alerts = Tail::new(&installation.log, Topic::Alerts);

    // Each with its writer's schema.
    let first = installation.sends(&url, Topic::Metrics, 0, &older(), &batch(3));
    measures(&mut signals, 3);
    let second = installation.sends(&url, Topic::Metrics, 1, &newer(), &json!({ "zone": "South", "samples": [sample(4)] }));
    measures(&mut signals, 4);
    assert_ne!(first, second);

    // What the registry does not know, and what is none of Loadline's, is put aside as it was.
    let unknown = framed(999, &[1, 2, 3]);
    installation.puts(Topic::Metrics, 1, &unknown);
    let letter = find_letter(&mut letters, &format!("written with the schema 999 of a registry: the registry at {url} does not know it"));
    assert_eq!((letter.topic.as_str(), letter.partition, letter.record), ("metrics", 1, unknown));
    // Nor has it any that no registry counts up to: what only looks like an id holds nothing up.
    installation.puts(Topic::Metrics, 1, &framed(u32::MAX, b"x"));
    find_letter(&mut letters, "written with the schema 4294967295 of a registry");
    let trade = json!({ "type": "record", "name": "Trade", "namespace": "com.example", "fields": [{ "name": "price", "type": "double" }] });
    installation.sends(&url, Topic::Metrics, 1, &trade, &json!({ "price": 1.5 }));
    find_letter(&mut letters, "\"com.example.Trade\" is not one of Loadline's messages");

    // Without the registry: what is known goes on, what is not waits, and what comes after it in its partition.
    let known = last_of(&installation, 0);
    registry.end();
    let late = framed(4242, &[1, 2, 3]);
    installation.puts(Topic::Metrics, 0, &late);
    let waits = answered(|| installation.log.range(Topic::Metrics, 0)).end - 1;
    installation.puts(Topic::Metrics, 0, format!("{{\"target\":\"{TARGET}\",\"metric\":\"queue_depth\",\"value\":60}}").as_bytes());
    wait_for("it to be said", || loadline.said().iter().any(|line| line.contains("schema 4242: the schema registry at")).then_some(()));
    installation.puts(Topic::Metrics, 1, &with_value(&known, 5.0));
    measures(&mut signals, 5);
    wait_for("the position before what waits", || (answered(|| installation.log.committed("aggregate", Topic::Metrics, 0)) == Some(waits)).then_some(()));
    assert!(!signals.seen.iter().any(|message| measured(message, 60)), "it stands behind what waits");
    assert!(letters.seen.iter().all(|message| !matches!(message, Message::DeadLetter(letter) if letter.record == late)), "nothing is put aside by chance");
    let message = held(&mut alerts, AlertState::Firing);
    assert!(
        message.starts_with("aggregate reads no more of metrics/0 since ") && message.contains(", for want of the schema 4242 of a registry: "),
        "{message}"
    );
    assert!(message.contains(&url) && message.contains("see that the registry runs, can be reached"), "{message}");
    let metric = |loadline: &Running| {
        let mut answer = ureq::get(format!("{}/metrics", loadline.url)).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        text.lines().filter(|line| line.starts_with("loadline_partition_held_seconds{")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let labels = "{stage=\"aggregate\",topic=\"metrics\",partition=\"0\",lacks=\"the schema 4242 of a registry\"}";
    assert!(matches!(&metric(&loadline)[..], [held] if held.contains(labels)), "{:?}", metric(&loadline));
    let shown = Command::new(LOADLINE).args(["status", "--server", &loadline.url]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("aggregate reads no more of metrics/0"));
    // It waits as any other record does, and hides nothing of the other partitions.
    let counts = |lag: &Value| (lag["stage"] == "aggregate").then(|| (lag["partition"].as_u64().unwrap(), lag["records"].as_u64().unwrap() > 0));
    wait_for("what waits to be counted", || {
        let lag = loadline.all_status()?["lag"].as_array()?.iter().filter_map(counts).collect::<Vec<_>>();
        (lag.len() > 1 && lag.contains(&(0, true)) && lag.contains(&(1, false))).then_some(())
    });
    // Who takes it over knows that it was told.
    loadline.kill();
    let loadline = installation.runs("aggregate,view", &url);
    wait_for("it to be held", || (!metric(&loadline).is_empty()).then_some(()));

    // An answer settles it.
    registry.start_again();
    find_letter(&mut letters, "written with the schema 4242 of a registry: ");
    measures(&mut signals, 60);
    assert!(held(&mut alerts, AlertState::Resolved).starts_with("aggregate reads metrics/0 again: it waits no more for the schema 4242"));
    assert_eq!(alerts.seen.iter().filter(|message| is_held(message)).count(), 2, "{:?}", alerts.seen);
    assert!(metric(&loadline).is_empty());
    assert_eq!(loadline.stop(), 0);
}

fn is_held(message: &Message) -> bool {
    matches!(message, Message::Alert(alert) if alert.name == "PartitionHeld")
}

/// Waits for what is told of a partition that waits, and that it names it.
fn held(alerts: &mut Tail, wanted: AlertState) -> String {
    alerts.find("it to be told", |message| match message {
        Message::Alert(Alert { subject, state, message: said, .. }) if is_held(message) && *state == wanted => {
            assert_eq!(subject, "metrics/0");
            Some(said.clone())
        }
        _ => None,
    })
}

/// What a newer Loadline writes by an id is read by what it said of it on the topic `schemas`, also where the registry is away.
#[test]
fn an_id_that_a_newer_release_said_in_the_installation_needs_no_registry() {
    let installation = Installation::new();
    let mut registry = Registry::start(free_port());
    let url = registry.url.clone();
    let loadline = installation.runs("aggregate", &url);
    let mut signals = Tail::new(&installation.log, Topic::Signals);
    installation.sends(&url, Topic::Metrics, 0, &newer(), &json!({ "zone": "South", "samples": [sample(3)] }));
    measures(&mut signals, 3);
    registry.end();
    // Written by an id that the registry never had.
    let framed = [&[0][..], &4711_u32.to_be_bytes(), &last_of(&installation, 0)[5..]].concat();
    let entry = SchemaEntry { release: "99.0.0".to_owned(), schema: newer().to_string(), id: Some(4711) };
    let value = wire::encode(&Message::Schema(entry));
    installation.log.append(vec![RawAppend { topic: Topic::Schemas, partition: 0, key: Some("0".repeat(16)), value }]).unwrap();
    installation.puts(Topic::Metrics, 1, &framed);
    signals.find("what a newer one wrote", |message| matches!(message, Message::Signal(Signal::Part(Part { source: 1, .. }))).then_some(()));
    assert!(loadline.said().iter().all(|line| !line.contains("schema-registry-unreachable") && !line.contains("schema 4711")), "{:?}", loadline.said());
    assert_eq!(loadline.stop(), 0);
}

/// What is framed by a GUID in a header, as Confluent's serializers of version 8 do, is put aside with the reason where the registry knows no GUIDs; what is JSON is read all the same.
#[test]
fn a_guid_in_a_header_that_the_registry_cannot_be_asked_by_is_a_dead_letter_that_says_so() {
    const GUID: &str = "89791762-2336-4186-9674-299b90a802e2";
    let installation = Installation::new();
    let registry = Registry::start(free_port());
    let loadline = installation.runs("aggregate", &registry.url);
    let (mut signals, mut letters) = (Tail::new(&installation.log, Topic::Signals), Tail::new(&installation.log, Topic::DeadLetters));
    let written = "import sys; from confluent_kafka.schema_registry.common.serde import SchemaId; sys.stdout.buffer.write(SchemaId('AVRO', 1, sys.argv[1]).guid_to_bytes())";
    let output = Command::new(&installation.python).args(["-c", written, GUID]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let header = Some(("__value_schema_id", output.stdout.as_slice()));
    installation.puts_with(Topic::Metrics, 0, &[2, 0, 0], header);
    let letter =
        find_letter(&mut letters, &format!("written with the schema {GUID} of a registry: the registry at {} cannot be asked by a GUID", registry.url));
    assert_eq!(letter.record, [&output.stdout[..], &[2, 0, 0]].concat());
    installation.puts_with(Topic::Metrics, 0, sample_line(7).as_bytes(), header);
    measures(&mut signals, 7);
    assert_eq!(loadline.stop(), 0);
}

/// A server that speaks TLS before one that does not: a request a connection.
fn speaks_tls(upstream: String, keys: &Path) -> u16 {
    let identity = native_tls::Identity::from_pkcs12(&std::fs::read(keys).unwrap(), "loadline").unwrap();
    let acceptor = native_tls::TlsAcceptor::new(identity).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // One that does not trust it hangs up.
            let Ok(mut client) = acceptor.accept(client.unwrap()) else { continue };
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            let head = loop {
                if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                let read = client.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            };
            let text = String::from_utf8(request[..head].to_vec()).unwrap();
            let length = text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
            while request.len() < head + length {
                let read = client.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            let mut server = TcpStream::connect(&upstream).unwrap();
            let (first, rest) = text.split_once("\r\n").unwrap();
            write!(server, "{first}\r\nConnection: close\r\n{rest}").unwrap();
            server.write_all(&request[head..]).unwrap();
            let mut answer = Vec::new();
            server.read_to_end(&mut answer).unwrap();
            client.write_all(&answer).unwrap();
            client.shutdown().unwrap();
        }
    });
    port
}

/// A registry over TLS is asked where its certificate is signed by an authority that is named, and bears the name that it is reached by.
#[test]
fn a_registry_over_tls_is_asked_where_its_certificate_is_of_a_named_authority() {
    let installation = Installation::new();
    let registry = Registry::start(free_port());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("registry-tls-{}", std::process::id()));
    let [keys, authority] = Broker::certificate(&folder);
    let upstream = registry.url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let port = speaks_tls(upstream, &keys);
    let [url, by_name] = ["127.0.0.1", "localhost"].map(|host| format!("https://{host}:{port}/apis/ccompat/v7"));
    let authority = authority.to_str().unwrap();
    let registers = |url: &str, ca: &[&str]| {
        let output = Command::new(LOADLINE).args(["topology", "schemas", "--registry", url]).args(ca).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    for (url, ca) in [(&url, &[][..]), (&by_name, &["--ca", authority])] {
        let (code, said) = registers(url, ca);
        assert!(
            code == Some(2) && said.contains(&format!("the schema registry at {url} cannot be asked: ")) && said.contains("certificate"),
            "{code:?}: {said}"
        );
    }
    let (code, said) = registers(&url, &["--ca", authority]);
    assert!(code == Some(0) && said.contains("dev.loadline.SampleBatch"), "{code:?}: {said}");
    let missing = registers(&url, &["--ca", "/nowhere/ca.pem"]);
    assert!(missing.0 == Some(2) && missing.1.contains("the authorities of the schema registry, /nowhere/ca.pem: "), "{missing:?}");

    let loadline = installation.runs_with("aggregate", &url, &[&format!("kafka.registry.ca={authority}")]);
    installation.sends(&registry.url, Topic::Metrics, 0, &newer(), &json!({ "zone": "North", "samples": [sample(3)] }));
    measures(&mut Tail::new(&installation.log, Topic::Signals), 3);
    assert_eq!(loadline.stop(), 0);
}

/// The last record of a partition.
fn last_of(installation: &Installation, partition: u32) -> Vec<u8> {
    answered(|| installation.log.scan(Topic::Metrics, partition, 0, 1_000)).pop().unwrap().value
}

/// A record of one sample of [`older`], with another value: its last 8 bytes but for the end of the array.
fn with_value(known: &[u8], value: f64) -> Vec<u8> {
    let (rest, end) = known.split_at(known.len() - 9);
    [rest, &value.to_le_bytes(), &end[8..]].concat()
}

#[test]
fn a_policy_by_an_id_is_announced_and_a_registry_that_lost_it_is_told_and_waited_for() {
    let installation = Installation::new();
    let mut registry = Registry::start(free_port());
    let url = registry.url.clone();
    let loadline = installation.runs("admit", &url);
    let (mut signals, mut letters) = (Tail::new(&installation.log, Topic::Signals), Tail::new(&installation.log, Topic::DeadLetters));
    // A restart reads from its first snapshot on.
    wait_for("the first snapshot", || (!answered(|| installation.log.states("admit", 0)).is_empty()).then_some(()));
    let spec = json!({ "target": { "kind": "Deployment", "name": "api" }, "replicas": { "min": 1, "max": 6 },
        "metrics": [{ "name": "queue_depth", "track": { "perReplica": 10 } }] });
    let entry = json!({ "source": "deploys", "round": 1, "origin": "a", "target": TARGET, "spec": spec.to_string() });
    installation.sends(&url, Topic::Control, 0, &schema(RecordType::PolicyEntry), &entry);
    installation.sends(&url, Topic::Control, 0, &schema(RecordType::RoundEnd), &json!({ "source": "deploys", "round": 1 }));
    signals.find("the policy", |message| match message {
        Message::Signal(Signal::Policy(PolicyAnnouncement { target, spec: Some(_), .. })) => (target.as_str() == TARGET).then_some(()),
        _ => None,
    });
    installation.puts(Topic::Control, 0, &framed(77, &[0]));
    assert_eq!(find_letter(&mut letters, "written with the schema 77 of a registry").topic, "control");

    // A restart reads it again. It does not go on without what it had read.
    loadline.kill();
    registry.end();
    registry.start_again();
    let restarted = installation.runs("admit", &url);
    wait_for("it to be said", || {
        restarted.said().iter().any(|line| line.contains("control 0 of partition 0 was read by the schema 1 of a registry before")).then_some(())
    });
    // In the order of before they have the ids of before.
    let client = Client::new(&url, None, None).unwrap();
    assert_eq!([RecordType::PolicyEntry, RecordType::RoundEnd].map(|record| client.register(record).unwrap()), [1, 2]);
    let again = json!({ "source": "deploys", "round": 2, "origin": "b", "target": "prod/Deployment/web", "spec": spec.to_string().replace("api", "web") });
    installation.sends(&url, Topic::Control, 0, &schema(RecordType::PolicyEntry), &again);
    installation.sends(&url, Topic::Control, 0, &schema(RecordType::RoundEnd), &json!({ "source": "deploys", "round": 2 }));
    signals.find("the other policy", |message| match message {
        Message::Signal(Signal::Policy(PolicyAnnouncement { target, spec: Some(_), .. })) => (target.as_str() == "prod/Deployment/web").then_some(()),
        _ => None,
    });
    assert_eq!(restarted.stop(), 0);
}

/// What `make test` holds the schemas against: they register under the names of their records, and a change that could not read what was written is refused.
#[test]
fn every_schema_registers_under_its_name_and_what_is_not_backward_compatible_is_refused() {
    let registry = Registry::start(free_port());
    let registers = || {
        let output = Command::new(LOADLINE).args(["topology", "schemas", "--output", "json", "--registry", &registry.url]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, ids, said) = registers();
    assert_eq!(code, Some(0), "{said}");
    let ids: Vec<Value> = serde_json::from_str(&ids).unwrap();
    let subjects: Vec<String> = ids.iter().map(|id| id["subject"].as_str().unwrap().to_owned()).collect();
    assert_eq!(subjects, RecordType::ALL.iter().map(|record| record.full_name()).collect::<Vec<_>>());
    assert_eq!(serde_json::from_str::<Vec<Value>>(&registers().1).unwrap(), ids, "a second time they have the same ids");

    let client = Client::new(&registry.url, None, None).unwrap();
    let subject = RecordType::SampleBatch.full_name();
    client.register_as(&subject, &newer().to_string()).unwrap();
    let mut breaking = schema(RecordType::SampleBatch);
    breaking["fields"].as_array_mut().unwrap().push(json!({ "name": "zone2", "type": "string" }));
    let refused = client.register_as(&subject, &breaking.to_string()).unwrap_err();
    let RegistryError::Refused { what, reason, .. } = &refused else { panic!("{refused}") };
    assert!(what.contains(&subject) && reason.contains("zone2") && reason.contains("delete the subject"), "{refused}");

    // A subject that others began without a rule gets one, and a schema of theirs that Loadline's cannot read is told; the others are there all the same.
    let other = Registry::start(free_port());
    let mut theirs = schema(RecordType::Mark);
    theirs["fields"] = json!([{ "name": "source", "type": "string" }]);
    let body = json!({ "schema": theirs.to_string() }).to_string();
    let versions = format!("{}/subjects/{}/versions", other.url, RecordType::Mark.full_name());
    ureq::post(versions).header("content-type", "application/json").send(body).unwrap();
    let output = Command::new(LOADLINE).args(["topology", "schemas", "--registry", &other.url]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("refuses Loadline's schema of dev.loadline.Mark") && said.contains("STRING"), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("dev.loadline.SampleBatch"));
}

/// A process that writes by ids: what it writes is read by whoever has the registry, and by Loadline without it. It starts without its registry too, once its ids are known.
#[test]
fn what_is_written_by_ids_is_read_with_the_registry_and_without_it() {
    let installation = Installation::new();
    let mut registry = Registry::start(free_port());
    let url = registry.url.clone();
    let by_ids = ["kafka.framing=confluent"];
    let loadline = installation.runs_with("ingest,aggregate", &url, &by_ids);
    loadline.post(&format!("{}\n", sample_line(3)));
    let client = Client::new(&url, None, None).unwrap();
    let id = |record: RecordType| client.register(record).unwrap();
    let ids_on = |topic: Topic| {
        let records = (0..2).flat_map(|partition| answered(|| installation.log.scan(topic, partition, 0, 1_000)));
        records.map(|record| loadline::wire::registry_id(&record.value)).collect::<std::collections::BTreeSet<_>>()
    };
    let id = |record: RecordType| RegistryId::Id(id(record));
    let parts_and_marks = [Some(id(RecordType::Part)), Some(id(RecordType::Mark))].into();
    wait_for("a pane and a mark", || (ids_on(Topic::Signals) == parts_and_marks).then_some(()));
    assert_eq!(ids_on(Topic::Metrics), [Some(id(RecordType::SampleBatch))].into());
    // What is for others says around its bytes what it is, by ids as ever.
    std::fs::create_dir(installation.home.path().join("policies")).unwrap();
    std::fs::write(installation.home.path().join("policies/policy.yaml"), crate::common::policy_yaml(6, "")).unwrap();
    let mut announcing = installation.command("policies,admit", &url, &by_ids);
    announcing.args(["--policies", "policies"]);
    let announcing = Running::spawn(announcing);
    wait_for("an announcement", || (ids_on(Topic::Audit) == [Some(id(RecordType::PolicyAnnouncement))].into()).then_some(()));
    assert_eq!(announcing.stop(), 0);
    for (topic, name, field) in [(Topic::Metrics, "SampleBatch", "samples"), (Topic::Signals, "", ""), (Topic::Audit, "PolicyAnnouncement", "target")] {
        let output = Command::new(&installation.python).args(["-c", READS, &installation.options.brokers, &url, &installation.topic(topic)]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (read, fields, event): (String, Vec<String>, Option<String>) = serde_json::from_slice(&output.stdout).unwrap();
        assert!(read == name || name.is_empty() && ["Part", "Mark", "PolicyAnnouncement"].contains(&read.as_str()), "{read}");
        assert_eq!(event, (topic == Topic::Audit).then(|| format!("dev.loadline.{name}")));
        assert!(field.is_empty() || fields.iter().any(|known| known == field), "{fields:?}");
    }

    // Nobody asks the registry for what stands in the installation itself: neither who writes by ids, nor who reads them.
    assert_eq!(loadline.stop(), 0);
    registry.end();
    let again = installation.runs_with("ingest", &url, &by_ids);
    let reader = installation.runs("aggregate", &url);
    again.post(&format!("{}\n", sample_line(4)));
    loadline::runtime::schemas::begin(&installation.log, None).unwrap();
    let mut signals = Tail::new(&installation.log, Topic::Signals);
    measures(&mut signals, 4);
    assert_eq!(reader.stop(), 0);
    assert_eq!(again.stop(), 0);
    // A release whose ids are not known does not write before it has them.
    let other = Installation::new();
    let mut child = other.command("aggregate", &url, &by_ids).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut says = |wanted: &[&str]| lines.find(|line| wanted.iter().all(|part| line.contains(part))).unwrap_or_else(|| panic!("it never said {wanted:?}"));
    says(&["log-unreachable", &url]);
    assert!(written(&other).is_empty(), "nothing is written by ids that are not known");
    registry.start_again();
    says(&["ready: "]);
    assert_eq!(written(&other).len(), RecordType::ALL.len());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The fingerprints of the schemas that stand on the topic.
fn written(installation: &Installation) -> std::collections::BTreeSet<Option<String>> {
    answered(|| installation.log.scan(Topic::Schemas, 0, 0, 1_000)).into_iter().map(|record| record.key).collect()
}

fn sample_line(value: i64) -> String {
    format!("{{\"target\":\"{TARGET}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{value}}}")
}
