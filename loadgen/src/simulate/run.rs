//! One run: the scenario played under a virtual clock, and everything that happened checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use loadline::edge::actuate::{FreezeFiles, Hands};
use loadline::log::memory::MemoryLog;
use loadline::log::{LogError, Offset, Partitions, Topic};
use loadline::model::{ControlEntry, Message, PolicyEntry, PolicyRejected, RoundEnd, SampleBatch, Signal, Timestamp};
use loadline::runtime::clock::{Clock, ManualClock};
use loadline::runtime::publish;
use loadline::runtime::runner::Rounds;
use loadline::stages::Effects;
use loadline::stages::aggregate::{Aggregate, Limits};
use loadline::stages::arbitrate::{Arbitrate, Pacing};

use crate::random::Random;

use super::check::{Checker, Violation};
use super::faulty::FaultyLog;
use super::panics;
use super::process::{Process, Settings, Zombie, end_in_order};
use super::scenario::{Fault, Millis, Part, Planned, Scenario};
use super::world::{Observing, Shared, World, shifted, target};

mod faults;

/// What the log's clock shows at the start.
pub const START: i64 = 1_800_000_000_000;
/// A source of policies says its whole round this often, and a while after a change.
const ROUND_EVERY: Millis = 15_000;
/// The most steps of a part in one look: beyond it something goes round in circles.
const MOST_STEPS: usize = 20_000;

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    /// What did not hold, in the order in which it was found.
    pub violations: Vec<Violation>,
    /// A hash of all records of all topics with their times and offsets, and of all changes in the world.
    pub trace: u64,
    /// How much there was of what.
    pub counts: BTreeMap<&'static str, u64>,
    /// Where each target ended.
    pub ends: BTreeMap<usize, End>,
}

/// Where a target ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its count.
    pub replicas: u32,
    /// Its count when the last load came.
    pub stood_at: Option<u32>,
    /// The counts at which its policy leaves it alone, under the load of the end.
    pub rests_at: BTreeSet<u32>,
    /// Whether its policy moves anything.
    pub acts: bool,
    /// What a person set last, or what it began with.
    pub by_person: u32,
}

/// Runs a scenario to its end, or to its first violation: a panic is one too.
pub fn run(scenario: &Scenario) -> Ran {
    guarded(|| Run::new(scenario).play(&mut Told(None)))
}

/// The same, without the folds beside it: where only the end counts.
pub fn run_to_compare(scenario: &Scenario) -> Ran {
    guarded(|| {
        let mut run = Run::new(scenario);
        run.checker.without_folds();
        run.play(&mut Told(None))
    })
}

/// The same, and says what happens, line by line.
pub fn trace(scenario: &Scenario, say: &mut dyn FnMut(&str)) -> Ran {
    guarded(|| Run::new(scenario).play(&mut Told(Some(say))))
}

/// A run that panics has come to its end by that.
fn guarded(play: impl FnOnce() -> Ran) -> Ran {
    match panics::caught(play) {
        Ok(mut ran) => {
            if let Some(violation) = ran.violations.first_mut().filter(|violation| violation.invariant == "no stage panics")
                && let Some(panic) = panics::last()
            {
                let _ = write!(violation.details, " ({panic})");
            }
            ran
        }
        Err(panic) => {
            let violations = vec![Violation::new("nothing panics", panic)];
            Ran { violations, trace: 0, counts: BTreeMap::from([("runs that panicked", 1)]), ends: BTreeMap::new() }
        }
    }
}

/// Where what happens is said, if anywhere: lines are made only for somebody who reads them.
pub struct Told<'a>(Option<&'a mut dyn FnMut(&str)>);

impl Told<'_> {
    /// Says a line.
    pub fn say(&mut self, line: impl FnOnce() -> Option<String>) {
        if let Some(say) = &mut self.0
            && let Some(line) = line()
        {
            say(&line);
        }
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    clock: Arc<ManualClock>,
    memory: MemoryLog,
    log: FaultyLog,
    world: Shared,
    observing: Observing,
    processes: Vec<Process>,
    /// Until when a process is down, or one of its parts stands still.
    down: BTreeMap<usize, Millis>,
    stalled: BTreeMap<(usize, Part), Millis>,
    /// Which process is gone after how many more steps, for how long, and how it goes.
    going: Option<(usize, usize, Millis, Going)>,
    zombies: Vec<(Millis, Zombie)>,
    ends: Vec<(Millis, Fault)>,
    faults: VecDeque<Planned>,
    /// Batches to send: when, to which target's producer, key, what.
    sending: Vec<(Millis, String, SampleBatch)>,
    late: BTreeMap<usize, (Millis, bool)>,
    policies: Policies,
    /// Where partitions ended when a transaction was left open in them.
    held_at: BTreeMap<(usize, u32), Offset>,
    /// The counts when the last load came.
    stood_at: BTreeMap<usize, u32>,
    now: Millis,
    order: Random,
    checker: Checker,
}

/// How a process goes.
#[derive(Clone, Copy)]
enum Going {
    /// At once; what it was committing arrives so much later, if at all.
    Dies(Option<Millis>),
    /// In order, up to so many commits of each part.
    Leaves(Option<usize>),
}

/// The clock of a process.
struct Skewed {
    clock: Arc<ManualClock>,
    skew_ms: Millis,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        shifted(self.clock.now(), self.skew_ms)
    }
}

/// The source of policies: what it has, and when it says so.
struct Policies {
    specs: BTreeMap<usize, Option<String>>,
    broken: Vec<usize>,
    round: i64,
    due: Millis,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let setup = &scenario.setup;
        let [metrics, signals, requests, commands] = setup.partitions;
        let partitions = Partitions::default()
            .with(Topic::Metrics, metrics)
            .with(Topic::Signals, signals)
            .with(Topic::Requests, requests)
            .with(Topic::Commands, commands)
            .with(Topic::Audit, signals);
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(START)));
        let memory = MemoryLog::new(partitions, Arc::clone(&clock) as Arc<dyn Clock>);
        let memory = if setup.markers { memory.with_markers() } else { memory };
        let log = FaultyLog::new(memory.clone());
        let world = Shared(Arc::new(std::sync::Mutex::new(World::new(&scenario.targets, memory.clone(), scenario.calm_at, setup.fleets_skew_ms))));
        let pacing = |(percent, at_least, period)| Pacing { percent, at_least, period: Duration::from_secs(period) };
        let fleets = setup.pacing_of_other.into_iter().filter_map(|other| Some(("other".parse().ok()?, pacing(other)))).collect();
        let (every, records, bytes) = setup.rounds;
        let settings = Settings {
            aggregate: Aggregate {
                pane: Duration::from_millis(setup.pane_ms),
                grace: Duration::from_millis(setup.grace_ms),
                sources: metrics,
                limits: Limits::default(),
            },
            arbitrate: Arbitrate { pacing: pacing(setup.pacing), fleets },
            rounds: Rounds { every: Duration::from_secs(every), records, bytes, ..Rounds::default() },
        };
        let process = |(number, skew_ms): (usize, &Millis)| {
            let freeze = FreezeFiles::new("/nonexistent/loadline-simulation/freeze");
            let own = Arc::new(Skewed { clock: Arc::clone(&clock), skew_ms: *skew_ms });
            let hands = Hands::new(freeze, own as Arc<dyn Clock>).with_kind("Deployment", Arc::new(world.clone()));
            Process::new(format!("p{number}"), Arc::new(log.of_another_process()), settings.clone(), Arc::new(hands))
        };
        Run {
            scenario,
            processes: setup.skew_ms.iter().enumerate().map(process).collect(),
            checker: Checker::new(scenario, settings.clone(), memory.clone()),
            observing: Observing::default(),
            down: BTreeMap::new(),
            stalled: BTreeMap::new(),
            going: None,
            zombies: Vec::new(),
            ends: Vec::new(),
            faults: scenario.faults.clone().into(),
            sending: Vec::new(),
            late: BTreeMap::new(),
            policies: Policies {
                specs: scenario.targets.iter().map(|t| (t.number, Some(t.policy.spec(t.number)))).collect(),
                broken: Vec::new(),
                round: 0,
                due: 0,
            },
            held_at: BTreeMap::new(),
            stood_at: BTreeMap::new(),
            now: 0,
            order: Random::new(scenario.seed ^ 0x0DDE),
            clock,
            memory,
            log,
            world,
        }
    }

    fn play(mut self, told: &mut Told<'_>) -> Ran {
        while self.now < self.scenario.end_at {
            if let Err(violation) = self.step(told) {
                self.checker.found(violation);
                break;
            }
            if self.stood_at.is_empty() && self.now >= self.scenario.stands_from {
                self.stood_at = self.world.lock().fleets.iter().map(|(number, fleet)| (*number, fleet.desired)).collect();
            }
            // A race that met no call until now will meet none.
            if self.now >= self.scenario.calm_at {
                self.world.lock().fleets.values_mut().for_each(|fleet| fleet.race = None);
            }
            // The longest wait before a command is tried again is over, and nothing moves any more.
            if self.now > self.scenario.stands_from + 100_000 && self.checker.all_stand(&self.world.lock(), self.now) {
                break;
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Ran {
        let world = self.world.lock();
        self.checker.end(&world, self.now);
        let ends = world
            .fleets
            .iter()
            .map(|(number, fleet)| (*number, End { stood_at: self.stood_at.get(number).copied(), ..self.checker.end_of(*number, fleet, self.now) }))
            .collect();
        let mut trace = std::hash::DefaultHasher::new();
        self.checker.add_to(&mut trace);
        world.changes.hash(&mut trace);
        let mut counts = self.checker.counts();
        counts.extend(self.log.faults().met.clone());
        counts.extend(world.met.clone());
        let seen = ["observations that were lost", "observations that came late", "observations of an earlier observer"].into_iter().zip(self.observing.met);
        counts.extend(seen.filter(|(_, times)| *times > 0));
        Ran { violations: self.checker.into_violations(), trace: trace.finish(), counts, ends }
    }

    fn step(&mut self, told: &mut Told<'_>) -> Result<(), Violation> {
        let step = self.scenario.setup.step_ms;
        self.now += step;
        self.clock.advance(Duration::from_millis(step.unsigned_abs()));
        self.end_faults(told);
        while self.faults.front().is_some_and(|planned| planned.at <= self.now) {
            if let Some(Planned { fault, .. }) = self.faults.pop_front() {
                told.say(|| Some(format!("{:>7} ms  begins: {fault:?}", self.now)));
                self.begin(&fault);
            }
        }
        self.world.lock().step(self.now, self.clock.now());
        self.announce_policies();
        self.observe();
        self.measure();
        self.raise_zombies()?;
        self.work()?;
        let world = self.world.lock();
        self.checker.look(&world, self.now, told)
    }

    /// Sources say what they have; what the log does not take is said again.
    fn publish(&self, topic: Topic, key: &str, message: Message) -> Result<(), LogError> {
        let mut effects = Effects::new();
        effects.to_key(topic, key, message);
        publish(&self.log, effects)
    }

    fn announce_policies(&mut self) {
        if self.now < self.policies.due {
            return;
        }
        self.policies.round = RoundEnd::next(self.policies.round, self.clock.now());
        let (source, round) = (RoundEnd::FILES.to_owned(), self.policies.round);
        let mut entries = Vec::new();
        for (number, spec) in &self.policies.specs {
            let (source, origin, target) = (source.clone(), format!("t{number}.yaml"), target(*number));
            if self.policies.broken.contains(number) {
                self.checker.count("rounds with a policy that cannot be read");
                entries.push(ControlEntry::Rejected(PolicyRejected { source, round, origin, target: None, error: "planned: it cannot be read".to_owned() }));
            } else if let Some(spec) = spec {
                entries.push(ControlEntry::Policy(PolicyEntry { source, round, origin, target, spec: spec.clone() }));
            } else {
                self.checker.count("rounds without a policy that was there");
            }
        }
        entries.push(ControlEntry::RoundEnd(RoundEnd { source, round }));
        let mut effects = Effects::new();
        for entry in entries {
            effects.to_key(Topic::Control, "file", Message::Control(entry));
        }
        // A round that was not taken is made again at once.
        self.policies.due = if publish(&self.log, effects).is_ok() { self.now + ROUND_EVERY } else { self.now };
    }

    fn observe(&mut self) {
        self.observing.look(&self.world.lock());
        for observation in self.observing.arrived(self.now) {
            let key = observation.target.clone();
            if self.publish(Topic::Signals, key.as_str(), Message::Signal(Signal::Fleet(observation.clone()))).is_err() {
                self.observing.under_way.push_front((self.now, observation));
            }
        }
    }

    fn measure(&mut self) {
        let measured = self.world.lock().measure();
        for (number, key, batch) in measured {
            match self.late.get(&number) {
                None => self.sending.push((self.now, key, batch)),
                Some((late, twice)) => {
                    self.checker.count("requests that came late, and in another order");
                    // Each one by another time, so that the order changes: as of a producer that does not number what it sends.
                    let late = *late * i64::try_from(self.order.below(100)).unwrap_or(0) / 100;
                    let batch = SampleBatch { producer: None, sequence: None, ..batch };
                    if *twice {
                        self.sending.push((self.now + late, key.clone(), batch.clone()));
                    }
                    self.sending.push((self.now + late, key, batch));
                }
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sending).into_iter().partition(|(at, _, _)| *at <= self.now);
        self.sending = later;
        // A producer that numbers its messages sends none before the one before was taken.
        let mut waiting = BTreeSet::new();
        for (_, key, batch) in due {
            if batch.producer.is_some() && waiting.contains(&batch.producer) {
                self.sending.push((self.now, key, batch));
                continue;
            }
            let parts = parts_of(&batch);
            let mut effects = Effects::new();
            parts.iter().for_each(|part| effects.to_key(Topic::Metrics, key.as_str(), Message::Samples(part.clone())));
            match publish(&self.log, effects) {
                Ok(()) => parts.iter().for_each(|part| self.checker.acknowledged(part)),
                // Refused or of unknown outcome: a producer sends it again.
                Err(LogError::Retry { .. } | LogError::Unknown { .. }) => {
                    waiting.insert(batch.producer.clone());
                    self.sending.push((self.now, key, batch));
                }
                Err(_) => {}
            }
        }
    }

    fn raise_zombies(&mut self) -> Result<(), Violation> {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.zombies).into_iter().partition(|(at, _)| *at <= self.now);
        self.zombies = later;
        for (_, zombie) in due {
            match zombie {
                Zombie::Commit { batch: None, .. } => {}
                Zombie::Commit { batch: Some(batch), mut session } => match session.commit(&batch) {
                    Ok(()) => self.checker.count("late commits of the dead that nobody had replaced"),
                    Err(LogError::Fenced { .. }) => self.checker.count("late commits of the dead that were fenced"),
                    Err(LogError::Fatal { reason }) => return Err(Violation::new("no run ends by itself", reason)),
                    Err(_) => {}
                },
                Zombie::Courier(mut courier) => {
                    end_in_order(&mut courier);
                    self.checker.count("late calls of the dead");
                }
            }
        }
        Ok(())
    }

    /// All parts of all processes work, in an order that the seed gives, until nothing is to be done.
    fn work(&mut self) -> Result<(), Violation> {
        let mut ready: Vec<(usize, Part)> = (0..self.processes.len()).flat_map(|process| Part::ALL.map(|part| (process, part))).collect();
        ready.retain(|(process, part)| {
            let stands = !self.down.contains_key(process) && self.stalled.contains_key(&(*process, *part));
            if stands {
                self.checker.count("looks in which a part stood still");
            }
            !stands && !self.down.contains_key(process)
        });
        // The group of a process that is gone knows so after the next look of the others: three times nothing (a read, a commit, a read) is nothing.
        let mut rests: BTreeMap<(usize, Part), u32> = BTreeMap::new();
        self.log.faults().look();
        let mut steps = 0;
        while !ready.is_empty() {
            let chosen = self.order.below(ready.len());
            let (process, part) = ready[chosen];
            let now = shifted(self.clock.now(), self.scenario.setup.skew_ms[process]);
            let fatal = |error: LogError| Violation::new("no run ends by itself", format!("p{process} {part:?}: {error}"));
            let more = self.processes[process].step(part, now).map_err(fatal)?;
            steps += 1;
            if steps > MOST_STEPS {
                return Err(Violation::new("every look comes to an end", format!("p{process} {part:?} does not come to rest")));
            }
            let rest = rests.entry((process, part)).or_default();
            *rest = if more { 0 } else { *rest + 1 };
            if *rest >= 3 {
                ready.swap_remove(chosen);
            }
            if let Some((going, after, down, how)) = self.going {
                self.going = Some((going, after.saturating_sub(1), down, how));
                if after == 0 {
                    self.going = None;
                    match how {
                        Going::Dies(zombie) => self.kill(going, down, zombie),
                        Going::Leaves(cut) => self.leave(going, down, cut),
                    }
                    ready.retain(|(process, _)| *process != going);
                }
            }
        }
        Ok(())
    }

    fn kill(&mut self, process: usize, down: Millis, zombie: Option<Millis>) {
        let now = self.clock.now();
        self.checker.count("processes that died");
        let zombies = self.processes[process].kill(now);
        self.down.insert(process, self.now + down);
        // Without a late commit, the session is missed at once.
        if let Some(late) = zombie {
            self.zombies.extend(zombies.into_iter().map(|zombie| (self.now + late, zombie)));
        }
    }

    fn leave(&mut self, process: usize, down: Millis, cut: Option<usize>) {
        self.checker.count(if cut.is_some() { "processes that were cut off as they left" } else { "processes that left in order" });
        let left = self.processes[process].leave(self.clock.now(), cut);
        self.down.insert(process, self.now + down);
        // Gone, with what they had sent arriving within the time that the process is down.
        self.zombies.extend(left.into_iter().map(|zombie| (self.now + down / 2, zombie)));
    }
}

/// As a large request is stored: of every third message each sample is a part of it.
fn parts_of(batch: &SampleBatch) -> Vec<SampleBatch> {
    if batch.sequence.is_none_or(|sequence| sequence % 3 != 0) {
        return vec![batch.clone()];
    }
    (0..).zip(&batch.samples).map(|(part, sample)| SampleBatch { part, samples: vec![sample.clone()], ..batch.clone() }).collect()
}
