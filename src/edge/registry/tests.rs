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
    let registry = Registry::new(&server.base, Some("ana:s:ecret\n"), None).unwrap();
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
fn what_no_registry_says_is_no_answer_and_the_same_is_not_asked_again_at_once() {
    for (status, body) in [(404, "no such page"), (404, r#"{"error_code":404,"message":"NotFound"}"#), (500, NOT_KNOWN), (401, ""), (200, "<html>")] {
        let schemas = Schemas::of_release().unwrap();
        let (_server, registry, asked) = registry(move |_| (status, body.to_owned()));
        let refused = registry.know(&schemas, 1).unwrap_err();
        assert!(refused.contains(registry.url()) && refused.starts_with("schema 1: "), "{refused}");
        assert_eq!((registry.know(&schemas, 1).unwrap_err(), asked.load(Ordering::SeqCst)), (refused, 1), "not asked again at once");
        assert!(schemas.of_id(1).is_none());
    }
}

/// A fault of one schema is its own; a registry that is away is not tried for each of them.
#[test]
fn a_fault_of_one_schema_holds_no_other_and_a_registry_that_is_away_is_left_alone() {
    let schemas = Schemas::of_release().unwrap();
    let (server, registry, asked) = registry(|id| match id {
        1 => (500, String::new()),
        _ => (200, schema(RecordType::SampleBatch.schema_json())),
    });
    assert!(registry.know(&schemas, 1).unwrap_err().contains("it answers 500"));
    registry.know(&schemas, 2).unwrap();
    assert!(schemas.of_id(2).unwrap().is_ok() && schemas.of_id(1).is_none());
    registry.know(&schemas, 1).unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    drop(server);
    let away = registry.know(&schemas, 3).unwrap_err();
    assert!(away.starts_with("schema 3: "), "{away}");
    assert_eq!(registry.know(&schemas, 4).unwrap_err(), away);
}

/// What a newer Loadline said in the installation is known without the registry; where that cannot be seen the registry decides nothing.
#[test]
fn the_installation_is_asked_before_the_registry() {
    let schemas: &'static Schemas = Box::leak(Box::new(Schemas::of_release().unwrap()));
    let (_server, registry, asked) = registry(|_| (404, NOT_KNOWN.to_owned()));
    let hidden = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_hidden = Arc::clone(&hidden);
    let registry = registry.beside(Box::new(move || {
        if is_hidden.load(Ordering::SeqCst) {
            return Err(LogError::Retry { reason: "no answer".to_owned() });
        }
        schemas.learn(1, Ok(RecordType::SampleBatch.schema_json())).map_err(|error| LogError::Fatal { reason: error.to_string() })
    }));
    let refused = registry.know(schemas, 1).unwrap_err();
    assert!(refused.contains("the topic schemas cannot be read: no answer"), "{refused}");
    hidden.store(false, Ordering::SeqCst);
    while registry.know(schemas, 1).is_err() {
        std::thread::yield_now();
    }
    assert!(schemas.of_id(1).unwrap().is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    registry.know(schemas, 2).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1, "what is not said there");
}

/// A schema by its GUID: of a registry that has such a page, and of one that has not.
#[test]
fn a_schema_is_asked_for_by_its_guid_where_the_registry_can_be() {
    let guid = RegistryId::Guid(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let by_guid = |Path(guid): Path<String>| async move {
        let known = guid == "01020304-0506-0708-090a-0b0c0d0e0f10";
        if known { (StatusCode::OK, schema(RecordType::SampleBatch.schema_json())) } else { (StatusCode::NOT_FOUND, NOT_KNOWN.to_owned()) }
    };
    let subjects = Router::new().route("/subjects", get(|| async { "[]" }));
    let (newer, older) = (Running::start(subjects.clone().route("/schemas/guids/{guid}", get(by_guid))), Running::start(subjects));
    let nobody = Running::start(Router::new());
    let of = |server: &Running| Registry::new(&server.base, None, None).unwrap();
    let schemas = Schemas::of_release().unwrap();
    of(&newer).know(&schemas, guid).unwrap();
    assert_eq!(schemas.of_id(guid).unwrap().unwrap().record(), RecordType::SampleBatch);
    of(&newer).know(&schemas, RegistryId::Guid(7)).unwrap();
    assert_eq!(schemas.of_id(RegistryId::Guid(7)).unwrap().err().unwrap(), format!("the registry at {} does not know it", newer.base));
    let schemas = Schemas::of_release().unwrap();
    of(&older).know(&schemas, guid).unwrap();
    let reason = schemas.of_id(guid).unwrap().err().unwrap();
    assert!(reason.contains(&older.base) && reason.contains("cannot be asked by a GUID: let the producer frame by ids"), "{reason}");
    let schemas = Schemas::of_release().unwrap();
    of(&nobody).know(&schemas, guid).unwrap_err();
    assert!(schemas.of_id(guid).is_none(), "what is no registry decides nothing");
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
    let gone = Registry::new("http://127.0.0.1:9", None, None).unwrap();
    assert!(gone.look_up(Topic::Signals, &record(1)).is_ok());
    assert!(gone.look_up(Topic::Metrics, &RawRecord { value: b"{}".to_vec(), ..record(1) }).is_ok());
    assert!(gone.look_up(Topic::Metrics, &record(1)).is_err() && gone.look_up(Topic::Control, &record(1)).is_err());
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_without_what_is_secret() {
    let refused = |url: &str, credentials: Option<&str>, ca: Option<&[u8]>| Registry::new(url, credentials, ca).unwrap_err().to_string();
    let reasons = [
        refused("registry:8081", None, None),
        refused("http://ana:secret@registry", None, None),
        refused("ftp://registry", None, None),
        refused("http://registry", Some("secret"), None),
        refused("http://registry", None, Some(b"")),
        refused("https://registry", None, Some(b"secret")),
    ];
    assert!(reasons.iter().all(|reason| !reason.contains("secret")), "{reasons:?}");
    assert!(
        reasons[1].contains("kafka.registry.credentials") && reasons[2].contains("http:// or https://") && reasons[3].contains("USER:PASSWORD"),
        "{reasons:?}"
    );
    assert!(reasons[4].contains("over http://") && reasons[5].contains("BEGIN CERTIFICATE"), "{reasons:?}");
    let registry = Registry::new("https://registry/", Some("ana:secret"), None).unwrap();
    assert_eq!(format!("{registry:?}"), "Registry { url: \"https://registry\", .. }");
}
