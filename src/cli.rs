//! The commands: one file each. A command is a struct of its arguments and a `run` that writes to
//! what it is given and answers with the exit code.

pub mod client;
pub mod config;
mod paint;
pub mod scale;
pub mod status;
pub mod table;
pub mod why;

pub use paint::Paint;

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
