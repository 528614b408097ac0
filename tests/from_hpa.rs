//! `docs/from-hpa.md`: its translations say what the HPAs beside them say, and pass `loadline policy check` without a warning.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

#[path = "golden/story.rs"]
#[allow(dead_code, reason = "told elsewhere")]
mod golden;
#[path = "common/page.rs"]
mod page;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use golden::{Seen, Story};
use loadline::model::policy::{MetricRule, Policy, ScalingRules, Select, StepSize, Tolerance, resolve_spec_json};
use loadline::model::{Amount, Timestamp};
use loadline::wire::{document, jsonl};
use page::Page;
use serde_json::{Value, json};

fn page() -> Page {
    Page::read("docs/from-hpa.md")
}

/// The page's documents of this kind.
fn documents(kind: &str) -> Vec<String> {
    let of_kind = |text: &String| text.lines().any(|line| line == format!("kind: {kind}"));
    page().blocks.into_iter().filter(|b| b.info == "yaml").map(|b| b.text).filter(of_kind).collect()
}

fn policy(text: &str) -> Policy {
    let file = document::policies_in(text, "from-hpa.md");
    let document = &file.documents[0];
    resolve_spec_json(&document.spec_json, document.target.as_ref().unwrap()).unwrap()
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap())
}

/// An amount as Kubernetes writes it: a whole number, here.
fn quantity(value: &Value) -> Amount {
    Amount::from_units(value.as_str().unwrap().parse().unwrap())
}

/// What a metric of an HPA asks for.
fn rule(metric: &Value) -> (String, MetricRule) {
    let part = metric["type"].as_str().unwrap();
    let inside = &metric[&part.to_lowercase()];
    let target = &inside["target"];
    let name = if part == "Resource" { &inside["name"] } else { &inside["metric"]["name"] };
    let rule = match target["type"].as_str().unwrap() {
        "Utilization" => MetricRule::Utilization { percent: target["averageUtilization"].as_i64().unwrap() },
        "AverageValue" => MetricRule::PerReplica { amount: quantity(&target["averageValue"]) },
        "Value" => MetricRule::Value { amount: quantity(&target["value"]) },
        kind => panic!("{kind} is no target"),
    };
    (name.as_str().unwrap().to_owned(), rule)
}

/// One direction of an HPA, with the defaults of Kubernetes.
fn rules(written: &Value, stabilization: u64, policies: &Value) -> ScalingRules {
    let written_or = |field: &str, default: Value| if written[field].is_null() { default } else { written[field].clone() };
    let select = match written_or("selectPolicy", json!("Max")).as_str().unwrap() {
        "Min" => Select::Min,
        "Disabled" => Select::Disabled,
        _ => Select::Max,
    };
    let policies = written_or("policies", policies.clone());
    let policies = policies.as_array().unwrap().iter().map(|p| loadline::model::policy::RatePolicy {
        amount: match p["type"].as_str().unwrap() {
            "Pods" => StepSize::Replicas(u32::try_from(p["value"].as_u64().unwrap()).unwrap()),
            _ => StepSize::Percent(u32::try_from(p["value"].as_u64().unwrap()).unwrap()),
        },
        period: seconds(&p["periodSeconds"]),
    });
    let stabilization = seconds(&written_or("stabilizationWindowSeconds", json!(stabilization)));
    ScalingRules { stabilization, cooldown: Duration::ZERO, select, policies: policies.collect() }
}

#[test]
fn each_translation_says_what_its_hpa_says() {
    let (hpas, policies) = (documents("HorizontalPodAutoscaler"), documents("ScalingPolicy"));
    assert_eq!((hpas.len(), policies.len()), (2, 2));
    for (hpa, text) in hpas.iter().zip(&policies) {
        let hpa: Value = serde_saphyr::from_str(hpa).unwrap();
        let (spec, policy) = (&hpa["spec"], policy(text));
        let reference = &spec["scaleTargetRef"];
        let target = [&hpa["metadata"]["namespace"], &reference["kind"], &reference["name"]].map(|part| part.as_str().unwrap()).join("/");
        assert_eq!(policy.target.as_str(), target);
        assert_eq!(json!([policy.min, policy.max]), json!([spec["minReplicas"], spec["maxReplicas"]]), "{target}");
        let of_hpa: Vec<(String, MetricRule)> = spec["metrics"].as_array().unwrap().iter().map(rule).collect();
        let of_policy: Vec<(String, MetricRule)> = policy.metrics.iter().map(|m| (m.name.to_string(), m.rule.clone())).collect();
        assert_eq!(of_policy, of_hpa, "{target}");
        let behavior = &spec["behavior"];
        let up = json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }, { "type": "Pods", "value": 4, "periodSeconds": 15 }]);
        let down = json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]);
        assert_eq!(policy.scale_out, rules(&behavior["scaleUp"], 0, &up), "{target}");
        assert_eq!(policy.scale_in, rules(&behavior["scaleDown"], 300, &down), "{target}");
        let tolerance = |direction: &str| behavior[direction]["tolerance"].as_str().unwrap_or("0.1").parse::<f64>().unwrap();
        assert_eq!(policy.tolerance, Tolerance { out: tolerance("scaleUp"), r#in: tolerance("scaleDown") }, "{target}");
        assert_eq!(policy.cpu_initialization, Duration::from_secs(300), "{target}: the controller's flag");
        assert_eq!(policy.readiness_delay, Duration::from_secs(30), "{target}: the controller's flag");
    }
}

#[test]
fn each_translation_passes_the_check_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in documents("ScalingPolicy").iter().enumerate() {
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_loadline")).args(["policy", "check", "--deny-warnings"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said}");
        assert!(said.contains("0 errors, 0 warnings"), "{said}");
    }
}

#[test]
fn the_samples_are_taken_as_they_are_written() {
    let lines = page().block("json").text.clone();
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let sample = jsonl::sample_from_line(line, Timestamp::from_millis(0)).unwrap_or_else(|error| panic!("{line}: {error}"));
        let of = policy(&documents("ScalingPolicy")[1]);
        assert!(format!("{sample:?}").contains(of.target.as_str()), "{sample:?}");
        assert!(of.metrics.iter().any(|m| line.contains(&format!("\"{}\"", m.name))), "{line}");
    }
}

/// The first step of growth with the defaults, as the table of HPAs without `behavior` has it.
#[test]
fn the_first_step_of_growth_is_the_one_in_the_table() {
    let page = page();
    let table = page.table("from");
    assert_eq!(table.len(), 5);
    let written = page.text.split('`').find(|code| code.starts_with("scaleOut: { policies: [{ percent: 100, period: 15s }, ")).unwrap();
    let written: Value = serde_saphyr::from_str(written).unwrap();
    let first_step = |from: u32, to: u32, behavior: &str| {
        let spec = r#""replicas":{"min":1,"max":100},"metrics":[{"name":"queue_depth","track":{"perReplica":1}}]"#;
        let mut story = Story::new("", &format!("{spec}{behavior}"));
        story.fleet(from);
        story.panes(&[("queue_depth", Seen::Total(100.0))], 1);
        story.moved(&format!("ScaleOut {from} -> {to}"));
    };
    for row in &table[1..] {
        let (from, without, generic): (u32, u32, u32) = (row[0].parse().unwrap(), row[1].parse().unwrap(), row[2].parse().unwrap());
        assert_eq!(without, (2 * from).max(4), "the HPA's own rule");
        first_step(from, generic, "");
        if from >= 2 {
            first_step(from, without, &format!(r#","behavior":{written}"#));
        }
    }
}

/// What an HPA has, by kind ("field", "condition", "event", "flag"), as its sources say.
fn surface(kind: &str) -> BTreeSet<String> {
    let list = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hpa_surface.txt")).unwrap();
    let found: BTreeSet<String> = list.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).map(str::to_owned).collect();
    assert!(found.len() > 3, "no {kind} in the list");
    found
}

/// The code spans of a cell.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Nothing that an HPA has is missing, and nothing is told of that it does not have.
#[test]
fn every_field_condition_event_and_flag_is_in_the_page() {
    let page = page();
    let fields: BTreeSet<String> = page.table("path")[1..].iter().flat_map(|row| spans(&row[0])).map(str::to_owned).collect();
    assert_eq!(fields, surface("field"));
    let status = page.table("condition and reason, or field");
    let conditions = status[1..].iter().filter_map(|row| row[0].split_once(": "));
    let conditions: BTreeSet<String> =
        conditions.flat_map(|(condition, reasons)| spans(reasons).map(move |reason| format!("{} {reason}", condition.trim_matches('`')))).collect();
    assert_eq!(conditions, surface("condition"));
    let events: BTreeSet<String> = status[1..].iter().filter(|row| row[0].starts_with("event")).flat_map(|row| spans(&row[0])).map(str::to_owned).collect();
    assert_eq!(events, surface("event"));
    let flags: BTreeSet<String> = page.table("`kube-controller-manager`")[1..].iter().map(|row| format!("{} {}", row[0].trim_matches('`'), row[1])).collect();
    assert_eq!(flags, surface("flag"));
}

/// What the page says is here is a field of a policy.
#[test]
fn what_a_field_became_is_a_field_of_a_policy() {
    let fields = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap();
    for row in page().table("path").iter().skip(1).filter(|row| row[0].starts_with("`spec.")) {
        for field in spans(&row[1]).map(|field| field.trim_start_matches('.')) {
            let last = field.rsplit('.').next().unwrap();
            assert!(fields.contains(last), "{}: docs/policy.md has no {field}", row[0]);
        }
    }
}
