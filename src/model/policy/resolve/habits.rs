//! The fields of a `HorizontalPodAutoscaler` and of KEDA's `ScaledObject`, as people write them here out of habit: which field
//! of Loadline is meant, and how it is written. docs/from-hpa.md says the same at length, and is held against this table.

use Owner::{Hpa, Keda};
use Place::{Behavior, Direction, Fallback, Metric, RatePolicy, Replicas, Spec, Track};

use crate::model::document::amounts::Fault;

/// Where a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Spec,
    Replicas,
    Metric,
    Track,
    Behavior,
    /// `behavior.scaleOut`, `behavior.scaleIn`.
    Direction,
    /// `behavior.….policies[]`.
    RatePolicy,
    Fallback,
}

/// Whose field it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Hpa,
    Keda,
}

impl Owner {
    fn article_and_kind(self) -> &'static str {
        match self {
            Hpa => "a HorizontalPodAutoscaler",
            Keda => "a ScaledObject of KEDA",
        }
    }
}

/// A field of another's: where it is written, its name, whose it is, the field of Loadline that is meant (empty: none), and how that is written.
type Habit = (Place, &'static str, Owner, &'static str, &'static str);

const TARGET: &str = "write `target: { apiVersion: apps/v1, kind: Deployment, name: api-server }`";
const COUNTS: &str = "write `replicas: { min: 3, max: 60 }`";
const BY_TYPE: &str = "write `name: cpu` with `track: { utilization: 70% }`, `track: { perReplica: 100 }` or `track: { value: 100 }`";
const UTILIZATION: &str = "write `track: { utilization: 70% }`";
const PER_REPLICA: &str = "write `track: { perReplica: 100 }`";
const ONE_METRIC: &str = "write `metrics: [{ name: queue_depth, track: { perReplica: 10 } }]`, and send the number: Loadline asks no other system";
const SCALE_OUT: &str = "write `scaleOut: { stabilization: 0s, select: Max, policies: [{ percent: 100, period: 15s }] }`";
const SCALE_IN: &str = "write `scaleIn: { stabilization: 5m, select: Max, policies: [{ percent: 10, period: 60s }] }`";
const ZERO: &str = "remove it: it is about zero replicas, which are not available yet";

const HABITS: &[Habit] = &[
    (Spec, "scaleTargetRef", Hpa, "target", TARGET),
    (Spec, "minReplicas", Hpa, "replicas.min", COUNTS),
    (Spec, "maxReplicas", Hpa, "replicas.max", COUNTS),
    (Spec, "targetCPUUtilizationPercentage", Hpa, "metrics", "write `metrics: [{ name: cpu, track: { utilization: 70% } }]`"),
    (Spec, "scaleUp", Hpa, "behavior.scaleOut", "write `behavior: { scaleOut: { … } }`"),
    (Spec, "scaleDown", Hpa, "behavior.scaleIn", "write `behavior: { scaleIn: { … } }`"),
    (Spec, "minReplicaCount", Keda, "replicas.min", COUNTS),
    (Spec, "maxReplicaCount", Keda, "replicas.max", COUNTS),
    (Spec, "idleReplicaCount", Keda, "", ZERO),
    (Spec, "pollingInterval", Keda, "", "remove it: samples come when they are sent (`evaluateEvery: 30s` bounds how often they are looked at)"),
    (
        Spec,
        "cooldownPeriod",
        Keda,
        "",
        "remove it: it is about zero replicas, which are not available yet; a rest after each change is `behavior: { scaleIn: { cooldown: 5m } }`",
    ),
    (Spec, "initialCooldownPeriod", Keda, "", ZERO),
    (Spec, "triggers", Keda, "metrics", ONE_METRIC),
    (Spec, "advanced", Keda, "behavior", "write what is in `horizontalPodAutoscalerConfig.behavior` as `behavior: { scaleOut: { … }, scaleIn: { … } }`"),
    (Replicas, "minReplicas", Hpa, "min", "write `min: 3`"),
    (Replicas, "maxReplicas", Hpa, "max", "write `max: 60`"),
    (Replicas, "minReplicaCount", Keda, "min", "write `min: 3`"),
    (Replicas, "maxReplicaCount", Keda, "max", "write `max: 60`"),
    (Metric, "type", Hpa, "track", BY_TYPE),
    (Metric, "resource", Hpa, "track", BY_TYPE),
    (Metric, "pods", Hpa, "track", "write `name: requests` with `track: { perReplica: 100 }`, and samples that name their instance"),
    (
        Metric,
        "object",
        Hpa,
        "track",
        "write `name: requests` with `track: { value: 100 }` or `track: { perReplica: 100 }`, and samples of the target as a whole, without an instance",
    ),
    (
        Metric,
        "external",
        Hpa,
        "track",
        "write `name: queue_depth` with `track: { value: 100 }` or `track: { perReplica: 100 }`, and samples of the target as a whole, without an instance",
    ),
    (Metric, "containerResource", Hpa, "", "remove it: a container's own share is not available yet; `name: cpu` is of the whole instance"),
    (Metric, "metric", Hpa, "name", "write `name: requests`, the name that its samples carry; the sender selects"),
    (Metric, "target", Hpa, "track", "write `track: { utilization: 70% }`, or `threshold: { scaleOutAbove: 300ms, scaleInBelow: 120ms }`"),
    (Metric, "averageUtilization", Hpa, "track.utilization", UTILIZATION),
    (Metric, "averageValue", Hpa, "track.perReplica", PER_REPLICA),
    (Metric, "targetAverageUtilization", Hpa, "track.utilization", UTILIZATION),
    (Metric, "targetAverageValue", Hpa, "track.perReplica", PER_REPLICA),
    (Metric, "targetValue", Hpa, "track.value", "write `track: { value: 100 }`"),
    (Metric, "metricType", Keda, "track", BY_TYPE),
    (Metric, "metadata", Keda, "track", "write `track: { perReplica: 10 }` for the trigger's threshold, and send the number: Loadline asks no other system"),
    (Track, "type", Hpa, "", "remove it: `utilization: 70%`, `perReplica: 100` or `value: 100` says which it is"),
    (Track, "averageUtilization", Hpa, "utilization", "write `utilization: 70%`"),
    (Track, "averageValue", Hpa, "perReplica", "write `perReplica: 100`"),
    (Track, "targetAverageUtilization", Hpa, "utilization", "write `utilization: 70%`"),
    (Track, "targetAverageValue", Hpa, "perReplica", "write `perReplica: 100`"),
    (Track, "targetValue", Hpa, "value", "write `value: 100`"),
    (Behavior, "scaleUp", Hpa, "scaleOut", SCALE_OUT),
    (Behavior, "scaleDown", Hpa, "scaleIn", SCALE_IN),
    (Direction, "stabilizationWindowSeconds", Hpa, "stabilization", "write `stabilization: 300s`, with its unit"),
    (Direction, "selectPolicy", Hpa, "select", "write `select: Max`, `Min` or `Disabled`"),
    (Direction, "tolerance", Hpa, "spec.tolerance", "write `tolerance: { out: 5%, in: 5% }` under `spec`; the HPA's `\"0.05\"` is `5%`"),
    (RatePolicy, "type", Hpa, "percent` or `replicas", "write `percent: 10` for `type: Percent`, `replicas: 4` for `type: Pods`"),
    (RatePolicy, "value", Hpa, "percent` or `replicas", "write `percent: 10` for `type: Percent`, `replicas: 4` for `type: Pods`"),
    (RatePolicy, "periodSeconds", Hpa, "period", "write `period: 60s`, with its unit"),
    (Fallback, "failureThreshold", Keda, "after", "write `after: 3m`, the time for which all proposing metrics have no value"),
];

/// What the unknown field `name` at `place` is, where it is one of another's.
pub(super) fn habit(place: Place, name: &str) -> Option<Fault> {
    let (.., owner, field, how) = HABITS.iter().find(|(at, known, ..)| *at == place && *known == name)?;
    let mend = if field.is_empty() { (*how).to_owned() } else { format!("did you mean `{field}`? {how}") };
    Some(Fault::new("unknown-field", format!("unknown field `{name}`, as of {}", owner.article_and_kind()), mend))
}

/// Whose document it is that has this `kind`, or this `apiVersion`: "a `HorizontalPodAutoscaler`".
pub fn habit_of_document(kind_or_version: &str) -> Option<&'static str> {
    let owner = match kind_or_version {
        "HorizontalPodAutoscaler" | "autoscaling/v2" | "autoscaling/v2beta2" | "autoscaling/v2beta1" | "autoscaling/v1" => Hpa,
        "ScaledObject" | "keda.sh/v1alpha1" => Keda,
        _ => return None,
    };
    Some(owner.article_and_kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/from-hpa.md");

    /// Whoever pastes any field of an HPA's `spec` reads here what becomes of it: level by level, as they mend it.
    #[test]
    fn every_field_of_the_page_is_a_habit() {
        let own = |place, name: &str| match place {
            Spec => ["metrics", "behavior"].contains(&name),
            Direction => name == "policies",
            Track => name == "value",
            _ => false,
        };
        let mut rows = 0;
        for line in PAGE.lines().filter_map(|line| line.strip_prefix("| `spec.")) {
            let Some((path, _)) = line.split_once("` |") else { continue };
            let parts: Vec<&str> = path.split('.').map(|part| part.trim_end_matches("[]")).collect();
            let places: Vec<(Place, &str)> = match parts[..] {
                ["metrics", kind, .., "target", leaf] => vec![(Metric, kind), (Metric, "target"), (Track, leaf)],
                ["metrics", kind, "metric", ..] => vec![(Metric, kind), (Metric, "metric")],
                ["metrics", kind, ..] => vec![(Metric, kind)],
                ["behavior", way, "policies", field] => vec![(Behavior, way), (Direction, "policies"), (RatePolicy, field)],
                ["behavior", way, field] => vec![(Behavior, way), (Direction, field)],
                [field, ..] => vec![(Spec, field)],
                [] => vec![],
            };
            for (place, name) in places {
                // The table of fields names some of them with a value, or together.
                let name = name.split(['`', ':']).next().unwrap_or(name);
                assert!(own(place, name) || habit(place, name).is_some(), "{path}: {name} at {place:?}");
                rows += 1;
            }
        }
        assert!(rows > 50, "the page's table was found: {rows}");
    }

    /// The page is the source: whoever is told of a field here can look it up there.
    #[test]
    fn every_habit_is_on_the_page() {
        for (_, name, ..) in HABITS {
            assert!(PAGE.contains(name), "{name}");
        }
    }
}
