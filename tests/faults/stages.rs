//! A panic in a stage that folds its records as a whole: the record is lost.

use std::time::Duration;

use loadline::log::{Log, Offset, RawRecord, Topic};
use loadline::model::{Alert, ControlEntry, FleetName, InstanceName, Kind, Message, PolicyEntry, Request, RoundEnd, Sample, SampleBatch, Signal, Timestamp};
use loadline::stages::admit::Admit;
use loadline::stages::aggregate::{Aggregate, Limits};
use loadline::stages::arbitrate::Arbitrate;
use loadline::stages::{Effects, Input, Located, Stage};

use crate::world::{START, World, target};

/// A stage that panics at one offset, after it folded the record in part: as its own fold would.
#[derive(Clone)]
struct Breaks<S> {
    stage: S,
    record: Option<Offset>,
    flush: bool,
}

impl<S: Stage> Stage for Breaks<S> {
    type Record = S::Record;
    type State = S::State;
    const NAME: &'static str = S::NAME;
    const INPUT: Topic = S::INPUT;
    const TICK: Option<fn() -> Message> = S::TICK;
    const FLUSHES: bool = S::FLUSHES;

    fn apply(&self, state: &mut S::State, input: Input<S::Record>, effects: &mut Effects) {
        if let Input::Record(Located { offset, .. }) = &input {
            assert!(self.record != Some(*offset), "a fault, on purpose");
        }
        let flushed = matches!(input, Input::Flush { .. });
        let had = effects.iter().count();
        self.stage.apply(state, input, effects);
        // Only a flush that has something to say of a target breaks.
        assert!(!(self.flush && flushed && effects.iter().count() > had + 1), "a fault, on purpose");
    }

    fn flush_at(&self, state: &S::State, now: Timestamp) -> Option<Timestamp> {
        self.stage.flush_at(state, now)
    }

    fn needs_ticks(&self, state: &S::State) -> bool {
        self.stage.needs_ticks(state)
    }

    fn flushes_behind(&self, state: &S::State) -> bool {
        self.stage.flushes_behind(state)
    }

    fn is_full(&self, state: &S::State) -> bool {
        self.stage.is_full(state)
    }
}

/// One record of `stage` is lost by a panic: it is kept with its place, told once, and all else is as if it had never been sent.
fn one_record_is_lost<S: Stage + Clone>(stage: &S, says: &[Topic], messages: &[Message], lost: usize) {
    let told = |breaks_at: Option<Offset>, left_out: Option<usize>| {
        let mut world = World::new(Breaks { stage: stage.clone(), record: breaks_at, flush: false });
        world.run();
        for (index, message) in messages.iter().enumerate() {
            if left_out != Some(index) {
                world.say(S::INPUT, "prod/Deployment/good", message.clone());
            }
            world.clock.advance(Duration::from_secs(6));
            world.run();
        }
        // A position alone waits a moment for what may come.
        world.clock.advance(Duration::from_millis(500));
        world.run();
        world
    };
    let sent = |world: &World<Breaks<S>>| -> Vec<RawRecord> {
        world.records(S::INPUT).into_iter().filter(|(_, m)| !matches!(m, Message::RequestsTick(_))).map(|(raw, _)| raw).collect()
    };
    let place = sent(&told(None, None))[lost].clone();
    let (broken, without) = (told(Some(place.offset), None), told(None, Some(lost)));
    for topic in says {
        let values = |world: &World<Breaks<S>>| -> Vec<Message> { world.records(*topic).into_iter().map(|(_, message)| message).filter(is_no_fault).collect() };
        assert!(!values(&without).is_empty(), "{topic}: others are told of");
        assert_eq!(values(&broken), values(&without), "{topic}");
    }
    let letters = broken.dead_letters();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.topic.as_str(), letter.offset, &letter.record), (S::INPUT.name(), i64::try_from(place.offset).unwrap(), &place.value));
    let alerts: Vec<Alert> = broken.alerts().into_iter().filter(|a| a.name == "RecordFaulted").collect();
    assert!(alerts.len() == 1 && alerts[0].message.contains(S::NAME), "{alerts:?}");
    assert_eq!(broken.log.committed(S::NAME, S::INPUT, place.partition).unwrap(), Some(broken.log.range(S::INPUT, place.partition).unwrap().end));
}

fn is_no_fault(message: &Message) -> bool {
    !matches!(message, Message::Alert(alert) if alert.name == "RecordFaulted")
}

fn aggregate() -> Aggregate {
    Aggregate { pane: Duration::from_secs(5), grace: Duration::from_millis(500), sources: 1, limits: Limits::default() }
}

fn samples(name: &str, value: f64) -> Message {
    let sample = Sample {
        targets: vec![target(name)],
        metric: "q".parse().unwrap(),
        instance: InstanceName::none(),
        time: Timestamp::from_millis(START),
        kind: Kind::Gauge,
        value,
        histogram: None,
    };
    Message::Samples(SampleBatch { samples: vec![sample], ..SampleBatch::default() })
}

#[test]
fn aggregate_loses_one_record() {
    // The marks count records; all else is the same.
    let parts = [samples("good", 1.0), samples("bad", 2.0), samples("good", 3.0)];
    let told = |breaks_at| {
        let mut world = World::new(Breaks { stage: aggregate(), record: breaks_at, flush: false });
        parts.iter().for_each(|message| world.say(Topic::Metrics, "prod/Deployment/good", message.clone()));
        world.clock.advance(Duration::from_secs(6));
        world.run();
        world
    };
    let of_good = |world: &World<Breaks<Aggregate>>| -> Vec<Message> {
        let good = target("good");
        world.records(Topic::Signals).into_iter().map(|(_, m)| m).filter(|m| matches!(m, Message::Signal(Signal::Part(p)) if p.target == good)).collect()
    };
    let (quiet, broken) = (told(None), told(Some(1)));
    assert!(of_good(&quiet).len() == 1 && of_good(&broken) == of_good(&quiet));
    assert_eq!((broken.dead_letters().len(), broken.dead_letters()[0].offset), (1, 1));
    assert_eq!(broken.alerts().into_iter().filter(|a| a.name == "RecordFaulted").count(), 1);
}

/// A panic while it flushes loses what it held, says so, and the next flush is whole.
#[test]
fn aggregate_loses_what_it_held() {
    let mut world = World::new(Breaks { stage: aggregate(), record: None, flush: true });
    world.say(Topic::Metrics, "k", samples("bad", 1.0));
    world.clock.advance(Duration::from_secs(6));
    world.run();
    let alerts: Vec<String> = world.alerts().into_iter().filter(|a| a.name == "RecordFaulted").map(|a| a.message).collect();
    assert_eq!(alerts, ["a fault in Loadline: aggregate lost what it held of partition 0 of metrics; please report it"]);
    world.stage.flush = false;
    world.life = None;
    world.say(Topic::Metrics, "k", samples("good", 1.0));
    world.clock.advance(Duration::from_secs(6));
    world.run();
    let parts: Vec<Message> = world.records(Topic::Signals).into_iter().map(|(_, m)| m).filter(|m| matches!(m, Message::Signal(Signal::Part(_)))).collect();
    assert!(matches!(&parts[..], [Message::Signal(Signal::Part(part))] if part.target == target("good")), "{parts:?}");
}

#[test]
fn arbitrate_loses_one_record() {
    let claim = |name: &str, epoch: i64| {
        let expires_at = Timestamp::from_millis(START + 600_000);
        Message::Request(Request {
            target: target(name),
            fleet: FleetName::default(),
            epoch,
            uid: "u".to_owned(),
            current: 1,
            desired: 3,
            min: 1,
            priority: 0,
            paced: false,
            open: None,
            heard_of: 0,
            expires_at,
            withdrawn: false,
        })
    };
    one_record_is_lost(&Arbitrate::default(), &[Topic::Commands, Topic::Signals], &[claim("good", 1), claim("bad", 2), claim("other", 3)], 1);
}

#[test]
fn admit_loses_one_record() {
    let end = Message::Control(ControlEntry::RoundEnd(RoundEnd { source: "files".to_owned(), round: 1 }));
    let entry = |name: &str| {
        let spec = format!(
            r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"{name}"}},"replicas":{{"max":2}},"metrics":[{{"name":"q","track":{{"perReplica":1}}}}]}}"#
        );
        Message::Control(ControlEntry::Policy(PolicyEntry { source: "files".to_owned(), round: 1, origin: format!("{name}.yaml"), target: target(name), spec }))
    };
    one_record_is_lost(&Admit, &[Topic::Signals], &[entry("good"), entry("bad"), entry("other"), end], 1);
}
