//! The commands: one file each. A command is a struct of its arguments and a `run` that writes to
//! what it is given and answers with the exit code.

pub mod client;
pub mod config;
mod paint;
pub mod policy;
pub mod replay;
pub mod scale;
pub mod status;
pub mod table;
pub mod why;

pub use paint::Paint;

use std::io::Write;

use clap::{Parser, Subcommand};

/// Keeps every service on its load line: enough replicas for its load, and no more.
#[derive(Debug, Parser)]
#[command(name = "loadline", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replay signals: print every decision.
    Replay(replay::ReplayArgs),
    /// Check and explain policy files.
    Policy(policy::PolicyArgs),
}

/// Runs a command; its answer goes to `out`.
///
/// # Errors
/// Whatever keeps the command from answering; the process then exits with code 2.
pub fn run(cli: &Cli, mut out: &mut dyn Write) -> anyhow::Result<u8> {
    match &cli.command {
        Command::Replay(args) => replay::run(args, out),
        Command::Policy(args) => policy::run(args, &mut out),
    }
}

/// How a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[cfg(test)]
mod tests;
