//! Decide: folds the signals of each target into decisions, claims and alerts.
//!
//! For every target it keeps a small memory (its snapshot) and the panes that its windows need
//! (merged again from the log after a restart). A target is evaluated when all live sources have
//! marked past the end of one of its panes, at once on a change of its policy, fleet or command, and
//! when one of its timers is due. [`evaluate`](mod@evaluate) has the steps, in their order.
//!
//! Invariants:
//! - A target's time and state depend on its own and on partition-wide signals alone, so a target
//!   replayed alone decides the same.
//! - What is not newer in its source's own order changes nothing.
//! - One command is in flight for a target; what counts for limits and cooldowns is what was applied.
//! - A panic in the fold of one target holds that target (`Faulted`) and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::log::{Offset, Topic};
use crate::model::document::Problem;
use crate::model::json;
use crate::model::policy::{Alike, Mode, Policy};
use crate::model::{AnnounceAgain, Audit, CarriedState, ControlEntry, Message, Part, PolicyAnnouncement, Severity, Signal, TargetId, Tick, Timestamp};

use super::carried::NotCarried;
use super::{Effects, Input, Located, OnGap, Snapshot, Stage};

mod alerts;
mod bounds;
mod claim;
mod combine;
#[cfg(test)]
mod conformance;
mod cooldown;
mod evaluate;
mod fallback;
mod fold;
mod measure;
mod memory;
mod panes;
mod propose;
mod rate_limit;
mod sources;
mod stabilize;
#[cfg(test)]
mod tests;
mod unlisted;

use memory::{Announced, Fault, Memory};
use panes::Panes;
use sources::Sources;

/// Counts up with every change of the fold that can change a decision.
pub const FOLD_VERSION: u32 = 1;

/// A target whose replicas were not seen for this long does not shrink. Observers repeat each fleet
/// every 60 s, so two repetitions may be lost.
const FLEET_UNSEEN_AFTER: Duration = Duration::from_secs(180);
/// A target that was not evaluated for this long (Loadline was down, or its log was put back) begins its proposals anew, with
/// the count that it has: what was asked for before says nothing of now. In operation each is evaluated once a minute.
const UNWATCHED_AFTER: Duration = Duration::from_secs(180);
/// A policy whose target was not seen for this long is worth an alert.
const ALERT_NOT_SEEN_AFTER: Duration = Duration::from_secs(10);
/// All metrics blind for this long is worth an alert: a gap of a few panes is not.
const ALERT_BLIND_AFTER: Duration = Duration::from_secs(30);
/// A claim without an answer for this long is worth an alert: the arbiter answers within a second.
const ALERT_UNANSWERED_AFTER: Duration = Duration::from_secs(5);
/// How often a standing claim is repeated.
const CLAIM_EVERY: Duration = Duration::from_secs(60);
/// How long a claim stands: two repetitions may be lost.
const CLAIM_LIVES: Duration = Duration::from_secs(150);
/// How long after its expiry a command without an outcome is given up.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// A decision that changes nothing is written down this often.
const AUDIT_EVERY: Duration = Duration::from_secs(3600);
/// An `at` that runs back by more than this sets a target's time back.
const CLOCK_RUNS_BACK: Duration = Duration::from_secs(60);
/// A target without a policy that nobody has seen for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The most instances of a metric.
const MOST_INSTANCES: usize = 5_000;
/// How often it is told that there are too many targets.
const TELL_TOO_MANY_EVERY: Duration = Duration::from_secs(60);
/// Panes further ahead of their part than this were measured before the clock was set back: aggregate takes no sample
/// that is 30 s ahead of its record.
const PANES_AHEAD: Duration = Duration::from_secs(90);
/// The most targets that one partition holds.
const MOST_TARGETS: usize = 100_000;

/// Which decisions are written to the audit topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditWhen {
    /// When anything but the numbers inside it changed, and hourly.
    #[default]
    Changed,
    /// Every evaluation: for replay.
    Always,
}

/// The stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decide {
    /// Which decisions are written down.
    pub audit: AuditWhen,
    /// Called before each piece of work on a target, with the offset of its signal: tests panic in it, as a fault in the fold would.
    pub probe: Option<fn(&TargetId, Offset)>,
}

impl Decide {
    fn probe(self, id: &TargetId, offset: Offset) {
        if let Some(probe) = self.probe {
            probe(id, offset);
        }
    }
}

/// What decide remembers of a partition.
#[derive(Default)]
pub struct State {
    sources: Sources,
    /// Lookup only; nothing iterates it in an order that reaches output.
    targets: IndexMap<TargetId, Target, FxBuildHasher>,
    /// Timers.
    due: BTreeSet<(Timestamp, TargetId)>,
    /// Those that may have panes that they have not been evaluated with, in no order; none is missing.
    fresh: Vec<TargetId>,
    /// Up to when `fresh` was searched last, where it would find nothing again.
    searched: Option<Timestamp>,
    /// Targets whose memory changed since the last round, in no order.
    changed: Vec<TargetId>,
    /// Reads the policies of snapshots; of use while they are restored.
    alike: Alike,
    /// When it was last told that there are too many targets.
    too_many_told: Option<Timestamp>,
    /// Histories that targets start with, for replay.
    starts: BTreeMap<TargetId, Start>,
}

/// A history that a target starts with: each entry with its age at the target's first evaluation.
#[derive(Debug, Default)]
struct Start {
    proposals: Vec<(Duration, u32)>,
    events: Vec<(Duration, i64)>,
}

/// A target: its policy in force, its memory, its panes.
#[derive(Default)]
struct Target {
    policy: Option<Arc<InForce>>,
    memory: Memory,
    panes: Panes,
    start: Option<Start>,
    /// Whether it is in [`State::fresh`].
    is_fresh: bool,
    /// Whether it is in [`State::changed`].
    is_changed: bool,
}

/// A policy in force, with its version for the record.
struct InForce {
    policy: Policy,
    version: String,
}

/// Puts a target on a list, unless it is there.
fn list(is_there: &mut bool, list: &mut Vec<TargetId>, id: &TargetId) {
    if !std::mem::replace(is_there, true) {
        list.push(id.clone());
    }
}

/// Lists a target that has panes which it was not evaluated with, and sees to it that it is found.
fn note(target: &mut Target, id: &TargetId, fresh: &mut Vec<TargetId>, searched: &mut Option<Timestamp>) {
    if !target.has_fresh_panes() {
        return;
    }
    list(&mut target.is_fresh, fresh, id);
    if searched.is_some_and(|through| target.has_complete_panes(through)) {
        *searched = None;
    }
}

impl InForce {
    /// What was announced, as it was resolved.
    fn of(resolved: Result<Policy, Vec<Problem>>, announced: &Announced) -> Result<Arc<Self>, String> {
        let policy = resolved.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        Ok(Arc::new(InForce { policy, version: announced.order.to_string() }))
    }
}

impl State {
    /// Gives a target a history before its first signal: earlier proposals and applied changes, with
    /// their ages at its first evaluation.
    pub fn start(&mut self, target: TargetId, mut proposals: Vec<(Duration, u32)>, mut events: Vec<(Duration, i64)>) {
        proposals.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        events.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        self.starts.insert(target, Start { proposals, events });
    }

    /// How many targets have a policy.
    pub fn targets(&self) -> usize {
        self.targets.values().filter(|t| t.policy.is_some()).count()
    }

    /// Runs `work` on a target, with its time moved on to `at`, unless its memory already holds this
    /// offset. A panic holds the target.
    fn with(
        &mut self,
        id: &TargetId,
        (offset, at): (Offset, Timestamp),
        stage: Decide,
        effects: &mut Effects,
        work: impl FnOnce(&mut Target, &Sources, &mut Effects),
    ) {
        let Some(target) = self.targets.get_mut(id) else { return };
        if offset < target.memory.next_offset || target.memory.faulted.is_some() {
            return;
        }
        let due_before = target.memory.due;
        if at + CLOCK_RUNS_BACK < target.memory.now {
            alerts::clock_ran_back(id, target.memory.now, at, effects);
            target.memory.set_back(at, offset);
            target.panes = Panes::default();
        }
        target.memory.now = target.memory.now.max(at);
        let sources = &self.sources;
        let mut own = Effects::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            stage.probe(id, offset);
            work(target, sources, &mut own);
        }));
        if outcome.is_ok() {
            effects.append(own);
        } else {
            target.fault(id, offset, effects);
        }
        let due_after = target.memory.due;
        note(target, id, &mut self.fresh, &mut self.searched);
        list(&mut target.is_changed, &mut self.changed, id);
        if due_before != due_after {
            if let Some(due) = due_before {
                self.due.remove(&(due, id.clone()));
            }
            if let Some(due) = due_after {
                self.due.insert((due, id.clone()));
            }
        }
    }

    fn own(&mut self, id: &TargetId, signal: Signal, offset: Offset, at: Timestamp, stage: Decide, effects: &mut Effects) {
        match signal {
            Signal::Part(part) => self.part(id, part, offset, at, stage, effects),
            Signal::Policy(announcement) => self.policy(id, announcement, offset, at, stage, effects),
            Signal::Fleet(seen) => {
                // Kept also before there is a policy, so that one that comes has something to stand on.
                if self.admits(id, at, effects) {
                    self.with(id, (offset, at), stage, effects, |t, s, e| t.fleet(seen, at, stage, s, e));
                }
            }
            Signal::Outcome(outcome) => self.with(id, (offset, at), stage, effects, |t, s, e| t.outcome(&outcome, stage, s, e)),
            Signal::Grant(grant) => self.with(id, (offset, at), stage, effects, |t, _, _| t.grant(grant)),
            Signal::SourceError(error) => self.with(id, (offset, at), stage, effects, |t, s, e| t.source_error(error, stage, s, e)),
            Signal::Carried(carried) => self.carried(id, &carried, (offset, at), stage, effects),
            Signal::Mark(_) | Signal::Tick(_) => {}
        }
    }

    /// Goes on from what another installation remembered of a target, where nothing is known of it here.
    fn carried(&mut self, id: &TargetId, carried: &CarriedState<TargetId>, (offset, at): (Offset, Timestamp), stage: Decide, effects: &mut Effects) {
        if !self.admits(id, at, effects) {
            return;
        }
        let sources = self.sources.next_offset;
        self.with(id, (offset, at), stage, effects, |target, _, effects| {
            let taken = NotCarried::check_version(carried.version, Decide::VERSION).and_then(|()| {
                let Target { policy, memory, .. } =
                    Target::restored(id, carried.state.as_bytes(), sources, &mut Alike::default()).map_err(NotCarried::Unreadable)?;
                target.carry(policy, memory, (offset, at))
            });
            if let Err(refused) = taken {
                refused.tell(Decide::NAME, id.as_str(), Some(id.clone()), at, effects);
            }
        });
    }

    /// Makes room for a target; beyond the limit it is refused, with an alert.
    fn admits(&mut self, id: &TargetId, at: Timestamp, effects: &mut Effects) -> bool {
        if self.targets.contains_key(id) {
            return true;
        }
        if self.targets.len() >= MOST_TARGETS {
            if self.too_many_told.is_none_or(|told| at >= told + TELL_TOO_MANY_EVERY || at < told) {
                self.too_many_told = Some(at);
                alerts::too_many_targets(id, MOST_TARGETS, at, effects);
            }
            return false;
        }
        let start = self.starts.remove(id);
        self.targets.insert(id.clone(), Target { start, ..Target::default() });
        true
    }

    fn part(&mut self, id: &TargetId, mut part: Part, offset: Offset, at: Timestamp, stage: Decide, effects: &mut Effects) {
        // A pane that holds nothing says nothing; a restored fold would not even know that it came.
        part.panes.retain(|pane| !pane.instances.is_empty() || pane.sketch.is_some());
        // One of a time that the clock was set back from would count as new when that time comes again.
        part.panes.retain(|pane| pane.start <= at + PANES_AHEAD);
        let Some(target) = self.targets.get_mut(id).filter(|t| t.policy.is_some()) else {
            return; // no policy asks for it
        };
        if offset < target.memory.next_offset {
            // The memory has seen it; only its panes are needed again.
            if target.memory.faulted.is_some() {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| target.merge(part, offset))).is_err() {
                target.fault(id, offset, effects);
            }
            note(target, id, &mut self.fresh, &mut self.searched);
            return;
        }
        self.with(id, (offset, at), stage, effects, |t, _, _| t.part(part, offset));
    }

    fn policy(&mut self, id: &TargetId, announcement: PolicyAnnouncement, offset: Offset, at: Timestamp, stage: Decide, effects: &mut Effects) {
        if !self.admits(id, at, effects) {
            return;
        }
        if let Some(target) = self.targets.get_mut(id)
            && offset >= target.memory.next_offset
            && target.memory.faulted.as_ref().is_some_and(|fault| fault.announced != announcement.spec)
            && !target.memory.order.as_ref().is_some_and(|known| known.is_newer_than(&announcement.order))
        {
            // Only a changed policy ends a fault, and the target starts as new.
            let changed = || "its policy was changed; it starts as new".to_owned();
            for (name, _) in target.memory.firing.clone() {
                alerts::set(&mut target.memory, id, &name, Severity::Info, false, changed, effects);
            }
            let Memory { next_offset, now, epoch, sequence, .. } = target.memory;
            let order = target.memory.order.take();
            *target = Target { memory: Memory { next_offset, now, order, epoch, closed_epoch: epoch, sequence, ..Memory::default() }, ..Target::default() };
        }
        let (spec, order) = (announcement.spec.clone(), announcement.order.clone());
        self.with(id, (offset, at), stage, effects, |t, s, e| t.policy(announcement, offset, stage, s, e));
        if let Some(Target { memory, .. }) = self.targets.get_mut(id)
            && let Some(fault) = memory.faulted.as_mut().filter(|fault| fault.position == offset)
        {
            // The same text again would only do the same again.
            fault.announced = spec;
            memory.order = Some(order);
        }
    }

    /// What stood before `next` is gone: what metrics came to is counted from there on, or a part would pass for the whole.
    fn lost(&mut self, next: Offset, at: Timestamp) {
        if !self.sources.holds(next) {
            self.sources.lost(at);
        }
        for (id, target) in &mut self.targets {
            if target.begin_metrics_anew(next, at) {
                list(&mut target.is_changed, &mut self.changed, id);
            }
        }
    }

    /// Evaluates the targets that have panes which are complete now.
    fn evaluate_fresh(&mut self, offset: Offset, at: Timestamp, stage: Decide, effects: &mut Effects) {
        let through = self.sources.complete_through();
        if self.searched == Some(through) {
            return;
        }
        self.searched = Some(through);
        let (mut ready, targets) = (Vec::new(), &mut self.targets);
        self.fresh.retain(|id| {
            let Some(target) = targets.get_mut(id) else { return false };
            target.is_fresh = target.has_fresh_panes();
            if target.is_fresh && target.has_complete_panes(through) {
                ready.push(id.clone());
            }
            target.is_fresh
        });
        ready.sort_unstable();
        ready.dedup();
        for id in ready {
            self.with(&id, (offset, at), stage, effects, |t, s, e| t.evaluate(stage, s, e));
            // Not evaluated now: it is found again.
            if self.targets.get(&id).is_some_and(|target| target.has_complete_panes(through)) {
                self.searched = None;
            }
        }
    }

    /// Evaluates the targets whose timers are due.
    fn evaluate_due(&mut self, offset: Offset, at: Timestamp, stage: Decide, effects: &mut Effects) {
        let due: Vec<TargetId> = self.due.iter().take_while(|(due, _)| *due <= at).map(|(_, id)| id.clone()).collect();
        for id in due {
            self.with(&id, (offset, at), stage, effects, |t, s, e| {
                t.memory.due = None;
                t.evaluate(stage, s, e);
            });
            if self.targets.get(&id).is_some_and(|t| t.is_forgotten(at)) {
                self.targets.swap_remove(&id);
            }
        }
    }

    /// Evaluates the targets that a source feeds which fell silent, or spoke again.
    fn evaluate_fed_by(&mut self, sources: &BTreeSet<u32>, offset: Offset, at: Timestamp, stage: Decide, effects: &mut Effects) {
        let mut fed: Vec<TargetId> = self.targets.iter().filter(|(_, t)| t.is_fed_by(sources)).map(|(id, _)| id.clone()).collect();
        fed.sort();
        for id in fed {
            self.with(&id, (offset, at), stage, effects, |t, s, e| t.evaluate(stage, s, e));
        }
    }
}

impl Stage for Decide {
    type Record = Signal;
    type State = State;
    const NAME: &'static str = "decide";
    const INPUT: Topic = Topic::Signals;
    const TICK: Option<fn() -> Message> = Some(|| Message::Signal(Signal::Tick(Tick {})));
    const ON_GAP: Option<OnGap> = Some(|reason| {
        let ask = AnnounceAgain { asker: Self::NAME.to_owned(), reason };
        (Topic::Control, Self::NAME, Message::Control(ControlEntry::AnnounceAgain(ask)))
    });

    fn needs_ticks(&self, state: &State) -> bool {
        !state.targets.is_empty()
    }

    fn apply(&self, state: &mut State, input: Input<Signal>, effects: &mut Effects) {
        let Located { offset, at, record, .. } = match input {
            Input::Record(record) => record,
            Input::Lost { next, at } => return state.lost(next, at),
            Input::Flush { .. } => return,
        };
        match record {
            Signal::Mark(mark) => {
                if !state.sources.holds(offset) {
                    let spoke = state.sources.mark(&mark, at);
                    if !spoke.is_empty() {
                        state.evaluate_fed_by(&spoke, offset, at, *self, effects);
                    }
                    state.evaluate_fresh(offset, at, *self, effects);
                }
            }
            Signal::Tick(_) => {
                if !state.sources.holds(offset) {
                    let silenced = state.sources.tick(at);
                    if !silenced.is_empty() {
                        state.evaluate_fed_by(&silenced, offset, at, *self, effects);
                        state.evaluate_fresh(offset, at, *self, effects);
                    }
                    state.evaluate_due(offset, at, *self, effects);
                }
            }
            signal => {
                if let Some(id) = signal.target().cloned() {
                    state.own(&id, signal, offset, at, *self, effects);
                }
            }
        }
    }
}

impl Snapshot for State {
    fn take_changed(&mut self) -> Vec<String> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for id in &changed {
            if let Some(target) = self.targets.get_mut(id) {
                target.is_changed = false;
            }
        }
        changed.into_iter().map(String::from).collect()
    }

    fn encode(&self, key: &str, next: Offset) -> Option<Vec<u8>> {
        let target = self.targets.get(key)?;
        let memory = Memory { next_offset: next, ..target.memory.clone() };
        serde_json::to_vec(&memory).ok()
    }

    fn makes_room(&mut self, keys: usize) {
        self.targets.reserve(keys);
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<(), String> {
        let id: TargetId = key.parse().map_err(|e| format!("{e}"))?;
        let target = Target::restored(&id, bytes, self.sources.next_offset, &mut self.alike)?;
        if let Some(due) = target.memory.due {
            self.due.insert((due, id.clone()));
        }
        self.targets.insert(id, target);
        Ok(())
    }

    fn encode_wide(&self, next: Offset) -> Vec<u8> {
        let mut sources = self.sources.clone();
        sources.next_offset = next;
        serde_json::to_vec(&sources).unwrap_or_default()
    }

    fn restore_wide(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.sources = json::read_bytes(bytes).map_err(|e| format!("the partition's snapshot cannot be read: {e}"))?;
        Ok(())
    }

    fn held_until(&self) -> Offset {
        self.targets.values().map(|t| t.memory.next_offset).max().unwrap_or(0).max(self.sources.next_offset)
    }

    fn replay_from(&self, next: Offset) -> Offset {
        self.targets.values().filter_map(|t| t.panes.earliest_offset()).min().unwrap_or(next).min(next)
    }
}

impl Target {
    /// A target of its snapshot. `sources` is the first offset that the snapshot of the partition does not hold.
    fn restored(id: &TargetId, bytes: &[u8], sources: Offset, alike: &mut Alike) -> Result<Self, String> {
        let mut memory: Memory = json::read_bytes(bytes).map_err(|e| format!("the snapshot of {id} cannot be read: {e}"))?;
        // A target that was not written in a later round had not changed until that round began.
        memory.next_offset = memory.next_offset.max(sources);
        let in_force =
            |announced: &Announced| catch_unwind(AssertUnwindSafe(|| InForce::of(alike.resolve(&announced.spec, id), announced).ok())).ok().flatten();
        let policy = memory.policy.as_ref().and_then(in_force);
        if policy.is_none() {
            // This version cannot use it: its next announcement says so, in an alert.
            memory.policy = None;
        }
        Ok(Target { policy, memory, ..Target::default() })
    }

    /// Goes on from what was remembered elsewhere, at the place of another log. Its panes stay there.
    fn carry(&mut self, policy: Option<Arc<InForce>>, memory: Memory, (offset, at): (Offset, Timestamp)) -> Result<(), NotCarried> {
        if !self.memory.is_new() {
            return Err(NotCarried::Known);
        }
        (self.policy, self.memory) = (policy, memory);
        self.memory.carried(offset, at);
        Ok(())
    }

    /// A fault in the program holds it from here on: its replicas stand, and the record says so.
    fn fault(&mut self, id: &TargetId, offset: Offset, effects: &mut Effects) {
        effects.holds(id.clone());
        self.panes = Panes::default();
        self.memory.faulted = Some(Fault { position: offset, announced: self.memory.policy.as_ref().map(|p| p.spec.clone()) });
        self.memory.due = None;
        if let Some(in_force) = &self.policy {
            // No command follows from a claim that was made before.
            claim::withdraw(id, &in_force.policy, &mut self.memory, effects);
        }
        alerts::faulted(&mut self.memory, id, offset, effects);
        if let Some(in_force) = &self.policy {
            self.memory.sequence += 1;
            let decision = evaluate::faulted(&in_force.policy, &in_force.version, &self.memory);
            effects.to_key(Topic::Audit, id.as_str(), Message::Audit(Audit::Decision(decision)));
        }
    }

    /// Whether it has a pane that it was not evaluated with.
    fn has_fresh_panes(&self) -> bool {
        let through = self.memory.evaluated_through;
        self.policy.is_some() && self.panes.iter().any(|(_, panes)| through.is_none_or(|t| panes.newest > t))
    }

    /// Whether such a pane is complete by `through`, and the policy wants to be asked again.
    fn has_complete_panes(&self, through: Timestamp) -> bool {
        let evaluated = self.memory.evaluated_through;
        let every = self.policy.as_ref().and_then(|p| p.policy.evaluate_every);
        if let (Some(evaluated), Some(every)) = (evaluated, every)
            && through < evaluated + every
        {
            return false;
        }
        evaluated.is_none_or(|evaluated| evaluated < through) && self.panes.iter().any(|(_, panes)| panes.has_end_in(evaluated, through))
    }

    fn is_fed_by(&self, sources: &BTreeSet<u32>) -> bool {
        self.memory.metrics.values().any(|metric| metric.fed.keys().any(|source| sources.contains(source)))
    }

    /// Whether it has no policy, and nobody has seen it for long.
    fn is_forgotten(&self, at: Timestamp) -> bool {
        let (memory, seen) = (&self.memory, self.memory.fleet.as_ref().map_or(Timestamp::MIN, |fleet| fleet.at));
        self.policy.is_none() && memory.policy.is_none() && memory.faulted.is_none() && memory.due.is_none() && at.since(seen) >= FORGET_AFTER
    }

    /// Whether the policy wants decisions.
    fn decides(&self) -> bool {
        self.policy.as_ref().is_some_and(|p| p.policy.mode != Mode::Off)
    }
}

/// The metrics whose panes are kept, with the first offset from which on they are.
type Wanted = BTreeMap<crate::model::MetricName, Offset>;
