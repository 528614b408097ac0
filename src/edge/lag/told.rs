//! What was told of a source's troubles: once when they begin or change, and again when they are over.
//!
//! What fires is read back from the topic `alerts` at the start, so that what ended while nobody looked is told as over, and what goes on is not told as new.

use std::collections::BTreeMap;

use crate::log::{Log, LogError, Topic};
use crate::model::{Alert, AlertState, Message, Severity, TargetId, Timestamp};
use crate::wire;

/// There is no figure.
pub(super) const UNKNOWN: &str = "LagUnknown";

/// Partitions are not read on.
pub(super) const STUCK: &str = "LagStuck";

/// So many records of a partition of `alerts` are read back at most: alerts are few, and kept for a week.
const MOST: u64 = 100_000;

/// So many are read at a time.
const BATCH: usize = 1_000;

/// A trouble in words, and what of it stays the same while the same thing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: String,
    pub(super) words: String,
}

/// What was told of a source.
#[derive(Debug)]
pub(super) struct Told {
    source: String,
    targets: Vec<TargetId>,
    /// The kind of what fires; `None` where it was told before the start.
    firing: BTreeMap<(TargetId, &'static str), Option<String>>,
}

impl Told {
    /// As the log has it, also of targets that are none of the source's any more.
    ///
    /// # Errors
    /// As [`Log::scan`].
    pub(super) fn read_back(log: &dyn Log, source: &str, targets: &[TargetId]) -> Result<Self, LogError> {
        let mut firing = BTreeMap::new();
        for partition in 0..log.partitions(Topic::Alerts) {
            let range = log.range(Topic::Alerts, partition)?;
            let mut next = range.start.max(range.end.saturating_sub(MOST));
            while next < range.end {
                let records = log.scan(Topic::Alerts, partition, next, BATCH)?;
                let Some(last) = records.last() else { break };
                next = last.offset + 1;
                for record in &records {
                    let Ok(Message::Alert(alert)) = wire::decode(Topic::Alerts, &record.value) else { continue };
                    let (Some(target), Some(name)) = (alert.target, [UNKNOWN, STUCK].into_iter().find(|name| *name == alert.name)) else { continue };
                    if alert.subject != source {
                        continue;
                    }
                    match alert.state {
                        AlertState::Firing => drop(firing.insert((target, name), None)),
                        AlertState::Resolved => drop(firing.remove(&(target, name))),
                        AlertState::Event => {}
                    }
                }
            }
        }
        Ok(Told { source: source.to_owned(), targets: targets.to_vec(), firing })
    }

    /// What fires of targets that the source has no more is over.
    pub(super) fn let_go(&mut self, now: Timestamp) -> Vec<Alert> {
        let gone: Vec<(TargetId, &'static str)> = self.firing.keys().filter(|(target, _)| !self.targets.contains(target)).cloned().collect();
        gone.into_iter()
            .map(|(target, name)| {
                self.firing.remove(&(target.clone(), name));
                let message = format!("the lag of {} is not measured for {target} any more", self.source);
                self.alert(target, name, AlertState::Resolved, message, now)
            })
            .collect()
    }

    /// What is to be told of one alert now: `trouble` where it holds, `over` else.
    pub(super) fn say(&mut self, name: &'static str, trouble: Option<&Trouble>, over: &str, now: Timestamp) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for target in &self.targets {
            let key = (target.clone(), name);
            let (state, message) = match (trouble, self.firing.get(&key)) {
                (Some(trouble), Some(Some(kind))) if *kind == trouble.kind => continue,
                (Some(trouble), _) => {
                    self.firing.insert(key, Some(trouble.kind.clone()));
                    (AlertState::Firing, trouble.words.clone())
                }
                (None, Some(_)) => {
                    self.firing.remove(&key);
                    (AlertState::Resolved, over.to_owned())
                }
                (None, None) => continue,
            };
            alerts.push(self.alert(target.clone(), name, state, message, now));
        }
        alerts
    }

    fn alert(&self, target: TargetId, name: &str, state: AlertState, message: String, at: Timestamp) -> Alert {
        let (subject, name) = (self.source.clone(), name.to_owned());
        Alert { target: Some(target), name, subject, severity: Severity::Warning, state, message, at }
    }
}
