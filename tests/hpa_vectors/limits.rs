//! Vectors of stabilization and limits: the metrics' proposal is given, what becomes of it is asked.

use std::time::Duration;

use loadline::model::Amount;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::world::{Case, Expected, History, Sample};

/// Changes of an HPA without `behavior` never count against its limit: a period that no change outlasts.
const NO_PERIOD: &str = "1ms";
/// The fewest replicas that the rule without `behavior` lets a target grow to.
const LEGACY_MINIMUM: u32 = 4;

#[derive(Deserialize)]
#[serde(default)]
struct Given {
    current_replicas: u32,
    desired_replicas: u32,
    min_replicas: u32,
    max_replicas: u32,
    scale_up: Rules,
    scale_down: Rules,
    recommendations: Vec<Recommendation>,
    up_events: Vec<Event>,
    down_events: Vec<Event>,
    up_window_s: u64,
    down_window_s: u64,
    downscale_stabilization_s: u64,
    scale_up_limit_factor: u32,
}

impl Default for Given {
    fn default() -> Self {
        Given {
            current_replicas: 0,
            desired_replicas: 0,
            min_replicas: 1,
            max_replicas: i32::MAX.unsigned_abs(),
            scale_up: Rules::default(),
            scale_down: Rules::default(),
            recommendations: Vec::new(),
            up_events: Vec::new(),
            down_events: Vec::new(),
            up_window_s: 0,
            down_window_s: 0,
            downscale_stabilization_s: 0,
            scale_up_limit_factor: 2,
        }
    }
}

#[derive(Default, Deserialize)]
struct Rules {
    select: String,
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
struct Policy {
    r#type: String,
    value: u32,
    period_s: u64,
}

/// An earlier proposal.
#[derive(Deserialize)]
pub(crate) struct Recommendation {
    replicas: u32,
    age_s: u64,
}

#[derive(Deserialize)]
struct Event {
    change: i64,
    age_s: u64,
}

fn read(given: &Value) -> Given {
    serde_json::from_value(given.clone()).unwrap()
}

/// The rate policies alone: no stabilization.
pub(crate) fn rate_limit(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let rules = |rules: &Rules| {
        let policies: Vec<Value> = rules.policies.iter().map(|p| rate_policy(&p.r#type, p.value, &format!("{}s", p.period_s))).collect();
        json!({ "stabilization": "0s", "select": rules.select, "policies": policies })
    };
    let behavior = json!({ "scaleOut": rules(&given.scale_up), "scaleIn": rules(&given.scale_down) });
    case(&given, expect, given.current_replicas, &behavior)
}

/// The rule of an HPA without `behavior`.
pub(crate) fn convert_rules(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let behavior = legacy(given.scale_up_limit_factor, given.current_replicas, Duration::ZERO);
    case(&given, expect, given.current_replicas, &behavior)
}

/// Stabilization both ways, with nothing else in its way.
pub(crate) fn stabilize_behavior(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    stabilize(&given, expect, given.current_replicas, given.up_window_s, given.down_window_s)
}

/// Stabilization of an HPA without `behavior`: on the way in alone, so from a count above all of it.
pub(crate) fn stabilize_legacy(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    stabilize(&given, expect, 100, 0, given.downscale_stabilization_s)
}

fn stabilize(given: &Given, expect: &Value, current: u32, up_window_s: u64, down_window_s: u64) -> Case {
    let behavior = json!({
        "scaleOut": { "stabilization": format!("{up_window_s}s"), "policies": [rate_policy("Pods", i32::MAX.unsigned_abs(), NO_PERIOD)] },
        "scaleIn": { "stabilization": format!("{down_window_s}s"), "policies": [rate_policy("Percent", 100, NO_PERIOD)] },
    });
    case(given, expect, current, &behavior)
}

/// A rate policy, from its words in `autoscaling/v2`.
pub(crate) fn rate_policy(kind: &str, value: u32, period: &str) -> Value {
    match kind {
        "Pods" => json!({ "replicas": value, "period": period }),
        "Percent" => json!({ "percent": value, "period": period }),
        other => panic!("unknown type of rate policy {other}"),
    }
}

/// The `behavior` that equals none: out to max(factor × current, 4), in without a limit.
pub(crate) fn legacy(factor: u32, current: u32, downscale_stabilization: Duration) -> Value {
    let mut out = vec![rate_policy("Percent", (factor - 1) * 100, NO_PERIOD)];
    if current < LEGACY_MINIMUM {
        out.push(rate_policy("Pods", LEGACY_MINIMUM - current, NO_PERIOD));
    }
    json!({
        "scaleOut": { "stabilization": "0s", "policies": out },
        "scaleIn": { "stabilization": format!("{}s", downscale_stabilization.as_secs()), "policies": [rate_policy("Percent", 100, NO_PERIOD)] },
    })
}

/// Earlier proposals, with their ages.
pub(crate) fn proposals(recommendations: &[Recommendation]) -> Vec<(Duration, u32)> {
    recommendations.iter().map(|r| (Duration::from_secs(r.age_s), r.replicas)).collect()
}

/// A metric that asks for the given count exactly: so many units, one for each replica, no tolerance.
fn case(given: &Given, expect: &Value, current: u32, behavior: &Value) -> Case {
    let events = given.up_events.iter().map(|e| (e.age_s, e.change)).chain(given.down_events.iter().map(|e| (e.age_s, -e.change)));
    Case {
        spec: json!({
            "replicas": { "min": given.min_replicas, "max": given.max_replicas },
            "tolerance": { "out": "0%", "in": "0%" },
            "metrics": [{ "name": "wanted", "track": { "perReplica": 1 } }],
            "behavior": behavior,
        }),
        current,
        status: current,
        instances: Vec::new(),
        samples: vec![Sample { metric: "wanted", instance: String::new(), age: Duration::ZERO, value: Amount::from_units(given.desired_replicas.into()) }],
        seen: None,
        failing: Vec::new(),
        history: Some(History {
            proposals: proposals(&given.recommendations),
            events: events.map(|(age, change)| (Duration::from_secs(age), change)).collect(),
        }),
        expected: Expected {
            desired: expect["replicas"].as_u64().map(|n| u32::try_from(n).unwrap()),
            limited: expect["reason"].as_str().map(str::to_owned),
            ..Expected::default()
        },
    }
}
