//! Vectors of the replica calculator: what one metric asks for, before stabilization and limits.

use std::collections::BTreeMap;
use std::time::Duration;

use loadline::model::{Amount, Instance, Phase};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::world::{Case, Expected, Sample, ago};

/// The age of times that the tests of Kubernetes leave at zero.
const UNSET_AGE_S: u64 = 1_000_000_000;
/// What stands for it: older than any start-up, younger than `staleAfter`.
const OLD: Duration = Duration::from_secs(1000);
/// The same of a sample whose instance is not listed: it counts only inside the window (60 s).
const NEW: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(crate) struct Tolerance {
    pub(crate) down: f64,
    pub(crate) up: f64,
}

#[derive(Deserialize)]
#[serde(default)]
struct Given {
    current_replicas: u32,
    status_replicas: u32,
    resource: String,
    container: Option<String>,
    target_utilization_percent: i64,
    target_milli: i64,
    value_milli: Option<i64>,
    values_milli: Vec<i64>,
    tolerance: Tolerance,
    cpu_initialization_period_s: u64,
    initial_readiness_delay_s: u64,
    pods: Vec<Pod>,
    samples: Vec<PodSample>,
}

impl Default for Given {
    fn default() -> Self {
        Given {
            current_replicas: 0,
            status_replicas: 0,
            resource: String::new(),
            container: None,
            target_utilization_percent: 0,
            target_milli: 0,
            value_milli: None,
            values_milli: Vec::new(),
            tolerance: Tolerance { down: 0.1, up: 0.1 },
            cpu_initialization_period_s: 300,
            initial_readiness_delay_s: 30,
            pods: Vec::new(),
            samples: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct Pod {
    name: String,
    phase: Phase,
    ready: Option<bool>,
    ready_age_s: Option<u64>,
    start_age_s: Option<u64>,
    deleting: bool,
    containers: Vec<Requested>,
}

#[derive(Deserialize)]
struct Requested {
    name: String,
    request_milli: Option<i64>,
}

#[derive(Deserialize)]
struct PodSample {
    pod: String,
    age_s: u64,
    window_s: u64,
    #[serde(default)]
    containers: Vec<Used>,
    value_milli: Option<i64>,
}

#[derive(Deserialize)]
struct Used {
    name: String,
    usage_milli: Option<i64>,
}

fn read(given: &Value) -> Given {
    serde_json::from_value(given.clone()).unwrap()
}

/// `utilization` of a resource: an instance's containers add up. A container of its own is asked for in
/// the only way that a policy could.
pub(crate) fn utilization(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let mut case = utilization_of(&given, expect, &|_| true);
    if let Some(container) = &given.container {
        case.spec["metrics"][0]["container"] = json!(container);
    }
    case
}

/// A vector of one container, with that container as the whole instance.
pub(crate) fn utilization_of_container_alone(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let container = given.container.clone().unwrap();
    utilization_of(&given, expect, &|name| name == container)
}

fn utilization_of(given: &Given, expect: &Value, counts: &dyn Fn(&str) -> bool) -> Case {
    assert_eq!(given.resource, "cpu");
    let track = json!({ "utilization": format!("{}%", given.target_utilization_percent) });
    let value = |sample: &PodSample| sample.containers.iter().filter(|c| counts(&c.name)).map(|c| c.usage_milli).sum::<Option<i64>>();
    let mut case = case(given, expect, "cpu", &track, value, counts);
    // A percent is a hundredth, so ten thousandths.
    case.expected.value_milli = expect["utilization_percent"].as_i64().map(|percent| percent * 10);
    case
}

/// `perReplica` of a metric that instances send.
pub(crate) fn pods_metric(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let track = json!({ "perReplica": quantity(given.target_milli) });
    case(&given, expect, "qps", &track, |sample| sample.value_milli, &|_| true)
}

/// `perReplica` of a resource: an amount, but with the resource's rules of readiness.
pub(crate) fn resource_average(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let track = json!({ "perReplica": quantity(given.target_milli) });
    let value = |sample: &PodSample| sample.containers.iter().map(|c| c.usage_milli).sum::<Option<i64>>();
    case(&given, expect, "cpu", &track, value, &|_| true)
}

/// `value` of a metric of the target as a whole.
pub(crate) fn value(given: &Value, expect: &Value) -> Case {
    let given = read(given);
    let track = json!({ "value": quantity(given.target_milli) });
    let mut case = case(&given, expect, "qps", &track, |_| None, &|_| true);
    case.samples.push(whole(&given));
    case
}

/// `perReplica` of a metric of the target as a whole.
pub(crate) fn average(given: &Value, expect: &Value) -> Case {
    let mut given = read(given);
    given.current_replicas = given.status_replicas;
    let track = json!({ "perReplica": quantity(given.target_milli) });
    let mut case = case(&given, expect, "qps", &track, |_| None, &|_| true);
    case.samples.push(whole(&given));
    case
}

fn whole(given: &Given) -> Sample {
    let value = given.value_milli.iter().chain(&given.values_milli).map(|v| Amount::from_millis(*v)).sum();
    Sample { metric: "qps", instance: String::new(), age: Duration::ZERO, value }
}

fn case(given: &Given, expect: &Value, metric: &'static str, track: &Value, value: impl Fn(&PodSample) -> Option<i64>, counts: &dyn Fn(&str) -> bool) -> Case {
    let old = |age_s: u64, old: Duration| if age_s == UNSET_AGE_S { old } else { Duration::from_secs(age_s) };
    let sample = |sample: &PodSample| {
        assert_eq!(sample.window_s, 60);
        let listed = given.pods.iter().any(|pod| pod.name == sample.pod);
        let age = old(sample.age_s, if listed { OLD } else { NEW });
        value(sample).map(|milli| Sample { metric, instance: sample.pod.clone(), age, value: Amount::from_millis(milli) })
    };
    let instance = |pod: &Pod| {
        let requested = pod.containers.iter().filter(|c| counts(&c.name)).map(|c| c.request_milli).sum::<Option<i64>>();
        Instance {
            name: pod.name.parse().unwrap(),
            phase: pod.phase,
            ready: pod.ready,
            deleting: pod.deleting,
            started_at: pod.start_age_s.map(|age| ago(old(age, OLD))),
            ready_changed_at: pod.ready_age_s.map(|age| ago(old(age, OLD))),
            requests: requested.map(|milli| (metric.to_owned(), Amount::from_millis(milli))).into_iter().collect::<BTreeMap<_, _>>(),
        }
    };
    Case {
        spec: json!({
            "replicas": { "min": 1, "max": i32::MAX },
            "startup": startup(given.cpu_initialization_period_s, given.initial_readiness_delay_s),
            "tolerance": tolerance(&given.tolerance),
            "metrics": [{ "name": metric, "track": track, "window": "60s", "staleAfter": "1h" }],
        }),
        current: given.current_replicas,
        status: given.current_replicas,
        instances: given.pods.iter().map(instance).collect(),
        samples: given.samples.iter().filter_map(sample).collect(),
        seen: None,
        failing: Vec::new(),
        history: None,
        expected: Expected {
            proposal: expect["replicas"].as_u64().map(|n| u32::try_from(n).unwrap()),
            value_milli: expect["usage_milli"].as_i64(),
            error: expect["error"].is_string(),
            ..Expected::default()
        },
    }
}

/// `startup` of a policy.
pub(crate) fn startup(cpu_initialization_s: u64, readiness_delay_s: u64) -> Value {
    json!({ "cpuInitialization": format!("{cpu_initialization_s}s"), "readinessDelay": format!("{readiness_delay_s}s") })
}

/// `tolerance` of a policy.
pub(crate) fn tolerance(tolerance: &Tolerance) -> Value {
    json!({ "out": percent(tolerance.up), "in": percent(tolerance.down) })
}

fn percent(ratio: f64) -> String {
    let hundredths = Amount::from_nanos(Amount::from_f64(ratio).unwrap().as_nanos() * 100);
    format!("{hundredths}%")
}

/// An amount of thousandths, exactly.
fn quantity(milli: i64) -> Value {
    serde_json::from_str(&Amount::from_millis(milli).to_string()).unwrap()
}
