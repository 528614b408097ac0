//! What a backup says of itself: `backup.json`, with the sum of each file that it has, so that one that is missing, or of another backup, is seen before
//! it is put back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use crate::cli::migrated;
use crate::edge::{durable_file, observe, processes};
use crate::log::embedded::{DATABASE, LOCK};
use crate::model::Timestamp;
use crate::model::json;

/// The file's name.
pub(super) const MANIFEST: &str = "backup.json";

/// The version of the backup's layout.
pub(super) const VERSION: u32 = 1;

/// The names in a fleet's directory that a backup has.
pub(super) const OF_A_FLEET: [&str; 3] = ["state.json", "instances.json", "firing.json"];

/// The files, by their path within the backup.
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
    /// What it has.
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

    /// Of a file, whatever its size.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let (mut file, mut hasher, mut bytes) = (File::open(path)?, Hasher::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Sum { bytes, crc32: hasher.finalize() }),
                read => {
                    hasher.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    }
}

/// What stands in the file of every layout.
#[derive(Deserialize)]
struct Layout {
    version: u32,
    loadline: Option<String>,
}

/// Reads it.
///
/// # Errors
/// Why it cannot be used: it is of another layout, whatever else stands there then, or damaged.
pub(super) fn read(directory: &Path) -> Result<Manifest, String> {
    let text = fs::read(directory.join(MANIFEST)).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let unusable = |error: json::Unusable| format!("{MANIFEST}: {error}");
    let Layout { version, loadline } = json::read_bytes(&text).map_err(unusable)?;
    if version != VERSION {
        let by = loadline.map_or_else(String::new, |loadline| format!(" ({loadline})"));
        return Err(format!(
            "its layout has version {version}, and this Loadline knows {VERSION}: look at it, and restore it, with the one that wrote it{by}, or a newer one"
        ));
    }
    json::read_bytes(&text).map_err(unusable)
}

/// Whether a directory is a backup: it says so, and nothing has ever run on it, which would have left its `lock`.
pub(in crate::cli) fn is_backup(directory: &Path) -> bool {
    directory.join(MANIFEST).exists() && !directory.join(LOCK).exists()
}

/// That the log of a backup can be mended, and it stays a backup: what it had is known.
///
/// # Errors
/// As [`differences`].
pub(in crate::cli) fn check_known(directory: &Path) -> Result<(), String> {
    read(directory).map(drop)
}

/// Takes the log as it is now for that of the backup: it was mended.
///
/// # Errors
/// As the system says.
pub(in crate::cli) fn renew_log(directory: &Path) -> anyhow::Result<()> {
    let mut manifest = read(directory).map_err(anyhow::Error::msg)?;
    manifest.files.insert(PathBuf::from(DATABASE), Sum::of_file(&directory.join(DATABASE))?);
    durable_file::replace(&directory.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    Ok(fs::remove_file(directory.join(LOCK))?)
}

/// What a backup has no more of what it had, by file; `Err` where that cannot be told.
pub(in crate::cli) fn differences(directory: &Path) -> Result<Vec<String>, String> {
    let manifest = read(directory)?;
    let difference = |(name, sum): (&PathBuf, &Sum)| match Sum::of_file(&directory.join(name)) {
        Ok(found) if found == *sum => None,
        Ok(_) => Some(format!("{} is not what was backed up", name.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("{} is missing", name.display())),
        Err(error) => Some(format!("{}: {error}", name.display())),
    };
    let mut differences: Vec<String> = manifest.files.iter().filter_map(difference).collect();
    if !manifest.files.contains_key(Path::new(DATABASE)) {
        differences.push(format!("{MANIFEST} does not have {DATABASE}"));
    }
    // What would come back besides.
    let others = restored_besides_the_log(directory).map_err(|error| format!("what is in it cannot be told: {error}"))?;
    differences
        .extend(others.into_iter().filter(|name| !manifest.files.contains_key(name)).map(|name| format!("{} was not backed up with it", name.display())));
    Ok(differences)
}

/// The files that a restore puts back, by their path within the backup.
fn restored_besides_the_log(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if is_of_the_directory(&name) {
            files.push(PathBuf::from(name));
        }
    }
    for fleet in processes::fleet_directories(&processes::directory_of(directory))? {
        let there = OF_A_FLEET.iter().map(|name| fleet.join(name)).filter(|path| path.exists());
        files.extend(there.filter_map(|path| path.strip_prefix(directory).ok().map(Path::to_owned)));
    }
    files.sort();
    Ok(files)
}

/// Whether a file beside the log goes along: the observer's term, what stops all changes, and that it was migrated.
pub(super) fn is_of_the_directory(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    text == observe::TERM || text == migrated::FILE || text == "freeze" || text.starts_with("freeze.")
}
