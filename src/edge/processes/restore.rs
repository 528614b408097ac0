//! Fleets in a data directory on which nothing runs: for a backup, a restore, and a check.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::is_path_name;
use super::record::{RecordError, RecordFile};
use super::{KIND, group};
use crate::edge::observe::TERM;
use crate::model::{TargetId, Timestamp};

/// How long the lock of a fleet's record may be held by another process.
const LOCK: Duration = Duration::from_secs(5);

/// A fleet that was put back with more replicas than its record said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// The fleet.
    pub target: TargetId,
    /// How many of its instances run on this machine.
    pub running: u32,
    /// What the record said.
    pub of_backup: u32,
}

/// Where the fleets of a data directory stand.
pub fn directory_of(data: &Path) -> PathBuf {
    data.join("fleets")
}

/// That the fleets of a data directory are where they were. The first start that supervises fleets makes their directory, and
/// the observer's term after it: a term without it tells that the counts of all fleets are gone, of which processes may run on.
///
/// # Errors
/// That they are gone, and the way out.
pub fn check_kept(data: &Path) -> Result<(), String> {
    let fleets = directory_of(data);
    if fleets.is_dir() || !data.join(TERM).exists() {
        return Ok(());
    }
    if fleets.exists() {
        return Err(format!("{} is no directory, and holds the count of no fleet: put back what was there, from a backup", fleets.display()));
    }
    Err(format!(
        "{0} is gone, and with it the count of every fleet; what ran of them runs on, and nobody would know it. Restore a backup (`loadline restore`); or end those \
         processes, and make the directory (`mkdir {0}`) for every fleet to begin anew",
        fleets.display()
    ))
}

/// The directories of the fleets beneath `fleets`, in order; none where there is no such directory.
///
/// # Errors
/// A directory that cannot be looked into: what it holds is not known, and not nothing.
pub fn fleet_directories(fleets: &Path) -> io::Result<Vec<PathBuf>> {
    let within = |directory: &Path| -> io::Result<Vec<PathBuf>> {
        let unreadable = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(directory, error)),
        };
        let mut directories = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unreadable(directory, error))?.path();
            if std::fs::metadata(&path).map_err(|error| unreadable(&path, error))?.is_dir() {
                directories.push(path);
            }
        }
        directories.sort();
        Ok(directories)
    };
    let mut all = Vec::new();
    for namespace in within(fleets)? {
        all.extend(within(&namespace)?);
    }
    Ok(all)
}

/// What stands where the directories of namespaces and fleets belong, by a name that one could have, and is none.
///
/// # Errors
/// As [`fleet_directories`].
pub fn no_directories(fleets: &Path) -> io::Result<Vec<PathBuf>> {
    let within = |directory: &Path| -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut found = Vec::new();
    for namespace in within(fleets)? {
        if namespace.is_dir() {
            found.extend(within(&namespace)?.into_iter().filter(|path| !path.is_dir()));
        } else {
            found.push(namespace);
        }
    }
    found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_path_name));
    found.sort();
    Ok(found)
}

/// The records that cannot be used, and why.
///
/// # Errors
/// As [`fleet_directories`].
pub fn unreadable_records(fleets: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let record = |directory: PathBuf| directory.join("state.json");
    let unreadable = |path: PathBuf| RecordFile::new(path.clone()).read().err().map(|error| (path, error.to_string()));
    Ok(fleet_directories(fleets)?.into_iter().map(record).filter_map(unreadable).collect())
}

/// Sets the count of each fleet to what runs on this machine, where that is more: the fleet went on after its record was
/// copied, and must not shrink to what it was then.
///
/// # Errors
/// Where running processes cannot be looked for, or a record cannot be changed.
pub fn raise_to_running(fleets: &Path, now: Timestamp) -> io::Result<Vec<Raised>> {
    let mut raised = Vec::new();
    for directory in fleet_directories(fleets)? {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let namespace = directory.parent().map(name).unwrap_or_default();
        let Ok(target) = TargetId::new(&namespace, KIND, &name(&directory)) else { continue };
        let file = RecordFile::new(directory.join("state.json"));
        let record = match file.read() {
            Ok(record) => record,
            // A fleet whose record was not in the backup begins a new incarnation.
            Err(RecordError::Missing(_)) => continue,
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        let running = u32::try_from(group::find(target.as_str(), &record.uid)?.leaders.len()).unwrap_or(u32::MAX);
        if running > record.replicas {
            let expected = (record.uid.as_str(), record.revision);
            file.compare_and_set(expected, running, None, ("restore", now), LOCK).map_err(|error| io::Error::other(error.to_string()))?;
            raised.push(Raised { target, running, of_backup: record.replicas });
        }
    }
    Ok(raised)
}
