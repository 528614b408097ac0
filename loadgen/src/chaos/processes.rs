//! Three Loadlines on one broker, each on a machine of its own as far as they know, and what befalls them.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Wait;
use super::fleets::{fleet_of, instances_of, policy_of};
use super::producers::agent;
use crate::broker::{Broker, free_port};
use crate::random::Random;
use crate::waiting::wait_for;

/// A Loadline, and the fleets that are its own. Dropping it ends both.
pub(super) struct Process {
    number: usize,
    pub(super) url: String,
    pub(super) fleets: &'static [&'static str],
    program: PathBuf,
    home: PathBuf,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Process {
    /// One with these fleets; the first announces the policies of all.
    pub(super) fn new(
        program: &Path,
        home: &Path,
        number: usize,
        fleets: &'static [&'static str],
        all: &[&str],
        arguments: &[&str],
    ) -> anyhow::Result<Process> {
        let port = free_port();
        let policies = home.join("policies");
        std::fs::create_dir_all(&policies).with_context(|| format!("make {}", policies.display()))?;
        for name in fleets {
            std::fs::write(policies.join(format!("{name}-fleet.yaml")), fleet_of(name))?;
        }
        for name in all.iter().filter(|_| number == 0) {
            std::fs::write(policies.join(format!("{name}.yaml")), policy_of(name))?;
        }
        let roles =
            if number == 0 { "ingest,policies,admit,aggregate,decide,arbitrate,fleets,view" } else { "ingest,admit,aggregate,decide,arbitrate,fleets,view" };
        let own = ["--data", "data", "--policies", "policies", "--roles", roles, "--log-format", "text"];
        let arguments = own.iter().chain(arguments).map(ToString::to_string).collect();
        let (url, program, home) = (format!("http://127.0.0.1:{port}"), program.to_owned(), home.to_owned());
        Ok(Process { number, url, fleets, program, home, port, arguments, child: None })
    }

    pub(super) fn name(&self) -> String {
        format!("process {}", self.number)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The file of what it says.
    pub(super) fn said(&self) -> PathBuf {
        self.home.join("loadline.log")
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let said: File = OpenOptions::new().create(true).append(true).open(self.said())?;
        let mut command = Command::new(&self.program);
        command.current_dir(&self.home).args(["run", "--listen", &format!("127.0.0.1:{}", self.port)]).args(&self.arguments);
        // Only what is said here holds.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOADLINE_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        self.child = Some(command.spawn().with_context(|| format!("start {}", self.program.display()))?);
        Ok(())
    }

    /// It runs until it is told otherwise.
    pub(super) fn is_there(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            let ended = child.try_wait()?;
            ensure!(ended.is_none(), "process {} ended by itself: {ended:?}", self.number);
        }
        Ok(())
    }

    pub(super) fn becomes_ready(&mut self) -> anyhow::Result<()> {
        wait_for(&format!("process {} to be ready", self.number), || {
            self.is_there()?;
            Ok(agent().get(format!("{}/readyz", self.url)).call().is_ok().then_some(()))
        })
    }

    fn running(&mut self) -> anyhow::Result<&mut Child> {
        self.child.as_mut().with_context(|| format!("process {} does not run", self.number))
    }

    fn send(&mut self, signal: Signal) -> anyhow::Result<()> {
        let child = self.running()?;
        kill_process(Pid::from_child(child), signal).context("send a signal to a process")
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.send(Signal::KILL)?;
        self.running()?.wait()?;
        self.child = None;
        Ok(())
    }

    pub(super) fn tell_to_end(&mut self) -> anyhow::Result<()> {
        self.send(Signal::TERM)
    }

    /// It ends in order, and is started again.
    pub(super) fn leaves_and_comes_back(&mut self) -> anyhow::Result<()> {
        self.tell_to_end()?;
        self.has_ended()?;
        self.start()
    }

    /// It ends in order.
    pub(super) fn has_ended(&mut self) -> anyhow::Result<()> {
        let (number, child) = (self.number, self.running()?);
        let ended = wait_for(&format!("process {number} to end in order"), || Ok(child.try_wait()?))?;
        ensure!(ended.success(), "process {number} did not end in order: {ended:?}");
        self.child = None;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        for pid in self.fleets.iter().flat_map(|name| instances_of(&self.data(), name).unwrap_or_default()).filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// What befalls the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// `kill -9`, and started again: at once or later.
    Killed,
    /// `kill -9`, and again while it starts.
    KilledTwice,
    /// Two at once.
    TwoKilled,
    /// Stopped for less than its session lasts.
    Paused,
    /// Stopped for longer: others have its work when it goes on.
    Stopped,
    /// Ended in order, and started again.
    Left,
    /// `kill -9` of the broker, and started again.
    BrokerKilled,
}

/// Each comes at least once in so many.
const DECK: [Fault; 8] = [Fault::Killed, Fault::Killed, Fault::KilledTwice, Fault::TwoKilled, Fault::Paused, Fault::Stopped, Fault::Left, Fault::BrokerKilled];

/// The session time-out is 6 s.
const PAUSED_MS: usize = 4_000;
const STOPPED_MS: u64 = 8_000;

/// So many faults, in an order of chance.
pub(super) fn draw(count: usize, random: &mut Random) -> Vec<Fault> {
    let mut faults = Vec::new();
    while faults.len() < count {
        let mut deck = DECK.to_vec();
        while !deck.is_empty() {
            faults.push(deck.remove(random.below(deck.len())));
        }
    }
    faults.truncate(count);
    faults
}

/// Does a fault; `wait` waits for so many more requests to be acknowledged.
pub(super) fn befall(fault: Fault, broker: &mut Broker, processes: &mut [Process], random: &mut Random, wait: Wait<'_>) -> anyhow::Result<()> {
    let count = processes.len();
    let one = random.below(count);
    let other = (one + 1) % count;
    let a_while = |random: &mut Random, most_ms: usize| std::thread::sleep(Duration::from_millis(random.below(most_ms) as u64));
    match fault {
        Fault::Killed => {
            processes[one].kill()?;
            wait(random.below(3) as u64 * 10)?;
            processes[one].start()?;
        }
        Fault::KilledTwice => {
            processes[one].kill()?;
            processes[one].start()?;
            a_while(random, 2_000);
            processes[one].kill()?;
            processes[one].start()?;
        }
        Fault::TwoKilled => {
            processes[one].kill()?;
            processes[other].kill()?;
            wait(random.below(2) as u64 * 10)?;
            processes[one].start()?;
            processes[other].start()?;
        }
        Fault::Paused | Fault::Stopped => {
            processes[one].send(Signal::STOP)?;
            match fault {
                Fault::Paused => a_while(random, PAUSED_MS),
                _ => std::thread::sleep(Duration::from_millis(STOPPED_MS)),
            }
            processes[one].send(Signal::CONT)?;
        }
        Fault::Left => {
            // Before that there is nothing to end in order.
            processes[one].becomes_ready()?;
            processes[one].leaves_and_comes_back()?;
        }
        Fault::BrokerKilled => {
            broker.kill()?;
            broker.start_again()?;
        }
    }
    Ok(())
}
