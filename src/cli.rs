//! The commands: one file each. A command is a struct of its arguments and a `run` that writes to
//! what it is given and answers with the exit code.

mod actor;
pub mod backup;
pub mod client;
pub mod completions;
pub mod config;
#[cfg(feature = "kafka")]
mod connection;
mod decisions;
pub mod doctor;
pub mod documents;
mod export;
pub mod history;
pub mod man;
#[cfg(feature = "kafka")]
pub mod migrate;
mod migrated;
mod only;
mod paint;
pub mod policy;
pub mod replay;
pub mod run;
pub mod scale;
pub mod schema;
pub mod status;
pub mod table;
#[cfg(feature = "kafka")]
pub mod topology;
pub mod watch;
pub mod why;

pub use paint::Paint;

use std::io::Write;
#[cfg(feature = "kafka")]
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::log::LogError;
#[cfg(feature = "kafka")]
use crate::runtime::clock::Stopwatch;

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
    /// Run Loadline.
    Run(run::RunArgs),
    /// What every target does now, and why.
    Status(status::StatusArgs),
    /// Why a target was decided on as it was.
    Why(why::WhyArgs),
    /// What was decided about a target, and what came of it.
    History(history::HistoryArgs),
    /// Watch the fleet or a target, live in the terminal.
    Watch(watch::WatchArgs),
    /// Set a target's count by hand.
    Scale(scale::ScaleArgs),
    /// Check, explain, test and compare policy files.
    Policy(policy::PolicyArgs),
    /// Export signals as JSON lines.
    Export(export::ExportArgs),
    /// Replay signals: print every decision.
    Replay(replay::ReplayArgs),
    /// Check a data directory, and mend it.
    Doctor(doctor::DoctorArgs),
    /// Copy a data directory, also while Loadline runs.
    Backup(backup::BackupArgs),
    /// Put a backup back.
    Restore(backup::RestoreArgs),
    /// The effective configuration, with where each value comes from.
    Config(config::ConfigCommand),
    /// The topics on Kafka: show, check and create them.
    #[cfg(feature = "kafka")]
    Topology(topology::TopologyArgs),
    /// Take the installation of a data directory over to Kafka.
    #[cfg(feature = "kafka")]
    Migrate(migrate::MigrateArgs),
    /// The JSON Schema of the documents that people write, for editors.
    Schema(schema::SchemaArgs),
    /// Completions of a shell.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages.
    Man(man::ManArgs),
}

/// Runs a command; its answer goes to `out`. Answers with the exit code.
///
/// # Errors
/// Whatever keeps the command from answering; [`exit_code`] says what the process exits with then.
pub fn run(cli: Cli, mut out: &mut dyn Write) -> anyhow::Result<u8> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::run(&args, out),
        Command::Why(args) => why::run(&args, out),
        Command::History(args) => history::run(&args, out),
        Command::Watch(args) => watch::run(&args),
        Command::Scale(args) => scale::run(args, out),
        Command::Policy(args) => policy::run(&args, &mut out),
        Command::Export(args) => export::run(&args, out),
        Command::Replay(args) => replay::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Backup(args) => backup::run_backup(&args, out),
        Command::Restore(args) => backup::run_restore(&args, out),
        Command::Config(args) => config::run(&args, out),
        #[cfg(feature = "kafka")]
        Command::Topology(args) => topology::run(&args, out),
        #[cfg(feature = "kafka")]
        Command::Migrate(args) => migrate::run(&args, out),
        Command::Schema(args) => schema::run(&args, out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Man(args) => man::run(&args, out),
    }
}

/// What the process exits with where a command could not answer: 2 where what it was given cannot be
/// used, 1 where something failed.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    run::exit_code(error)
}

/// Tells a person something beside the answer: a line on standard error. Where nobody can read it any more, as on a terminal that
/// is gone, it is for nobody.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// So many of a thing, in words.
fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What a command was given and cannot use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(pub(crate) String);

/// What a command says of a log when it ends: nothing "will be tried again".
fn of_log(error: LogError) -> anyhow::Error {
    match error {
        LogError::Retry { reason } | LogError::Fatal { reason } => Unusable(reason).into(),
        error => error.into(),
    }
}

/// Asks a log again where what failed only passes, as on a cluster whose coordinators move: until so long is over when a try ends. What stood in the way first is told.
#[cfg(feature = "kafka")]
fn patiently<T, E: std::fmt::Display>(wait: Duration, passes: impl Fn(&E) -> bool, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    const AGAIN_AFTER: Duration = Duration::from_millis(500);
    let (begun, mut told) = (Stopwatch::start(), false);
    loop {
        match ask() {
            Err(error) if passes(&error) && begun.elapsed() < wait => {
                if !std::mem::replace(&mut told, true) {
                    tell(&format!("loadline: trying again: {error}"));
                }
                std::thread::sleep(AGAIN_AFTER);
            }
            outcome => return outcome,
        }
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
