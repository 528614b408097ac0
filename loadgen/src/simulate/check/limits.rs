//! Bounds, rate limits, cooldowns and the pacing of removals, computed from what was applied; and that every command has
//! its claim, every claim its decision, and no command takes effect twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loadline::log::Offset;
use loadline::model::{Command, Decision, FleetObservation, Outcome, Request, TargetId, Timestamp};
use loadline::stages::arbitrate::Arbitrate;

use super::super::policy::{Rate, Rules};
use super::super::scenario::Millis;
use super::super::world::{Change, number_of, target};
use super::tape::Entry;
use super::{FoldTime, Plan, Violation, millis};

/// After the clock was set, times of the fold and of the world may differ by a look or two.
const SET_SLACK: i64 = 2_500;
/// And no longer than this, from when the clock shows the time again that it showed then: the longest period, of pacing, is a minute.
const SLACK_FOR: i64 = 90_000;
/// The longest period of a rate policy, and a look or two.
const UNSURE_FOR: i64 = 20_000;
/// For so long a command may be carried out.
const COMMAND_LIFE: i64 = 30_000;

pub(super) struct Limits {
    pacing: Arbitrate,
    behind: Duration,
    time: FoldTime,
    slack: i64,
    slack_until: i64,
    unsure_until: i64,
    /// What the log knows of each target.
    records: BTreeMap<usize, Record>,
    epochs: BTreeMap<(usize, String), i64>,
    claims: BTreeMap<(TargetId, i64), Request>,
    /// The newest claim of each target.
    standing: BTreeMap<TargetId, Request>,
    commands: BTreeMap<String, Issued>,
    /// What came of each command.
    outcomes: BTreeMap<String, Outcome>,
    removed: BTreeMap<String, Vec<(i64, u32)>>,
    /// The same of commands that were issued before the clock was set back, and are read after.
    removed_before: BTreeMap<String, Vec<(i64, u32)>>,
    /// What the clock showed before and after it was set back last, by so much that it was followed.
    set: Option<(i64, i64)>,
    /// How many replicas each fleet claims to have, over time.
    totals: BTreeMap<String, Vec<(i64, u64)>>,
}

/// A command, and where it stands.
struct Issued {
    command: Command,
    partition: u32,
    offset: Offset,
}

/// The record of one target in the log: its incarnation, the newest revision and count, and what was applied, and when
/// the log came to know.
#[derive(Default)]
struct Record {
    uid: String,
    /// The time of its partition, as its own signals show it: another partition may have come further.
    time: FoldTime,
    seen: (i64, i64),
    count: Option<(i64, u32)>,
    applied: Vec<Applied>,
    /// When its policy was removed: what comes after begins anew.
    begun: Vec<i64>,
}

/// A change as the log came to know it.
#[derive(Debug, Clone, Copy)]
struct Applied {
    at: i64,
    revision: i64,
    from: u32,
    to: u32,
}

impl Record {
    fn now(&mut self, at: Timestamp) -> i64 {
        self.time = FoldTime(self.time.at(at));
        self.time.0
    }

    fn is(&mut self, now: i64, revision: i64, count: u32) {
        match self.count {
            Some((known, _)) if revision <= known => return,
            Some((_, from)) if from != count => self.applied.push(Applied { at: now, revision, from, to: count }),
            _ => {}
        }
        self.count = Some((revision, count));
    }
}

impl Limits {
    /// `behind`: how far the clock of any process is behind the log's.
    pub(super) fn new(pacing: &Arbitrate, behind: Duration) -> Self {
        Limits {
            behind,
            pacing: pacing.clone(),
            time: FoldTime::default(),
            slack: 0,
            slack_until: 0,
            unsure_until: 0,
            records: BTreeMap::new(),
            epochs: BTreeMap::new(),
            claims: BTreeMap::new(),
            standing: BTreeMap::new(),
            commands: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            removed: BTreeMap::new(),
            removed_before: BTreeMap::new(),
            set: None,
            totals: BTreeMap::new(),
        }
    }

    /// The clock was set by so much, and shows `clock` now.
    pub(super) fn clock_set(&mut self, by: Millis, clock: Timestamp) {
        self.slack = SET_SLACK;
        self.slack_until = clock.as_millis() + SLACK_FOR + if (-60_000..0).contains(&by) { -by } else { 0 };
        if by < -60_000 {
            // What is later than now counts as now for the fold, which has forgotten what was long ago: for a while it may
            // count more, or less, than can be told from here.
            let longest = self.pacing.fleets.values().map(|pacing| pacing.period).fold(self.pacing.pacing.period, Duration::max);
            let before = clock.as_millis() - by;
            let left = before - millis(longest);
            self.removed.values_mut().for_each(|removed| removed.retain(|(at, _)| *at >= left));
            self.time = FoldTime(clock.as_millis());
            self.unsure_until = self.time.0 + UNSURE_FOR;
            self.set = Some((before, self.time.0));
            self.records.values_mut().for_each(|record| record.time = FoldTime(clock.as_millis()));
            for event in self
                .records
                .values_mut()
                .flat_map(|record| &mut record.applied)
                .map(|applied| &mut applied.at)
                .chain(self.removed.values_mut().flatten().map(|(at, _)| at))
            {
                *event = (*event).min(self.time.0);
            }
        }
    }

    fn now(&mut self, clock: Timestamp) -> i64 {
        self.time = FoldTime(self.time.at(clock));
        if self.time.0 > self.slack_until {
            self.slack = 0;
        }
        self.time.0
    }

    /// Its policy is gone: what comes after begins anew.
    pub(super) fn policy_gone(&mut self, target: &TargetId, at: Timestamp) {
        let now = self.now(at);
        self.records.entry(number_of(target)).or_default().begun.push(now);
    }

    pub(super) fn claim(&mut self, request: &Request, at: Timestamp) {
        self.now(at);
        self.claims.insert((request.target.clone(), request.epoch), request.clone());
        if self.standing.get(&request.target).is_none_or(|known| known.epoch <= request.epoch) {
            self.standing.insert(request.target.clone(), request.clone());
        }
        let now = self.time.0;
        let fleet = request.fleet.as_str();
        let total = self.standing.values().filter(|c| c.fleet.as_str() == fleet).map(|c| u64::from(c.current)).sum();
        self.totals.entry(fleet.to_owned()).or_default().push((now, total));
    }

    /// Replicas were seen.
    pub(super) fn seen(&mut self, seen: &FleetObservation, at: Timestamp) {
        self.now(at);
        let record = self.records.entry(number_of(&seen.target)).or_default();
        let now = record.now(at);
        if (seen.term, seen.sequence) <= record.seen {
            return;
        }
        if record.uid != seen.uid {
            *record = Record { uid: seen.uid.clone(), time: FoldTime(record.time.0), begun: std::mem::take(&mut record.begun), ..Record::default() };
        }
        record.seen = (seen.term, seen.sequence);
        if let Some(revision) = seen.revision {
            record.is(now, revision, seen.desired);
        }
    }

    /// A command came to something, or found something else.
    pub(super) fn outcome(&mut self, outcome: &Outcome, at: Timestamp) -> Result<(), Violation> {
        // It may be said twice, where nobody knew whether it had been said.
        let first = self.outcomes.entry(outcome.command.clone()).or_insert_with(|| outcome.clone());
        if first != outcome {
            return Err(Violation::new("no command is carried out twice", format!("{first:?}, then {outcome:?}")));
        }
        self.now(at);
        if let (Some(revision), Some(replicas)) = (outcome.revision, outcome.replicas)
            && let Some(record) = self.records.get_mut(&number_of(&outcome.target))
        {
            let now = record.now(at);
            record.is(now, revision, replicas);
        }
        Ok(())
    }

    /// Every command has its claim, goes no further than it, and is issued once; removals are paced, where the policy's role says so.
    pub(super) fn command(&mut self, command: &Command, entry: &Entry, paced: (bool, bool)) -> Result<(), Violation> {
        self.now(entry.at);
        // When the arbiter issued it; the record may be appended later, but a command does nothing 30 s after this.
        let now = command.expires_at.as_millis() - COMMAND_LIFE;
        let invariant = "no command without a claim, and one for each";
        let issued = Issued { command: command.clone(), partition: entry.partition, offset: entry.offset };
        if self.commands.insert(command.id.clone(), issued).is_some() {
            return Err(Violation::new(invariant, format!("{command:?} was issued twice")));
        }
        let Some(claim) = self.claims.get(&(command.target.clone(), command.epoch)) else {
            return Err(Violation::new(invariant, format!("{command:?} has none")));
        };
        let between = claim.current.min(claim.desired)..=claim.current.max(claim.desired);
        if claim.uid != command.uid || claim.current != command.from || !between.contains(&command.to) || claim.withdrawn {
            return Err(Violation::new(invariant, format!("{command:?} is not what {claim:?} asks for")));
        }
        if claim.paced != paced.0 && claim.paced != paced.1 {
            return Err(Violation::new("removals are paced over a fleet", format!("{claim:?} says that it is paced, or not, against its role")));
        }
        let replaced = command.replaces.as_ref().and_then(|id| self.commands.get(id)).map(|issued| issued.command.clone());
        if command.replaced_to.is_some_and(|before| command.to <= before) || replaced.as_ref().is_some_and(|before| Some(before.to) != command.replaced_to) {
            return Err(Violation::new("a command replaces another one only to go further out", format!("{command:?} after {replaced:?}")));
        }
        // What the replaced one removes has been counted.
        let counted = replaced.as_ref().map_or(0, |before| before.from.saturating_sub(before.to));
        let removes = command.from.saturating_sub(command.to).saturating_sub(counted);
        if claim.paced && removes > 0 && (command.replaces.is_none() || replaced.is_some()) {
            let fleet = claim.fleet.as_str().to_owned();
            // As large as it lately was: claims that came after this command have been read already.
            let totals = self.totals.get(&fleet).map_or(&[][..], Vec::as_slice);
            let since = totals.partition_point(|(at, _)| *at < now).saturating_sub(1);
            let total: u64 = totals[since..].iter().map(|(_, total)| *total).max().unwrap_or(0);
            let pacing = self.pacing.fleets.iter().find(|(name, _)| name.as_str() == fleet).map_or(self.pacing.pacing, |(_, pacing)| *pacing);
            let limit = (total * u64::from(pacing.percent) / 100).max(u64::from(pacing.at_least));
            let before = self.removed_before.entry(fleet.clone()).or_default();
            let removed = if now > self.time.0 + SET_SLACK {
                before
            } else {
                // What was not forgotten by then counts, from when the clock was set, as what is later than now does for the arbiter.
                let set = self.set;
                let kept = before.drain(..).filter_map(|(at, count)| match set {
                    Some((from, to)) => (from - at <= millis(pacing.period)).then_some((to, count)),
                    None => Some((at, count)),
                });
                let removed = self.removed.entry(fleet).or_default();
                removed.extend(kept);
                removed
            };
            removed.push((now, removes));
            let period = millis(pacing.period) - self.slack;
            let spent: u64 = removed.iter().filter(|(at, _)| now - at <= period).map(|(_, count)| u64::from(*count)).sum();
            if spent > limit {
                return Err(Violation::new("removals are paced over a fleet", format!("{spent} within {period} ms, where {limit} may go: {command:?}")));
            }
        }
        Ok(())
    }

    /// A change took effect. For one by a command: the decision behind it.
    pub(super) fn change(&mut self, change: &Change, plans: &[&Plan], decisions: &BTreeMap<TargetId, Vec<Decision>>) -> Result<Option<Decision>, Violation> {
        self.now(change.clock);
        let Some(epoch) = change.epoch else { return Ok(None) };
        let (claim, decision) = self.command_took_effect(change, epoch, decisions)?;
        let (applied, begun) = self.records.get(&change.target).map_or((&[][..], &[][..]), |record| (&record.applied, &record.begun));
        // As the log knew it when it was decided, and from the count that was decided from: a command that takes a removal
        // back, which was carried out in the meantime, goes back to that count.
        let now = decision.at.as_millis();
        let known_of = |(until, begun_until): (i64, i64)| {
            let begun = begun.iter().copied().filter(|begun| *begun <= begun_until).max().unwrap_or(i64::MIN);
            let in_time = |applied: &&Applied| applied.at >= begun && applied.at <= until && applied.revision < change.revision;
            let mut known: Vec<Applied> = applied.iter().filter(in_time).copied().collect();
            // What came in the same moment, after the decision, it did not know.
            while known.last().is_some_and(|last| last.to != claim.current) {
                known.pop();
            }
            known
        };
        // A policy that went in the very moment of the decision may have gone before it or after; and so with what was applied,
        // for longer where the clock was set.
        let moments = BTreeSet::from([now, now + self.slack]).into_iter().flat_map(|until| [(until, now), (until, now - 1)]);
        let known: Vec<_> = moments.map(known_of).collect();
        let change = &Change { from: claim.current, ..change.clone() };
        // Whatever the clock shows.
        let refused: Vec<Violation> = plans.iter().filter_map(|plan| is_within(plan, change).err()).collect();
        if change.from != change.to
            && refused.len() == plans.len()
            && let Some(violation) = refused.into_iter().next_back()
        {
            return Err(violation);
        }
        // What was decided before the clock was set back is of another time.
        if change.from != change.to && now >= self.unsure_until && now <= self.time.0 + SET_SLACK {
            let slacks = BTreeSet::from([0, self.slack, -self.slack]);
            let judged = plans.iter().flat_map(|plan| slacks.iter().flat_map(|slack| known.iter().map(|known| allows(plan, change, &decision, known, *slack))));
            let refused: Vec<Violation> = judged.filter_map(Result::err).collect();
            if refused.len() == plans.len() * slacks.len() * known.len()
                && let Some(violation) = refused.into_iter().next_back()
            {
                return Err(violation);
            }
        }
        Ok(Some(decision))
    }

    fn command_took_effect(&mut self, change: &Change, epoch: i64, decisions: &BTreeMap<TargetId, Vec<Decision>>) -> Result<(Request, Decision), Violation> {
        let id = target(change.target);
        let last = self.epochs.insert((change.target, change.uid.clone()), epoch);
        if last.is_some_and(|last| last >= epoch) {
            return Err(Violation::new("no command takes effect twice", format!("epoch {epoch} after {last:?}: {change:?}")));
        }
        let assumed = |command: &Command| {
            let found = change.from == command.from || Some(change.from) == command.replaced_to;
            let in_time = || change.clock < command.expires_at + self.behind;
            found && change.uid == command.uid && (self.slack != 0 || change.late || in_time())
        };
        if let Some(Issued { command, partition, offset }) = self.commands.get(&format!("{id}#{epoch}")) {
            if !assumed(command) {
                let invariant = "a command takes effect only in the world that it was made for, and in time";
                return Err(Violation::new(invariant, format!("{command:?}: {change:?}")));
            }
            if !change.late && change.committed.get(*partition as usize).is_none_or(|committed| committed <= offset) {
                let invariant = "a command is carried out only when its position is committed";
                return Err(Violation::new(invariant, format!("{command:?} at {offset} of {partition}: {change:?}")));
            }
        }
        let no_claim = || Violation::new("no command without a claim, and one for each", format!("{change:?} has none"));
        let claim = self.claims.get(&(id.clone(), epoch)).ok_or_else(no_claim)?;
        let made = decisions.get(&id).map_or(&[][..], Vec::as_slice);
        // The newest that says so, of those that were there when it was claimed: an epoch is never earlier than its claim.
        let decision = made.iter().rfind(|d| !d.advised && d.at.as_millis() <= claim.epoch && (d.current, d.desired) == (claim.current, claim.desired));
        let no_decision = || Violation::new("no claim without a decision", format!("{claim:?}"));
        Ok((claim.clone(), decision.ok_or_else(no_decision)?.clone()))
    }
}

/// Whether a policy's mode and bounds allow a change.
fn is_within(plan: &Plan, change: &Change) -> Result<(), Violation> {
    let (from, to) = (change.from, change.to);
    let refuse = |invariant, details: String| Err(Violation::new(invariant, format!("{details}: {change:?}, by {}", plan.spec(change.target))));
    if !plan.acts() {
        return refuse("only what acts commands", format!("mode {}", plan.mode));
    }
    if to < plan.min || to > plan.max && !comes_down(plan, change) {
        return refuse("replicas stay inside the bounds", format!("{to} is not between {} and {}", plan.min, plan.max));
    }
    if to < from && plan.mode == "OutOnly" {
        return refuse("a policy that only grows never shrinks", String::new());
    }
    Ok(())
}

/// Somebody else, or another policy, had set more than `max`.
fn comes_down(plan: &Plan, change: &Change) -> bool {
    change.from > plan.max && change.to < change.from
}

/// Whether a policy allows a change, after what was applied before.
fn allows(plan: &Plan, change: &Change, decision: &Decision, applied: &[Applied], slack: i64) -> Result<(), Violation> {
    is_within(plan, change)?;
    let (from, to, now) = (change.from, change.to, decision.at.as_millis());
    let refuse = |invariant, details: String| {
        Err(Violation::new(invariant, format!("{details}: {change:?} after {applied:?} at {now}, by {}", plan.spec(change.target))))
    };
    let rules = &plan.rules[usize::from(to < from)];
    let within = |within_s: u64, slack: i64| {
        let within = i64::try_from(within_s * 1_000).unwrap_or(i64::MAX) - slack;
        applied.iter().filter(move |applied| now - applied.at < within).map(|applied| (applied.from, applied.to))
    };
    let recent = |period| within(period, slack);
    // Where the clock was set, a cooldown may have been over by as much, whatever the periods of the rates were.
    let cooling = |cooldown| within(cooldown, slack.abs());
    // The count at the start of a period: what was added since is taken off, what was removed is put back, as the HPA does.
    let start = |period| {
        let (added, removed) = recent(period).fold((0, 0), |(added, removed), (f, t)| (added + t.saturating_sub(f), removed + f.saturating_sub(t)));
        (from + removed).saturating_sub(added)
    };
    if to > from && to > plan.min {
        let limit = |amount: Rate, period| grown(amount, start(period));
        let allowed = choose(rules, limit, u32::max, u32::min);
        if to > allowed {
            return refuse("rate limits hold over every window", format!("to {allowed} at most"));
        }
        if let Some((start, _)) = cooling(rules.cooldown_s).rfind(|(f, t)| t > f) {
            let most = raised_to(plan, decision, start, from);
            if to > most {
                return refuse("cooldowns hold", format!("in the cooldown, which began at {start}, to {most} at most; {:?} were asked for", decision.metrics));
            }
        }
    }
    if to < from {
        let limit = |amount: Rate, period| shrunk(amount, start(period));
        let allowed = if rules.select == "Disabled" { from } else { choose(rules, limit, u32::min, u32::max) };
        if to < allowed {
            return refuse("rate limits hold over every window", format!("to {allowed} at least"));
        }
        if !comes_down(plan, change) && cooling(rules.cooldown_s).next().is_some() {
            return refuse("cooldowns hold", "the last change is too recent".to_owned());
        }
    }
    Ok(())
}

/// How far a count may still grow in a cooldown that began at `start`: to what the largest proposal would have been from
/// there, or the fallback's; what a metric of the target as a whole asks for does not depend on the count.
fn raised_to(plan: &Plan, decision: &Decision, start: u32, from: u32) -> u32 {
    let in_proportion = |wanted: u32| u32::try_from((u64::from(wanted) * u64::from(start)).div_ceil(u64::from(from.max(1)))).unwrap_or(u32::MAX);
    let asked = decision.metrics.iter().filter_map(|report| {
        let wanted = report.proposal?;
        let rule = plan.metrics.iter().map(|metric| metric.rule).find(|rule| rule.name() == report.name.as_str())?;
        Some(if rule.asks_whatever_there_is() { wanted } else { in_proportion(wanted) })
    });
    let fallback = (plan.fallback.1 != "Hold").then(|| in_proportion(plan.fallback.2.max(plan.min)));
    asked.chain(fallback).max().unwrap_or(0)
}

/// The limit of the policies: the one that allows the most, or the least.
fn choose(rules: &Rules, limit: impl Fn(Rate, u64) -> u32, most: fn(u32, u32) -> u32, least: fn(u32, u32) -> u32) -> u32 {
    let pick = if rules.select == "Min" { least } else { most };
    if rules.select == "Disabled" {
        return 0;
    }
    rules.policies.iter().map(|(amount, period)| limit(*amount, *period)).reduce(pick).unwrap_or(u32::MAX)
}

/// As the HPA computes it, in doubles.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
fn grown(amount: Rate, start: u32) -> u32 {
    match amount {
        Rate::Replicas(n) => start + n,
        Rate::Percent(percent) => (f64::from(start) * (1.0 + f64::from(percent) / 100.0)).ceil() as u32,
    }
}

/// As the HPA computes it, in doubles.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
fn shrunk(amount: Rate, start: u32) -> u32 {
    match amount {
        Rate::Replicas(n) => start.saturating_sub(n),
        Rate::Percent(percent) => (f64::from(start) * (1.0 - f64::from(percent) / 100.0)).floor() as u32,
    }
}
