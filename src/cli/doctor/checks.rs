//! The checks, from the file system up to the snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Finding, Report, State};
use crate::cli::Unusable;
use crate::edge::actuate;
use crate::edge::processes::{self, Claimed};
use crate::log::Topic;
use crate::log::embedded::{Inspection, Lost, PartitionReport, Unopened};
use crate::model::Timestamp;
use crate::runtime::snapshots::{self, Restored};
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::Aggregate;
use crate::stages::arbitrate::Arbitrate;
use crate::stages::decide::Decide;
use crate::wire;

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

/// The snapshots of one group and partition: keys and bytes.
type Rows = Vec<(String, Vec<u8>)>;

impl Report {
    fn say(&mut self, check: &'static str, state: State, says: impl Into<String>) {
        self.findings.push(Finding { check, state, says: says.into(), mend: None });
    }

    /// Says what is wrong and that it can be mended.
    fn mendable(&mut self, check: &'static str, says: impl Into<String>, mend: impl Into<String>) {
        self.mendable = true;
        self.findings.push(Finding { check, state: State::Wrong, says: says.into(), mend: Some(mend.into()) });
    }

    fn wrong(&mut self, check: &'static str, says: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding { check, state: State::Wrong, says: says.into(), mend: Some(mend.into()) });
    }
}

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
        None => report.say("lock", State::Ok, "no process runs on it"),
        Some(pid) => {
            let pid = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            report.say("lock", State::Ok, format!("{pid} runs on it; what follows is one moment of its log"));
        }
    }
    let inspection = match Inspection::open(directory) {
        Ok(inspection) => inspection,
        Err(error @ Unopened::NotFromHere { .. }) => return Err(Unusable(error.to_string())),
        Err(error @ Unopened::Unfinished { .. }) => {
            report.mendable("mend", error.to_string(), "--mend puts the new log in its place, and keeps the one before");
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
        0 => report.say("newest", State::Ok, "no acknowledged record is missing at its end"),
        missing => report.mendable(
            "newest",
            format!("the newest {missing} records that were acknowledged are gone: log.db-wal was deleted or damaged, or an older log.db was put there"),
            "put back what was there; or --mend goes on without it",
        ),
    }
    if let Some(error) = inspection.ends().error {
        report.mendable("partitions", format!("where they begin and end cannot be read: {error}"), "--mend takes it from the records");
    }
    let partitions = records(&inspection, &mut report);
    positions(&inspection, &partitions, &mut report);
    states(&inspection, &partitions, &mut report);
    if Inspection::holder(directory).is_none() {
        for Claimed { fleet, by } in processes::claimed_fleets(&directory.join("fleets")) {
            report.say("fleets", State::Note, format!("{by} supervises the fleet {fleet}: this directory is a copy; `run` is refused here while it does"));
        }
    }
    for (path, error) in processes::unreadable_records(&directory.join("fleets")) {
        let or = if path.exists() { "or remove it to begin" } else { "or leave it so: the next `run` begins" };
        report.wrong("fleets", format!("{}: {error}", path.display()), format!("put it back from a backup, {or} a new incarnation of the fleet"));
    }
    Ok(report)
}

fn records(inspection: &Inspection, report: &mut Report) -> Vec<PartitionReport> {
    let mut undecodable: BTreeMap<(Topic, u32), (u64, u64, String)> = BTreeMap::new();
    let partitions = inspection.records(&mut |topic, record| {
        if let Err(error) = wire::decode(topic, &record.value) {
            undecodable.entry((topic, record.partition)).or_insert_with(|| (record.offset, 0, error.to_string())).1 += 1;
        }
    });
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

fn positions(inspection: &Inspection, partitions: &[PartitionReport], report: &mut Report) {
    let positions = inspection.positions();
    let ends: BTreeMap<(Topic, u32), u64> = partitions.iter().map(|p| ((p.topic, p.partition), p.range.end)).collect();
    let mut sound = true;
    if let Some(error) = positions.error {
        sound = false;
        report.mendable("positions", format!("how far each stage was cannot be read: {error}"), "--mend has those that are lost go on at the end");
        // What the snapshots hold and what was read belong together.
        report
            .unusable_states
            .extend(partitions.iter().flat_map(|p| GROUPS.iter().filter(|(_, t)| *t == p.topic).map(|(g, _)| ((*g).to_owned(), p.partition))));
    }
    for (group, topic, partition, next) in &positions.rows {
        let end = ends.get(&(*topic, *partition)).copied().unwrap_or(0);
        if *next > end {
            sound = false;
            report.mendable(
                "positions",
                format!("{group} stands at {next} of {topic}/{partition}, which ends at {end}: it would skip what is appended next"),
                "--mend sets it to the end, and has its state rebuilt",
            );
            report.unusable_states.push((group.clone(), *partition));
        }
    }
    if sound {
        report.say("positions", State::Ok, format!("{}, each within what it reads", positions.rows.len()));
    }
}

fn states(inspection: &Inspection, partitions: &[PartitionReport], report: &mut Report) {
    let states = inspection.states();
    if let Some(error) = &states.error {
        report.mendable("snapshots", format!("they cannot all be read: {error}"), "--mend drops them: state is rebuilt from the records");
        report.unusable_states.extend(partitions.iter().flat_map(|p| GROUPS.iter().map(|(g, _)| ((*g).to_owned(), p.partition))));
        return;
    }
    let mut of: BTreeMap<(String, u32), Rows> = BTreeMap::new();
    for (group, partition, key, value) in states.rows {
        of.entry((group, partition)).or_default().push((key, value));
    }
    let known: BTreeSet<&str> = [Aggregate::NAME, Admit::NAME, Decide::NAME, Arbitrate::NAME].into();
    let positions = inspection.positions().rows;
    for ((group, partition), mut rows) in of {
        rows.sort();
        let committed = positions.iter().find(|(of, _, number, _)| (of, number) == (&group, &partition)).map(|(.., next)| *next);
        let (restored, input) = match group.as_str() {
            Aggregate::NAME => (of_stage::<Aggregate>(&rows, committed), Aggregate::INPUT),
            Admit::NAME => (of_stage::<Admit>(&rows, committed), Admit::INPUT),
            Decide::NAME => (of_stage::<Decide>(&rows, committed), Decide::INPUT),
            Arbitrate::NAME => (of_stage::<Arbitrate>(&rows, committed), Arbitrate::INPUT),
            _ => (Err(format!("no stage of this name is known; known are {known:?}")), Topic::Signals),
        };
        match restored {
            Ok(says) => report.say("snapshots", State::Ok, format!("{group}/{partition}: {says}")),
            Err(error) => {
                report.mendable("snapshots", format!("{group}/{partition}: {error}"), rebuilt(&group, input, partition, partitions));
                report.unusable_states.push((group, partition));
            }
        }
    }
}

fn of_stage<S: Stage>(rows: &[(String, Vec<u8>)], committed: Option<u64>) -> Result<String, String> {
    let Restored { round, keys, .. } = snapshots::restore::<S>(rows, committed)?;
    Ok(match round {
        Some(round) => format!("{keys} that can be restored; the input is read again from {}", round.replay_from),
        None => format!("{keys} of a round that did not come to its end: the input is read again from its beginning"),
    })
}

/// What a state that is rebuilt from the records knows, and what not.
fn rebuilt(group: &str, input: Topic, partition: u32, partitions: &[PartitionReport]) -> String {
    if group == Aggregate::NAME {
        return "--mend drops them; aggregate forgets which messages it has taken: a request that was taken before counts once more where it is sent again"
            .to_owned();
    }
    let found = partitions.iter().find(|p| (p.topic, p.partition) == (input, partition));
    let since = match found.and_then(|p| Some((p.range.start, p.times?.0))) {
        Some((0, first)) => format!("the whole of {input}/{partition}, which begins at {first}: nothing is missing then"),
        Some((start, first)) => format!(
            "{input}/{partition} from offset {start} on, appended at {first}; what came before is not known then: cooldowns and windows that began earlier, \
             policies announced earlier (they come again within a day)"
        ),
        None => format!("{input}/{partition}, which is empty"),
    };
    format!("--mend drops them; {group} rebuilds its state from {since}")
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
