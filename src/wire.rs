//! Bytes to model and back.

pub mod document;

use crate::log::Topic;
use crate::model::Message;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not what the framing or the schema says.
    #[error("{reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written with a schema that this process does not hold.
    #[error("written with an unknown schema, fingerprint {fingerprint:016x}")]
    UnknownSchema {
        /// Its CRC-64-AVRO fingerprint.
        fingerprint: u64,
    },
    /// A known message, but not one of this topic.
    #[error("a {name} does not belong on {topic}")]
    WrongTopic {
        /// The message's schema.
        name: &'static str,
        /// Where it stood.
        topic: Topic,
    },
}

/// Encodes a message in the framing of the log.
#[expect(clippy::todo, reason = "skeleton")]
pub fn encode(_message: &Message) -> Vec<u8> {
    todo!()
}

/// Decodes a message that stands on `topic`.
///
/// # Errors
/// [`WireError`]; the record is a dead letter then.
#[expect(clippy::todo, reason = "skeleton")]
pub fn decode(_topic: Topic, _bytes: &[u8]) -> Result<Message, WireError> {
    todo!()
}
