//! Messages there and back, and what is no message.

use proptest::prelude::*;

use super::arbitrary::message;
use super::*;
use crate::model::{Tick, Timestamp};

fn topic_of(message: &Message) -> Topic {
    match message {
        Message::Samples(_) => Topic::Metrics,
        Message::Control(_) => Topic::Control,
        Message::Signal(_) => Topic::Signals,
        Message::Request(_) | Message::RequestsTick(_) | Message::RequestsCarried(_) => Topic::Requests,
        Message::Command(_) => Topic::Commands,
        Message::Audit(_) => Topic::Audit,
        Message::Alert(_) => Topic::Alerts,
        Message::DeadLetter(_) => Topic::DeadLetters,
        Message::Schema(_) => Topic::Schemas,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_message_comes_back_as_it_was(message in message()) {
        let bytes = write(&message).unwrap();
        prop_assert_eq!(&bytes, &encode(&message));
        prop_assert_eq!(decode(topic_of(&message), &bytes).unwrap(), message);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_an_error(message in message(), cut in any::<prop::sample::Index>(), more in prop::collection::vec(any::<u8>(), 1..4)) {
        let topic = topic_of(&message);
        let mut bytes = encode(&message);
        let end = cut.index(bytes.len());
        prop_assert!(decode(topic, &bytes[..end]).is_err(), "cut at {} of {}", end, bytes.len());
        bytes.extend(more);
        prop_assert!(decode(topic, &bytes).is_err(), "with bytes behind it");
    }

    #[test]
    fn on_every_other_topic_it_is_refused_by_name(message in message(), other in prop::sample::select(Topic::ALL.to_vec())) {
        let bytes = encode(&message);
        match decode(other, &bytes) {
            Ok(read) => prop_assert_eq!(topic_of(&read), other),
            Err(WireError::WrongTopic { topic, .. }) => prop_assert!(topic == other && topic_of(&message) != other),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), record in prop::sample::select(RecordType::ALL.to_vec()), framed in any::<bool>()) {
        let mut bytes = Vec::new();
        if framed {
            bytes.extend([0xc3, 0x01]);
            bytes.extend(schemas::held().unwrap().fingerprint_of(record).to_le_bytes());
        }
        bytes.extend(body);
        for topic in Topic::ALL {
            let _ = decode(topic, &bytes);
        }
    }

    #[test]
    fn no_changed_byte_makes_it_panic(message in message(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode(topic_of(&message), &bytes);
    }
}

#[test]
fn the_frame_is_avros_single_object_encoding() {
    let bytes = encode(&Message::RequestsTick(Tick {}));
    assert_eq!(bytes[..2], [0xc3, 0x01]);
    // The fingerprint of the canonical form of a record without fields, little endian.
    assert_eq!(bytes[2..], schemas::held().unwrap().fingerprint_of(RecordType::Tick).to_le_bytes());
    assert_eq!(bytes.len(), 10);
}

#[test]
fn an_unknown_fingerprint_is_named() {
    let error = decode(Topic::Signals, &[0xc3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "written with an unknown schema, fingerprint 0807060504030201 (in the record 0102030405060708): write it by the schema of this release, in its directory \
         schemas, or by one of a schema registry"
    );
    let error = decode(Topic::Signals, b"{\"at\":1764000000000}").unwrap_err();
    assert_eq!(error.to_string(), "begins with 7b 22 in place of c3 01 or 00: neither Avro's single-object encoding nor Confluent's framing");
    let error = decode(Topic::Signals, b"").unwrap_err();
    assert_eq!(error.to_string(), "0 bytes are too few for a message, which begins with a header of 10");
}

#[test]
fn an_error_names_the_message_and_stays_short() {
    let mut bytes = encode(&Message::Samples(crate::model::SampleBatch::default()));
    bytes.truncate(11);
    let error = decode(Topic::Metrics, &bytes).unwrap_err().to_string();
    assert!(error.starts_with("not a SampleBatch: ") && error.len() < 400, "{error}");
}

#[test]
fn the_largest_record_of_the_log_is_read() {
    let letter = DeadLetter { topic: "metrics".to_owned(), partition: 0, offset: 1, reason: String::new(), record: vec![7; crate::log::MAX_RECORD_BYTES - 64] };
    let bytes = encode(&Message::DeadLetter(letter.clone()));
    assert_eq!(decode(Topic::DeadLetters, &bytes).unwrap(), Message::DeadLetter(letter));
}

#[test]
fn a_length_beyond_all_reason_is_refused_before_it_is_allocated() {
    let mut bytes = vec![0xc3, 0x01];
    bytes.extend(schemas::held().unwrap().fingerprint_of(RecordType::SourceError).to_le_bytes());
    // The first field is a string of 2^40 bytes.
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x40]);
    assert!(matches!(decode(Topic::Signals, &bytes), Err(WireError::Malformed { .. })));
}

#[test]
fn a_small_part_is_small() {
    let reading = crate::model::Reading { count: 4, last_at: Timestamp::from_millis(1_764_000_000_000), ..crate::model::Reading::default() };
    let pane = crate::model::Pane {
        metric: "cpu".parse().unwrap(),
        kind: crate::model::Kind::Gauge,
        start: Timestamp::from_millis(1_764_000_000_000),
        end: Timestamp::from_millis(1_764_000_005_000),
        instances: [("api-1".parse().unwrap(), reading)].into(),
        sketch: None,
    };
    let part = crate::model::Part { target: "prod/Deployment/api".parse().unwrap(), source: 0, panes: vec![pane] };
    let bytes = encode(&Message::Signal(Signal::Part(part)));
    assert!(bytes.len() < 80, "{} bytes", bytes.len());
}

/// A time before all calendars is no date for a consumer in another language.
#[test]
fn a_decision_before_anything_was_measured_has_no_time_of_what_was() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let decision = proptest::strategy::Strategy::new_tree(&super::arbitrary::decision(), &mut runner).unwrap();
    let decision = crate::model::Decision { through: crate::model::Timestamp::MIN, ..proptest::strategy::ValueTree::current(&decision) };
    assert_eq!(serde_json::to_value(&decision).unwrap()["through"], serde_json::Value::Null);
    let message = Message::Audit(Audit::Decision(decision));
    assert_eq!(decode(Topic::Audit, &encode(&message)).unwrap(), message);
}
