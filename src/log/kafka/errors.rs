//! What each error of Kafka means for a caller: the one place that decides it.
//!
//! Of a transaction librdkafka tells three things: that the same call may be tried again, that the transaction must be aborted, or that the
//! producer is of no use any more. What is none of them is taken for the last.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;

use super::settings::is_secret;
use crate::log::{LogError, Topic};

/// What to do after a step of a transaction failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The same call again.
    Again,
    /// Abort; then the batch may be tried anew.
    Abort,
    /// The producer is dead: make a new one, after it was seen who owns the partition.
    Dead,
}

/// What to do after a step of a transaction failed.
pub(super) fn of_step(error: &KafkaError) -> Step {
    match error {
        // A broker forgets who has not written for days (transactional.id.expiration.ms): the transaction can be aborted, and each one after it fails alike.
        KafkaError::Transaction(error) if matches!(error.code(), Code::InvalidProducerIdMapping | Code::UnknownProducerId) => Step::Dead,
        KafkaError::Transaction(error) if error.is_fatal() => Step::Dead,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Step::Abort,
        KafkaError::Transaction(error) if error.is_retriable() => Step::Again,
        _ => Step::Dead,
    }
}

/// Whether it says that another one took this member's place.
pub(super) fn is_replaced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::FencedInstanceId | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// Whether it says that this member is in its group no more, or not in its present generation.
pub(super) fn is_outside(code: Code) -> bool {
    matches!(code, Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress | Code::FencedInstanceId)
}

/// Whether it says that the group is about to change, with this member in it.
pub(super) fn is_changing(code: Code) -> bool {
    matches!(code, Code::IllegalGeneration | Code::RebalanceInProgress)
}

/// Whether it says that a broker is about to change its part: the same question has an answer soon.
pub(super) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
    )
}

/// Whether it is said of a connection alone: what was asked for is asked for again on the next one.
pub(super) fn is_of_connection(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve))
}

/// Why a setting is not taken. What is unknown may be a slip in the name of a secret, so of that the value is never told.
pub(super) fn of_setting(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, reason, name, _) => {
            format!("{name}: {reason}; see librdkafka's CONFIGURATION.md for its settings")
        }
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => format!("{name}: its value is not one that librdkafka takes; see its CONFIGURATION.md"),
        KafkaError::ClientConfig(_, reason, name, value) => format!("{name} = {value:?}: {reason}; see librdkafka's CONFIGURATION.md"),
        error => error.to_string(),
    }
}

/// What a client that cannot be made says.
pub(super) fn unusable(error: &KafkaError) -> LogError {
    match error {
        KafkaError::ClientConfig(..) => LogError::Fatal { reason: format!("setting of the Kafka client: {}", of_setting(error)) },
        error => {
            let reason = format!(
                "the Kafka client cannot be made: {error}; some settings of it do not go together (kafka.config names their file): change or remove those that this names"
            );
            LogError::Fatal { reason }
        }
    }
}

/// What is told of an error.
pub(super) fn words(error: &KafkaError) -> String {
    match error {
        // Of a call that was given up here.
        KafkaError::Canceled => "Kafka: the brokers that keep the positions of groups and the outcome of transactions do not answer".to_owned(),
        error => format!("Kafka: {error}"),
    }
}

/// What reading or asking failed for. What needs a person is fatal: rights, names.
pub(super) fn of_reading(error: &KafkaError) -> LogError {
    let reason = words(error);
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    match code {
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed) => {
            LogError::Fatal { reason: format!("{reason}; grant this user what `loadline topology acls` prints for its roles") }
        }
        Some(Code::InvalidTransactionTimeout) => LogError::Fatal {
            reason: format!(
                "{reason}; the brokers let no transaction last for so long (their transaction.max.timeout.ms): set transaction.timeout.ms in the settings of the client to what they allow, \
                 10000 or more"
            ),
        },
        Some(Code::InvalidSessionTimeout) => LogError::Fatal {
            reason: format!(
                "{reason}; the brokers take no member with such a session (their group.min.session.timeout.ms and group.max.session.timeout.ms, 6 s and 30 min where they do not say): \
                 set session.timeout.ms in the settings of the client to what they allow"
            ),
        },
        Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
            LogError::Fatal { reason: format!("{reason}; see the user and the password in the settings of the Kafka client (kafka.config names their file)") }
        }
        Some(code) if is_gone(code) => LogError::Fatal { reason: format!("{reason}; a topic of Loadline is gone") },
        _ => LogError::Retry { reason },
    }
}

/// What reading a topic, writing to it, or asking about it failed for.
pub(super) fn of_topic(error: &KafkaError, name: &str) -> LogError {
    match error.rdkafka_error_code() {
        Some(code) if is_gone(code) => LogError::Fatal {
            reason: format!(
                "Kafka: {error}; the topic {name} is gone, or lacks a partition: `loadline topology check` says which, and docs/kafka.md how to go on (\"A topic that is lost\")"
            ),
        },
        _ => of_reading(error),
    }
}

fn is_gone(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}

/// Whether a record whose delivery failed so may be there all the same.
pub(super) fn may_be_stored(error: &KafkaError) -> bool {
    let refused = [Code::MessageSizeTooLarge, Code::InvalidMessageSize, Code::QueueFull, Code::TopicAuthorizationFailed, Code::ClusterAuthorizationFailed];
    !error.rdkafka_error_code().is_some_and(|code| refused.contains(&code) || is_gone(code))
}

/// Why a record was not appended.
pub(super) fn of_delivery(error: &KafkaError, topic: Topic, name: &str, bytes: usize) -> LogError {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => LogError::TooLarge { topic, bytes },
        Some(Code::MessageTimedOut) => LogError::Retry {
            reason: format!("Kafka: {name} took no record in time: see that its brokers run, and with `loadline topology check` that it is there"),
        },
        _ => of_topic(error, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not known not to have taken effect may have: nothing goes on with such a producer.
    #[test]
    fn what_is_not_known_of_a_transaction_is_fatal() {
        let unknown = [KafkaError::Canceled, KafkaError::MessageProduction(Code::BrokerTransportFailure), KafkaError::Global(Code::OperationTimedOut)];
        assert!(unknown.iter().all(|error| of_step(error) == Step::Dead));
    }
}
