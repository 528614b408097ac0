//! The output of instances: files that stay bounded.
//!
//! An instance writes to its file itself and outlives Loadline, so the file cannot be exchanged
//! under it. It is rotated as `logrotate`'s `copytruncate` does it: copied away, then cut to
//! nothing; since it was opened for appending, the instance goes on at the new end. What it writes
//! between the end of the copy and the cut, a few microseconds, is lost.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::document::Output;

/// Output of instances that are gone is kept of this many, the newest.
const KEEP_OF_GONE: usize = 20;

/// Rotates the file at `path` if it has grown beyond the limit.
pub(crate) fn rotate(path: &Path, limits: Output) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > limits.max_bytes => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    for number in (1..limits.files).rev() {
        match fs::rename(rotated(path, number), rotated(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut from = File::options().read(true).write(true).open(path)?;
    if limits.files > 0 {
        let mut to = File::create(rotated(path, 1))?;
        io::copy(&mut from, &mut to)?;
    }
    from.set_len(0)
}

/// Removes the output of instances that are gone, but of the newest.
pub(crate) fn tidy(directory: &Path, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut gone = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let file = entry.file_name();
        let Some((name, _)) = file.to_str().and_then(|file| file.split_once(".log")) else { continue };
        if !is_there(name) {
            gone.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    gone.sort();
    gone.iter().rev().skip(KEEP_OF_GONE).try_for_each(|(_, path)| fs::remove_file(path))
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_writer_goes_on_and_the_files_stay_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bots-1.log");
        let mut writer = File::options().create(true).append(true).open(&path).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            writer.write_all(line.as_bytes()).unwrap();
            rotate(&path, Output { max_bytes: 3, files: 2 }).unwrap();
        }
        writer.write_all(b"five").unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!(read("bots-1.log").as_deref(), Some("five"));
        assert_eq!(read("bots-1.log.1").as_deref(), Some("four\n"));
        assert_eq!(read("bots-1.log.2").as_deref(), Some("three\n"));
        assert_eq!(read("bots-1.log.3"), None);
    }

    #[test]
    fn what_gone_instances_wrote_is_kept_of_the_newest_only() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..KEEP_OF_GONE + 5 {
            fs::write(directory.path().join(format!("bots-{number}.log")), "").unwrap();
        }
        tidy(directory.path(), |name| name == "bots-0").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), KEEP_OF_GONE + 1);
        assert!(directory.path().join("bots-0.log").exists());
    }
}
