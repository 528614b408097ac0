//! What a backup says of itself: `backup.json`. The log has sums of its own; of the small files beside it they stand here,
//! so that one that is missing or another one is seen before it is put back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::json;

/// The file's name.
pub(super) const MANIFEST: &str = "backup.json";

/// The version of the backup's layout.
pub(super) const VERSION: u32 = 1;

/// The files beside the log, by their path within the backup.
pub(super) type Files = BTreeMap<PathBuf, Sum>;

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) version: u32,
    /// When the backup was begun.
    pub(super) at: Timestamp,
    /// The directory that it is of.
    pub(super) of: PathBuf,
    /// The program that wrote it.
    pub(super) loadline: String,
    /// What it has besides the log.
    pub(super) files: Files,
}

/// How a file is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sum {
    bytes: u64,
    crc32: u32,
}

impl Sum {
    /// Of a file's content.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Sum { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
    }
}

/// Reads it.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn read(directory: &Path) -> Result<Manifest, String> {
    let text = fs::read(directory.join(MANIFEST)).map_err(|error| format!("{MANIFEST}: {error}"))?;
    json::read_bytes(&text).map_err(|error| format!("{MANIFEST}: {error}"))
}

/// Whether a directory is a backup: it says so, and nothing has ever run on it.
pub(in crate::cli) fn is_backup(directory: &Path) -> bool {
    directory.join(MANIFEST).exists() && !directory.join("lock").exists()
}

/// What a backup has no more of what it had, by file; `Err` where that cannot be told.
pub(in crate::cli) fn differences(directory: &Path) -> Result<Vec<String>, String> {
    let manifest = read(directory)?;
    let difference = |(name, sum): (&PathBuf, &Sum)| match fs::read(directory.join(name)) {
        Ok(bytes) if Sum::of(&bytes) == *sum => None,
        Ok(_) => Some(format!("{} is not what was backed up", name.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("{} is missing", name.display())),
        Err(error) => Some(format!("{}: {error}", name.display())),
    };
    Ok(manifest.files.iter().filter_map(difference).collect())
}
