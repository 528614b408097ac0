//! Real load for Loadline: workers, a balancing load generator, trace replay and the demo.
//!
//! | module | what it is |
//! |---|---|
//! | [`worker`] | an HTTP server with a capacity, and the metrics that it pushes: what a fleet is made of |
//! | [`drive`] | an open-loop load generator that balances over a fleet's endpoints |
//! | [`trace`] | requests a minute, read from a file: what the driver replays |
//! | [`demo`] | Loadline, a fleet and the driver in one terminal |
//! | [`simulate`] | Loadline's own stages under a virtual clock, with everything going wrong |
//! | `chaos` | three Loadlines on a real Kafka broker, killed and stopped under load, and what must hold afterwards; with the feature `kafka` |
//! | `bench` | what the pipeline costs on real servers, each figure beside its target; with the feature `kafka` |
//! | [`client`], [`random`], [`units`], [`clock`], `last_lines`, `program`, `waiting`, `broker` | what they share |
//!
//! All but the simulation, the measurements and the chaos know Loadline as any user does: by its command line, its files and its HTTP interface.

#[cfg(feature = "kafka")]
pub mod bench;
#[cfg(feature = "kafka")]
mod broker;
#[cfg(feature = "kafka")]
pub mod chaos;
pub mod client;
pub mod clock;
pub mod demo;
pub mod drive;
mod last_lines;
#[cfg(feature = "kafka")]
mod place;
mod program;
pub mod random;
pub mod simulate;
pub mod trace;
pub mod units;
#[cfg(feature = "kafka")]
mod waiting;
pub mod worker;
