//! One process at a time: a lock on the file `lock` in the log's directory. The kernel frees it when the process
//! ends, however it ends.
//!
//! The file has two lines: the pid, for people, and the *mark*: how many records had been appended. The mark is
//! written after each commit and never waited for, so it may lag behind the log and never runs ahead of it: a log
//! that has fewer records than its mark has lost some (`log.db-wal` was deleted or damaged, an older `log.db` was
//! put in its place), which SQLite itself cannot know.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::log::LogError;

/// The file's name.
pub const LOCK: &str = "lock";

/// How often the lock is tried before somebody else is said to have it.
const TRIES: u32 = 5;

/// How long between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Where the mark stands: behind the pid, which is padded.
const MARK_AT: u64 = 11;

/// The lock, held until it is dropped.
pub(super) struct LockFile {
    file: File,
}

/// The way to the mark of a lock that is held.
pub(super) struct Mark(File);

/// What stands in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// The process that had it last, or has it.
    pub(super) pid: Option<u32>,
    /// How many records had been appended.
    pub(super) mark: Option<u64>,
}

impl Content {
    fn of(text: &str) -> Self {
        let mut lines = text.lines();
        let pid = lines.next().and_then(|line| line.trim().parse().ok());
        let mark = lines.next().and_then(|line| line.strip_prefix("appended ")?.trim().parse().ok());
        Content { pid, mark }
    }

    /// Reads it; nothing where there is no file.
    pub(super) fn read(directory: &Path) -> Self {
        let path = directory.join(LOCK);
        // At a pipe one would wait for ever.
        let text = if path.is_file() { std::fs::read_to_string(path).ok() } else { None };
        text.map_or_else(Content::default, |text| Content::of(&text))
    }
}

impl LockFile {
    /// Takes the lock of `directory`, or says who has it.
    pub(super) fn take(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(LOCK);
        let unusable = |error: std::io::Error| LogError::Fatal {
            reason: format!("{} cannot be written: {error}; make it writable, or choose another directory with --data", path.display()),
        };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        let mut tries = 0;
        let taken = loop {
            tries += 1;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever asks for the holder has it for an instant.
                Err(Errno::WOULDBLOCK) if tries < TRIES => std::thread::sleep(BETWEEN_TRIES),
                taken => break taken,
            }
        };
        match taken {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                // Without the pid the message is still true.
                let holder = Content::read(directory).pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                return Err(LogError::Fatal {
                    reason: format!("{holder} runs on the log's directory {}: stop it, or choose another directory with --data", directory.display()),
                });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        let lock = LockFile { file };
        // The mark stays until the log was compared with it.
        lock.file.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0).map_err(unusable)?;
        Ok(lock)
    }

    /// The way to the mark.
    pub(super) fn mark(&self) -> std::io::Result<Mark> {
        self.file.try_clone().map(Mark)
    }
}

impl Mark {
    /// Says how many records have been appended, all of them on disk.
    pub(super) fn set(&self, appended: u64) {
        // A mark that lags is of less use, and does no harm.
        drop(self.0.write_all_at(format!("appended {appended:020}\n").as_bytes(), MARK_AT));
    }

    /// Returns when it is on the disk.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.0.sync_all()
    }
}

/// Who runs on a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// No process.
    Nobody,
    /// This one, where its pid is known.
    Process(Option<u32>),
    /// It cannot be told from here, and why.
    Unknown(String),
}

impl Runs {
    /// Who runs on `directory` now.
    pub(super) fn on(directory: &Path) -> Runs {
        let path = directory.join(LOCK);
        if std::fs::metadata(&path).is_ok_and(|lock| !lock.is_file()) {
            // Nobody can have taken it; and at a pipe one would wait for ever.
            return Runs::Nobody;
        }
        match File::open(&path) {
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => Runs::Process(Content::read(directory).pid),
                _ => Runs::Nobody,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Runs::Nobody,
            Err(error) => Runs::Unknown(format!("{} cannot be read: {error}", path.display())),
        }
    }
}

impl std::fmt::Display for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Runs::Nobody => write!(f, "no process"),
            Runs::Process(Some(pid)) => write!(f, "process {pid}"),
            Runs::Process(None) => write!(f, "a process"),
            Runs::Unknown(reason) => write!(f, "a process that is not known ({reason})"),
        }
    }
}
