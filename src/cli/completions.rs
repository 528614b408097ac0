//! `loadline completions`: what a shell completes, made of the description that reads the command line.

use std::io::Write;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use super::Cli;

/// Print the completions of a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline completions bash > ~/.local/share/bash-completion/completions/loadline
  loadline completions zsh > ~/.zfunc/_loadline           # a folder of $fpath
  loadline completions fish > ~/.config/fish/completions/loadline.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shells,
}

/// The shells whose completions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shells {
    /// GNU bash, with bash-completion or without
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Prints them.
///
/// # Errors
/// Where `out` cannot be written.
pub fn run(args: &CompletionsArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let shell = match args.shell {
        Shells::Bash => Shell::Bash,
        Shells::Zsh => Shell::Zsh,
        Shells::Fish => Shell::Fish,
    };
    // The generator panics where its writer fails, as a pipe that is closed does: it writes to memory.
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "loadline", &mut text);
    out.write_all(&text)?;
    Ok(0)
}
