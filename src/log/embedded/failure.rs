//! What a failure of SQLite means to a caller of the log.

use rusqlite::ErrorCode;

use crate::log::LogError;

/// A failure of SQLite: by then the transaction is rolled back.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There is no room: on the disk, or below the log's own limit.
    Full(String),
    /// It may pass: a busy file, a failing device. With the way out.
    Passing(String, &'static str),
    /// It will not: a damaged file, or a mistake in this program.
    Lasting(String),
}

impl Failure {
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Failure::Full(_))
    }

    pub(super) fn reason(&self) -> &str {
        let (Failure::Full(reason) | Failure::Passing(reason, _) | Failure::Lasting(reason)) = self;
        reason
    }

    pub(super) fn mend(&self) -> &'static str {
        match self {
            Failure::Full(_) => "make room: it goes on by itself then",
            Failure::Passing(_, mend) => mend,
            Failure::Lasting(_) => "stop Loadline, and look with `loadline doctor` at its data directory",
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OperationInterrupted, OutOfMemory, PermissionDenied, ReadOnly,
            SystemIoFailure,
        };
        let refused = format!("the log's database refused: {error}");
        match error.sqlite_error_code() {
            Some(DiskFull) => Failure::Full(refused),
            Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed | OperationInterrupted) => {
                Failure::Passing(refused, "end what holds log.db: a shell with an open transaction, a copy under way")
            }
            Some(ReadOnly | PermissionDenied | CannotOpen) => Failure::Passing(refused, "make the data directory and all in it writable"),
            Some(SystemIoFailure | OutOfMemory) => Failure::Passing(refused, "look into the kernel's log: the disk or the memory fails"),
            _ => Failure::Lasting(format!("the log's database failed: {error}; stop Loadline, and look with `loadline doctor` at its data directory")),
        }
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(reason) | Failure::Passing(reason, _) => LogError::Retry { reason },
            Failure::Lasting(reason) => LogError::Fatal { reason },
        }
    }
}
