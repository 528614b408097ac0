//! The processes that make up an instance: found by the identity in their environment, and
//! signalled only when they are beyond doubt the ones that are meant.
//!
//! An instance is a process group whose leader Loadline started with `LOADLINE_INSTANCE=<uid>/<name>`.
//! Its descendants inherit the variable. A pid alone is never trusted: each signal goes through a
//! pidfd that was opened first and checked against the start time after, so that a process that got
//! a pid anew is never touched.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::procfs::{self, Environment, ProcessId};

/// The variable that carries an instance's identity.
pub(crate) const IDENTITY: &str = "LOADLINE_INSTANCE";

/// How often a group is looked through for members that were forked while it was being killed.
const KILL_ROUNDS: u32 = 5;

/// A leader of a group that was found running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The process.
    pub(crate) id: ProcessId,
    /// The port that it was given.
    pub(crate) port: Option<u16>,
}

/// What runs of a target.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// The leaders of this incarnation by instance, the oldest first.
    pub(crate) leaders: BTreeMap<String, Vec<Leader>>,
    /// Leaders of the same target, but of another incarnation.
    pub(crate) of_others: Vec<ProcessId>,
}

/// The identity of an instance.
pub(crate) fn identity(uid: &str, name: &str) -> String {
    format!("{uid}/{name}")
}

/// Looks through all processes of this user for leaders of `target`'s groups.
pub(crate) fn find(target: &str, uid: &str) -> io::Result<Running> {
    let mut running = Running::default();
    for pid in procfs::own_pids()? {
        let Some(stat) = procfs::stat(pid).filter(|stat| !stat.ended && stat.group == pid) else { continue };
        let environment = Environment::of(pid);
        let Some((its_uid, name)) = environment.get(IDENTITY).and_then(|identity| identity.split_once('/')) else { continue };
        if its_uid == uid {
            let port = environment.get("PORT").and_then(|port| port.parse().ok());
            running.leaders.entry(name.to_owned()).or_default().push(Leader { id: stat.id, port });
        } else if environment.get("LOADLINE_TARGET") == Some(target) {
            running.of_others.push(stat.id);
        }
    }
    for leaders in running.leaders.values_mut() {
        leaders.sort_by_key(|leader| leader.id.start_ticks);
    }
    Ok(running)
}

/// Sends `signal` to every process of an instance: to its leader, while that runs, to those of the
/// leader's group, and to those that carry its identity. Says how many there were.
pub(crate) fn signal(identity: &str, leader: Option<ProcessId>, signal: Signal) -> io::Result<usize> {
    let group = leader.filter(|leader| procfs::is_running(*leader)).map(|leader| leader.pid);
    let mut sent = 0;
    for pid in procfs::own_pids()? {
        let Some(stat) = procfs::stat(pid).filter(|stat| !stat.ended) else { continue };
        let member = group == Some(stat.group) || Environment::of(pid).get(IDENTITY) == Some(identity);
        if member && send(stat.id, signal)? {
            sent += 1;
        }
    }
    Ok(sent)
}

/// Ends every process of an instance at once.
pub(crate) fn kill(identity: &str, leader: Option<ProcessId>) -> io::Result<()> {
    for _ in 0..KILL_ROUNDS {
        if signal(identity, leader, Signal::KILL)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Sends `signal` to this very process; says whether it was still there.
fn send(id: ProcessId, signal: Signal) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(id.pid) else { return Ok(false) };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // The handle is of whatever has the pid now. Where that is still the process that was meant,
    // the handle is of it: it has had the pid all along.
    if !procfs::is_running(id) {
        return Ok(false);
    }
    match pidfd_send_signal(handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
