//! Three processes on one real broker, with everything that kills and stops them: 8 faults in every `make test`, 100 in `make soak`,
//! `LOADLINE_FAULTS` where it is set, drawn from `LOADLINE_SEED`.
//!
//! Afterwards every sample that was acknowledged is in exactly one pane, the decisions and commands are those of one undisturbed fold, no command
//! took effect twice, and what comes then is decided on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;
#[path = "common/kafka.rs"]
mod kafka;
#[path = "chaos/oracle.rs"]
mod oracle;
#[path = "chaos/processes.rs"]
mod processes;
#[path = "chaos/producers.rs"]
mod producers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::load::target;
use common::random::{Random, rounds, seed};
use common::{instances_of, wait_for};
use kafka::Broker;
use loadline::log::kafka::{KafkaLog, Options, topics};
use loadline::log::{Log, Partitions, Topic};
use loadline::model::{Audit, Message, MetricStatus};
use loadline::runtime::clock::Stopwatch;
use loadline::wire;
use oracle::{Carried, Reading, Standing};
use processes::{Fault, Process, befall, draw};
use producers::{Book, Load};

/// The fleets of each process: one is scaled, the other only advised.
const FLEETS: [&[&str]; 3] = [&["active-1", "advised-1"], &["active-2", "advised-2"], &["active-3", "advised-3"]];

/// Of the producers the last one does not number its requests.
const PRODUCERS: usize = 4;

const PANE: Duration = Duration::from_secs(1);

/// The value of the samples that are sent when the faults are over.
const FRESH: u32 = 7;

#[test]
fn whatever_is_killed_and_stopped_nothing_is_lost_doubled_or_decided_otherwise() {
    let seed = seed();
    let mut random = Random::new(seed);
    let count = std::env::var("LOADLINE_FAULTS").map_or_else(|_| rounds(8, 100), |count| count.parse().expect("LOADLINE_FAULTS is a number"));
    let faults = draw(count, &mut random);
    let mut kinds = BTreeMap::<Fault, usize>::new();
    faults.iter().for_each(|fault| *kinds.entry(*fault).or_default() += 1);
    let befallen = under_load(|broker, processes, wait| {
        let begun = Stopwatch::start();
        for (number, fault) in (1..).zip(&faults) {
            // Mostly while others still take over from the one before; now and then when all is at work again.
            wait(if random.percent(20) { 120 } else { 5 + random.below(30) });
            println!("{number} of {count}, {:.0} s: {fault:?}", begun.elapsed().as_secs_f64());
            processes.iter_mut().for_each(Process::is_there);
            befall(*fault, broker, processes, &mut random, wait);
        }
    });
    println!("seed {seed}: {count} faults {kinds:?}; {befallen}");
}

/// A new release, a process at a time: each ends in order and comes back while the others have its work.
#[test]
fn a_rolling_restart_under_load_changes_no_decision() {
    let befallen = under_load(|_, processes, wait| {
        for number in 0..processes.len() {
            wait(20);
            processes.iter_mut().for_each(Process::is_there);
            processes[number].leaves_and_comes_back();
            wait_for("a process to be ready", || processes[number].is_ready().then_some(()));
        }
    });
    println!("a rolling restart: {befallen}");
}

/// What came of it.
struct Befallen {
    took: Duration,
    /// From the last fault until what is sent then was decided on.
    current: Duration,
    acknowledged: u64,
    /// Requests that were acknowledged, and not at once; and those that never were.
    repeated: u64,
    unknown: u64,
    samples: i64,
    decisions: usize,
    /// Decisions for which a metric that had been measured was Stale.
    blind: usize,
    commands: usize,
    applied: usize,
    changes: i64,
}

impl std::fmt::Display for Befallen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Befallen { took, current, acknowledged, repeated, unknown, samples, decisions, blind, commands, applied, changes } = self;
        write!(
            f,
            "{:.0} s; {acknowledged} requests acknowledged, {repeated} of them not at once, {unknown} never; {samples} samples, {decisions} decisions ({blind} of them blind), \
             {commands} commands, {applied} told as applied, {changes} changes; current {:.1} s after the last fault",
            took.as_secs_f64(),
            current.as_secs_f64()
        )
    }
}

/// Three processes under load, and what befalls them; then all that must hold.
fn under_load(befalls: impl FnOnce(&mut Broker, &mut [Process], &dyn Fn(u64))) -> Befallen {
    // One that was killed is let in again when its session is over: 9 s, where nothing else is said.
    let mut broker = Broker::start(&["broker.session.timeout.ms=4000"], &[]);
    let options = installation(&broker);
    let all: Vec<&str> = FLEETS.into_iter().flatten().copied().collect();
    let mut processes = start(&options, &all);
    let urls: Vec<String> = processes.iter().map(|process| process.url.clone()).collect();
    let load = &Load { targets: &all, urls: &urls, pane: PANE, acknowledged: AtomicU64::new(0), stop: AtomicBool::new(false) };

    let (books, log, took, current) = std::thread::scope(|scope| {
        // Whoever fails ends the producers, too.
        let stopping = Stopping(&load.stop);
        let producers: Vec<_> = (0..PRODUCERS).map(|number| scope.spawn(move || load.produce(number, number + 1 < PRODUCERS))).collect();
        // When all are at work.
        each_is_decided_by(&Broker::open(&options), "stamp", &all);
        let begun = Stopwatch::start();
        let wait = |more: u64| {
            let until = load.acknowledged.load(Ordering::SeqCst) + more;
            wait_for("requests to be acknowledged", || (load.acknowledged.load(Ordering::SeqCst) >= until).then_some(()));
        };
        befalls(&mut broker, &mut processes, &wait);
        let (took, over) = (begun.elapsed(), Stopwatch::start());
        let log = Broker::open(&options);
        what_comes_now_is_decided_on(&log, &urls, &all);
        let current = over.elapsed();
        drop(stopping);
        (producers.into_iter().map(|producer| producer.join().unwrap()).collect::<Vec<Book>>(), log, took, current)
    });

    everything_is_aggregated(&log);
    for process in &processes {
        wait_for("a process to be ready", || process.is_ready().then_some(()));
        process.fleets.iter().for_each(|fleet| is_as_large_as_it_is_asked_to_be(process, fleet));
    }
    processes.iter_mut().for_each(Process::tell_to_end);
    processes.iter_mut().for_each(Process::has_ended);
    broker.settle(&options.prefix);

    let mut sent = BTreeMap::new();
    for (place, of_producer) in books.iter().flat_map(|book| &book.sent) {
        sent.entry(place.clone()).and_modify(|sent| *sent += *of_producer).or_insert(*of_producer);
    }
    let standing = Standing::read(&log);
    let samples = standing.each_sample_is_in_one_pane(&sent);
    let decisions = standing.decisions_are_the_folds();
    standing.the_replay_of_the_export_says_the_same(&options);
    standing.commands_are_the_folds();
    let mut carried = Carried::of(&standing);
    for process in &processes {
        process.fleets.iter().for_each(|fleet| carried.compare(&process.data(), fleet));
    }

    let sum = |of: fn(&Book) -> u64| books.iter().map(of).sum::<u64>();
    let (acknowledged, repeated, unknown) = (sum(|book| book.acknowledged), sum(|book| book.repeated), sum(|book| book.unknown));
    let (commands, applied, changes, blind) = (carried.commands(), carried.applied(), carried.changes, standing.blind("stamp"));
    assert!(acknowledged > 50 && decisions > 20 && applied > 0, "else nothing was under load");
    Befallen { took, current, acknowledged, repeated, unknown, samples, decisions, blind, commands, applied, changes }
}

/// Ends the producers, however the test ends.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Topics of an installation, those that are shared with three partitions.
fn installation(broker: &Broker) -> Options {
    let shared = [Topic::Metrics, Topic::Signals, Topic::Commands, Topic::Audit];
    let partitions = shared.into_iter().fold(Partitions::default(), |partitions, topic| partitions.with(topic, 3));
    let options = Options { partitions: Some(partitions), ..broker.options("chaos.") };
    topics::apply(&options, false).unwrap();
    options
}

/// Starts the processes, and waits until they are ready.
fn start(options: &Options, all: &[&str]) -> Vec<Process> {
    let prefix = format!("kafka.prefix={}", options.prefix);
    let pane = format!("{}s", PANE.as_secs());
    let arguments = ["--brokers", &options.brokers, "--pane", &pane, "--set", &prefix, "--set", "kafka.partitions=3", "--set", "kafka.replication=1"];
    let mut processes: Vec<Process> = (0..).zip(FLEETS).map(|(number, fleets)| Process::new(number, fleets, all, &arguments)).collect();
    processes.iter_mut().for_each(Process::start);
    for process in &mut processes {
        wait_for("a process to be ready", || {
            process.is_there();
            process.is_ready().then_some(())
        });
    }
    processes
}

/// A sample of a metric that had none makes a decision of each target.
fn what_comes_now_is_decided_on(log: &KafkaLog, urls: &[String], all: &[&str]) {
    let line = |name: &&str| format!("{{\"target\":\"{}\",\"metric\":\"fresh\",\"value\":{FRESH}}}\n", target(name));
    let body: String = all.iter().map(line).collect();
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(3))).build().into();
    let post = |url: &String| agent.post(format!("{url}/api/v1/metrics")).header("content-type", "application/x-ndjson").send(&body).ok();
    wait_for("a sample to be taken after the faults", || urls.iter().find_map(post));
    each_is_decided_by(log, "fresh", all);
}

/// Waits for a decision of each target for which this metric has a value.
fn each_is_decided_by(log: &KafkaLog, metric: &str, all: &[&str]) {
    let mut reading = Reading::of(log, Topic::Audit);
    let mut waiting: Vec<String> = all.iter().map(|name| target(name)).collect();
    wait_for(&format!("each target to be decided on with a value of {metric}"), || {
        for record in reading.iter_mut().flat_map(|partition| partition.read(log)) {
            if let Message::Audit(Audit::Decision(decision)) = wire::decode(Topic::Audit, &record.value).unwrap()
                && decision.metrics.iter().any(|m| m.name.as_str() == metric && m.status == MetricStatus::Ok)
            {
                waiting.retain(|target| *target != decision.target.as_str());
            }
        }
        waiting.is_empty().then_some(())
    });
}

/// What is on `metrics` now has been aggregated.
fn everything_is_aggregated(log: &KafkaLog) {
    for partition in 0..log.partitions(Topic::Metrics) {
        let end = log.range(Topic::Metrics, partition).unwrap().end;
        wait_for("everything to be aggregated", || log.committed("aggregate", Topic::Metrics, partition).unwrap().filter(|position| *position >= end));
    }
}

fn is_as_large_as_it_is_asked_to_be(process: &Process, fleet: &str) {
    wait_for("a fleet to be as large as it is asked to be", || {
        let mut answer = ureq::get(format!("{}/api/v1/status", process.url)).call().ok()?;
        let status: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
        let shown = status["targets"].as_array()?.iter().find(|shown| shown["target"] == target(fleet))?;
        (shown["current"].as_u64()? == instances_of(&process.data(), fleet) as u64).then_some(())
    });
}
