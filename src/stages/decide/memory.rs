//! What decide remembers of a target beyond its panes: this is its snapshot.
//!
//! Everything here is serialized as JSON with defaults for what is missing, so that a snapshot of an
//! older release reads, and one of a newer release reads as far as it is known. What there is nothing of is not written: a process that takes
//! over reads a tenth less.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::Offset;
use crate::model::policy::{MetricPolicy, MetricRule};
use crate::model::{Decision, FleetObservation, MetricName, MetricStatus, OpenCommand, Order, StepKind, Timestamp, Verdict};

use super::stabilize::Proposals;

/// A change of the count that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// When.
    pub(super) at: Timestamp,
    /// The count before.
    pub(super) from: u32,
    /// The count after.
    pub(super) to: u32,
}

/// The most changes that are remembered: one every two seconds of the longest period, which only changes from outside
/// come to.
const MOST_EVENTS: usize = 1_000;

/// A change that counts for the rate policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScaleEvent {
    /// When.
    pub(super) at: Timestamp,
    /// By how many replicas: positive for growth.
    pub(super) change: i64,
}

/// What is remembered of one metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct MetricMemory {
    /// The first offset from which on its panes are held.
    pub(super) since_offset: Offset,
    /// Since when its panes are held: the pane that it lies in was seen in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) begun_at: Option<Timestamp>,
    /// The end of the newest pane ever merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<Timestamp>,
    /// The end of the newest pane that each source fed; of those that are silent however long ago, else as far as panes are held.
    pub(super) fed: BTreeMap<u32, Timestamp>,
    /// Panes that end after this are all held; earlier ones may have been forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete_since: Option<Timestamp>,
    /// Panes that end by this are not held any more, and never count again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forgotten_through: Option<Timestamp>,
    /// Since when (event time) it has been above its scale-out threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) above_since: Option<Timestamp>,
    /// Since when (event time) it has been below its scale-in threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) below_since: Option<Timestamp>,
    /// What its source said last, where it failed since the newest pane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_error: Option<String>,
    /// Its status at the last evaluation.
    pub(super) status: MetricStatus,
}

impl MetricMemory {
    /// Of a metric whose panes are held from `offset` on.
    pub(super) fn begun(offset: Offset, at: Timestamp) -> Self {
        MetricMemory { since_offset: offset, begun_at: Some(at), ..MetricMemory::default() }
    }

    /// Its policy was written anew: how long its value has been beyond a limit is known of the same limit and the same measurement only.
    pub(super) fn written_anew(&mut self, before: &MetricPolicy, now: &MetricPolicy) {
        let measured = |m: &MetricPolicy| (m.kind, m.unit, m.measure, m.window);
        let limits = |m: &MetricPolicy| match &m.rule {
            MetricRule::Threshold(rule) if measured(m) == measured(now) => (rule.scale_out_above, rule.scale_in_below),
            _ => (None, None),
        };
        let (before, now) = (limits(before), limits(now));
        self.above_since = self.above_since.filter(|_| before.0 == now.0);
        self.below_since = self.below_since.filter(|_| before.1 == now.1);
    }

    /// The end of the last pane that was not held from its beginning on.
    pub(super) fn partial_through(&self, pane: Duration) -> Timestamp {
        self.begun_at.map_or(Timestamp::MIN, |begun| if begun == begun.window_start(pane) { begun } else { begun.window_start(pane) + pane })
    }
}

/// What a claim says of its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) min: u32,
    pub(super) priority: i32,
    pub(super) paced: bool,
}

/// The standing claim at the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claim {
    pub(super) epoch: i64,
    pub(super) current: u32,
    pub(super) desired: u32,
    pub(super) at: Timestamp,
    pub(super) answered: bool,
    /// What it says of the policy.
    pub(super) terms: Terms,
}

/// What of a decision decides whether the next one is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audited {
    pub(super) at: Timestamp,
    pub(super) desired: u32,
    pub(super) verdict: Verdict,
    pub(super) binding: StepKind,
    pub(super) policy_version: String,
    pub(super) statuses: Vec<MetricStatus>,
}

impl Audited {
    /// Whether it says the same of a decision, but for when it was made.
    pub(super) fn says_of(&self, decision: &Decision) -> bool {
        let Audited { at: _, desired, verdict, binding, policy_version, statuses } = self;
        let statuses = statuses.iter().eq(decision.metrics.iter().map(|metric| &metric.status));
        (*desired, *verdict, *binding) == (decision.desired, decision.verdict, decision.binding) && *policy_version == decision.policy_version && statuses
    }
}

/// The fleet as last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetSeen {
    /// When the log took the observation.
    pub(super) at: Timestamp,
    /// The observation, its instances by name.
    pub(super) seen: FleetObservation,
    /// When the log took the first of the observations since which the instances have had these names.
    #[serde(default)]
    pub(super) named_at: Timestamp,
    /// Counts up whenever the names of the instances are others; not saved.
    #[serde(skip)]
    pub(super) names: u64,
}

impl FleetSeen {
    /// An observation that the log took at `at`, after `before`.
    pub(super) fn after(before: Option<&FleetSeen>, at: Timestamp, mut seen: FleetObservation) -> Self {
        seen.instances.sort_by(|a, b| a.name.cmp(&b.name));
        for instance in &mut seen.instances {
            let known = before
                .and_then(|before| before.seen.instances.binary_search_by(|known| known.name.cmp(&instance.name)).ok().map(|i| &before.seen.instances[i]));
            // A clock was set back: what began later than now began when it was first seen so, else it would be new for as
            // long as the clock was set back.
            let not_later = |time: &mut Option<Timestamp>, known: Option<Timestamp>| {
                if time.is_some_and(|time| time > at) {
                    *time = known.filter(|known| *known <= at).or(Some(at));
                }
            };
            not_later(&mut instance.started_at, known.and_then(|known| known.started_at));
            not_later(&mut instance.ready_changed_at, known.filter(|known| known.ready == instance.ready).and_then(|known| known.ready_changed_at));
        }
        let same_names = |before: &&FleetSeen| before.seen.instances.iter().map(|i| &i.name).eq(seen.instances.iter().map(|i| &i.name));
        let same = before.filter(same_names);
        // From 1 on: 0 is what was restored, which nothing has been compared with.
        let names = same.map_or_else(|| before.map_or(0, |b| b.names) + 1, |same| same.names.max(1));
        let named_at = same.map_or(at, |same| same.named_at.min(at));
        FleetSeen { at, seen, named_at, names }
    }
}

/// The policy as announced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Announced {
    /// The document's `spec`, as JSON text.
    pub(super) spec: String,
    /// Its place in its source's order.
    pub(super) order: Order,
}

/// A fault in the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fault {
    /// The offset of the signal that it came with.
    pub(super) position: Offset,
    /// The `spec` as announced last, whether it could be used or not: another one ends the fault.
    pub(super) announced: Option<String>,
}

/// What decide remembers of a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Memory {
    /// The first offset that this does not hold: of earlier records only panes are merged.
    pub(super) next_offset: Offset,
    /// The target's time: the largest `at` of what concerned it.
    pub(super) now: Timestamp,
    /// When it must be looked at again without being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) due: Option<Timestamp>,
    /// Its policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Announced>,
    /// The order of the last announcement, also of one that removed the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order: Option<Order>,
    /// When the policy came.
    pub(super) policy_at: Timestamp,
    /// Its replicas as last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fleet: Option<FleetSeen>,
    /// The count that is asked for, as far as is known (the spec).
    pub(super) current: u32,
    /// The version of the target's record that `current` was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<i64>,
    /// Mode Advise: the count that would stand now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shadow: Option<u32>,
    /// Event time up to which it was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evaluated_through: Option<Timestamp>,
    /// When it was last evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evaluated_at: Option<Timestamp>,
    /// Evaluations so far.
    pub(super) sequence: i64,
    /// What is remembered of each metric. In boxes: a node of the map has eleven places, and most targets have few metrics.
    pub(super) metrics: BTreeMap<MetricName, Box<MetricMemory>>,
    /// Earlier proposals.
    pub(super) proposals: Proposals,
    /// Changes inside the longest rate period.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<ScaleEvent>,
    /// The last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_change: Option<Change>,
    /// The last growth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_growth: Option<Change>,
    /// Since when all proposing metrics have been blind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blind_since: Option<Timestamp>,
    /// Since when all proposing metrics have been idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle_since: Option<Timestamp>,
    /// The standing claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<Claim>,
    /// The last epoch that was used.
    pub(super) epoch: i64,
    /// The command under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) open: Option<OpenCommand>,
    /// What the command that the open one replaced would set: it may still be carried out first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replaced_to: Option<u32>,
    /// The largest epoch of a command that is closed: none of up to this one is in flight any more.
    pub(super) closed_epoch: i64,
    /// Commands in a row that came to nothing.
    pub(super) failures: u32,
    /// No new claim before this, after a command that came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_at: Option<Timestamp>,
    /// The last decision that was written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audited: Option<Audited>,
    /// The alerts that fire now: name and subject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) firing: Vec<(String, String)>,
    /// A fault in the program holds this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) faulted: Option<Fault>,
}

impl Memory {
    /// The count that decisions start from: the shadow count, where there is one.
    pub(super) fn counted(&self) -> u32 {
        self.shadow.unwrap_or(self.current)
    }

    /// Whether nothing has been said of the target but that it is there.
    pub(super) fn is_new(&self) -> bool {
        let Memory { next_offset, now, .. } = *self;
        *self == Memory { next_offset, now, ..Memory::default() }
    }

    /// It stands in another log from `offset` on, which that one took at `at`: places and sources of the log before mean nothing there.
    pub(super) fn carried(&mut self, offset: Offset, at: Timestamp) {
        self.next_offset = 0;
        self.now = self.now.max(at);
        for metric in self.metrics.values_mut() {
            (metric.since_offset, metric.begun_at) = (offset, Some(at));
            metric.fed.clear();
        }
        if let Some(fault) = &mut self.faulted {
            fault.position = 0;
        }
    }

    /// Takes over a history, oldest first, with ages as of now.
    pub(super) fn start(&mut self, proposals: &[(Duration, u32)], events: &[(Duration, i64)]) {
        self.proposals.begin();
        for (age, replicas) in proposals {
            self.proposals.enter(self.now - *age, *replicas);
        }
        self.events.extend(events.iter().map(|(age, change)| ScaleEvent { at: self.now - *age, change: *change }));
    }

    /// The memory of one metric.
    pub(super) fn metric(&mut self, name: &MetricName) -> &mut MetricMemory {
        if !self.metrics.contains_key(name) {
            self.metrics.insert(name.clone(), Box::default());
        }
        self.metrics.get_mut(name).unwrap_or_else(|| unreachable!("it was put there"))
    }

    /// The command in flight is over, whatever came of it.
    pub(super) fn close_command(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed_epoch = self.closed_epoch.max(open.epoch);
        }
        self.replaced_to = None;
    }

    /// A shadow count ends: what it went through never was.
    pub(super) fn end_shadow(&mut self) {
        if self.shadow.take().is_some() {
            self.events.clear();
            (self.last_change, self.last_growth) = (None, None);
        }
    }

    /// The clock was set back to `at`: nothing that is remembered lies in its future, and nothing that is
    /// waited for lies further ahead than it did.
    pub(super) fn set_back(&mut self, at: Timestamp, offset: Offset) {
        let earlier = |time: &mut Timestamp| *time = (*time).min(at);
        let gone = self.now;
        self.now = at;
        self.due = Some(at);
        earlier(&mut self.policy_at);
        for change in [&mut self.last_change, &mut self.last_growth].into_iter().flatten() {
            earlier(&mut change.at);
        }
        self.events.iter_mut().for_each(|event| earlier(&mut event.at));
        self.proposals.set_back(at);
        for time in [&mut self.evaluated_at, &mut self.blind_since, &mut self.idle_since].into_iter().flatten() {
            earlier(time);
        }
        if let Some(fleet) = &mut self.fleet {
            earlier(&mut fleet.at);
            for instance in &mut fleet.seen.instances {
                [&mut instance.started_at, &mut instance.ready_changed_at].into_iter().flatten().for_each(earlier);
            }
        }
        if let Some(claim) = &mut self.claim {
            earlier(&mut claim.at);
        }
        if let Some(audited) = &mut self.audited {
            earlier(&mut audited.at);
        }
        let back = gone.since(at);
        if let Some(open) = &mut self.open {
            open.expires_at = open.expires_at - back;
        }
        self.retry_at = self.retry_at.map(|retry| retry - back);
        // Panes of the time that was taken back would be merged with those that come again.
        self.evaluated_through = None;
        for metric in self.metrics.values_mut() {
            let mut fed = std::mem::take(&mut metric.fed);
            fed.values_mut().for_each(earlier);
            **metric = MetricMemory { source_error: metric.source_error.take(), fed, ..MetricMemory::begun(offset, at) };
        }
    }

    /// Takes a change of the count into account that took effect at `at`.
    pub(super) fn changed(&mut self, at: Timestamp, from: u32, to: u32) {
        if from == to {
            return;
        }
        let change = Change { at, from, to };
        self.last_change = Some(change);
        if to > from {
            self.last_growth = Some(change);
        }
        self.events.push(ScaleEvent { at, change: i64::from(to) - i64::from(from) });
        if self.events.len() > MOST_EVENTS {
            self.events.remove(0);
        }
    }

    /// The target is another one under the same name: nothing of the old one holds.
    pub(super) fn new_incarnation(&mut self) {
        *self = Memory {
            next_offset: self.next_offset,
            now: self.now,
            policy: self.policy.take(),
            order: self.order.take(),
            policy_at: self.policy_at,
            sequence: self.sequence,
            metrics: std::mem::take(&mut self.metrics),
            evaluated_through: self.evaluated_through,
            epoch: self.epoch,
            closed_epoch: self.epoch,
            firing: std::mem::take(&mut self.firing),
            ..Memory::default()
        };
    }
}
