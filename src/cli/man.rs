//! `loadline man`: the manual pages, made of the description that reads the command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Unusable};
use crate::model::Timestamp;
use crate::runtime::clock::{Clock, SystemClock};

/// Write the manual pages into a folder: loadline.1, and one a command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline man ~/.local/share/man/man1 && man loadline-policy-test

Exit codes: 0 written, 2 the folder cannot be written")]
pub struct ManArgs {
    /// The folder; it is made where it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes them, and says how many.
///
/// # Errors
/// Where the folder cannot be written.
pub fn run(args: &ManArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let folder = args.folder.display();
    fs::create_dir_all(&args.folder).map_err(|error| Unusable(format!("failed to make the folder {folder}: {error}")))?;
    // No page for `help`: it says what the pages say.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut count = 0;
    write(command, &args.folder, &date(), &mut count).map_err(|error| Unusable(format!("failed to write into {folder}: {error}")))?;
    writeln!(out, "{count} pages in {folder}; read the first with: man {}", args.folder.join("loadline.1").display())?;
    Ok(0)
}

/// The day that the pages name: today, or that of `SOURCE_DATE_EPOCH`, so that packages are built alike.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse::<i64>().ok()?.checked_mul(1_000));
    let at = epoch.map_or_else(|| SystemClock.now(), Timestamp::from_millis);
    at.to_string().chars().take("2026-01-01".len()).collect()
}

/// The page of a command, and those of the commands below it.
fn write(command: Command, folder: &Path, date: &str, count: &mut usize) -> io::Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()).cloned() {
        write(below, folder, date, count)?;
    }
    // Without a date what follows it would be taken for one.
    Man::new(command).date(date).source(concat!("Loadline ", env!("CARGO_PKG_VERSION"))).manual("Loadline").generate_to(folder)?;
    *count += 1;
    Ok(())
}
