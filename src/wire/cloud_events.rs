//! Records of `alerts` and `audit` as events of [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md), in the binary mode of
//! its [binding to Kafka](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md): what a consumer who knows nothing of
//! Loadline wants to know of a record stands in its headers, and the record's bytes are as ever.
//!
//! A record that is appended again has the same `id`: consumers tell repetitions by it.

use super::schemas::RecordType;
use crate::log::{RawAppend, Topic};
use crate::model::{Audit, Message, TargetId, Timestamp};

/// The version of `CloudEvents`.
const VERSION: &str = "1.0";
/// What the bytes are: Avro, in the single-object encoding.
const CONTENT_TYPE: &str = "application/avro";

/// The headers of a record that goes to the topic of this full name; none where it is no event for others.
pub fn headers(topic_name: &str, append: &RawAppend) -> Vec<(&'static str, String)> {
    if !matches!(append.topic, Topic::Alerts | Topic::Audit) {
        return Vec::new();
    }
    let Some((record, message)) = message_of(append) else { return Vec::new() };
    let mut headers = vec![
        ("content-type", CONTENT_TYPE.to_owned()),
        ("ce_specversion", VERSION.to_owned()),
        ("ce_type", record.full_name()),
        ("ce_source", format!("/{topic_name}")),
        ("ce_id", id(append)),
    ];
    let (time, subject) = about(&message);
    headers.extend(time.map(|time| ("ce_time", time.to_string())));
    headers.extend(subject.map(|subject| ("ce_subject", subject.to_owned())));
    headers
}

/// What it is, however its writer frames it.
fn message_of(append: &RawAppend) -> Option<(RecordType, Message)> {
    let message = super::decode(append.topic, &append.value).ok()?;
    let record = match &message {
        Message::Alert(_) => RecordType::Alert,
        Message::Audit(Audit::Decision(_)) => RecordType::Decision,
        Message::Audit(Audit::Grant(_)) => RecordType::Grant,
        Message::Audit(Audit::Command(_)) => RecordType::Command,
        Message::Audit(Audit::Outcome(_)) => RecordType::Outcome,
        Message::Audit(Audit::Policy(_)) => RecordType::PolicyAnnouncement,
        Message::Audit(Audit::ByHand(_)) => RecordType::ManualChange,
        Message::Audit(Audit::Rejected(_)) => RecordType::PolicyRejected,
        _ => return None,
    };
    Some((record, message))
}

/// When it happened, where the message itself says so, and the target that it is about.
fn about(message: &Message) -> (Option<Timestamp>, Option<&str>) {
    match message {
        Message::Alert(m) => (Some(m.at), m.target.as_ref().map(TargetId::as_str)),
        Message::Audit(Audit::Decision(m)) => (Some(m.at), Some(m.target.as_str())),
        Message::Audit(Audit::Grant(m)) => (None, Some(m.target.as_str())),
        Message::Audit(Audit::Command(m)) => (None, Some(m.target.as_str())),
        Message::Audit(Audit::Outcome(m)) => (None, Some(m.target.as_str())),
        Message::Audit(Audit::Policy(m)) => (None, Some(m.target.as_str())),
        Message::Audit(Audit::ByHand(m)) => (None, Some(m.target.as_str())),
        Message::Audit(Audit::Rejected(m)) => (None, m.target.as_ref().map(TargetId::as_str)),
        _ => (None, None),
    }
}

/// FNV-1a (128 bits) of key and bytes: what a record says is what it is, and its place is not known before it is appended.
fn id(append: &RawAppend) -> String {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let key = append.key.as_deref().unwrap_or_default().as_bytes();
    let hash = key.iter().chain([&0]).chain(&append.value).fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Alert, AlertState, Outcome, OutcomeResult, Severity};
    use crate::wire::{arbitrary, encode};

    fn append(topic: Topic, key: Option<&str>, message: &Message) -> RawAppend {
        RawAppend { topic, partition: 0, key: key.map(str::to_owned), value: encode(message) }
    }

    fn alert() -> Alert {
        Alert {
            target: Some("prod/Deployment/api".parse().unwrap()),
            name: "AllMetricsBlind".to_owned(),
            subject: String::new(),
            severity: Severity::Critical,
            state: AlertState::Firing,
            message: "cpu has no value".to_owned(),
            at: Timestamp::from_millis(1_764_000_000_500),
        }
    }

    #[test]
    fn an_alert_says_around_its_bytes_what_it_is() {
        let append = append(Topic::Alerts, Some("prod/Deployment/api"), &Message::Alert(alert()));
        let headers = headers("eu.loadline.alerts", &append);
        let said: Vec<String> = headers.iter().filter(|(name, _)| *name != "ce_id").map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "content-type=application/avro",
            "ce_specversion=1.0",
            "ce_type=dev.loadline.Alert",
            "ce_source=/eu.loadline.alerts",
            "ce_time=2025-11-24T16:00:00.500Z",
            "ce_subject=prod/Deployment/api",
        ];
        assert_eq!(said, expected);
    }

    /// What does not say when it happened has no time; when it was appended is the record's own.
    #[test]
    fn a_time_that_is_not_known_is_not_made_up() {
        let target = "prod/Deployment/api".parse().unwrap();
        let outcome = Outcome { target, command: "c".to_owned(), uid: None, result: OutcomeResult::Applied, replicas: Some(3), revision: None, error: None };
        let headers = headers("loadline.audit", &append(Topic::Audit, Some("prod/Deployment/api"), &Message::Audit(Audit::Outcome(outcome))));
        let value = |of: &str| headers.iter().find(|(name, _)| *name == of).map(|(_, value)| value.as_str());
        assert_eq!((value("ce_type"), value("ce_time"), value("ce_subject")), (Some("dev.loadline.Outcome"), None, Some("prod/Deployment/api")));
    }

    #[test]
    fn the_same_record_has_the_same_id_and_another_one_another() {
        let of = |key, message: &Alert| {
            let headers = headers("loadline.alerts", &append(Topic::Alerts, key, &Message::Alert(message.clone())));
            headers.into_iter().find(|(name, _)| *name == "ce_id").unwrap().1
        };
        let id = of(Some("a"), &alert());
        assert_eq!((of(Some("a"), &alert()), id.len()), (id.clone(), 32));
        assert_ne!(of(Some("b"), &alert()), id);
        assert_ne!(of(Some("a"), &Alert { state: AlertState::Resolved, ..alert() }), id);
        assert_ne!(of(None, &alert()), id);
        // What it is must not change: consumers keep it.
        let bytes = RawAppend { topic: Topic::Alerts, partition: 0, key: Some("a".to_owned()), value: b"b".to_vec() };
        assert_eq!(super::id(&bytes), "a68d6315038b5822836dbc79783ec15a");
    }

    #[test]
    fn what_is_for_loadline_alone_has_no_headers() {
        let append = append(Topic::DeadLetters, None, &Message::Alert(alert()));
        assert_eq!(headers("loadline.dead-letters", &append), []);
        assert_eq!(headers("loadline.alerts", &RawAppend { topic: Topic::Alerts, value: b"rubbish".to_vec(), ..append }), []);
    }

    proptest! {
        /// Every message of the two topics has the headers that the specification requires, none of them empty.
        #[test]
        fn every_decision_is_an_event(decision in arbitrary::decision()) {
            let headers = headers("loadline.audit", &append(Topic::Audit, Some(decision.target.as_str()), &Message::Audit(Audit::Decision(decision.clone()))));
            for required in ["content-type", "ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "ce_subject"] {
                prop_assert!(headers.iter().any(|(name, value)| *name == required && !value.is_empty()), "{required}");
            }
        }
    }
}
