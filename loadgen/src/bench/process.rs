//! A `loadline run` as a child, with its processor time and memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use loadline::log::kafka::Options;
use rustix::process::{Pid, Signal, kill_process};

use crate::last_lines::last_lines;
pub(super) use crate::waiting::{PATIENCE, wait_for};

/// How long late samples are waited for after a pane's end; as by default.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// What a process is started with.
pub(super) struct Start<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its own directory: policies in `policies/`.
    pub(super) home: PathBuf,
    /// The installation.
    pub(super) options: &'a Options,
    /// `kafka.partitions`.
    pub(super) partitions: u32,
    /// What it does; all where it is empty.
    pub(super) roles: &'a str,
    /// The length of its panes.
    pub(super) pane: Duration,
}

/// A running one. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    /// Starts it, and waits until it is ready.
    pub(super) fn start(start: &Start<'_>) -> anyhow::Result<Process> {
        let Start { program, home, options, partitions, roles, pane } = start;
        std::fs::create_dir_all(home.join("policies")).with_context(|| format!("make {}", home.display()))?;
        let said = home.join("loadline.log");
        let output = File::create(&said).with_context(|| format!("create {}", said.display()))?;
        let mut command = Command::new(program);
        command.current_dir(home).args(["run", "--data", "data", "--policies", "policies", "--listen", "127.0.0.1:0", "--log-format", "text"]);
        command.args(["--brokers", &options.brokers, "--pane", &format!("{}ms", pane.as_millis()), "--grace", &format!("{}ms", GRACE.as_millis())]);
        command.args(["--set", &format!("kafka.prefix={}", options.prefix), "--set", &format!("kafka.partitions={partitions}")]);
        if let Some(replicas) = options.replicas {
            command.args(["--set", &format!("kafka.replication={replicas}")]);
        }
        if !roles.is_empty() {
            command.args(["--roles", roles]);
        }
        // Only what is said here holds.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOADLINE_")) {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).spawn().with_context(|| format!("start {}", program.display()))?;
        let mut process = Process { child, said };
        wait_for("loadline to be ready", || {
            process.is_there()?;
            Ok(std::fs::read_to_string(&process.said)?.contains("ready: ").then_some(()))
        })?;
        Ok(process)
    }

    /// That it has not ended by itself.
    pub(super) fn is_there(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        bail!("loadline ended by itself ({status}); it said last:\n{}", last_lines(&self.said));
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The processor time of all its threads since it was started.
    pub(super) fn processor_time(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        ticks(&stat)
            .map(|ticks| Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
            .with_context(|| format!("{path}: {stat}"))
    }

    /// How often one of its threads waited and was woken, of those that live.
    pub(super) fn wake_ups(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/task", self.id());
        let mut all = 0;
        for thread in std::fs::read_dir(&path).with_context(|| format!("list {path}"))? {
            // It may have ended since.
            let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
            all += number_of(&status, "voluntary_ctxt_switches").with_context(|| format!("{path}: {status}"))?;
        }
        Ok(all)
    }

    /// A number of `/proc/PID/status`.
    pub(super) fn status(&self, name: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        number_of(&status, name).with_context(|| format!("{path} has no {name}"))
    }

    /// Tells it to end, and waits until it has, in order.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.is_there()?;
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("send SIGTERM")?;
        let status = wait_for("loadline to end", || Ok(self.child.try_wait()?))?;
        if !status.success() {
            bail!("loadline ended with {status}; see {}", self.said.display());
        }
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().context("send SIGKILL")?;
        self.child.wait().context("wait for the killed process")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn number_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
}

/// Processor time of the machine since it was started, and how much of it others had on the same hardware, in ticks. `None` where the system does not say.
pub(super) fn machine_ticks() -> Option<(u64, u64)> {
    machine_ticks_of(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// user, nice, system, idle, iowait, irq, softirq and steal of `/proc/stat`; guests are in the first two.
fn machine_ticks_of(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = line.split_whitespace().take(8).map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
    Some((ticks.iter().sum(), *ticks.get(7)?))
}

/// utime and stime of `/proc/PID/stat`; what stands before, the name among it, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_is_that_of_user_and_system_together() {
        assert_eq!(ticks("42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 30 12 7 8 20 0 9 0 100 1 1"), Some(42));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn what_others_had_is_a_part_of_the_machine_s_time() {
        assert_eq!(machine_ticks_of("cpu  10 1 20 60 2 3 1 4 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), Some((101, 4)));
        assert_eq!((machine_ticks_of("cpu  10 1 20 60\n"), machine_ticks_of("")), (None, None));
    }
}
