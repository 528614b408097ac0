//! A stage over a log that is killed between any two steps: it reads on, and appends what it would have appended.
//!
//! The runner is driven by hand over the memory log, with snapshot rounds every few records and a few bytes a
//! commit, so that most kills tear one; and of its input everything that retention may delete is deleted now and
//! then, however young. In the end the log holds what an undisturbed fold over the same input says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Membership, Moment, Offset, Partitions, RawRecord, Session, Topic};
use loadline::model::{
    Amount, ControlEntry, FleetObservation, Grant, GrantLimit, Instance, InstanceName, Kind, Mark, Message, OpenCommand, Order, Outcome, OutcomeResult, Pane,
    Part, Phase, PolicyAnnouncement, Reading, Request, Signal, TargetId, Timestamp,
};
use loadline::runtime::clock::{Clock, ManualClock};
use loadline::runtime::retention::plan::{Progress, Restart, hold};
use loadline::runtime::runner::{Rounds, Runner};
use loadline::runtime::snapshots::replays_from;
use loadline::runtime::{publish, raw_appends};
use loadline::stages::arbitrate::{Arbitrate, Pacing};
use loadline::stages::decide::Decide;
use loadline::stages::{Effects, Input, Located, Snapshot, Stage};
use loadline::wire;
use proptest::prelude::*;

const START: i64 = 1_800_000_000_000;
const PANE: i64 = 5_000;

/// What the runner does next; the log and the clock go on meanwhile.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Takes at most so many records.
    Take(usize),
    /// Commits at most so many batches.
    Commit(usize),
    /// Is killed, and starts again.
    Kill,
    /// Ends in order, with a last round, and starts again.
    HandOver,
    /// Retention deletes of its input whatever nobody needs.
    Trim,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (1_usize..30).prop_map(Turn::Take),
        6 => (1_usize..6).prop_map(Turn::Commit),
        2 => Just(Turn::Kill),
        1 => Just(Turn::HandOver),
        2 => Just(Turn::Trim),
    ]
}

struct Life<S: Stage> {
    session: Box<dyn Session>,
    runner: Runner<S>,
}

struct World<S: Stage + Clone> {
    stage: S,
    rounds: Rounds,
    clock: Arc<ManualClock>,
    log: MemoryLog,
    life: Option<Life<S>>,
    /// How far the outputs were answered.
    answered: Offset,
    /// The input that was deleted.
    deleted: Vec<RawRecord>,
}

impl<S: Stage + Clone> World<S> {
    fn new(stage: S, rounds: Rounds) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(START)));
        let log = MemoryLog::new(Partitions::default(), clock.clone());
        World { stage, rounds, clock, log, life: None, answered: 0, deleted: Vec::new() }
    }

    /// Between the offsets, as a broker's transactions leave them.
    fn with_gaps(mut self, gaps: bool) -> Self {
        if gaps {
            self.log = self.log.with_markers();
        }
        self
    }

    fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    fn life(&mut self) -> &mut Life<S> {
        let World { stage, rounds, log, life, .. } = self;
        life.get_or_insert_with(|| {
            let session = log.join(Membership { group: S::NAME, member: "one".to_owned(), topic: S::INPUT }).unwrap();
            Life { session, runner: Runner::with_rounds(stage.clone(), Arc::new(log.clone()), *rounds) }
        })
    }

    /// Deletes of the input what retention may, and keeps it for the comparison.
    fn trim(&mut self) {
        let states = self.log.states(S::NAME, 0).unwrap();
        let round = replays_from(|key| Ok(states.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone()))).unwrap();
        let committed = self.log.committed(S::NAME, S::INPUT, 0).unwrap();
        let reader = Progress { group: S::NAME, committed, restart: Some(round.map_or(Restart::Earliest, Restart::From)) };
        let held = hold(S::INPUT, &[reader]).unwrap().from;
        let earliest = self.log.range(S::INPUT, 0).unwrap().start;
        let records = self.log.scan(S::INPUT, 0, earliest, 1_000_000).unwrap();
        self.deleted.extend(records.into_iter().take_while(|record| record.offset < held));
        self.log.trim(S::INPUT, 0, held).unwrap();
    }

    /// The whole input.
    fn input(&self) -> Vec<RawRecord> {
        self.deleted.iter().cloned().chain(self.log.scan(S::INPUT, 0, 0, 1_000_000).unwrap()).collect()
    }

    fn play(&mut self, turn: Turn) {
        let now = self.clock.now();
        let life = self.life();
        match turn {
            Turn::Take(most) => {
                let polled = life.session.poll(most, Duration::ZERO).unwrap();
                let through = life.session.read_through(Moment { at: now, log: now }, &|_| true).unwrap();
                life.runner.take(&mut VecDeque::from(polled), now, &through).unwrap();
            }
            Turn::Commit(most) => {
                for _ in 0..most {
                    let Some(batch) = life.runner.next_batch(now) else { break };
                    life.session.commit(&batch).unwrap();
                    life.runner.confirmed(batch.partition);
                }
            }
            Turn::Kill => self.life = None,
            Turn::HandOver => {
                life.runner.hand_over(now);
                while let Some(batch) = life.runner.next_batch(now) {
                    life.session.commit(&batch).unwrap();
                    life.runner.confirmed(batch.partition);
                }
                self.life = None;
            }
            Turn::Trim => self.trim(),
        }
    }

    fn say(&self, topic: Topic, key: &str, message: Message) {
        let mut effects = Effects::new();
        effects.to_key(topic, key, message);
        publish(&self.log, effects).unwrap();
    }

    /// Reads and commits until nothing is left.
    fn finish(&mut self) {
        for _ in 0..1_000 {
            self.play(Turn::Take(10_000));
            self.play(Turn::Commit(10_000));
            let committed = self.log.committed(S::NAME, S::INPUT, 0).unwrap();
            if self.log.scan(S::INPUT, 0, committed.unwrap_or(0), 1).unwrap().is_empty() {
                return;
            }
            // A position alone waits a moment for what may come.
            self.clock.advance(Duration::from_millis(250));
        }
        panic!("it does not come to its end");
    }

    fn messages(&self, topic: Topic) -> Vec<Message> {
        self.log.scan(topic, 0, 0, 1_000_000).unwrap().into_iter().map(|record| wire::decode(topic, &record.value).unwrap()).collect()
    }

    /// What an undisturbed fold over the input appends to `topics`, and what was appended.
    fn compare(&self, topics: &[Topic]) -> Result<usize, TestCaseError> {
        let (mut state, mut all) = (S::State::default(), Vec::new());
        for raw in self.input() {
            let message = wire::decode(S::INPUT, &raw.value).unwrap();
            let Ok(record) = S::Record::try_from(message) else { panic!("not a record of the stage") };
            let mut effects = Effects::new();
            self.stage.apply(&mut state, Input::Record(Located { partition: 0, offset: raw.offset, at: raw.at, record }), &mut effects);
            all.extend(raw_appends(&self.log, effects.take()));
        }
        let mut compared = 0;
        for topic in topics {
            let undisturbed: Vec<Message> =
                all.iter().filter(|append| append.topic == *topic).map(|append| wire::decode(*topic, &append.value).unwrap()).collect();
            let appended = self.messages(*topic);
            for (appended, undisturbed) in appended.iter().zip(&undisturbed) {
                prop_assert_eq!(appended, undisturbed, "on {}", topic);
            }
            prop_assert_eq!(appended.len(), undisturbed.len(), "on {}", topic);
            compared += appended.len();
        }
        Ok(compared)
    }
}

fn rounds() -> impl Strategy<Value = Rounds> {
    (1_u64..60, prop_oneof![Just(1_usize), Just(600), Just(100_000)], prop_oneof![Just(4_u64), Just(20)]).prop_map(|(records, bytes, records_a_key)| Rounds {
        every: Duration::from_secs(20),
        records,
        records_a_key,
        bytes,
    })
}

fn target(n: usize) -> TargetId {
    format!("prod/Deployment/t{n}").parse().unwrap()
}

// --- decide

#[derive(Debug, Clone, Copy)]
enum Seen {
    Advance(i64),
    Part {
        target: usize,
        value: i64,
    },
    Mark,
    Fleet {
        target: usize,
        count: u32,
    },
    Policy {
        target: usize,
        variant: usize,
    },
    /// The arbiter and the actuator answer what was asked last; `applied` or not.
    Answer {
        applied: bool,
    },
}

fn seen() -> impl Strategy<Value = Seen> {
    let t = || 0_usize..3;
    prop_oneof![
        6 => (100_i64..2_500).prop_map(Seen::Advance),
        6 => (t(), 0_i64..200).prop_map(|(target, value)| Seen::Part { target, value }),
        4 => Just(Seen::Mark),
        1 => (t(), 0_u32..8).prop_map(|(target, count)| Seen::Fleet { target, count }),
        1 => (t(), 0_usize..4).prop_map(|(target, variant)| Seen::Policy { target, variant }),
        3 => any::<bool>().prop_map(|applied| Seen::Answer { applied }),
    ]
}

fn spec(n: usize, variant: usize) -> Option<String> {
    let rest = match variant {
        0 => r#""metrics":[{"name":"queue_depth","track":{"perReplica":10},"window":"10s"}],"behavior":{"scaleIn":{"stabilization":"10s","cooldown":"5s"}}"#,
        1 => {
            r#""fleet":"other","metrics":[{"name":"queue_depth","track":{"perReplica":20},"window":"5s","staleAfter":"15s"}],"fallback":{"after":"10s","behavior":"Static","replicas":2}"#
        }
        2 => r#""mode":"Advise","metrics":[{"name":"queue_depth","measure":{"over":"Max"},"track":{"perReplica":5},"window":"15s"}]"#,
        _ => return None,
    };
    Some(format!(r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"t{n}"}},"replicas":{{"min":1,"max":20}},{rest}}}"#))
}

#[derive(Default)]
struct Places {
    sequence: i64,
    generation: i64,
}

impl World<Decide> {
    fn see(&mut self, seen: Seen, places: &mut Places) {
        match seen {
            Seen::Advance(ms) => self.clock.advance(Duration::from_millis(ms.unsigned_abs())),
            Seen::Part { target: n, value } => {
                let end = (self.now().div_euclid(PANE) + 1) * PANE;
                let amount = Amount::from_units(value);
                let reading = Reading { count: 1, sum: amount, max: amount, last: amount, last_at: Timestamp::from_millis(self.now()), histogram: None };
                let (start, end) = (Timestamp::from_millis(end - PANE), Timestamp::from_millis(end));
                let instances = [(InstanceName::none(), reading)].into();
                let pane = Pane { metric: "queue_depth".parse().unwrap(), kind: Kind::Gauge, start, end, instances, sketch: None };
                self.signal(n, Signal::Part(Part { target: target(n), source: 0, panes: vec![pane] }));
            }
            Seen::Mark => {
                let through = Timestamp::from_millis(self.now() - 500);
                self.signal(0, Signal::Mark(Mark { source: 0, of: 1, through, pane_ms: PANE, records: 1, late: 0, rejected: 0, repeated: 0 }));
            }
            Seen::Fleet { target: n, count } => self.fleet(n, count, places),
            Seen::Policy { target: n, variant } => {
                places.generation += 1;
                let order = Order { source: "file:x".to_owned(), generation: places.generation };
                self.signal(n, Signal::Policy(PolicyAnnouncement { target: target(n), spec: spec(n, variant), order }));
            }
            Seen::Answer { applied } => self.answer(applied, places),
        }
    }

    fn signal(&self, n: usize, signal: Signal) {
        self.say(Topic::Signals, target(n).as_str(), Message::Signal(signal));
    }

    fn fleet(&mut self, n: usize, count: u32, places: &mut Places) {
        places.sequence += 1;
        let instances = (0..count).map(|i| Instance {
            name: format!("i{i}").parse().unwrap(),
            phase: Phase::Running,
            ready: Some(true),
            deleting: false,
            started_at: None,
            ready_changed_at: None,
            requests: [("cpu".to_owned(), Amount::from_units(1))].into(),
        });
        let seen = FleetObservation {
            target: target(n),
            uid: "a".to_owned(),
            term: 1,
            sequence: places.sequence,
            revision: None,
            desired: count,
            status_replicas: count,
            updating: false,
            instances: instances.collect(),
        };
        self.signal(n, Signal::Fleet(seen));
    }

    fn answer(&mut self, applied: bool, places: &mut Places) {
        let requests = self.log.scan(Topic::Requests, 0, self.answered, 1_000).unwrap();
        for record in requests {
            self.answered = record.offset + 1;
            let Ok(Message::Request(request)) = wire::decode(Topic::Requests, &record.value) else { continue };
            if request.withdrawn || request.desired == request.current {
                continue;
            }
            let n = (0..3).find(|n| target(*n) == request.target).unwrap();
            let Request { epoch, current: from, desired: to, .. } = request;
            let id = format!("{}#{epoch}", request.target);
            let command = OpenCommand { id: id.clone(), epoch, from, to, expires_at: Timestamp::from_millis(self.now() + 30_000) };
            self.signal(n, Signal::Grant(Grant { target: target(n), epoch, desired: to, granted: to, limit: GrantLimit::None, command: Some(command) }));
            let result = if applied { OutcomeResult::Applied } else { OutcomeResult::Failed };
            let replicas = applied.then_some(to);
            self.signal(n, Signal::Outcome(Outcome { target: target(n), command: id, uid: None, result, replicas, revision: None, error: None }));
            if applied {
                self.fleet(n, to, places);
            }
        }
    }
}

// --- arbitrate

#[derive(Debug, Clone, Copy)]
enum Asked {
    Advance(i64),
    Claim { target: usize, fleet: usize, current: u32, desired: u32, withdrawn: bool },
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        1 => (100_i64..2_000).prop_map(Asked::Advance),
        2 => (0_usize..4, 0_usize..2, 0_u32..40, 0_u32..40, prop::bool::weighted(0.2))
            .prop_map(|(target, fleet, current, desired, withdrawn)| Asked::Claim { target, fleet, current, desired, withdrawn }),
    ]
}

impl World<Arbitrate> {
    fn ask(&mut self, asked: Asked, epoch: i64) {
        match asked {
            Asked::Advance(ms) => self.clock.advance(Duration::from_millis(ms.unsigned_abs())),
            Asked::Claim { target: n, fleet, current, desired, withdrawn } => {
                self.claim(n, ["default", "other"][fleet], self.now() + epoch, current, desired, 1_500, withdrawn);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a claim says")]
    fn claim(&self, n: usize, fleet: &str, epoch: i64, current: u32, desired: u32, lives: i64, withdrawn: bool) {
        let request = Request {
            target: target(n),
            fleet: fleet.parse().unwrap(),
            epoch,
            uid: "a".to_owned(),
            current,
            desired,
            min: 1,
            priority: 0,
            paced: true,
            open: None,
            heard_of: 0,
            expires_at: Timestamp::from_millis(self.now() + lives),
            withdrawn,
        };
        self.say(Topic::Requests, fleet, Message::Request(request));
    }
}

proptest! {
    #[test]
    fn decide_killed_at_any_step_decides_as_if_undisturbed(
        turns in prop::collection::vec((seen(), prop::collection::vec(turn(), 0..3)), 20..120), rounds in rounds(), gaps in any::<bool>(),
    ) {
        let (mut world, mut places) = (World::new(Decide::default(), rounds).with_gaps(gaps), Places::default());
        for n in 0..3 {
            world.see(Seen::Policy { target: n, variant: n }, &mut places);
            world.see(Seen::Fleet { target: n, count: 2 }, &mut places);
        }
        for (seen, turns) in turns {
            world.see(seen, &mut places);
            turns.into_iter().for_each(|turn| world.play(turn));
        }
        world.finish();
        let compared = world.compare(&[Topic::Audit, Topic::Requests, Topic::Alerts])?;
        prop_assert!(compared >= 3, "each policy is decided on at least once");
    }

    #[test]
    fn arbitrate_killed_at_any_step_grants_as_if_undisturbed(
        turns in prop::collection::vec((asked(), prop::collection::vec(turn(), 0..3)), 20..120), rounds in rounds(), gaps in any::<bool>(),
    ) {
        let stage = Arbitrate { pacing: Pacing { percent: 10, at_least: 3, period: Duration::from_secs(6) }, ..Arbitrate::default() };
        let mut world = World::new(stage, rounds).with_gaps(gaps);
        for (number, (asked, turns)) in (0..).zip(turns) {
            world.ask(asked, number);
            turns.into_iter().for_each(|turn| world.play(turn));
        }
        world.finish();
        world.compare(&[Topic::Commands, Topic::Signals, Topic::Audit, Topic::Alerts])?;
    }
}

/// What the arbiter holds back is granted by the passing of time alone.
#[test]
fn the_arbiter_gets_its_ticks() {
    let stage = Arbitrate { pacing: Pacing { percent: 0, at_least: 3, period: Duration::from_secs(30) }, ..Arbitrate::default() };
    let mut world = World::new(stage, Rounds::default());
    for n in 0..2 {
        world.claim(n, "default", world.now(), 10, 7, 150_000, false);
    }
    world.finish();
    assert_eq!(world.messages(Topic::Commands).len(), 1, "three in 30 s");
    for _ in 0..31 {
        world.clock.advance(Duration::from_secs(1));
        world.finish();
    }
    assert_eq!(world.messages(Topic::Commands).len(), 2);
}

/// Snapshots go on when the clock was set back, else a restart would have an hour to read.
#[test]
fn a_clock_that_was_set_back_stops_no_snapshots() {
    let rounds = Rounds { every: Duration::from_secs(20), records: 1_000_000, bytes: 100_000, ..Rounds::default() };
    let (mut world, mut places) = (World::new(Decide::default(), rounds), Places::default());
    world.see(Seen::Policy { target: 0, variant: 0 }, &mut places);
    world.finish();
    world.clock.advance(Duration::from_secs(21));
    world.see(Seen::Fleet { target: 0, count: 2 }, &mut places);
    world.finish();
    let before = world.log.states("decide", 0).unwrap();
    assert!(!before.is_empty());
    world.clock.set(Timestamp::from_millis(world.now() - 3_600_000));
    world.see(Seen::Fleet { target: 0, count: 3 }, &mut places);
    world.finish();
    assert_ne!(world.log.states("decide", 0).unwrap(), before);
}

/// A fleet that became empty is not read again, as if nothing had come before, when the round that says so is torn.
#[test]
fn a_torn_round_brings_no_fleet_back() {
    let stage = Arbitrate { pacing: Pacing { percent: 0, at_least: 3, period: Duration::from_secs(600) }, ..Arbitrate::default() };
    let mut world = World::new(stage, Rounds { every: Duration::from_secs(1_000_000), records: 1_000_000, bytes: 1, ..Rounds::default() });
    let claim = |world: &World<Arbitrate>, n, fleet| world.claim(n, fleet, world.now(), 10, 7, 150_000, false);
    claim(&world, 0, "default");
    world.finish();
    world.play(Turn::HandOver);
    // Waits for the limit, and expires before it is served.
    world.clock.advance(Duration::from_secs(10));
    claim(&world, 1, "default");
    claim(&world, 2, "other");
    world.finish();
    world.clock.advance(Duration::from_secs(600));
    world.finish();
    assert_eq!(world.messages(Topic::Commands).len(), 2, "one of each fleet");
    // The next round: the first of its commits, and no more.
    let now = world.clock.now();
    world.life().runner.hand_over(now);
    world.play(Turn::Commit(1));
    world.play(Turn::Kill);
    claim(&world, 3, "default");
    world.finish();
    assert_eq!(world.messages(Topic::Commands).len(), 3, "nothing was removed within the last 600 s");
    world.compare(&[Topic::Commands, Topic::Signals, Topic::Audit]).unwrap();
}

/// What cannot be read becomes a dead letter with its place, at most ten a second of the log's time; and all else goes on.
#[test]
fn what_cannot_be_read_is_kept_apart() {
    let (mut world, mut places) = (World::new(Decide::default(), Rounds::default()), Places::default());
    for n in 0_u8..15 {
        let append = loadline::log::RawAppend { topic: Topic::Signals, partition: 0, key: None, value: vec![0xC3, 0x01, n] };
        world.log.append(vec![append]).unwrap();
    }
    world.see(Seen::Policy { target: 0, variant: 0 }, &mut places);
    world.see(Seen::Fleet { target: 0, count: 2 }, &mut places);
    world.finish();
    let letters = world.messages(Topic::DeadLetters);
    assert_eq!(letters.len(), 10);
    let Message::DeadLetter(last) = &letters[9] else { panic!("a dead letter") };
    assert_eq!((last.topic.as_str(), last.offset, last.record.as_slice()), ("signals", 9, [0xC3, 0x01, 9].as_slice()));
    assert!(!world.messages(Topic::Requests).is_empty(), "the policy after them is decided on");
}

/// The first commit of a stage brings its first round: so also one that is killed soon after knows what it lacks.
#[test]
fn records_that_are_gone_are_told_from_the_first_commit_on() {
    let (mut world, mut places) = (World::new(Decide::default(), Rounds::default()), Places::default());
    world.see(Seen::Policy { target: 0, variant: 0 }, &mut places);
    world.see(Seen::Fleet { target: 0, count: 2 }, &mut places);
    world.finish();
    world.play(Turn::Kill);
    let end = world.log.range(Topic::Signals, 0).unwrap().end;
    world.log.trim(Topic::Signals, 0, end).unwrap();
    world.see(Seen::Mark, &mut places);
    world.finish();
    let told = world.messages(Topic::Alerts);
    assert!(told.iter().any(|m| matches!(m, Message::Alert(alert) if alert.name == "RecordsLost")), "{told:?}");
}

/// Records that a restart needs and that are gone are told, never skipped in silence.
#[test]
fn records_that_are_gone_are_told() {
    let (mut world, mut places) = (World::new(Decide::default(), Rounds::default()), Places::default());
    world.see(Seen::Policy { target: 0, variant: 0 }, &mut places);
    world.see(Seen::Fleet { target: 0, count: 2 }, &mut places);
    world.finish();
    world.play(Turn::HandOver);
    for _ in 0..5 {
        world.see(Seen::Mark, &mut places);
    }
    let end = world.log.range(Topic::Signals, 0).unwrap().end;
    world.log.trim(Topic::Signals, 0, end - 1).unwrap();
    world.finish();
    let told = world.messages(Topic::Alerts);
    assert!(told.iter().any(|m| matches!(m, Message::Alert(alert) if alert.name == "RecordsLost")), "{told:?}");
    // What metrics came to is counted from there on, and no part of it is taken for the whole.
    let state = world.life().runner.state(0).unwrap().encode(target(0).as_str(), 0).unwrap();
    let state = String::from_utf8(state).unwrap();
    assert!(state.contains(&format!("\"sinceOffset\":{}", end - 1)), "{state}");
    // A policy may have been among them, and would not be said again for a day.
    let asked = world.messages(Topic::Control);
    assert!(asked.iter().any(|m| matches!(m, Message::Control(ControlEntry::AnnounceAgain(ask)) if ask.asker == "decide")), "{asked:?}");
}
