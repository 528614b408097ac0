//! Directories whose names outlast a power failure.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes `directory`, and those above it, where they are missing. Each new name is on the disk when it returns: a file
/// that was synced is lost all the same when the name of a directory above it is.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(directory);
    make(parent)?;
    match fs::create_dir(directory) {
        // Another thread was faster; or a file is in the way, which the caller meets.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Returns when the names in `directory` are on the disk.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
