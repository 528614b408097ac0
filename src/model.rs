//! The words of Loadline as types: what flows through the log, and what a policy says.
//!
//! No I/O, no clock, nothing that waits. Types that travel derive serde in one shape that serves
//! JSON lines and Avro alike (field names are the same in both); bytes and framing are `wire`'s.

mod amount;
mod as_long;
mod carried;
mod command;
mod control;
mod decision;
pub mod document;
mod fleet;
pub mod json;
mod known_time;
mod message;
mod names;
mod pane;
pub mod policy;
mod sample;
mod sketch;
pub mod spelling;
mod time;

pub use amount::{Amount, AmountError};
pub use carried::CarriedState;
pub use command::{Command, Grant, GrantLimit, ManualChange, OpenCommand, Outcome, OutcomeResult, Request};
pub use control::{AnnounceAgain, Order, PolicyAnnouncement, PolicyEntry, PolicyRejected, PolicyRemoved, RoundEnd};
pub use decision::{Decision, MetricReport, MetricStatus, Reason, Step, StepKind, ThresholdReport, ThresholdSide, ThresholdWait, Verdict, WhileBlind};
pub use fleet::{FleetObservation, Instance, Phase};
pub use message::{Alert, AlertState, Audit, ControlEntry, DeadLetter, Message, RequestsEntry, SchemaEntry, Severity, Signal};
pub use names::{FleetName, InstanceName, LOCAL_NAMESPACE, MetricName, NameError, TargetId};
pub use pane::{HistogramReading, Mark, Pane, Part, Reading, SourceError, Tick};
pub use sample::{HistogramValue, Kind, Sample, SampleBatch};
pub use sketch::Sketch;
pub use time::Timestamp;
