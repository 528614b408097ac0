//! What answers need of a policy, read once when it is announced and not again for every answer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::edge::api::Rule;
use crate::model::policy::{MetricRule, Mode, resolve_spec_json};
use crate::model::{MetricName, PolicyAnnouncement, TargetId};

/// A policy's plain facts. What cannot be resolved is absent, what is written stands all the same.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Whether this version can use it.
    pub(super) usable: bool,
    pub(super) role: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) min: Option<u32>,
    pub(super) max: Option<u32>,
    /// Nothing is decided.
    pub(super) off: bool,
    /// `source@generation`, as decisions name it.
    pub(super) version: String,
    pub(super) rules: BTreeMap<MetricName, Rule>,
}

impl Facts {
    pub(super) fn of(target: &TargetId, announced: &PolicyAnnouncement) -> Facts {
        let version = announced.order.to_string();
        let Some(spec) = announced.spec.as_deref() else { return Facts { version, ..Facts::default() } };
        let written: Option<Value> = serde_json::from_str(spec).ok();
        let word = |name: &str, default: &str| written.as_ref().map(|s| s.get(name).and_then(Value::as_str).unwrap_or(default).to_owned());
        let policy = resolve_spec_json(spec, target).ok();
        let rule = |rule: &MetricRule| match rule {
            MetricRule::Threshold(_) => Rule::Threshold,
            MetricRule::Observe => Rule::Observe,
            MetricRule::Utilization { .. } | MetricRule::PerReplica { .. } | MetricRule::Value { .. } => Rule::Track,
        };
        Facts {
            usable: policy.is_some(),
            role: word("role", "Generic"),
            mode: word("mode", "Active"),
            min: policy.as_ref().map(|policy| policy.min),
            max: policy.as_ref().map(|policy| policy.max),
            off: policy.as_ref().is_some_and(|policy| policy.mode == Mode::Off),
            version,
            rules: policy.iter().flat_map(|policy| &policy.metrics).map(|metric| (metric.name.clone(), rule(&metric.rule))).collect(),
        }
    }
}
