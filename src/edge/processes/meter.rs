//! Measures what instances use: cpu in cores since the last measurement, memory in bytes now.
//!
//! An instance is its process and the descendants that still hang on it. What a descendant used is
//! counted on with its parent once that has waited for it; one that was left behind by its parent
//! and taken over by another process is not seen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::procfs::{self, ProcessId};

/// The most processes of one instance that are looked at; beyond it the figures are a lower bound.
const MAX_PROCESSES: usize = 256;

/// What one instance used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Cores, over the time since the last measurement; `None` for the first one.
    pub(crate) cores: Option<f64>,
    /// Resident memory.
    pub(crate) memory_bytes: f64,
}

/// What Loadline itself uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct OwnUsage {
    /// Processor time since the start, without that of fleets.
    pub(crate) cpu_seconds: Option<f64>,
    /// Resident memory.
    pub(crate) memory_bytes: Option<f64>,
    /// Open file descriptors.
    pub(crate) open_files: Option<u64>,
}

/// Measures this process; what the system does not tell is `None`.
pub(crate) fn own_usage() -> OwnUsage {
    let stat = i32::try_from(std::process::id()).ok().and_then(procfs::stat);
    OwnUsage {
        cpu_seconds: stat.as_ref().map(|stat| stat.own_cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
        memory_bytes: stat.map(|stat| stat.resident_pages as f64 * rustix::param::page_size() as f64),
        open_files: std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
    }
}

/// The last reading of each instance.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    last: BTreeMap<String, Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    leader: ProcessId,
    cpu_ticks: u64,
    at: Duration,
}

impl Meter {
    /// Measures an instance, `now` on a clock that never runs back. `None` where it is gone.
    pub(crate) fn measure(&mut self, instance: &str, leader: ProcessId, now: Duration) -> Option<Usage> {
        let (cpu_ticks, pages) = tree(leader)?;
        let reading = Reading { leader, cpu_ticks, at: now };
        let last = self.last.insert(instance.to_owned(), reading).filter(|last| last.leader == leader);
        let cores = last.filter(|last| now > last.at).map(|last| {
            // Smaller than before only where a descendant ended that nobody waits for.
            let ticks = cpu_ticks.saturating_sub(last.cpu_ticks);
            ticks as f64 / rustix::param::clock_ticks_per_second() as f64 / now.saturating_sub(last.at).as_secs_f64()
        });
        Some(Usage { cores, memory_bytes: pages as f64 * rustix::param::page_size() as f64 })
    }

    /// Forgets the instances that are gone.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.last.retain(|name, _| is_there(name));
    }
}

/// Ticks and resident pages of a process and its descendants; `None` where it is gone.
fn tree(leader: ProcessId) -> Option<(u64, u64)> {
    let first = procfs::stat(leader.pid).filter(|stat| stat.id == leader && !stat.ended)?;
    let (mut ticks, mut pages) = (first.cpu_ticks, first.resident_pages);
    let mut waiting = procfs::children(leader.pid);
    let mut seen = 1;
    while let Some(pid) = waiting.pop() {
        let Some(stat) = procfs::stat(pid) else { continue };
        ticks += stat.cpu_ticks;
        pages += stat.resident_pages;
        seen += 1;
        if seen >= MAX_PROCESSES {
            break;
        }
        waiting.extend(procfs::children(pid));
    }
    Some((ticks, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_has_no_cpu_and_a_later_one_what_was_used_in_between() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let leader = procfs::stat(pid).unwrap().id;
        let mut meter = Meter::default();
        let first = meter.measure("a", leader, Duration::from_secs(1)).unwrap();
        assert_eq!(first.cores, None);
        assert!(first.memory_bytes > 100_000.0);
        let second = meter.measure("a", leader, Duration::from_secs(2)).unwrap();
        assert!(second.cores.is_some_and(|cores| cores >= 0.0));
        let reused = ProcessId { start_ticks: leader.start_ticks + 1, ..leader };
        assert_eq!(meter.measure("a", reused, Duration::from_secs(3)), None);
    }
}
