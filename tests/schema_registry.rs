//! Records that are framed by the ids of a schema registry, on a real broker and with a real registry: what a client of others writes with a schema of its own is read by that
//! schema; what the registry does not know is put aside; a registry that is gone stops nothing that is known.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "common/registry.rs"]
mod registry;
#[path = "common/tail.rs"]
mod tail;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{LOADLINE, Running, wait_for};
use kafka::{Broker, broker, free_port};
use loadline::edge::registry::{Registry as Client, RegistryError};
use loadline::log::kafka::{KafkaLog, Options, declaration, topics};
use loadline::log::{Log, Topic};
use loadline::model::{Amount, DeadLetter, Message, Part, PolicyAnnouncement, Signal};
use loadline::runtime::clock::{Clock as _, SystemClock};
use loadline::wire::schemas::RecordType;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use registry::Registry;
use serde_json::{Value, json};
use tail::Tail;

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
print(json.dumps([json.loads(written.schema_str)["name"], sorted(value)]))
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
        topics::apply(&options, false).unwrap();
        let log = Broker::open(&options);
        let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env/python.sh")).arg("install").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let python = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
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
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &self.options.brokers).create().unwrap();
        let name = self.topic(topic);
        let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&name).partition(partition).payload(value);
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        producer.flush(Duration::from_secs(30)).unwrap();
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
    let loadline = installation.runs("aggregate", &url);
    let (mut signals, mut letters) = (Tail::new(&installation.log, Topic::Signals), Tail::new(&installation.log, Topic::DeadLetters));

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
    let trade = json!({ "type": "record", "name": "Trade", "namespace": "com.example", "fields": [{ "name": "price", "type": "double" }] });
    installation.sends(&url, Topic::Metrics, 1, &trade, &json!({ "price": 1.5 }));
    find_letter(&mut letters, "\"com.example.Trade\" is not one of Loadline's messages");

    // Without the registry: what is known goes on, what is not waits, and what comes after it in its partition.
    let known = last_of(&installation, 0);
    registry.end();
    let late = framed(4242, &[1, 2, 3]);
    installation.puts(Topic::Metrics, 0, &late);
    let waits = installation.log.range(Topic::Metrics, 0).unwrap().end - 1;
    installation.puts(Topic::Metrics, 0, format!("{{\"target\":\"{TARGET}\",\"metric\":\"queue_depth\",\"value\":60}}").as_bytes());
    wait_for("it to be said", || loadline.said().iter().any(|line| line.contains("schema 4242: the schema registry at")).then_some(()));
    installation.puts(Topic::Metrics, 1, &with_value(&known, 5.0));
    measures(&mut signals, 5);
    wait_for("the position before what waits", || (installation.log.committed("aggregate", Topic::Metrics, 0).unwrap() == Some(waits)).then_some(()));
    assert!(!signals.seen.iter().any(|message| measured(message, 60)), "it stands behind what waits");
    assert!(letters.seen.iter().all(|message| !matches!(message, Message::DeadLetter(letter) if letter.record == late)), "nothing is put aside by chance");

    // An answer settles it.
    registry.start_again();
    find_letter(&mut letters, "written with the schema 4242 of a registry: ");
    measures(&mut signals, 60);
    assert_eq!(loadline.stop(), 0);
}

/// The last record of a partition.
fn last_of(installation: &Installation, partition: u32) -> Vec<u8> {
    installation.log.scan(Topic::Metrics, partition, 0, 1_000).unwrap().pop().unwrap().value
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
    wait_for("the first snapshot", || (!installation.log.states("admit", 0).unwrap().is_empty()).then_some(()));
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
    let client = Client::new(&url, None).unwrap();
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

    let client = Client::new(&registry.url, None).unwrap();
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
    let client = Client::new(&url, None).unwrap();
    let id = |record: RecordType| client.register(record).unwrap();
    let ids_on = |topic: Topic| {
        let records = (0..2).flat_map(|partition| installation.log.scan(topic, partition, 0, 1_000).unwrap());
        records.map(|record| loadline::wire::registry_id(&record.value)).collect::<std::collections::BTreeSet<_>>()
    };
    let parts_and_marks = [Some(id(RecordType::Part)), Some(id(RecordType::Mark))].into();
    wait_for("a pane and a mark", || (ids_on(Topic::Signals) == parts_and_marks).then_some(()));
    assert_eq!(ids_on(Topic::Metrics), [Some(id(RecordType::SampleBatch))].into());
    for (topic, name, field) in [(Topic::Metrics, "SampleBatch", "samples"), (Topic::Signals, "", "")] {
        let output = Command::new(&installation.python).args(["-c", READS, &installation.options.brokers, &url, &installation.topic(topic)]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (read, fields): (String, Vec<String>) = serde_json::from_slice(&output.stdout).unwrap();
        assert!(read == name || name.is_empty() && ["Part", "Mark"].contains(&read.as_str()), "{read}");
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
    installation.log.scan(Topic::Schemas, 0, 0, 1_000).unwrap().into_iter().map(|record| record.key).collect()
}

fn sample_line(value: i64) -> String {
    format!("{{\"target\":\"{TARGET}\",\"metric\":\"queue_depth\",\"kind\":\"Gauge\",\"value\":{value}}}")
}
