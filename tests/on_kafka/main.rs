//! What is tested on a real Kafka broker, but for the contract of the log (`log_contract`): one program, so that all of it shares a broker and waits at the same time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/installation.rs"]
mod installation;
#[path = "../common/kafka.rs"]
mod kafka;
#[path = "../common/page.rs"]
mod page;
mod proxy;
#[path = "../common/registry.rs"]
mod registry;
#[path = "../common/tail.rs"]
mod tail;

mod client;
mod disk_table;
mod export;
mod faults;
mod foreign_clients;
mod lag;
mod migrate;
mod mixed_versions;
mod run;
mod schema_registry;
mod topology;
