//! For `#[serde(with)]`: a time that is not known, which is [`Timestamp::MIN`] here, travels as null: no other program has a date for it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    Some(*time).filter(|time| *time != Timestamp::MIN).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(Timestamp::MIN))
}

/// Where nothing is written.
pub(super) fn unknown() -> Timestamp {
    Timestamp::MIN
}
