//! The commands: one file each. Arguments in, text and an exit code out.

use std::io::Write;

use clap::{Parser, Subcommand};

pub mod policy;
pub mod replay;

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
