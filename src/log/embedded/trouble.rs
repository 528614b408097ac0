//! Whether the log can be written now, and if not, since when and why.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::statvfs;

use super::failure::Failure;
use crate::log::Trouble;
use crate::log::coordinator::lock;
use crate::model::Timestamp;

/// A file system with less room than this is full, whatever SQLite calls it (it may fail at its shared memory
/// first): the least that a commit writes is a few pages of 4 kB.
pub(super) const FULL_BYTES: u64 = 64 * 1024;

/// What became of the last write.
pub(super) struct Standing {
    directory: PathBuf,
    max_bytes: Option<u64>,
    trouble: Mutex<Option<Trouble>>,
}

impl Standing {
    pub(super) fn new(directory: &Path, max_bytes: Option<u64>) -> Self {
        Standing { directory: directory.to_owned(), max_bytes, trouble: Mutex::default() }
    }

    /// Since when nothing can be written, and why.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        lock(&self.trouble).clone()
    }

    /// A transaction was written.
    pub(super) fn written(&self) {
        drop(lock(&self.trouble).take());
    }

    /// A transaction failed, at `now`.
    pub(super) fn refused(&self, failure: &Failure, now: Timestamp) {
        let (reason, mend) = self.explain(failure);
        let mut trouble = lock(&self.trouble);
        let (since, refused) = trouble.as_ref().map_or((now, 0), |trouble| (trouble.since, trouble.refused));
        *trouble = Some(Trouble { of: None, since, refused: refused + 1, reason, place: self.directory.display().to_string(), mend: mend.to_owned() });
    }

    fn explain(&self, failure: &Failure) -> (String, &'static str) {
        let free = free_bytes(&self.directory);
        let is_full = failure.is_full() || free.is_some_and(|free| free < FULL_BYTES);
        match (self.max_bytes, free) {
            (Some(max), Some(free)) if failure.is_full() && free >= FULL_BYTES => {
                (format!("the log in {} has reached its limit of {max} bytes", self.directory.display()), "raise the limit, or let it keep less")
            }
            (_, free) if is_full => {
                let free = free.map_or_else(String::new, |free| format!(" ({free} bytes are free on its file system)"));
                (format!("no room is left for the log in {}{free}", self.directory.display()), "make room there: it goes on by itself then")
            }
            _ => (failure.reason().to_owned(), failure.mend()),
        }
    }
}

/// The room that is left where `path` is.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    statvfs(path).ok().map(|system| system.f_bavail.saturating_mul(system.f_frsize))
}
