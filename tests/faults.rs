//! A panic in a stage, injected: one target is held, or one record is lost, and nothing else.
//!
//! The runner is driven by hand over the memory log. A story is told twice, with the panic and without it; what is said of any other
//! target must be the same, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it, and injects what it is about")]

#[path = "faults/stages.rs"]
mod stages;
#[path = "faults/world.rs"]
mod world;

use std::cell::Cell;
use std::time::Duration;

use loadline::log::{Log, Offset, Topic};
use loadline::model::{
    AlertState, Amount, Audit, Decision, FleetObservation, Instance, InstanceName, Kind, Mark, Message, Order, Outcome, OutcomeResult, Pane, Part, Phase,
    PolicyAnnouncement, Reading, Request, Signal, TargetId, Tick, Timestamp, Verdict,
};
use loadline::runtime::clock::Clock;
use loadline::runtime::replay::{Caused, Replay};
use loadline::stages::decide::{AuditWhen, Decide};
use loadline::wire::jsonl;

use world::{START, World, target, target_of};

const NAMES: [&str; 3] = ["bad", "good", "other"];

thread_local! {
    /// Where the fold of `bad` panics: on this test's thread alone.
    static BREAKS_AT: Cell<Option<Offset>> = const { Cell::new(None) };
    /// How often work on `bad` was begun from there on.
    static BEGUN: Cell<u32> = const { Cell::new(0) };
}

fn probe(id: &TargetId, offset: Offset) {
    let Some(at) = BREAKS_AT.get().filter(|at| id.name() == "bad" && offset >= *at) else { return };
    BEGUN.set(BEGUN.get() + 1);
    assert_ne!(offset, at, "a fault, on purpose");
}

/// What the story of decide says, step by step.
impl World<Decide> {
    fn signal(&mut self, signal: Signal) {
        let key = signal.target().map_or_else(String::new, ToString::to_string);
        self.say(Topic::Signals, &key, Message::Signal(signal));
    }

    fn policy(&mut self, name: &str, generation: i64, per_replica: u32) {
        let spec = format!(
            r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"{name}"}},"replicas":{{"min":1,"max":20}},"metrics":[{{"name":"q","track":{{"perReplica":{per_replica}}},"window":"5s"}}]}}"#
        );
        let order = Order { source: "file:x".to_owned(), generation };
        self.signal(Signal::Policy(PolicyAnnouncement { target: target(name), spec: Some(spec), order }));
    }

    fn fleet(&mut self, name: &str, count: u32) {
        self.said += 1;
        let (term, sequence, desired) = (1, self.said, count);
        let instance = |i| Instance {
            name: format!("i{i}").parse().unwrap(),
            phase: Phase::Running,
            ready: Some(true),
            deleting: false,
            started_at: Some(Timestamp::from_millis(START - 600_000)),
            ready_changed_at: Some(Timestamp::from_millis(START - 590_000)),
            requests: std::collections::BTreeMap::new(),
        };
        let (uid, instances) = ("u".to_owned(), (0..count).map(instance).collect());
        let seen = FleetObservation { target: target(name), uid, term, sequence, revision: None, desired, status_replicas: count, updating: false, instances };
        self.signal(Signal::Fleet(seen));
    }

    /// A pane of every target, the mark that completes it, and a tick.
    fn pane(&mut self, value: i64) {
        self.clock.advance(Duration::from_secs(5));
        let end = Timestamp::from_millis(self.clock.now().as_millis().div_euclid(5_000) * 5_000);
        for name in NAMES {
            let amount = Amount::from_units(value);
            let reading = Reading { count: 1, sum: amount, max: amount, last: amount, last_at: end - Duration::from_secs(1), histogram: None };
            let start = end - Duration::from_secs(5);
            let pane = Pane { metric: "q".parse().unwrap(), kind: Kind::Gauge, start, end, instances: [(InstanceName::none(), reading)].into(), sketch: None };
            self.signal(Signal::Part(Part { target: target(name), source: 0, panes: vec![pane] }));
        }
        self.signal(Signal::Mark(Mark { source: 0, of: 1, through: end, pane_ms: 5_000, records: 3, late: 0, rejected: 0, repeated: 0 }));
        self.clock.advance(Duration::from_secs(1));
        self.signal(Signal::Tick(Tick {}));
        self.run();
    }

    /// Two panes of a load that asks for more, without an answer of the arbiter: claims stand.
    fn begin(&mut self) {
        for name in NAMES {
            self.policy(name, 1, 10);
            self.fleet(name, 3);
        }
        self.pane(60);
        self.pane(80);
    }

    /// The first offset from `after` on of a signal like this.
    fn offset_of(&self, after: Offset, like: impl Fn(&Signal) -> bool) -> Offset {
        let found = self.records(Topic::Signals).into_iter().find(|(raw, m)| raw.offset >= after && matches!(m, Message::Signal(s) if like(s)));
        found.unwrap().0.offset
    }

    fn of_bad(&self) -> Vec<Decision> {
        let decisions = self.records(Topic::Audit).into_iter().filter_map(|(_, m)| if let Message::Audit(Audit::Decision(d)) = m { Some(d) } else { None });
        decisions.filter(|d| d.target.name() == "bad").collect()
    }

    fn claims_of_bad(&self) -> Vec<Request> {
        let claims = self.records(Topic::Requests).into_iter().filter_map(|(_, m)| if let Message::Request(r) = m { Some(r) } else { None });
        claims.filter(|r| r.target.name() == "bad").collect()
    }

    fn faulted_alerts(&self) -> Vec<AlertState> {
        self.alerts().into_iter().filter(|a| a.name.contains("Faulted")).map(|a| a.state).collect()
    }
}

fn decide() -> World<Decide> {
    World::new(Decide { audit: AuditWhen::Changed, probe: Some(probe) })
}

/// How a stage ends before it starts again.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Not at all.
    Not,
    /// With a snapshot.
    InOrder,
    /// Without one.
    Killed,
}

/// The whole story; `breaks_at` says where the fold of `bad` panics.
fn story(breaks_at: Option<Offset>, end: End) -> World<Decide> {
    BREAKS_AT.set(breaks_at);
    BEGUN.set(0);
    let mut world = decide();
    world.begin();
    world.pane(90);
    match end {
        End::Not => {}
        End::InOrder => world.hand_over(),
        End::Killed => world.life = None,
    }
    world.fleet("bad", 9);
    world.fleet("good", 4);
    // A part, an outcome and its own policy again, which all change nothing for it.
    world.policy("bad", 2, 10);
    let outcome =
        Outcome { target: target("bad"), command: "c".to_owned(), uid: None, result: OutcomeResult::Applied, replicas: Some(9), revision: None, error: None };
    world.signal(Signal::Outcome(outcome));
    world.pane(20);
    world.pane(20);
    BREAKS_AT.set(None);
    world
}

/// Whether a signal is of a kind.
type Like = fn(&Signal) -> bool;

/// A panic in the fold of one target, in records of its own and in one that concerns all targets of the partition: that target is
/// held, told and kept; what is said of the others is what would have been said; and so it stays through either kind of restart.
#[test]
fn a_panic_holds_one_target_and_nothing_else() {
    let quiet = story(None, End::Not);
    assert!(quiet.of_bad().iter().all(|d| d.verdict != Verdict::Faulted) && quiet.faulted_alerts().is_empty() && quiet.dead_letters().is_empty());
    // Before this, every target has been decided on and has a claim.
    let after = quiet.offset_of(quiet.offset_of(0, |s| matches!(s, Signal::Mark(_))) + 1, |s| matches!(s, Signal::Mark(_))) + 1;
    let kinds: [(&str, Like); 3] = [
        ("a part of its own", |s| matches!(s, Signal::Part(part) if part.target.name() == "bad")),
        ("a mark of the partition", |s| matches!(s, Signal::Mark(_))),
        ("its fleet", |s| matches!(s, Signal::Fleet(fleet) if fleet.target.name() == "bad")),
    ];
    for (what, like) in kinds {
        let place = quiet.offset_of(after, like);
        for end in [End::Not, End::InOrder, End::Killed] {
            let broken = story(Some(place), end);
            assert_eq!(broken.of_others(), quiet.of_others(), "{what}");
            assert_eq!(broken.faulted_alerts(), [AlertState::Firing], "{what}");

            let decisions = broken.of_bad();
            let last = decisions.last().unwrap();
            assert_eq!((last.verdict, last.desired), (Verdict::Faulted, last.current), "{what}: its replicas stand");
            assert_eq!(decisions.iter().filter(|d| d.verdict == Verdict::Faulted).count(), 1, "{what}: and nothing is decided any more");
            assert!(broken.claims_of_bad().last().unwrap().withdrawn, "{what}: no command follows from an older claim");

            let letters = broken.dead_letters();
            let [letter] = &letters[..] else { panic!("{what}: {letters:?}") };
            assert_eq!((letter.topic.as_str(), letter.offset), ("signals", i64::try_from(place).unwrap()));
            assert_eq!(letter.record, broken.log.scan(Topic::Signals, letter.partition, place, 1).unwrap()[0].value, "{what}: the record is kept");
            assert_eq!(letter.reason, "a fault in Loadline: decide holds prod/Deployment/bad");
            // Once; and once more where a kill left no snapshot of it, so that the same signals are folded again.
            let again = end == End::Killed && place < broken.offset_of(0, |s| matches!(s, Signal::Fleet(f) if f.target.name() == "bad" && f.desired == 9));
            assert_eq!(BEGUN.get(), 1 + u32::from(again), "{what}");
        }
    }
}

/// A tick too: it evaluates what is due, target by target.
#[test]
fn a_panic_at_a_tick_holds_one_target() {
    // A claim is repeated every 60 s, by a tick.
    let told = |breaks_at| {
        BREAKS_AT.set(breaks_at);
        let mut world = decide();
        world.begin();
        for _ in 0..70 {
            world.clock.advance(Duration::from_secs(1));
            world.signal(Signal::Tick(Tick {}));
            world.run();
        }
        BREAKS_AT.set(None);
        world
    };
    let quiet = told(None);
    let claims = quiet.claims_of_bad().len();
    // The claim's repetition came with the tick that was appended last before it.
    let repeated = quiet.records(Topic::Requests).into_iter().rfind(|(_, m)| target_of(m) == Some(target("bad"))).unwrap().0.at;
    let ticks = quiet.records(Topic::Signals).into_iter().filter(|(raw, m)| raw.at == repeated && matches!(m, Message::Signal(Signal::Tick(_))));
    let mut held = 0;
    for place in ticks.map(|(raw, _)| raw.offset) {
        let broken = told(Some(place));
        assert_eq!(broken.of_others(), quiet.of_others());
        if broken.faulted_alerts() == [AlertState::Firing] {
            held += 1;
            assert_eq!(broken.claims_of_bad().len(), claims);
            assert!(broken.claims_of_bad().last().unwrap().withdrawn);
            assert_eq!(broken.dead_letters().len(), 1);
        }
    }
    assert_eq!(held, 1, "one of the ticks of that moment evaluates it");
}

/// Only a changed policy ends it, and the target starts as new; a policy of which the fold itself panics is not tried again and again.
#[test]
fn only_a_changed_policy_ends_it() {
    let mut world = decide();
    world.begin();
    let policy = world.log.range(Topic::Signals, 0).unwrap().end;
    BREAKS_AT.set(Some(policy));
    BEGUN.set(0);
    world.policy("bad", 2, 20);
    world.run();
    assert_eq!((world.faulted_alerts(), BEGUN.get()), (vec![AlertState::Firing], 1));
    for generation in 3..6 {
        world.policy("bad", generation, 20);
        world.policy("bad", 1, 30); // older than what is known
        world.pane(50);
    }
    assert_eq!((world.faulted_alerts(), BEGUN.get()), (vec![AlertState::Firing], 1), "the same text again is no change, and neither is an older one");
    world.hand_over();
    world.policy("bad", 6, 20);
    world.pane(50);
    assert_eq!((world.faulted_alerts(), BEGUN.get()), (vec![AlertState::Firing], 1), "nor is it after a restart");
    world.policy("bad", 7, 25);
    world.fleet("bad", 2);
    world.pane(50);
    world.pane(50);
    assert_eq!(world.faulted_alerts(), [AlertState::Firing, AlertState::Resolved]);
    let last = world.of_bad().pop().unwrap();
    assert_eq!((last.verdict, last.current, last.policy_version.as_str()), (Verdict::Hold, 2, "file:x@7"));
    BREAKS_AT.set(None);
}

/// A replay of what was exported holds the same target at the same line, and decides the same of the others.
#[test]
fn a_replay_shows_the_same() {
    let quiet = story(None, End::Not);
    let place = quiet.offset_of(20, |s| matches!(s, Signal::Mark(_)));
    let signals = quiet.records(Topic::Signals);
    let lines: Vec<String> =
        signals.iter().filter_map(|(raw, m)| if let Message::Signal(s) = m { Some(jsonl::signal_to_line(raw.at, raw.partition, s)) } else { None }).collect();
    let replayed = |breaks_at| {
        BREAKS_AT.set(breaks_at);
        let mut replay = Replay::open().with_probe(probe);
        let caused = lines.iter().enumerate().map(|(line, text)| {
            let (at, partition, signal) = jsonl::line_to_signal(text).unwrap();
            (line, replay.signal(at, partition.unwrap_or(0), signal))
        });
        let caused: Vec<(usize, Caused)> = caused.flat_map(|(line, all)| all.into_iter().map(move |one| (line, one))).collect();
        BREAKS_AT.set(None);
        caused
    };
    let (undisturbed, broken) = (replayed(None), replayed(Some(place)));
    let others = |all: &[(usize, Caused)]| -> Vec<(usize, Caused)> { all.iter().filter(|(_, one)| named(one) != Some("bad")).cloned().collect() };
    assert_eq!(others(&broken), others(&undisturbed));
    let trouble: Vec<usize> = broken.iter().filter(|(_, one)| matches!(one, Caused::Trouble(a) if a.name == "Faulted")).map(|(line, _)| *line).collect();
    assert_eq!(trouble, [usize::try_from(place).unwrap()]);
    let mut of_bad = broken.iter().filter_map(|(_, one)| if let Caused::Decision(d) = one { Some(d) } else { None }).filter(|d| d.target.name() == "bad");
    assert_eq!(of_bad.next_back().unwrap().verdict, Verdict::Faulted);
}

fn named(caused: &Caused) -> Option<&str> {
    match caused {
        Caused::Decision(d) => Some(d.target.name()),
        Caused::Request(r) => Some(r.target.name()),
        Caused::Trouble(a) => a.target.as_ref().map(TargetId::name),
        Caused::Grant(g) => Some(g.target.name()),
        Caused::Command(c) => Some(c.target.name()),
    }
}
