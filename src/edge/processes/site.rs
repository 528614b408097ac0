//! The name of a data directory among those of an installation: its fleets are reached through it alone.

use std::fs;
use std::io;
use std::path::Path;

use super::procfs;
use crate::edge::durable_file;

/// The file that has the name.
const SITE: &str = "site";

/// Whether the data directory `data` has a name: its log is on Kafka.
pub fn has_site(data: &Path) -> bool {
    data.join(SITE).is_file()
}

/// The name of the data directory `data`: letters, digits and hyphens. Made at its first use, and kept there.
///
/// # Errors
/// Where it cannot be read or written, with its path.
pub fn site(data: &Path) -> io::Result<String> {
    let path = data.join(SITE);
    let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::read_to_string(&path) {
        Ok(text) => {
            let site = text.trim();
            if site.is_empty() || !site.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                let reason = format!("{} holds no name of a data directory: remove it, and another one is made", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Ok(site.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let site = procfs::new_uid().map_err(at)?;
            durable_file::replace(&path, format!("{site}\n").as_bytes()).map_err(at)?;
            Ok(site)
        }
        Err(error) => Err(at(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_name_and_two_have_different_ones() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(!has_site(one.path()));
        let name = site(one.path()).unwrap();
        assert!(has_site(one.path()));
        assert_eq!(site(one.path()).unwrap(), name);
        assert_ne!(site(other.path()).unwrap(), name);
        fs::write(one.path().join("site"), "../x\n").unwrap();
        let error = site(one.path()).unwrap_err().to_string();
        assert!(error.contains("site holds no name of a data directory: remove it"), "{error}");
    }
}
