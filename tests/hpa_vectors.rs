//! `role: Generic` gives the same count as Kubernetes' `HorizontalPodAutoscaler`, to the replica.
//!
//! Each vector of `tests/vectors` (answers of the compiled code of Kubernetes 1.37.2, see its
//! `README.md`) becomes a policy and signals, runs through the fold that runs live, and the decision is
//! held against the HPA's answer. Where Loadline answers otherwise on purpose, the vector is listed in
//! [`DIFFERENCES`] under the row of `docs/policy.md` that says why; a listed vector that no longer
//! differs fails as well, so that the list cannot outlive its reason.
//!
//! Two kinds ask for what no decision shows, how instances are grouped and which changes are
//! remembered: `src/stages/decide/conformance.rs` reads those, and the limits once more by themselves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "hpa_vectors/beyond.rs"]
mod beyond;
#[path = "hpa_vectors/calculator.rs"]
mod calculator;
#[path = "hpa_vectors/limits.rs"]
mod limits;
#[path = "hpa_vectors/sync.rs"]
mod sync;
#[path = "hpa_vectors/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use world::{Case, Outcome};

const FILES: [&str; 3] =
    [include_str!("vectors/calculator_tables.jsonl"), include_str!("vectors/behavior_tables.jsonl"), include_str!("vectors/sync_tables.jsonl")];

/// All vectors of all files.
const ALL: usize = 241;
/// Those of the two kinds that are read inside the crate.
const INSIDE: usize = 30;

/// Vectors that are answered otherwise on purpose.
struct Difference {
    /// The row of the table of differences in `docs/policy.md`.
    row: &'static str,
    /// What comes instead.
    instead: Instead,
    /// The vectors.
    ids: &'static [&'static str],
}

/// What comes instead of the HPA's answer.
enum Instead {
    /// The policy is refused, with an error at this place: nothing is decided.
    Refused(&'static str),
    /// This count.
    Count(u32),
}

const DIFFERENCES: [Difference; 3] = [
    Difference {
        row: "container metrics",
        instead: Instead::Refused("spec.metrics[0]"),
        ids: &[
            "TestReplicaCalcResourceScale/1/scale-up-container-metric",
            "TestReplicaCalcResourceScale/3/scale-up-hot-cpu-container-scales-less",
            "TestReplicaCalcResourceScale/8/scale-up-failed-pods-ignored-with-missing-container-metric",
            "TestReplicaCalcResourceScale/9/scale-up-container-metrics-with-failed-pods-ignored",
            "TestReplicaCalcResourceScale/11/scale-up-container-metrics-with-pods-being-deleted-ignored",
            "TestReplicaCalcResourceScale/13/scale-down-container-metric",
            "TestReplicaCalcResourceScale/15/scale-down-container-metric-excludes-unready-pods",
            "TestReplicaCalcResourceScale/17/scale-down-container-metric-excludes-unscheduled-pods",
            "TestReplicaCalcResourceScale/19/scale-down-container-metric-ignores-hot-cpu-pods",
            "TestReplicaCalcResourceScale/21/scale-down-container-metric-with-failed-pods-ignored",
            "TestReplicaCalcResourceScale/23/scale-down-still-running-pods-being-deleted-are-ignored",
        ],
    },
    Difference {
        row: "scale to zero",
        instead: Instead::Refused("spec.replicas.min"),
        ids: &[
            "TestScalingWithRules/2/prenormalized-desired-replicas-within-range-when-minreplicas-is-0",
            "TestConvertDesiredReplicasWithRules/2/prenormalized-desired-zeroed-replicas-within-range",
            "TestScaleUpCMObject/1/scale-up-from-zero-with-hpascaletozero-enabled",
            "TestScaleUpCMObject/2/scale-up-from-zero-with-hpascaletozero-disabled",
            "TestScaleUpCMObject/3/scale-up-from-zero-ignores-tolerance-with-hpascaletozero-enabled",
            "TestScaleUpCMObject/4/scale-up-from-zero-ignores-tolerance-with-hpascaletozero-disabled",
            "TestScaleWithOneInvalidMetric/1/from-zero-with-invalid-metric-hpascaletozero-enabled",
            "TestScaleWithOneInvalidMetric/2/from-zero-with-invalid-metric-hpascaletozero-disabled",
            "TestScaleDownCM/2/scale-down-to-zero-object-metric-with-hpascaletozero-enabled",
            "TestScaleDownCM/3/scale-down-to-zero-object-metric-with-hpascaletozero-disabled",
            "TestScaleDownCM/6/scale-down-to-zero-external-metric-with-hpascaletozero-enabled",
            "TestScaleDownCM/7/scale-down-to-zero-external-metric-with-hpascaletozero-disabled",
            "TestScaleToZeroBehavior/0/from-zero-without-condition-hpascaletozero-enabled",
            "TestScaleToZeroBehavior/1/from-zero-without-condition-hpascaletozero-disabled",
            "TestReplicaLimits/1/scale-down-to-zero-when-min-replicas-is-zero",
        ],
    },
    Difference {
        // An HPA knows that the zero was its own; Loadline never sets one, so it is somebody else's.
        row: "scale to zero",
        instead: Instead::Count(0),
        ids: &["TestScaleToZeroBehavior/2/minreplicas-increased-with-scaledtozero-condition-hpascaletozero-enabled"],
    },
];

/// One line of a file.
#[derive(Deserialize)]
struct Vector {
    id: String,
    kind: String,
    given: Value,
    expect: Value,
}

fn vectors() -> Vec<Vector> {
    FILES.iter().flat_map(|file| file.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The vector as a policy and signals; `None` for the kinds that are read inside the crate.
fn case(vector: &Vector) -> Option<Case> {
    let (given, expect) = (&vector.given, &vector.expect);
    Some(match vector.kind.as_str() {
        "resource_utilization" => calculator::utilization(given, expect),
        "resource_average" => calculator::resource_average(given, expect),
        "pods_metric" => calculator::pods_metric(given, expect),
        "object_value" | "external_value" => calculator::value(given, expect),
        "object_average" | "external_average" => calculator::average(given, expect),
        "rate_limit" => limits::rate_limit(given, expect),
        "convert_rules" => limits::convert_rules(given, expect),
        "stabilize_behavior" => limits::stabilize_behavior(given, expect),
        "stabilize_legacy" => limits::stabilize_legacy(given, expect),
        "sync" => sync::sync(given, expect),
        "group_pods" | "store_event" => return None,
        kind => panic!("{}: unknown kind {kind}", vector.id),
    })
}

#[test]
fn every_vector_is_answered_as_the_hpa_does_or_differs_on_purpose() {
    let listed: BTreeMap<&str, &Difference> = DIFFERENCES.iter().flat_map(|d| d.ids.iter().map(move |id| (*id, d))).collect();
    let (mut passed, mut differed, mut inside) = (0, BTreeSet::new(), 0);
    let mut wrong = Vec::new();
    for vector in vectors() {
        let Some(case) = case(&vector) else {
            inside += 1;
            continue;
        };
        let outcome = world::run(&case);
        let agrees = case.expected.agrees_with(&outcome);
        match (listed.get_key_value(vector.id.as_str()), agrees) {
            (None, Ok(())) => passed += 1,
            (None, Err(why)) => wrong.push(format!("{}: {why}", vector.id)),
            (Some(_), Ok(())) => wrong.push(format!("{}: is listed as a difference, but does not differ", vector.id)),
            (Some((id, difference)), Err(_)) => {
                let as_listed = match (&difference.instead, &outcome) {
                    (Instead::Refused(place), Outcome::Refused(errors)) => errors.iter().all(|e| e.starts_with(place)),
                    (Instead::Count(count), Outcome::Decided(decision)) => decision.desired == *count,
                    _ => false,
                };
                if !as_listed {
                    wrong.push(format!("{id}: differs otherwise than listed: {outcome:?}"));
                }
                differed.insert(*id);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {ALL} vectors:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(differed.len(), listed.len(), "a listed difference has no vector");
    assert_eq!(inside, INSIDE);
    assert_eq!(passed + differed.len() + inside, ALL);
}

/// What a container's numbers come to is the HPA's as well, wherever the container is the whole instance.
#[test]
fn a_container_alone_is_counted_as_the_hpa_counts_it() {
    let of_containers: Vec<Vector> = vectors().into_iter().filter(|v| v.given["container"].is_string()).collect();
    assert_eq!(of_containers.len(), 11);
    for vector in of_containers {
        let case = calculator::utilization_of_container_alone(&vector.given, &vector.expect);
        if let Err(why) = case.expected.agrees_with(&world::run(&case)) {
            panic!("{}: {why}", vector.id);
        }
    }
}

/// Differences that only the passing of time shows: the tests of decide have them, and `tests/from_hpa.rs` the last one.
const OVER_TIME: [&str; 3] = ["restart of the controller", "somebody else changed the count", "no `behavior` is written"];

#[test]
fn the_policy_reference_lists_the_differences_that_there_are() {
    let reference = include_str!("../docs/policy.md");
    let table = reference.lines().skip_while(|line| !line.starts_with("| where | the HPA |")).skip(2).take_while(|line| line.starts_with('|'));
    let documented: BTreeSet<&str> = table.filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
    let tested: BTreeSet<&str> = DIFFERENCES.iter().map(|d| d.row).chain(beyond::ROWS).chain(OVER_TIME).collect();
    assert_eq!(documented, tested);
}
