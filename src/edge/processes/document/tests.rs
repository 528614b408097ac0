use super::*;

const WHOLE: &str = r#"# two documents
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { name: bots }
spec: { anything: goes }
---
apiVersion: loadline.dev/v1alpha1
kind: ProcessFleet
metadata: { name: bots }
spec:
  command: target/debug/loadgen
  args: [worker, --port, "{port}"]
  env: { SERVICE_TIME: 20ms }
  ports: "9000-9099"
  replicas: 2
  requests: { cpu: 0.5, memory: 64Mi }
  health:
    http: { path: /healthz }
    period: 500ms
    timeout: 250ms
    failures: 2
  startup: { timeout: 5s }
  drain: { grace: 3s }
  restart: { initial: 100ms, max: 5s, resetAfter: 10s }
  endpoints: { file: run/bots.json, labels: { job: bots } }
  hook: [/bin/true]
  output: { maxBytes: 1Mi, files: 3 }
  measure: { every: 250ms }
"#;

#[test]
fn a_whole_document_is_read_and_other_kinds_are_passed_over() {
    let documents = parse_documents("fleet.yaml", WHOLE).unwrap();
    assert_eq!(documents.len(), 1);
    let FleetDocument { target, spec } = &documents[0];
    assert_eq!(target.as_str(), "local/ProcessFleet/bots");
    assert_eq!(spec.ports, Some(9000..=9099));
    assert_eq!(spec.requests["cpu"], Amount::from_millis(500));
    assert_eq!(spec.requests["memory"], Amount::from_units(64 << 20));
    assert_eq!(spec.health.as_ref().unwrap().probe, Probe::Http { path: "/healthz".to_owned() });
    assert_eq!(spec.measure_every, Duration::from_millis(250));
    assert_eq!(spec.output, Output { max_bytes: 1 << 20, files: 3 });
}

#[test]
fn what_is_left_out_has_a_default() {
    let text = "apiVersion: loadline.dev/v1alpha1\nkind: ProcessFleet\nmetadata: { name: a, namespace: b }\nspec: { command: sleep, replicas: 0 }\n";
    let spec = &parse_documents("f", text).unwrap()[0].spec;
    assert_eq!((spec.health.as_ref(), spec.ports.as_ref(), spec.measure_every), (None, None, Duration::from_secs(1)));
}

#[test]
fn a_mistake_is_named_with_its_place_and_its_mend() {
    for (from, to, place, words) in [
        ("  replicas: 2\n", "  replicas: 2\n  replica: 3\n", "line 16, column 3: spec.replica: unknown field", "did you mean `replicas`?"),
        ("period: 500ms", "period: 500", "line 19, column 13: spec.health.period", "`500s`"),
        ("memory: 64Mi", "memory: 64MB", "line 16, column 33: spec.requests.memory", "64MB"),
        ("\"9000-9099\"", "\"9099-9000\"", "line 14, column 10: spec.ports", "the smaller first"),
        ("\"9000-9099\"", "\"9000-9000\"", "line 14, column 10: spec.ports", "widen the range"),
        ("    http: { path: /healthz }\n", "", "line 17, column 3: spec.health", "one of `http` and `tcp`"),
        ("path: /healthz", "path: healthz", "line 18, column 19: spec.health.http.path", "begins with a slash"),
        ("every: 250ms", "every: 100ms", "line 28, column 21: spec.measure.every", "the finest is 250ms"),
        ("  ports: \"9000-9099\"\n", "", "line 16, column 3: spec.health: it asks a port", "add `ports`"),
        ("SERVICE_TIME", "LOADLINE_UID", "line 13, column 3: spec.env", "Loadline's own"),
        ("metadata: { name: bots }\nspec:\n", "metadata: { name: ../bots }\nspec:\n", "line 9, column 19: metadata.name", "a letter or digit first"),
        ("replicas: 2", "replicas: 1001", "line 15, column 13: spec.replicas", "from 0 to 1000"),
        ("max: 5s", "max: 5ms", "line 24, column 3: spec.restart", "at most `max`"),
        ("loadline.dev/v1alpha1\nkind: ProcessFleet", "loadline.dev/v9\nkind: ProcessFleet", "line 7, column 13: apiVersion", "v1alpha1"),
        ("  command: target/debug/loadgen\n", "", "line 10, column 1: spec: `command` is missing", "name the program"),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let error = parse_documents("fleet.yaml", &WHOLE.replace(from, to)).unwrap_err();
        assert!(error.starts_with(&format!("fleet.yaml: {place}")) && error.contains(words), "{to}: {error}");
    }
}

#[test]
fn every_mistake_is_found_at_once() {
    let wrong =
        WHOLE.replace("replicas: 2", "replicas: -1").replace("cpu: 0.5", "cpu: lots").replace("\"9000-9099\"", "\"9099-9000\"").replace("args:", "argz:");
    let errors = parse_documents("fleet.yaml", &wrong).unwrap_err();
    let fields: Vec<&str> = errors.lines().map(|line| line.split(": ").nth(2).unwrap()).collect();
    assert_eq!(fields, ["spec.argz", "spec.ports", "spec.replicas", "spec.requests.cpu"], "{errors}");
}
