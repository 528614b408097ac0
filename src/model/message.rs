//! Everything that stands on a topic, as one type.

use serde::{Deserialize, Serialize};

use super::{
    AnnounceAgain, CarriedState, Command, Decision, FleetObservation, Grant, ManualChange, Mark, Outcome, Part, PolicyAnnouncement, PolicyEntry,
    PolicyRejected, PolicyRemoved, Request, RoundEnd, SampleBatch, SourceError, TargetId, Tick, Timestamp,
};

/// An entry of a target's log, or of all targets of its partition.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// A source's part of a target's panes.
    Part(Part),
    /// Partition-wide: a source is complete up to a time.
    Mark(Mark),
    /// Partition-wide: the clock.
    Tick(Tick),
    /// What was seen of a target's replicas.
    Fleet(FleetObservation),
    /// A target's policy from now on.
    Policy(PolicyAnnouncement),
    /// What came of a command.
    Outcome(Outcome),
    /// The arbiter's answer to a claim.
    Grant(Grant),
    /// A source of a metric failed.
    SourceError(SourceError),
    /// What another installation remembered of a target that was migrated into this one.
    Carried(CarriedState<TargetId>),
}

impl Signal {
    /// The target that it concerns; `None` where it concerns the whole partition.
    pub fn target(&self) -> Option<&TargetId> {
        match self {
            Signal::Mark(_) | Signal::Tick(_) => None,
            Signal::Part(s) => Some(&s.target),
            Signal::Fleet(s) => Some(&s.target),
            Signal::Policy(s) => Some(&s.target),
            Signal::Outcome(s) => Some(&s.target),
            Signal::Grant(s) => Some(&s.target),
            Signal::SourceError(s) => Some(&s.target),
            Signal::Carried(s) => Some(&s.key),
        }
    }
}

/// An entry of `control`.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlEntry {
    /// A source has this policy.
    Policy(PolicyEntry),
    /// A document of a source could not be used.
    Rejected(PolicyRejected),
    /// A source's round is complete.
    RoundEnd(RoundEnd),
    /// A source takes one policy back.
    Removed(PolicyRemoved),
    /// A stage lost signals, policies perhaps among them.
    AnnounceAgain(AnnounceAgain),
    /// What another installation remembered of a target or a source, and was migrated into this one.
    Carried(CarriedState),
}

/// An entry of `requests`.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestsEntry {
    /// A target's claim.
    Claim(Request),
    /// The arbiter's clock: concerns every fleet of the partition.
    Tick(Tick),
    /// What another installation remembered of a fleet, and was migrated into this one.
    Carried(CarriedState),
}

/// An entry of `audit`.
#[derive(Debug, Clone, PartialEq)]
pub enum Audit {
    /// A decision that changed something.
    Decision(Decision),
    /// A grant.
    Grant(Grant),
    /// A command that was issued.
    Command(Command),
    /// What came of a command.
    Outcome(Outcome),
    /// A policy took effect or was removed.
    Policy(PolicyAnnouncement),
    /// A document was refused.
    Rejected(PolicyRejected),
    /// A person set a count by hand.
    ByHand(ManualChange),
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// To know.
    Info,
    /// To look at in the next hours.
    Warning,
    /// To look at now.
    Critical,
}

impl Severity {
    /// Its name, as in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "Info",
            Severity::Warning => "Warning",
            Severity::Critical => "Critical",
        }
    }
}

/// Whether an alert's cause is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertState {
    /// It is.
    Firing,
    /// It is no more.
    Resolved,
    /// It happened once, and has no end that could be told.
    Event,
}

/// What a person should look at. The same (target, name, subject) is the same alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// The target, where it is about one.
    #[serde(default)]
    pub target: Option<TargetId>,
    /// What kind of alert, in upper camel case, e.g. `AllMetricsBlind`.
    pub name: String,
    /// What it is about within the target (a metric, a file), empty where nothing.
    #[serde(default)]
    pub subject: String,
    /// How urgent.
    pub severity: Severity,
    /// Whether its cause is there.
    pub state: AlertState,
    /// What is wrong and the way out, in a sentence.
    pub message: String,
    /// Since when.
    pub at: Timestamp,
}

/// A record that could not be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The topic that it stood on.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// Why it could not be used.
    pub reason: String,
    /// Its first 64 kB.
    #[serde(with = "bytes")]
    pub record: Vec<u8>,
}

/// On `schemas`: how a release writes one of its messages. Releases that do not have it within read by it what that one wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaEntry {
    /// The release that said so first.
    pub release: String,
    /// The schema, as JSON.
    pub schema: String,
    /// The id of a registry by which messages are written with it, where they are.
    #[serde(default)]
    pub id: Option<i64>,
}

/// Bytes in Avro, an array of numbers in JSON.
mod bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Everything that stands on a topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// On `metrics`.
    Samples(SampleBatch),
    /// On `control`.
    Control(ControlEntry),
    /// On `signals`.
    Signal(Signal),
    /// On `requests`: a claim.
    Request(Request),
    /// On `requests`: the arbiter's clock.
    RequestsTick(Tick),
    /// On `requests`: what was migrated.
    RequestsCarried(CarriedState),
    /// On `commands`.
    Command(Command),
    /// On `audit`.
    Audit(Audit),
    /// On `alerts`.
    Alert(Alert),
    /// On `dead-letters`.
    DeadLetter(DeadLetter),
    /// On `schemas`.
    Schema(SchemaEntry),
}

impl TryFrom<Message> for SampleBatch {
    type Error = Message;
    fn try_from(message: Message) -> Result<Self, Message> {
        if let Message::Samples(batch) = message { Ok(batch) } else { Err(message) }
    }
}

impl TryFrom<Message> for ControlEntry {
    type Error = Message;
    fn try_from(message: Message) -> Result<Self, Message> {
        if let Message::Control(entry) = message { Ok(entry) } else { Err(message) }
    }
}

impl TryFrom<Message> for Signal {
    type Error = Message;
    fn try_from(message: Message) -> Result<Self, Message> {
        if let Message::Signal(signal) = message { Ok(signal) } else { Err(message) }
    }
}

impl TryFrom<Message> for RequestsEntry {
    type Error = Message;
    fn try_from(message: Message) -> Result<Self, Message> {
        match message {
            Message::Request(request) => Ok(RequestsEntry::Claim(request)),
            Message::RequestsTick(tick) => Ok(RequestsEntry::Tick(tick)),
            Message::RequestsCarried(carried) => Ok(RequestsEntry::Carried(carried)),
            other => Err(other),
        }
    }
}
