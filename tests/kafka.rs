//! The log on a real broker, beyond what every log promises (`log_contract`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use loadline::log::kafka::{KafkaLog, Options, topics};
use loadline::log::{Log, LogError, Membership, Partitions, Polled, RawAppend, Topic};
use loadline::runtime::clock::Stopwatch;

#[path = "common/kafka.rs"]
mod broker;

use broker::{Broker, broker};

/// Far longer than anything here takes: it only ends a failure.
const DEADLINE: Duration = Duration::from_secs(60);

fn signal(value: &str) -> RawAppend {
    RawAppend { topic: Topic::Signals, partition: 0, key: None, value: value.as_bytes().to_vec() }
}

fn values(log: &KafkaLog) -> Vec<String> {
    log.scan(Topic::Signals, 0, 0, 100).unwrap().into_iter().map(|record| String::from_utf8(record.value).unwrap()).collect()
}

fn refused(options: &Options) -> String {
    let started = Stopwatch::start();
    loop {
        match KafkaLog::open(options.clone()) {
            Err(LogError::Fatal { reason }) => return reason,
            Err(LogError::Retry { .. }) if started.elapsed() < DEADLINE => {}
            other => panic!("{:?}", other.err()),
        }
    }
}

/// A writer that died in a transaction hides what comes after it from all readers, until its partition has a new owner: that ends the
/// transaction when it begins, and none of it is ever seen.
#[test]
fn who_takes_over_a_partition_ends_what_its_dead_owner_left_open() {
    let options = broker().options(&Broker::prefix());
    topics::apply(&options, false).unwrap();
    let log = Broker::open(&options);
    let dead = broker().leaves_open(&format!("{}aggregate.0", options.prefix), &format!("{}signals", options.prefix), "never");
    log.append(vec![signal("after")]).unwrap();
    assert_eq!(values(&log), Vec::<String>::new(), "the open transaction hides it");
    let mut session = log.join(Membership { group: "aggregate", member: "a".to_owned(), topic: Topic::Metrics }).unwrap();
    let started = Stopwatch::start();
    while !session.poll(1, Duration::from_secs(1)).unwrap().iter().any(|polled| matches!(polled, Polled::Assigned { partition: 0, .. })) {
        assert!(started.elapsed() < DEADLINE, "it is never assigned");
    }
    broker().settle(&options.prefix);
    assert_eq!(values(&log), ["after"]);
    drop(dead);
}

/// Topics that are missing are named, with what creates them; and so is a state that does not have as many partitions as its input.
#[test]
fn topics_that_are_missing_or_do_not_fit_are_named() {
    let options = broker().options(&Broker::prefix());
    let reason = refused(&options);
    let missing = |name: &str| reason.contains(&format!("{}{name}", options.prefix));
    assert!(missing("signals") && missing("decide-state") && reason.ends_with("`loadline topology apply` creates them"), "{reason}");
    // Somebody created a state by hand.
    broker().create_topic(&format!("{}decide-state", options.prefix), 3, &[]);
    let options = Options { partitions: Some(Partitions::default().with(Topic::Signals, 2)), ..options };
    topics::apply(&options, false).unwrap();
    let (reason, prefix) = (refused(&options), &options.prefix);
    let expected = format!(
        "the topics do not fit, and Loadline does not run on them: {prefix}decide-state: partitions is 3, declared is 2: Partition N holds the state of \
         partition N of signals. {prefix}signals has 2. "
    );
    assert!(reason.starts_with(&expected) && reason.ends_with("`loadline topology check` shows all that differs"), "{reason}");
}

/// What the promises rest on cannot be set; what librdkafka does not know is named.
#[test]
fn settings_that_cannot_be_are_named() {
    let with = |name: &str, value: &str| {
        let mut options = broker().options(&Broker::prefix());
        options.settings.insert(name.to_owned(), value.to_owned());
        refused(&options)
    };
    assert_eq!(
        with("isolation.level", "read_uncommitted"),
        "kafka.settings: isolation.level cannot be chosen: Loadline sets it, as its promises rest on it; remove it"
    );
    let unknown = with("fetch.wait.max", "5");
    assert!(unknown.starts_with("kafka.settings: fetch.wait.max: No such configuration property"), "{unknown}");
}
