//! The targets and sources of a partition of `control`, and their snapshots.

use std::collections::{BTreeMap, BTreeSet};

use super::Place;
use super::source::Source;
use super::target::Target;
use crate::log::Offset;
use crate::model::json;
use crate::model::{CarriedState, RoundEnd, TargetId, Timestamp};
use crate::stages::Snapshot;
use crate::stages::carried::NotCarried;

const TARGET: &str = "target:";
const SOURCE: &str = "source:";

/// What admit remembers.
#[derive(Debug, Clone, Default)]
pub struct State {
    targets: BTreeMap<TargetId, Target>,
    sources: BTreeMap<String, Source>,
    changed: BTreeSet<String>,
    /// Targets with marks of a round under way. Most are afterwards what they were before, and need not be saved again.
    in_round: BTreeSet<TargetId>,
    /// Targets that were forgotten for good since they were last saved.
    forgotten: BTreeSet<TargetId>,
}

impl State {
    /// Whether what a source says in a round counts, as of `place`: the round is newer than its last complete one.
    pub(super) fn counts(&self, source: &str, round: i64, place: Place) -> bool {
        !RoundEnd::is_ahead(round, place.at) && self.sources.get(source).is_none_or(|source| source.is_newer(round, place))
    }

    /// The targets that a source says anything about.
    pub(super) fn targets_of(&self, source: &str) -> Vec<TargetId> {
        self.targets.iter().filter(|(_, held)| held.is_of(source)).map(|(target, _)| target.clone()).collect()
    }

    /// The targets that are to be announced again, or forgotten.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<TargetId> {
        let forgotten: Vec<TargetId> = self.targets.iter().filter(|(_, held)| held.is_forgotten(now)).map(|(target, _)| target.clone()).collect();
        for target in forgotten {
            self.targets.remove(&target);
            self.changed.insert(format!("{TARGET}{target}"));
            self.forgotten.insert(target);
        }
        self.targets.iter().filter(|(target, held)| held.is_due(target, now)).map(|(target, _)| target.clone()).collect()
    }

    /// The targets that have a policy.
    pub(super) fn in_force(&self) -> Vec<TargetId> {
        self.targets.iter().filter(|(_, held)| held.has_policy()).map(|(target, _)| target.clone()).collect()
    }

    /// Applies the record at `offset` to a target, unless the target's snapshot already holds it. `apply`
    /// says whether the target is another one then, apart from the marks of rounds under way.
    pub(super) fn with_target(&mut self, target: &TargetId, offset: Offset, apply: impl FnOnce(&mut Target) -> bool) {
        let held = self.targets.entry(target.clone()).or_default();
        if offset < held.through {
            return;
        }
        let changed = apply(held);
        // One source's record settles its own marks; those of another's round may still be there.
        if held.has_marks() {
            self.in_round.insert(target.clone());
        } else {
            self.in_round.remove(target);
        }
        if held.is_nothing() {
            self.targets.remove(target);
        }
        self.forgotten.remove(target);
        if changed {
            self.changed.insert(format!("{TARGET}{target}"));
        }
    }

    /// Applies the record at `offset` to a source, unless the source's snapshot already holds it.
    pub(super) fn with_source(&mut self, name: &str, offset: Offset, apply: impl FnOnce(&mut Source)) {
        let held = self.sources.entry(name.to_owned()).or_default();
        if offset < held.through {
            return;
        }
        apply(held);
        self.changed.insert(format!("{SOURCE}{name}"));
    }
}

/// The target that a key of the snapshots is of.
pub(super) fn target_of(key: &str) -> Option<TargetId> {
    key.strip_prefix(TARGET)?.parse().ok()
}

impl State {
    /// Goes on from what another installation remembered of a key, where nothing is known of it here.
    pub(super) fn carry(&mut self, carried: &CarriedState, offset: Offset) -> Result<(), NotCarried> {
        let known = match carried.key.strip_prefix(SOURCE) {
            Some(source) => self.sources.contains_key(source),
            None => target_of(&carried.key).is_some_and(|target| self.targets.contains_key(&target)),
        };
        if known {
            return Err(NotCarried::Known);
        }
        self.restore(&carried.key, carried.state.as_bytes()).map_err(NotCarried::Unreadable)?;
        match (carried.key.strip_prefix(SOURCE), target_of(&carried.key)) {
            (Some(source), _) => drop(self.sources.get_mut(source).map(|source| source.carried(offset))),
            (None, Some(target)) => drop(self.targets.get_mut(&target).map(|held| held.carried(offset))),
            (None, None) => {}
        }
        self.changed.insert(carried.key.clone());
        Ok(())
    }
}

impl Snapshot for State {
    fn take_changed(&mut self) -> Vec<String> {
        // A target that is saved with the marks of a round must be saved again without them.
        let marked: BTreeSet<String> = self.in_round.iter().map(|target| format!("{TARGET}{target}")).collect();
        let mut taken = std::mem::replace(&mut self.changed, marked.clone());
        taken.extend(marked);
        // Those of earlier rounds are deleted by now.
        self.forgotten.retain(|target| taken.contains(&format!("{TARGET}{target}")));
        taken.into_iter().collect()
    }

    fn encode(&self, key: &str, next: Offset) -> Option<Vec<u8>> {
        if let Some(target) = key.strip_prefix(TARGET) {
            let nothing = Target::default();
            let held = match self.targets.get(target) {
                Some(held) => held,
                None if self.forgotten.contains(target) => return None,
                // Saved as nothing rather than deleted: where a crash tears this round, what came before must
                // not be read again as if the target had been nothing all the time.
                None => &nothing,
            };
            serde_json::to_vec(&held.saved(next)).ok()
        } else {
            let held = self.sources.get(key.strip_prefix(SOURCE)?)?;
            serde_json::to_vec(&held.saved(next)).ok()
        }
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<(), String> {
        if let Some(target) = key.strip_prefix(TARGET) {
            let target: TargetId = target.parse().map_err(|e| format!("key \"{key}\": {e}"))?;
            let held: Target = json::read_bytes(bytes).map_err(|e| format!("target {target} cannot be read: {e}"))?;
            if held.has_marks() {
                self.in_round.insert(target.clone());
                self.changed.insert(key.to_owned());
            }
            self.targets.insert(target, held);
            Ok(())
        } else if let Some(name) = key.strip_prefix(SOURCE) {
            let held = json::read_bytes(bytes).map_err(|e| format!("source {name} cannot be read: {e}"))?;
            self.sources.insert(name.to_owned(), held);
            Ok(())
        } else {
            Err(format!("key \"{key}\" is neither {TARGET}ID nor {SOURCE}NAME"))
        }
    }

    fn held_until(&self) -> Offset {
        self.targets.values().map(|target| target.through).chain(self.sources.values().map(|source| source.through)).max().unwrap_or(0)
    }

    fn replay_from(&self, next: Offset) -> Offset {
        next
    }
}
