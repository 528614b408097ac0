//! Small files that are either the old or the new one, whenever the machine stops.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::log::directory;

/// Replaces `path` by a file with `bytes`: a reader sees all of the old or all of the new. Returns
/// when file and directory are on disk.
///
/// Two writers of the same path must exclude each other: they share the temporary name.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path)?;
    let (temporary, file) = write_beside(path, bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    directory::sync(directory)
}

/// As [`replace`], without waiting for the disk: for what is written anew after a restart anyway.
pub(crate) fn replace_quickly(path: &Path, bytes: &[u8]) -> io::Result<()> {
    directory_of(path)?;
    let (temporary, _) = write_beside(path, bytes)?;
    fs::rename(temporary, path)
}

fn directory_of(path: &Path) -> io::Result<&Path> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no directory")),
    };
    directory::make(directory)?;
    Ok(directory)
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    Ok((temporary, file))
}
