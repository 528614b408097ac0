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
        ("  replicas: 2\n", "  replicas: 2\n  replica: 3\n", "fleet.yaml:16:3", "replica"),
        ("period: 500ms", "period: 500", "fleet.yaml:19:13", "250ms"),
        ("memory: 64Mi", "memory: 64MB", "fleet.yaml:16:", "64Mi"),
        ("\"9000-9099\"", "\"9099-9000\"", "fleet.yaml:7:", "the smaller first"),
        ("\"9000-9099\"", "\"9000-9000\"", "fleet.yaml:7:", "widen the range"),
        ("    http: { path: /healthz }\n", "", "fleet.yaml:7:", "one of http and tcp"),
        ("path: /healthz", "path: healthz", "fleet.yaml:7:", "begins with a slash"),
        ("every: 250ms", "every: 100ms", "fleet.yaml:7:", "the finest is 250 ms"),
        ("  ports: \"9000-9099\"\n", "", "fleet.yaml:7:", "add spec.ports"),
        ("SERVICE_TIME", "LOADLINE_UID", "fleet.yaml:7:", "Loadline's own"),
        ("metadata: { name: bots }\nspec:\n", "metadata: { name: ../bots }\nspec:\n", "fleet.yaml:7:", "metadata.name"),
        ("replicas: 2", "replicas: 1001", "fleet.yaml:7:", "at most 1000"),
        ("max: 5s", "max: 5ms", "fleet.yaml:7:", "spec.restart"),
        ("loadline.dev/v1alpha1\nkind: ProcessFleet", "loadline.dev/v9\nkind: ProcessFleet", "fleet.yaml:7:", "v1alpha1"),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let error = parse_documents("fleet.yaml", &WHOLE.replace(from, to)).unwrap_err().to_string();
        assert!(error.starts_with(place) && error.contains(words), "{to}: {error}");
    }
}
