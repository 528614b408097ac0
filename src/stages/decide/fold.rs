//! What each signal does to its target.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::log::Offset;
use crate::model::policy::{Mode, resolve_spec_json};
use crate::model::{
    Audit, Decision, FleetObservation, Grant, Message, Outcome, OutcomeResult, Part, PolicyAnnouncement, Severity, SourceError, Timestamp, Verdict,
};
use crate::stages::Effects;

use super::evaluate::{Surroundings, evaluate, forget, next_look};
use super::memory::{Announced, Audited, FleetSeen, Memory, MetricMemory};
use super::panes::Panes;
use super::sources::Sources;
use super::{
    ALERT_BLIND_AFTER, ALERT_NOT_SEEN_AFTER, ALERT_UNANSWERED_AFTER, AUDIT_EVERY, AuditWhen, Decide, FLEET_UNSEEN_AFTER, FORGET_AFTER, InForce, LOST_AFTER,
    MOST_INSTANCES, Target, Wanted, alerts, claim,
};
use crate::log::Topic;

/// Who changed a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The command in flight.
    OpenCommand,
    /// The command that the one in flight replaced.
    ReplacedCommand,
    /// Nobody that is known.
    SomebodyElse,
}

impl Target {
    /// Merges the panes that the policy's metrics want.
    pub(super) fn merge(&mut self, mut part: Part, offset: Offset) {
        let metrics = &self.memory.metrics;
        part.panes.retain(|pane| {
            let counts = |m: &MetricMemory| offset >= m.since_offset && m.forgotten_through.is_none_or(|gone| pane.end > gone);
            metrics.get(&pane.metric).is_some_and(|memory| counts(memory))
        });
        self.panes.merge(part, offset);
    }

    /// Holds panes of its metrics from `next` on, which was appended at `at`. Whether it held earlier ones.
    pub(super) fn begin_metrics_anew(&mut self, next: Offset, at: Timestamp) -> bool {
        let mut begun = BTreeSet::new();
        for (name, memory) in self.memory.metrics.iter_mut().filter(|(_, memory)| memory.since_offset < next) {
            (memory.since_offset, memory.begun_at) = (next, Some(at));
            begun.insert(name.clone());
        }
        self.panes.retain(|name| !begun.contains(name));
        !begun.is_empty()
    }

    /// A part of its panes.
    pub(super) fn part(&mut self, part: Part, offset: Offset) {
        for pane in &part.panes {
            if let Some(memory) = self.memory.metrics.get_mut(&pane.metric) {
                memory.newest = memory.newest.max(Some(pane.end));
                let fed = memory.fed.entry(part.source).or_insert(pane.end);
                *fed = pane.end.max(*fed);
                memory.source_error = None;
            }
        }
        self.merge(part, offset);
    }

    /// A source of one of its metrics failed.
    pub(super) fn source_error(&mut self, error: SourceError, stage: Decide, sources: &Sources, effects: &mut Effects) {
        if let Some(memory) = self.memory.metrics.get_mut(&error.metric)
            && memory.source_error.as_ref() != Some(&error.error)
        {
            memory.source_error = Some(error.error);
            self.evaluate(stage, sources, effects);
        }
    }

    /// Its policy was announced.
    pub(super) fn policy(&mut self, announcement: PolicyAnnouncement, offset: Offset, stage: Decide, sources: &Sources, effects: &mut Effects) {
        let PolicyAnnouncement { target, spec, order } = announcement;
        let memory = &mut self.memory;
        if let Some(known) = memory.order.as_ref().filter(|known| known.is_newer_than(&order)) {
            // Whoever announces counts upwards: it has forgotten how far, and a person waits for what it says.
            let message = format!(
                "a policy was announced as {order}, which is older than {known}: it is left aside; where the topic control or admit's state was lost, docs/kafka.md says how to go on"
            );
            alerts::set(memory, &target, "PolicyUnusable", Severity::Warning, true, || message, effects);
            return;
        }
        memory.order = Some(order.clone());
        let Some(spec) = spec else {
            self.leave(effects);
            return;
        };
        if let Some(known) = memory.policy.as_mut().filter(|known| known.spec == spec) {
            // Perhaps from elsewhere, as of a file that was renamed: decisions name where it is now.
            if known.order != order {
                let version = order.to_string();
                known.order = order;
                self.policy = self.policy.take().map(|in_force| Arc::new(InForce { policy: in_force.policy.clone(), version }));
            }
            let message = || "the policy in force was announced again".to_owned();
            alerts::set(memory, &target, "PolicyUnusable", Severity::Warning, false, message, effects);
            return; // said again
        }
        let announced = Announced { spec, order };
        match InForce::of(resolve_spec_json(&announced.spec, &target), &announced) {
            Err(problems) => {
                let then = if self.policy.is_some() { "the last one stays in force" } else { "there was none before, so nothing is decided" };
                let message = || format!("a policy was announced that this version cannot use, {then}: {problems}");
                alerts::set(memory, &target, "PolicyUnusable", Severity::Warning, true, message, effects);
            }
            Ok(in_force) => {
                alerts::set(memory, &target, "PolicyUnusable", Severity::Warning, false, || "the policy can be used".to_owned(), effects);
                let wanted: Wanted = in_force.policy.metrics.iter().map(|m| (m.name.clone(), offset)).collect();
                memory.metrics.retain(|name, _| wanted.contains_key(name));
                self.panes.retain(|name| wanted.contains_key(name));
                for (name, since_offset) in wanted {
                    memory.metrics.entry(name).or_insert_with(|| Box::new(MetricMemory::begun(since_offset, memory.now)));
                }
                for now in &in_force.policy.metrics {
                    let before = self.policy.as_ref().and_then(|before| before.policy.metrics.iter().find(|metric| metric.name == now.name));
                    if let (Some(before), Some(known)) = (before, memory.metrics.get_mut(&now.name)) {
                        known.written_anew(before, now);
                    }
                }
                if memory.policy.is_none() {
                    memory.policy_at = memory.now;
                }
                memory.policy = Some(announced);
                if in_force.policy.mode == Mode::Advise {
                    // Nothing is advised on a count that nobody has seen.
                    memory.shadow = memory.shadow.or(memory.fleet.as_ref().map(|_| memory.current));
                } else {
                    memory.end_shadow();
                }
                let left = self.policy.as_ref().filter(|before| before.policy.fleet != in_force.policy.fleet);
                if let Some(before) = left {
                    claim::withdraw(&target, &before.policy, memory, effects);
                } else if matches!(in_force.policy.mode, Mode::Advise | Mode::Off) {
                    claim::withdraw(&target, &in_force.policy, memory, effects);
                }
                self.policy = Some(in_force);
                self.evaluate(stage, sources, effects);
            }
        }
    }

    /// Its policy was removed: the replicas stay as they are.
    fn leave(&mut self, effects: &mut Effects) {
        let Some(in_force) = self.policy.take() else { return };
        claim::withdraw(&in_force.policy.target, &in_force.policy, &mut self.memory, effects);
        self.panes = Panes::default();
        let memory = &mut self.memory;
        for (name, _) in std::mem::take(&mut memory.firing) {
            let mut firing = Memory { firing: vec![(name.clone(), String::new())], now: memory.now, ..Memory::default() };
            alerts::set(&mut firing, &in_force.policy.target, &name, Severity::Info, false, || "its policy was removed".to_owned(), effects);
        }
        *memory = Memory {
            next_offset: memory.next_offset,
            now: memory.now,
            order: memory.order.take(),
            fleet: memory.fleet.take(),
            current: memory.current,
            revision: memory.revision,
            epoch: memory.epoch,
            closed_epoch: memory.epoch,
            due: Some(memory.now + FORGET_AFTER),
            sequence: memory.sequence,
            ..Memory::default()
        };
    }

    /// Its replicas were seen.
    pub(super) fn fleet(&mut self, seen: FleetObservation, at: Timestamp, stage: Decide, sources: &Sources, effects: &mut Effects) {
        let memory = &mut self.memory;
        let FleetSeen { seen, named_at, names, .. } = FleetSeen::after(memory.fleet.as_ref(), at, seen);
        let before = memory.fleet.as_ref().map(|f| &f.seen);
        if before.is_some_and(|b| (b.term, b.sequence) >= (seen.term, seen.sequence)) {
            return;
        }
        if before.is_some_and(|b| b.uid != seen.uid) {
            if let Some(in_force) = &self.policy {
                claim::withdraw(&in_force.policy.target, &in_force.policy, memory, effects);
            }
            memory.new_incarnation();
        }
        let before = memory.fleet.as_ref().map(|f| &f.seen);
        let first = before.is_none();
        let same = before.is_some_and(|b| {
            (b.desired, b.status_replicas, b.updating, &b.instances, b.revision)
                == (seen.desired, seen.status_replicas, seen.updating, &seen.instances, seen.revision)
        });
        let outdated = memory.revision.zip(seen.revision).is_some_and(|(known, new)| new < known);
        if !outdated {
            memory.revision = seen.revision.or(memory.revision);
            if first {
                memory.current = seen.desired;
            } else if seen.desired != memory.current {
                let by = match &memory.open {
                    Some(open) if open.to == seen.desired => By::OpenCommand,
                    Some(_) if memory.replaced_to == Some(seen.desired) => By::ReplacedCommand,
                    _ => By::SomebodyElse,
                };
                self.count_is(seen.desired, by, effects);
            }
        }
        let memory = &mut self.memory;
        if self.policy.as_ref().is_some_and(|p| p.policy.mode == Mode::Advise) && memory.shadow.is_none() {
            memory.shadow = Some(memory.current);
        }
        memory.fleet = Some(FleetSeen { at, seen, named_at, names });
        if self.policy.is_none() {
            memory.due = Some(memory.now + FORGET_AFTER);
        } else if !same {
            self.evaluate(stage, sources, effects);
        }
    }

    /// The count stands at `replicas` now.
    fn count_is(&mut self, replicas: u32, by: By, effects: &mut Effects) {
        let memory = &mut self.memory;
        let (now, from) = (memory.now, memory.current);
        memory.current = replicas;
        if memory.shadow.is_none() {
            memory.changed(now, from, replicas);
        }
        if by == By::ReplacedCommand {
            return; // the one that replaced it is still in flight
        }
        memory.claim = None;
        if by == By::OpenCommand {
            memory.close_command();
            memory.failures = 0;
            memory.retry_at = None;
        } else if let Some(in_force) = &self.policy {
            let message = format!(
                "the replicas were set from {from} to {replicas} by hand, or by another program; that counts as a change, and is decided on from there"
            );
            alerts::tell(&in_force.policy.target, "ChangedFromOutside", Severity::Info, message, now, effects);
        }
    }

    /// The arbiter answered.
    pub(super) fn grant(&mut self, grant: Grant) {
        let memory = &mut self.memory;
        if let Some(claim) = memory.claim.as_mut().filter(|c| c.epoch == grant.epoch) {
            claim.answered = true;
        }
        // An answer may cross the outcome of the command that it names.
        if let Some(command) = grant.command
            && command.epoch > memory.closed_epoch
            && command.epoch >= memory.open.as_ref().map_or(0, |open| open.epoch)
        {
            memory.epoch = memory.epoch.max(grant.epoch);
            memory.due = memory.due.min(Some(command.expires_at + LOST_AFTER)).or(Some(command.expires_at + LOST_AFTER));
            if let Some(before) = memory.open.replace(command)
                && memory.open.as_ref().is_some_and(|open| open.id != before.id)
            {
                memory.replaced_to = Some(before.to);
            }
        }
    }

    /// Something came of a command.
    pub(super) fn outcome(&mut self, outcome: &Outcome, stage: Decide, sources: &Sources, effects: &mut Effects) {
        let memory = &mut self.memory;
        // A late word on an earlier incarnation: its counts and revisions are not of this one, and its commands were closed with it.
        if outcome.uid.as_ref().zip(memory.fleet.as_ref()).is_some_and(|(uid, fleet)| *uid != fleet.seen.uid) {
            return;
        }
        let ours = memory.open.as_ref().is_some_and(|open| open.id == outcome.command);
        // What our own command found in its place is the truth, also where the record was put back to an older one.
        let found = ours && outcome.result == OutcomeResult::Conflict;
        let newer = match (memory.revision, outcome.revision) {
            (Some(known), Some(new)) => new > known || found,
            _ => ours,
        };
        let applied = outcome.result == OutcomeResult::Applied;
        if !(ours || applied && newer) {
            return; // of a command that was closed before
        }
        memory.revision = if found { outcome.revision.or(memory.revision) } else { memory.revision.max(outcome.revision) };
        let before = memory.current;
        if let Some(replicas) = outcome.replicas.filter(|_| newer)
            && replicas != memory.current
        {
            let by = match (applied, ours) {
                (true, true) => By::OpenCommand,
                (true, false) => By::ReplacedCommand,
                (false, _) => By::SomebodyElse,
            };
            self.count_is(replicas, by, effects);
        }
        let memory = &mut self.memory;
        if ours {
            memory.close_command();
            memory.claim = None;
        }
        if applied {
            memory.failures = 0;
            memory.retry_at = None;
        } else if ours {
            claim::came_to_nothing(memory, outcome.result, before);
        }
        self.evaluate(stage, sources, effects);
    }

    /// Up to when its panes are complete: nothing is that lies ahead of its own time, also where the clock was set back
    /// and the sources have not said so yet.
    fn complete_through(&self, sources: &Sources) -> Timestamp {
        sources.complete_through().min(self.memory.now.window_start(sources.pane()))
    }

    /// Evaluates it, and does what follows from the decision.
    pub(super) fn evaluate(&mut self, stage: Decide, sources: &Sources, effects: &mut Effects) {
        let Some(in_force) = self.policy.clone() else { return };
        let target = &in_force.policy.target;
        if !self.decides() || self.memory.fleet.is_none() {
            // Panes come all the same, and are kept as if it were evaluated: for when it is.
            let (through, now) = (self.complete_through(sources), self.memory.now);
            let silent = |source| sources.silent_after(source, now);
            let around = Surroundings { through, pane: sources.pane(), silent: &silent, unheard: None };
            forget(&in_force.policy, &mut self.memory, &mut self.panes, around);
        }
        let Some(fleet) = self.memory.fleet.take() else {
            self.not_seen(effects);
            return;
        };
        if !self.decides() {
            self.memory.fleet = Some(fleet);
            return;
        }
        let (pane, through) = (sources.pane(), self.complete_through(sources));
        let every = in_force.policy.evaluate_every.unwrap_or(pane).max(pane);
        let memory = &mut self.memory;
        if let Some(start) = self.start.take() {
            memory.start(&start.proposals, &start.events);
        }
        claim::close_lost(target, memory, effects);
        let now = memory.now;
        let silent = |source| sources.silent_after(source, now);
        let around = Surroundings { through, pane, silent: &silent, unheard: sources.unheard_since_loss(now) };
        let decision = evaluate(&in_force.policy, &in_force.version, memory, &mut self.panes, &fleet, around);
        alerts::set(memory, target, "TargetNotSeen", Severity::Warning, false, || "its replicas are seen".to_owned(), effects);
        let dropped = self.panes.take_dropped();
        let message = || match dropped {
            0 => "its instances are within the limit again".to_owned(),
            dropped => format!("a metric of it has more than {MOST_INSTANCES} instances; {dropped} samples of others were not counted"),
        };
        alerts::set(memory, target, "TooManyInstances", Severity::Warning, dropped > 0, message, effects);
        let unseen = memory.now.since(fleet.at) >= FLEET_UNSEEN_AFTER;
        let message =
            || if unseen { "its replicas have not been seen for 3 minutes; it does not shrink".to_owned() } else { "its replicas are seen again".to_owned() };
        alerts::set(memory, target, "FleetUnseen", Severity::Warning, unseen, message, effects);
        memory.fleet = Some(fleet);
        audit(memory, &decision, stage, effects);
        claim::follow(&in_force.policy, &decision, memory, effects);
        self.alert(&decision, effects);
        self.memory.due = next_look(&in_force.policy, &self.memory, &decision, every);
        effects.evaluated(decision);
    }

    /// It has a policy, and nobody has seen it.
    fn not_seen(&mut self, effects: &mut Effects) {
        let Some(in_force) = &self.policy else { return };
        let memory = &mut self.memory;
        let since = memory.policy_at + ALERT_NOT_SEEN_AFTER;
        if memory.now >= since {
            let message = || {
                "there is a policy for it, but nobody reports its replicas: is its name right, does it run, and is there an observer for its kind?".to_owned()
            };
            alerts::set(memory, &in_force.policy.target, "TargetNotSeen", Severity::Warning, true, message, effects);
        } else {
            memory.due = Some(since);
        }
    }

    fn alert(&mut self, decision: &Decision, effects: &mut Effects) {
        let memory = &mut self.memory;
        let blind = memory.blind_since.is_some_and(|since| memory.now.since(since) >= ALERT_BLIND_AFTER);
        let message = || match blind {
            true => "none of its metrics has a value to act on; its replicas stand, or follow its fallback".to_owned(),
            false => "its metrics have values again".to_owned(),
        };
        alerts::set(memory, &decision.target, "AllMetricsBlind", Severity::Critical, blind, message, effects);
        let unanswered = memory.claim.as_ref().is_some_and(|c| !c.answered && c.current != c.desired && memory.now.since(c.at) >= ALERT_UNANSWERED_AFTER);
        let message = || match unanswered {
            true => "the arbiter has not answered its claim for 5 seconds".to_owned(),
            false => "the arbiter answers".to_owned(),
        };
        alerts::set(memory, &decision.target, "ClaimUnanswered", Severity::Warning, unanswered, message, effects);
        let failing = memory.failures >= 3;
        let message = || match failing {
            true => "three commands in a row came to nothing; see the outcomes in `loadline why`".to_owned(),
            false => "commands take effect again".to_owned(),
        };
        alerts::set(memory, &decision.target, "CommandsFail", Severity::Critical, failing, message, effects);
    }
}

/// Writes a decision down where anything but the numbers inside it changed, and hourly.
fn audit(memory: &mut Memory, decision: &Decision, stage: Decide, effects: &mut Effects) {
    let due = memory.audited.as_ref().is_none_or(|last| memory.now.since(last.at) >= AUDIT_EVERY || !last.says_of(decision));
    if due {
        memory.audited = Some(Audited {
            at: memory.now,
            desired: decision.desired,
            verdict: decision.verdict,
            binding: decision.binding,
            policy_version: decision.policy_version.clone(),
            statuses: decision.metrics.iter().map(|m| m.status).collect(),
        });
    }
    if due || stage.audit == AuditWhen::Always {
        effects.to_key(Topic::Audit, decision.target.as_str(), Message::Audit(Audit::Decision(decision.clone())));
    }
}

/// Whether a decision commands anything.
pub(super) fn moves(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::ScaleOut | Verdict::ScaleIn) || decision.current != decision.desired
}
