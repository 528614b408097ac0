//! Loadline keeps every service on its load line: enough replicas for its load, and no more.
//!
//! The crate's map, in the direction of its dependencies:
//!
//! - [`model`]: the words, as types. No I/O, no clock.
//! - [`stages`]: pure folds over the log: aggregate, admit, decide, arbitrate.
//! - [`log`]: the port to the log, and the logs behind it (memory, embedded).
//! - [`wire`]: bytes to model and back: Avro, framing, JSON lines, policy documents.
//! - [`runtime`]: runs a stage over a log: sessions, commits, snapshots, restore, ticks.
//! - [`edge`]: what touches the world: HTTP, processes, files.
//! - [`cli`]: the commands.

pub mod cli;
pub mod edge;
pub mod log;
pub mod model;
pub mod runtime;
pub mod stages;
pub mod wire;
