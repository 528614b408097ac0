//! Samples that are taken and that no policy asks for: a slip in a name would else go unseen, since aggregate and decide drop what nobody
//! asks for. They are taken all the same, for a policy may come.

use std::collections::BTreeMap;

use crate::edge::api::SamplesUnused;
use crate::edge::view::{Asked, View};
use crate::model::{MetricName, Sample, TargetId, Timestamp};

/// The most warnings that one answer lists; the rest is counted.
const MAX_WARNINGS: usize = 10;

/// What no policy asks for, of one request.
pub(super) struct Unused<'a> {
    /// `None` where it is not known yet.
    view: Option<&'a View>,
    /// The last question, and its answer: most samples ask the same as the one before.
    last: Option<(TargetId, MetricName, Asked)>,
    listed: BTreeMap<(TargetId, Option<MetricName>), usize>,
    warnings: Vec<SamplesUnused>,
    count: u64,
}

impl<'a> Unused<'a> {
    pub(super) fn new(view: &'a View, now: Timestamp) -> Self {
        let view = view.policies_are_known(now).then_some(view);
        Unused { view, last: None, listed: BTreeMap::new(), warnings: Vec::new(), count: 0 }
    }

    /// Notes a sample that was taken.
    pub(super) fn note(&mut self, line: u64, sample: &Sample) {
        let Some(view) = self.view else { return };
        for target in &sample.targets {
            let asked = match &self.last {
                Some((last, metric, asked)) if last == target && *metric == sample.metric => *asked,
                _ => {
                    let asked = view.asked(target, &sample.metric);
                    self.last = Some((target.clone(), sample.metric.clone(), asked));
                    asked
                }
            };
            let metric = match asked {
                Asked::Yes | Asked::NotKnown => continue,
                Asked::NoPolicy => None,
                Asked::NoMetric => Some(&sample.metric),
            };
            self.count += 1;
            self.warn(line, (target, metric), || view.unasked(target, metric));
        }
    }

    fn warn(&mut self, line: u64, (target, metric): (&TargetId, Option<&MetricName>), reason: impl FnOnce() -> String) {
        let key = (target.clone(), metric.cloned());
        if let Some(listed) = self.listed.get(&key) {
            self.warnings[*listed].samples += 1;
        } else if self.warnings.len() < MAX_WARNINGS {
            self.listed.insert(key, self.warnings.len());
            self.warnings.push(SamplesUnused { line, samples: 1, reason: reason() });
        }
    }

    /// How many there are, once for each of their targets (`None` where that is not known yet), and what to say of them.
    pub(super) fn finish(self) -> (Option<u64>, Vec<SamplesUnused>) {
        (self.view.map(|_| self.count), self.warnings)
    }
}
