//! A directory of a run's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// What says that a directory is one of ours.
const MARK: &str = ".loadgen";

/// Makes a directory, or empties one that an earlier run had made.
///
/// # Errors
/// Where it is somebody else's, or cannot be made.
pub(crate) fn emptied(place: &Path) -> anyhow::Result<PathBuf> {
    if let Ok(mut entries) = fs::read_dir(place) {
        let ours = place.join(MARK).exists();
        ensure!(
            ours || entries.next().is_none(),
            "{} has files that are of no run of loadgen: name a directory that is empty, or not there, with --data",
            place.display()
        );
        fs::remove_dir_all(place).with_context(|| format!("empty {}", place.display()))?;
    }
    fs::create_dir_all(place).with_context(|| format!("make {}; name another place with --data", place.display()))?;
    fs::write(place.join(MARK), "").with_context(|| format!("write into {}", place.display()))?;
    place.canonicalize().with_context(|| format!("find {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("a/run");
        fs::write(emptied(&place).unwrap().join("of a run"), "").unwrap();
        assert!(!emptied(&place).unwrap().join("of a run").exists());
        fs::write(home.path().join("precious"), "").unwrap();
        let refused = emptied(home.path()).unwrap_err().to_string();
        assert!(refused.contains("are of no run of loadgen") && home.path().join("precious").exists(), "{refused}");
    }
}
