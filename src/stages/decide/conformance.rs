//! The parts of decide against the conformance vectors of Kubernetes (`tests/vectors`), where no decision
//! shows what is asked: how instances are grouped, and which changes are remembered. Stabilization and
//! the rate policies are held against them once more by themselves, as `min: 0` has no policy yet.
//! `tests/hpa_vectors.rs` has the whole fold.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::memory::{Memory, ScaleEvent};
use super::propose::track::{Standing, standing};
use super::rate_limit::rate_limit;
use super::stabilize::{Proposals, stabilize};
use crate::model::policy::{RatePolicy, ScalingRules, Select, StepSize};
use crate::model::{Instance, Phase, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A period that no change outlasts: an HPA without `behavior` counts none.
const NO_PERIOD: Duration = Duration::from_millis(1);

#[derive(Deserialize)]
struct Vector<T> {
    id: String,
    given: T,
    expect: Value,
}

/// The vectors of one kind.
fn vectors<T: for<'de> Deserialize<'de>>(kind: &str) -> Vec<Vector<T>> {
    let files = [include_str!("../../../tests/vectors/calculator_tables.jsonl"), include_str!("../../../tests/vectors/behavior_tables.jsonl")];
    let lines = files.into_iter().flat_map(str::lines).map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).map(|line| serde_json::from_value(line).unwrap()).collect()
}

fn ago(age_s: u64) -> Timestamp {
    NOW - Duration::from_secs(age_s)
}

#[derive(Deserialize)]
struct Selected {
    resource: String,
    cpu_initialization_period_s: u64,
    initial_readiness_delay_s: u64,
    #[serde(default)]
    pods: Vec<Pod>,
    #[serde(default)]
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
    phase: Phase,
    ready: Option<bool>,
    ready_age_s: Option<u64>,
    start_age_s: Option<u64>,
    deleting: bool,
}

#[derive(Deserialize)]
struct Sample {
    pod: String,
    age_s: u64,
    window_s: u64,
}

#[test]
fn instances_are_grouped_as_pods_are() {
    let vectors = vectors::<Selected>("group_pods");
    assert_eq!(vectors.len(), 14);
    for Vector { id, given, expect } in vectors {
        let (mut ready, mut unready, mut missing, mut ignored) = (0, Vec::new(), Vec::new(), Vec::new());
        for pod in &given.pods {
            let instance = Instance {
                name: pod.name.parse().unwrap(),
                phase: pod.phase,
                ready: pod.ready,
                deleting: pod.deleting,
                started_at: pod.start_age_s.map(ago),
                ready_changed_at: pod.ready_age_s.map(ago),
                ..Instance::default()
            };
            let sample = given.samples.iter().find(|s| s.pod == pod.name);
            let standing = standing(
                &instance,
                sample.map(|s| ago(s.age_s)),
                &given.resource.parse().unwrap(),
                Duration::from_secs(sample.map_or(0, |s| s.window_s)),
                Duration::from_secs(given.cpu_initialization_period_s),
                Duration::from_secs(given.initial_readiness_delay_s),
                NOW,
            );
            match standing {
                Standing::Ready => ready += 1,
                Standing::Unready => unready.push(pod.name.as_str()),
                Standing::Missing => missing.push(pod.name.as_str()),
                Standing::Ignored => ignored.push(pod.name.as_str()),
            }
        }
        let names = |field: &str| expect[field].as_array().map(|names| names.iter().filter_map(Value::as_str).collect::<Vec<_>>()).unwrap_or_default();
        assert_eq!(expect["ready_pods"], ready, "{id}");
        assert_eq!((unready, missing, ignored), (names("unready_pods"), names("missing_pods"), names("ignored_pods")), "{id}");
    }
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    current_replicas: u32,
    #[serde(default)]
    desired_replicas: u32,
    #[serde(default)]
    min_replicas: u32,
    #[serde(default)]
    max_replicas: u32,
    #[serde(default)]
    new_replicas: u32,
    scale_up: Option<Rules>,
    scale_down: Option<Rules>,
    #[serde(default)]
    up_events: Vec<Event>,
    #[serde(default)]
    down_events: Vec<Event>,
    #[serde(default)]
    recommendations: Vec<Recommendation>,
    #[serde(default)]
    up_window_s: u64,
    #[serde(default)]
    down_window_s: u64,
    #[serde(default)]
    downscale_stabilization_s: u64,
    #[serde(default)]
    scale_up_limit_factor: u32,
}

#[derive(Deserialize)]
struct Rules {
    select: String,
    policies: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    r#type: String,
    value: u32,
    period_s: u64,
}

#[derive(Deserialize)]
struct Event {
    change: i64,
    age_s: u64,
}

#[derive(Deserialize)]
struct Recommendation {
    replicas: u32,
    age_s: u64,
}

impl Counts {
    /// Earlier changes, growth above zero.
    fn events(&self) -> Vec<ScaleEvent> {
        let down = self.down_events.iter().map(|e| ScaleEvent { at: ago(e.age_s), change: -e.change });
        self.up_events.iter().map(|e| ScaleEvent { at: ago(e.age_s), change: e.change }).chain(down).collect()
    }

    /// Earlier proposals, in their order.
    fn proposals(&self) -> Proposals {
        let mut history: Vec<&Recommendation> = self.recommendations.iter().collect();
        history.sort_by_key(|r| std::cmp::Reverse(r.age_s));
        let mut proposals = Proposals::default();
        for earlier in history {
            proposals.enter(ago(earlier.age_s), earlier.replicas);
        }
        proposals
    }
}

fn rules(select: &str, policies: Vec<RatePolicy>) -> ScalingRules {
    let select = match select {
        "Max" => Select::Max,
        "Min" => Select::Min,
        "Disabled" => Select::Disabled,
        other => panic!("unknown select {other}"),
    };
    ScalingRules { stabilization: Duration::ZERO, cooldown: Duration::ZERO, select, policies }
}

impl Rules {
    fn policies(&self) -> Vec<RatePolicy> {
        let amount = |rule: &Rule| if rule.r#type == "Pods" { StepSize::Replicas(rule.value) } else { StepSize::Percent(rule.value) };
        self.policies.iter().map(|rule| RatePolicy { amount: amount(rule), period: Duration::from_secs(rule.period_s) }).collect()
    }
}

fn limited(given: &Counts, out: &ScalingRules, r#in: &ScalingRules) -> u32 {
    let limited = rate_limit(given.current_replicas, given.desired_replicas, &given.events(), out, r#in, NOW);
    limited.map_or(given.desired_replicas, |l| l.after).clamp(given.min_replicas, given.max_replicas)
}

#[test]
fn rate_policies_limit_as_the_hpa_does() {
    let vectors = vectors::<Counts>("rate_limit");
    assert_eq!(vectors.len(), 40);
    for Vector { id, given, expect } in vectors {
        let of = |written: Option<&Rules>| written.map(|r| rules(&r.select, r.policies())).unwrap();
        let got = limited(&given, &of(given.scale_up.as_ref()), &of(given.scale_down.as_ref()));
        assert_eq!(expect["replicas"], got, "{id}");
    }
}

#[test]
fn without_behavior_growth_is_limited_to_a_multiple_of_the_count() {
    let vectors = vectors::<Counts>("convert_rules");
    assert_eq!(vectors.len(), 5);
    for Vector { id, given, expect } in vectors {
        let policy = |amount| RatePolicy { amount, period: NO_PERIOD };
        let to_four = StepSize::Replicas(4_u32.saturating_sub(given.current_replicas));
        let out = rules("Max", vec![policy(StepSize::Percent((given.scale_up_limit_factor - 1) * 100)), policy(to_four)]);
        let got = limited(&given, &out, &rules("Max", vec![policy(StepSize::Percent(100))]));
        assert_eq!(expect["replicas"], got, "{id}");
    }
}

#[test]
fn proposals_are_stabilized_as_the_hpa_does() {
    let both = vectors::<Counts>("stabilize_behavior");
    let in_alone = vectors::<Counts>("stabilize_legacy");
    assert_eq!((both.len(), in_alone.len()), (11, 5));
    for Vector { id, given, expect } in both.into_iter().chain(in_alone) {
        // Without `behavior` a count has only to be large enough not to bound anything itself.
        let current = if given.current_replicas == 0 { 100 } else { given.current_replicas };
        let (out, r#in) = (Duration::from_secs(given.up_window_s), Duration::from_secs(given.down_window_s + given.downscale_stabilization_s));
        let got = stabilize(current, given.desired_replicas, &given.proposals(), out, r#in, NOW);
        assert_eq!(expect["replicas"], got.map_or(given.desired_replicas, |s| s.after), "{id}");
    }
}

/// What is remembered beyond its period is nobody's business: it is the changes that count which are equal.
#[test]
fn the_changes_that_count_are_those_that_count_for_the_hpa() {
    let vectors = vectors::<Counts>("store_event");
    assert_eq!(vectors.len(), 16);
    for Vector { id, given, expect } in vectors {
        let periods = given.scale_up.iter().chain(&given.scale_down).flat_map(Rules::policies).map(|p| p.period);
        let since = NOW - periods.max().unwrap_or_default();
        let mut memory = Memory { events: given.events(), ..Memory::default() };
        memory.changed(NOW, given.current_replicas, given.new_replicas);
        let mut got: Vec<i64> = memory.events.iter().filter(|e| e.at > since).map(|e| e.change.abs()).collect();
        // The vectors say which changes are stored, in reused slots; each has a size of its own, which tells its age.
        let age = |change: i64| given.up_events.iter().chain(&given.down_events).find(|e| e.change == change).map_or(0, |e| e.age_s);
        let stored = expect["stored_up_events"].as_array().or(expect["stored_down_events"].as_array());
        let stored = stored.into_iter().flatten().filter_map(Value::as_i64);
        let mut counting: Vec<i64> = stored.filter(|change| ago(age(*change)) > since).collect();
        got.sort_unstable();
        counting.sort_unstable();
        assert_eq!(got, counting, "{id}");
    }
}
