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
    let page = Man::new(command).date(date).source(concat!("Loadline ", env!("CARGO_PKG_VERSION"))).manual("Loadline");
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(folder.join(page.get_filename()), named(&String::from_utf8_lossy(&text)))?;
    *count += 1;
    Ok(())
}

/// The page with the text after the options under headings that say what it is, as readers of manual pages look for them.
fn named(page: &str) -> String {
    const EXTRA: &str = ".SH EXTRA\n";
    let Some((before, rest)) = page.split_once(EXTRA) else { return page.to_owned() };
    let (extra, after) = match rest.find("\n.SH ") {
        Some(end) => rest.split_at(end + 1),
        None => (rest, ""),
    };
    let mut text = before.to_owned();
    let mut heading = "";
    for part in extra.split("\n\n").map(|part| part.trim_matches('\n')).filter(|part| !part.is_empty()) {
        let (name, said) = match part.split_once(':') {
            Some(("Examples", said)) => ("EXAMPLES", said),
            Some(("Exit codes", said)) => ("EXIT STATUS", said),
            Some(("Keys", said)) => ("KEYS", said),
            _ => ("NOTES", part),
        };
        text.push_str(if name == heading { ".PP\n" } else { ".SH " });
        if name != heading {
            text.push_str(name);
            text.push('\n');
        }
        heading = name;
        // Commands stand each on a line of its own.
        let (open, close) = if name == "EXAMPLES" { (".nf\n", "\n.fi\n") } else { ("", "\n") };
        text.push_str(open);
        let lines: Vec<&str> = said.trim_start_matches('\n').lines().map(str::trim_start).collect();
        text.push_str(&lines.join("\n"));
        text.push_str(close);
    }
    text + after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_options_is_named_by_what_it_is() {
        let page = ".SH OPTIONS\no\n.SH EXTRA\nExamples:\n  one\n  two\n\nEnds on SIGTERM.\n\nExit codes: 0 fine\n.SH VERSION\nv\n";
        let expected = ".SH OPTIONS\no\n.SH EXAMPLES\n.nf\none\ntwo\n.fi\n.SH NOTES\nEnds on SIGTERM.\n.SH EXIT STATUS\n0 fine\n.SH VERSION\nv\n";
        assert_eq!(named(page), expected);
    }

    /// No page of the program has a section whose name says nothing.
    #[test]
    fn no_page_has_extras() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut count = 0;
        write(command, folder.path(), "2026-01-01", &mut count).unwrap();
        let text = |entry: io::Result<fs::DirEntry>| fs::read_to_string(entry.unwrap().path()).unwrap();
        let pages: Vec<String> = fs::read_dir(folder.path()).unwrap().map(text).collect();
        assert_eq!(pages.len(), count);
        assert!(pages.iter().all(|page| !page.contains("EXTRA")));
        assert!(pages.iter().filter(|page| page.contains(".SH EXAMPLES\n")).count() > 10);
    }
}
