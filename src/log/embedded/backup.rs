//! A copy of a log that runs, and the way back from one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::lock_file::{LOCK, LockFile};
use super::{DATABASE, RESTORING, refusal};
use crate::log::LogError;
use crate::log::directory as names;

/// Writes a copy of the log in `directory`, as of one moment, to the file `to`, which must not be there yet; also while
/// a process runs on it, which is not held up.
///
/// # Errors
/// [`LogError::Fatal`] where the copy cannot be read or written; that there is a log of this version the caller has seen.
pub fn copy(directory: &Path, to: &Path) -> Result<(), LogError> {
    let failed = |error: &dyn std::fmt::Display| {
        let place = to.parent().unwrap_or(to);
        refusal(place, LogError::Fatal { reason: format!("the log in {} cannot be copied to {}: {error}", directory.display(), to.display()) })
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(DATABASE), flags).map_err(|error| failed(&error))?;
    // One read transaction: the newest part cannot be copied into the database meanwhile, and grows by what is written.
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => failed(&format!(
            "{error}. To save all that is there, stop what runs on it and copy the directory itself (`cp -a`); then see what `loadline doctor` says of the copy"
        )),
        _ => failed(&error),
    })?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| failed(&error))
}

/// A directory into which a log is being put back: nothing runs on it before it is complete.
pub struct Restoring {
    directory: PathBuf,
    _lock: LockFile,
}

impl Restoring {
    /// Begins in an empty directory, which is created where it is not there.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where it is not empty, or cannot be written.
    pub fn begin(directory: &Path) -> Result<Self, LogError> {
        let failed = |error: std::io::Error| refusal(directory, LogError::Fatal { reason: format!("{} cannot be used: {error}", directory.display()) });
        names::make(directory).map_err(failed)?;
        let mut entries = fs::read_dir(directory).map_err(failed)?;
        if entries.next().is_some() {
            return Err(LogError::Fatal { reason: format!("{} is not empty; restore into a new directory, or move away what is there", directory.display()) });
        }
        File::create(directory.join(RESTORING)).and_then(|file| file.sync_all()).map_err(failed)?;
        // The name too, before there is any other: what is found after a power failure says that it is not complete.
        names::sync(directory).map_err(failed)?;
        let lock = LockFile::take(directory)?;
        Ok(Restoring { directory: directory.to_owned(), _lock: lock })
    }

    /// Copies the database of the backup in `from`.
    ///
    /// # Errors
    /// As the system says.
    pub fn database(&self, from: &Path) -> std::io::Result<()> {
        let to = self.directory.join(DATABASE);
        fs::copy(from.join(DATABASE), &to)?;
        File::open(to)?.sync_all()
    }

    /// Ends it: from now on a process may run there.
    ///
    /// # Errors
    /// As the system says.
    pub fn complete(self) -> std::io::Result<()> {
        File::open(&self.directory)?.sync_all()?;
        fs::remove_file(self.directory.join(RESTORING))?;
        fs::remove_file(self.directory.join(LOCK))?;
        File::open(&self.directory)?.sync_all()
    }
}
