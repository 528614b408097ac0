//! The world outside of Loadline: fleets with instances that start, people who set counts, producers that measure. It
//! keeps the truth that the invariants are checked against.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadline::edge::actuate::{GROUP, Scalable, ScaleError, ScaleRecord};
use loadline::edge::observe::{Ledger, Sighting};
use loadline::log::memory::MemoryLog;
use loadline::log::{Log, Offset, Topic};
use loadline::model::{Amount, FleetObservation, HistogramValue, Instance, Kind, Phase, Sample, SampleBatch, TargetId, Timestamp};

use super::policy::{BOUNDS, MEMORY, Rule};
use super::scenario::{Millis, TargetPlan};

/// One change of a target's count, as it really happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// Virtual time.
    pub at: Millis,
    /// What the log's clock showed.
    pub clock: Timestamp,
    /// The target.
    pub target: usize,
    /// Which incarnation of it.
    pub uid: String,
    /// The count before.
    pub from: u32,
    /// The count after.
    pub to: u32,
    /// The version of the target's record that it made.
    pub revision: i64,
    /// The epoch of the command that did it; `None`: a person.
    pub epoch: Option<i64>,
    /// Whether the target bore a freeze mark.
    pub frozen: bool,
    /// How many of its instances were not ready.
    pub unready: u32,
    /// Whether it came after its caller had given it up.
    pub late: bool,
    /// Up to where the couriers had committed each partition of `commands`.
    pub committed: Vec<Offset>,
}

/// Everything outside.
#[derive(Default)]
pub struct World {
    /// Virtual time.
    pub now: Millis,
    /// The log's clock.
    pub clock: Timestamp,
    /// By target.
    pub fleets: BTreeMap<usize, Fleet>,
    /// What happened, in order.
    pub changes: Vec<Change>,
    log: Option<MemoryLog>,
    /// Calls that their callers gave up, and that are still under way: when they arrive, at which record, with what.
    under_way: Vec<(Millis, usize, ScaleRecord, u32, i64)>,
    calm_at: Millis,
    /// How far the clock by which instances start is from the log's.
    skew_ms: Millis,
    /// What went wrong here, and how often.
    pub met: BTreeMap<&'static str, u64>,
}

/// A target in the world.
#[derive(Debug)]
pub struct Fleet {
    plan: TargetPlan,
    /// Which incarnation.
    pub uid: String,
    /// The count that is asked for.
    pub desired: u32,
    revision: i64,
    epoch: i64,
    instances: Vec<Running>,
    started: u64,
    measured_at: Option<Millis>,
    sequence: i64,
    /// Calls fail; with `true` they take effect all the same.
    pub failing: Option<bool>,
    /// Calls take longer than they may, and take effect so much later.
    pub slow: Option<Millis>,
    /// What somebody sets between the next read and the write.
    pub race: Option<u32>,
    /// What a person set last, or what it was made with.
    pub by_person: u32,
    /// A freeze mark.
    pub frozen: bool,
    /// What starts does not become ready.
    pub never_ready: bool,
    /// Metrics, by their place in the policy, that are not measured.
    pub silent: Vec<usize>,
    /// Metrics, by their place in the policy, that only one in so many instances measures.
    pub few: Vec<(usize, u64)>,
    /// Samples that are no numbers are sent too.
    pub nonsense: bool,
    /// A deletion, for what is told of it.
    incarnation: u32,
    /// The targets that its queue is of: several where it is shared; none where another one measures it.
    queue_of: Vec<TargetId>,
}

#[derive(Debug, Clone)]
struct Running {
    name: String,
    number: u64,
    started_at: Timestamp,
    started: Millis,
    ready: Option<Timestamp>,
    /// Its counter of requests.
    served: f64,
    /// Its histogram of durations: how many were observed in each bucket, and their sum.
    observed: ([i64; BOUNDS.len() + 1], f64),
}

impl Running {
    /// Ten durations.
    fn observe(&mut self, seconds: f64) {
        let bucket = BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        self.observed.0[bucket] += 10;
        self.observed.1 += seconds * 10.0;
    }

    fn histogram(&self) -> HistogramValue {
        let (counts, sum) = self.observed;
        HistogramValue { bounds: BOUNDS.to_vec(), counts: counts.to_vec(), count: counts.iter().sum(), sum }
    }
}

/// What was not said, or said in vain.
#[derive(Default)]
struct Unsaid {
    metrics: usize,
    instances: usize,
    nonsense: usize,
}

impl Fleet {
    fn new(plan: TargetPlan) -> Fleet {
        let desired = plan.replicas;
        Fleet {
            uid: format!("t{}-1", plan.number),
            plan,
            desired,
            revision: 1,
            epoch: 0,
            instances: Vec::new(),
            started: 0,
            measured_at: None,
            sequence: 0,
            failing: None,
            slow: None,
            race: None,
            by_person: desired,
            frozen: false,
            never_ready: false,
            silent: Vec::new(),
            few: Vec::new(),
            nonsense: false,
            incarnation: 1,
            queue_of: Vec::new(),
        }
    }

    /// Its name in the log.
    pub fn target(&self) -> TargetId {
        target(self.plan.number)
    }

    fn ready(&self) -> u32 {
        u32::try_from(self.instances.iter().filter(|i| i.ready.is_some()).count()).unwrap_or(u32::MAX)
    }

    /// Starts and stops instances, lets them become ready, and counts what they serve. `clock` is what the fleet's own shows.
    fn step(&mut self, now: Millis, clock: Timestamp, elapsed: Millis) {
        while self.instances.len() > self.desired as usize {
            self.instances.pop();
        }
        while self.instances.len() < self.desired as usize {
            self.started += 1;
            let name = format!("i{}-{}", self.incarnation, self.started);
            self.instances.push(Running {
                name,
                number: self.started,
                started_at: clock,
                started: now,
                ready: None,
                served: 0.0,
                observed: Default::default(),
            });
        }
        let load = self.plan.load_at(now);
        let (ready, startup, never) = (self.ready(), self.plan.startup_ms, self.never_ready);
        let mut place = 0;
        for instance in &mut self.instances {
            if instance.ready.is_none() && !never && now - instance.started >= startup {
                instance.ready = Some(clock);
            }
            if instance.ready.is_some() {
                instance.served += Rule::Requests(1).measure_at(load, ready, place) * elapsed as f64 / 1_000.0;
                place += 1;
                instance.observe(Rule::Duration(1, None).measure(load, ready));
            }
        }
    }

    /// Whether an instance would be ready, and does not become so.
    fn is_held_up(&self, now: Millis) -> bool {
        self.never_ready && self.instances.iter().any(|instance| instance.ready.is_none() && now - instance.started >= self.plan.startup_ms)
    }

    /// What an observer sees.
    pub fn sighting(&self) -> Sighting {
        let instances = self.instances.iter().filter_map(|running| {
            Some(Instance {
                name: running.name.parse().ok()?,
                phase: Phase::Running,
                ready: Some(running.ready.is_some()),
                deleting: false,
                started_at: Some(running.started_at),
                ready_changed_at: Some(running.ready.unwrap_or(running.started_at)),
                requests: [("cpu".to_owned(), Amount::from_units(1)), ("memory".to_owned(), Amount::from_f64(MEMORY).unwrap_or_default())].into(),
            })
        });
        Sighting {
            target: self.target(),
            uid: self.uid.clone(),
            revision: self.revision,
            desired: self.desired,
            status_replicas: u32::try_from(self.instances.len()).unwrap_or(u32::MAX),
            instances: instances.collect(),
        }
    }

    /// What is measured now, where it is time: each batch with the key that it is sent with.
    fn measure(&mut self, now: Millis, clock: Timestamp, unsaid: &mut Unsaid) -> Vec<(String, SampleBatch)> {
        if self.measured_at.is_some_and(|last| now - last < self.plan.every_ms) {
            return Vec::new();
        }
        let elapsed = self.measured_at.map_or(self.plan.every_ms, |last| now - last);
        self.measured_at = Some(now);
        let clock = shifted(clock, self.plan.skew_ms);
        let (load, ready) = (self.plan.load_at(now), self.ready());
        let mut own = Vec::new();
        let mut of_instances: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for (place, rule) in self.plan.metrics().copied().enumerate() {
            if self.silent.contains(&place) {
                unsaid.metrics += 1;
                continue;
            }
            let of = if matches!(rule, Rule::Queue(_)) { self.queue_of.clone() } else { vec![self.target()] };
            if of.is_empty() {
                continue;
            }
            let sample = |instance: &str, kind, value| Sample {
                targets: of.clone(),
                metric: rule.name().parse().unwrap_or_else(|_| unreachable!("a metric's name is a name")),
                instance: instance.parse().unwrap_or_default(),
                time: clock,
                kind,
                value,
                histogram: None,
            };
            let value = rule.measure(load, ready);
            if !rule.is_of_instances() {
                let (kind, value) =
                    if matches!(rule, Rule::Observed | Rule::Orders(_)) { (Kind::Delta, value * elapsed as f64 / 1_000.0) } else { (Kind::Gauge, value) };
                own.push(sample("", kind, value));
                continue;
            }
            let tells = |running: &Running| self.few.iter().all(|(few, one_in)| *few != place || running.number.is_multiple_of(*one_in));
            for (place, running) in (0..).zip(self.instances.iter().filter(|i| i.ready.is_some())) {
                if !tells(running) {
                    unsaid.instances += 1;
                    continue;
                }
                let value = rule.measure_at(load, ready, place);
                let histogram = matches!(rule, Rule::Duration(..)).then(|| running.histogram());
                let (kind, value) = match rule {
                    Rule::Duration(..) => (Kind::Histogram, 0.0),
                    Rule::Requests(_) => (Kind::Counter, running.served),
                    Rule::Latency(..) => (Kind::Distribution, value),
                    _ => (Kind::Gauge, value),
                };
                of_instances.entry(running.name.clone()).or_default().push(Sample { histogram, ..sample(&running.name, kind, value) });
            }
        }
        if self.nonsense {
            let broken = own.iter().chain(of_instances.values().flatten()).filter(|sample| sample.kind != Kind::Histogram).take(3).cloned().collect::<Vec<_>>();
            for (sample, value) in broken.into_iter().zip([f64::NAN, f64::INFINITY, 1.0]) {
                let time = if value < 2.0 { clock + Duration::from_secs(60) } else { sample.time };
                own.push(Sample { value, time, ..sample });
                unsaid.nonsense += 1;
            }
        }
        let name = self.target();
        let mut batches = Vec::new();
        let mut batch = |producer: String, key: String, samples: Vec<Sample>| {
            if !samples.is_empty() {
                self.sequence += 1;
                batches.push((key, SampleBatch { producer: Some(producer), sequence: Some(self.sequence), part: 0, samples, unread: 0 }));
            }
        };
        batch(format!("{name}/own"), name.as_str().to_owned(), own);
        for (instance, samples) in of_instances {
            let key = if self.plan.spread { format!("{name}/{instance}") } else { name.as_str().to_owned() };
            batch(format!("{name}/{instance}"), key, samples);
        }
        batches
    }
}

/// What a clock shows that is so far from another one.
pub fn shifted(clock: Timestamp, skew_ms: Millis) -> Timestamp {
    Timestamp::from_millis(clock.as_millis() + skew_ms)
}

/// The name of target `number`.
pub fn target(number: usize) -> TargetId {
    TargetId::new("sim", "Deployment", &format!("t{number}")).unwrap_or_else(|_| unreachable!("these are names"))
}

/// The number of a target of this name.
pub fn number_of(target: &TargetId) -> usize {
    target.name().trim_start_matches('t').parse().unwrap_or(usize::MAX)
}

impl World {
    /// The world of these targets; `log` tells what was committed when something happened.
    pub fn new(plans: &[TargetPlan], log: MemoryLog, calm_at: Millis, skew_ms: Millis) -> World {
        let mut fleets: BTreeMap<usize, Fleet> = plans.iter().map(|plan| (plan.number, Fleet::new(plan.clone()))).collect();
        // The first of those that share a queue measures it, for all of them.
        let shares: Vec<usize> = plans.iter().filter(|plan| plan.shares).map(|plan| plan.number).collect();
        for (number, fleet) in &mut fleets {
            fleet.queue_of = match shares.iter().position(|sharer| sharer == number) {
                None => vec![target(*number)],
                Some(0) => shares.iter().copied().map(target).collect(),
                Some(_) => Vec::new(),
            };
        }
        World { log: Some(log), calm_at, skew_ms, fleets, ..World::default() }
    }

    /// Lets time pass.
    pub fn step(&mut self, now: Millis, clock: Timestamp) {
        let elapsed = now - self.now;
        (self.now, self.clock) = (now, clock);
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.under_way).into_iter().partition(|(at, ..)| *at <= now);
        self.under_way = later;
        for (_, number, expected, replicas, epoch) in due {
            // A freeze mark is a change of the record too.
            if self.fleets.get(&number).is_some_and(|fleet| !fleet.frozen && (fleet.revision, &fleet.uid) == (expected.revision, &expected.uid)) {
                self.set(number, replicas, Some(epoch), true);
                self.meet("calls that took effect after their deadline");
            }
        }
        let clock = shifted(clock, self.skew_ms);
        self.fleets.values_mut().for_each(|fleet| fleet.step(now, clock, elapsed));
        let held_up = self.fleets.values().filter(|fleet| fleet.is_held_up(now)).count();
        self.meet_many("looks at instances that do not become ready", held_up);
    }

    /// Something went wrong.
    pub fn meet(&mut self, what: &'static str) {
        self.meet_many(what, 1);
    }

    fn meet_many(&mut self, what: &'static str, times: usize) {
        if times > 0 {
            *self.met.entry(what).or_default() += times as u64;
        }
    }

    /// What is measured now, by target.
    pub fn measure(&mut self) -> Vec<(usize, String, SampleBatch)> {
        let (now, clock) = (self.now, self.clock);
        let mut all = Vec::new();
        let mut unsaid = Unsaid::default();
        for (number, fleet) in &mut self.fleets {
            all.extend(fleet.measure(now, clock, &mut unsaid).into_iter().map(|(key, batch)| (*number, key, batch)));
        }
        self.meet_many("metrics that were not measured", unsaid.metrics);
        self.meet_many("instances that did not measure", unsaid.instances);
        self.meet_many("samples that are no numbers, or of the future", unsaid.nonsense);
        all
    }

    /// A person sets a count.
    pub fn by_hand(&mut self, target: usize, to: u32) {
        self.set(target, to, None, false);
        if let Some(fleet) = self.fleets.get_mut(&target) {
            fleet.by_person = to;
        }
    }

    /// A target is deleted and made again.
    pub fn recreate(&mut self, target: usize, replicas: u32) {
        if let Some(fleet) = self.fleets.get_mut(&target) {
            fleet.incarnation += 1;
            fleet.uid = format!("t{target}-{}", fleet.incarnation);
            (fleet.desired, fleet.revision, fleet.epoch) = (replicas, 1, 0);
            fleet.by_person = replicas;
            fleet.instances.clear();
        }
    }

    fn committed(&self) -> Vec<Offset> {
        let Some(log) = &self.log else { return Vec::new() };
        let committed = |partition| log.committed(GROUP, Topic::Commands, partition).ok().flatten().unwrap_or(0);
        (0..log.partitions(Topic::Commands)).map(committed).collect()
    }

    fn set(&mut self, target: usize, to: u32, epoch: Option<i64>, late: bool) {
        let (at, clock, committed) = (self.now, self.clock, self.committed());
        let Some(fleet) = self.fleets.get_mut(&target) else { return };
        let unready = u32::try_from(fleet.instances.len()).unwrap_or(u32::MAX) - fleet.ready();
        let (uid, from, revision, frozen) = (fleet.uid.clone(), fleet.desired, fleet.revision + 1, fleet.frozen);
        let change = Change { at, clock, target, uid, from, to, revision, epoch, frozen, unready, late, committed };
        (fleet.desired, fleet.revision) = (to, fleet.revision + 1);
        if let Some(epoch) = epoch {
            fleet.epoch = epoch;
        }
        self.changes.push(change);
    }
}

/// The world as the actuator meets it.
#[derive(Clone)]
pub struct Shared(pub Arc<Mutex<World>>);

impl Shared {
    /// The world, for as long as the guard is held.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scalable for Shared {
    fn read(&self, target: &TargetId) -> Result<ScaleRecord, ScaleError> {
        let world = self.lock();
        let fleet = world.fleets.get(&number_of(target)).ok_or_else(|| ScaleError::NotFound { target: target.clone() })?;
        Ok(ScaleRecord { uid: fleet.uid.clone(), replicas: fleet.desired, revision: fleet.revision, epoch: fleet.epoch, frozen: fleet.frozen })
    }

    fn write(&self, target: &TargetId, expected: &ScaleRecord, replicas: u32, epoch: i64, _deadline: Duration) -> Result<ScaleRecord, ScaleError> {
        let failed = || ScaleError::Failed { reason: "planned: the call failed".to_owned() };
        let number = number_of(target);
        let mut world = self.lock();
        if let Some(to) = world.fleets.get_mut(&number).and_then(|fleet| fleet.race.take()) {
            world.by_hand(number, to);
        }
        let fleet = world.fleets.get(&number).ok_or_else(|| ScaleError::NotFound { target: target.clone() })?;
        if (fleet.revision, &fleet.uid) != (expected.revision, &expected.uid) {
            return Err(ScaleError::Conflict { expected: expected.revision, found: fleet.revision });
        }
        if let Some(late) = fleet.slow {
            let arrives = world.now + late;
            if arrives < world.calm_at {
                world.under_way.push((arrives, number, expected.clone(), replicas, epoch));
            }
            return Err(ScaleError::Failed { reason: "planned: no answer within the deadline".to_owned() });
        }
        let failing = fleet.failing;
        if failing == Some(false) {
            return Err(failed());
        }
        world.set(number, replicas, Some(epoch), false);
        drop(world);
        if failing == Some(true) { Err(failed()) } else { self.read(target) }
    }
}

/// The observer: sees fleets, and says what it saw; observations may be lost or late.
#[derive(Debug)]
pub struct Observing {
    ledger: Ledger,
    term: i64,
    /// What is under way: when it arrives, and what.
    pub under_way: VecDeque<(Millis, FleetObservation)>,
    /// Targets whose observations are lost, and those whose come late, by how much.
    pub lost: Vec<usize>,
    /// Late ones, by how much.
    pub late: BTreeMap<usize, Millis>,
    last_term: Vec<FleetObservation>,
    /// How many were lost, late, and of an earlier observer.
    pub met: [u64; 3],
}

impl Default for Observing {
    fn default() -> Self {
        Observing { ledger: Ledger::new(1), term: 1, under_way: VecDeque::new(), lost: Vec::new(), late: BTreeMap::new(), last_term: Vec::new(), met: [0; 3] }
    }
}

impl Observing {
    /// Looks at all fleets.
    pub fn look(&mut self, world: &World) {
        for (number, fleet) in &world.fleets {
            if self.lost.contains(number) {
                self.met[0] += 1;
                continue;
            }
            if let Some(observation) = self.ledger.observe(fleet.sighting(), world.clock) {
                self.last_term.push(observation.clone());
                let late = self.late.get(number).copied().unwrap_or(0);
                self.met[1] += u64::from(late > 0);
                self.under_way.push_back((world.now + late, observation));
            }
        }
    }

    /// A new observer takes over; what the old one said last arrives again after `echo`.
    pub fn new_term(&mut self, now: Millis, echo: Millis) {
        self.term += 1;
        self.ledger = Ledger::new(self.term);
        let said = std::mem::take(&mut self.last_term);
        let echoes = said.into_iter().rev().take(6).map(|observation| (now + echo, observation));
        let before = self.under_way.len();
        self.under_way.extend(echoes);
        self.met[2] += (self.under_way.len() - before) as u64;
    }

    /// What arrives until `now`.
    pub fn arrived(&mut self, now: Millis) -> Vec<FleetObservation> {
        let (arrived, under_way) = std::mem::take(&mut self.under_way).into_iter().partition(|(at, _)| *at <= now);
        self.under_way = under_way;
        let arrived: VecDeque<(Millis, FleetObservation)> = arrived;
        arrived.into_iter().map(|(_, observation)| observation).collect()
    }
}
