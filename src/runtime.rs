//! Runs the stages over a log.

pub mod clock;
mod publish;

pub use publish::{publish, raw_appends};
