//! Samples that are taken and that no policy asks for: a slip in a name would else go unseen, since aggregate and decide drop what nobody
//! asks for. They are taken all the same, for a policy may come.

use std::collections::BTreeMap;

use crate::edge::api::SamplesUnused;
use crate::edge::view::{Asked, View};
use crate::model::policy::nearest_metric;
use crate::model::{MetricName, Sample, TargetId, Timestamp};
use crate::runtime::events::SampleUnused;

/// The most warnings that one answer lists; the rest is counted.
const MAX_WARNINGS: usize = 10;

/// The most metrics of a policy that are listed where none was meant.
const MAX_NAMED: usize = 5;

/// What no policy asks for, of one request.
pub(super) struct Unused<'a> {
    /// `None` where it is not known yet.
    view: Option<&'a View>,
    /// The last question, and its answer: most samples ask the same as the one before.
    last: Option<(TargetId, MetricName, Asked)>,
    listed: BTreeMap<(TargetId, Option<MetricName>), usize>,
    warnings: Vec<SamplesUnused>,
    counts: Counts,
}

/// How many samples, once for each of their targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// No policy names the target.
    no_policy: u64,
    /// The policy does not name the metric.
    no_metric: u64,
}

impl Counts {
    /// Counts them, once the samples are durable.
    pub(super) fn emit(self) {
        SampleUnused::NoPolicy.emit(self.no_policy);
        SampleUnused::NoMetric.emit(self.no_metric);
    }
}

impl<'a> Unused<'a> {
    pub(super) fn new(view: &'a View, now: Timestamp) -> Self {
        let view = view.policies_are_known(now).then_some(view);
        Unused { view, last: None, listed: BTreeMap::new(), warnings: Vec::new(), counts: Counts::default() }
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
            match asked {
                Asked::Yes | Asked::NotKnown => {}
                Asked::NoPolicy => {
                    self.counts.no_policy += 1;
                    self.warn(line, (target, None), |target| no_policy(view, target));
                }
                Asked::NoMetric => {
                    self.counts.no_metric += 1;
                    self.warn(line, (target, Some(&sample.metric)), |target| no_metric(view, target, &sample.metric));
                }
            }
        }
    }

    fn warn(&mut self, line: u64, (target, metric): (&TargetId, Option<&MetricName>), reason: impl FnOnce(&TargetId) -> String) {
        let key = (target.clone(), metric.cloned());
        if let Some(listed) = self.listed.get(&key) {
            self.warnings[*listed].samples += 1;
        } else if self.warnings.len() < MAX_WARNINGS {
            self.listed.insert(key, self.warnings.len());
            self.warnings.push(SamplesUnused { line, samples: 1, reason: reason(target) });
        }
    }

    /// How many there are (`None` where that is not known yet), what to say of them, and what to count.
    pub(super) fn finish(self) -> (Option<u64>, Vec<SamplesUnused>, Counts) {
        let Counts { no_policy, no_metric } = self.counts;
        (self.view.map(|_| no_policy + no_metric), self.warnings, self.counts)
    }
}

fn no_policy(view: &View, target: &TargetId) -> String {
    match view.meant_target(target) {
        Some(meant) => format!("no policy names target {target}; did you mean {meant}?"),
        None => format!("no policy names target {target}: until one does, its samples are not used"),
    }
}

fn no_metric(view: &View, target: &TargetId, metric: &MetricName) -> String {
    let asked = view.asked_metrics(target);
    if let Some(meant) = nearest_metric(metric.as_str(), asked.iter().map(MetricName::as_str)) {
        return format!("the policy of {target} has no metric {metric}; did you mean {meant}?");
    }
    let named: Vec<&str> = asked.iter().take(MAX_NAMED).map(MetricName::as_str).collect();
    let more = if asked.len() > MAX_NAMED { format!(" and {} more", asked.len() - MAX_NAMED) } else { String::new() };
    format!("the policy of {target} has no metric {metric}: it has {}{more}", named.join(", "))
}
