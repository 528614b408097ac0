//! What stands in a directory of policies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest file that is read, in bytes: a record of the log may have 512 kB.
pub(crate) const MAX_FILE_BYTES: u64 = 256 * 1024;

/// A file as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::edge) struct Listed {
    pub(in crate::edge) path: PathBuf,
    pub(in crate::edge) modified: Option<SystemTime>,
    pub(in crate::edge) bytes: u64,
}

/// The policy files of a directory by name; of a single file, itself. A file that was there and is gone, while the
/// directory around it is not, is no error: it says nothing any more.
pub(in crate::edge) fn list(path: &Path) -> io::Result<BTreeMap<String, Listed>> {
    let mut files = BTreeMap::new();
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_policy_path(path) && fs::symlink_metadata(path).is_err() => {
            let around = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return if fs::metadata(around).is_ok_and(|m| m.is_dir()) { Ok(files) } else { Err(error) };
        }
        metadata => metadata?,
    };
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_policy_file(&name)
                && let Some(listed) = file(entry.path())?
            {
                files.insert(name, listed);
            }
        }
    } else if let Some(listed) = file(path.to_owned())? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(name, listed);
    }
    Ok(files)
}

/// The paths of the policy files of a folder, by name: those that `run` reads there.
///
/// # Errors
/// Where it cannot be listed.
pub(crate) fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(list(folder)?.into_values().map(|listed| listed.path).collect())
}

fn is_policy_path(path: &Path) -> bool {
    path.file_name().is_some_and(|name| is_policy_file(&name.to_string_lossy()))
}

/// Loadline's own configuration may stand beside its policies.
fn is_policy_file(name: &str) -> bool {
    if name == "loadline.yaml" {
        return false;
    }
    let extension = Path::new(name).extension();
    !name.starts_with('.') && extension.is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
}

/// A regular file, also behind a link; a pipe or a device, which could block its reader, is none.
/// One that went away in between is not there; one whose link leads nowhere is listed, and cannot be read.
fn file(path: PathBuf) -> io::Result<Option<Listed>> {
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(Listed { path, modified: metadata.modified().ok(), bytes: metadata.len() })),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dangling = fs::symlink_metadata(&path).is_ok();
            Ok(dangling.then_some(Listed { path, modified: None, bytes: 0 }))
        }
        Err(error) => Err(error),
    }
}

/// The text of a file, or why it cannot be used.
pub(in crate::edge) fn read(listed: &Listed) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(&listed.path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("has more than {MAX_FILE_BYTES} bytes; split it into several files"));
    }
    Ok(text)
}
