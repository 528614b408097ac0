//! Who supervises an incarnation of a fleet, and who a fleet of this name for an installation: one process of a machine at a time.
//!
//! A copy of a data directory (a restored backup, `cp -a`) has a lock of its own, and the same fleets: two that run on the
//! two would start, stop and count the same instances. So what is claimed is the incarnation itself: its uid is bound as a
//! name of an abstract socket (unix(7)). There is no file that could be copied, deleted or left behind; the kernel frees
//! the name when the process ends, however it ends; and it is one for all users. It does not reach another machine or
//! another network namespace.
//!
//! Of an installation that several processes share, two with the same documents would have two fleets, each with instances
//! of its own, for one target. So there a fleet's name is claimed, too.

use std::fmt;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use super::record::RecordFile;
use super::restore::fleet_directories;
use crate::model::TargetId;

/// How often, and after which wait, a name is looked at again that is taken: between fork and exec a process that its
/// holder was starting still has it, which lasts milliseconds.
pub(super) const LOOKS: u32 = 10;
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The name by which incarnation `uid` is claimed.
pub(super) fn of_incarnation(uid: &str) -> String {
    format!("loadline/fleet/{uid}")
}

/// The name by which an installation's fleet is claimed. As names of sockets are short, it has their FNV-1a.
pub(super) fn of_target(installation: &str, target: &TargetId) -> String {
    let of_bytes = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = format!("{installation}\n{target}").bytes().fold(0xcbf2_9ce4_8422_2325, of_bytes);
    format!("loadline/target/{hash:016x}")
}

/// What is claimed, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    _bound: UnixDatagram,
}

impl Claim {
    /// Takes what has this name.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] where another has it; else as the system says.
    pub(super) fn take(name: &str) -> io::Result<Self> {
        let address = SocketAddr::from_abstract_name(name)?;
        UnixDatagram::bind_addr(&address).map(|bound| Claim { _bound: bound })
    }
}

/// Who has a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// `None` where this user may not know.
    pid: Option<u32>,
}

impl Holder {
    /// Of the claim of this name; `None` where nobody has it.
    pub(super) fn of(name: &str) -> Option<Holder> {
        // proc_pid_net(5): the last columns are the inode and the name, an abstract one with an @ before it.
        let sockets = fs::read_to_string("/proc/net/unix").ok()?;
        let ours = format!("@{name}");
        let inode = sockets.lines().find_map(|line| line.trim_end().strip_suffix(&ours)?.split_ascii_whitespace().next_back())?;
        let socket = format!("socket:[{inode}]");
        let has_it = |pid: &u32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            open.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == socket.as_str()))
        };
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Some(Holder { pid: pids.into_iter().find(has_it) })
    }

    /// As [`Holder::of`], of one that keeps it: not of a process that is just being started.
    fn that_lasts(name: &str) -> Option<Holder> {
        let mut holder = Holder::of(name)?;
        for _ in 1..LOOKS {
            std::thread::sleep(LOOK_AGAIN);
            holder = Holder::of(name)?;
        }
        Some(holder)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else { return f.write_str("another process") };
        write!(f, "process {pid}")?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).filter(|word| !word.is_empty()).collect();
        match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(directory) if !words.is_empty() => write!(f, " (`{}` in {})", words.join(" "), directory.display()),
            _ => Ok(()),
        }
    }
}

/// A fleet that another process supervises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// `namespace/name`.
    pub fleet: String,
    /// Who supervises it, in words.
    pub by: String,
}

/// The fleets beneath `fleets` that a process of this machine supervises: of one that runs on another directory, this
/// one is a copy.
///
/// # Errors
/// As [`fleet_directories`].
pub fn claimed_fleets(fleets: &Path) -> io::Result<Vec<Claimed>> {
    let claimed = |directory: &Path| {
        let record = RecordFile::new(directory.join("state.json")).read().ok()?;
        let by = Holder::that_lasts(&of_incarnation(&record.uid))?.to_string();
        Some(Claimed { fleet: directory.strip_prefix(fleets).unwrap_or(directory).display().to_string(), by })
    };
    Ok(fleet_directories(fleets)?.iter().filter_map(|directory| claimed(directory)).collect())
}

/// That no other process supervises a fleet of `fleets`, before anything is started on it.
///
/// # Errors
/// Which fleet, who does, and the way out.
pub fn check_unclaimed(fleets: &Path) -> Result<(), String> {
    let claimed = claimed_fleets(fleets).map_err(|error| format!("the fleets cannot be looked at: {error}; see that this user may read them"))?;
    match claimed.as_slice() {
        [] => Ok(()),
        [Claimed { fleet, by }, ..] => Err(format!(
            "{by} supervises the fleet {fleet} of {0}: of the directory that it runs on, this one is a copy, or the other way round, and two would start and \
             stop the same instances; stop it first. For the copy to have fleets of its own, remove the state.json of each in {0}",
            fleets.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_and_its_holder_is_known() {
        let uid = super::super::procfs::new_uid().unwrap();
        let name = of_incarnation(&uid);
        assert_eq!(Holder::of(&name), None);
        let claim = Claim::take(&name).unwrap();
        assert_eq!(Claim::take(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let holder = Holder::of(&name).unwrap();
        assert_eq!(holder.pid, Some(std::process::id()));
        assert!(holder.to_string().starts_with(&format!("process {} (`", std::process::id())), "{holder}");
        Claim::take(&of_incarnation(&super::super::procfs::new_uid().unwrap())).unwrap();
        let long: TargetId = format!("{0}/ProcessFleet/{0}", "x".repeat(63)).parse().unwrap();
        let of_another = Claim::take(&of_target("another", &long)).unwrap();
        drop((Claim::take(&of_target(&uid, &long)).unwrap(), of_another, claim));
        // A process that another test starts has a copy of it until it is another program.
        let mut again = Claim::take(&name);
        while again.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            again = Claim::take(&name);
        }
        again.unwrap();
    }
}
