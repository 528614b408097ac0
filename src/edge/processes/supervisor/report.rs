//! What a supervisor measures and tells.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::condition::{self, Condition};
use super::super::instance::{Instance, Moment};
use super::super::record::FleetRecord;
use super::super::status::{FleetStatus, InstanceStatus};
use super::super::{output, procfs};
use super::{Mode, SLOW, Supervisor, output_path};
use crate::edge::observe::Sighting;
use crate::model::{Kind, Sample, Timestamp};

impl Supervisor {
    /// Measures what every instance uses, when that is due.
    pub(super) fn measure(&mut self, moment: Moment, now: Timestamp) {
        if moment < self.next_measure {
            return;
        }
        // On the beat, so that panes get their samples evenly; what was missed is not caught up.
        let every = self.spec.measure_every;
        self.next_measure = if moment.saturating_sub(self.next_measure) < every { self.next_measure + every } else { moment + every };
        let mut samples = Vec::new();
        for instance in self.instances.values() {
            let Some(running) = instance.running() else { continue };
            let Some(usage) = self.meter.measure(instance.name.as_str(), running.id, self.since.elapsed()) else { continue };
            let values = [(&self.metrics.cpu, usage.cores), (&self.metrics.memory, Some(usage.memory_bytes))];
            samples.extend(values.into_iter().filter_map(|(metric, value)| {
                Some(Sample {
                    targets: vec![self.target.clone()],
                    metric: metric.clone(),
                    instance: instance.name.clone(),
                    time: now,
                    kind: Kind::Gauge,
                    value: value?,
                    histogram: None,
                })
            }));
        }
        if !samples.is_empty() {
            self.outbox.samples(self.target.clone(), samples);
        }
    }

    /// Keeps outputs bounded, and forgets what is gone.
    pub(super) fn look_after_outputs(&mut self, moment: Moment) {
        if moment < self.next_slow {
            return;
        }
        self.next_slow = moment + SLOW;
        self.meter.keep(|name| self.instances.contains_key(name));
        self.foreign.retain(|process| procfs::is_running(*process));
        let directory = self.directory.join("output");
        // One that fails keeps none of the others from being rotated.
        let failed = |name| output::rotate(&output_path(&self.directory, name), self.spec.output).err();
        let rotated = self.instances.keys().filter_map(failed).fold(None, |_, error| Some(error));
        let tidied = if directory.is_dir() { output::tidy(&directory, |name| self.instances.contains_key(name)).err() } else { None };
        self.output_trouble = rotated.or(tidied).map(|error| format!("output in {} cannot be rotated: {error}", directory.display()));
    }

    /// Nothing holds of a fleet that nobody looks after here.
    pub(super) fn resolve_all(&mut self) {
        for alert in condition::changes(&self.target, &self.conditions, &condition::Conditions::new(), self.clock.now()) {
            self.outbox.alert(alert);
        }
    }

    /// Tells what is there and what is wrong.
    pub(super) fn report(&mut self, record: Option<&FleetRecord>, moment: Moment, now: Timestamp) {
        let mut holding = std::mem::take(&mut self.now_holding);
        holding.extend(condition::of_instances(&self.instances));
        let troubles = [
            (Condition::EndpointsNotWritten, self.publisher.file_trouble.clone()),
            (Condition::HookFailed, self.publisher.hook_trouble.clone()),
            (Condition::OutputNotRotated, self.output_trouble.clone()),
        ];
        holding.extend(troubles.into_iter().filter_map(|(condition, words)| Some((condition, words?))));
        if !self.foreign.is_empty() {
            let pids: Vec<String> = self.foreign.iter().map(|process| process.pid.to_string()).collect();
            holding.insert(
                Condition::ForeignProcesses,
                format!(
                    "processes of another incarnation of this fleet run and are left alone: pid {}; where no other Loadline keeps them, end them by hand",
                    pids.join(", ")
                ),
            );
        }
        // What fired before is written over only once it is taken up, or is none of this fleet's.
        if self.uid.is_some() || self.firing.is_known() || self.shared.elsewhere.load(Ordering::SeqCst) {
            self.firing.add(&holding);
        }
        let changes = condition::changes(&self.target, &self.conditions, &holding, now);
        // Before the incarnation is known, what fired before it is not known to be over.
        if changes.is_empty() && self.uid.is_some() && self.outbox.alerts_are_appended() {
            self.firing.keep(&holding);
        }
        for alert in changes {
            // Its line is written when it is in the log, as that of every alert.
            self.outbox.alert(alert);
        }
        self.conditions = holding;
        let staying = self.instances.values().filter(|instance| instance.leaving.is_none()).count();
        if let (Some(record), Mode::Supervise) = (record, self.mode) {
            let sighting = Sighting {
                target: self.target.clone(),
                uid: record.uid.clone(),
                revision: record.revision,
                desired: record.replicas,
                status_replicas: u32::try_from(staying).unwrap_or(u32::MAX),
                instances: self.instances.values().map(Instance::observed).collect(),
            };
            if self.sighted.as_ref().is_none_or(|(last, at)| *last != sighting || moment.saturating_sub(*at) >= SLOW) {
                self.outbox.sighting(sighting.clone());
                self.sighted = Some((sighting, moment));
            }
        }
        let status = FleetStatus {
            target: self.target.clone(),
            uid: self.uid.clone(),
            replicas: record.map(|record| record.replicas),
            revision: record.map(|record| record.revision),
            changed_by: record.map(|record| record.changed_by.clone()),
            changed_at: record.map(|record| record.changed_at),
            instances: self.instances.values().map(InstanceStatus::of).collect(),
            conditions: self.conditions.iter().map(|(condition, words)| (condition.name().to_owned(), words.clone())).collect(),
        };
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}
