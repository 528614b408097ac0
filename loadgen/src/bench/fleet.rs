//! Targets, their policies, and what an observer and an actuator say of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use loadline::log::{Log, Topic};
use loadline::model::{Audit, Command, FleetObservation, Message, MetricName, MetricStatus, Outcome, OutcomeResult, Signal, TargetId};
use loadline::runtime::publish;
use loadline::stages::Effects;

use super::cluster::Tail;
use super::process::wait_for;

/// How many are said in one append.
const SAID_AT_ONCE: usize = 1_000;

/// How many documents stand in one file: some 150 KiB, which the watcher takes.
const DOCUMENTS: usize = 250;

/// An unchanged fleet is said again after so long, as Loadline's own observer does.
pub(super) const REPEAT: Duration = Duration::from_secs(30);

/// How long a poll waits.
const SLICE: Duration = Duration::from_millis(100);

/// Targets that no actuator of Loadline scales.
pub(super) struct Fleet {
    targets: Vec<TargetId>,
    counts: Vec<u32>,
    sequence: i64,
}

impl Fleet {
    /// So many, each with so many replicas.
    pub(super) fn new(targets: u32, replicas: u32) -> anyhow::Result<Fleet> {
        let targets = (0..targets).map(|number| Ok(format!("bench/Deployment/t{number}").parse()?)).collect::<anyhow::Result<Vec<TargetId>>>()?;
        Ok(Fleet { counts: vec![replicas; targets.len()], targets, sequence: 0 })
    }

    /// They.
    pub(super) fn targets(&self) -> &[TargetId] {
        &self.targets
    }

    /// How many replicas one has.
    pub(super) fn count(&self, target: &TargetId) -> Option<u32> {
        self.place(target).map(|place| self.counts[place])
    }

    fn place(&self, target: &TargetId) -> Option<usize> {
        target.name().strip_prefix('t')?.parse().ok().filter(|place| *place < self.targets.len())
    }

    /// Writes a policy for each of them: `rest` stands in its `spec`.
    pub(super) fn write_policies(&self, home: &Path, rest: &str) -> anyhow::Result<()> {
        let policies = home.join("policies");
        std::fs::create_dir_all(&policies)?;
        let document = |target: &TargetId| {
            let name = target.name();
            format!(
                "---\napiVersion: loadline.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {{ namespace: bench, name: {name} }}\nspec:\n  target: {{ apiVersion: apps/v1, kind: \
                 Deployment, name: {name} }}\n{rest}"
            )
        };
        for (number, targets) in self.targets.chunks(DOCUMENTS).enumerate() {
            std::fs::write(policies.join(format!("{number}.yaml")), targets.iter().map(document).collect::<String>())?;
        }
        Ok(())
    }

    /// What there is, as an observer says it.
    pub(super) fn say_all(&mut self, log: &dyn Log) -> anyhow::Result<()> {
        for first in (0..self.targets.len()).step_by(SAID_AT_ONCE) {
            let mut effects = Effects::new();
            (first..self.targets.len().min(first + SAID_AT_ONCE)).for_each(|place| self.say(place, &mut effects));
            publish(log, effects)?;
        }
        Ok(())
    }

    fn say(&mut self, place: usize, effects: &mut Effects) {
        self.sequence += 1;
        let (target, count) = (&self.targets[place], self.counts[place]);
        let seen = FleetObservation {
            target: target.clone(),
            uid: "1".to_owned(),
            term: 1,
            sequence: self.sequence,
            revision: Some(i64::from(count)),
            desired: count,
            status_replicas: count,
            updating: false,
            instances: Vec::new(),
        };
        effects.to_key(Topic::Signals, target.as_str(), Message::Signal(Signal::Fleet(seen)));
    }

    /// Carries a command out, as an actuator does: what came of it, and what there is then.
    pub(super) fn carry_out(&mut self, command: &Command, log: &dyn Log) -> anyhow::Result<()> {
        let Some(place) = self.place(&command.target) else { anyhow::bail!("a command for {}, which there is not", command.target) };
        let found = self.counts[place];
        // Or what the one set that this one replaces.
        let is_expected = found == command.from || Some(found) == command.replaced_to;
        let result = if is_expected { OutcomeResult::Applied } else { OutcomeResult::Conflict };
        if result == OutcomeResult::Applied {
            self.counts[place] = command.to;
        }
        let count = self.counts[place];
        let outcome = Outcome {
            target: command.target.clone(),
            command: command.id.clone(),
            uid: Some(command.uid.clone()),
            result,
            replicas: Some(count),
            revision: Some(i64::from(count)),
            error: (result != OutcomeResult::Applied).then(|| format!("{found} replicas were found where {} were expected", command.from)),
        };
        let mut effects = Effects::new();
        effects.to_key(Topic::Signals, command.target.as_str(), Message::Signal(Signal::Outcome(outcome)));
        self.say(place, &mut effects);
        Ok(publish(log, effects)?)
    }

    /// Waits until each of them was decided on with a value of this metric.
    pub(super) fn are_decided_on(&self, audit: &Tail, metric: &str, mut meanwhile: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let metric: MetricName = metric.parse()?;
        let mut waiting: BTreeSet<&TargetId> = self.targets.iter().collect();
        wait_for("each target to be decided on", || {
            meanwhile()?;
            while let Some(arrived) = audit.next(SLICE)? {
                if let Message::Audit(Audit::Decision(decision)) = arrived.message
                    && decision.metrics.iter().any(|measured| measured.name == metric && measured.status == MetricStatus::Ok)
                {
                    waiting.remove(&decision.target);
                }
                if waiting.is_empty() {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })
    }
}
