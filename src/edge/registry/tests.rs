use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;

use super::*;
use crate::edge::testing::Running;
use crate::model::Timestamp;

const NOT_KNOWN: &str = r#"{"error_code":40403,"message":"Schema not found"}"#;

/// A registry of which each id is answered by `answer`, and how often it was asked for one.
fn registry(answer: impl Fn(u32) -> (u16, String) + Clone + Send + Sync + 'static) -> (Running, Registry, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let by_id = move |Path(id): Path<u32>, headers: HeaderMap| async move {
        count.fetch_add(1, Ordering::SeqCst);
        assert_eq!(headers["authorization"], "Basic YW5hOnM6ZWNyZXQ=", "ana:s:ecret");
        let (status, body) = answer(id);
        (StatusCode::from_u16(status).unwrap(), body)
    };
    let server = Running::start(Router::new().route("/schemas/ids/{id}", get(by_id)));
    let registry = Registry::new(&server.base, Some("ana:s:ecret\n")).unwrap();
    (server, registry, asked)
}

fn schema(text: &str) -> String {
    json!({ "schema": text }).to_string()
}

/// A record of `metrics` that names its schema by this id.
fn record(id: u32) -> RawRecord {
    let value = [&[0][..], &id.to_be_bytes()].concat();
    RawRecord { partition: 0, offset: 0, at: Timestamp::MIN, key: None, content_type: None, value }
}

#[test]
fn an_id_is_asked_for_once() {
    let schemas = Schemas::of_release().unwrap();
    let (_server, registry, asked) = registry(|id| match id {
        1 => (200, schema(RecordType::SampleBatch.schema_json())),
        2 => (404, NOT_KNOWN.to_owned()),
        3 => (200, schema(r#"{"type":"record","name":"Trade","namespace":"com.example","fields":[]}"#)),
        4 => (200, r#"{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\";"}"#.to_owned()),
        _ => (200, r#"{"schema":"\"a.B\"","references":[{"name":"a.B","subject":"a.B","version":1}]}"#.to_owned()),
    });
    for id in [1, 2, 3, 4, 5, 1, 2, 3, 4, 5] {
        registry.know(&schemas, id).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    assert_eq!(schemas.of_id(1).unwrap().unwrap().record(), RecordType::SampleBatch);
    let reason = |id| schemas.of_id(id).unwrap().err().unwrap();
    assert_eq!(reason(2), format!("the registry at {} does not know it", registry.url()));
    assert!(reason(3).contains("\"com.example.Trade\" is not one of Loadline's messages"), "{}", reason(3));
    assert_eq!([reason(4), reason(5)], ["it is of PROTOBUF, not Avro", "it refers to other schemas: register it as a whole"]);
}

/// What no registry says decides nothing: a proxy's page, a fault, another user.
#[test]
fn no_answer_is_none_and_a_registry_in_trouble_is_left_alone() {
    for (status, body) in [(404, "no such page"), (404, r#"{"error_code":404,"message":"NotFound"}"#), (500, NOT_KNOWN), (401, ""), (200, "<html>")] {
        let schemas = Schemas::of_release().unwrap();
        let (_server, registry, asked) = registry(move |_| (status, body.to_owned()));
        let refused = registry.know(&schemas, 1).unwrap_err();
        assert!(refused.contains(registry.url()) && refused.starts_with("schema 1: "), "{refused}");
        assert_eq!((registry.know(&schemas, 2).unwrap_err(), asked.load(Ordering::SeqCst)), (refused, 1), "not asked again at once");
        assert!(schemas.of_id(1).is_none() && schemas.of_id(2).is_none());
    }
}

#[test]
fn what_is_known_needs_no_registry() {
    let schemas = Schemas::of_release().unwrap();
    let (server, registry, _) = registry(|_| (200, schema(RecordType::SampleBatch.schema_json())));
    registry.know(&schemas, 1).unwrap();
    drop(server);
    registry.know(&schemas, 1).unwrap();
    registry.know(&schemas, 2).unwrap_err();
    registry.know(&schemas, 1).unwrap();
}

#[test]
fn only_records_of_others_are_looked_at() {
    let gone = Registry::new("http://127.0.0.1:9", None).unwrap();
    assert!(gone.look_up(Topic::Signals, &record(1)).is_ok());
    assert!(gone.look_up(Topic::Metrics, &RawRecord { value: b"{}".to_vec(), ..record(1) }).is_ok());
    assert!(gone.look_up(Topic::Metrics, &record(1)).is_err() && gone.look_up(Topic::Control, &record(1)).is_err());
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_without_what_is_secret() {
    let refused = |url: &str, credentials: Option<&str>| Registry::new(url, credentials).unwrap_err().to_string();
    let reasons = [
        refused("registry:8081", None),
        refused("http://ana:secret@registry", None),
        refused("https://registry", None),
        refused("http://registry", Some("secret")),
    ];
    assert!(reasons.iter().all(|reason| !reason.contains("secret")), "{reasons:?}");
    assert!(reasons[1].contains("kafka.registry.credentials") && reasons[2].contains("a proxy") && reasons[3].contains("USER:PASSWORD"), "{reasons:?}");
    let registry = Registry::new("http://registry/", Some("ana:secret")).unwrap();
    assert_eq!(format!("{registry:?}"), "Registry { url: \"http://registry\", .. }");
}
