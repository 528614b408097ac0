//! The checks, from the file system up to the records; those of the stages are in [`progress`].

use std::collections::BTreeMap;
use std::path::Path;

use super::{Report, State, progress};
use crate::cli::backup::manifest;
use crate::cli::{Unusable, migrated};
use crate::edge::processes::{self, Claimed};
use crate::edge::{actuate, observe};
use crate::log::Topic;
use crate::log::embedded::{DATABASE, Inspection, LOCK, Lost, PartitionReport, Runs, Unopened};
use crate::model::{Message, Timestamp};
use crate::runtime::clock::{Clock as _, SystemClock};
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::Aggregate;
use crate::stages::arbitrate::Arbitrate;
use crate::stages::decide::Decide;
use crate::wire::{self, WireError, schemas};

/// Every group that acts on what it reads, and what that is.
pub(super) const GROUPS: [(&str, Topic); 5] = [
    (Aggregate::NAME, Aggregate::INPUT),
    (Admit::NAME, Admit::INPUT),
    (Decide::NAME, Decide::INPUT),
    (Arbitrate::NAME, Arbitrate::INPUT),
    (actuate::GROUP, Topic::Commands),
];

/// Less free room than this is worth knowing: a day of a small installation.
const LITTLE_ROOM: u64 = 100 * 1024 * 1024;

/// The most stretches of lost records that are listed of a partition.
const LISTED: usize = 20;

/// What `--mend` does about most things.
const MENDS: &str = "--mend keeps all else; whoever reads across what is lost is told of the gap (alert RecordsLost)";

/// Checks a directory. Changes nothing.
///
/// # Errors
/// Where it cannot be looked at from here.
pub(crate) fn check(directory: &Path) -> Result<Report, Unusable> {
    let mut report = Report::default();
    match Inspection::free_bytes(directory) {
        Some(free) if free < LITTLE_ROOM => report.say("room", State::Note, format!("{} are free on its file system: that is little", size(free))),
        Some(free) => report.say("room", State::Ok, format!("{} are free on its file system", size(free))),
        None => report.say("room", State::Note, "what is free on its file system is not known"),
    }
    match Inspection::holder(directory) {
        Runs::Nobody => report.say("lock", State::Ok, "no process runs on it"),
        Runs::Unknown(reason) => report.say("lock", State::Note, format!("{reason}: whether a process runs on it cannot be told")),
        runs @ Runs::Process(_) => report.say("lock", State::Ok, format!("{runs} runs on it; what follows is one moment of its log")),
    }
    match migrated::Migrated::read(directory) {
        Ok(None) => {}
        Ok(Some(mark)) if !mark.done => {
            let told = mark.unfinished(directory).to_string();
            report.wrong("migrated", told, "run the migration again before anything else runs there");
        }
        Ok(Some(mark)) => {
            report.say(
                "migrated",
                State::Note,
                format!("its installation went over to Kafka at {} ({}, {}): `run` decides on it no more", mark.at, mark.brokers, mark.prefix),
            );
        }
        Err(error) => report.wrong("migrated", error.to_string(), "see where its installation runs before anything else"),
    }
    let inspection = match Inspection::open(directory) {
        Ok(inspection) => inspection,
        Err(error @ Unopened::NotFromHere { .. }) => return Err(Unusable(error.to_string())),
        Err(error @ Unopened::Unfinished { .. }) => {
            report.mendable("mend", error.to_string(), "--mend puts the new log in its place, and keeps the one before");
            return Ok(report);
        }
        Err(Unopened::NoLog { .. }) if !directory.join(DATABASE).exists() && processes::has_site(directory) => {
            let told = "its log is on Kafka, where `loadline topology check` looks at it; what follows is what stands here beside it";
            report.say("database", State::Note, told);
            fleets(directory, &mut report);
            return Ok(report);
        }
        Err(error @ Unopened::NoLog { .. }) => {
            report.wrong("database", error.to_string(), "restore a backup, or move log.db (with its -wal and -shm) and lock away to begin a new log");
            return Ok(report);
        }
    };
    if inspection.is_half_restored() {
        report.wrong("restore", "a restore into it did not come to its end: what is there may be a part of it", "empty the directory, and restore again");
        return Ok(report);
    }
    let (database, wal) = inspection.sizes();
    report.say("database", State::Ok, format!("log.db has {}, log.db-wal {}; SQLite reads it up to its last whole commit", size(database), size(wal)));
    let complaints = inspection.complaints();
    match complaints.as_slice() {
        [] => report.say("pages", State::Ok, "SQLite's own check of every page finds nothing wrong"),
        [first, ..] => report.mendable("pages", format!("the file is damaged: {first}{}", and_more(complaints.len() - 1)), MENDS),
    }
    match inspection.newest_missing() {
        Some(0) => report.say("newest", State::Ok, "no acknowledged record is missing at its end"),
        None if manifest::is_backup(directory) => report.say("newest", State::Ok, "a backup has the log as of one moment"),
        None => report.say(
            "newest",
            State::Note,
            "lock has no mark (it was deleted or damaged, or nothing has run here since a restore): whether the newest records are there cannot be told",
        ),
        Some(missing) => report.mendable(
            "newest",
            format!("the newest {missing} records that were acknowledged are gone: log.db-wal was deleted or damaged, or an older log.db was put there"),
            "put back what was there; or --mend goes on without it",
        ),
    }
    if let Some(error) = inspection.ends().error {
        report.mendable("partitions", format!("where they begin and end cannot be read: {error}"), "--mend takes it from the records");
    }
    let partitions = records(&inspection, &mut report);
    progress::check(&inspection, &partitions, &mut report);
    fleets(directory, &mut report);
    Ok(report)
}

/// What stands beside the log.
fn fleets(directory: &Path, report: &mut Report) {
    if manifest::is_backup(directory) {
        match manifest::differences(directory) {
            Ok(differences) if differences.is_empty() => report.say("backup", State::Ok, "it has every file that was backed up, as it was"),
            Ok(differences) => {
                for difference in differences {
                    report.wrong("backup", difference, "take another backup: with this one a fleet would begin a new incarnation, or go on from another count");
                }
            }
            Err(error) => report.wrong("backup", error, "or take another backup: what this one had cannot be told here"),
        }
    }
    if let Err(error) = observe::last_term(&directory.join(observe::TERM), SystemClock.now()) {
        report.wrong("term", error.to_string(), "do that, or `run` is refused");
    }
    let lock = directory.join(LOCK);
    if lock.exists() && !lock.is_file() {
        report.wrong(
            "lock",
            format!("{} is no file", lock.display()),
            "move it away: `run` makes a new one, and cannot tell then whether the newest records are there",
        );
    }
    for path in processes::no_directories(&processes::directory_of(directory)).into_iter().flatten() {
        report.wrong(
            "fleets",
            format!("{} is no directory, and holds the count of no fleet", path.display()),
            "put back what was there, from a backup, or move it away for that fleet to begin anew",
        );
    }
    if let Err(error) = processes::check_kept(directory) {
        report.wrong("fleets", error, "or put back `fleets` alone, from a backup");
    }
    let fleets = processes::directory_of(directory);
    let looked = processes::claimed_fleets(&fleets).and_then(|claimed| Ok((claimed, processes::unreadable_records(&fleets)?)));
    let (claimed, unreadable) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            report.wrong(
                "fleets",
                format!("they cannot be looked at: {error}"),
                "look as the user that they belong to; if it was that one, see who changed the rights",
            );
            return;
        }
    };
    if Inspection::holder(directory) == Runs::Nobody {
        for Claimed { fleet, by } in claimed {
            report.say("fleets", State::Note, format!("{by} supervises the fleet {fleet}: this directory is a copy; `run` is refused here while it does"));
        }
    }
    for (path, error) in unreadable {
        let or = if path.exists() { "or remove it to begin" } else { "or leave it so: the next `run` begins" };
        report.wrong("fleets", format!("{}: {error}", path.display()), format!("put it back from a backup, {or} a new incarnation of the fleet"));
    }
}

/// Of each partition the first record that cannot be understood, how many there are, and why.
type Undecodable = BTreeMap<(Topic, u32), (u64, u64, String)>;

/// Reads all records; whether there are some by schemas that are not known. What the log says of schemas is known from then on.
fn messages(inspection: &Inspection) -> (Vec<PartitionReport>, Undecodable, bool) {
    let (mut undecodable, mut other_release) = (Undecodable::new(), false);
    let partitions = inspection.records(&mut |topic, record| match wire::decode(topic, &record.value) {
        Ok(Message::Schema(entry)) => schemas::held().iter().for_each(|held| drop(held.register(&entry.schema))),
        Ok(_) => {}
        Err(error) => {
            other_release |= matches!(error, WireError::UnknownSchema { .. });
            undecodable.entry((topic, record.partition)).or_insert_with(|| (record.offset, 0, error.to_string())).1 += 1;
        }
    });
    (partitions, undecodable, other_release)
}

fn records(inspection: &Inspection, report: &mut Report) -> Vec<PartitionReport> {
    let (mut partitions, mut undecodable, other_release) = messages(inspection);
    if other_release {
        // What stands on `schemas`, the last of the topics, is known now.
        (partitions, undecodable, _) = messages(inspection);
    }
    for PartitionReport { topic, partition, range, records, times, lost, damaged } in &partitions {
        let place = format!("{topic}/{partition}");
        let times = times.map_or_else(String::new, |(first, last)| format!(", from {first} to {last}"));
        let says = format!("{place}: {records} records, offsets {} to {}{times}", range.start, range.end);
        if lost.is_empty() {
            report.say("records", State::Ok, says);
        } else {
            let listed: Vec<String> = lost.iter().take(LISTED).map(stretch).collect();
            let lost_in_all: u64 = lost.iter().map(|lost| lost.offsets.end - lost.offsets.start).sum();
            let more = and_more(lost.len().saturating_sub(LISTED));
            // A gap that a mend has left stays one: nothing is wrong with it any more, and nothing comes back.
            let of_gap = format!("{says}; {lost_in_all} records are lost: {}{more}", listed.join("; "));
            if *damaged {
                report.mendable("records", of_gap, MENDS);
            } else {
                report.say("records", State::Note, of_gap);
            }
        }
    }
    for ((topic, partition), (first, count, error)) in undecodable {
        report.wrong(
            "messages",
            format!("{topic}/{partition}: {count} records cannot be understood by this version, the first at offset {first}: {error}"),
            "nothing: who reads one goes on without it, and puts it into dead-letters",
        );
    }
    partitions
}

fn stretch(lost: &Lost) -> String {
    let time = |at: Option<Timestamp>, none: &str| at.map_or_else(|| none.to_owned(), |at| at.to_string());
    let (before, after) = lost.between;
    format!("{}..{} (appended between {} and {})", lost.offsets.start, lost.offsets.end, time(before, "the beginning"), time(after, "the end"))
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!("; and {count} more") }
}

fn size(bytes: u64) -> String {
    if bytes >= 10_000_000 { format!("{} MB", bytes / 1_000_000) } else { format!("{} kB", bytes.div_ceil(1000)) }
}
