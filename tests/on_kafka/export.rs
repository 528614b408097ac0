//! `loadline export` and `replay --policy` read signals straight from a cluster.

use std::process::Command;
use std::time::Duration;

use crate::common::LOADLINE;
use crate::kafka::{Broker, answered, broker, brought, makes};
use loadline::log::kafka::{KafkaLog, Options};
use loadline::log::{Batch, Log, Membership, Partitions, Polled, RawAppend, Topic};
use loadline::model::{Message, Order, PolicyAnnouncement, Signal, Tick};
use loadline::wire::{self, jsonl};

/// Topics with two partitions of signals.
fn installation() -> (Options, KafkaLog) {
    let options = Options { partitions: Some(Partitions::default().with(Topic::Signals, 2)), ..broker().options(&Broker::prefix()) };
    makes(&options);
    let log = Broker::open(&options);
    (options, log)
}

fn append(partition: u32, value: Vec<u8>) -> RawAppend {
    RawAppend { topic: Topic::Signals, partition, key: None, value }
}

fn signal(partition: u32, signal: Signal) -> RawAppend {
    append(partition, wire::encode(&Message::Signal(signal)))
}

fn announced(target: &str) -> Signal {
    let order = Order { source: "file:a.yaml".to_owned(), generation: 1 };
    Signal::Policy(PolicyAnnouncement { target: target.parse().unwrap(), spec: None, order })
}

/// What a command prints, and says beside it.
fn said(arguments: &[&str], options: &Options) -> (Option<i32>, String, String) {
    let reach = ["--brokers", &options.brokers, "--prefix", &options.prefix, "--wait", "5s"];
    let output = Command::new(LOADLINE).args(arguments).args(reach).env_remove("LOADLINE_CONFIG").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn exported(options: &Options) -> (String, String) {
    let (code, lines, notes) = said(&["export"], options);
    assert_eq!(code, Some(0), "{notes}");
    (lines, notes)
}

/// The lines of all signals that readers of the log see.
fn lines(log: &KafkaLog) -> String {
    let mut lines = String::new();
    for partition in 0..2 {
        for record in answered(|| log.scan(Topic::Signals, partition, 0, 1000)) {
            if let Ok(Message::Signal(signal)) = wire::decode(Topic::Signals, &record.value) {
                lines += &jsonl::signal_to_line(record.at, partition, &signal);
                lines.push('\n');
            }
        }
    }
    lines
}

#[test]
fn what_is_committed_is_exported_partition_by_partition_and_nothing_else() {
    let (options, log) = installation();
    log.append(vec![signal(1, Signal::Tick(Tick {})), signal(0, announced("prod/Deployment/a")), signal(0, announced("prod/Deployment/b"))]).unwrap();
    // A transaction, whose marker takes an offset.
    let mut session = log.join(Membership { group: "aggregate", member: "a".to_owned(), topic: Topic::Metrics }).unwrap();
    while !brought(session.poll(1, Duration::from_secs(1))).iter().any(|polled| matches!(polled, Polled::Assigned { .. })) {}
    session.commit(&Batch { appends: vec![signal(0, Signal::Tick(Tick {})), signal(1, announced("prod/Deployment/c"))], ..Batch::default() }).unwrap();
    broker().settle(&options.prefix);
    log.append(vec![signal(0, announced("prod/Deployment/d")), append(0, b"nobody can read it".to_vec())]).unwrap();
    let all = lines(&log);
    let (printed, notes) = exported(&options);
    assert_eq!(printed, all);
    assert_eq!(printed.lines().count(), 6, "{printed}");
    assert!(printed.lines().next().unwrap().contains("prod/Deployment/a"), "partition 0 comes first: {printed}");
    assert_eq!(notes.lines().count(), 1, "empty offsets are no loss, and the record that nobody can read is told: {notes}");
    assert!(notes.starts_with("loadline: record 5 of partition 0 is left out: "), "{notes}");
    let (_, of_a, _) = said(&["export", "--target", "prod/Deployment/a"], &options);
    let of_a: Vec<&str> = of_a.lines().collect();
    assert_eq!(of_a, all.lines().filter(|line| line.contains("/a\"") || line.contains("\"tick\"")).collect::<Vec<_>>());
    // What nobody has committed is not there, and neither is what stands behind it.
    let open = broker().leaves_open(&format!("{}another", options.prefix), &format!("{}signals", options.prefix), "never");
    log.append(vec![signal(0, Signal::Tick(Tick {}))]).unwrap();
    assert_eq!(exported(&options).0, all);
    drop(open);
}

#[test]
fn what_retention_removed_is_told() {
    let (options, log) = installation();
    log.append(["a", "b", "c"].map(|name| signal(0, announced(&format!("prod/Deployment/{name}")))).into()).unwrap();
    let topic = format!("{}signals", options.prefix);
    broker().delete_records(&topic, 0, 2);
    let (printed, notes) = exported(&options);
    assert_eq!(printed, lines(&log));
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(notes.starts_with("loadline: signals 0..2 of partition 0 are left out: retention has removed them; they go on at "), "{notes}");
    broker().delete_records(&topic, 0, 3);
    let told = "loadline: signals 0..3 of partition 0 are left out: retention has removed them, and none came later\n";
    assert_eq!(exported(&options), (String::new(), told.to_owned()));
}

#[test]
fn a_topic_or_a_cluster_that_is_not_there_is_named() {
    let nothing = broker().options("nobody-made-it.");
    let (code, _, words) = said(&["export"], &nothing);
    assert_eq!(code, Some(2), "{words}");
    let expected = format!("there is no topic nobody-made-it.signals at {}: say with --prefix", nothing.brokers);
    assert!(words.contains(&expected), "{words}");
    let (code, _, words) = said(&["export"], &Options { brokers: "127.0.0.1:1".to_owned(), ..nothing.clone() });
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("no broker answers at 127.0.0.1:1") && !words.contains("tried again"), "{words}");
    let (code, _, words) = said(&["export"], &Options { prefix: "a/b".to_owned(), ..nothing.clone() });
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("--prefix a/b: names of topics are of letters"), "{words}");
    let (code, _, words) = said(&["replay"], &nothing);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("--policy"), "{words}");
    let alone = Command::new(LOADLINE).args(["export", "--prefix", "prod."]).output().unwrap();
    let words = String::from_utf8(alone.stderr).unwrap();
    assert!(alone.status.code() == Some(2) && words.contains("no brokers are named"), "{words}");
}
