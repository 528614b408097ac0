//! One process at a time: a lock on the file `lock` in the log's directory, with the pid in it for
//! people. The kernel frees it when the process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::log::LogError;

/// The lock, held until it is dropped.
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes the lock of `directory`, or says who has it.
    pub(super) fn take(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join("lock");
        let unusable = |error: std::io::Error| LogError::Fatal {
            reason: format!("{} cannot be written: {error}; make it writable, or choose another directory with --data", path.display()),
        };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Without the pid the message is still true.
                let holder = match file.read_to_string(&mut pid) {
                    Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
                    _ => "another process".to_owned(),
                };
                return Err(LogError::Fatal {
                    reason: format!("{holder} runs on the log's directory {}: stop it, or choose another directory with --data", directory.display()),
                });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
        Ok(LockFile { _file: file })
    }
}
