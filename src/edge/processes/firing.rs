//! Which alerts of a fleet fire, as told so far: kept beside its notes, so that the next Loadline says which are over.
//!
//! An alert is written down before it is told, and struck out only when its end is in the log: after a crash at any
//! point none that fired stays firing for ever, and none is called over that never fired.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::condition::{Condition, Conditions};
use crate::edge::durable_file;
use crate::model::json;

/// What stands in the file: the alert's name, and what it said at first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Stored(std::collections::BTreeMap<String, String>);

/// The file of the alerts that fire.
#[derive(Debug)]
pub(crate) struct FiringFile {
    path: PathBuf,
    firing: Conditions,
    /// Whether the file says so too.
    is_written: bool,
}

impl FiringFile {
    /// Reads it. A file that is missing or cannot be understood says nothing; see [`FiringFile::is_known`].
    pub(crate) fn new(path: &Path) -> Self {
        let stored = std::fs::read(path).ok().and_then(|bytes| json::read_bytes::<Stored>(&bytes).ok());
        let is_written = stored.is_some();
        let named = |name: &str| Condition::ALL.into_iter().find(|condition| condition.name() == name);
        let firing = stored.unwrap_or_default().0.into_iter().filter_map(|(name, words)| Some((named(&name)?, words))).collect();
        FiringFile { path: path.to_owned(), firing, is_written }
    }

    /// Whether the file says what fires.
    pub(crate) fn is_known(&self) -> bool {
        self.is_written
    }

    /// What was told as firing, and whose end may not be in the log.
    pub(crate) fn told(&self) -> &Conditions {
        &self.firing
    }

    /// Writes down what is about to be told.
    pub(crate) fn add(&mut self, conditions: &Conditions) {
        let new = conditions.iter().filter(|(condition, _)| !self.firing.contains_key(condition));
        let new: Conditions = new.map(|(condition, words)| (*condition, words.clone())).collect();
        if !new.is_empty() {
            self.firing.extend(new);
            self.is_written = false;
        }
        self.write();
    }

    /// Strikes out all but `conditions`: what ended is in the log.
    pub(crate) fn keep(&mut self, conditions: &Conditions) {
        let before = self.firing.len();
        self.firing.retain(|condition, _| conditions.contains_key(condition));
        self.is_written &= self.firing.len() == before;
        self.write();
    }

    fn write(&mut self) {
        if self.is_written {
            return;
        }
        let stored = Stored(self.firing.iter().map(|(condition, words)| (condition.name().to_owned(), words.clone())).collect());
        let written = serde_json::to_vec(&stored).map_err(io::Error::other).and_then(|bytes| durable_file::replace(&self.path, &bytes));
        self.is_written = written.is_ok();
        if !self.is_written
            && let Ok(file) = File::options().write(true).open(&self.path)
        {
            // Rather nothing than what is not so any more; that needs no room on the disk. It is tried again with each report.
            drop(file.set_len(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(conditions: &[Condition]) -> Conditions {
        conditions.iter().map(|condition| (*condition, "why".to_owned())).collect()
    }

    #[test]
    fn what_fires_is_there_after_a_crash_until_its_end_is_in_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firing.json");
        let mut file = FiringFile::new(&path);
        assert!(!file.is_known(), "there is no file");
        file.add(&some(&[Condition::CrashLoop, Condition::HookFailed]));
        file.add(&some(&[Condition::HookFailed]));
        let after = FiringFile::new(&path);
        assert!(after.is_known());
        assert_eq!(*after.told(), some(&[Condition::CrashLoop, Condition::HookFailed]), "whose end may not be in the log");
        file.keep(&some(&[Condition::HookFailed]));
        assert_eq!(*FiringFile::new(&path).told(), some(&[Condition::HookFailed]));
        file.keep(&Conditions::new());
        let after = FiringFile::new(&path);
        assert!(after.is_known() && after.told().is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_unknown_and_not_what_stood_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firing.json");
        let mut file = FiringFile::new(&path);
        file.add(&Conditions::new());
        // Its temporary name is taken by a directory: nothing can be written, whoever tries.
        let taken = directory.path().join("firing.json.new");
        std::fs::create_dir(&taken).unwrap();
        file.add(&some(&[Condition::NotesNotWritten]));
        assert!(!FiringFile::new(&path).is_known());
        std::fs::remove_dir(&taken).unwrap();
        file.add(&some(&[Condition::NotesNotWritten]));
        assert_eq!(*FiringFile::new(&path).told(), some(&[Condition::NotesNotWritten]));
    }
}
