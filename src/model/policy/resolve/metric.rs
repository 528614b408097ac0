//! `metrics`: what is measured, and what each measurement asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::defaults::Defaults;
use super::super::known::{Meant, known_unit, meant};
use super::super::{Across, Measure, MetricPolicy, MetricRule, Over, StepSize, Threshold, Unit, WhenBlind};
use super::habits::{Place, habit};
use super::{HOUR, MAX_REPLICAS, missing, not_available};
use crate::model::document::amounts::{self, Fault, show_amount, show_duration, unit_name};
use crate::model::document::fields::{Choice, Fields, Origin, Report, Show, item, quoted, whole};
use crate::model::document::shape::Shape;
use crate::model::document::{Node, Value};
use crate::model::{Amount, Kind, MetricName};

/// The most metrics of a target.
const MOST_METRICS: usize = 64;
/// What can be tracked.
const TARGETS: [&str; 3] = ["utilization", "perReplica", "value"];
/// What a step of a threshold may be.
const STEP: Shape = Shape::Either(&[Shape::Whole(1, MAX_REPLICAS), Shape::WholePercent]);
/// The fields of a metric whose step is not built yet.
const NOT_YET: [&str; 3] = ["ratio", "formula", "source"];

pub(super) fn metrics(spec: &mut Fields<'_>, defaults: &Defaults, by_role: Origin, report: &mut Report) -> Vec<MetricPolicy> {
    const MEND: &str = "write `metrics: [{ name: cpu, track: { utilization: 70% } }]`";
    let path = spec.at("metrics");
    spec.demand("metrics", report);
    report.shape(&path, Shape::Items(1, MOST_METRICS));
    report.meaning(|| path.clone(), "what is measured, and what each measurement asks for");
    let items = match spec.take("metrics").map(|node| (node, &node.value)) {
        Some((_, Value::List(items))) if !items.is_empty() => items,
        Some((_, Value::List(_))) => {
            report.error(&path, Fault::new("empty", "`metrics` is empty", MEND));
            return Vec::new();
        }
        Some((node, _)) => {
            report.error(&path, Fault::new("type", format!("`metrics` must be a list, it is {}", node.describe()), MEND));
            return Vec::new();
        }
        None => {
            report.error(spec.path(), missing("metrics", MEND));
            return Vec::new();
        }
    };
    if items.len() > MOST_METRICS {
        report.error(&path, Fault::new("limit", format!("{} metrics are more than {MOST_METRICS}", items.len()), "keep those that decide"));
        return Vec::new();
    }
    let mut seen = BTreeMap::new();
    let mut metrics = Vec::new();
    for (i, node) in items.iter().enumerate() {
        let path = item(&path, i);
        report.locate(|| path.clone(), node);
        let Some(metric) = metric(node, path.clone(), defaults, by_role, report) else { continue };
        // One without a name that can be one has its own error.
        if node.get("name").and_then(Node::as_text) == Some(metric.name.as_str())
            && let Some(first) = seen.insert(metric.name.clone(), path.clone())
        {
            let message = format!("two metrics are named `{}`, the other is {first}", metric.name);
            report.error(&format!("{path}.name"), Fault::new("duplicate-metric", message, "give one of them another name, or remove it"));
        }
        metrics.push(metric);
    }
    metrics
}

fn metric(node: &Node, path: String, defaults: &Defaults, by_role: Origin, report: &mut Report) -> Option<MetricPolicy> {
    let mut fields = Fields::of(Some(node), path, report, "write a metric as in `{ name: cpu, track: { utilization: 70% } }`");
    if !matches!(node.value, Value::Map(_)) {
        return None;
    }
    let name = name(&mut fields, report);
    let kind = kind(&mut fields, report);
    let unit = unit(&mut fields, name.as_ref(), report);
    let weighs = fields.take("track").is_some();
    let measure = measure(&mut fields, kind, weighs, report);
    let window = fields.setting("window", Shape::Duration, (defaults.window, by_role), "the time that is measured", report, |node| {
        match amounts::duration(node, HOUR)? {
            Duration::ZERO => Err(Fault::new("range", "0 is no window", "write a window, as in `30s`")),
            window => Ok(window),
        }
    });
    // A default never contradicts what is written.
    let stale_after =
        fields.duration("staleAfter", (defaults.stale_after.max(window), by_role), HOUR, "from this age on its newest value counts no more", report);
    if stale_after < window {
        let message = format!("`staleAfter` {} is shorter than `window` {}", show_duration(stale_after), show_duration(window));
        report.error(&fields.at("staleAfter"), Fault::new("contradiction", message, format!("write at least `{}`", show_duration(window))));
    }
    let when_blind = fields.choice("whenBlind", (WhenBlind::HoldIn, Origin::Default), "while it has no value: HoldIn (no scale-in) or Ignore", report);
    let rule = rule(&mut fields, name.as_ref(), unit, &measure, defaults, by_role, report);
    fields.finish(report, |name| NOT_YET.contains(&name).then(|| not_available(name)).or_else(|| habit(Place::Metric, name)));
    let unit = unit.unwrap_or(Unit::Count);
    // A nameless metric has its error, and keeps the places of those after it.
    let name = name.or_else(|| "unnamed".parse().ok())?;
    Some(MetricPolicy { name, kind, unit, measure, window, stale_after, rule, when_blind })
}

fn name(fields: &mut Fields<'_>, report: &mut Report) -> Option<MetricName> {
    const MEND: &str = "write a name of 1 to 253 bytes without white space, as in `cpu`";
    fields.demand("name", report);
    if fields.take("name").is_none() {
        report.error(fields.path(), missing("name", "write `name`, the name that its samples carry, as in `name: cpu`"));
    }
    let name: MetricName = fields.read("name", Shape::Name, report, |node| {
        let text = node.as_text().ok_or_else(|| Fault::wrong_type(node, MEND))?;
        text.parse().map_err(|e: crate::model::NameError| Fault::new("name", e.to_string(), MEND))
    })?;
    match report.advises().then(|| meant(name.as_str())).flatten() {
        Some(Meant::Slip(known)) => {
            let message = format!("`{name}` is nearly `{known}`, whose unit and meaning are known");
            report.warn(&fields.at("name"), "metric-name", message, format!("did you mean `{known}`? leave it where your samples carry `{name}`"));
        }
        // Whoever writes its unit means a metric of that name; and where it is a count under either name, the name alone makes no difference.
        Some(Meant::Word(known, unit)) if unit != Unit::Count && fields.take("unit").is_none() => {
            let message = format!("`{name}` is not a known name, so its amounts are counts; `{known}` is known, in {}", unit_name(unit));
            let mend = format!("did you mean `{known}`? where your samples carry `{name}`, write its `unit`");
            report.warn(&fields.at("name"), "metric-name", message, mend);
        }
        _ => {}
    }
    report.put(|| (fields.at("name"), quoted(name.as_str())), Origin::Written, "the name that its samples carry");
    Some(name)
}

/// Shows a value that may be absent.
fn optional<T: Show>(value: Option<T>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.show())
}

fn kind(fields: &mut Fields<'_>, report: &mut Report) -> Option<Kind> {
    let kind = fields.word::<Kind>("kind", report);
    let origin = if kind.is_some() { Origin::Written } else { Origin::Default };
    report.put(|| (fields.at("kind"), optional(kind)), origin, "what its numbers must mean (null: whatever comes)");
    kind
}

/// The written or known unit; `None` where there is neither, and a plain count is meant.
fn unit(fields: &mut Fields<'_>, name: Option<&MetricName>, report: &mut Report) -> Option<Unit> {
    let known = name.and_then(known_unit);
    let written = fields.word::<Unit>("unit", report);
    if let (Some(name), Some(known), Some(written)) = (name, known, written)
        && known != written
    {
        let message = format!("`{name}` is measured in {}, here it is {}", unit_name(known), unit_name(written));
        report.warn(&fields.at("unit"), "unusual-unit", message, "remove `unit`, unless your samples carry this name with another meaning");
    }
    let origin = if written.is_some() { Origin::Written } else { Origin::Default };
    report.put(|| (fields.at("unit"), written.or(known).unwrap_or(Unit::Count).show()), origin, "the unit of its amounts");
    written.or(known)
}

/// How a metric is measured. A `track` weighs the instances by its own rules, or wants to be told; else their mean is taken.
fn measure(fields: &mut Fields<'_>, kind: Option<Kind>, weighs: bool, report: &mut Report) -> Measure {
    let mut measure = fields.map("measure", report, "write `measure: { over: Mean, across: Sum }` or `measure: { quantile: 95% }`");
    let over = measure.word::<Over>("over", report);
    let across = measure.word::<Across>("across", report);
    let quantile_is_written = measure.take("quantile").is_some();
    let quantile = measure.read("quantile", Shape::Ratio, report, |node| {
        const MEND: &str = "write a share of all observations, as in `95%`";
        match amounts::ratio(node).map_err(|fault| Fault { mend: MEND.into(), ..fault })? {
            q if q <= 1.0 => Ok(q),
            _ => Err(Fault::new("range", format!("{} is beyond 100 %", node.describe()), MEND)),
        }
    });
    if quantile_is_written && (over.is_some() || across.is_some()) {
        let message = "a quantile pools all observations: `over` and `across` do not apply";
        report.error(measure.path(), Fault::new("contradiction", message, "keep `quantile`, or `over` and `across`"));
    }
    if let (true, Some(kind @ (Kind::Gauge | Kind::Counter | Kind::Delta))) = (quantile_is_written, kind) {
        let message = format!("there is no quantile of a {}", kind.show());
        report.error(&measure.at("quantile"), Fault::new("contradiction", message, "send a Distribution or a Histogram, or remove `quantile`"));
    }
    let read = if let Some(quantile) = quantile {
        report.put(|| (measure.at("quantile"), amounts::show_ratio(quantile)), Origin::Written, "the share of all observations that are not larger");
        Measure::Quantile(quantile)
    } else {
        let origin = if over.is_some() { Origin::Written } else { Origin::Default };
        let over = over.unwrap_or(Over::Mean);
        report.put(|| (measure.at("over"), over.show()), origin, "each instance's samples of the window become one number");
        let origin = if across.is_some() { Origin::Written } else { Origin::Default };
        let across = across.or((!weighs).then_some(Across::Mean));
        report.put(|| (measure.at("across"), optional(across)), origin, "the instances' numbers become one (null: as the rule needs)");
        Measure::Reduce { over, across }
    };
    measure.finish(report, |_| None);
    read
}

fn rule(
    fields: &mut Fields<'_>,
    name: Option<&MetricName>,
    unit: Option<Unit>,
    measure: &Measure,
    defaults: &Defaults,
    by_role: Origin,
    report: &mut Report,
) -> MetricRule {
    report.not_both(fields.path(), &["track", "threshold"]);
    let (track_path, threshold_path) = (fields.at("track"), fields.at("threshold"));
    match (fields.take("track"), fields.take("threshold")) {
        (None, None) => MetricRule::Observe,
        (Some(track_node), None) => track(track_node, track_path, name, unit, measure, report).unwrap_or(MetricRule::Observe),
        (None, Some(node)) => MetricRule::Threshold(threshold(node, threshold_path, unit, defaults, by_role, report)),
        (Some(track_node), Some(node)) => {
            let message = "a metric has `track` or `threshold`, not both";
            report.error(&threshold_path, Fault::new("contradiction", message, "remove one, or list the metric's limit in the other"));
            track(track_node, track_path, name, unit, measure, report);
            MetricRule::Threshold(threshold(node, threshold_path, unit, defaults, by_role, report))
        }
    }
}

/// An amount that something is divided by.
fn positive(node: &Node, unit: Option<Unit>) -> Result<Amount, Fault> {
    match amounts::amount(node, unit)? {
        Amount::ZERO => Err(Fault::new("range", "0 is no target", "write an amount above 0")),
        amount => Ok(amount),
    }
}

fn track(node: &Node, path: String, name: Option<&MetricName>, unit: Option<Unit>, measure: &Measure, report: &mut Report) -> Option<MetricRule> {
    const MEND: &str = "write `track: { utilization: 70% }`, `track: { perReplica: 100 }` or `track: { value: 100 }`";
    let mut fields = Fields::of(Some(node), path, report, MEND);
    if !matches!(node.value, Value::Map(_)) {
        return None;
    }
    report.one_of(fields.path(), &TARGETS);
    let written = TARGETS.into_iter().filter(|name| fields.take(name).is_some()).count();
    // A misspelt target has its own error.
    if written > 1 || (written == 0 && !fields.has_unknown()) {
        let message = if written == 0 { "`track` has no target" } else { "`track` has more than one target" };
        report.error(fields.path(), Fault::new("contradiction", message, MEND));
    }
    let utilization = fields.read("utilization", Shape::WholePercent, report, |node| match unit {
        Some(unit @ (Unit::Seconds | Unit::Ratio)) => Err(Fault::new(
            "unit",
            format!("{} are not requested by instances, so there is no utilization of them", unit_name(unit)),
            "write `value` or `perReplica`",
        )),
        _ => amounts::whole_percent(node),
    });
    let per_replica = fields.read("perReplica", Shape::Amount, report, |node| positive(node, unit));
    let value = fields.read("value", Shape::Amount, report, |node| positive(node, unit));
    let pooled = utilization.is_some() || per_replica.is_some();
    match measure {
        Measure::Reduce { across: Some(_), .. } if pooled => {
            let message = "`measure.across` does not apply: `utilization` and `perReplica` weigh instances by their own rules";
            report.error(fields.path(), Fault::new("contradiction", message, "remove `across`, or track a `value`"));
        }
        Measure::Quantile(_) if pooled => {
            let message = "a quantile is one value of all instances: it has no `utilization` and no share `perReplica`";
            report.error(fields.path(), Fault::new("contradiction", message, "use a `threshold`, or remove `quantile`"));
        }
        _ => {}
    }
    let shown = unit.unwrap_or(Unit::Count);
    let rule = if let Some(percent) = utilization {
        report.put(|| (fields.at("utilization"), format!("{percent}%")), Origin::Written, "the share of the request that instances should use");
        if !name.is_none_or(|name| ["cpu", "memory"].contains(&name.as_str())) {
            let message = "only what instances request has a utilization, which are `cpu` and `memory` as a rule";
            report.warn(&fields.at("utilization"), "not-requested", message, "write `perReplica`, unless your instances request this resource by name");
        }
        Some(MetricRule::Utilization { percent: i64::from(percent) })
    } else if let Some(amount) = per_replica {
        report.put(|| (fields.at("perReplica"), show_amount(amount, shown)), Origin::Written, "the amount that each replica should have");
        Some(MetricRule::PerReplica { amount })
    } else if let Some(amount) = value {
        report.put(|| (fields.at("value"), show_amount(amount, shown)), Origin::Written, "the amount that the metric should have");
        Some(MetricRule::Value { amount })
    } else {
        None
    };
    fields.finish(report, |name| habit(Place::Track, name));
    rule
}

fn threshold(node: &Node, path: String, unit: Option<Unit>, defaults: &Defaults, by_role: Origin, report: &mut Report) -> Threshold {
    const MEND: &str = "write `threshold: { scaleOutAbove: 300ms, scaleInBelow: 120ms }`";
    let mut fields = Fields::of(Some(node), path, report, MEND);
    report.any_of(fields.path(), &["scaleOutAbove", "scaleInBelow"]);
    let is_map = matches!(node.value, Value::Map(_));
    let is_written = fields.take("scaleOutAbove").is_some() || fields.take("scaleInBelow").is_some();
    let above = fields.read("scaleOutAbove", Shape::Amount, report, |node| amounts::amount(node, unit));
    let below = fields.read("scaleInBelow", Shape::Amount, report, |node| match amounts::amount(node, unit)? {
        Amount::ZERO => Err(Fault::new("range", "nothing is below 0", "write an amount above 0, or remove it")),
        amount => Ok(amount),
    });
    if is_map && !is_written {
        // The second name is known from here on, whatever is written.
        fields.take("scaleInBelow");
        report.error(fields.path(), Fault::new("missing-field", "`threshold` has neither `scaleOutAbove` nor `scaleInBelow`", MEND));
    }
    let shown = unit.unwrap_or(Unit::Count);
    if let (Some(above), Some(below)) = (above, below)
        && below >= above
    {
        let message = format!("`scaleInBelow` {} is not less than `scaleOutAbove` {}", show_amount(below, shown), show_amount(above, shown));
        report.error(&fields.at("scaleInBelow"), Fault::new("contradiction", message, "write a smaller `scaleInBelow`"));
    }
    for (name, value, meaning) in [("scaleOutAbove", above, "above this: one step out"), ("scaleInBelow", below, "below this: one step in")] {
        if let Some(value) = value {
            report.put(|| (fields.at(name), show_amount(value, shown)), Origin::Written, meaning);
        }
    }
    let hold = fields.duration("for", (defaults.hold, by_role), HOUR, "for so long before each step", report);
    let mut step = fields.map("step", report, "write `step: { out: 20%, in: 1 }`");
    let step_out = step.setting("out", STEP, (defaults.step_out, by_role), "the size of a step out, in replicas or percent of the count", report, step_size);
    let step_in = step.setting("in", STEP, (defaults.step_in, by_role), "the size of a step in, in replicas or percent of the count", report, step_size);
    step.finish(report, |_| None);
    fields.finish(report, |_| None);
    Threshold { scale_out_above: above, scale_in_below: below, hold, step_out, step_in }
}

fn step_size(node: &Node) -> Result<StepSize, Fault> {
    let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    match &node.value {
        Value::Number(_) => whole(node, 1, MAX_REPLICAS).map(|n| StepSize::Replicas(count(n))),
        Value::Text(_) => match amounts::whole_percent(node)? {
            percent if percent <= 100 => Ok(StepSize::Percent(percent)),
            percent => Err(Fault::new("range", format!("{percent}% is more than a doubling"), "write at most `100%`")),
        },
        _ => Err(Fault::wrong_type(node, "write replicas, as in `2`, or percent of the count, as in `20%`")),
    }
}

impl Show for StepSize {
    fn show(&self) -> String {
        match self {
            StepSize::Replicas(n) => n.to_string(),
            StepSize::Percent(n) => format!("{n}%"),
        }
    }
}

impl Choice for Kind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("Gauge", Kind::Gauge), ("Counter", Kind::Counter), ("Delta", Kind::Delta), ("Distribution", Kind::Distribution), ("Histogram", Kind::Histogram)];
}

impl Choice for Unit {
    const WORDS: &'static [(&'static str, Self)] =
        &[("seconds", Unit::Seconds), ("bytes", Unit::Bytes), ("cores", Unit::Cores), ("ratio", Unit::Ratio), ("count", Unit::Count)];
}

impl Choice for Over {
    const WORDS: &'static [(&'static str, Self)] = &[("Mean", Over::Mean), ("Max", Over::Max), ("Last", Over::Last)];
}

impl Choice for Across {
    const WORDS: &'static [(&'static str, Self)] = &[("Sum", Across::Sum), ("Mean", Across::Mean), ("Max", Across::Max)];
}

impl Choice for WhenBlind {
    const WORDS: &'static [(&'static str, Self)] = &[("HoldIn", WhenBlind::HoldIn), ("Ignore", WhenBlind::Ignore)];
}
