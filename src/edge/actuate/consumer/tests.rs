//! The actuator over a log: at most once, and an answer to each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::{ActuatorSettings, FreezeFiles, Hands, Reach, Scalable, ScaleError, ScaleRecord};
use super::Actuator;
use crate::log::memory::{Fault, MemoryLog};
use crate::log::testing::Refusing;
use crate::log::{Log, Partitions, RawAppend, Topic};
use crate::model::{Audit, Command, Message, OutcomeResult, Signal, TargetId, Timestamp};
use crate::runtime::clock::{Clock, ManualClock, Stopwatch};
use crate::wire;

/// A target that looks, whenever it is written, at what the log says meanwhile.
struct Watching {
    log: MemoryLog,
    /// The group's position at each write.
    positions: Mutex<Vec<Option<u64>>>,
    writes: AtomicUsize,
    /// Whether the process ends in the middle of a write.
    dies: bool,
}

impl Scalable for Watching {
    fn read(&self, _: &TargetId) -> Result<ScaleRecord, ScaleError> {
        Ok(ScaleRecord { uid: "u".to_owned(), replicas: 3, revision: 7, epoch: 1, frozen: false })
    }

    fn write(&self, _: &TargetId, expected: &ScaleRecord, replicas: u32, epoch: i64, _: Duration) -> Result<ScaleRecord, ScaleError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.positions.lock().unwrap().push(self.log.committed("actuate", Topic::Commands, 0).unwrap());
        if self.dies {
            self.log.close();
        }
        Ok(ScaleRecord { replicas, epoch, revision: expected.revision + 1, ..expected.clone() })
    }
}

struct OverALog {
    log: MemoryLog,
    /// Of what acts: it goes on while something is waited for.
    clock: Arc<ManualClock>,
    target: Arc<Watching>,
    directory: tempfile::TempDir,
}

impl OverALog {
    fn new(dies: bool) -> OverALog {
        let log = MemoryLog::new(Partitions::default(), Arc::new(ManualClock::new(Timestamp::from_millis(500))));
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(500)));
        OverALog { target: watching(&log, dies), log, clock, directory: tempfile::tempdir().unwrap() }
    }

    fn actuator(&self) -> Actuator {
        self.actuator_on(Arc::new(self.log.clone()))
    }

    fn actuator_on(&self, log: Arc<dyn Log>) -> Actuator {
        let target: Arc<dyn Scalable> = Arc::clone(&self.target) as Arc<dyn Scalable>;
        let hands =
            Hands::new(FreezeFiles::new(self.directory.path().join("freeze")), Arc::clone(&self.clock) as Arc<dyn Clock>).with_kind("ProcessFleet", target);
        Actuator::start(log, hands, ActuatorSettings { member: "one".to_owned(), reach: Reach::All }).unwrap()
    }

    fn send(&self, commands: &[Command]) {
        let value = |command: &Command| wire::encode(&Message::Command(command.clone()));
        let appends = commands.iter().map(|c| RawAppend { topic: Topic::Commands, partition: 0, key: None, value: value(c) }).collect();
        self.log.append(appends).unwrap();
    }

    /// Waits until a topic holds `count` records, and reads them.
    fn messages(&self, topic: Topic, count: usize) -> Vec<Message> {
        wait_for(|| {
            self.clock.advance(Duration::from_millis(10));
            std::thread::sleep(Duration::from_millis(1));
            let records = self.log.scan(topic, 0, 0, 1000).unwrap();
            (records.len() >= count).then(|| records.iter().map(|record| wire::decode(topic, &record.value).unwrap()).collect())
        })
    }

    fn outcomes(&self, count: usize) -> Vec<(String, OutcomeResult)> {
        let outcome = |message| match message {
            Message::Signal(Signal::Outcome(outcome)) => (outcome.command, outcome.result),
            other => panic!("{other:?}"),
        };
        self.messages(Topic::Signals, count).into_iter().map(outcome).collect()
    }
}

fn watching(log: &MemoryLog, dies: bool) -> Arc<Watching> {
    Arc::new(Watching { log: log.clone(), positions: Mutex::default(), writes: AtomicUsize::new(0), dies })
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(waiting.elapsed() < Duration::from_secs(30), "waited 30 s");
        std::thread::yield_now();
    }
}

fn named(id: &str) -> Command {
    Command {
        id: id.to_owned(),
        target: "a/ProcessFleet/b".parse().unwrap(),
        uid: "u".to_owned(),
        epoch: 10,
        from: 3,
        to: 5,
        replaces: None,
        replaced_to: None,
        expires_at: Timestamp::from_millis(i64::MAX),
    }
}

#[test]
fn each_command_is_answered_to_the_fold_and_to_the_audit_and_the_actuator_ends_when_told() {
    let world = OverALog::new(false);
    world.send(&[named("one"), Command { uid: "v".to_owned(), ..named("two") }]);
    let actuator = world.actuator();
    assert_eq!(world.outcomes(2), [("one".to_owned(), OutcomeResult::Applied), ("two".to_owned(), OutcomeResult::Conflict)]);
    let audited = world.messages(Topic::Audit, 2);
    assert!(matches!(&audited[0], Message::Audit(Audit::Outcome(outcome)) if outcome.command == "one" && outcome.revision == Some(8)));
    actuator.stop().unwrap();
}

#[test]
fn the_position_is_committed_before_the_world_is_called() {
    let world = OverALog::new(false);
    world.send(&[named("one"), named("two")]);
    let _actuator = world.actuator();
    world.outcomes(2);
    assert_eq!(*world.target.positions.lock().unwrap(), [Some(1), Some(2)]);
}

#[test]
fn a_command_is_carried_out_once_whatever_its_commit_comes_to() {
    for fault in [Fault::Refused, Fault::UnknownNotDone, Fault::UnknownDone] {
        let world = OverALog::new(false);
        world.log.inject(fault);
        world.send(&[named("one"), named("two")]);
        let _actuator = world.actuator();
        assert_eq!(world.outcomes(2).len(), 2, "{fault:?}");
        assert_eq!(world.target.writes.load(Ordering::SeqCst), 2, "{fault:?}");
    }
}

#[test]
fn what_was_under_way_when_loadline_ended_is_not_done_again() {
    let mut world = OverALog::new(true);
    world.send(&[named("one"), named("two")]);
    let actuator = world.actuator();
    wait_for(|| actuator.is_finished().then_some(()));
    assert!(actuator.stop().is_err(), "a closed log ends it with its reason");
    assert_eq!(world.target.writes.load(Ordering::SeqCst), 1);
    world.log = world.log.reopen();
    world.target = watching(&world.log, false);
    let _actuator = world.actuator();
    assert_eq!(world.outcomes(1), [("two".to_owned(), OutcomeResult::Applied)]);
    assert_eq!(world.target.writes.load(Ordering::SeqCst), 1);
}

#[test]
fn a_command_that_a_later_one_replaces_is_superseded() {
    let world = OverALog::new(false);
    world.send(&[named("one"), Command { replaces: Some("one".to_owned()), replaced_to: Some(5), ..named("two") }]);
    let _actuator = world.actuator();
    assert_eq!(world.outcomes(2), [("one".to_owned(), OutcomeResult::Superseded), ("two".to_owned(), OutcomeResult::Applied)]);
    assert_eq!(world.target.writes.load(Ordering::SeqCst), 1);
}

#[test]
fn a_record_that_is_no_command_is_kept_as_a_dead_letter_and_the_next_one_is_carried_out() {
    let world = OverALog::new(false);
    world.log.append(vec![RawAppend { topic: Topic::Commands, partition: 0, key: None, value: b"rubbish".to_vec() }]).unwrap();
    world.send(&[named("one")]);
    let _actuator = world.actuator();
    assert_eq!(world.outcomes(1), [("one".to_owned(), OutcomeResult::Applied)]);
    let letters = world.messages(Topic::DeadLetters, 1);
    assert!(matches!(&letters[0], Message::DeadLetter(letter) if letter.offset == 0 && letter.record == b"rubbish"));
}

/// An outcome that the audit does not take holds up neither the fold nor the next command, and stands there when it can.
#[test]
fn what_the_audit_does_not_take_holds_nothing_up() {
    let world = OverALog::new(false);
    let refuses = Arc::new(AtomicBool::new(true));
    let _actuator = world.actuator_on(Arc::new(Refusing { log: world.log.clone(), topic: Topic::Audit, refuses: Arc::clone(&refuses) }));
    world.send(&[named("one"), named("two")]);
    assert_eq!(world.outcomes(2), [("one".to_owned(), OutcomeResult::Applied), ("two".to_owned(), OutcomeResult::Applied)]);
    assert_eq!(world.log.range(Topic::Audit, 0).unwrap(), 0..0);
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(world.messages(Topic::Audit, 2).len(), 2);
}
