//! What the vectors do not reach: branches of Kubernetes' code that no row of its tables decides, and the
//! deliberate differences that no row shows.
//!
//! The expectations of the first are worked out from `replica_calculator.go` and `horizontal.go` of
//! Kubernetes 1.37.2; each is one that a change of the branch it names would fail.

use std::time::Duration;

use loadline::model::{MetricStatus, Reason};
use serde_json::{Value, json};

use crate::world::{Case, Outcome, run};
use crate::{Vector, calculator, case, limits};

/// The rows of the table in `docs/policy.md` that are shown here.
pub(crate) const ROWS: [&str; 3] = ["`max` is lowered below the count", "old samples", "replicas not seen"];

/// A running pod of one container that requests a core, ready since long ago.
fn pod(name: &str, ready: bool) -> Value {
    json!({
        "name": name, "phase": "Running", "ready": ready, "ready_age_s": 1_000_000_000, "start_age_s": 1_000_000_000, "deleting": false,
        "containers": [{ "name": "c", "request_milli": 1000 }],
    })
}

fn sample(pod: &str, milli: i64) -> Value {
    json!({
        "pod": pod, "age_s": 1_000_000_000, "window_s": 60, "value_milli": milli,
        "containers": [{ "name": "c", "usage_milli": milli }],
    })
}

fn calculator(pods: &[Value], samples: &[Value], target: &Value) -> Value {
    let mut given = json!({
        "current_replicas": pods.len(), "resource": "cpu", "tolerance": { "down": 0.1, "up": 0.1 }, "pods": pods, "samples": samples,
    });
    given.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
    given
}

fn rules(select: &str, policies: &[(&str, u32, u64)]) -> Value {
    let policies: Vec<Value> = policies.iter().map(|(kind, value, period_s)| json!({ "type": kind, "value": value, "period_s": period_s })).collect();
    json!({ "select": select, "policies": policies })
}

fn scale(current: u32, desired: u32, up: &Value, down: &Value) -> Value {
    json!({
        "current_replicas": current, "desired_replicas": desired, "min_replicas": 1, "max_replicas": 1000, "scale_up": up, "scale_down": down,
    })
}

#[test]
fn branches_that_no_vector_decides_are_the_hpas_as_well() {
    let v2_up = rules("Max", &[("Pods", 4, 15), ("Percent", 100, 15)]);
    let v2_down = rules("Max", &[("Percent", 100, 15)]);
    let up = |current, desired, up: &Value| scale(current, desired, up, &v2_down);
    let down = |current, desired, down: &Value| scale(current, desired, &v2_up, down);
    let mut on_the_edge = up(10, 50, &rules("Max", &[("Pods", 5, 60), ("Percent", 1, 120)]));
    on_the_edge["up_events"] = json!([{ "change": 3, "age_s": 60 }]);
    let (both, one_unready) = ([pod("a", true), pod("b", true)], [pod("a", false), pod("b", true), pod("c", true)]);

    for (id, kind, given, expect) in [
        // 40 % of 50 % is too much; with the other as fully used, 70 % would be too little.
        (
            "what is missing would turn the direction",
            "resource_utilization",
            calculator(&both, &[sample("a", 400)], &json!({ "target_utilization_percent": 50 })),
            json!({ "replicas": 2, "utilization_percent": 40 }),
        ),
        (
            "a sample of an instance that is not listed counts in a mean",
            "pods_metric",
            calculator(&both, &[sample("a", 10), sample("b", 10), sample("stranger", 40)], &json!({ "target_milli": 10 })),
            json!({ "replicas": 4, "usage_milli": 20 }),
        ),
        (
            "an amount of CPU has CPU's rules of readiness",
            "resource_average",
            calculator(&one_unready, &[sample("a", 300), sample("b", 500), sample("c", 700)], &json!({ "target_milli": 400 })),
            json!({ "replicas": 3, "usage_milli": 600 }),
        ),
        ("a change as old as its period does not count", "rate_limit", on_the_edge, json!({ "replicas": 15, "reason": "ScaleUpLimit" })),
        ("growth by v2's defaults", "rate_limit", up(10, 500, &v2_up), json!({ "replicas": 20, "reason": "ScaleUpLimit" })),
        // 100 x 1.1 is a little more than 110 in doubles, and 20 x (1 - 0.8) a little less than 4.
        ("10 % out in doubles", "rate_limit", up(100, 500, &rules("Max", &[("Percent", 10, 60)])), json!({ "replicas": 111, "reason": "ScaleUpLimit" })),
        ("80 % in in doubles", "rate_limit", down(20, 1, &rules("Max", &[("Percent", 80, 60)])), json!({ "replicas": 3, "reason": "ScaleDownLimit" })),
        (
            "the least of two growths",
            "rate_limit",
            up(10, 500, &rules("Min", &[("Pods", 4, 60), ("Percent", 100, 60)])),
            json!({ "replicas": 14, "reason": "ScaleUpLimit" }),
        ),
        (
            "the least of two shrinkings",
            "rate_limit",
            down(100, 2, &rules("Min", &[("Pods", 20, 60), ("Percent", 1, 60)])),
            json!({ "replicas": 99, "reason": "ScaleDownLimit" }),
        ),
        ("no growth", "rate_limit", up(10, 500, &rules("Disabled", &[("Pods", 4, 60)])), json!({ "replicas": 10, "reason": "ScaleUpLimit" })),
        ("no shrinking", "rate_limit", down(10, 2, &rules("Disabled", &[("Pods", 4, 60)])), json!({ "replicas": 10, "reason": "ScaleDownLimit" })),
    ] {
        let case = case(&Vector { id: id.to_owned(), kind: kind.to_owned(), given, expect }).unwrap();
        if let Err(why) = case.expected.agrees_with(&run(&case)) {
            panic!("{id}: {why}");
        }
    }
}

/// The count, the reasons of the steps, and the status of the first metric.
fn decided(case: &Case) -> (u32, Vec<Reason>, MetricStatus) {
    match run(case) {
        Outcome::Decided(decision) => (decision.desired, decision.steps.iter().map(|s| s.reason).collect(), decision.metrics[0].status),
        Outcome::Refused(errors) => panic!("refused: {errors:?}"),
    }
}

/// Four instances at a fifth of their target: an HPA goes to 1.
fn nearly_unused() -> Case {
    let pods = ["a", "b", "c", "d"].map(|name| pod(name, true));
    let samples = ["a", "b", "c", "d"].map(|name| sample(name, 100));
    let given = calculator(&pods, &samples, &json!({ "target_utilization_percent": 50 }));
    let mut case = calculator::utilization(&given, &json!({}));
    case.spec["behavior"] = json!({ "scaleIn": { "stabilization": "0s" } });
    case
}

#[test]
fn a_lowered_max_is_reached_by_the_scale_in_rates() {
    let given = scale(20, 20, &rules("Max", &[("Pods", 4, 15)]), &rules("Max", &[("Percent", 10, 60)]));
    let mut case = limits::rate_limit(&given, &json!({}));
    case.spec["replicas"]["max"] = json!(10);
    let (count, reasons, _) = decided(&case);
    assert_eq!((count, reasons), (18, vec![Reason::AboveMaxPaced, Reason::ScaleInRate]));
}

#[test]
fn old_samples_let_nothing_shrink() {
    let mut case = nearly_unused();
    assert_eq!(decided(&case).0, 1);
    case.spec["metrics"][0]["staleAfter"] = json!("120s");
    let (count, _, status) = decided(&case);
    assert_eq!((count, status), (4, MetricStatus::Stale));
}

#[test]
fn a_target_without_instances_stands_as_the_hpas_error_leaves_it() {
    let mut case = nearly_unused();
    case.instances.clear();
    case.samples.clear();
    assert_eq!(decided(&case), (4, vec![Reason::HoldWhileBlind], MetricStatus::NoData));
}

#[test]
fn replicas_that_nobody_sees_do_not_shrink() {
    let mut case = nearly_unused();
    case.seen = Some(Duration::from_secs(179));
    assert_eq!(decided(&case).0, 1);
    case.seen = Some(Duration::from_secs(180));
    assert_eq!(decided(&case), (4, vec![Reason::FleetUnseen], MetricStatus::Ok));
}
