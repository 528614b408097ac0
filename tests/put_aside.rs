//! A record that could not be read for want of a schema of a registry stays aside when its stage starts again, whatever the registry knows by then.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::sync::Arc;
use std::time::Duration;

use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Partitions, RawAppend, Topic};
use loadline::model::{ControlEntry, Message, PolicyEntry, PolicyRemoved, RoundEnd, Signal, TargetId, Timestamp};
use loadline::runtime::clock::{Clock, ManualClock};
use loadline::runtime::runner::Rounds;
use loadline::runtime::worker::{Committed, Worker};
use loadline::stages::admit::Admit;
use loadline::wire;
use loadline::wire::schemas::{self, RecordType};

/// An id that no other test of this process uses.
const ID: u32 = 7_001;

fn target() -> TargetId {
    "prod/Deployment/api".parse().unwrap()
}

fn append(log: &MemoryLog, value: Vec<u8>) {
    log.append(vec![RawAppend { topic: Topic::Control, partition: 0, key: None, value }]).unwrap();
}

fn control(log: &MemoryLog, entry: ControlEntry) {
    append(log, wire::encode(&Message::Control(entry)));
}

/// A round of a source with one policy.
fn round(log: &MemoryLog, number: i64) {
    let spec = r#"{"target":{"kind":"Deployment","name":"api"},"replicas":{"min":1,"max":6},"metrics":[{"name":"queue_depth","track":{"perReplica":10}}]}"#;
    let entry = PolicyEntry { source: "deploys".to_owned(), round: number, origin: "a".to_owned(), target: target(), spec: spec.to_owned() };
    control(log, ControlEntry::Policy(entry));
    control(log, ControlEntry::RoundEnd(RoundEnd { source: "deploys".to_owned(), round: number }));
}

/// Reads and commits all that there is.
fn work(worker: &mut Worker<Admit>, clock: &ManualClock) {
    worker.read(clock.now(), 1_000, Duration::ZERO).unwrap();
    while worker.commit(clock.now()).unwrap() != Committed::Nothing {}
}

/// How often a policy was announced, and how often it was taken back.
fn announced(log: &MemoryLog) -> (usize, usize) {
    let records = log.scan(Topic::Signals, 0, 0, 1_000).unwrap();
    let specs = records.iter().filter_map(|record| match wire::decode(Topic::Signals, &record.value).unwrap() {
        Message::Signal(Signal::Policy(announced)) => Some(announced.spec.is_some()),
        _ => None,
    });
    let (set, gone): (Vec<bool>, Vec<bool>) = specs.partition(|is_set| *is_set);
    (set.len(), gone.len())
}

#[test]
fn a_record_that_was_put_aside_stays_aside_over_a_restart_though_its_schema_is_known_by_then() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_764_000_000_000)));
    let log = MemoryLog::new(Partitions::default(), clock.clone());
    // A first snapshot, from which a restart reads again.
    let mut worker = Worker::join(Admit, Arc::new(log.clone()), "one", Rounds::default()).unwrap();
    work(&mut worker, &clock);
    round(&log, 1);
    let removed = wire::encode(&Message::Control(ControlEntry::Removed(PolicyRemoved { source: "deploys".to_owned(), target: target() })));
    append(&log, [&[0][..], &ID.to_be_bytes(), &removed[10..]].concat());
    work(&mut worker, &clock);
    assert_eq!(announced(&log), (1, 0));
    let letters = log.scan(Topic::DeadLetters, 0, 0, 10).unwrap();
    let Message::DeadLetter(letter) = wire::decode(Topic::DeadLetters, &letters[0].value).unwrap() else { panic!("{letters:?}") };
    assert!(letters.len() == 1 && letter.reason.contains("the schema 7001 of a registry") && letter.offset == 2, "{letter:?}");

    // The registry got it meanwhile. What was announced stands, so what is remembered must be the same.
    schemas::held().unwrap().learn(ID, Ok(RecordType::PolicyRemoved.schema_json())).unwrap();
    drop(worker);
    let mut worker = Worker::join(Admit, Arc::new(log.clone()), "one", Rounds::default()).unwrap();
    work(&mut worker, &clock);
    round(&log, 2);
    work(&mut worker, &clock);
    assert_eq!(announced(&log), (1, 0), "the same policy again is no news");

    // What comes from now on is read.
    append(&log, [&[0][..], &ID.to_be_bytes(), &removed[10..]].concat());
    work(&mut worker, &clock);
    assert_eq!(announced(&log), (1, 1));
}
