//! `behavior` and `fallback`: how fast the count may change, and what happens without any measurement.

use std::time::Duration;

use super::super::defaults::{Defaults, Direction};
use super::super::{Fallback, FallbackBehavior, RatePolicy, ScalingRules, Select, StepSize};
use super::habits::{Place, habit};
use super::{DAY, HOUR, MAX_REPLICAS, missing};
use crate::model::document::amounts::{self, Fault};
use crate::model::document::fields::{Choice, Fields, Origin, Report, item, whole};
use crate::model::document::shape::Shape;
use crate::model::document::{Node, Value};

/// The most rate policies of one direction: two kinds in several periods; each is evaluated every time.
const MOST_POLICIES: usize = 16;

pub(super) fn behavior(spec: &mut Fields<'_>, defaults: &Defaults, by_role: Origin, report: &mut Report) -> (ScalingRules, ScalingRules) {
    let mut behavior = spec.map("behavior", report, "write `behavior: { scaleOut: { … }, scaleIn: { … } }`");
    let scale_out = direction(&mut behavior, "scaleOut", &defaults.scale_out, by_role, report);
    let scale_in = direction(&mut behavior, "scaleIn", &defaults.scale_in, by_role, report);
    behavior.finish(report, |name| habit(Place::Behavior, name));
    (scale_out, scale_in)
}

fn direction(behavior: &mut Fields<'_>, name: &'static str, defaults: &Direction, by_role: Origin, report: &mut Report) -> ScalingRules {
    let mut fields = behavior.map(name, report, "write `{ stabilization: 300s, cooldown: 60s, select: Max, policies: [{ percent: 10, period: 60s }] }`");
    let meaning =
        if name == "scaleOut" { "grow to the least that was asked for in this window" } else { "shrink to the most that was asked for in this window" };
    let stabilization = fields.duration("stabilization", (defaults.stabilization, by_role), HOUR, meaning, report);
    let cooldown = fields.duration("cooldown", (defaults.cooldown, by_role), DAY, "rest after a change that was applied", report);
    let select = fields.choice("select", (defaults.select, by_role), "which rate policy counts (Disabled: no change this way)", report);
    let written = policies(&mut fields, report);
    let origin = if written.is_some() { Origin::Written } else { by_role };
    let policies = written.unwrap_or_else(|| defaults.policies.to_vec());
    report.put(|| (fields.at("policies"), show_policies(&policies)), origin, "how much may change in each period");
    fields.finish(report, |name| habit(Place::Direction, name));
    ScalingRules { stabilization, cooldown, select, policies }
}

fn policies(fields: &mut Fields<'_>, report: &mut Report) -> Option<Vec<RatePolicy>> {
    const MEND: &str = "write `policies: [{ percent: 10, period: 60s }]`";
    let path = fields.at("policies");
    report.shape(&path, Shape::Items(1, MOST_POLICIES));
    let node = fields.take("policies")?;
    let Value::List(items) = &node.value else {
        report.error(&path, Fault::new("type", format!("`policies` must be a list, it is {}", node.describe()), MEND));
        return None;
    };
    if items.is_empty() {
        report.error(
            &path,
            Fault::new(
                "empty",
                "`policies` is empty",
                "write a rate policy, remove the field for the default, or write `select: Disabled` for no change this way",
            ),
        );
    }
    if items.len() > MOST_POLICIES {
        report.error(&path, Fault::new("limit", format!("{} rate policies are more than {MOST_POLICIES}", items.len()), "keep those that bind"));
        return None;
    }
    Some(items.iter().enumerate().filter_map(|(i, node)| rate_policy(node, item(&path, i), report)).collect())
}

fn rate_policy(node: &Node, path: String, report: &mut Report) -> Option<RatePolicy> {
    const MEND: &str = "write `{ percent: 10, period: 60s }` or `{ replicas: 4, period: 60s }`";
    report.locate(|| path.clone(), node);
    let mut fields = Fields::of(Some(node), path, report, MEND);
    if !matches!(node.value, Value::Map(_)) {
        return None;
    }
    let percent_is_written = fields.take("percent").is_some();
    let percent = fields.read("percent", Shape::Whole(1, 1_000_000), report, |node| match &node.value {
        Value::Text(text) if text.ends_with('%') => {
            Err(Fault::new("type", format!("{text:?} has a sign"), format!("write `{}`: the field is a percentage already", text.trim_end_matches('%').trim())))
        }
        _ => whole(node, 1, 1_000_000).map(|n| StepSize::Percent(u32::try_from(n).unwrap_or(u32::MAX))),
    });
    let replicas_is_written = fields.take("replicas").is_some();
    let replicas = fields.read("replicas", Shape::Whole(1, MAX_REPLICAS), report, |node| {
        whole(node, 1, MAX_REPLICAS).map(|n| StepSize::Replicas(u32::try_from(n).unwrap_or(u32::MAX)))
    });
    // What is written as an HPA has it is told once, field by field.
    let as_of_hpa = |names: &[&str]| names.iter().any(|name| node.get(name).is_some());
    if percent_is_written == replicas_is_written && (percent_is_written || !as_of_hpa(&["type", "value"])) {
        let message =
            if percent_is_written { "a rate policy has `percent` or `replicas`, not both" } else { "a rate policy has neither `percent` nor `replicas`" };
        report.error(fields.path(), Fault::new("contradiction", message, MEND));
    }
    fields.demand("period", report);
    if fields.take("period").is_none() && !as_of_hpa(&["periodSeconds"]) {
        report.error(fields.path(), missing("period", MEND));
    }
    let period = fields.read("period", Shape::Duration, report, |node| match amounts::duration(node, RatePolicy::LONGEST_PERIOD)? {
        Duration::ZERO => Err(Fault::new("range", "0 is no period", "write a period, as in `60s`")),
        period => Ok(period),
    });
    let means = [("percent", "percent of the count at the period's start"), ("replicas", "so many replicas"), ("period", "in so long")];
    means.into_iter().for_each(|(name, meaning)| report.meaning(|| fields.at(name), meaning));
    report.one_of(fields.path(), &["percent", "replicas"]);
    fields.finish(report, |name| habit(Place::RatePolicy, name));
    Some(RatePolicy { amount: percent.or(replicas)?, period: period? })
}

fn show_policies(policies: &[RatePolicy]) -> String {
    let one = |p: &RatePolicy| {
        let (name, amount) = match p.amount {
            StepSize::Percent(n) => ("percent", n),
            StepSize::Replicas(n) => ("replicas", n),
        };
        format!("{{ {name}: {amount}, period: {} }}", amounts::show_duration(p.period))
    };
    format!("[{}]", policies.iter().map(one).collect::<Vec<_>>().join(", "))
}

pub(super) fn fallback(spec: &mut Fields<'_>, defaults: &Defaults, by_role: Origin, min: u32, report: &mut Report) -> Fallback {
    let mut fields = spec.map("fallback", report, "write `fallback: { after: 3m, behavior: IfHigher, replicas: 10 }`");
    let after = fields.duration("after", (defaults.fallback_after, by_role), DAY, "all metrics blind for so long: the fallback", report);
    let behavior =
        fields.choice("behavior", (defaults.fallback_behavior, by_role), "Hold: the count stands; IfHigher: at least `replicas`; Static: `replicas`", report);
    let is_written = fields.take("replicas").is_some();
    let replicas =
        fields.read("replicas", Shape::Whole(1, MAX_REPLICAS), report, |node| whole(node, 1, MAX_REPLICAS).map(|n| u32::try_from(n).unwrap_or(u32::MAX)));
    match (behavior, replicas) {
        (FallbackBehavior::Hold, None) => {}
        (FallbackBehavior::Hold, Some(_)) => {
            report.warn(
                &fields.at("replicas"),
                "unused",
                "`replicas` is not used: the fallback holds the count",
                "write `behavior: IfHigher`, or remove `replicas`",
            );
        }
        (_, None) if !is_written => {
            let message = format!("`fallback.behavior: {}` needs `replicas`", crate::model::document::fields::word(behavior));
            report.error(fields.path(), Fault::new("contradiction", message, "write `replicas`, the count to fall back to"));
        }
        _ => {}
    }
    if let Some(replicas) = replicas {
        report.put(|| (fields.at("replicas"), replicas.to_string()), Origin::Written, "the count to fall back to");
    }
    fields.finish(report, |name| habit(Place::Fallback, name));
    Fallback { after, behavior, replicas: replicas.unwrap_or(min) }
}

impl Choice for Select {
    const WORDS: &'static [(&'static str, Self)] = &[("Max", Select::Max), ("Min", Select::Min), ("Disabled", Select::Disabled)];
}

impl Choice for FallbackBehavior {
    const WORDS: &'static [(&'static str, Self)] =
        &[("Hold", FallbackBehavior::Hold), ("IfHigher", FallbackBehavior::IfHigher), ("Static", FallbackBehavior::Static)];
}
