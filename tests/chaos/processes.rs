//! Three Loadlines on one broker, each on a machine of its own as far as they know, and what befalls them.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::load::{fleet_of, policy_of};
use crate::common::random::Random;
use crate::common::{LOADLINE, pids_of, wait_for};
use crate::kafka::{Broker, free_port};

/// A Loadline, and the fleets that are its own.
pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) url: String,
    pub(crate) fleets: &'static [&'static str],
    home: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Process {
    /// One with these fleets; the first announces the policies of all.
    pub(crate) fn new(number: usize, fleets: &'static [&'static str], all: &[&str], arguments: &[&str]) -> Process {
        let (home, port) = (tempfile::tempdir().unwrap(), free_port());
        let policies = home.path().join("policies");
        std::fs::create_dir(&policies).unwrap();
        for name in fleets {
            std::fs::write(policies.join(format!("{name}-fleet.yaml")), fleet_of(name)).unwrap();
        }
        for name in all.iter().filter(|_| number == 0) {
            // A window in which a partition may change its owner; and a metric that has no sample until the faults are over.
            let policy = policy_of(name).replace("window: 1s, stale", "window: 10s, stale").replace("  behavior:", "    - { name: fresh }\n  behavior:");
            std::fs::write(policies.join(format!("{name}.yaml")), policy).unwrap();
        }
        let roles =
            if number == 0 { "ingest,policies,admit,aggregate,decide,arbitrate,fleets,view" } else { "ingest,admit,aggregate,decide,arbitrate,fleets,view" };
        let own = ["--data", "data", "--policies", "policies", "--roles", roles, "--log-format", "text"];
        let arguments = own.iter().chain(arguments).map(ToString::to_string).collect();
        Process { number, url: format!("http://127.0.0.1:{port}"), fleets, home, port, arguments, child: None }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("loadline.log")
    }

    pub(crate) fn start(&mut self) {
        let log: File = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(LOADLINE);
        command.current_dir(self.home.path()).args(["run", "--listen", &format!("127.0.0.1:{}", self.port)]).args(&self.arguments);
        self.child = Some(command.env_remove("LOADLINE_CONFIG").stderr(log).spawn().unwrap());
    }

    /// It runs until it is told otherwise.
    pub(crate) fn is_there(&mut self) {
        if let Some(child) = &mut self.child {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "process {} ended by itself: {ended:?}", self.number);
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        ureq::get(format!("{}/readyz", self.url)).config().timeout_global(Some(Duration::from_secs(3))).build().call().is_ok()
    }

    fn send(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.send(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    pub(crate) fn tell_to_end(&mut self) {
        self.send(Signal::TERM);
    }

    /// It ends in order, and is started again.
    pub(crate) fn leaves_and_comes_back(&mut self) {
        self.tell_to_end();
        self.has_ended();
        self.start();
    }

    /// It ends in order.
    pub(crate) fn has_ended(&mut self) {
        let child = self.child.as_mut().unwrap();
        let ended = wait_for("a process to end in order", || child.try_wait().unwrap());
        assert!(ended.success(), "process {}: {ended:?}", self.number);
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("process {} said last:\n{}", self.number, lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        for pid in self.fleets.iter().flat_map(|name| pids_of(&self.data(), name)) {
            let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
        }
    }
}

/// What befalls the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
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
pub(crate) const DECK: [Fault; 8] =
    [Fault::Killed, Fault::Killed, Fault::KilledTwice, Fault::TwoKilled, Fault::Paused, Fault::Stopped, Fault::Left, Fault::BrokerKilled];

/// The session time-out is 6 s.
const PAUSED_MS: u64 = 4_000;
const STOPPED_MS: u64 = 8_000;

/// So many faults, in an order of chance.
pub(crate) fn draw(count: usize, random: &mut Random) -> Vec<Fault> {
    let mut faults = Vec::new();
    while faults.len() < count {
        let mut deck = DECK.to_vec();
        while !deck.is_empty() {
            faults.push(deck.remove(usize::try_from(random.below(deck.len() as u64)).unwrap()));
        }
    }
    faults.truncate(count);
    faults
}

/// Does a fault; `wait` waits for so many more requests to be acknowledged.
pub(crate) fn befall(fault: Fault, broker: &mut Broker, processes: &mut [Process], random: &mut Random, wait: &dyn Fn(u64)) {
    let count = processes.len();
    let one = usize::try_from(random.below(count as u64)).unwrap();
    let other = (one + 1) % count;
    let a_while = |random: &mut Random, most: u64| std::thread::sleep(Duration::from_millis(random.below(most)));
    match fault {
        Fault::Killed => {
            processes[one].kill();
            wait(random.below(3) * 10);
            processes[one].start();
        }
        Fault::KilledTwice => {
            processes[one].kill();
            processes[one].start();
            a_while(random, 2_000);
            processes[one].kill();
            processes[one].start();
        }
        Fault::TwoKilled => {
            processes[one].kill();
            processes[other].kill();
            wait(random.below(2) * 10);
            processes[one].start();
            processes[other].start();
        }
        Fault::Paused | Fault::Stopped => {
            processes[one].send(Signal::STOP);
            match fault {
                Fault::Paused => a_while(random, PAUSED_MS),
                _ => std::thread::sleep(Duration::from_millis(STOPPED_MS)),
            }
            processes[one].send(Signal::CONT);
        }
        Fault::Left => {
            // Before that there is nothing to end in order.
            wait_for("a process to be ready", || processes[one].is_ready().then_some(()));
            processes[one].leaves_and_comes_back();
        }
        Fault::BrokerKilled => {
            broker.kill();
            broker.start_again();
        }
    }
}
