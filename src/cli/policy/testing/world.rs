//! The world that a test plays: a fleet whose instances take time to start, series that are measured, people who act; and
//! Loadline's own stages, which decide.
//!
//! Time is the test's: nothing is waited for. A command is carried out at the moment at which it is issued; a sample
//! arrives when it is measured; a pane is complete when it ends. At one moment things happen in the order of [`World::step`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::document::Of;
use super::notation::Point;
use crate::model::{
    Amount, Command, Decision, FleetObservation, HistogramValue, Instance, InstanceName, Kind, MetricName, Order, Outcome, OutcomeResult, Phase,
    PolicyAnnouncement, Sample, SampleBatch, Signal, SourceError, TargetId, Tick, Timestamp, Verdict,
};
use crate::runtime::rehearsal::Rehearsal;
use crate::runtime::replay::Caused;
use crate::stages::aggregate::{Aggregate, Limits};
use crate::stages::arbitrate::Arbitrate;

/// When a test begins: midnight of a year's first day, so that every pane begins with it.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// Loadline's clock.
const TICK: u64 = 1_000;
/// An observer repeats what it sees as often as the real ones.
const REPEAT: u64 = 60_000;
/// So many requests are observed in each step of a Histogram's series.
const OBSERVATIONS: i64 = 10;
/// The most commands at one moment: more are a world that never comes to rest.
const MOST_COMMANDS: usize = 100;

/// A test, ready to be played.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The target.
    pub(super) target: TargetId,
    /// Its policy's `spec`, as JSON.
    pub(super) spec: String,
    /// The length of a pane.
    pub(super) pane: Duration,
    /// How fleets are paced.
    pub(super) arbitrate: Arbitrate,
    /// From one value of a series to the next.
    pub(super) every: Duration,
    /// The replicas at the start.
    pub(super) replicas: u32,
    /// From an instance's start until it is ready.
    pub(super) start_up: Duration,
    /// What each asks for.
    pub(super) requests: BTreeMap<String, Amount>,
    /// What is measured.
    pub(super) series: Vec<Track>,
    /// What else happens.
    pub(super) events: Vec<(Duration, Happening)>,
    /// The moments at which somebody looks.
    pub(super) looks: BTreeSet<Duration>,
}

/// A series, ready to be played.
#[derive(Debug, Clone)]
pub(super) struct Track {
    /// The metric.
    pub(super) metric: MetricName,
    /// What its values mean.
    pub(super) kind: Kind,
    /// Whose they are.
    pub(super) of: Of,
    /// The values, the first at 0.
    pub(super) points: Vec<Point>,
}

/// What else happens.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// Somebody sets the count.
    Replicas(u32),
    /// Another policy: its `spec`.
    Policy(String),
}

/// What there was at one moment, after everything that happened at it.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// The moment.
    pub(super) at: Duration,
    /// The count that is asked for.
    pub(super) replicas: u32,
    /// The instances that are ready.
    pub(super) ready: u32,
    /// The last decision, and when it was made.
    pub(super) decision: Option<(Duration, Decision)>,
}

/// What came of a test.
#[derive(Debug, Clone, Default)]
pub(super) struct Played {
    /// What there was after every moment at which something was decided or somebody looked.
    pub(super) looks: Vec<Look>,
    /// What kept the policy from being used.
    pub(super) troubles: Vec<String>,
    /// How many instances there ever were; they are numbered from 1.
    pub(super) instances: u64,
}

struct Running {
    name: InstanceName,
    started: i64,
    ready_at: i64,
}

struct World<'a> {
    plan: &'a Plan,
    rehearsal: Rehearsal,
    now: u64,
    replicas: u32,
    instances: Vec<Running>,
    started: u64,
    sequence: i64,
    generation: i64,
    observed_at: u64,
    /// What instances have counted up to, by series and instance; of a Histogram, by bucket.
    counted: BTreeMap<(usize, InstanceName), (Amount, Vec<i64>)>,
    commands: Vec<Command>,
    decision: Option<(Duration, Decision)>,
    decided: bool,
    played: Played,
}

/// Plays a test to its last look.
pub(super) fn play(plan: &Plan) -> Played {
    let aggregate = Aggregate { pane: plan.pane, grace: Duration::ZERO, sources: 1, limits: Limits::default() };
    let mut world = World {
        plan,
        rehearsal: Rehearsal::new(aggregate, plan.arbitrate.clone()),
        now: 0,
        replicas: plan.replicas,
        instances: Vec::new(),
        started: 0,
        sequence: 0,
        generation: 0,
        observed_at: 0,
        counted: BTreeMap::new(),
        commands: Vec::new(),
        decision: None,
        decided: false,
        played: Played::default(),
    };
    // What is there at the start has been there for long.
    world.grow(-3_600_000, -3_600_000);
    world.policy(&plan.spec);
    world.observe();
    let end = plan.looks.last().copied().map_or(0, millis);
    while world.now <= end {
        world.step();
        match world.next(end) {
            Some(next) => world.now = next,
            None => break,
        }
    }
    Played { instances: world.started, ..world.played }
}

/// The name of the instance of this number.
pub(super) fn instance(target: &TargetId, number: u64) -> String {
    format!("{}-{number}", target.name())
}

impl World<'_> {
    /// Everything that happens at this moment.
    fn step(&mut self) {
        let offset = Duration::from_millis(self.now);
        let happening: Vec<Happening> = self.plan.events.iter().filter(|(at, _)| *at == offset).map(|(_, h)| h.clone()).collect();
        for happening in happening {
            match happening {
                Happening::Policy(spec) => self.policy(&spec),
                Happening::Replicas(count) => {
                    self.set(count);
                    self.observe();
                }
            }
        }
        let now = self.signed();
        if self.instances.iter().any(|i| i.ready_at == now) || self.now >= self.observed_at + REPEAT {
            self.observe();
        }
        if self.now > 0 && self.now.is_multiple_of(millis(self.plan.pane)) {
            let caused = self.rehearsal.flush(self.at());
            self.take(caused);
        }
        // What is measured now belongs to the pane that begins now.
        if self.now.is_multiple_of(millis(self.plan.every)) {
            self.measure();
        }
        if self.now.is_multiple_of(TICK) {
            self.say(Signal::Tick(Tick {}));
        }
        self.carry_out();
        if std::mem::take(&mut self.decided) || self.plan.looks.contains(&offset) {
            let ready = self.instances.iter().filter(|i| i.ready_at <= now).count();
            let ready = u32::try_from(ready).unwrap_or(u32::MAX);
            self.played.looks.push(Look { at: offset, replicas: self.replicas, ready, decision: self.decision.clone() });
        }
    }

    /// The next moment at which anything happens.
    fn next(&self, end: u64) -> Option<u64> {
        let after = |step: u64| (self.now / step + 1) * step;
        let periodic = [TICK, millis(self.plan.pane), millis(self.plan.every)].map(after);
        let ready = self.instances.iter().filter_map(|i| u64::try_from(i.ready_at).ok());
        let events = self.plan.events.iter().map(|(at, _)| millis(*at));
        let looks = self.plan.looks.iter().map(|at| millis(*at));
        periodic.into_iter().chain(ready).chain(events).chain(looks).filter(|at| *at > self.now && *at <= end).min()
    }

    fn at(&self) -> Timestamp {
        START + Duration::from_millis(self.now)
    }

    fn signed(&self) -> i64 {
        i64::try_from(self.now).unwrap_or(i64::MAX)
    }

    fn policy(&mut self, spec: &str) {
        self.generation += 1;
        let order = Order { source: "test".to_owned(), generation: self.generation };
        self.say(Signal::Policy(PolicyAnnouncement { target: self.plan.target.clone(), spec: Some(spec.to_owned()), order }));
    }

    /// The count is set: what is too much ends at once, the newest first; what is missing starts.
    fn set(&mut self, count: u32) {
        self.replicas = count;
        self.instances.truncate(count as usize);
        let now = self.signed();
        self.grow(now, now.saturating_add(i64::try_from(self.plan.start_up.as_millis()).unwrap_or(i64::MAX)));
    }

    fn grow(&mut self, started: i64, ready_at: i64) {
        while self.instances.len() < self.replicas as usize {
            self.started += 1;
            if let Ok(name) = instance(&self.plan.target, self.started).parse() {
                self.instances.push(Running { name, started, ready_at });
            }
        }
    }

    /// An observer tells what it sees.
    fn observe(&mut self) {
        (self.sequence, self.observed_at) = (self.sequence + 1, self.now);
        let now = self.signed();
        let moment = |ms: i64| Some(Timestamp::from_millis(START.as_millis().saturating_add(ms)));
        let instances = self.instances.iter().map(|running| {
            let ready = running.ready_at <= now;
            Instance {
                name: running.name.clone(),
                phase: Phase::Running,
                ready: Some(ready),
                deleting: false,
                started_at: moment(running.started),
                ready_changed_at: moment(if ready { running.ready_at } else { running.started }),
                requests: self.plan.requests.clone(),
            }
        });
        let seen = FleetObservation {
            target: self.plan.target.clone(),
            uid: "test".to_owned(),
            term: 1,
            sequence: self.sequence,
            revision: Some(self.sequence),
            desired: self.replicas,
            status_replicas: self.replicas,
            updating: false,
            instances: instances.collect(),
        };
        self.say(Signal::Fleet(seen));
    }

    fn measure(&mut self) {
        let nth = usize::try_from(self.now / millis(self.plan.every).max(1)).unwrap_or(usize::MAX);
        let mut samples = Vec::new();
        for (place, track) in self.plan.series.iter().enumerate() {
            let Some(point) = track.points.get(nth) else { continue };
            if *point == Point::Fails {
                self.say(Signal::SourceError(SourceError {
                    target: self.plan.target.clone(),
                    metric: track.metric.clone(),
                    error: "the test says so".to_owned(),
                }));
                continue;
            }
            let before = nth.checked_sub(1).and_then(|before| track.points.get(before));
            let now = self.signed();
            let ready: Vec<InstanceName> = self.instances.iter().filter(|i| i.ready_at <= now).map(|i| i.name.clone()).collect();
            let of: Vec<InstanceName> = match &track.of {
                Of::Target => vec![InstanceName::none()],
                Of::Instance(name) => name.parse().into_iter().collect(),
                Of::Each | Of::Split => ready,
            };
            let share = if track.of == Of::Split { of.len().max(1) } else { 1 };
            for instance in of {
                samples.extend(self.sample(place, track, *point, before.copied(), share, instance));
            }
        }
        if !samples.is_empty() {
            self.rehearsal.samples(self.at(), SampleBatch { samples, ..SampleBatch::default() });
        }
    }

    /// One instance's sample of a series' value, of which it has one of `share` parts.
    fn sample(&mut self, place: usize, track: &Track, point: Point, before: Option<Point>, share: usize, instance: InstanceName) -> Option<Sample> {
        let part = |amount: Amount| u64::try_from(share).ok().and_then(|share| amount.mean(share)).unwrap_or(amount);
        let (value, histogram) = match (point, track.kind) {
            (Point::NonFinite(number), _) => (number, None),
            (Point::Value(amount), Kind::Counter) if track.of == Of::Split => {
                let (counted, _) = self.counted.entry((place, instance.clone())).or_default();
                match before {
                    Some(Point::Value(before)) if before <= amount => *counted = *counted + part(amount - before),
                    _ => *counted = part(amount),
                }
                (counted.as_f64(), None)
            }
            (Point::Value(_) | Point::Idle, Kind::Histogram) => {
                let bounds = bounds(&track.points);
                let (sum, counts) = self.counted.entry((place, instance.clone())).or_default();
                counts.resize(bounds.len() + 1, 0);
                if let Point::Value(amount) = point {
                    let bucket = bounds.iter().position(|bound| amount.as_f64() <= *bound).unwrap_or(bounds.len());
                    counts[bucket] += OBSERVATIONS;
                    (0..OBSERVATIONS).for_each(|_| *sum = *sum + amount);
                }
                (0.0, Some(HistogramValue { bounds, counts: counts.clone(), count: counts.iter().sum(), sum: sum.as_f64() }))
            }
            (Point::Nothing | Point::Fails | Point::Idle, _) => return None,
            (Point::Value(amount), _) => (part(amount).as_f64(), None),
        };
        Some(Sample { targets: vec![self.plan.target.clone()], metric: track.metric.clone(), instance, time: self.at(), kind: track.kind, value, histogram })
    }

    fn say(&mut self, signal: Signal) {
        let caused = self.rehearsal.signal(self.at(), signal);
        self.take(caused);
    }

    fn take(&mut self, caused: Vec<Caused>) {
        for caused in caused {
            match caused {
                Caused::Decision(decision) => {
                    let now = Duration::from_millis(self.now);
                    // What moved the count stands for its moment: that it stays, now that it was carried out, says nothing, also where it stays blind.
                    let moves = |decision: &Decision| matches!(decision.verdict, Verdict::ScaleOut | Verdict::ScaleIn);
                    let settled = self
                        .decision
                        .as_ref()
                        .is_some_and(|(at, before)| *at == now && moves(before) && !moves(&decision) && decision.desired == before.desired);
                    if !settled {
                        self.decision = Some((now, decision));
                    }
                    self.decided = true;
                }
                Caused::Command(command) => self.commands.push(command),
                Caused::Trouble(alert) => self.played.troubles.push(alert.message),
                Caused::Request(_) | Caused::Grant(_) => {}
            }
        }
    }

    /// Carries out what was commanded, until nothing more is.
    fn carry_out(&mut self) {
        for _ in 0..MOST_COMMANDS {
            let Some(command) = self.commands.pop() else { return };
            // Of several at one moment the last one counts; the others were replaced by it.
            self.commands.clear();
            if command.from != self.replicas && command.replaced_to != Some(self.replicas) {
                let outcome = Outcome {
                    target: command.target,
                    command: command.id,
                    uid: Some(command.uid),
                    result: OutcomeResult::Conflict,
                    replicas: Some(self.replicas),
                    revision: None,
                    error: None,
                };
                self.say(Signal::Outcome(outcome));
                continue;
            }
            self.set(command.to);
            let revision = Some(self.sequence + 1);
            let outcome = Outcome {
                target: command.target,
                command: command.id,
                uid: Some(command.uid),
                result: OutcomeResult::Applied,
                replicas: Some(command.to),
                revision,
                error: None,
            };
            self.say(Signal::Outcome(outcome));
            self.observe();
        }
    }
}

/// Bounds that hold every value of a series in a bucket of its own, a millionth wide: a quantile is read between the two.
fn bounds(points: &[Point]) -> Vec<f64> {
    let values: BTreeSet<Amount> = points.iter().filter_map(|p| if let Point::Value(value) = p { Some(*value) } else { None }).collect();
    let mut bounds: Vec<f64> = Vec::new();
    for value in values.into_iter().map(Amount::as_f64) {
        for bound in [value - value.abs() / 1_000_000.0, value] {
            if bounds.last().is_none_or(|last| *last < bound) {
                bounds.push(bound);
            }
        }
    }
    bounds
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
