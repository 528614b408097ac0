//! The endpoints of a fleet, from a Prometheus `file_sd` file that its owner replaces atomically.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use axum::http::Uri;
use serde::Deserialize;

#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
}

/// Looks at the file, and says when it changed.
///
/// A file that is not there means no endpoint; one that cannot be read or understood changes nothing, and is looked at again.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Option<Mark>,
}

/// What tells one version of a file from another: (inode, modified, in nanoseconds, length); none for no file.
type Mark = Option<(u64, i64, i64, u64)>;

impl Watch {
    /// Looks at `path`.
    pub fn new(path: PathBuf) -> Self {
        Watch { path, seen: None }
    }

    /// The endpoints, if they may have changed since the last look.
    pub fn look(&mut self) -> Option<Vec<Uri>> {
        let mark = match std::fs::metadata(&self.path) {
            Ok(data) => Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        if self.seen == Some(mark) {
            return None;
        }
        let endpoints = match mark {
            Some(_) => parse(&std::fs::read_to_string(&self.path).ok()?)?,
            None => Vec::new(),
        };
        self.seen = Some(mark);
        Some(endpoints)
    }
}

fn parse(text: &str) -> Option<Vec<Uri>> {
    let groups: Vec<Group> = serde_json::from_str(text).ok()?;
    groups.iter().flat_map(|group| &group.targets).map(|target| super::uri(target)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_and_nonsense_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.json");
        let mut watch = Watch::new(path.clone());
        assert_eq!(watch.look(), Some(vec![]), "no file, no endpoint");
        assert_eq!(watch.look(), None);

        std::fs::write(&path, r#"[{"targets":["127.0.0.1:1","127.0.0.1:2"],"labels":{"fleet":"shop"}}]"#).unwrap();
        assert_eq!(watch.look().map(|uris| uris.len()), Some(2));
        assert_eq!(watch.look(), None);

        std::fs::write(&path, r#"[{"targets":["127.0"#).unwrap();
        assert_eq!(watch.look(), None);
        std::fs::write(&path, r#"[{"targets":[]}]"#).unwrap();
        assert_eq!(watch.look(), Some(vec![]));
    }
}
