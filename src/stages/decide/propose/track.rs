//! `track`: as many replicas as keep a metric at its target.
//!
//! The arithmetic of Kubernetes 1.37 (`pkg/controller/podautoscaler/replica_calculator.go` and
//! `metrics/utilization.go`): figures in thousandths, integer truncation before the ratio, doubles
//! for the ratio. Its rules for missing and unready instances are kept to the replica.

use std::time::Duration;

use crate::model::policy::Tolerance;
use crate::model::{Amount, Instance, MetricName, MetricStatus, Phase, Timestamp};

use super::super::measure::Figure;
use super::super::rate_limit::MOST_REPLICAS;
use super::{Proposed, Situation};

/// How instances count (`groupPods`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Standing {
    /// Its sample counts.
    Ready,
    /// It is there but its sample does not count.
    Unready,
    /// It has no sample.
    Missing,
    /// It does not count at all.
    Ignored,
}

/// How one instance counts for a metric; only CPU looks at readiness.
pub(in super::super) fn standing(
    instance: &Instance,
    sample: Option<Timestamp>,
    metric: &MetricName,
    window: Duration,
    cpu_initialization: Duration,
    readiness_delay: Duration,
    now: Timestamp,
) -> Standing {
    if instance.deleting || instance.phase == Phase::Failed {
        return Standing::Ignored;
    }
    if instance.phase == Phase::Pending {
        return Standing::Unready;
    }
    let Some(sample) = sample else { return Standing::Missing };
    if metric.as_str() != "cpu" {
        return Standing::Ready;
    }
    let (Some(ready), Some(started), Some(changed)) = (instance.ready, instance.started_at, instance.ready_changed_at) else {
        return Standing::Unready;
    };
    let unready = if started + cpu_initialization > now {
        // Still within start-up: it counts once it is ready and a whole window was measured since.
        !ready || sample < changed + window
    } else {
        // Past start-up: it does not count only if it was never ready.
        !ready && started + readiness_delay > changed
    };
    if unready { Standing::Unready } else { Standing::Ready }
}

fn within(tolerance: Tolerance, ratio: f64) -> bool {
    (1.0 - tolerance.r#in) <= ratio && ratio <= (1.0 + tolerance.out)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides")]
fn ceil(replicas: f64) -> u32 {
    replicas.ceil().clamp(0.0, MOST_REPLICAS as f64) as u32
}

/// An instance's sample while the calculation re-weighs it, in thousandths.
struct Weighed<'a> {
    /// Its instance, where the fleet has it.
    instance: Option<&'a Instance>,
    milli: i128,
}

/// The instances of one calculation, by how they count.
struct Grouped<'a> {
    samples: Vec<Weighed<'a>>,
    unready: Vec<&'a Instance>,
    missing: Vec<&'a Instance>,
    ready: usize,
}

fn group<'a>(metric: &MetricName, window: Duration, figures: &[Figure], situation: Situation<'a>) -> Grouped<'a> {
    let Situation { policy, fleet, now, .. } = situation;
    let (mut unready, mut missing, mut ready) = (Vec::new(), Vec::new(), 0);
    // What each figure comes to; `None` does not count.
    let mut samples: Vec<Option<Weighed<'a>>> = figures.iter().map(|f| Some(Weighed { instance: None, milli: i128::from(f.value.milli_ceil()) })).collect();
    let mut own: Vec<Option<usize>> = vec![None; fleet.seen.instances.len()];
    for (figure, place) in figures.iter().enumerate().filter_map(|(i, f)| Some((i, f.place?))) {
        own[place] = Some(figure);
    }
    for (instance, own) in fleet.seen.instances.iter().zip(own) {
        let standing = standing(instance, own.map(|i| figures[i].at), metric, window, policy.cpu_initialization, policy.readiness_delay, now);
        if let Some(sample) = own.and_then(|i| samples.get_mut(i)) {
            match standing {
                Standing::Ready | Standing::Missing => sample.iter_mut().for_each(|s| s.instance = Some(instance)),
                Standing::Unready | Standing::Ignored => *sample = None,
            }
        }
        match standing {
            Standing::Ready => ready += 1,
            Standing::Unready => unready.push(instance),
            Standing::Missing => missing.push(instance),
            Standing::Ignored => {}
        }
    }
    Grouped { samples: samples.into_iter().flatten().collect(), unready, missing, ready }
}

/// A ratio of usage to target, and the usage itself.
type Ratio<'a> = dyn Fn(&[Weighed<'_>]) -> Option<(f64, i128)> + 'a;

/// What the rules for missing and unready instances make of a ratio: the count and the usage.
fn rebalance<'a>(mut grouped: Grouped<'a>, missing_milli: &dyn Fn(&Instance) -> i128, ratio: &Ratio<'_>, situation: Situation<'a>) -> Option<(u32, i128)> {
    let Situation { policy, current, .. } = situation;
    let (usage_ratio, usage) = ratio(&grouped.samples)?;
    let out_with_unready = !grouped.unready.is_empty() && usage_ratio > 1.0;
    if !out_with_unready && grouped.missing.is_empty() {
        let replicas = if within(policy.tolerance, usage_ratio) { current } else { ceil(usage_ratio * grouped.ready as f64) };
        return Some((replicas, usage));
    }
    if usage_ratio < 1.0 {
        // On the way in, what is missing counts as fully used.
        grouped.samples.extend(grouped.missing.iter().map(|i| Weighed { instance: Some(i), milli: missing_milli(i) }));
    } else if usage_ratio > 1.0 {
        // On the way out, what is missing counts as unused.
        grouped.samples.extend(grouped.missing.iter().map(|i| Weighed { instance: Some(i), milli: 0 }));
    }
    if out_with_unready {
        grouped.samples.extend(grouped.unready.iter().map(|i| Weighed { instance: Some(i), milli: 0 }));
    }
    let (new_ratio, _) = ratio(&grouped.samples)?;
    let turned = (usage_ratio < 1.0 && new_ratio > 1.0) || (usage_ratio > 1.0 && new_ratio < 1.0);
    if within(policy.tolerance, new_ratio) || turned {
        return Some((current, usage));
    }
    let replicas = ceil(new_ratio * grouped.samples.len() as f64);
    let contradicts = (new_ratio < 1.0 && replicas > current) || (new_ratio > 1.0 && replicas < current);
    Some((if contradicts { current } else { replicas }, usage))
}

impl Grouped<'_> {
    /// Which instances did not count as they are, for whoever asks why the count is not the plain ratio's.
    fn note(&self) -> Option<String> {
        match (self.unready.len(), self.missing.len()) {
            (0, 0) => None,
            (unready, 0) => Some(format!("{unready} not ready yet, so weighed apart")),
            (0, missing) => Some(format!("{missing} without a sample, so weighed apart")),
            (unready, missing) => Some(format!("{unready} not ready yet and {missing} without a sample, so weighed apart")),
        }
    }
}

const NO_SAMPLES: &str = "no instance that counts has a sample (they may not be ready)";

/// `utilization` of a resource (`GetResourceReplicas`).
pub(super) fn utilization(metric: &MetricName, percent: i64, window: Duration, figures: &[Figure], situation: Situation<'_>) -> Proposed {
    let instances = &situation.fleet.seen.instances;
    if instances.is_empty() {
        return Proposed::nothing(MetricStatus::Idle, Some("there are no instances".to_owned()));
    }
    let grouped = group(metric, window, figures, situation);
    if grouped.samples.is_empty() {
        return Proposed::nothing(MetricStatus::NoData, Some(NO_SAMPLES.to_owned()));
    }
    let request = |instance: &Instance| instance.requests.get(metric.as_str()).map(|r| i128::from(r.milli_ceil()));
    if let Some(without) = instances.iter().find(|i| !i.requests.contains_key(metric.as_str())) {
        let note = format!("instance {} requests no {metric}, so its utilization is not known", without.name);
        return Proposed::nothing(MetricStatus::Error, Some(note));
    }
    let ratio = |samples: &[Weighed<'_>]| {
        let (mut used, mut requested) = (0_i128, 0_i128);
        for (milli, request) in samples.iter().filter_map(|s| Some((s.milli, request(s.instance?)?))) {
            used += milli;
            requested += request;
        }
        if requested == 0 {
            return None;
        }
        let utilization = used * 100 / requested;
        Some((utilization as f64 / percent as f64, utilization))
    };
    let note = grouped.note();
    let missing = |instance: &Instance| request(instance).unwrap_or(0) * i128::from(percent.max(100)) / 100;
    match rebalance(grouped, &missing, &ratio, situation) {
        None => Proposed::nothing(MetricStatus::NoData, Some("no sample belongs to an instance that is known".to_owned())),
        Some((replicas, utilization)) => Proposed { note, ..Proposed::value(Amount::from_nanos(utilization * 10_000_000), Some(replicas)) },
    }
}

/// `perReplica` of a metric of instances (`calcPlainMetricReplicas`).
pub(super) fn per_instance(metric: &MetricName, amount: Amount, window: Duration, figures: &[Figure], situation: Situation<'_>) -> Proposed {
    if situation.fleet.seen.instances.is_empty() {
        return Proposed::nothing(MetricStatus::Idle, Some("there are no instances".to_owned()));
    }
    let grouped = group(metric, window, figures, situation);
    if grouped.samples.is_empty() {
        return Proposed::nothing(MetricStatus::NoData, Some(NO_SAMPLES.to_owned()));
    }
    let target = i128::from(amount.milli_ceil());
    let ratio = |samples: &[Weighed<'_>]| {
        let mean = samples.iter().map(|s| s.milli).sum::<i128>() / samples.len() as i128;
        Some((mean as f64 / target as f64, mean))
    };
    let note = grouped.note();
    match rebalance(grouped, &|_| target, &ratio, situation) {
        None => Proposed::nothing(MetricStatus::NoData, Some(NO_SAMPLES.to_owned())),
        Some((replicas, mean)) => Proposed { note, ..Proposed::value(Amount::from_nanos(mean * 1_000_000), Some(replicas)) },
    }
}

/// `perReplica` of a metric of the target as a whole (`GetExternalPerPodMetricReplicas`): the value
/// is shared by the replicas that there are.
pub(super) fn average_value(amount: Amount, value: Amount, situation: Situation<'_>) -> Proposed {
    let (usage, target, replicas) = (value.milli_ceil(), amount.milli_ceil(), situation.fleet.seen.status_replicas);
    let ratio = usage as f64 / (target as f64 * f64::from(replicas));
    let proposal = if within(situation.policy.tolerance, ratio) { replicas } else { ceil(usage as f64 / target as f64) };
    let shown = value.mean(u64::from(replicas)).unwrap_or(value);
    // So many are needed whatever there are now.
    Proposed { absolute: true, ..Proposed::value(shown, Some(proposal)) }
}

/// `value` of a metric of the target as a whole (`getUsageRatioReplicaCount`).
pub(super) fn value(amount: Amount, value: Amount, situation: Situation<'_>) -> Proposed {
    let ratio = value.milli_ceil() as f64 / amount.milli_ceil() as f64;
    let instances = &situation.fleet.seen.instances;
    let proposal = if situation.current == 0 {
        ceil(ratio)
    } else if within(situation.policy.tolerance, ratio) {
        situation.current
    } else if instances.is_empty() {
        return Proposed::nothing(MetricStatus::NoData, Some("there are no instances to compare the value with".to_owned()));
    } else {
        let ready = instances.iter().filter(|i| i.phase == Phase::Running && i.ready == Some(true)).count();
        ceil(ratio * ready as f64)
    };
    Proposed::value(value, Some(proposal))
}
