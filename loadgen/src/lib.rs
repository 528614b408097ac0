//! Real load for Loadline: workers, a balancing load generator, trace replay and the demo.
//!
//! | module | what it is |
//! |---|---|
//! | [`worker`] | an HTTP server with a capacity, and the metrics that it pushes: what a fleet is made of |
//! | [`drive`] | an open-loop load generator that balances over a fleet's endpoints |
//! | [`trace`] | requests a minute, read from a file: what the driver replays |
//! | [`demo`] | Loadline, a fleet and the driver in one terminal |
//! | [`simulate`] | Loadline's own stages under a virtual clock, with everything going wrong |
//! | `bench` | what the pipeline costs on real servers, each figure beside its target; with the feature `kafka` |
//! | [`client`], [`random`], [`units`], [`clock`], `last_lines` | what they share |
//!
//! All but the simulation and the measurements know Loadline as any user does: by its command line, its files and its HTTP interface.

#[cfg(feature = "kafka")]
pub mod bench;
pub mod client;
pub mod clock;
pub mod demo;
pub mod drive;
mod last_lines;
pub mod random;
pub mod simulate;
pub mod trace;
pub mod units;
pub mod worker;
