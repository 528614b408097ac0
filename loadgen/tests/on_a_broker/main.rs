//! What runs on a broker of its own, and holds no time against a bound: at the same time, as most of it waits.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod demo;
