//! What a failure of SQLite means to a caller of the log.

use rusqlite::ErrorCode;

use crate::log::LogError;

/// A failure of SQLite: by then the transaction is rolled back.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// It may pass: a full disk, a busy file, a failing device.
    Passing(String),
    /// It will not: a damaged file, or a mistake in this program.
    Lasting(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OperationInterrupted, OutOfMemory, PermissionDenied, ReadOnly,
            SystemIoFailure,
        };
        match error.sqlite_error_code() {
            Some(
                CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | OperationInterrupted
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure,
            ) => Failure::Passing(format!("the log's database refused: {error}")),
            _ => Failure::Lasting(format!("the log's database failed: {error}; check it with sqlite3's `PRAGMA integrity_check`")),
        }
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Passing(reason) => LogError::Retry { reason },
            Failure::Lasting(reason) => LogError::Fatal { reason },
        }
    }
}
