//! Vectors of the whole controller: one sync of an `autoscaling/v2` object.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::model::{Amount, Instance, Phase};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::calculator::{self, Tolerance};
use crate::limits::{self, Recommendation};
use crate::world::{Case, Expected, History, Sample, ago};

/// What stands for a time before all others: older than any start-up.
const OLDEST: Duration = Duration::from_secs(1000);
/// A metric that the HPA cannot read.
const UNREADABLE: &str = "unreadable";

#[derive(Deserialize)]
struct Config {
    hpa: Hpa,
    cpu_initialization_period_s: u64,
    initial_readiness_delay_s: u64,
    cpu_window_s: u64,
    downscale_stabilization_s: u64,
    scale_up_limit_factor: u32,
    tolerance: f64,
    recommendations: Option<Vec<Recommendation>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hpa {
    min_replicas: u32,
    max_replicas: u32,
    metrics: Vec<Value>,
    behavior: Option<Behavior>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Behavior {
    scale_up: Rules,
    scale_down: Rules,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rules {
    stabilization_window_seconds: Option<u64>,
    select_policy: Option<String>,
    policies: Vec<Policy>,
    tolerance: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    r#type: String,
    value: u32,
    period_seconds: u64,
}

#[derive(Deserialize)]
struct State {
    /// Seconds since `config.start`: all of a vector happens then, and all vectors have 0.
    t: u64,
    replicas: u32,
    status_replicas: u32,
    #[serde(default)]
    pods: Option<Vec<Pod>>,
    #[serde(default)]
    external: BTreeMap<String, Vec<f64>>,
    #[serde(default)]
    object: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
    phase: Phase,
    ready: Option<bool>,
    /// Seconds since `config.start`, none above 0 (and some are written `-0`).
    ready_changed_at: Option<f64>,
    started_at: Option<f64>,
    #[serde(default)]
    deleting: bool,
    cpu_milli: Option<i64>,
    cpu_request_milli: Option<i64>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
}

/// One sync.
pub(crate) fn sync(given: &Value, expect: &Value) -> Case {
    let config: Config = serde_json::from_value(given["config"].clone()).unwrap();
    let state: State = serde_json::from_value(given["state"].clone()).unwrap();
    assert_eq!(state.t, 0);
    let pods = state.pods.as_deref().unwrap_or_default();
    let mut case = Case {
        spec: json!({
            "replicas": { "min": config.hpa.min_replicas, "max": config.hpa.max_replicas },
            "startup": calculator::startup(config.cpu_initialization_period_s, config.initial_readiness_delay_s),
            "tolerance": calculator::tolerance(&tolerance(&config)),
            "behavior": behavior(&config, state.replicas),
            "metrics": [],
        }),
        current: state.replicas,
        status: state.status_replicas,
        instances: pods.iter().map(instance).collect(),
        samples: Vec::new(),
        seen: None,
        failing: Vec::new(),
        history: config.recommendations.as_ref().map(|r| History { proposals: limits::proposals(r), events: Vec::new() }),
        expected: expected(expect),
    };
    for metric in &config.hpa.metrics {
        let (name, track, samples) = tracked(metric, &state, pods);
        if track.is_null() {
            case.failing.push(name);
        }
        let track = if track.is_null() { json!({ "value": 1 }) } else { track };
        let metric = json!({ "name": name, "track": track, "window": format!("{}s", config.cpu_window_s) });
        case.spec["metrics"].as_array_mut().unwrap().push(metric);
        case.samples.extend(samples);
    }
    case
}

/// A metric's name, its target (null: the HPA cannot read it) and its samples.
fn tracked(metric: &Value, state: &State, pods: &[Pod]) -> (&'static str, Value, Vec<Sample>) {
    let whole = |value: Amount| vec![Sample { metric: "qps", instance: String::new(), age: Duration::ZERO, value }];
    let units = |value: f64| Amount::from_f64(value).unwrap();
    let sample = |metric, pod: &Pod, value| Sample { metric, instance: pod.name.clone(), age: Duration::ZERO, value };
    let kind = metric["type"].as_str().unwrap();
    let body = &metric[kind.to_lowercase()];
    let (name, samples) = match kind {
        "Resource" => {
            assert_eq!(body["name"], "cpu");
            ("cpu", pods.iter().filter_map(|pod| pod.cpu_milli.map(|milli| sample("cpu", pod, Amount::from_millis(milli)))).collect())
        }
        "Pods" => ("qps", pods.iter().filter_map(|pod| pod.metrics.get("qps").map(|value| sample("qps", pod, units(*value)))).collect()),
        "Object" => ("qps", whole(units(state.object["qps"]))),
        "External" => ("qps", whole(state.external["qps"].iter().map(|value| units(*value)).sum())),
        _ => return (UNREADABLE, Value::Null, Vec::new()),
    };
    let target = &body["target"];
    match target["type"].as_str().unwrap() {
        "Utilization" => (name, json!({ "utilization": format!("{}%", target["averageUtilization"]) }), samples),
        "AverageValue" => (name, json!({ "perReplica": quantity(&target["averageValue"]) }), samples),
        "Value" => (name, json!({ "value": quantity(&target["value"]) }), samples),
        _ => (UNREADABLE, Value::Null, Vec::new()),
    }
}

/// A quantity as a plain number: `2222m` could be minutes to a policy.
fn quantity(text: &Value) -> Value {
    serde_json::from_str(&milli(text.as_str().unwrap()).to_string()).unwrap()
}

fn milli(text: &str) -> Amount {
    text.strip_suffix('m').map_or_else(|| text.parse().unwrap(), |milli| Amount::from_millis(milli.parse().unwrap()))
}

fn tolerance(config: &Config) -> Tolerance {
    let own = |rules: &Rules| rules.tolerance.as_deref().map(|text| milli(text).as_f64());
    let behavior = config.hpa.behavior.as_ref();
    let of = |rules: Option<&Rules>| rules.and_then(own).unwrap_or(config.tolerance);
    Tolerance { up: of(behavior.map(|b| &b.scale_up)), down: of(behavior.map(|b| &b.scale_down)) }
}

fn behavior(config: &Config, current: u32) -> Value {
    let Some(behavior) = &config.hpa.behavior else {
        return limits::legacy(config.scale_up_limit_factor, current, Duration::from_secs(config.downscale_stabilization_s));
    };
    // What is not written has the same default in both.
    let rules = |rules: &Rules, stabilization_s: u64| {
        let mut written = json!({ "stabilization": format!("{}s", rules.stabilization_window_seconds.unwrap_or(stabilization_s)) });
        if let Some(select) = &rules.select_policy {
            written["select"] = json!(select);
        }
        if !rules.policies.is_empty() {
            let policies = rules.policies.iter().map(|p| limits::rate_policy(&p.r#type, p.value, &format!("{}s", p.period_seconds)));
            written["policies"] = policies.collect();
        }
        written
    };
    json!({ "scaleOut": rules(&behavior.scale_up, 0), "scaleIn": rules(&behavior.scale_down, config.downscale_stabilization_s) })
}

fn instance(pod: &Pod) -> Instance {
    let at = |relative: f64| ago(Duration::from_secs_f64(relative.abs()).min(OLDEST));
    Instance {
        name: pod.name.parse().unwrap(),
        phase: pod.phase,
        ready: pod.ready,
        deleting: pod.deleting,
        started_at: pod.started_at.map(at),
        ready_changed_at: pod.ready_changed_at.map(at),
        requests: pod.cpu_request_milli.map(|milli| ("cpu".to_owned(), Amount::from_millis(milli))).into_iter().collect(),
    }
}

fn expected(expect: &Value) -> Expected {
    let condition = |kind: &str| expect["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind);
    let reason = |kind: &str| condition(kind).map(|c| c["reason"].as_str().unwrap().to_owned());
    Expected {
        desired: expect["replicas"].as_u64().map(|n| u32::try_from(n).unwrap()),
        limited: reason("ScalingLimited"),
        active: condition("ScalingActive").map(|c| c["status"] == "True"),
        stabilized: reason("AbleToScale").map(|reason| reason.ends_with("Stabilized")),
        ..Expected::default()
    }
}
