//! Whether the files that are open are still the ones at their paths.
//!
//! An open file outlives its name. What is written to one that was removed or replaced looks well and is not where the
//! next start looks for it, and without the name `lock` a second process could start. So nothing is acknowledged before
//! it is known that the files are in their place, and nothing is written any more once they were not.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::DATABASE;
use super::lock_file::LOCK;
use crate::log::coordinator::lock;

/// How the name of a write-ahead log begins whose database was replaced: behind it is the process that put it aside.
const ORPHAN: &str = "log.db-wal.of-the-one-before-";

/// The write-ahead log.
const WAL: &str = "log.db-wal";

/// A file, whatever its name is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Identity { device: file.dev(), inode: file.ino() })
    }

    /// Where it stands now, as the kernel tells it of the files that this process has open; `None` where it has no name
    /// any more. It is not opened for that: closing it again would free the locks that SQLite holds on it.
    fn path(self) -> Option<PathBuf> {
        let open = fs::read_dir("/proc/self/fd").ok()?.flatten().map(|entry| entry.path());
        let ours = |link: &PathBuf| fs::metadata(link).is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode) && file.nlink() > 0);
        open.into_iter().find(ours).and_then(|link| fs::read_link(link).ok())
    }
}

/// The files of a log that is open.
pub(super) struct Place {
    directory: PathBuf,
    database: Identity,
    wal: Identity,
    lock: Identity,
    /// Which is not in its place, since that was seen.
    lost: Mutex<Option<String>>,
}

impl Place {
    /// Of the log in `directory`, right after it was opened.
    ///
    /// # Errors
    /// Where one of its files cannot be looked at.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let identity = |name: &str| Identity::of(&directory.join(name));
        let (database, wal, lock) = (identity(DATABASE)?, identity(WAL)?, identity(LOCK)?);
        Ok(Place { directory: directory.to_owned(), database, wal, lock, lost: Mutex::default() })
    }

    /// That every file is in its place; three calls of `stat`, about a microsecond each.
    ///
    /// # Errors
    /// Which one is not, and the way out: from then on always the same. A file that cannot be looked at counts as being there.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut lost = lock(&self.lost);
        if lost.is_none() {
            *lost = self.look();
        }
        lost.clone().map_or(Ok(()), Err)
    }

    fn look(&self) -> Option<String> {
        let [database, wal, lock] = [DATABASE, WAL, LOCK].map(|name| self.directory.join(name));
        if is_lost(&database, self.database) {
            Some(self.without_database(&database, &wal))
        } else if is_lost(&wal, self.wal) {
            Some(format!(
                "{} was removed or replaced while Loadline had it open: what it held is copied into {} as Loadline ends; do not put it back, and start again",
                wal.display(),
                database.display()
            ))
        } else if is_lost(&lock, self.lock) {
            Some(format!(
                "{} was removed or replaced while Loadline ran: it keeps a second process from the directory; start again, when none runs there",
                lock.display()
            ))
        } else {
            None
        }
    }

    /// The words for a database that is gone. Its write-ahead log is put aside where it could come beside another database:
    /// SQLite would write it over that one.
    fn without_database(&self, database: &Path, wal: &Path) -> String {
        let (at, replaced) = (self.database.path(), database.exists());
        let became = match (&at, replaced) {
            (Some(at), false) => format!("moved to {}", at.display()),
            (Some(at), true) => format!("replaced (the one before is {} now)", at.display()),
            (None, true) => "replaced".to_owned(),
            (None, false) => "removed".to_owned(),
        };
        let stays = at.is_some() && !replaced;
        let newest = match Identity::of(wal) {
            Ok(found) if found == self.wal && stays => format!("its newest part is still in {}; ", wal.display()),
            Ok(found) if found == self.wal => {
                let aside = self.directory.join(format!("{ORPHAN}{}", std::process::id()));
                match fs::rename(wal, &aside) {
                    Ok(()) => format!("its newest part is put aside as {}; ", aside.display()),
                    Err(error) => format!("move its newest part, {}, away before anything starts there ({error}); ", wal.display()),
                }
            }
            _ => String::new(),
        };
        let way = if at.is_some() { "put it back, with that part as log.db-wal beside it, and start again" } else { "restore a backup" };
        format!(
            "{} was {became} while Loadline had it open: nothing is written any more, and what was not written to it before was not acknowledged; \
             {newest}{way}; or, to begin a new log, move {} away too",
            database.display(),
            self.directory.join(LOCK).display()
        )
    }
}

/// Whether another file, or none, is at `path`.
fn is_lost(path: &Path, identity: Identity) -> bool {
    match Identity::of(path) {
        Ok(found) => found != identity,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
