//! A numbered request counts once, however often and however late it is repeated: over a kill of the program, and over a
//! hand-over of its partition to another member.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{LOADLINE, Running, wait_for};
use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Partitions, RawAppend, Topic};
use loadline::model::{Amount, Kind, Message, Sample, SampleBatch, Signal, Timestamp};
use loadline::runtime::clock::{Clock, ManualClock};
use loadline::runtime::runner::Rounds;
use loadline::runtime::worker::{Committed, Worker};
use loadline::stages::aggregate::{Aggregate, Limits};
use loadline::wire::{self, jsonl};

const METRIC: &str = "sold";

/// A request of one sample, as its producer numbers it.
fn post(loadline: &Running, producer: &str, sequence: u64) {
    let line = format!("{{\"target\":\"shop/Deployment/web\",\"metric\":\"{METRIC}\",\"instance\":\"{producer}\",\"kind\":\"Delta\",\"value\":5}}\n");
    let request = ureq::post(format!("{}/api/v1/metrics", loadline.url)).header("content-type", "application/x-ndjson");
    let answer = request.header("Loadline-Producer", producer).header("Loadline-Sequence", sequence.to_string()).send(line).unwrap();
    assert_eq!(answer.status(), 200, "it is acknowledged");
}

/// The sum over all panes of what a producer sent.
fn counted(parts: impl IntoIterator<Item = Signal>, producer: &str) -> Amount {
    let parts = parts.into_iter().filter_map(|signal| if let Signal::Part(part) = signal { Some(part) } else { None });
    let readings = parts.flat_map(|part| part.panes).filter(|pane| pane.metric.as_str() == METRIC).flat_map(|pane| pane.instances);
    readings.filter(|(instance, _)| instance.as_str() == producer).map(|(_, reading)| reading.sum).sum()
}

fn exported(data: &Path) -> Vec<Signal> {
    let exported = Command::new(LOADLINE).args(["export", "--data"]).arg(data).output().unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    String::from_utf8(exported.stdout).unwrap().lines().map(|line| jsonl::line_to_signal(line).unwrap().2).collect()
}

/// A number of `/metrics`.
fn number(loadline: &Running, name: &str) -> Option<u64> {
    let page = ureq::get(format!("{}/metrics", loadline.url)).call().ok()?.body_mut().read_to_string().ok()?;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// One request is in panes when the program is killed, the other one was only just acknowledged. Both are sent again to the next
/// program, since their producers cannot know; each counts once, and the program says that it dropped the repetitions.
#[test]
fn a_request_that_is_repeated_after_a_kill_counts_once() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("policies")).unwrap();
    let data = home.path().join("data");
    let once = Amount::from_units(5);

    let loadline = Running::start(home.path(), &[]);
    post(&loadline, "aggregated", 7);
    wait_for("its pane", || (counted(exported(&data), "aggregated") == once).then_some(()));
    post(&loadline, "acknowledged", 7);
    loadline.kill();

    let loadline = Running::start(home.path(), &[]);
    post(&loadline, "aggregated", 7);
    post(&loadline, "acknowledged", 7);
    wait_for("both repetitions to be dropped", || (number(&loadline, "loadline_aggregate_samples_repeated_total") == Some(2)).then_some(()));
    // What is new counts all the same.
    post(&loadline, "aggregated", 8);
    wait_for("the next request's pane", || (counted(exported(&data), "aggregated") == once + once).then_some(()));
    assert_eq!(counted(exported(&data), "acknowledged"), once);

    // A producer that begins anew at 1 is told of by name.
    post(&loadline, "aggregated", 1);
    wait_for("the alert", || {
        let status = Command::new(LOADLINE).args(["status", "--server", &loadline.url]).output().unwrap();
        String::from_utf8(status.stdout).unwrap().contains("producer \"aggregated\" sent sequence 1 after 8").then_some(())
    });
    assert_eq!(loadline.stop(), 0);
    assert_eq!(counted(exported(&data), "aggregated"), once + once);
}

const PARTITIONS: u32 = 2;

/// Reads and commits until nothing is left, so that what is due is flushed.
fn run(worker: &mut Worker<Aggregate>, clock: &ManualClock) {
    for _ in 0..4 {
        worker.read(clock.now(), 1_000, Duration::ZERO).unwrap();
        while worker.commit(clock.now()).unwrap() != Committed::Nothing {}
    }
}

fn say(log: &MemoryLog, sequence: i64, clock: &ManualClock) {
    let appends = (0..PARTITIONS).map(|partition| {
        let sample = Sample {
            targets: vec![format!("shop/Deployment/web-{partition}").parse().unwrap()],
            metric: METRIC.parse().unwrap(),
            instance: "p".parse().unwrap(),
            time: clock.now(),
            kind: Kind::Delta,
            value: 5.0,
            histogram: None,
        };
        let batch = SampleBatch { producer: Some("p".to_owned()), sequence: Some(sequence), part: 0, samples: vec![sample], unread: 0 };
        RawAppend { topic: Topic::Metrics, partition, key: None, value: wire::encode(&Message::Samples(batch)) }
    });
    log.append(appends.collect()).unwrap();
}

fn signals(log: &MemoryLog) -> Vec<Signal> {
    let records = log.scan(Topic::Signals, 0, 0, 100_000).unwrap();
    let messages = records.into_iter().map(|record| wire::decode(Topic::Signals, &record.value).unwrap());
    messages.filter_map(|message| if let Message::Signal(signal) = message { Some(signal) } else { None }).collect()
}

/// Who takes a partition over knows the producers of who had it, whether that one handed it over in order or died.
#[test]
fn a_partition_is_handed_over_with_the_memory_of_its_producers() {
    for dies in [false, true] {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let log = MemoryLog::new(Partitions::default().with(Topic::Metrics, PARTITIONS), clock.clone());
        let stage = || Aggregate { pane: Duration::from_secs(5), grace: Duration::ZERO, sources: PARTITIONS, limits: Limits::default() };
        let join = |member: &str| Worker::join(stage(), Arc::new(log.clone()), member, Rounds::default()).unwrap();
        let mut first = join("one");
        say(&log, 1, &clock);
        run(&mut first, &clock);
        clock.advance(Duration::from_secs(6));
        run(&mut first, &clock);
        assert_eq!(counted(signals(&log), "p"), Amount::from_units(10), "both partitions have flushed what they read");

        let mut second = join("two");
        let mut members = vec![];
        if dies {
            drop(first);
        } else {
            members.push(&mut first);
        }
        members.push(&mut second);
        let owned = |members: &[&mut Worker<Aggregate>]| members.iter().map(|worker| worker.partitions()).collect::<Vec<_>>();
        let shared = if dies { vec![2] } else { vec![1, 1] };
        for _ in 0..10 {
            members.iter_mut().for_each(|worker| run(worker, &clock));
        }
        assert_eq!(owned(&members), shared, "the second has what it is to have");

        for sequence in [1, 2] {
            say(&log, sequence, &clock);
            clock.advance(Duration::from_secs(6));
            members.iter_mut().for_each(|worker| run(worker, &clock));
            assert_eq!(counted(signals(&log), "p"), Amount::from_units(10 * sequence), "sequence {sequence} counts once in each partition");
        }
        let repeated: i64 = signals(&log).iter().map(|signal| if let Signal::Mark(mark) = signal { mark.repeated } else { 0 }).sum();
        assert_eq!(repeated, 2);
    }
}
