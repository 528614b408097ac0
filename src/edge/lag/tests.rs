use std::collections::BTreeMap;

use super::*;
use crate::log::Partitions;
use crate::log::consumption::{Looked, Place, Standing, Tail, Unseen};
use crate::log::memory::MemoryLog;
use crate::model::{AlertState, Timestamp};
use crate::runtime::clock::ManualClock;
use crate::wire;

/// A cluster that answers what it is told.
struct Told(Arc<std::sync::Mutex<Result<Looked, Unseen>>>);

impl Consumption for Told {
    fn look(&mut self, _: Duration) -> Result<Looked, Unseen> {
        self.0.lock().unwrap().clone()
    }

    fn records(&mut self, tails: &[Tail], _: Duration) -> Result<BTreeMap<Place, u64>, Unseen> {
        Ok(tails.iter().map(|tail| (tail.place.clone(), tail.to - tail.from)).collect())
    }
}

/// A source of two targets on a log in memory.
struct Desk {
    log: MemoryLog,
    clock: Arc<ManualClock>,
    answer: Arc<std::sync::Mutex<Result<Looked, Unseen>>>,
    rounds: Rounds,
    moment: Duration,
    /// How far each topic was read.
    read: BTreeMap<Topic, u64>,
}

const TARGETS: [&str; 2] = ["prod/Deployment/a", "prod/Deployment/b"];

impl Desk {
    fn new() -> Desk {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        let log = MemoryLog::new(Partitions::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let answer = Arc::new(std::sync::Mutex::new(Err(Unseen::Unanswered("nobody answers".to_owned()))));
        let rounds = rounds(&log, &clock, &answer);
        Desk { log, clock, answer, rounds, moment: Duration::ZERO, read: BTreeMap::new() }
    }

    /// Another process on the same log, which remembers nothing.
    fn again(&mut self) {
        self.rounds = rounds(&self.log, &self.clock, &self.answer);
    }

    fn answers(&self, answer: Result<Looked, Unseen>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// A round, and a minute after it: what it appended to a topic.
    fn round(&mut self) -> Said {
        self.rounds.round(self.moment).unwrap();
        self.moment += Duration::from_secs(60);
        self.clock.advance(Duration::from_secs(60));
        let mut said = Said::default();
        for topic in [Topic::Metrics, Topic::Signals, Topic::Alerts] {
            let from = self.read.entry(topic).or_default();
            for record in self.log.scan(topic, 0, *from, 1_000).unwrap() {
                *from = record.offset + 1;
                match wire::decode(topic, &record.value).unwrap() {
                    Message::Samples(batch) => said.samples.extend(batch.samples),
                    Message::Signal(Signal::SourceError(error)) => said.errors.push((error.target.as_str().to_owned(), error.error)),
                    Message::Alert(alert) => {
                        said.alerts.push((alert.target.unwrap().as_str().to_owned(), alert.name, alert.subject, alert.state, alert.message));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        said
    }
}

#[derive(Default)]
struct Said {
    samples: Vec<Sample>,
    errors: Vec<(String, String)>,
    alerts: Vec<(String, String, String, AlertState, String)>,
}

impl Said {
    /// The alerts, but for their words.
    fn alerts(&self) -> Vec<(&str, &str, AlertState)> {
        self.alerts.iter().map(|(target, name, _, state, _)| (target.as_str(), name.as_str(), *state)).collect()
    }
}

fn rounds(log: &MemoryLog, clock: &Arc<ManualClock>, answer: &Arc<std::sync::Mutex<Result<Looked, Unseen>>>) -> Rounds {
    let source = Source {
        name: "orders".to_owned(),
        targets: TARGETS.iter().map(|target| target.parse().unwrap()).collect(),
        metric: "queue_depth".parse().unwrap(),
        every: Duration::from_secs(5),
        rules: Rules { group: "g".to_owned(), begins: measure::Begins::Unknown, stuck_after: Some(Duration::from_secs(180)), per_replica: None },
        consumption: Box::new(Told(Arc::clone(answer))),
    };
    Rounds::new(source, Arc::new(log.clone()), Arc::clone(clock) as Arc<dyn Clock>, Arc::new(Room::unlimited()))
}

/// Partitions from 0 to 100, read so far.
fn read(committed: &[u64]) -> Looked {
    let partitions = (0..).zip(committed.iter().map(|at| Standing { committed: Some(*at), low: 0, high: 100, stable: 100 })).collect();
    Looked { topics: BTreeMap::from([("orders".to_owned(), Some(partitions))]), is_group: true }
}

#[test]
fn the_lag_is_a_sample_of_all_targets() {
    let mut desk = Desk::new();
    desk.answers(Ok(read(&[90, 95])));
    let said = desk.round();
    let [sample] = &said.samples[..] else { panic!("{:?}", said.samples) };
    assert_eq!(sample.targets.iter().map(TargetId::as_str).collect::<Vec<_>>(), TARGETS);
    assert_eq!((sample.metric.as_str(), sample.instance.as_str(), sample.kind, sample.value), ("queue_depth", "", Kind::Gauge, 15.0));
    assert_eq!((sample.time.as_millis(), said.errors.len(), said.alerts.len()), (1_000, 0, 0));
}

#[test]
fn unknown_is_no_sample_is_told_once_and_again_when_it_is_over() {
    let mut desk = Desk::new();
    let said = desk.round();
    assert_eq!((said.samples.len(), said.errors.len(), said.alerts.len()), (0, 0, 0), "a broker that is replaced costs one round");
    let said = desk.round();
    assert_eq!(said.alerts(), TARGETS.map(|target| (target, "LagUnknown", AlertState::Firing)));
    assert!(said.alerts.iter().all(|(_, _, subject, _, words)| subject == "orders" && words.contains("group g") && words.contains("nobody answers")));
    assert_eq!(said.errors.iter().map(|(target, _)| target.as_str()).collect::<Vec<_>>(), TARGETS);
    let said = desk.round();
    assert_eq!((said.samples.len(), said.errors.len(), said.alerts.len()), (0, 2, 0), "the metric stays unreadable, and nobody is told again");
    desk.answers(Ok(read(&[101])));
    assert_eq!(desk.round().alerts(), TARGETS.map(|target| (target, "LagUnknown", AlertState::Firing)), "something else is wrong");
    desk.answers(Ok(read(&[90])));
    let said = desk.round();
    assert_eq!(said.alerts(), TARGETS.map(|target| (target, "LagUnknown", AlertState::Resolved)));
    assert_eq!((said.samples.len(), said.errors.len()), (1, 0));
    assert_eq!(desk.round().alerts(), []);
}

/// What fired before a restart is told as over by the process after it, or goes on.
#[test]
fn a_restart_tells_what_ended_meanwhile() {
    let mut desk = Desk::new();
    desk.round();
    desk.round();
    desk.again();
    desk.answers(Ok(read(&[90])));
    assert_eq!(desk.round().alerts(), TARGETS.map(|target| (target, "LagUnknown", AlertState::Resolved)));
    desk.again();
    assert_eq!(desk.round().alerts(), [], "nothing fires that could be over");
}

/// What fires of a target that was taken out of the source is told as over by the process that has it no more.
#[test]
fn a_target_that_was_taken_out_fires_no_more() {
    let mut desk = Desk::new();
    desk.round();
    assert_eq!(desk.round().alerts().len(), 2);
    desk.again();
    desk.rounds.source.targets.truncate(1);
    let said = desk.round();
    assert_eq!(said.alerts(), [(TARGETS[1], "LagUnknown", AlertState::Resolved)]);
    assert_eq!(said.alerts[0].4, "the lag of orders is not measured for prod/Deployment/b any more");
    assert_eq!(desk.round().alerts(), [(TARGETS[0], "LagUnknown", AlertState::Firing)], "the other one goes on");
}

#[test]
fn a_stuck_partition_is_named_with_where_it_stands() {
    let mut desk = Desk::new();
    for minute in 0..3 {
        desk.answers(Ok(read(&[minute, 7])));
        assert_eq!(desk.round().alerts(), []);
    }
    desk.answers(Ok(read(&[3, 7])));
    let said = desk.round();
    assert_eq!(said.alerts(), TARGETS.map(|target| (target, "LagStuck", AlertState::Firing)));
    let (.., words) = &said.alerts[0];
    assert!(words.contains("orders/1 (at 7 for 180 s, 93 to read)") && words.contains("the record at 7 of orders/1"), "{words}");
    assert_eq!(said.samples[0].value.to_string(), "98", "97, and 1 for the one that is stuck");
    desk.answers(Err(Unseen::Unanswered("away".to_owned())));
    assert_eq!(desk.round().alerts(), [], "what is not seen is not over");
    desk.answers(Ok(read(&[4, 8])));
    assert_eq!(desk.round().alerts(), TARGETS.map(|target| (target, "LagStuck", AlertState::Resolved)));
}

/// Each source has a thread, which measures without being asked and ends when it is told to.
#[test]
fn the_threads_measure_and_end() {
    let Desk { log, clock, answer, .. } = Desk::new();
    *answer.lock().unwrap() = Ok(read(&[99]));
    let source = rounds(&log, &clock, &answer).source;
    let log: Arc<dyn Log> = Arc::new(log);
    let clock: Arc<dyn Clock> = clock;
    let sources = LagSources::start(vec![source], &log, &clock, &Arc::new(Room::unlimited())).unwrap();
    let waiting = Stopwatch::start();
    while log.range(Topic::Metrics, 0).unwrap().end == 0 {
        assert!(waiting.elapsed() < Duration::from_secs(60), "no sample came");
        std::thread::yield_now();
    }
    assert_eq!(sources.finished(), None);
    sources.stop().unwrap();
}
