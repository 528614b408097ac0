//! Messages of the log: single-object bytes on any topic.
//!
//! An input that begins with the marker `C3` is a message. Of any other the first byte chooses a message of this release, whose
//! header is put before the rest: no mutation guesses a fingerprint of 64 bits.

use loadline::log::Topic;
use loadline::wire::schemas::{self, RecordType};
use loadline::wire::{self, WireError};

/// The bytes of a message, or why they are none; what can be read can be written, and is then the same.
pub fn check(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    if *first == 0xc3 {
        on_every_topic(input);
    } else {
        let record = RecordType::ALL[usize::from(*first) % RecordType::ALL.len()];
        let mut message = vec![0xc3, 0x01];
        message.extend(schemas::held().expect("the schemas of this release").fingerprint_of(record).to_le_bytes());
        message.extend_from_slice(body);
        on_every_topic(&message);
    }
}

fn on_every_topic(bytes: &[u8]) {
    for topic in Topic::ALL {
        match wire::decode(topic, bytes) {
            Ok(message) => {
                // Bytes are compared, since a value that is no number is not equal to itself.
                let written = wire::encode(&message);
                let read = wire::decode(topic, &written).unwrap_or_else(|error| panic!("{message:?} was written as what cannot be read: {error}"));
                assert_eq!(wire::encode(&read), written, "{message:?}");
            }
            Err(error) => {
                said(&error, topic);
            }
        }
    }
}

fn said(error: &WireError, topic: Topic) {
    let message = error.to_string();
    super::said(&message);
    if let WireError::WrongTopic { .. } = error {
        assert!(message.contains(topic.name()), "{message}");
    }
}
