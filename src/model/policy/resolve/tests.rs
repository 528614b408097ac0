use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::policy::{Across, FallbackBehavior, Measure, MetricRule, Over, RatePolicy, Select, StepSize, Unit, WhenBlind};
use crate::model::{Amount, Kind};

const MINIMAL: &str = r#"{
  "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
  "replicas": {"max": 60},
  "metrics": [{"name": "cpu", "track": {"utilization": "70%"}}]
}"#;

const FULL: &str = r#"{
  "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
  "actuator": "Scale", "role": "ApiServer", "mode": "OutOnly", "fleet": "shop", "priority": 7,
  "replicas": {"min": 3, "max": 60},
  "startup": {"cpuInitialization": "4m", "readinessDelay": "20s"},
  "metrics": [
    {"name": "cpu", "track": {"utilization": "70%"}},
    {"name": "rps", "kind": "Counter"},
    {"name": "response_time", "measure": {"quantile": "95%"}, "window": "60s",
     "threshold": {"scaleOutAbove": "300ms", "scaleInBelow": "120ms", "for": "40s", "step": {"out": "20%", "in": 2}}},
    {"name": "queue_depth", "track": {"perReplica": "1k"}, "staleAfter": "60s", "whenBlind": "Ignore"},
    {"name": "memory", "measure": {"over": "Max", "across": "Max"}, "track": {"value": "2Gi"}}
  ],
  "evaluateEvery": "15s",
  "behavior": {
    "scaleOut": {"stabilization": "5s", "cooldown": "6s", "select": "Min", "policies": [{"percent": 50, "period": "30s"}, {"replicas": 2, "period": "60s"}]},
    "scaleIn": {"select": "Disabled"}
  },
  "tolerance": {"out": "5%", "in": 0.2},
  "fallback": {"after": "4m", "replicas": 10, "behavior": "IfHigher"}
}"#;

fn of(json: &str) -> Resolution {
    resolve(&Node::from_json(json).unwrap(), "prod")
}

fn codes(json: &str, severity: Severity) -> Vec<&'static str> {
    of(json).problems.iter().filter(|p| p.severity == severity).map(|p| p.code).collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn generic_is_autoscaling_v2() {
    let policy = of(MINIMAL).policy.unwrap();
    let rate = |amount, period| RatePolicy { amount, period: seconds(period) };
    assert_eq!(policy.target.as_str(), "prod/Deployment/api");
    assert_eq!((policy.role, policy.mode, policy.fleet.as_str(), policy.min, policy.max), (Role::Generic, Mode::Active, "default", 1, 60));
    assert_eq!((policy.cpu_initialization, policy.readiness_delay), (seconds(300), seconds(30)));
    let out = &policy.scale_out;
    assert_eq!((out.stabilization, out.cooldown, out.select), (seconds(0), seconds(0), Select::Max));
    assert_eq!(out.policies, [rate(StepSize::Percent(100), 15), rate(StepSize::Replicas(4), 15)]);
    let inwards = &policy.scale_in;
    assert_eq!((inwards.stabilization, inwards.cooldown, inwards.select), (seconds(300), seconds(0), Select::Max));
    assert_eq!(inwards.policies, [rate(StepSize::Percent(100), 15)]);
    assert_eq!(policy.tolerance, Tolerance { out: 0.1, r#in: 0.1 });
    assert_eq!((policy.fallback.behavior, policy.fallback.after), (FallbackBehavior::Hold, seconds(180)));
    let [cpu] = &policy.metrics[..] else { panic!("one metric") };
    assert_eq!((cpu.unit, cpu.window, cpu.stale_after, cpu.when_blind), (Unit::Cores, seconds(30), seconds(120), WhenBlind::HoldIn));
    assert_eq!(cpu.measure, Measure::Reduce { over: Over::Mean, across: None });
    assert_eq!(cpu.rule, MetricRule::Utilization { percent: 70 });
    assert_eq!(policy.evaluate_every, None);
}

#[test]
fn every_field_arrives_where_it_belongs() {
    let policy = of(FULL).policy.unwrap();
    assert_eq!((policy.role, policy.mode, policy.fleet.as_str(), policy.priority), (Role::ApiServer, Mode::OutOnly, "shop", 7));
    assert_eq!((policy.min, policy.max, policy.cpu_initialization, policy.readiness_delay), (3, 60, seconds(240), seconds(20)));
    let [cpu, rps, latency, queue, memory] = &policy.metrics[..] else { panic!("five metrics") };
    assert_eq!(cpu.rule, MetricRule::Utilization { percent: 70 });
    assert_eq!((rps.kind, &rps.rule), (Some(Kind::Counter), &MetricRule::Observe));
    assert_eq!((&latency.measure, latency.window, latency.unit), (&Measure::Quantile(0.95), seconds(60), Unit::Seconds));
    let MetricRule::Threshold(threshold) = &latency.rule else { panic!("a threshold") };
    assert_eq!((threshold.scale_out_above, threshold.scale_in_below), (Some(Amount::from_millis(300)), Some(Amount::from_millis(120))));
    assert_eq!((threshold.hold, threshold.step_out, threshold.step_in), (seconds(40), StepSize::Percent(20), StepSize::Replicas(2)));
    assert_eq!(queue.rule, MetricRule::PerReplica { amount: Amount::from_units(1000) });
    assert_eq!((queue.stale_after, queue.when_blind), (seconds(60), WhenBlind::Ignore));
    assert_eq!(memory.measure, Measure::Reduce { over: Over::Max, across: Some(Across::Max) });
    assert_eq!(memory.rule, MetricRule::Value { amount: Amount::from_units(2 << 30) });
    assert_eq!(policy.evaluate_every, Some(seconds(15)));
    assert_eq!((policy.scale_out.stabilization, policy.scale_out.cooldown, policy.scale_out.select), (seconds(5), seconds(6), Select::Min));
    assert_eq!(policy.scale_out.policies.len(), 2);
    assert_eq!(policy.scale_in.select, Select::Disabled);
    assert_eq!(policy.tolerance, Tolerance { out: 0.05, r#in: 0.2 });
    assert_eq!((policy.fallback.after, policy.fallback.replicas, policy.fallback.behavior), (seconds(240), 10, FallbackBehavior::IfHigher));
}

#[test]
fn the_defaults_of_every_role_are_wise() {
    for role in Role::WORDS {
        for max in [1, 2, 60] {
            let json = MINIMAL.replace("\"replicas\": {\"max\": 60}", &format!("\"role\": \"{}\", \"replicas\": {{\"max\": {max}}}", role.0));
            let resolution = of(&json);
            let policy = resolution.policy.unwrap();
            assert_eq!(policy.role, role.1);
            let codes: Vec<_> = resolution.problems.iter().map(|p| p.code).collect();
            assert!(codes.is_empty() || (codes == ["fixed-count"] && policy.min == max), "{role:?} {max}: {codes:?}");
        }
    }
}

#[test]
fn where_each_value_comes_from_is_told() {
    let resolution = of(FULL);
    let find = |path: &str| resolution.settings.iter().find(|s| s.path == path).map(|s| (s.value.as_str(), s.origin));
    assert_eq!(find("spec.replicas.min"), Some(("3", Origin::Written)));
    assert_eq!(find("spec.metrics[0].window"), Some(("30s", Origin::Role)));
    assert_eq!(find("spec.metrics[0].measure.over"), Some(("Mean", Origin::Default)));
    assert_eq!(find("spec.metrics[2].threshold.scaleOutAbove"), Some(("300ms", Origin::Written)));
    assert_eq!(find("spec.behavior.scaleIn.cooldown"), Some(("1m", Origin::Role)));
    assert_eq!(find("spec.behavior.scaleIn.policies"), Some(("[{ percent: 10, period: 1m }]", Origin::Role)));
    assert_eq!(of(MINIMAL).settings.iter().filter(|s| s.origin == Origin::Role).count(), 0);
}

/// Each mistake, put into the full policy, and the kinds of errors that it must give: these and no others.
#[test]
fn mistakes_are_errors() {
    let target: TargetId = "prod/Deployment/api".parse().unwrap();
    for (from, to, expected) in [
        // Names.
        ("\"mode\": \"OutOnly\"", "\"mod\": \"OutOnly\"", "unknown-field"),
        ("\"OutOnly\"", "\"Outonly\"", "unknown-value"),
        ("\"OutOnly\"", "true", "type"),
        ("\"Counter\"", "\"Count\"", "unknown-value"),
        ("\"scaleIn\":", "\"scaleDown\":", "unknown-field"),
        ("\"shop\"", "\"sh op\"", "name"),
        ("\"actuator\": \"Scale\"", "\"actuator\": \"HorizontalPodAutoscaler\"", "not-available"),
        ("\"actuator\": \"Scale\"", "\"burst\": {\"window\": \"10s\"}", "not-available"),
        ("\"actuator\": \"Scale\"", "\"schedules\": []", "not-available"),
        ("\"kind\": \"Counter\"", "\"ratio\": {\"of\": \"a\", \"to\": \"b\"}", "not-available"),
        ("\"kind\": \"Counter\"", "\"formula\": \"a / b\"", "not-available"),
        // The target.
        ("\"name\": \"api\"", "\"name\": 5", "name"),
        ("\"name\": \"api\"", "\"name\": \"a/b\"", "name"),
        ("\"name\": \"api\"}", "\"nam\": \"api\"}", "missing-field unknown-field"),
        ("\"apiVersion\": \"apps/v1\", ", "", "missing-field"),
        ("\"kind\": \"Deployment\"", "\"kind\": \"ProcessFleet\"", "api-version"),
        // The count.
        ("\"min\": 3", "\"min\": 0", "not-available"),
        ("\"min\": 3", "\"min\": 61", "contradiction"),
        ("\"min\": 3", "\"min\": 2.5", "type"),
        ("\"min\": 3", "\"min\": -1", "range"),
        ("\"max\": 60", "\"max\": 2147483648", "range"),
        (", \"max\": 60", "", "missing-field"),
        ("\"priority\": 7", "\"priority\": 3000000000", "range"),
        // Times.
        ("\"4m\"", "240", "duration"),
        ("\"4m\", \"rep", "\"4 minutes\", \"rep", "duration"),
        ("\"period\": \"30s\"", "\"period\": \"31m\"", "limit"),
        ("\"period\": \"30s\"", "\"period\": \"0s\"", "range"),
        (", \"period\": \"30s\"", "", "missing-field"),
        ("\"stabilization\": \"5s\"", "\"stabilization\": \"3601s\"", "limit"),
        ("\"window\": \"60s\"", "\"window\": \"0s\"", "range"),
        ("\"staleAfter\": \"60s\"", "\"staleAfter\": \"29s\"", "contradiction"),
        ("\"evaluateEvery\": \"15s\"", "\"evaluateEvery\": 0", "range"),
        // Metrics.
        ("\"name\": \"rps\"", "\"name\": \"cpu\"", "duplicate-metric"),
        ("\"name\": \"rps\", ", "", "missing-field"),
        ("{\"utilization\": \"70%\"}", "\"70%\"", "type"),
        ("{\"utilization\": \"70%\"}", "{}", "contradiction"),
        ("\"utilization\": \"70%\"", "\"utilization\": 70", "ambiguous-unit"),
        ("\"utilization\": \"70%\"", "\"utilization\": \"70%\", \"value\": 5", "contradiction"),
        ("\"perReplica\": \"1k\"", "\"utilisation\": \"70%\"", "unknown-field"),
        ("\"perReplica\": \"1k\"", "\"perReplica\": 0", "range"),
        ("\"perReplica\": \"1k\"", "\"perReplica\": \"5s\"", "unit"),
        ("\"kind\": \"Counter\"", "\"unit\": \"seconds\", \"track\": {\"utilization\": \"5%\"}", "unit"),
        ("\"kind\": \"Counter\"", "\"track\": {\"perReplica\": 5}, \"threshold\": {\"scaleOutAbove\": 5}", "contradiction"),
        ("\"kind\": \"Counter\"", "\"track\": {\"perReplica\": 5}, \"measure\": {\"across\": \"Sum\"}", "contradiction"),
        ("\"kind\": \"Counter\"", "\"track\": {\"perReplica\": 5}, \"measure\": {\"quantile\": \"50%\"}", "contradiction"),
        ("\"measure\": {\"quantile\": \"95%\"}", "\"measure\": {\"quantile\": 95}", "range"),
        ("\"measure\": {\"quantile\": \"95%\"}", "\"measure\": {\"quantile\": \"95%\", \"over\": \"Max\"}", "contradiction"),
        ("\"measure\": {\"quantile\": \"95%\"}", "\"kind\": \"Gauge\", \"measure\": {\"quantile\": \"95%\"}", "contradiction"),
        ("\"300ms\"", "\"5m\"", "ambiguous-unit"),
        ("\"300ms\"", "\"300Mi\"", "unit"),
        ("\"300ms\"", "\"120ms\"", "contradiction"),
        ("\"120ms\"", "0", "range"),
        ("\"scaleOutAbove\": \"300ms\", \"scaleInBelow\": \"120ms\", ", "", "missing-field"),
        ("\"out\": \"20%\"", "\"out\": \"200%\"", "range"),
        ("\"in\": 2}", "\"in\": 0}", "range"),
        // Rates, tolerance, fallback.
        ("{\"percent\": 50, ", "{\"percent\": 0, ", "range"),
        ("{\"percent\": 50, ", "{\"percent\": \"50%\", ", "type"),
        ("{\"percent\": 50, ", "{\"percent\": 50, \"replicas\": 1, ", "contradiction"),
        ("{\"percent\": 50, ", "{", "contradiction"),
        ("\"select\": \"Disabled\"", "\"policies\": []", "empty"),
        ("\"in\": 0.2", "\"in\": \"1001%\"", "range"),
        ("\"in\": 0.2", "\"in\": \"5m\"", "ambiguous-unit"),
        ("\"replicas\": 10, ", "", "contradiction"),
        ("\"replicas\": 10, \"behavior\": \"IfHigher\"", "\"behavior\": \"Static\"", "contradiction"),
    ] {
        assert!(FULL.contains(from), "{from}");
        let json = FULL.replacen(from, to, 1);
        let mut found = codes(&json, Severity::Error);
        found.sort_unstable();
        assert_eq!(found.join(" "), expected, "{from} -> {to}");
        // Who puts a policy in force asks for no settings and no advice, and is told the same errors.
        let errors = of(&json).problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect();
        assert_eq!(resolve_spec_json(&json, &target), Err(errors), "{from} -> {to}");
    }
    for (json, expected) in [("{}", "missing-field missing-field missing-field"), ("5", "type missing-field missing-field missing-field")] {
        assert_eq!(codes(json, Severity::Error).join(" "), expected, "{json}");
    }
    let many: Vec<String> = (0..65).map(|i| format!("{{\"name\": \"m{i}\"}}")).collect();
    let json = MINIMAL.replace("{\"name\": \"cpu\", \"track\": {\"utilization\": \"70%\"}}", &many.join(","));
    assert_eq!(codes(&json, Severity::Error), ["limit"]);
    let json = MINIMAL.replace("\"cpu\"", &format!("{:?}", "x".repeat(254)));
    assert_eq!(codes(&json, Severity::Error), ["name"]);
}

#[test]
fn every_problem_is_told_at_once() {
    let json = FULL.replace("\"min\": 3", "\"min\": 61").replace("\"4m\"", "\"x\"").replace("\"rps\"", "\"cpu\"").replace("\"shop\"", "5");
    assert_eq!(codes(&json, Severity::Error).len(), 5);
    assert!(of(&json).policy.is_none());
}

#[test]
fn a_document_of_nothing_but_mistakes_gives_a_bounded_answer() {
    let fields: Vec<String> = (0..5000).map(|i| format!("\"{}{i}\": 1", "x".repeat(1000))).collect();
    let resolution = of(&format!("{{{}}}", fields.join(",")));
    assert_eq!(resolution.problems.len(), MOST_PROBLEMS);
    assert!(resolution.problems.iter().map(|p| p.to_string().len()).sum::<usize>() < 64_000);
}

#[test]
fn what_is_legal_but_unwise_is_warned_of() {
    let metric = "{\"name\": \"cpu\", \"track\": {\"utilization\": \"70%\"}}";
    for (from, to, expected) in [
        (metric, "{\"name\": \"response_time\", \"track\": {\"value\": \"300ms\"}}", "time-tracked"),
        (metric, "{\"name\": \"cpu\"}", "no-proposing-metric"),
        (metric, "{\"name\": \"cpu\", \"track\": {\"utilization\": \"70%\"}, \"whenBlind\": \"Ignore\"}", "blindness-ignored"),
        (metric, "{\"name\": \"cpu\", \"track\": {\"utilization\": \"70%\"}, \"window\": \"4s\"}", "window-below-pane"),
        (metric, "{\"name\": \"cpu\", \"track\": {\"utilization\": \"70%\"}, \"window\": \"9s\"}", "window-below-two-panes"),
        (metric, "{\"name\": \"cpu\", \"unit\": \"count\", \"track\": {\"value\": 5}}", "unusual-unit"),
        (metric, "{\"name\": \"jobs\", \"track\": {\"utilization\": \"70%\"}}", "not-requested"),
        (metric, "{\"name\": \"rps\", \"threshold\": {\"scaleOutAbove\": 100, \"scaleInBelow\": 60}}", "narrow-band"),
        (metric, "{\"name\": \"rps\", \"threshold\": {\"scaleOutAbove\": 100, \"scaleInBelow\": 40, \"for\": \"0s\"}}", "step-at-every-evaluation"),
        (metric, "{\"name\": \"rps\", \"threshold\": {\"scaleOutAbove\": 100}}", "never-shrinks"),
        (metric, "{\"name\": \"rps\", \"threshold\": {\"scaleInBelow\": 100}}", "never-grows"),
        (metric, "{\"name\": \"error_rate\", \"track\": {\"value\": \"1%\"}}", "errors-tracked"),
        (metric, "{\"name\": \"http_5xx_total\", \"kind\": \"Counter\", \"track\": {\"perReplica\": 1}}", "errors-tracked"),
        (metric, "{\"name\": \"response_time\", \"threshold\": {\"scaleOutAbove\": 300, \"scaleInBelow\": 100}}", "unlikely-amount"),
        (metric, "{\"name\": \"error_rate\", \"threshold\": {\"scaleOutAbove\": 10, \"scaleInBelow\": 1}}", "unlikely-amount"),
        (metric, "{\"name\": \"cpu\", \"threshold\": {\"scaleOutAbove\": 70, \"scaleInBelow\": 30}}", "unlikely-amount"),
        (metric, "{\"name\": \"latency_p99\", \"track\": {\"value\": 300}}", "time-tracked"),
        (metric, "{\"name\": \"upstream_ms\", \"kind\": \"Gauge\", \"track\": {\"perReplica\": 300}}", "time-tracked"),
        (metric, "{\"name\": \"queue_dept\", \"track\": {\"perReplica\": 5}}", "metric-name"),
        (metric, "{\"name\": \"cpuu\", \"track\": {\"perReplica\": 5}}", "metric-name"),
        (metric, "{\"name\": \"mem\", \"track\": {\"perReplica\": \"1Gi\"}}", "metric-name"),
        (metric, "{\"name\": \"latency\", \"threshold\": {\"scaleOutAbove\": 300, \"scaleInBelow\": 120}}", "metric-name"),
        // Meant as it is written, or a count under either name.
        (metric, "{\"name\": \"mem\", \"unit\": \"bytes\", \"track\": {\"perReplica\": \"1Gi\"}}", ""),
        (metric, "{\"name\": \"queue_length\", \"track\": {\"perReplica\": 5}}", ""),
        (
            metric,
            "{\"name\": \"rps\", \"kind\": \"Counter\", \"window\": \"9s\", \"staleAfter\": \"9s\", \"track\": {\"perReplica\": 5}}",
            "window-below-two-panes stale-below-two-panes",
        ),
        ("\"replicas\": {", "\"evaluateEvery\": \"2m\", \"replicas\": {", "window-below-interval"),
        (
            "\"replicas\": {",
            "\"role\": \"ApiServer\", \"behavior\": {\"scaleIn\": {\"policies\": [{\"percent\": 100, \"period\": \"15s\"}]}}, \"replicas\": {",
            "scale-in-without-limit",
        ),
        (
            "\"replicas\": {",
            "\"tolerance\": {\"in\": 0}, \"startup\": {\"cpuInitialization\": 0, \"readinessDelay\": 0}, \"behavior\": {\"scaleIn\": {\"stabilization\": 0}}, \"replicas\": {",
            "hunting",
        ),
        ("\"replicas\": {", "\"fallback\": {\"behavior\": \"Static\", \"replicas\": 4}, \"replicas\": {\"min\": 4, ", "fallback-to-min"),
        ("\"max\": 60", "\"min\": 60, \"max\": 60", "fixed-count"),
        ("\"kind\": \"Deployment\"", "\"kind\": \"deployment\"", "target-kind"),
        ("\"apiVersion\": \"apps/v1\"", "\"apiVersion\": \"v1\"", "target-kind"),
        ("\"utilization\": \"70%\"", "\"perReplica\": 500", "unlikely-amount"),
        (
            "\"replicas\": {",
            "\"behavior\": {\"scaleOut\": {\"select\": \"Disabled\"}, \"scaleIn\": {\"select\": \"Disabled\"}}, \"replicas\": {",
            "never-scales",
        ),
        ("\"replicas\": {", "\"role\": \"ApiServer\", \"replicas\": {\"min\": 1, ", "single-replica"),
        ("\"replicas\": {", "\"startup\": {\"cpuInitialization\": \"6m\"}, \"replicas\": {", "scale-in-within-start-up"),
        ("\"replicas\": {", "\"behavior\": {\"scaleIn\": {\"stabilization\": \"4m\"}}, \"replicas\": {", "scale-in-within-start-up"),
        ("\"replicas\": {", "\"behavior\": {\"scaleIn\": {\"cooldown\": \"6m\"}}, \"replicas\": {", "cooldown-beyond-stabilization"),
        ("\"replicas\": {", "\"tolerance\": {\"in\": 2}, \"replicas\": {", "tolerance-blocks-scale-in"),
        ("\"replicas\": {", "\"fallback\": {\"replicas\": 3}, \"replicas\": {", "unused"),
        ("\"replicas\": {", "\"fallback\": {\"behavior\": \"Static\", \"replicas\": 3}, \"replicas\": {\"min\": 4, ", "fallback-below-min"),
        ("\"replicas\": {", "\"fallback\": {\"behavior\": \"Static\", \"replicas\": 61}, \"replicas\": {", "fallback-beyond-max"),
        ("\"replicas\": {", "\"fallback\": {\"behavior\": \"IfHigher\", \"replicas\": 1}, \"replicas\": {", "fallback-without-effect"),
        // A wide band and a scale-in that is off are fine.
        (metric, "{\"name\": \"rps\", \"threshold\": {\"scaleOutAbove\": 100, \"scaleInBelow\": 40}}", ""),
        ("\"replicas\": {", "\"behavior\": {\"scaleIn\": {\"stabilization\": \"0s\", \"select\": \"Disabled\"}}, \"replicas\": {", ""),
    ] {
        assert!(MINIMAL.contains(from), "{from}");
        let json = MINIMAL.replacen(from, to, 1);
        assert!(of(&json).policy.is_some(), "{to}: {:?}", of(&json).problems);
        assert_eq!(codes(&json, Severity::Warning).join(" "), expected, "{to}");
    }
}

/// An error takes only those warnings with it that hang on the faulty field.
#[test]
fn errors_do_not_hide_warnings_and_cause_none() {
    let unwise = MINIMAL.replacen("\"replicas\": {", "\"tolerance\": {\"in\": 2}, \"replicas\": {", 1);
    let never = "tolerance-blocks-scale-in";
    for (from, to, expected) in [
        ("\"replicas\": {\"max\": 60}", "\"replicas\": {\"max\": \"many\"}", never),
        ("\"replicas\": {\"max\": 60}", "\"replicas\": {}", never),
        ("\"kind\": \"Deployment\", ", "", never),
        ("\"replicas\": {", "\"burst\": {}, \"replicas\": {", never),
        // What may say that nothing is to shrink.
        ("\"replicas\": {", "\"mode\": \"OutOnli\", \"replicas\": {", ""),
        ("\"replicas\": {", "\"mod\": \"OutOnly\", \"replicas\": {", ""),
        ("{\"in\": 2}", "{\"in\": 2000}", ""),
        // A role of which nobody knows what it may set; one that is nearly right is taken for what was meant.
        ("\"replicas\": {", "\"role\": \"Queue\", \"replicas\": {", ""),
        ("\"replicas\": {\"max\"", "\"role\": \"ApiServr\", \"replicas\": {\"min\": 1, \"max\"", "single-replica tolerance-blocks-scale-in"),
        ("\"replicas\": {\"max\"", "\"role\": \"Queue\", \"replicas\": {\"min\": 1, \"max\"", ""),
        // A metric that cannot be read may be the one that matters; its errors are its own.
        ("\"utilization\": \"70%\"", "\"utilisation\": \"70%\"", ""),
    ] {
        assert!(unwise.contains(from), "{from}");
        let json = unwise.replacen(from, to, 1);
        assert!(!codes(&json, Severity::Error).is_empty() && of(&json).policy.is_none(), "{to}");
        assert_eq!(codes(&json, Severity::Warning).join(" "), expected, "{to}: {:?}", of(&json).problems);
    }
    let two = r#"{"name": 5, "window": "4s"}, {"name": "response_time", "track": {"value": "300ms"}}"#;
    let json = MINIMAL.replacen(r#"{"name": "cpu", "track": {"utilization": "70%"}}"#, two, 1);
    let problems = of(&json).problems;
    let found: Vec<_> = problems.iter().map(|p| (p.path.as_str(), p.code)).collect();
    assert!(found.contains(&("spec.metrics[1].track", "time-tracked")), "the other metric keeps its place: {found:?}");
}

/// Names that can be none have their own errors, and are not taken for one that is written twice; a name that is nearly known is told
/// beside the unit that is not known without it.
#[test]
fn one_mistake_is_told_as_what_it_is() {
    let metrics = |items: &str| MINIMAL.replacen(r#"{"name": "cpu", "track": {"utilization": "70%"}}"#, items, 1);
    let two = metrics(r#"{"name": 404, "track": {"perReplica": 1}}, {"name": 500, "track": {"perReplica": 1}}"#);
    assert!(!codes(&two, Severity::Error).contains(&"duplicate-metric"), "{:?}", of(&two).problems);
    let slip = metrics(r#"{"name": "CPU", "track": {"perReplica": "700m"}}"#);
    assert_eq!((codes(&slip, Severity::Error), codes(&slip, Severity::Warning)), (vec!["ambiguous-unit"], vec!["metric-name"]), "{:?}", of(&slip).problems);
}

#[test]
fn a_default_gives_way_to_what_is_written() {
    let policy = of(&MINIMAL.replace("\"track\"", "\"window\": \"5m\", \"track\"")).policy.unwrap();
    assert_eq!(policy.metrics[0].stale_after, seconds(300));
    let policy = of(&MINIMAL.replace("\"replicas\": {\"max\": 60}", "\"role\": \"ApiServer\", \"replicas\": {\"max\": 1}")).policy.unwrap();
    assert_eq!((policy.min, policy.max), (1, 1));
}

#[test]
fn an_announced_spec_is_of_its_target() {
    let target: TargetId = "prod/Deployment/api".parse().unwrap();
    assert_eq!(resolve_spec_json(MINIMAL, &target).unwrap(), of(MINIMAL).policy.unwrap());
    let canonical = Node::from_json(FULL).unwrap().to_json();
    assert_eq!(resolve_spec_json(&canonical, &target).unwrap(), of(FULL).policy.unwrap());
    assert_eq!(resolve_spec_json(MINIMAL, &"prod/Deployment/other".parse().unwrap()).unwrap_err()[0].code, "target");
    assert_eq!(resolve_spec_json("{", &target).unwrap_err()[0].code, "syntax");
    let errors = resolve_spec_json(&FULL.replace("\"shop\"", "5"), &target).unwrap_err();
    assert!(errors.iter().all(|p| p.severity == Severity::Error) && errors.len() == 1);
}

/// Any tree, its fields often named as those of a policy.
fn any_tree() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[0-9]{1,3}(ms|s|m|h|%|Gi|k|m)",
        "\\PC{0,8}",
        prop::sample::select(vec!["Static", "IfHigher", "ApiServer", "Max", "Disabled", "Histogram", "seconds", "cpu", "Deployment"])
            .prop_map(ToOwned::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Number(n.to_string())),
        (0_u32..100).prop_map(|n| Value::Number(n.to_string())),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| Value::Number(n.to_string())),
        text.prop_map(Value::Text),
    ];
    let key = prop_oneof![
        1 => "\\PC{0,6}",
        9 => prop::sample::select(vec![
            "target", "apiVersion", "kind", "name", "role", "mode", "replicas", "min", "max", "startup", "cpuInitialization", "metrics", "unit", "measure",
            "quantile", "over", "across", "window", "staleAfter", "whenBlind", "track", "utilization", "perReplica", "value", "threshold", "scaleOutAbove",
            "scaleInBelow", "for", "step", "out", "in", "behavior", "scaleOut", "scaleIn", "stabilization", "cooldown", "select", "policies", "percent",
            "period", "tolerance", "fallback", "after", "burst", "evaluateEvery",
        ]).prop_map(ToOwned::to_owned),
    ];
    leaf.prop_recursive(6, 120, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone().prop_map(Node::bare), 0..4).prop_map(Value::List),
            prop::collection::btree_map(key.clone(), inner.prop_map(Node::bare), 0..12)
                .prop_map(|m| Value::Map(m.into_iter().map(|(key, value)| super::super::super::document::Entry { key, key_span: None, value }).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_tree_panics_and_a_refusal_names_its_reason(tree in any_tree()) {
        let resolution = resolve(&Node::bare(tree), "prod");
        let has_error = resolution.problems.iter().any(|p| p.severity == Severity::Error);
        prop_assert_eq!(resolution.policy.is_none(), has_error);
        for problem in &resolution.problems {
            prop_assert!(!problem.message.is_empty() && problem.message.len() < 2000);
        }
    }

    /// One field of the full policy replaced by anything: it is refused, or the policy keeps its promises.
    #[test]
    fn one_wild_field_is_refused_or_harmless(at in 0_usize..64, wild in any_tree()) {
        let mut spec = Node::from_json(FULL).unwrap();
        let mut left = at;
        replace_leaf(&mut spec, &mut left, &wild);
        if let Some(policy) = resolve(&spec, "prod").policy {
            prop_assert!(policy.min >= 1 && policy.min <= policy.max && i32::try_from(policy.max).is_ok());
            prop_assert!(!policy.metrics.is_empty());
            for metric in &policy.metrics {
                prop_assert!(!metric.window.is_zero() && metric.stale_after >= metric.window);
            }
            prop_assert!(policy.scale_in.policies.iter().chain(&policy.scale_out.policies).all(|p| !p.period.is_zero()));
        }
    }
}

fn replace_leaf(node: &mut Node, left: &mut usize, wild: &Value) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| replace_leaf(item, left, wild)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| replace_leaf(&mut entry.value, left, wild)),
        value => {
            if *left == 0 {
                *value = wild.clone();
            }
            *left = left.wrapping_sub(1);
        }
    }
}

/// Every text that comes of one by another value in one place, or by another name of a field.
fn altered(whole: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::{Value, json};
    let mut all: Vec<Value> = ["x", "5s", "70%", "Gauge", ""].map(|text| json!(text)).to_vec();
    all.extend([json!(null), json!(true), json!(0), json!(-1), json!(2), json!(0.5), json!(1e30), json!([]), json!({}), json!([{}]), json!({"x": 1})]);
    let within: Vec<Value> = match whole {
        Value::Object(fields) => {
            let replaced = fields.iter().flat_map(|(name, value)| {
                altered(value).into_iter().map(move |other| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), other);
                    Value::Object(fields)
                })
            });
            let renamed =
                fields.keys().map(|name| Value::Object(fields.iter().map(|(n, v)| (if n == name { format!("{n}s") } else { n.clone() }, v.clone())).collect()));
            let removed = fields.keys().map(|name| Value::Object(fields.iter().filter(|(n, _)| *n != name).map(|(n, v)| (n.clone(), v.clone())).collect()));
            replaced.chain(renamed).chain(removed).collect()
        }
        Value::Array(items) => {
            let replaced = items.iter().enumerate().flat_map(|(index, item)| {
                altered(item).into_iter().map(move |other| {
                    let mut items = items.clone();
                    items[index] = other;
                    Value::Array(items)
                })
            });
            replaced.chain([Value::Array(items.iter().chain(items).cloned().collect())]).collect()
        }
        _ => Vec::new(),
    };
    all.extend(within);
    all
}

/// A policy that is taken at a glance is the one that is taken with all its advice, and none is taken that has an error.
#[test]
fn a_glance_misses_no_error() {
    let target: TargetId = "prod/Deployment/api".parse().unwrap();
    let (mut taken, mut refused) = (0, 0);
    for text in altered(&serde_json::from_str(FULL).unwrap()) {
        let text = text.to_string();
        let thorough = of(&text).policy.filter(|policy| policy.target == target);
        assert_eq!(at_a_glance(&Node::from_json(&text).unwrap(), &target), thorough, "{text}");
        assert_eq!(resolve_spec_json(&text, &target).ok(), thorough, "{text}");
        *(if thorough.is_some() { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 100 && refused > 500, "{taken} are taken, {refused} refused");
    // More fields than are counted: the last is unknown.
    let many = (0..70).map(|n| format!(r#""f{n}": 1"#)).collect::<Vec<_>>().join(", ") + ", ";
    let errors = resolve_spec_json(&FULL.replacen('{', &format!("{{{many}"), 1), &target).unwrap_err();
    assert_eq!(errors.iter().filter(|problem| problem.code == "unknown-field").count(), 70);
}
