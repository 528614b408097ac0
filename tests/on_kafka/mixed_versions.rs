//! Releases that write by different schemas share the work of one installation, in both directions, on a real broker.
//!
//! The earlier release is the program. The later one runs the same stages, writes each message, and each snapshot, with a field more than the program knows, and reads what the program writes by
//! its own schemas.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::{Running, fleet_of_sleepers, wait_for};
use crate::installation::{STAGES, makes_topics, scales_to};
use crate::kafka::{Broker, answered, broker};
use crate::tail::Tail;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use loadline::log::kafka::{KafkaLog, Options, declaration};
use loadline::log::{Batch, Follower, Lacking, Log, LogError, Membership, Moment, Offset, Polled, RawAppend, RawRecord, Session, StatePut, Topic, Waker};
use loadline::model::{Message, SchemaEntry, Timestamp};
use loadline::runtime::clock::SystemClock;
use loadline::runtime::driver::{Stop, drive};
use loadline::stages::Stage;
use loadline::stages::admit::Admit;
use loadline::stages::aggregate::{Aggregate, Limits};
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::decide::Decide;
use loadline::wire;
use loadline::wire::schemas::{RecordType, Schemas};

const PARTITIONS: u32 = 3;

/// How the later release writes: by the fingerprint of the program's schema, its own.
struct Writing {
    own: HashMap<u64, (u64, String)>,
    /// The program's schemas, and those by which the later release reads them.
    read: HashMap<u64, (Schema, Schema)>,
    /// How many records of the program it read so.
    count: AtomicUsize,
}

impl Writing {
    /// Each message has one number more, which comes last. `SchemaEntry` never changes.
    fn later() -> Writing {
        let schemas = Schemas::of_release().unwrap();
        let more = |record: &RecordType| {
            let mut schema: serde_json::Value = serde_json::from_str(record.schema_json()).unwrap();
            let field = serde_json::json!({ "name": "laterThan", "type": "long", "default": 0 });
            schema["fields"].as_array_mut().unwrap().push(field);
            let fingerprint = schemas.register(&schema.to_string()).unwrap();
            (schemas.fingerprint_of(*record), (fingerprint, schema.to_string()))
        };
        let records = || RecordType::ALL.iter().filter(|record| **record != RecordType::SchemaEntry);
        let own: HashMap<u64, (u64, String)> = records().map(more).collect();
        let parsed = |record: &RecordType| {
            let fingerprint = schemas.fingerprint_of(*record);
            let schema = |text: &str| Schema::parse(&plain(&serde_json::from_str(text).unwrap())).unwrap();
            (fingerprint, (schema(record.schema_json()), schema(&own[&fingerprint].1)))
        };
        Writing { read: records().map(parsed).collect(), own, count: AtomicUsize::new(0) }
    }

    /// Reads what the program wrote: what it says, and the default of what it does not know.
    fn reads(&self, polled: &[Polled]) {
        let records = polled.iter().filter_map(|polled| if let Polled::Records { records, .. } = polled { Some(records) } else { None });
        for value in records.flatten().map(|record| record.value.as_slice()).filter(|value| value.starts_with(&[0xc3, 1])) {
            let Some((writer, reader)) = self.read.get(&u64::from_le_bytes(value[2..10].try_into().unwrap())) else { continue };
            let read = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap().read_value(&mut &value[10..]).unwrap();
            let Value::Record(fields) = read else { panic!("{read:?}") };
            assert!(fields.contains(&("laterThan".to_owned(), Value::Long(0))), "{fields:?}");
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What a process says before it writes anything else.
    fn entries(&self) -> Vec<RawAppend> {
        let entry = |(fingerprint, schema): &(u64, String)| {
            let entry = SchemaEntry { release: "later".to_owned(), schema: schema.clone(), id: None };
            RawAppend { topic: Topic::Schemas, partition: 0, key: Some(format!("{fingerprint:016x}")), value: wire::encode(&Message::Schema(entry)) }
        };
        self.own.values().map(entry).collect()
    }

    /// The same records as this release writes them: with another fingerprint, and the number 7 at the end.
    fn of(&self, appends: &[RawAppend]) -> Vec<RawAppend> {
        let written = |append: &RawAppend| {
            let fingerprint = u64::from_le_bytes(append.value[2..10].try_into().unwrap());
            let mut value = append.value.clone();
            if let Some((later, _)) = self.own.get(&fingerprint) {
                value[2..10].copy_from_slice(&later.to_le_bytes());
                value.push(7 << 1);
            }
            RawAppend { value, ..append.clone() }
        };
        appends.iter().map(written).collect()
    }

    fn fingerprints(&self) -> BTreeSet<u64> {
        self.own.values().map(|(fingerprint, _)| *fingerprint).collect()
    }
}

/// A schema without what its types stand for, which changes no byte: apache-avro resolves no decimal of fewer bytes than its precision has room for.
fn plain(schema: &serde_json::Value) -> serde_json::Value {
    match schema {
        serde_json::Value::Object(fields) => fields.iter().filter(|(name, _)| *name != "logicalType").map(|(name, of)| (name.clone(), plain(of))).collect(),
        serde_json::Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// A snapshot as the later release writes it: with a field more.
fn remembers_more(put: &StatePut) -> StatePut {
    let more = put.value.as_deref().map(|bytes| match serde_json::from_slice(bytes) {
        Ok(serde_json::Value::Object(mut fields)) => {
            fields.insert("laterThan".to_owned(), 7.into());
            serde_json::to_vec(&fields).unwrap()
        }
        _ => bytes.to_vec(),
    });
    StatePut { value: more, ..put.clone() }
}

/// The log as the later release writes to it.
struct LaterLog {
    log: KafkaLog,
    writing: Arc<Writing>,
}

struct LaterSession {
    session: Box<dyn Session>,
    writing: Arc<Writing>,
}

impl Log for LaterLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }
    fn join(&self, membership: Membership) -> Result<Box<dyn Session>, LogError> {
        Ok(Box::new(LaterSession { session: self.log.join(membership)?, writing: Arc::clone(&self.writing) }))
    }
    fn follow(&self, topic: Topic, from: &BTreeMap<u32, Offset>) -> Result<Box<dyn Follower>, LogError> {
        self.log.follow(topic, from)
    }
    fn append(&self, appends: Vec<RawAppend>) -> Result<Vec<Offset>, LogError> {
        self.log.append(self.writing.of(&appends))
    }
    fn range(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, LogError> {
        self.log.range(topic, partition)
    }
    fn scan(&self, topic: Topic, partition: u32, from: Offset, max: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.scan(topic, partition, from, max)
    }
    fn is_shared(&self) -> bool {
        self.log.is_shared()
    }
    fn leaves_gaps(&self) -> bool {
        self.log.leaves_gaps()
    }
    fn reached(&self) -> Timestamp {
        self.log.reached()
    }
    fn states(&self, group: &str, partition: u32) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.log.states(group, partition)
    }
    fn committed(&self, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, LogError> {
        self.log.committed(group, topic, partition)
    }
    fn close(&self) {
        self.log.close();
    }
}

impl LaterSession {
    fn later(&self, batch: &Batch) -> Batch {
        let (appends, states) = (self.writing.of(&batch.appends), batch.states.iter().map(remembers_more).collect());
        Batch { appends, states, ..batch.clone() }
    }
}

impl Session for LaterSession {
    fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<Polled>, LogError> {
        let polled = self.session.poll(max, wait)?;
        self.writing.reads(&polled);
        Ok(polled)
    }
    fn read_through(&mut self, now: Moment, due: &dyn Fn(u32) -> bool) -> Result<BTreeMap<u32, Moment>, LogError> {
        self.session.read_through(now, due)
    }
    fn hold_back(&mut self, partition: u32, on: bool) {
        self.session.hold_back(partition, on);
    }
    fn lacking(&self) -> Vec<(u32, Lacking)> {
        self.session.lacking()
    }
    fn commit(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.session.commit(&self.later(batch))
    }
    fn commit_soon(&mut self, batch: &Batch, reads_on: bool) -> Result<(), LogError> {
        self.session.commit_soon(&self.later(batch), reads_on)
    }
    fn waker(&self) -> Waker {
        self.session.waker()
    }
}

/// A process of the later release that does the work of the stages.
struct Later {
    stop: Stop,
    threads: Vec<JoinHandle<Result<(), LogError>>>,
}

impl Later {
    fn start(options: &Options, writing: &Arc<Writing>) -> Later {
        let log = KafkaLog::open(options.clone()).unwrap();
        log.append(writing.entries()).unwrap();
        let log: Arc<dyn Log> = Arc::new(LaterLog { log, writing: Arc::clone(writing) });
        let stop = Stop::new();
        let aggregate = Aggregate { pane: Duration::from_secs(1), grace: Duration::from_millis(500), sources: PARTITIONS, limits: Limits::default() };
        let threads = vec![
            Later::thread(aggregate, &log, &stop),
            Later::thread(Admit, &log, &stop),
            Later::thread(Decide::default(), &log, &stop),
            Later::thread(Arbitrate::default(), &log, &stop),
        ];
        Later { stop, threads }
    }

    fn thread<S: Stage + Send + 'static>(stage: S, log: &Arc<dyn Log>, stop: &Stop) -> JoinHandle<Result<(), LogError>> {
        let (log, stop) = (Arc::clone(log), stop.clone());
        std::thread::spawn(move || drive(stage, log, &SystemClock, "later", &stop))
    }

    fn stop(self) {
        self.stop.ask();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    }
}

/// A process of the program.
fn run(directory: &Path, prefix: &str, roles: &str) -> Running {
    Running::spawn(crate::installation::run(broker(), directory, prefix, roles))
}

/// Who decides on each partition, as the front's status has it.
fn owners(front: &Running) -> Option<Vec<String>> {
    let mut answer = ureq::get(format!("{}/api/v1/status", front.url)).call().ok()?;
    let status: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
    let of_decide = status["lag"].as_array()?.iter().filter(|lag| lag["stage"] == "decide");
    of_decide.map(|lag| lag["owner"]["member"].as_str().map(str::to_owned)).collect()
}

/// Whether one process decides on all partitions.
fn all_are_of(front: &Running, pid: u32) -> Option<()> {
    owners(front)?.iter().all(|owner| owner.contains(&format!("-{pid} at "))).then_some(())
}

/// The fingerprints by which the records of a topic are written.
fn written(log: &KafkaLog, topic: Topic) -> BTreeSet<u64> {
    let records = (0..log.partitions(topic)).flat_map(|partition| answered(|| log.scan(topic, partition, 0, 100_000)));
    records.map(|record| u64::from_le_bytes(record.value[2..10].try_into().unwrap())).collect()
}

#[test]
fn releases_that_write_by_different_schemas_read_each_other() {
    let prefix = Broker::prefix();
    let said = makes_topics(broker(), &prefix, 3, &["--replication", "1"]);
    assert!(said.contains("schemas by which this release writes"), "{said}");
    let (home, _) = fleet_of_sleepers(1, "  behavior: { scaleIn: { stabilization: 0s, cooldown: 0s }, scaleOut: { cooldown: 0s } }\n");
    let data = home.path().join("data");
    let front = run(home.path(), &prefix, "ingest,policies,fleets,view");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("policies")).unwrap();
    let earlier = run(elsewhere.path(), &prefix, STAGES);
    scales_to(&front, &data, 20.0, 2);
    // The later release comes beside the earlier one, which reads what that one writes, and is read by it.
    let writing = Arc::new(Writing::later());
    let declared = declaration::partitions().unwrap();
    let several = Topic::ALL.into_iter().filter(|topic| declared.of(*topic) > 1);
    let partitions = several.fold(declared, |partitions, topic| partitions.with(topic, PARTITIONS));
    let options = Options { partitions: Some(partitions), ..broker().options(&prefix) };
    let later = Later::start(&options, &writing);
    let pids = [earlier.pid(), std::process::id()];
    wait_for("both to have a share", || {
        let owners = owners(&front)?;
        pids.iter().all(|pid| owners.iter().any(|owner| owner.contains(&format!("-{pid} at ")))).then_some(())
    });
    scales_to(&front, &data, 30.0, 3);
    scales_to(&front, &data, 50.0, 5);
    // It goes, and the earlier one takes over all that it wrote; then the other way.
    later.stop();
    wait_for("the earlier one to have all", || all_are_of(&front, pids[0]));
    let log = KafkaLog::open(options.clone()).unwrap();
    // Both had a share of decide.
    let mut states = (0..log.partitions(Decide::INPUT)).flat_map(|partition| answered(|| log.states(Decide::NAME, partition)));
    assert!(states.any(|(_, state)| String::from_utf8_lossy(&state).contains("laterThan")), "it was handed over with more than the earlier one knows");
    scales_to(&front, &data, 20.0, 2);
    let later = Later::start(&options, &writing);
    earlier.kill();
    wait_for("the later one to have all", || all_are_of(&front, pids[1]));
    scales_to(&front, &data, 40.0, 4);
    for topic in [Topic::Signals, Topic::Requests, Topic::Commands, Topic::Audit] {
        let (by, later) = (written(&log, topic), writing.fingerprints());
        assert!(by.intersection(&later).next().is_some() && by.difference(&later).next().is_some(), "{topic} has records of both");
    }
    assert!(writing.count.load(Ordering::SeqCst) > 0, "the later one read what the earlier one wrote");
    let mut letters = Tail::new(&log, Topic::DeadLetters);
    letters.look();
    assert!(letters.seen.is_empty(), "{:?}", letters.seen);
    // What no release of the installation wrote is still put aside, and nothing waits for it.
    let nobodys = [&[0xC3, 0x01][..], &[7; 12]].concat();
    log.append(vec![RawAppend { topic: Topic::Signals, partition: 0, key: None, value: nobodys.clone() }]).unwrap();
    let letter = letters.find("the dead letter", |message| if let Message::DeadLetter(letter) = message { Some(letter.clone()) } else { None });
    assert_eq!(letter.record, nobodys);
    scales_to(&front, &data, 10.0, 1);
    later.stop();
    assert_eq!(front.stop(), 0);
}
