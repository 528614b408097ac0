//! What is legal but unwise: warnings over a policy that has no errors.

use std::time::Duration;

use super::super::{
    FallbackBehavior, Measure, MetricPolicy, MetricRule, Mode, Policy, RatePolicy, Role, ScalingRules, Select, StepSize, Threshold, Unit, WhenBlind,
};
use super::DEFAULT_PANE;
use super::names;
use crate::model::document::amounts::{show_amount, show_duration};
use crate::model::document::fields::Report;
use crate::model::{Amount, Kind};

/// Two panes that are no longer than this are shorter than what is written as a rule.
const SHORT: Duration = Duration::from_secs(30);
/// Up to how many replicas above `min` a threshold's steps are tried out: beyond it one step changes the value
/// by so little that only the smallest bands would notice.
const TRIED: u32 = 1000;

/// Advises on a policy, for an installation with panes of this length.
pub(super) fn advise(policy: &Policy, pane: Duration, report: &mut Report) {
    replicas(policy, report);
    proposing(policy, report);
    for (i, metric) in policy.metrics.iter().enumerate() {
        let path = format!("spec.metrics[{i}]");
        advise_panes(metric, pane, &path, report);
        advise_metric(policy, metric, &path, report);
    }
    still(policy, report);
    one_way(policy, report);
    scale_in(policy, report);
    hunting(policy, report);
    fallback(policy, report);
}

fn replicas(policy: &Policy, report: &mut Report) {
    if policy.min == policy.max {
        let message = format!("`min` and `max` are both {}: there is nothing to scale", policy.min);
        report.warn("spec.replicas", "fixed-count", message, "write a larger `max`, or `mode: Off`");
    } else if policy.min == 1 && matches!(policy.role, Role::ApiServer | Role::DatabaseReadReplica) {
        report.warn("spec.replicas.min", "single-replica", "`min` is 1: when that replica fails, nobody is served", "write `min: 2` or more");
    }
}

/// Both directions are forbidden.
fn still(policy: &Policy, report: &mut Report) {
    let forbids = |rules: &ScalingRules| rules.select == Select::Disabled;
    let shrinks = !forbids(&policy.scale_in) && policy.mode != Mode::OutOnly;
    if policy.mode != Mode::Off && forbids(&policy.scale_out) && !shrinks {
        let message = "neither scale-out nor scale-in is allowed: nothing will ever scale within `min` and `max`";
        report.warn("spec.behavior.scaleOut.select", "never-scales", message, "allow one of the two, or write `mode: Off`");
    }
}

fn proposing(policy: &Policy, report: &mut Report) {
    if matches!(policy.mode, Mode::Off) {
        return;
    }
    let mut proposing = policy.metrics.iter().filter(|m| m.rule != MetricRule::Observe).peekable();
    if proposing.peek().is_none() {
        let message = "every metric is observed only: nothing will ever ask for another count";
        report.warn("spec.metrics", "no-proposing-metric", message, "write `track` or `threshold` for at least one metric");
    } else if proposing.all(|m| m.when_blind == WhenBlind::Ignore) {
        let message = "every metric has `whenBlind: Ignore`: with one of them lost, the others may scale in on half the picture";
        report.warn("spec.metrics", "blindness-ignored", message, "leave `HoldIn` on the metric that you trust most");
    }
}

/// What is too short for panes of this length.
fn advise_panes(metric: &MetricPolicy, pane: Duration, path: &str, report: &mut Report) {
    // The length that is taken where nothing is said of the installation.
    let length = if pane == DEFAULT_PANE { "5 s, unless your installation has shorter ones".to_owned() } else { show_duration(pane) };
    let at_least = |otherwise: &str| if 2 * pane > SHORT { format!("write `{}` or more", show_duration(2 * pane)) } else { otherwise.to_owned() };
    if metric.window < 2 * pane {
        let window = show_duration(metric.window);
        let (code, message) = if metric.window < pane {
            ("window-below-pane", format!("`window` {window} is shorter than a pane ({length})"))
        } else {
            ("window-below-two-panes", format!("`window` {window} has less than two panes (of {length}): one odd pane decides"))
        };
        report.warn(&format!("{path}.window"), code, message, at_least("write a longer window, as in `30s`"));
    }
    if metric.stale_after < 2 * pane {
        let stale_after = show_duration(metric.stale_after);
        let message = format!("`staleAfter` {stale_after} is less than two panes (of {length}): a Counter, whose rate needs two, is never seen");
        report.warn(&format!("{path}.staleAfter"), "stale-below-two-panes", message, at_least("write a longer one, as in `2m`"));
    }
}

fn advise_metric(policy: &Policy, metric: &MetricPolicy, path: &str, report: &mut Report) {
    if let Some(every) = policy.evaluate_every.filter(|every| *every > metric.window && metric.proposes()) {
        let (every, window) = (show_duration(every), show_duration(metric.window));
        let message = format!("it is looked at every {every} and measured over {window}: what comes between is never seen");
        report.warn(&format!("{path}.window"), "window-below-interval", message, format!("write `window: {every}` or more, or a shorter `evaluateEvery`"));
    }
    advise_amounts(metric, path, report);
    match &metric.rule {
        MetricRule::PerReplica { .. } | MetricRule::Value { .. } if names::is_of_errors(metric.name.as_str()) => {
            let message = "errors do not halve when replicas double: a failing release would grow to `max`";
            report.warn(&format!("{path}.track"), "errors-tracked", message, "leave `track` out, so that it is observed only");
        }
        MetricRule::PerReplica { .. } | MetricRule::Value { .. } if metric.unit == Unit::Seconds || is_named_as_time(metric) => {
            let message = format!("`{}` is a time: times do not halve when replicas double, so tracking one overshoots", metric.name);
            report.warn(&format!("{path}.track"), "time-tracked", message, "write `threshold: { scaleOutAbove: …, scaleInBelow: … }`");
        }
        MetricRule::Threshold(threshold) => {
            if threshold.hold.is_zero() {
                report.warn(
                    &format!("{path}.threshold.for"),
                    "step-at-every-evaluation",
                    "`for` is 0: it takes a step at every evaluation",
                    "write a duration, as in `30s`",
                );
            }
            if let Some((from, to, goes_in)) = swing(threshold, policy.min, policy.max) {
                advise_band(threshold, metric.unit, (from, to, goes_in), path, report);
            }
        }
        _ => {}
    }
}

/// A bare number that was meant in another unit: milliseconds, percent.
fn advise_amounts(metric: &MetricPolicy, path: &str, report: &mut Report) {
    let (limit, field, each) = match &metric.rule {
        MetricRule::Threshold(Threshold { scale_out_above: Some(above), .. }) => (*above, "threshold.scaleOutAbove", "it grows above"),
        MetricRule::PerReplica { amount } => (*amount, "track.perReplica", "each replica should have"),
        MetricRule::Value { amount } => (*amount, "track.value", "the metric should have"),
        _ => return,
    };
    let (shown, place) = (show_amount(limit, metric.unit), format!("{path}.{field}"));
    let units = Amount::from_units;
    let (is_unlikely, message, mend) = match metric.unit {
        Unit::Seconds => (limit >= units(300), format!("{each} {shown}: few wait as long"), "write the unit, as in `300ms` or `2m`"),
        Unit::Ratio => (limit > units(1), format!("{each} {shown}, which a share of a whole never is"), "write percent, as in `10%`"),
        Unit::Cores => (
            limit >= units(16) && field != "track.value",
            format!("{each} {shown} cores"),
            "write cores, as in `700m`; for a share of what is requested `track: { utilization: 70% }`",
        ),
        Unit::Bytes => (limit < units(1 << 20), format!("{each} {shown} bytes"), "write the unit, as in `512Mi`"),
        Unit::Count => return,
    };
    if is_unlikely {
        report.warn(&place, "unlikely-amount", message, mend);
    }
}

/// Whether a metric is a time by its name alone. The rate of a counter of seconds is work, which more replicas do share.
fn is_named_as_time(metric: &MetricPolicy) -> bool {
    metric.unit == Unit::Count && !matches!(metric.kind, Some(Kind::Counter | Kind::Delta)) && names::is_of_time(metric.name.as_str())
}

fn advise_band(threshold: &Threshold, unit: Unit, (from, to, goes_in): (u32, u32, bool), path: &str, report: &mut Report) {
    let (Some(above), Some(below)) = (threshold.scale_out_above, threshold.scale_in_below) else { return };
    let (above, below) = (show_amount(above, unit), show_amount(below, unit));
    let message = if goes_in {
        format!(
            "the band from {below} to {above} is narrower than a step: what is below {below} at a count of {from} can be above {above} at {to}, so it would swing"
        )
    } else {
        format!(
            "the band from {below} to {above} is narrower than a step: what is above {above} at a count of {from} can be below {below} at {to}, so it would swing"
        )
    };
    report.warn(&format!("{path}.threshold"), "narrow-band", message, "lower `scaleInBelow`, or take smaller steps");
}

/// Nothing ever asks for more, or for fewer.
fn one_way(policy: &Policy, report: &mut Report) {
    let proposing = || policy.metrics.iter().filter(|m| m.proposes());
    if proposing().next().is_none() || matches!(policy.mode, Mode::Off) || policy.min == policy.max {
        return;
    }
    let side = |metric: &MetricPolicy, out: bool| match &metric.rule {
        MetricRule::Threshold(threshold) if out => threshold.scale_out_above.is_some(),
        MetricRule::Threshold(threshold) => threshold.scale_in_below.is_some(),
        _ => true,
    };
    if policy.scale_out.select != Select::Disabled && !proposing().any(|m| side(m, true)) {
        let message = "no metric has a `scaleOutAbove` or a target: nothing will ever ask for more replicas";
        report.warn("spec.metrics", "never-grows", message, "write `scaleOutAbove`, or `behavior: { scaleOut: { select: Disabled } }`");
    }
    // What can be idle asks for `min` when it was idle for long.
    let may_idle = |m: &MetricPolicy| matches!(m.measure, Measure::Quantile(_)) || matches!(m.kind, Some(Kind::Distribution | Kind::Histogram));
    let wanted = policy.scale_in.select != Select::Disabled && policy.mode != Mode::OutOnly;
    if wanted && !proposing().any(|m| side(m, false)) && !proposing().all(may_idle) {
        let message = "no metric has a `scaleInBelow` or a target: nothing will ever ask for fewer replicas";
        report.warn("spec.metrics", "never-shrinks", message, "write `scaleInBelow`, or `mode: OutOnly` where that is meant");
    }
}

/// Neither a tolerance nor a memory: the count follows every breath of the load.
fn hunting(policy: &Policy, report: &mut Report) {
    let tolerance = policy.tolerance;
    let steady = policy.scale_in.select == Select::Disabled || matches!(policy.mode, Mode::OutOnly | Mode::Off);
    if (tolerance.out == 0.0 || tolerance.r#in == 0.0) && policy.scale_in.stabilization.is_zero() && !steady && policy.metrics.iter().any(is_tracked) {
        let (side, path) = if tolerance.r#in == 0.0 { ("in", "spec.tolerance.in") } else { ("out", "spec.tolerance.out") };
        let message = format!("`tolerance.{side}` is 0 and scale-in is not stabilized: the count follows every small change, out and in again");
        report.warn(path, "hunting", message, "write a tolerance, as in `10%`, or a stabilization, as in `behavior: { scaleIn: { stabilization: 5m } }`");
    }
}

fn is_tracked(metric: &MetricPolicy) -> bool {
    matches!(metric.rule, MetricRule::Utilization { .. } | MetricRule::PerReplica { .. } | MetricRule::Value { .. })
}

/// A step within the bounds that leads from one threshold past the other, as (from, to, inwards), where the load spreads
/// over the replicas evenly.
fn swing(threshold: &Threshold, min: u32, max: u32) -> Option<(u32, u32, bool)> {
    let above = threshold.scale_out_above?.as_nanos();
    let below = threshold.scale_in_below?.as_nanos();
    let step = |size: StepSize, count: u32| match size {
        StepSize::Replicas(n) => n,
        StepSize::Percent(percent) => u32::try_from((u64::from(count) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX).max(1),
    };
    (min..=max.min(min.saturating_add(TRIED))).find_map(|count| {
        let inward = count.saturating_sub(step(threshold.step_in, count)).max(min).max(1);
        let outward = count.saturating_add(step(threshold.step_out, count)).min(max);
        // The load is value × replicas; after the step it is spread anew.
        let reaches = |value: i128, to: u32| value.saturating_mul(i128::from(count)) / i128::from(to.max(1));
        if inward < count && reaches(below, inward) > above {
            Some((count, inward, true))
        } else if outward > count && reaches(above, outward) < below {
            Some((count, outward, false))
        } else {
            None
        }
    })
}

fn scale_in(policy: &Policy, report: &mut Report) {
    if policy.scale_in.select == Select::Disabled || matches!(policy.mode, Mode::OutOnly | Mode::Off) {
        return;
    }
    if policy.tolerance.r#in >= 1.0 && policy.metrics.iter().any(is_tracked) {
        let message = "no value is 100 % or more below its target: tracked metrics will never ask for fewer replicas";
        report.warn("spec.tolerance.in", "tolerance-blocks-scale-in", message, "write less than `100%`, or `behavior: { scaleIn: { select: Disabled } }`");
    }
    let serves = matches!(policy.role, Role::ApiServer | Role::DatabaseReadReplica);
    let all_at_once = |p: &RatePolicy| matches!(p.amount, StepSize::Percent(percent) if percent >= 100);
    if serves && policy.scale_in.select == Select::Max && policy.scale_in.policies.iter().any(all_at_once) {
        let message = format!("scale-in may remove all but `min` {} replicas in one step, from those who serve people", policy.min);
        report.warn("spec.behavior.scaleIn.policies", "scale-in-without-limit", message, "write a limit, as in `policies: [{ percent: 10, period: 60s }]`");
    }
    let start_up = policy.cpu_initialization.max(policy.readiness_delay);
    let stabilization = policy.scale_in.stabilization;
    let (shown, path) = (show_duration(stabilization), "spec.behavior.scaleIn.stabilization");
    if stabilization < start_up {
        let message = format!("scale-in waits {shown}, start-up counts for {}: what was just started may be removed before it helped", show_duration(start_up));
        report.warn(path, "scale-in-within-start-up", message, format!("write at least `{}`, or a shorter `startup`", show_duration(start_up)));
    }
    if policy.scale_in.cooldown > stabilization {
        let message = format!(
            "the cooldown of {} is longer than the stabilization of {shown}: what was asked for when it began is forgotten when it ends",
            show_duration(policy.scale_in.cooldown)
        );
        report.warn("spec.behavior.scaleIn.cooldown", "cooldown-beyond-stabilization", message, "write a longer stabilization, or a shorter cooldown");
    }
}

fn fallback(policy: &Policy, report: &mut Report) {
    let (path, replicas) = ("spec.fallback.replicas", policy.fallback.replicas);
    match policy.fallback.behavior {
        FallbackBehavior::Hold => {}
        _ if replicas > policy.max => {
            report.warn(path, "fallback-beyond-max", format!("{replicas} is above `max` {}, which stays the limit", policy.max), "write at most `max`");
        }
        FallbackBehavior::Static if replicas < policy.min => {
            report.warn(path, "fallback-below-min", format!("{replicas} is below `min` {}, which stays the limit", policy.min), "write at least `min`");
        }
        FallbackBehavior::Static if replicas == policy.min && policy.min < policy.max => {
            let message = format!("when all metrics are lost, the fleet shrinks to `min` {replicas}, whatever its load is");
            report.warn(path, "fallback-to-min", message, "write `behavior: IfHigher` or `Hold`, or a count that carries a usual day");
        }
        FallbackBehavior::IfHigher if replicas <= policy.min => {
            let message = format!("{replicas} is never higher than `min` {}: this fallback does nothing", policy.min);
            report.warn(path, "fallback-without-effect", message, "write more than `min`, or `behavior: Hold`");
        }
        FallbackBehavior::Static | FallbackBehavior::IfHigher => {}
    }
}
