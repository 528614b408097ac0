//! Every document that a reader takes its schema takes; what the reader calls an unknown field the schema refuses.

use std::path::{Path, PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use proptest::prelude::*;

use super::*;
use crate::cli::config::{Config, ConfigArgs};
use crate::edge::processes::fleet_of;
use crate::model::document::{Entry, Node, Problem, Severity, Value as Tree};
use crate::wire::document::{from_yaml, policies_in};

/// A schema that is ready to check documents.
struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn new(kind: Option<Kind>) -> Schema {
        let mut out = Vec::new();
        run(&SchemaArgs { kind }, &mut out).unwrap();
        let schema: Value = serde_json::from_slice(&out).unwrap();
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.add_resource("loadline.json", schema).unwrap();
        let index = compiler.compile("loadline.json", &mut schemas).unwrap();
        Schema { schemas, index }
    }

    fn takes(&self, node: &Node) -> Result<(), String> {
        let value: Value = serde_json::from_str(&node.to_json()).unwrap();
        self.schemas.validate(&value, self.index).map_err(|e| e.to_string())
    }
}

/// The problems of one document, whatever its kind.
fn problems(node: &Node) -> Vec<Problem> {
    match node.get("kind").and_then(Node::as_text) {
        Some("ProcessFleet") => fleet_of(node).1,
        Some("PolicyTest") => testing::problems_of(node, "a.yaml"),
        _ => policies_in(&node.to_json(), "x").all_problems().into_iter().cloned().collect(),
    }
}

fn has_errors(node: &Node) -> bool {
    problems(node).iter().any(|p| p.severity == Severity::Error)
}

/// The YAML of every example and of every page of the documentation: file and text.
fn written() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    let mut folders = vec![root.join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                all.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let pages: Vec<PathBuf> = std::fs::read_dir(root.join("docs")).unwrap().map(|e| e.unwrap().path()).chain([root.join("README.md")]).collect();
    for page in pages.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(page).unwrap();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        all.extend(blocks.map(|block| (page.display().to_string(), block.to_owned())));
    }
    all
}

/// An editor says what a field is for, also of one that holds others.
#[test]
fn every_field_that_holds_others_says_what_it_is_for() {
    fn look(schema: &Value, path: &str, silent: &mut Vec<String>) {
        for (name, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let forms: Vec<&Value> = std::iter::once(value).chain(value["anyOf"].as_array().into_iter().flatten()).collect();
            if forms.iter().any(|form| form["type"] == "object") && value["description"].as_str().is_none_or(str::is_empty) {
                silent.push(path.clone());
            }
            for form in forms {
                look(form, &path, silent);
                look(&form["items"], &format!("{path}[]"), silent);
            }
        }
    }
    let mut silent = Vec::new();
    for kind in [Kind::ScalingPolicy, Kind::ProcessFleet, Kind::PolicyTest] {
        look(&of(kind), &format!("{kind:?}"), &mut silent);
    }
    assert_eq!(silent, [""; 0]);
}

#[test]
fn every_example_and_every_document_of_the_docs_fits_its_schema() {
    let (every, config) = (Schema::new(None), Schema::new(Some(Kind::Configuration)));
    let (mut documents, mut configurations) = (0, 0);
    for (file, text) in written() {
        for node in from_yaml(&text).unwrap_or_else(|e| panic!("{file}: {e}")) {
            if node.get("apiVersion").and_then(Node::as_text).is_some_and(|version| !version.starts_with("loadline.dev/")) {
                continue; // somebody else's, beside ours
            }
            if node.get("kind").is_some() {
                assert!(!has_errors(&node), "{file}: {:?}", problems(&node));
                every.takes(&node).unwrap_or_else(|e| panic!("{file}: {e}"));
                documents += 1;
            } else if Config::from_parts(Some((Path::new("x"), &text)), [], &ConfigArgs::default()).is_ok() {
                config.takes(&node).unwrap_or_else(|e| panic!("{file}: {e}"));
                configurations += 1;
            }
        }
    }
    assert!(documents >= 6 && configurations >= 1, "{documents} documents, {configurations} configurations");
}

/// Documents that have every field of their kind.
const WHOLE: [&str; 4] = [
    r#"{"apiVersion":"loadline.dev/v1alpha1","kind":"ScalingPolicy","metadata":{"namespace":"prod","name":"api","labels":{"a":"b"}},"status":{},"spec":{
      "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
      "actuator": "Scale", "role": "ApiServer", "mode": "OutOnly", "fleet": "shop", "priority": 7,
      "replicas": {"min": 3, "max": 60}, "startup": {"cpuInitialization": "4m", "readinessDelay": 0},
      "metrics": [
        {"name": "cpu", "track": {"utilization": "70%"}}, {"name": "rps", "kind": "Counter", "unit": "count"},
        {"name": "response_time", "measure": {"quantile": "95%"}, "window": "1m30s",
         "threshold": {"scaleOutAbove": "300ms", "scaleInBelow": 0.12, "for": "40s", "step": {"out": "20%", "in": 2}}},
        {"name": "queue_depth", "track": {"perReplica": "1k"}, "staleAfter": "60s", "whenBlind": "Ignore"},
        {"name": "memory", "measure": {"over": "Max", "across": "Max"}, "track": {"value": "2Gi"}}],
      "evaluateEvery": "15s",
      "behavior": {"scaleOut": {"stabilization": "5s", "cooldown": "6s", "select": "Min", "policies": [{"percent": 50, "period": "30s"}, {"replicas": 2, "period": "60s"}]},
                   "scaleIn": {"select": "Disabled"}},
      "tolerance": {"out": "5%", "in": 0.2}, "fallback": {"after": "4m", "replicas": 10, "behavior": "IfHigher"}}}"#,
    r#"{"apiVersion":"loadline.dev/v1alpha1","kind":"ProcessFleet","metadata":{"namespace":"local","name":"bots","labels":{},"annotations":{}},"status":{},"spec":{
      "command":"./bot","args":["--port={port}",5,true],"env":{"A":"b","C":5},"workingDirectory":"/srv","ports":"9000-9099","replicas":3,
      "requests":{"cpu":"500m","memory":"64Mi"},"health":{"http":{"path":"/healthz","port":80},"period":"1s","timeout":"1s","failures":3},
      "startup":{"timeout":"10s"},"drain":{"grace":"5s"},"measure":{"every":"1s"},"restart":{"initial":"1s","max":"1m","resetAfter":"2m"},
      "endpoints":{"file":"x.json","labels":{"a":"b"}},"hook":["reload"],"output":{"maxBytes":"10Mi","files":2}}}"#,
    r#"{"apiVersion":"loadline.dev/v1alpha1","kind":"ProcessFleet","metadata":{"name":"bots"},"spec":{
      "command":"bot","ports":9000,"replicas":1,"health":{"tcp":{"port":9000}}}}"#,
    r#"{"apiVersion":"loadline.dev/v1alpha1","kind":"PolicyTest","metadata":{"name":"x"},"spec":{"policies":["policy.yaml"],"configuration":"loadline.yaml","pane":"5s",
      "tests":[{"name":"a","target":"local/ProcessFleet/bots","every":"5s","fleet":{"replicas":2,"startUp":"10s","requests":{"cpu":1,"memory":"1Gi"}},
        "series":[{"metric":"cpu","of":"Each","kind":"Gauge","values":"1x10"},{"metric":"queue_depth","instance":"bots-1","values":5}],
        "events":[{"at":"1m","replicas":5},{"at":"2m","policy":"other.yaml"}],
        "expect":[{"at":"1m","replicas":1,"ready":1,"desired":2,"verdict":"ScaleOut","binding":"RateLimit","reason":"ScaleOutRate",
          "metrics":{"cpu":{"status":"Ok","value":"70%","proposal":2}}}]}]}}"#,
];

fn whole() -> Vec<Node> {
    WHOLE.iter().map(|text| Node::from_json(text).unwrap()).collect()
}

#[test]
fn whole_documents_are_taken_by_both() {
    let every = Schema::new(None);
    for node in whole() {
        assert!(!has_errors(&node), "{:?}", problems(&node));
        every.takes(&node).unwrap();
    }
}

/// Every map of a document, in turn, gets a field that nobody knows: the reader calls it unknown, and the schema refuses it.
#[test]
fn what_the_reader_calls_an_unknown_field_the_schema_refuses() {
    let every = Schema::new(None);
    let mut tried = 0;
    for node in whole() {
        for at in 0.. {
            let mut changed = node.clone();
            let mut left = at;
            if !with_field(&mut changed, &mut left) {
                break;
            }
            let unknown = problems(&changed).iter().any(|p| p.code == "unknown-field");
            let taken = every.takes(&changed);
            if unknown {
                assert!(taken.is_err(), "{}: {:?}", changed.to_json(), problems(&changed));
            } else if !has_errors(&changed) {
                assert!(taken.is_ok(), "{}: {taken:?}", changed.to_json());
            }
            tried += usize::from(unknown);
        }
    }
    assert!(tried >= 50, "{tried} maps");
}

/// Adds a field to the map number `left`; whether there is one.
fn with_field(node: &mut Node, left: &mut usize) -> bool {
    match &mut node.value {
        Tree::Map(entries) => {
            if *left == 0 {
                entries.push(Entry { key: "nobodyKnows".to_owned(), key_span: None, value: Node::bare(Tree::Number("1".to_owned())) });
                return true;
            }
            *left -= 1;
            entries.iter_mut().any(|entry| with_field(&mut entry.value, left))
        }
        Tree::List(items) => items.iter_mut().any(|item| with_field(item, left)),
        _ => false,
    }
}

/// Mistakes of the pen that an editor should underline.
#[test]
fn an_editor_sees_what_the_reader_would_refuse() {
    let every = Schema::new(None);
    for (document, from, to) in [
        (0, "\"namespace\":\"prod\",", ""),
        (0, "\"70%\"", "\"70 percent\""),
        (0, "\"70%\"", "70"),
        (0, "\"Min\"", "\"Minimum\""),
        (0, "\"4m\"", "\"4 minutes\""),
        (0, "\"4m\"", "240"),
        (0, "\"1m30s\"", "\"30s1m\""),
        (0, "\"min\": 3", "\"min\": 0"),
        (0, "\"min\": 3", "\"min\": \"3\""),
        (0, ", \"max\": 60", ""),
        (0, "{\"utilization\": \"70%\"}", "{}"),
        (0, "{\"utilization\": \"70%\"}", "{\"utilization\": \"70%\", \"value\": 5}"),
        (0, "\"kind\": \"Counter\"", "\"track\": {\"value\": 5}, \"threshold\": {\"scaleOutAbove\": 5}"),
        (0, "\"percent\": 50, ", ""),
        (0, "loadline.dev/v1alpha1", "loadline.dev/v1"),
        (1, "\"command\":\"./bot\",", ""),
        (1, "\"replicas\":3", "\"replicas\":3.5"),
        (3, "\"ScaleOut\"", "\"Scaleout\""),
        (3, "\"at\":\"1m\",\"replicas\":5", "\"replicas\":5"),
    ] {
        assert!(WHOLE[document].contains(from), "{from}");
        let node = Node::from_json(&WHOLE[document].replacen(from, to, 1)).unwrap();
        assert!(has_errors(&node), "{from} -> {to}: the reader takes it");
        assert!(every.takes(&node).is_err(), "{from} -> {to}: the schema takes it");
    }
    // Processes have a namespace without it.
    let kind = r#""apiVersion": "apps/v1", "kind": "Deployment""#;
    assert!(WHOLE[0].contains(kind), "{kind}");
    for namespace in ["", "\"namespace\":null,"] {
        let of_processes = WHOLE[0].replacen("\"namespace\":\"prod\",", namespace, 1).replacen(kind, r#""kind":"ProcessFleet""#, 1);
        let node = Node::from_json(&of_processes).unwrap();
        assert!(!has_errors(&node), "{:?}", problems(&node));
        every.takes(&node).unwrap();
    }
    let unknown = Node::from_json(&WHOLE[0].replacen("ScalingPolicy", "ScalingPolicies", 1)).unwrap();
    assert!(every.takes(&unknown).is_err());
}

#[test]
fn the_schema_of_the_configuration_is_that_of_its_reader() {
    let schema = Schema::new(Some(Kind::Configuration));
    for (text, right) in [
        ("pane: 250ms\nlisten: 9090\npolicies: [a.yaml]\n", true),
        ("policies: a.yaml\nstopFleetsOnExit: true\ningest:\n  queue: 8\n  samplesPerSecond: unlimited\n", true),
        ("removals:\n  percent: 20%\n  fleets:\n    storefront:\n      percent: 50%\n      period: 1m30s\n", true),
        ("retention:\n  size: 512MiB\n  signals: 2d\nlog: { format: json, level: debug }\nremovals:\n", true),
        ("lag:\n  a:\n    brokers: b:9092\n    group: g\n    topics: [t]\n    targets: [a/B/c]\n    stuckAfter: never\n    perReplica: 5\n", true),
        ("lag:\n  a:\n    brokers: b:9092\n    group: g\n    topics: [t]\n    targets: [a/B/c]\n    begins: last\n", false),
        ("panne: 5s\n", false),
        ("pane: 5\n", false),
        ("removals:\n  atleast: 5\n", false),
        ("removals:\n  fleets:\n    web:\n      percnt: 5%\n", false),
        ("retention:\n  size: 4GB\n", false),
        ("log:\n  level: loud\n", false),
        ("stopFleetsOnExit: maybe\n", false),
    ] {
        let read = Config::from_parts(Some((Path::new("x"), text)), [], &ConfigArgs::default());
        assert_eq!(read.is_ok(), right, "{text}: {read:?}");
        let node = from_yaml(text).unwrap().remove(0);
        assert_eq!(schema.takes(&node).is_ok(), right, "{text}: {:?}", schema.takes(&node));
    }
}

/// An editor shows what each field means.
#[test]
fn every_field_has_a_meaning_and_a_type() {
    /// The fields that have no meaning, and those that may be anything.
    fn walk(schema: &Value, path: &str, without: &mut Vec<String>, any: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else {
            if schema["items"].is_object() {
                walk(&schema["items"], path, without, any);
            }
            for one in schema["anyOf"].as_array().into_iter().flatten() {
                walk(one, path, without, any);
            }
            return;
        };
        for (name, field) in properties {
            let path = format!("{path}.{name}");
            let nested = field.to_string().contains("\"properties\":{\"");
            if field["description"].as_str().is_none_or(str::is_empty) && !nested {
                without.push(path.clone());
            }
            if ["type", "enum", "const", "anyOf"].iter().all(|keyword| field.get(keyword).is_none()) {
                any.push(path.clone());
            }
            walk(field, &path, without, any);
        }
    }
    for (kind, schema) in [
        (Kind::ScalingPolicy, scaling_policy()["properties"]["spec"].clone()),
        (Kind::ProcessFleet, of(Kind::ProcessFleet)),
        (Kind::PolicyTest, of(Kind::PolicyTest)),
        (Kind::Configuration, of(Kind::Configuration)),
    ] {
        let (mut without, mut any) = (Vec::new(), Vec::new());
        walk(&schema, "", &mut without, &mut any);
        assert_eq!(without, Vec::<String>::new(), "{kind:?}");
        // What others keep beside an object is not looked into.
        any.retain(|path| path != ".status" && !path.starts_with(".metadata."));
        assert_eq!(any, Vec::<String>::new(), "{kind:?} has fields that may be anything");
    }
}

/// Anything in the place of a value.
fn any_value() -> impl Strategy<Value = Tree> {
    prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        (-5_i64..100).prop_map(|n| Tree::Number(n.to_string())),
        (0_u32..1000).prop_map(|n| Tree::Number(format!("{}.{}", n / 10, n % 10))),
        "[0-9]{1,3}(\\.[0-9])?(ms|s|m|h|d|%|k|Mi|Gi|m30s| %|x)?".prop_map(Tree::Text),
        "(Max|Min|Mean|Sum|Hold|Static|Counter|Histogram|seconds|Active|Off|Generic|true|)".prop_map(Tree::Text),
        Just(Tree::List(Vec::new())),
        Just(Tree::Map(Vec::new())),
    ]
}

fn leaves(node: &Node) -> usize {
    match &node.value {
        Tree::List(items) => items.iter().map(leaves).sum::<usize>() + 1,
        Tree::Map(entries) => entries.iter().map(|e| leaves(&e.value)).sum::<usize>() + 1,
        _ => 1,
    }
}

fn replace(node: &mut Node, left: &mut usize, value: &Tree) -> bool {
    if *left == 0 {
        node.value = value.clone();
        return true;
    }
    *left -= 1;
    match &mut node.value {
        Tree::List(items) => items.iter_mut().any(|item| replace(item, left, value)),
        Tree::Map(entries) => entries.iter_mut().any(|entry| replace(&mut entry.value, left, value)),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any value in any place: what the reader takes the schema takes, so that an editor never underlines what is right.
    #[test]
    fn the_schema_refuses_nothing_that_the_reader_takes(document in 0_usize..4, at in any::<prop::sample::Index>(), value in any_value()) {
        thread_local! {
            static EVERY: Schema = Schema::new(None);
        }
        let mut node = Node::from_json(WHOLE[document]).unwrap();
        let mut left = at.index(leaves(&node));
        replace(&mut node, &mut left, &value);
        if node.get("kind").and_then(Node::as_text).is_some() && !has_errors(&node) {
            let refused = EVERY.with(|every| every.takes(&node));
            prop_assert!(refused.is_ok(), "{}: {:?}", node.to_json(), refused);
        }
    }
}
