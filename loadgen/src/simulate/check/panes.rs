//! Every acknowledged sample is in exactly one pane of each of its targets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loadline::model::{InstanceName, MetricName, Part, Sample, SampleBatch, TargetId, Timestamp};

use super::super::scenario::Millis;
use super::Violation;

/// A sample further ahead of its record than this is refused.
const FUTURE: Duration = Duration::from_secs(30);

const INVARIANT: &str = "every acknowledged sample is in exactly one pane";

type PaneOf = (TargetId, MetricName, InstanceName, Timestamp);

/// How many samples a pane holds (the repetition of a message that its producer numbered counts once), and when the last of
/// them was seen in the log.
#[derive(Default)]
struct Expected {
    count: i64,
    last: Millis,
}

pub(super) struct Panes {
    pane: Duration,
    expected: BTreeMap<PaneOf, Expected>,
    seen: BTreeMap<PaneOf, i64>,
    messages: BTreeSet<(String, i64)>,
    acknowledged: BTreeSet<(String, i64)>,
}

impl Panes {
    pub(super) fn new(pane: Duration) -> Self {
        Panes { pane, expected: BTreeMap::new(), seen: BTreeMap::new(), messages: BTreeSet::new(), acknowledged: BTreeSet::new() }
    }

    pub(super) fn acknowledged(&mut self, batch: &SampleBatch) {
        self.acknowledged.extend(message_of(batch));
    }

    /// A message that stands on `metrics`.
    pub(super) fn record(&mut self, batch: &SampleBatch, at: Timestamp, now: Millis) {
        let first = message_of(batch).is_none_or(|message| self.messages.insert(message));
        for sample in batch.samples.iter().filter(|sample| is_taken(sample, at)) {
            for target in &sample.targets {
                let pane = (target.clone(), sample.metric.clone(), sample.instance.clone(), sample.time.window_start(self.pane));
                let expected = self.expected.entry(pane).or_default();
                expected.count += i64::from(first);
                expected.last = now;
            }
        }
    }

    pub(super) fn part(&mut self, part: &Part) -> Result<(), Violation> {
        for pane in &part.panes {
            for (instance, reading) in &pane.instances {
                let of = (part.target.clone(), pane.metric.clone(), instance.clone(), pane.start);
                let seen = self.seen.entry(of.clone()).or_default();
                *seen += reading.count;
                let most = self.expected.get(&of).map_or(0, |expected| expected.count);
                if *seen > most {
                    return Err(Violation::new(INVARIANT, format!("{of:?} has {seen} samples, and {most} were sent")));
                }
            }
        }
        Ok(())
    }

    /// Nothing is missing.
    pub(super) fn all_there(&self, now: Millis) -> Result<(), Violation> {
        if let Some(message) = self.acknowledged.difference(&self.messages).next() {
            return Err(Violation::new(INVARIANT, format!("message {message:?} was acknowledged, and is not in the log")));
        }
        // What came last may still be held.
        let held = Millis::try_from(self.pane.as_millis()).unwrap_or(Millis::MAX) * 2 + 5_000;
        for (of, Expected { count, .. }) in self.expected.iter().filter(|(_, expected)| expected.last < now - held) {
            let seen = self.seen.get(of).copied().unwrap_or(0);
            if seen != *count {
                return Err(Violation::new(INVARIANT, format!("{of:?} has {seen} samples, and {count} were sent")));
            }
        }
        Ok(())
    }
}

fn message_of(batch: &SampleBatch) -> Option<(String, i64)> {
    Some((batch.producer.clone()?, batch.sequence?))
}

fn is_taken(sample: &Sample, at: Timestamp) -> bool {
    sample.value.is_finite() && sample.time <= at + FUTURE
}
