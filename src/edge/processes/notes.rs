//! What a supervisor writes down about its instances, so that the next one takes them over.
//!
//! A name is noted before its process is started and the pid after; what lies between is found by
//! the identity in the environment. So a crash at any point neither loses nor doubles an instance.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::procfs::ProcessId;
use crate::edge::durable_file;
use crate::model::json;
use crate::model::{Amount, Timestamp};

/// Everything that is noted of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notes {
    /// The incarnation that they are about.
    pub(crate) uid: String,
    /// The start of the machine in which pids and start times were noted.
    pub(crate) boot: String,
    /// The number of the next instance: names are never used twice.
    pub(crate) next: u64,
    /// The instances.
    pub(crate) instances: Vec<Note>,
}

/// What is noted of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Note {
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    pub(crate) pid: Option<i32>,
    pub(crate) start_ticks: Option<u64>,
    /// When its first process was started.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ready: bool,
    /// Whether its process has been healthy since it was started.
    pub(crate) was_healthy: bool,
    pub(crate) ready_changed_at: Timestamp,
    pub(crate) draining: bool,
    pub(crate) restarts: u32,
    pub(crate) requests: BTreeMap<String, Amount>,
}

impl Note {
    /// The process, where one was noted.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        Some(ProcessId { pid: self.pid?, start_ticks: self.start_ticks? })
    }
}

/// The file of the notes.
#[derive(Debug)]
pub(crate) struct NotesFile {
    path: PathBuf,
    /// What stands there, as far as this process knows.
    written: Option<Notes>,
}

impl NotesFile {
    pub(crate) fn new(path: &Path) -> Self {
        NotesFile { path: path.to_owned(), written: None }
    }

    /// What stands there; nothing where there is no file, or one that cannot be understood (the
    /// instances are found again by their environment).
    pub(crate) fn read(&mut self) -> Notes {
        let notes: Notes = match std::fs::read(&self.path) {
            Ok(bytes) => json::read_bytes(&bytes).unwrap_or_else(|error| {
                tracing::warn!(event = "notes-unreadable", path = %self.path.display(), %error, "the notes about instances cannot be understood; looking for the instances themselves");
                Notes::default()
            }),
            Err(_) => Notes::default(),
        };
        self.written = Some(notes.clone());
        notes
    }

    /// Whether an instance of this name is written down.
    pub(crate) fn has(&self, uid: &str, name: &str) -> bool {
        self.written.as_ref().is_some_and(|notes| notes.uid == uid && notes.instances.iter().any(|note| note.name == name))
    }

    /// Writes them, durably, where they changed.
    pub(crate) fn write(&mut self, notes: Notes) -> io::Result<()> {
        if self.written.as_ref() == Some(&notes) {
            return Ok(());
        }
        durable_file::replace(&self.path, &serde_json::to_vec(&notes)?)?;
        self.written = Some(notes);
        Ok(())
    }
}
