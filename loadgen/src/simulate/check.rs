//! The invariants, checked at every step against what stands in the log and what happened in the world.
//!
//! Nothing here asks the code under test what is right: limits are computed again, more slowly, from the record of what
//! was applied; panes are counted against the samples; blindness is told from the samples and the marks. Only "a crash
//! changes no decision" compares with the stages themselves, folded without a disturbance.
//!
//! | file | what it holds |
//! |---|---|
//! | [`tape`] | everything that was ever appended, also what retention removed |
//! | [`panes`] | every acknowledged sample is in exactly one pane |
//! | [`measured`] | what decide measures is what the parts in the log come to |
//! | [`limits`] | bounds, rate limits, cooldowns, the pacing of removals, and that no command takes effect twice |
//! | [`sight`] | the blind never shrink |
//! | [`people`] | what people said holds: freeze marks, counts of 0, policies that cannot be read |
//! | [`in_force`] | what is decided is decided by the policy that was announced last |
//! | [`holds`] | a threshold steps only where its value was beyond it for as long as it says |
//! | [`warming`] | a threshold waits for the instances of its last step |
//! | [`waiting`] | a claim that waits for its fleet's removals is served when there is room |
//! | [`folds`] | what was decided is what an undisturbed fold decides, also of one target's signals alone |

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

use loadline::log::memory::MemoryLog;
use loadline::log::{Offset, Topic};
use loadline::model::{AlertState, Audit, Decision, Message, OutcomeResult, Request, SampleBatch, Signal, TargetId, Timestamp};

use super::policy::Plan;
use super::process::Settings;
use super::run::{End, Told};
use super::scenario::{Millis, Scenario};
use super::world::{Fleet, World, number_of};

mod folds;
mod holds;
mod in_force;
mod limits;
mod measured;
mod panes;
mod people;
mod sight;
mod tape;
mod waiting;
mod warming;

use folds::Excuses;
use holds::Holds;
use in_force::InForce;
use limits::Limits;
use measured::Measured;
use panes::Panes;
use people::People;
use sight::Sight;
use tape::{Entry, Tape};
use waiting::Waiting;
use warming::Warming;

/// For so long before the end no count changes any more.
const STANDS_FOR: Millis = 40_000;

/// Something that must hold and did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What must hold.
    pub invariant: &'static str,
    /// What was found.
    pub details: String,
}

impl Violation {
    /// Says so.
    pub fn new(invariant: &'static str, details: impl Into<String>) -> Self {
        Violation { invariant, details: details.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" does not hold: {}", self.invariant, self.details)
    }
}

/// What a command came to, as it is counted.
fn came_to(result: OutcomeResult) -> &'static str {
    match result {
        OutcomeResult::Applied => "outcomes: applied",
        OutcomeResult::Conflict => "outcomes: conflict",
        OutcomeResult::Expired => "outcomes: expired",
        OutcomeResult::Stale => "outcomes: stale",
        OutcomeResult::Superseded => "outcomes: superseded",
        OutcomeResult::Rejected => "outcomes: rejected",
        OutcomeResult::Failed => "outcomes: failed",
        OutcomeResult::Frozen => "outcomes: frozen",
        OutcomeResult::Lost => "outcomes: lost",
        OutcomeResult::Other => "outcomes: of another release",
    }
}

/// So many records that were handed to nobody must be told of.
const UNREAD: Offset = 100;

/// The policies that a target had, each with the virtual time since when.
pub(super) struct Plans(BTreeMap<usize, Vec<(Millis, Plan)>>);

impl Plans {
    /// The policy in force.
    fn of(&self, target: usize) -> Option<&Plan> {
        self.0.get(&target)?.last().map(|(_, plan)| plan)
    }

    /// The policies that a command of this moment may have been decided by: a claim stands for 150 s, a command for 30.
    fn lately(&self, target: usize, now: Millis) -> Vec<&Plan> {
        let Some(plans) = self.0.get(&target) else { return Vec::new() };
        let from = plans.partition_point(|(since, _)| *since < now - 180_000).saturating_sub(1);
        plans[from..].iter().map(|(_, plan)| plan).collect()
    }
}

/// Checks a run.
pub struct Checker {
    scenario: Scenario,
    settings: Settings,
    tape: Tape,
    plans: Plans,
    panes: Panes,
    limits: Limits,
    measured: Measured,
    sight: Sight,
    people: People,
    waiting: Waiting,
    warming: Warming,
    decisions: BTreeMap<TargetId, Vec<Decision>>,
    changes_seen: usize,
    now: Millis,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
    holds: Holds,
    in_force: InForce,
    /// What was announced last of each target, and whether the log refused an announcement for its size, which was told.
    announced: BTreeMap<usize, Option<String>>,
    announcement_refused: bool,
    /// Of which partitions a loss is yet to be told, and of what.
    to_tell: BTreeMap<String, String>,
    excuses: Excuses,
    without_folds: bool,
}

impl Checker {
    /// A checker of a run that has not begun.
    pub fn new(scenario: &Scenario, settings: Settings, log: MemoryLog) -> Self {
        let pane = settings.aggregate.pane;
        let skew = scenario.setup.skew_ms.iter().copied().max().unwrap_or(0).max(0);
        let behind = scenario.setup.skew_ms.iter().copied().min().unwrap_or(0).min(0);
        let behind = Duration::from_millis(behind.unsigned_abs());
        Checker {
            plans: Plans(scenario.targets.iter().map(|t| (t.number, vec![(0, t.policy.clone())])).collect()),
            tape: Tape::new(log),
            panes: Panes::new(pane),
            limits: Limits::new(&settings.arbitrate, behind),
            measured: Measured::new(pane),
            sight: Sight::new(&settings.aggregate),
            people: People::new(scenario),
            waiting: Waiting::new(&settings.arbitrate, scenario.calm_at),
            warming: Warming::new(scenario),
            decisions: BTreeMap::new(),
            changes_seen: 0,
            now: 0,
            counts: BTreeMap::new(),
            violations: Vec::new(),
            holds: Holds::default(),
            in_force: InForce::default(),
            announced: BTreeMap::new(),
            announcement_refused: false,
            to_tell: BTreeMap::new(),
            excuses: Excuses { skew, ..Excuses::default() },
            without_folds: false,
            scenario: scenario.clone(),
            settings,
        }
    }

    /// Counts what happened.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A violation that was found elsewhere.
    pub fn found(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// The log said that it has these samples.
    pub fn acknowledged(&mut self, batch: &SampleBatch) {
        self.panes.acknowledged(batch);
    }

    /// The clock was set.
    pub fn clock_set(&mut self, by: Millis, clock: Timestamp) {
        self.excuses.sets.push((self.now, clock.as_millis() - by));
        self.holds.clock_set();
        self.limits.clock_set(by, clock);
        self.sight.clock_set(by, self.now, clock);
        self.measured.unsure();
        if by < 0 {
            self.in_force.unsure();
            self.panes.unsure();
        }
    }

    /// A policy was written anew.
    pub fn policy_edited(&mut self, target: usize, plan: Plan) {
        self.plans.0.entry(target).or_default().push((self.now, plan));
    }

    /// A target's policy as it was written last.
    pub fn policy_of(&self, target: usize) -> Option<&Plan> {
        self.plans.of(target)
    }

    /// Retention removed what stands before an offset; where that loses what somebody needs: up to where it had committed, and up to where it was handed the records.
    pub fn trimmed(&mut self, topic: Topic, partition: u32, before: Offset, lost: Option<(Offset, Offset)>) {
        self.tape.read_up_to(topic, partition, before);
        if topic == Topic::Metrics && lost.is_some() {
            self.panes.unsure();
        }
        if topic == Topic::Signals && lost.is_some() {
            self.measured.unsure();
        }
        if let Some((_, handed)) = lost.filter(|(_, handed)| before > handed + UNREAD)
            && matches!(topic, Topic::Signals | Topic::Requests | Topic::Control)
        {
            self.to_tell.entry(format!("{topic}/{partition}")).or_insert(format!("{handed}..{before}"));
        }
        if topic == Topic::Signals && lost.is_some() {
            self.in_force.unsure();
        }
        self.excuses.lost.extend(lost.map(|(committed, _)| (topic, partition, committed)));
    }

    /// The log takes no record above a size, until then.
    pub fn size_limited(&mut self, bytes: usize, until: Millis) {
        // What was made shortly before may be appended only then.
        self.excuses.limits.push((bytes, self.now - 90_000, until));
        self.panes.unsure();
    }

    /// Looks at what is new in the log and in the world.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn look(&mut self, world: &World, now: Millis, told: &mut Told<'_>) -> Result<(), Violation> {
        self.now = now;
        let mut clock = None;
        for entry in self.tape.look(now) {
            told.say(|| line_of(&entry, now));
            self.record(&entry)?;
            clock = Some(entry.at);
            if let Ok(Message::Signal(Signal::Outcome(outcome))) = &entry.message {
                People::told_of(outcome, &world.changes)?;
            }
        }
        self.panes.marked(self.tape.partitions(Topic::Signals))?;
        if let Some(clock) = clock {
            self.waiting.look(now, clock)?;
        }
        for change in &world.changes[self.changes_seen..] {
            told.say(|| {
                let by = change.epoch.map_or("by hand".to_owned(), |epoch| format!("epoch {epoch}"));
                Some(format!("{now:>7} ms  t{} {} -> {} ({by})", change.target, change.from, change.to))
            });
            *self.counts.entry(if change.epoch.is_some() { "commands that took effect" } else { "changes by hand" }).or_default() += 1;
            People::change(change)?;
            let plans = self.plans.lately(change.target, now);
            if let Some(decision) = self.limits.change(change, &plans, &self.decisions)? {
                // By one of the policies it must be allowed.
                let refused: Vec<Violation> = plans.iter().filter_map(|plan| self.sight.change(change, &decision, plan).err()).collect();
                if refused.len() == plans.len()
                    && let Some(violation) = refused.into_iter().next_back()
                {
                    return Err(violation);
                }
                if let [plan] = plans[..] {
                    self.warming.change(change, &decision, plan)?;
                }
            }
        }
        self.changes_seen = world.changes.len();
        Ok(())
    }

    fn record(&mut self, entry: &Entry) -> Result<(), Violation> {
        let Ok(message) = &entry.message else {
            self.count("records that nobody can read");
            return Ok(());
        };
        match message {
            Message::Samples(batch) => {
                self.panes.record(batch, entry.partition, entry.at, self.now)?;
                self.sight.samples(batch, entry.partition, entry.at);
            }
            Message::Signal(Signal::Part(part)) => {
                self.panes.part(part)?;
                self.measured.part(part, entry.offset, entry.at);
            }
            Message::Signal(Signal::Mark(mark)) => {
                self.panes.mark(mark, entry.partition, entry.at);
                self.sight.mark(mark, entry.partition, entry.at);
            }
            Message::Signal(Signal::Policy(announced)) => {
                self.people.policy(announced, self.now)?;
                self.sight.policy(announced, entry.at);
                self.announced.insert(number_of(&announced.target), announced.spec.clone());
                self.measured.policy(announced, entry.offset, entry.at);
                if announced.spec.is_none() {
                    self.limits.policy_gone(&announced.target, entry.at);
                }
                self.holds.begins_anew(number_of(&announced.target), entry.at);
                self.in_force.announced(announced, entry.at);
            }
            Message::Signal(Signal::Fleet(seen)) => {
                self.limits.seen(seen, entry.at);
                self.holds.seen(seen, entry.at);
                self.sight.seen(seen, entry.at);
                self.measured.seen(seen, entry.at);
            }
            Message::Signal(Signal::Outcome(outcome)) => {
                self.count(came_to(outcome.result));
                self.limits.outcome(outcome, entry.at)?;
            }
            Message::Audit(Audit::Decision(decision)) => {
                self.count("decisions");
                let plans = self.plans.lately(number_of(&decision.target), self.now);
                self.holds.decision(decision, &plans)?;
                self.in_force.decision(decision, entry.at)?;
                let compared = self.measured.decision(decision, &plans)?;
                *self.counts.entry("measured values that were added up anew").or_default() += compared;
                self.decisions.entry(decision.target.clone()).or_default().push(decision.clone());
            }
            Message::Request(request) => {
                self.limits.claim(request, entry.at);
                self.waiting.claim(request);
            }
            // Decide says it itself, of a command that nothing was heard of.
            Message::Audit(Audit::Outcome(outcome)) if outcome.result == OutcomeResult::Lost => self.count(came_to(outcome.result)),
            Message::Signal(Signal::Grant(grant)) => self.waiting.grant(grant),
            Message::Command(command) => {
                self.count("commands");
                // Of the policies that it may have been decided by, one that is and one that is not.
                let plans = self.plans.lately(number_of(&command.target), self.now);
                let paced = |plan: &&Plan| plan.role != "Generic";
                let paced = (plans.iter().any(paced), plans.iter().all(paced));
                self.limits.command(command, entry, paced)?;
                self.waiting.command(command, self.now);
            }
            Message::Alert(alert) => {
                if alert.name == "RecordFaulted" || alert.name == "Faulted" {
                    return Err(Violation::new("no stage panics", alert.message.clone()));
                }
                if alert.name == "RecordsLost" && !self.excuses.is_lost(&alert.subject) {
                    return Err(Violation::new("nothing is told to be lost that is not", format!("{}: {}", alert.subject, alert.message)));
                }
                self.announcement_refused |= alert.name == "RecordTooLarge" && alert.subject == "admit";
                if alert.name == "RecordsLost" {
                    self.to_tell.remove(&alert.subject);
                }
                if alert.name == "PolicyUnusable" && alert.state == AlertState::Firing {
                    return Err(Violation::new("every policy that is drawn can be used", alert.message.clone()));
                }
                self.count("alerts");
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether every fleet has what its policy wants, and has had it for long.
    pub fn all_stand(&self, world: &World, now: Millis) -> bool {
        let content = |number: &usize, desired| {
            let load = self.scenario.targets.iter().find(|t| t.number == *number).map_or(0.0, |t| t.load_at(now));
            self.plans.of(*number).is_none_or(|plan| plan.is_content(load, desired))
        };
        world.fleets.iter().all(|(number, fleet)| is_a_persons_zero(fleet) || content(number, fleet.desired))
            && world.changes.last().is_none_or(|last| last.at <= now - 2 * STANDS_FOR)
    }

    /// Checks what can be told at the end only.
    pub fn end(&mut self, world: &World, now: Millis) {
        if self.violations.is_empty()
            && let Err(violation) = self.at_the_end(world, now)
        {
            self.violations.push(violation);
        }
    }

    fn at_the_end(&mut self, world: &World, now: Millis) -> Result<(), Violation> {
        let lossy = self.excuses.lost.iter().any(|(topic, ..)| *topic == Topic::Metrics);
        if !lossy && self.excuses.limits.is_empty() {
            self.panes.all_there(now)?;
        }
        if self.without_folds {
            self.count("runs to compare with");
        } else {
            folds::check(&self.tape, &self.settings.arbitrate, &self.excuses)?;
        }
        if let Some((subject, what)) = self.to_tell.first_key_value() {
            return Err(Violation::new("what is lost unread is told", format!("{what} of {subject}")));
        }
        for (number, fleet) in &world.fleets {
            let Some(plan) = self.plans.of(*number) else { continue };
            let load = self.scenario.targets.iter().find(|t| t.number == *number).map_or(0.0, |t| t.load_at(now));
            if plan.rests_at(load).is_empty() || !self.is_in_force(*number, plan) {
                continue;
            }
            let reaches = "after the faults the fleet reaches what its policy wants, and stays there";
            if !is_a_persons_zero(fleet) && !plan.is_content(load, fleet.desired) {
                let last = self.decisions.get(&fleet.target()).and_then(|decisions| decisions.last());
                return Err(Violation::new(reaches, format!("t{number} has {} replicas at load {load}; its last decision: {last:?}", fleet.desired)));
            }
            if let Some(change) = world.changes.iter().rfind(|change| change.target == *number && change.at > now - STANDS_FOR) {
                return Err(Violation::new(reaches, format!("t{number} still changes {} s before the end: {change:?}", (now - change.at) / 1_000)));
            }
        }
        Ok(())
    }

    /// Whether a target is decided on by this policy at the end. It is not where the log took no announcement of it, which is told
    /// as an alert.
    fn is_in_force(&self, number: usize, plan: &Plan) -> bool {
        !self.announcement_refused || self.announced.get(&number).is_some_and(|spec| spec.as_deref() == Some(&plan.spec(number)))
    }

    /// Does not fold everything again at the end.
    pub fn without_folds(&mut self) {
        self.without_folds = true;
    }

    /// Where a target ended.
    pub fn end_of(&self, number: usize, fleet: &Fleet, now: Millis) -> End {
        let plan = self.plans.of(number);
        let load = self.scenario.targets.iter().find(|t| t.number == number).map_or(0.0, |t| t.load_at(now));
        let rests_at = plan.map(|plan| plan.rests_at(load));
        End {
            replicas: fleet.desired,
            stood_at: None,
            rests_at: rests_at.unwrap_or_default(),
            acts: plan.is_some_and(|plan| plan.acts() && self.is_in_force(number, plan)),
            by_person: fleet.by_person,
        }
    }

    /// Adds everything that was appended to a hash.
    pub fn add_to(&self, hasher: &mut impl Hasher) {
        self.tape.hash(hasher);
    }

    /// How much there was of what.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.counts.clone();
        counts.insert("records", self.tape.len());
        counts
    }

    /// What did not hold.
    pub fn into_violations(self) -> Vec<Violation> {
        self.violations
    }
}

/// Whether a person set it to nothing, which is left alone.
fn is_a_persons_zero(fleet: &Fleet) -> bool {
    (fleet.desired, fleet.by_person) == (0, 0)
}

/// A line of the readable trace.
fn line_of(entry: &Entry, now: Millis) -> Option<String> {
    let line = match &entry.message {
        Ok(Message::Audit(Audit::Decision(d))) => {
            let metrics: Vec<String> = d
                .metrics
                .iter()
                .map(|m| {
                    format!(
                        "{} {:?} {} -> {}",
                        m.name,
                        m.status,
                        m.value.map_or("-".to_owned(), |v| v.to_string()),
                        m.proposal.map_or("-".to_owned(), |p| p.to_string())
                    )
                })
                .collect();
            let steps: Vec<String> = d.steps.iter().map(|s| format!("{:?} {}->{} {:?}", s.step, s.before, s.after, s.reason)).collect();
            format!("t{} {:?} {} -> {} [{}] [{}]", number_of(&d.target), d.verdict, d.current, d.desired, metrics.join(", "), steps.join(", "))
        }
        Ok(Message::Request(r)) => claim(r),
        Ok(Message::Command(c)) => format!("t{} command {} {} -> {}", number_of(&c.target), c.id, c.from, c.to),
        Ok(Message::Signal(Signal::Outcome(o))) => format!("t{} outcome {} {:?} {:?}", number_of(&o.target), o.command, o.result, o.replicas),
        Ok(Message::Signal(Signal::Fleet(o))) => {
            let ready = o.instances.iter().filter(|i| i.ready == Some(true)).count();
            format!(
                "t{} seen: {} wanted, {} there, {ready} ready, revision {:?}, {}/{}",
                number_of(&o.target),
                o.desired,
                o.status_replicas,
                o.revision,
                o.term,
                o.sequence
            )
        }
        Ok(Message::Signal(Signal::Policy(p))) => format!("t{} policy {}", number_of(&p.target), if p.spec.is_some() { "announced" } else { "gone" }),
        Ok(Message::Alert(a)) => format!("alert {} {:?} {}", a.name, a.state, a.message),
        _ => return None,
    };
    Some(format!("{now:>7} ms  {line}"))
}

fn claim(r: &Request) -> String {
    format!("t{} claims {} -> {} (epoch {}{})", number_of(&r.target), r.current, r.desired, r.epoch, if r.withdrawn { ", withdrawn" } else { "" })
}

/// The time that a fold would have, of a clock that may be set: it does not run back, unless by more than a minute.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FoldTime(pub(super) i64);

impl FoldTime {
    pub(super) fn at(self, clock: Timestamp) -> i64 {
        if clock.as_millis() + 60_000 < self.0 { clock.as_millis() } else { clock.as_millis().max(self.0) }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
