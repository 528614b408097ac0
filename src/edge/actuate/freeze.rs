//! The emergency stop that needs no working pipeline: a file.

use std::io;
use std::path::{Path, PathBuf};

/// While the file is there, nothing is actuated; while `<file>.<namespace>` is there, nothing of
/// that namespace. What they hold does not matter: `touch` is enough.
#[derive(Debug, Clone)]
pub struct FreezeFiles {
    path: PathBuf,
}

impl FreezeFiles {
    /// The freeze file at `path`, and those of namespaces beside it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FreezeFiles { path: path.into() }
    }

    /// The file of one namespace.
    pub fn of_namespace(&self, namespace: &str) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".");
        path.push(namespace);
        PathBuf::from(path)
    }

    /// What freezes `namespace` now, in words: the file's path. A file whose absence cannot be
    /// established freezes too: an emergency stop fails safe.
    pub fn mark_for(&self, namespace: &str) -> Option<String> {
        mark(&self.path).or_else(|| mark(&self.of_namespace(namespace)))
    }
}

fn mark(path: &Path) -> Option<String> {
    // The file itself, not what a link points to: a dangling link is a mark, too.
    match std::fs::symlink_metadata(path) {
        Ok(_) => Some(path.display().to_string()),
        // No such file, or a part of the path is not there: no mark.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => Some(format!("{} (it cannot be looked at: {error})", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_freezes_all_and_one_with_a_namespace_freezes_that() {
        let directory = tempfile::tempdir().unwrap();
        let freeze = FreezeFiles::new(directory.path().join("freeze"));
        assert_eq!(freeze.mark_for("prod"), None);
        std::fs::write(freeze.of_namespace("prod"), "").unwrap();
        assert!(freeze.mark_for("prod").unwrap().ends_with("freeze.prod"));
        assert_eq!(freeze.mark_for("test"), None);
        std::fs::write(directory.path().join("freeze"), "").unwrap();
        assert!(freeze.mark_for("test").unwrap().ends_with("freeze"));
    }
}
