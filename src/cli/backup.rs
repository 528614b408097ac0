//! `loadline backup` and `loadline restore`: all that a data directory needs to go on elsewhere.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::manifest::{MANIFEST, Manifest, OF_A_FLEET, VERSION};
use super::Unusable;
use super::doctor::{self, Finding, State};
use crate::edge::processes;
use crate::log::embedded::{DATABASE, Inspection, Restoring, Runs, copy};
use crate::runtime::clock::{Clock, Stopwatch, SystemClock};

pub(super) mod manifest;

/// How long a fleet's state may be missing that has just begun.
const BEGINS: Duration = Duration::from_secs(1);

/// Copy a data directory, also while Loadline runs on it.
///
/// Has the log as of one moment, and after it the fleets (their counts, revisions and notes), the freeze files and
/// the observer's term. Has not: what instances print, hook.log, and the configuration and policies, which are not in
/// the data directory. What was backed up is checked afterwards, as by doctor: of a directory that is damaged there is a
/// backup too, which says so.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline backup /var/lib/loadline /backup/loadline-$(date +%F)

Exit codes: 0 done, 1 it failed (nothing is left at TO) or DIR is not sound (TO has what could be read), 2 no log there, or TO is there already.")]
pub struct BackupArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where the backup goes: a directory that is not there yet
    #[arg(value_name = "TO")]
    to: PathBuf,
}

/// Put a backup back into an empty directory, for `loadline run` to go on from.
///
/// The backup is checked first. A fleet of which more instances run on this machine than the backup's count says is
/// put back with the count that runs: the fleet went on after the backup, and what is not known shrinks nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  loadline restore /backup/loadline-2026-03-01 /var/lib/loadline
  loadline run --data /var/lib/loadline

Exit codes: 0 done, 1 it failed, 2 the backup cannot be used, DIR is not empty, or what was backed up still runs.")]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The data directory: empty, or not there yet
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Backs up.
///
/// # Errors
/// Where there is no log, `to` is there already, or something cannot be copied.
pub fn run_backup(args: &BackupArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let BackupArgs { directory, to } = args;
    if to.exists() {
        return Err(Unusable(format!("{} is there already; nothing is overwritten: choose another name", to.display())).into());
    }
    let name = to.file_name().ok_or_else(|| Unusable(format!("{} is no name for a directory", to.display())))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(Unusable(format!("there is no directory {}", parent.display())).into());
    }
    if parent.canonicalize()?.starts_with(directory.canonicalize().unwrap_or_default()) && directory.is_dir() {
        let (of, to) = (directory.display(), to.display());
        return Err(Unusable(format!("{to} lies within {of}: a backup in the directory that it is of is lost with it; choose a place elsewhere")).into());
    }
    let partial = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
    let written = write_backup(directory, &partial).and_then(|()| {
        fs::rename(&partial, to).with_context(|| format!("failed to name the backup {}", to.display()))?;
        Ok(File::open(parent)?.sync_all()?)
    });
    if let Err(error) = written {
        drop(fs::remove_dir_all(&partial));
        return Err(error);
    }
    // Only now: what can be saved is saved first. Both: what is damaged may be what was not copied, and what was copied may lack something.
    let reports = [doctor::check(directory)?, doctor::check(to)?];
    let (of, to) = (directory.display(), to.display());
    if reports.iter().all(doctor::Report::is_healthy) {
        writeln!(out, "{of} is backed up to {to}; check it with `loadline doctor {to}`")?;
        return Ok(0);
    }
    writeln!(out, "{of} is backed up to {to}, and is not sound itself:")?;
    let mut said = BTreeSet::new();
    for Finding { check, says, .. } in reports.iter().flat_map(|report| &report.findings).filter(|finding| finding.state == State::Wrong) {
        if said.insert((*check, says)) {
            writeln!(out, "  {check}: {says}")?;
        }
    }
    writeln!(
        out,
        "what is damaged there is damaged or missing in the backup too. Keep the backups from before; see `loadline doctor {of}` for the way out, and what it says of \
         {to}. To save the files as they are, copy the directory itself (`cp -a`) with nothing running on it"
    )?;
    Ok(1)
}

fn write_backup(directory: &Path, partial: &Path) -> anyhow::Result<()> {
    let here = directory.canonicalize().map_err(|error| Unusable(format!("{}: {error}", directory.display())))?;
    drop(Inspection::open(directory).map_err(|error| Unusable(error.to_string()))?);
    // A backup of a backup is of what the first one is of: that owns the fleets.
    let of = manifest::read(&here).ok().filter(|_| manifest::is_backup(&here)).map_or(here, |manifest| manifest.of);
    let at = SystemClock.now();
    fs::create_dir(partial).with_context(|| format!("failed to make {}", partial.display()))?;
    // The log first: then the fleets are no older than what it knows of them.
    let log = partial.join(DATABASE);
    copy(directory, &log).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut files = copy_small(directory, partial)?;
    files.insert(PathBuf::from(DATABASE), manifest::Sum::of_file(&log)?);
    let manifest = Manifest { version: VERSION, at, of, loadline: env!("CARGO_PKG_VERSION").to_owned(), files };
    let text = serde_json::to_vec_pretty(&manifest)?;
    write_durably(&partial.join(MANIFEST), &text).with_context(|| format!("failed to write {MANIFEST}"))?;
    Ok(File::open(partial)?.sync_all()?)
}

/// Copies all that is not the log, and says what that is.
fn copy_small(from: &Path, to: &Path) -> anyhow::Result<manifest::Files> {
    let mut files = manifest::Files::new();
    let mut copy_file = |name: &Path| -> anyhow::Result<()> {
        let (of, to) = (from.join(name), to.join(name));
        match fs::read(&of) {
            Ok(bytes) => {
                files.insert(name.to_owned(), manifest::Sum::of(&bytes));
                write_durably(&to, &bytes).with_context(|| format!("failed to write {}", to.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", of.display())),
        }
    };
    for entry in fs::read_dir(from).with_context(|| format!("failed to read {}", from.display()))? {
        let name = entry?.file_name();
        if manifest::is_of_the_directory(&name) {
            copy_file(Path::new(&name))?;
        }
    }
    let fleets = processes::directory_of(from);
    if fleets.is_dir() {
        fs::create_dir_all(processes::directory_of(to)).with_context(|| format!("failed to make {}", processes::directory_of(to).display()))?;
    }
    let directories = processes::fleet_directories(&fleets).context("the fleets cannot all be looked at")?;
    for fleet in directories {
        // One that just begins has its directory for a moment before its state.
        let begins = Stopwatch::start();
        while !fleet.join("state.json").exists() && begins.elapsed() < BEGINS {
            std::thread::sleep(BEGINS / 20);
        }
        let fleet = fleet.strip_prefix(from)?;
        let within = to.join(fleet);
        fs::create_dir_all(&within).with_context(|| format!("failed to make {}", within.display()))?;
        for name in OF_A_FLEET {
            copy_file(&fleet.join(name))?;
        }
        File::open(&within)?.sync_all()?;
    }
    Ok(files)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Restores.
///
/// # Errors
/// Where the backup is not sound, the directory is not empty, or something cannot be copied.
pub fn run_restore(args: &RestoreArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let RestoreArgs { from, directory } = args;
    let no_backup = |error: String| Unusable(format!("{} is no backup of this version: {error}", from.display()));
    let manifest = manifest::read(from).map_err(no_backup)?;
    if !manifest::is_backup(from) {
        let from = from.display();
        let reason = format!(
            "{from} is no backup any more: a Loadline has run on it, and it is a data directory; to take what it holds now elsewhere, stop what runs there, \
             `loadline backup {from} TO`, and restore that"
        );
        return Err(Unusable(reason).into());
    }
    if let Some(holds) = std::path::absolute(directory)?.ancestors().skip(1).find(|above| above.join(DATABASE).exists()) {
        let reason = format!("{} lies within {}, which is a data directory or a backup; choose a place outside of it", directory.display(), holds.display());
        return Err(Unusable(reason).into());
    }
    let report = doctor::check(from)?;
    if let Some(wrong) = report.findings.iter().find(|finding| finding.state == State::Wrong) {
        let reason = format!("the backup {} is not sound: {}: {}; see `loadline doctor {}`", from.display(), wrong.check, wrong.says, from.display());
        return Err(Unusable(reason).into());
    }
    let holder = Inspection::holder(&manifest.of);
    if holder != Runs::Nobody {
        let reason = format!("{holder} runs on {}, of which this is a backup: two would own the same fleets; stop it first", manifest.of.display());
        return Err(Unusable(reason).into());
    }
    processes::check_unclaimed(&processes::directory_of(from)).map_err(Unusable)?;
    let restoring = Restoring::begin(directory)?;
    restoring.database(from).with_context(|| format!("failed to copy the log into {}", directory.display()))?;
    copy_small(from, directory)?;
    let raised = processes::raise_to_running(&processes::directory_of(directory), SystemClock.now()).context("failed to look for running instances")?;
    restoring.complete().with_context(|| format!("failed to complete {}", directory.display()))?;
    writeln!(out, "{} is as it was at {}", directory.display(), manifest.at)?;
    for raised in raised {
        writeln!(out, "{}: {} run, the backup says {}; its count is what runs, and decided on from there", raised.target, raised.running, raised.of_backup)?;
    }
    if fs::read_dir(directory)?.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("freeze")) {
        writeln!(out, "it was frozen when it was backed up, and is: remove the freeze file to let commands through")?;
    }
    writeln!(out, "start it with `loadline run --data {}`", directory.display())?;
    Ok(0)
}
