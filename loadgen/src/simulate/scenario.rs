//! What one run is made of, drawn from its seed: the installation, the targets with their policies and loads, and the
//! faults.
//!
//! A scenario is plain data, and each part has a seed of its own: a target or a fault can be taken out, and the others
//! stay what they were. That is how a failing run is made smaller.

use std::fmt;
use std::str::FromStr;

use crate::random::Random;

use super::policy::{self, Rule};

/// Virtual milliseconds since the start of a run.
pub type Millis = i64;

/// One run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What everything was drawn from.
    pub seed: u64,
    /// The installation.
    pub setup: Setup,
    /// The targets.
    pub targets: Vec<TargetPlan>,
    /// What goes wrong, and when.
    pub faults: Vec<Planned>,
    /// From here on nothing goes wrong.
    pub calm_at: Millis,
    /// From here on every load stands.
    pub stands_from: Millis,
    /// Whether every target has all that it may have before its last load comes, so that where it ends does not depend on where it was at the calm.
    pub sweeps: bool,
    /// The end.
    pub end_at: Millis,
    /// Of which kinds its faults were drawn.
    pub kinds: Kinds,
}

/// Which kinds of faults are drawn: all of them where none is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kinds(Vec<&'static str>);

impl Kinds {
    fn allow(&self, fault: &Fault) -> bool {
        self.0.is_empty() || self.0.contains(&fault.kind())
    }

    fn allow_one_of(&self, kinds: &[&'static str]) -> bool {
        self.0.is_empty() || kinds.iter().any(|kind| self.0.contains(kind))
    }
}

impl FromStr for Kinds {
    type Err = String;

    /// Names of [`Fault::KINDS`], with commas between them.
    fn from_str(names: &str) -> Result<Self, String> {
        let known = |name: &str| {
            let kind = Fault::KINDS.iter().find(|kind| **kind == name);
            kind.copied().ok_or_else(|| format!("there is no kind of faults {name:?}; there are {}", Fault::KINDS.join(", ")))
        };
        names.split(',').map(known).collect::<Result<_, _>>().map(Kinds)
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// The installation.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Processes that share the work.
    pub processes: usize,
    /// The partitions of `metrics`, `signals`, `requests` and `commands`.
    pub partitions: [u32; 4],
    /// The length of a pane, in ms.
    pub pane_ms: u64,
    /// How long a pane is waited for, in ms.
    pub grace_ms: u64,
    /// Virtual time between two looks at everything.
    pub step_ms: Millis,
    /// Whether offsets have gaps.
    pub markers: bool,
    /// Snapshot rounds: every so many seconds, so many records, so many bytes a commit.
    pub rounds: (u64, u64, usize),
    /// Removals from a fleet: percent, at least, period in seconds.
    pub pacing: (u32, u32, u64),
    /// The same for the fleet `other`, where it has its own.
    pub pacing_of_other: Option<(u32, u32, u64)>,
    /// How far the clock of each process is from the log's.
    pub skew_ms: Vec<Millis>,
    /// How far the clock by which fleets say when their instances started is from the log's.
    pub fleets_skew_ms: Millis,
}

/// A target: its policy, its load, and how its instances behave.
#[derive(Debug, Clone)]
pub struct TargetPlan {
    /// Its number, which names it.
    pub number: usize,
    /// For what is random about it while it runs.
    pub seed: u64,
    /// Its policy.
    pub policy: policy::Plan,
    /// What it starts with.
    pub replicas: u32,
    /// From the start of an instance until it is ready.
    pub startup_ms: Millis,
    /// Between two measurements.
    pub every_ms: Millis,
    /// How far the clock of its producers is from the log's.
    pub skew_ms: Millis,
    /// Whether each instance keys its samples by itself, so that they spread over the partitions of `metrics`.
    pub spread: bool,
    /// What it measures beyond what its first policy names: for those that come later.
    pub more: Vec<Rule>,
    /// Whether its queue is the one that all such targets share: each sample of it is of all of them.
    pub shares: bool,
    /// (from when on, how much): the load over time. The last entry stands.
    pub load: Vec<(Millis, f64)>,
}

/// A fault, and when it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// When.
    pub at: Millis,
    /// What.
    pub fault: Fault,
}

/// How long something lasts, in ms.
pub type For = Millis;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the words of each variant name its fields; numbers count from 0, in the order of the setup")]
pub enum Fault {
    /// A process dies after `after` more steps of its parts, and is back later. With `zombie`, what it was committing
    /// arrives so many ms after its death.
    Kill { process: usize, after: usize, down: For, zombie: Option<For> },
    /// One stage of a process stands still, and goes on.
    Stall { process: usize, part: Part, lasts: For },
    /// One stage of a process dies alone, with what it was committing or calling; it is back later.
    KillPart { process: usize, part: Part, down: For, zombie: Option<For> },
    /// A process ends in order after `after` more steps of its parts, and is back later; with `cut`, each of its parts dies after so many commits of
    /// its hand-over.
    Leave { process: usize, after: usize, down: For, cut: Option<usize> },
    /// The next commits of a group fail so.
    Commits { part: Part, how: How, count: usize },
    /// The next commits of a group are under way for so many looks at them; what came of each is told then.
    CommitsTakeLong { part: Part, looks: usize, how: Option<How>, count: usize, lasts: For },
    /// What a part remembers of a partition cannot be read; one that has the partition goes on with it.
    StatesLost { part: Part, partition: u32, lasts: For },
    /// The log cannot be read.
    Unreadable { lasts: For },
    /// The log takes nothing: its disk is full.
    Full { lasts: For },
    /// Readers of a partition do not see what comes after somebody's open transaction.
    OpenTransaction { topic: usize, partition: u32, lasts: For },
    /// The log's clock, and everybody's with it, is set.
    ClockSet { by: Millis },
    /// The clients of a part have no more than so many records of what there is from one look to the next, as when they wait for what they fetch: only of a log with gaps, as a
    /// broker's.
    Fetches { part: Part, most: usize, lasts: For },
    /// The next polls of a group fail, though their log can be read: only of a log with gaps.
    Polls { part: Part, count: usize },
    /// Nobody leads a partition, so that it can be neither read nor written: only of a log with gaps.
    Headless { topic: usize, partition: u32, lasts: For },
    /// Appends of sources fail so.
    Appends { how: How, count: usize },
    /// Records that all have read and no restart needs are removed; with `unread`, all but the last ones.
    Retention { topic: usize, partition: u32, unread: bool },
    /// No record may be larger, for a time.
    SizeLimit { bytes: usize, lasts: For },
    /// A record that nobody can read.
    Poison { topic: usize, partition: u32 },
    /// A metric of a target is not measured.
    Silent { target: usize, metric: usize, lasts: For },
    /// Of the instances of a target only one in so many measures a metric.
    FewTell { target: usize, metric: usize, one_in: u64, lasts: For },
    /// Samples of a target come late by `late`, in another order, and some twice.
    Late { target: usize, late: For, lasts: For, twice: bool },
    /// Samples that are no numbers, or lie in the future.
    Nonsense { target: usize, lasts: For },
    /// Observations of a target are lost.
    Unseen { target: usize, lasts: For },
    /// Observations of a target come late by `late`.
    SeenLate { target: usize, late: For, lasts: For },
    /// The observer begins a new term; what the old one saw arrives once more, later.
    NewTerm { echo: For },
    /// A person sets a target's count.
    ByHand { target: usize, to: u32 },
    /// A target is deleted and made again with this count.
    Recreated { target: usize, replicas: u32 },
    /// Calls to the world fail; with `done`, they took effect all the same.
    ActuationFails { target: usize, done: bool, lasts: For },
    /// Calls to the world take longer than they may: each takes effect so many ms later, unless the target changed meanwhile.
    ActuationSlow { target: usize, late: For, lasts: For },
    /// Somebody sets a target's count between the next read of it and the write.
    Raced { target: usize, to: u32 },
    /// Instances of a target that are started do not become ready.
    NeverReady { target: usize, lasts: For },
    /// A target bears a freeze mark.
    Frozen { target: usize, lasts: For },
    /// A target's policy is written anew.
    PolicyEdited { target: usize, policy: Box<policy::Plan> },
    /// A target's policy cannot be used, for a time.
    PolicyBroken { target: usize, lasts: For },
    /// A target's policy is not there, for a time.
    PolicyGone { target: usize, lasts: For },
}

/// A part of a process that works on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Samples into panes.
    Aggregate,
    /// Policies.
    Admit,
    /// Decisions.
    Decide,
    /// Grants and commands.
    Arbitrate,
    /// Commands into the world.
    Actuate,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [Part::Aggregate, Part::Admit, Part::Decide, Part::Arbitrate, Part::Actuate];

    /// The group that it is a member of.
    pub fn group(self) -> &'static str {
        ["aggregate", "admit", "decide", "arbitrate", "actuate"][self as usize]
    }
}

/// How a call to the log fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing happened.
    Refused,
    /// Nothing happened, and nobody knows.
    UnknownNotDone,
    /// It happened, and nobody knows.
    UnknownDone,
}

/// The topics that a fault may name by number.
pub const TOPICS: [loadline::log::Topic; 5] = [
    loadline::log::Topic::Metrics,
    loadline::log::Topic::Signals,
    loadline::log::Topic::Requests,
    loadline::log::Topic::Commands,
    loadline::log::Topic::Control,
];

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.setup)?;
        for target in &self.targets {
            writeln!(
                f,
                "  target t{}: {} replicas, ready after {} ms, measured every {} ms{} by a clock {} ms ahead, load {:?}",
                target.number,
                target.replicas,
                target.startup_ms,
                target.every_ms,
                if target.spread { " (spread)" } else { "" },
                target.skew_ms,
                target.load
            )?;
            writeln!(f, "    {}", target.policy.spec(target.number))?;
        }
        for planned in &self.faults {
            writeln!(f, "  {:>7} ms  {:?}", planned.at, planned.fault)?;
        }
        let sweeps = if self.sweeps { format!(", the last load from {} ms", self.stands_from) } else { String::new() };
        write!(f, "  calm from {} ms{sweeps}, end at {} ms", self.calm_at, self.end_at)
    }
}

/// Draws from a seed.
pub(super) struct Draw(pub(super) Random);

impl Draw {
    pub(super) fn from<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len())].clone()
    }

    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.0.below(usize::try_from(high - low + 1).unwrap_or(1))).unwrap_or(0)
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.0.below(n) == 0
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Scenario {
        Scenario::draw_with(seed, &Kinds::default())
    }

    /// The scenario of a seed with faults of these kinds alone.
    pub fn draw_with(seed: u64, kinds: &Kinds) -> Scenario {
        let mut draw = Draw(Random::new(seed));
        let mut setup = Setup::draw(&mut draw);
        let count = draw.from(&[1, 1, 2, 2, 3, 4]);
        // One in sixteen is long enough for a target that nobody sees for minutes.
        let long = draw.one_in(16);
        let calm_at = if long { draw.between(250, 300) } else { draw.between(70, 170) } * 1_000;
        let mut targets: Vec<TargetPlan> = (0..count).map(|number| TargetPlan::draw(number, draw.0.bits(), &setup, calm_at)).collect();
        let unheard = unheard(&mut Draw(Random::new(seed ^ 0x5117)), &mut setup, &mut targets, calm_at);
        let queues = |target: &TargetPlan| target.metrics().any(|rule| matches!(rule, Rule::Queue(_)));
        if let Some(load) = targets.iter().find(|target| queues(target)).map(|target| target.load.clone()) {
            for target in targets.iter_mut().filter(|target| queues(target)) {
                (target.shares, target.load) = (true, load.clone());
            }
        }
        let count = draw.from(&[0, 1, 2, 3, 4, 6, 8, 12]);
        let (of_brokers, of_all): (Vec<&str>, Vec<&str>) = Fault::KINDS.iter().partition(|kind| Fault::OF_BROKERS.contains(kind));
        let mut faults: Vec<Planned> = if kinds.allow_one_of(&of_all) {
            (0..count).map(|_| Planned::draw_one_of(kinds, &mut draw, &setup, &targets, calm_at)).collect()
        } else {
            Vec::new()
        };
        if setup.markers && kinds.allow_one_of(&of_brokers) {
            faults.extend(Planned::draw_of_broker(&mut Draw(Random::new(seed ^ 0xFE7C)), &setup, calm_at));
        }
        faults.extend(unheard);
        // One in six: a metric falls silent while the others would let the fleet shrink.
        let sees_little = |target: &&TargetPlan| target.policy.metrics.iter().filter(|metric| metric.rule != Rule::Observed).count() > 1;
        let several: Vec<usize> = targets.iter().filter(sees_little).map(|target| target.number).collect();
        if !several.is_empty() && draw.one_in(6) {
            let (target, at) = (draw.from(&several), draw.between(15, 25) * 1_000);
            let lasts = (calm_at - 1_000 - at).min(120_000);
            let metric = draw.0.below(targets[target].policy.metrics.len());
            faults.push(Planned { at, fault: Fault::Silent { target, metric, lasts } });
            let load = &mut targets[target].load;
            load.retain(|(from, _)| *from < at || *from > at + lasts);
            load.push((at + 3_000, 0.5));
            load.sort_by_key(|(from, _)| *from);
        }
        if long {
            let fault = Fault::Unseen { target: draw.0.below(targets.len()), lasts: draw.between(185_000, 225_000) };
            faults.push(Planned { at: draw.between(8_000, 20_000), fault });
        }
        faults.retain(|planned| kinds.allow(&planned.fault));
        let mut slowest = targets.iter().map(|t| t.policy.settles_within_ms()).max().unwrap_or(0);
        for planned in &faults {
            if let Fault::PolicyEdited { target, policy } = &planned.fault {
                slowest = slowest.max(policy.settles_within_ms());
                for metric in &policy.metrics {
                    if targets[*target].metrics().all(|rule| rule.name() != metric.rule.name()) {
                        targets[*target].more.push(metric.rule);
                    }
                }
            }
        }
        let sweeps = Draw(Random::new(seed ^ 0x53EE)).one_in(SWEEPS_ONE_IN);
        let stands_from = if sweeps { calm_at + slowest } else { calm_at };
        if sweeps {
            for target in &mut targets {
                let last = target.load.pop().map_or(0.0, |(_, load)| load);
                target.load.extend([(calm_at, MORE_THAN_ANY), (stands_from, last)]);
            }
        }
        let end_at = stands_from + slowest;
        let mut scenario = Scenario { seed, setup, targets, faults, calm_at, stands_from, sweeps, end_at, kinds: kinds.clone() };
        scenario.faults.sort_by_key(|planned| planned.at);
        scenario
    }

    /// The same, with nothing going wrong; policies are edited as they were.
    #[must_use]
    pub fn undisturbed(&self) -> Scenario {
        let edits = self.faults.iter().filter(|planned| matches!(planned.fault, Fault::PolicyEdited { .. }));
        Scenario { faults: edits.cloned().collect(), ..self.clone() }
    }
}

/// One seed in so many sweeps.
const SWEEPS_ONE_IN: usize = 10;
/// A load for which every policy asks for all that it may have.
const MORE_THAN_ANY: f64 = 60.0;

/// Once in eight, a part of the pipeline stands still through which some of a target's instances are heard and others are
/// not, for longer than what they measured stays fresh: their sum would be smaller, and the target would shrink by it.
fn unheard(draw: &mut Draw, setup: &mut Setup, targets: &mut [TargetPlan], calm_at: Millis) -> Option<Planned> {
    if !draw.one_in(8) {
        return None;
    }
    if setup.processes < 2 {
        setup.processes = 2;
        setup.skew_ms.push(0);
    }
    setup.partitions[0] = setup.partitions[0].max(2);
    let at = draw.between(15, 25) * 1_000;
    let lasts = (calm_at - 1_000 - at).min(draw.between(50, 80) * 1_000);
    let chosen = draw.0.below(targets.len());
    let target = &mut targets[chosen];
    target.policy.sum_up(draw, setup.pane_ms);
    (target.spread, target.replicas) = (true, u32::try_from(draw.between(4, 8)).unwrap_or(4));
    // 80 in all, between the values at which it steps.
    target.load.retain(|(from, _)| *from > at + lasts);
    target.load.insert(0, (0, 8.0));
    Some(Planned { at, fault: Fault::Stall { process: draw.0.below(setup.processes), part: Part::Aggregate, lasts } })
}

impl Setup {
    fn draw(draw: &mut Draw) -> Setup {
        let processes = draw.from(&[1, 1, 2, 3]);
        let partitions = match draw.from(&[0, 1, 2]) {
            0 => [1, 1, 1, 1],
            1 => [2, 1, 1, 2],
            _ => [3, 2, 2, 1],
        };
        let grace_ms = draw.from(&[500, 500, 0, 1_500]);
        Setup {
            processes,
            partitions,
            pane_ms: draw.from(&[5_000, 5_000, 2_000, 10_000]),
            grace_ms,
            step_ms: draw.from(&[500, 1_000, 2_000]),
            markers: draw.one_in(2),
            rounds: (draw.from(&[10, 30, 300]), draw.from(&[20, 100, 1_000]), draw.from(&[1, 2_000, 1_000_000])),
            pacing: (draw.from(&[10, 50]), draw.from(&[2, 5]), draw.from(&[5, 10])),
            pacing_of_other: draw.one_in(2).then(|| (draw.from(&[20, 100]), draw.from(&[1, 3]), draw.from(&[5, 8]))),
            // The largest are longer than any pause between two marks.
            skew_ms: (0..processes).map(|_| skew(draw)).collect(),
            fleets_skew_ms: skew(draw),
        }
    }
}

/// How far a clock is from the log's: one in three by up to 0.4 s, one in four of those by ten times as much.
fn skew(draw: &mut Draw) -> Millis {
    if draw.one_in(3) { draw.between(-400, 400) * draw.from(&[1, 1, 1, 10]) } else { 0 }
}

impl TargetPlan {
    fn draw(number: usize, seed: u64, setup: &Setup, calm_at: Millis) -> TargetPlan {
        let mut draw = Draw(Random::new(seed));
        let policy = policy::Plan::draw(&mut draw, setup.pane_ms);
        let mut load = vec![(0, draw.between(1, 12) as f64)];
        let mut at = 0;
        loop {
            at += draw.between(10, 50) * 1_000;
            if at >= calm_at {
                break;
            }
            load.push((at, draw.from(&[0.5, 2.0, 4.0, 7.0, 11.0, 16.0, 30.0])));
        }
        load.push((calm_at, f64::from(u32::try_from(draw.between(2, 14)).unwrap_or(2)) + 0.37));
        TargetPlan {
            number,
            seed: draw.0.bits(),
            replicas: u32::try_from(draw.between(1, 8)).unwrap_or(1),
            startup_ms: draw.from(&[0, 1_000, 3_000, 8_000]),
            every_ms: draw.from(&[1_000, 2_000, 2_000, 4_000]),
            spread: draw.one_in(3),
            // A producer whose clock is behind by more than the grace is always late: each pane lacks some of its samples.
            skew_ms: skew(&mut draw).max(-i64::try_from(setup.grace_ms).unwrap_or(0)),
            more: Vec::new(),
            shares: false,
            load,
            policy,
        }
    }

    /// How much it has to do.
    pub fn load_at(&self, at: Millis) -> f64 {
        self.load.iter().take_while(|(from, _)| *from <= at).last().map_or(0.0, |(_, load)| *load)
    }

    /// The metrics that this target sends.
    pub fn metrics(&self) -> impl Iterator<Item = &Rule> {
        self.policy.metrics.iter().map(|metric| &metric.rule).chain(&self.more)
    }
}

impl Planned {
    /// One of these kinds, which may be rare among all.
    fn draw_one_of(kinds: &Kinds, draw: &mut Draw, setup: &Setup, targets: &[TargetPlan], calm_at: Millis) -> Planned {
        loop {
            let planned = Planned::draw(draw, setup, targets, calm_at);
            if kinds.allow(&planned.fault) {
                return planned;
            }
        }
    }

    /// What a broker's client meets, in one of three: it has less than there is while its polls fail, mostly of the part that says up to when all is read; or nobody leads a
    /// partition; or commits take long; or what is remembered of a partition cannot be read by who is given it.
    fn draw_of_broker(draw: &mut Draw, setup: &Setup, calm_at: Millis) -> Vec<Planned> {
        if !draw.one_in(3) {
            return Vec::new();
        }
        let part = if draw.one_in(2) { Part::Aggregate } else { draw.from(&Part::ALL) };
        let at = draw.between(5_000, calm_at - 40_000);
        let lasts = draw.between(2_000, 30_000);
        let mut faults = vec![Planned { at, fault: Fault::Fetches { part, most: draw.from(&[0, 1, 3, 10]), lasts } }];
        for _ in 0..draw.between(0, 4) {
            let count = usize::try_from(draw.between(1, 3)).unwrap_or(1);
            faults.push(Planned { at: at + draw.between(0, lasts), fault: Fault::Polls { part, count } });
        }
        if draw.one_in(2) {
            let topic = if draw.one_in(2) { 0 } else { draw.0.below(TOPICS.len()) };
            let partitions = setup.partitions.get(topic).copied().unwrap_or(1);
            let partition = u32::try_from(draw.0.below(partitions as usize)).unwrap_or(0);
            let (at, lasts) = (draw.between(5_000, calm_at - 40_000), draw.between(1_000, 30_000));
            faults.push(Planned { at, fault: Fault::Headless { topic, partition, lasts } });
        }
        if draw.one_in(2) {
            let how = [None, Some(How::Refused), Some(How::UnknownNotDone), Some(How::UnknownDone)];
            let (looks, how) = (draw.0.below(40), draw.from(&how));
            let (part, count) = (draw.from(&Part::ALL), 1 + draw.0.below(6));
            let (at, lasts) = (draw.between(5_000, calm_at - 40_000), draw.between(1_000, 30_000));
            faults.push(Planned { at, fault: Fault::CommitsTakeLong { part, looks, how, count, lasts } });
        }
        if draw.one_in(2) {
            // Somebody is to be given the partition meanwhile.
            let part = draw.from(&[Part::Aggregate, Part::Admit, Part::Decide, Part::Arbitrate]);
            let (process, down) = (draw.0.below(setup.processes), draw.between(500, 5_000));
            let (at, lasts) = (draw.between(5_000, calm_at - 40_000), draw.between(1_000, 30_000));
            let partition = u32::try_from(draw.0.below(4)).unwrap_or(0);
            faults.push(Planned { at, fault: Fault::StatesLost { part, partition, lasts } });
            faults.push(Planned { at, fault: Fault::KillPart { process, part, down, zombie: None } });
        }
        faults
    }

    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "small numbers, at least 0")]
    fn draw(draw: &mut Draw, setup: &Setup, targets: &[TargetPlan], calm_at: Millis) -> Planned {
        // Every fault begins and ends before the calm.
        let target = draw.0.below(targets.len());
        let latest = calm_at - 40_000;
        // Every other one soon after a change of its target's load: while what follows from that is under way.
        let change = draw.from(&targets[target].load).0 + draw.between(1_000, 12_000);
        let at = if draw.one_in(2) { change.clamp(5_000, latest) } else { draw.between(5_000, latest) };
        let end = calm_at - 1_000;
        // Long enough for a command to expire (30 s) and for every metric to become stale (61 s).
        let long = draw.between(500, 80_000).min(end - at);
        let short = draw.between(1_000, 10_000).min(end - at);
        let process = draw.0.below(setup.processes);
        let part = draw.from(&Part::ALL);
        let how = draw.from(&[How::Refused, How::UnknownNotDone, How::UnknownDone]);
        let count = draw.between(1, 6) as usize;
        let topic = draw.0.below(TOPICS.len());
        let partition = draw.0.below(setup.partitions.get(topic).copied().unwrap_or(1) as usize) as u32;
        let metric = draw.0.below(targets[target].policy.metrics.len());
        let max = i64::from(targets[target].policy.max);
        let fault = match draw.0.below(45) {
            0..=5 => Fault::Kill { process, after: draw.0.below(20), down: short, zombie: draw.one_in(2).then(|| draw.between(0, 8_000)) },
            6..=8 => Fault::Stall { process, part, lasts: long },
            9 => Fault::Leave { process, after: draw.0.below(20), down: short, cut: None },
            38 => Fault::Leave { process, after: draw.0.below(20), down: short, cut: Some(draw.0.below(3)) },
            39 | 40 => Fault::KillPart { process, part, down: short, zombie: draw.one_in(2).then(|| draw.between(0, 8_000)) },
            41 => Fault::ActuationSlow { target, late: draw.between(500, 40_000), lasts: long },
            42 => Fault::Raced { target, to: draw.between(1, max + 2) as u32 },
            10..=12 => Fault::Commits { part, how, count },
            13 => Fault::Unreadable { lasts: short },
            14 => Fault::Full { lasts: short },
            15 => Fault::OpenTransaction { topic, partition, lasts: short },
            16 => Fault::ClockSet { by: draw.from(&[-3_600_000, -90_000, -20_000, -1_500, 1_500, 20_000, 90_000, 3_600_000]) },
            17 => Fault::Appends { how, count },
            18 => Fault::Retention { topic, partition, unread: draw.one_in(3) },
            19 => Fault::SizeLimit { bytes: draw.from(&[600, 1_200, 2_500]), lasts: short },
            20 => Fault::Poison { topic, partition },
            21..=24 => Fault::Silent { target, metric, lasts: long },
            25 => Fault::Late { target, late: draw.between(500, 30_000), lasts: short, twice: draw.one_in(2) },
            26 => Fault::Nonsense { target, lasts: short },
            27 => Fault::Unseen { target, lasts: long },
            28 => Fault::SeenLate { target, late: draw.between(500, 30_000), lasts: long },
            29 => Fault::NewTerm { echo: draw.between(500, 20_000) },
            // Once in a while to nothing, which nobody but a person may end.
            30 => Fault::ByHand { target, to: if draw.one_in(5) { 0 } else { draw.between(1, max + 4) as u32 } },
            31 => Fault::Recreated { target, replicas: if draw.one_in(8) { 0 } else { draw.between(1, max) as u32 } },
            32 => Fault::ActuationFails { target, done: draw.one_in(2), lasts: long },
            33 => Fault::NeverReady { target, lasts: long },
            34 => Fault::Frozen { target, lasts: long },
            35 => {
                // Other bounds, or another policy altogether.
                let mut policy = if draw.one_in(2) { targets[target].policy.clone() } else { policy::Plan::draw(draw, setup.pane_ms) };
                let min = draw.between(1, max);
                (policy.min, policy.max) = (min as u32, draw.between(min, max + 6) as u32);
                policy.omitted.remove("min");
                Fault::PolicyEdited { target, policy: Box::new(policy) }
            }
            43 | 44 => Fault::FewTell { target, metric, one_in: draw.from(&[2, 3, 4]), lasts: long },
            36 => Fault::PolicyBroken { target, lasts: long },
            _ => Fault::PolicyGone { target, lasts: long },
        };
        Planned { at, fault }
    }
}

impl Fault {
    /// The names of the kinds.
    pub const KINDS: [&str; 35] = [
        "Kill",
        "Stall",
        "KillPart",
        "Leave",
        "Commits",
        "Unreadable",
        "Full",
        "OpenTransaction",
        "ClockSet",
        "Appends",
        "Retention",
        "SizeLimit",
        "Poison",
        "Silent",
        "FewTell",
        "Late",
        "Nonsense",
        "Unseen",
        "SeenLate",
        "NewTerm",
        "ByHand",
        "Recreated",
        "ActuationFails",
        "ActuationSlow",
        "Raced",
        "NeverReady",
        "Frozen",
        "PolicyEdited",
        "PolicyBroken",
        "PolicyGone",
        "Fetches",
        "Polls",
        "CommitsTakeLong",
        "StatesLost",
        "Headless",
    ];

    /// Those that only a log with gaps has, as a broker's.
    pub const OF_BROKERS: [&str; 5] = ["Fetches", "Polls", "Headless", "CommitsTakeLong", "StatesLost"];

    /// Its name.
    pub fn kind(&self) -> &'static str {
        let shown = format!("{self:?}");
        let name = shown.split([' ', '{']).next().unwrap_or_default();
        Fault::KINDS.into_iter().find(|kind| *kind == name).unwrap_or_else(|| unreachable!("{name} is not among the kinds"))
    }

    /// Whether it is about a process that an installation of `processes` lacks.
    pub fn names_a_process_beyond(&self, processes: usize) -> bool {
        matches!(self, Fault::Kill { process, .. } | Fault::KillPart { process, .. } | Fault::Stall { process, .. } | Fault::Leave { process, .. } if *process >= processes)
    }

    /// Whether it is about a partition.
    pub fn names_a_partition(&self) -> bool {
        matches!(self, Fault::OpenTransaction { .. } | Fault::Retention { .. } | Fault::Poison { .. } | Fault::Headless { .. })
    }
}
