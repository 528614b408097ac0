//! What the kernel tells of processes, through `/proc`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::model::Timestamp;

/// A process that cannot be mistaken for a later one with its pid: the kernel gives a pid again only
/// after all others were given, which takes far longer than a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    /// Its pid.
    pub(crate) pid: i32,
    /// When it was started, in ticks since the machine was.
    pub(crate) start_ticks: u64,
}

/// A line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The process.
    pub(crate) id: ProcessId,
    /// Whether it has ended and only waits to be reaped.
    pub(crate) ended: bool,
    /// Its process group: the pid of the leader.
    pub(crate) group: i32,
    /// User and system time of it and of the children that it has waited for, in ticks.
    pub(crate) cpu_ticks: u64,
    /// Its own part of that.
    pub(crate) own_cpu_ticks: u64,
    /// Resident pages.
    pub(crate) resident_pages: u64,
}

/// Reads a process's line; `None` where there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether this very process is still running.
pub(crate) fn is_running(id: ProcessId) -> bool {
    stat(id.pid).is_some_and(|stat| stat.id == id && !stat.ended)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name stands in parentheses and may hold anything, even more of them.
    let (pid, _) = line.split_once(' ')?;
    let fields: Vec<&str> = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the first two are cut off.
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |n: usize| field(n)?.parse::<u64>().ok();
    Some(Stat {
        id: ProcessId { pid: pid.parse().ok()?, start_ticks: number(22)? },
        ended: matches!(field(3)?, "Z" | "X" | "x"),
        group: field(5)?.parse().ok()?,
        cpu_ticks: number(14)? + number(15)? + number(16)? + number(17)?,
        own_cpu_ticks: number(14)? + number(15)?,
        resident_pages: number(24)?,
    })
}

/// The pids of the processes of this user.
pub(crate) fn own_pids() -> io::Result<Vec<i32>> {
    let user = rustix::process::geteuid().as_raw();
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if entry.metadata().is_ok_and(|metadata| metadata.uid() == user) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The environment that a process was started with, as far as it left it there; empty where it
/// cannot be read.
pub(crate) struct Environment(Vec<u8>);

impl Environment {
    /// Reads that of `pid`.
    pub(crate) fn of(pid: i32) -> Self {
        Environment(fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.split(|byte| *byte == 0).find_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The children of a process, started by any of its threads.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Which start of the machine this is: pids and start times are of no meaning in another.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A new unique id, from the kernel.
pub(crate) fn new_uid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// The time of day at which a process was started.
pub(crate) fn started_at(id: ProcessId) -> Option<Timestamp> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot_seconds: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let after_ms = id.start_ticks.checked_mul(1000)? / rustix::param::clock_ticks_per_second().max(1);
    Some(Timestamp::from_millis(boot_seconds * 1000 + i64::try_from(after_ms).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_moves_no_field() {
        let line = "42 (a) b (c) S 1 43 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 7 0 987654 1000 55 18446744073709551615 1 1";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            stat,
            Stat { id: ProcessId { pid: 42, start_ticks: 987_654 }, ended: false, group: 43, cpu_ticks: 127, own_cpu_ticks: 120, resident_pages: 55 }
        );
        assert!(parse_stat(&line.replace(" S ", " Z ")).unwrap().ended);
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn this_process_is_seen_with_its_environment_and_start() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = stat(pid).unwrap();
        assert!(is_running(stat.id));
        assert!(!is_running(ProcessId { start_ticks: stat.id.start_ticks + 1, ..stat.id }));
        assert!(own_pids().unwrap().contains(&pid));
        assert_eq!(Environment::of(pid).get("PATH"), std::env::var("PATH").ok().as_deref());
        assert!(started_at(stat.id).is_some());
    }
}
