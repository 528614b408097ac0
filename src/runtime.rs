//! Runs the stages over a log: [`runner`] is a step function without a wait, [`worker`] gives it a session, [`driver`] waits for it.
//! [`retention`] deletes what no stage needs any more; [`events`] are what people are told of, in lines and counts.
//!
//! State is snapshot and replay from the first day: a round of snapshots now and then, and the input
//! since. There is no second way to build state.

pub mod clock;
pub mod driver;
pub mod events;
pub mod migration;
mod publish;
pub mod rehearsal;
pub mod replay;
pub(crate) mod rest;
pub mod retention;
pub mod runner;
pub mod schemas;
mod side_by_side;
pub mod snapshots;
pub mod worker;

pub use publish::{publish, raw_appends};
pub use side_by_side::{side_by_side, side_by_side_while};
