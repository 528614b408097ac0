//! A disk as it could be found after a power failure, from the journal of what a program did to it (`journal.c`).
//!
//! What was synced is there. Of what was written to a file since, each write is there, lost, or torn at sectors of 512
//! bytes, each for itself. Of the names that changed in a directory since it was synced the first few are there: file
//! systems keep that order, but not that between two directories, nor between a name and what it names. [`Disk::names_in_any_order`] does not keep it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::common::random::Random;

/// What the disk writes as a whole.
const SECTOR: usize = 512;

/// A record of the journal.
#[derive(Debug)]
pub(crate) enum Event {
    Created {
        file: u64,
        path: PathBuf,
    },
    Written {
        file: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncated {
        file: u64,
        length: usize,
    },
    SyncBegun {
        file: u64,
        number: u64,
    },
    SyncEnded {
        number: u64,
    },
    DirectorySyncBegun {
        path: PathBuf,
        number: u64,
    },
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    Removed {
        path: PathBuf,
    },
    DirectoryMade {
        path: PathBuf,
    },
    /// A client was told that this request of this producer is durable.
    Acknowledged {
        producer: usize,
        request: u64,
    },
}

/// The kind by which a test notes an acknowledgement in the journal.
pub(crate) const ACKNOWLEDGED: u64 = 100;

/// The events of a journal, in order.
pub(crate) fn read_journal(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let number = |index: usize| u64::from_ne_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap());
        let (kind, id, offset, length) = (number(0), number(1), number(2), usize::try_from(number(3)).unwrap());
        let payload =
            bytes.get(32..32 + length).unwrap_or_else(|| panic!("a record of kind {kind} with {length} bytes, of which {} are there", bytes.len() - 32));
        let path = |bytes: &[u8]| PathBuf::from(String::from_utf8(bytes.to_vec()).unwrap());
        events.push(match kind {
            1 => Event::Created { file: id, path: path(payload) },
            2 => Event::Written { file: id, offset: usize::try_from(offset).unwrap(), bytes: payload.to_vec() },
            3 => Event::Truncated { file: id, length: usize::try_from(offset).unwrap() },
            4 => Event::SyncBegun { file: id, number: offset },
            5 | 7 => Event::SyncEnded { number: offset },
            6 => Event::DirectorySyncBegun { path: path(payload), number: offset },
            8 => {
                let (from, to) = payload.split_at(payload.iter().position(|byte| *byte == 0).unwrap());
                Event::Renamed { from: path(from), to: path(&to[1..]) }
            }
            9 => Event::Removed { path: path(payload) },
            10 => Event::DirectoryMade { path: path(payload) },
            ACKNOWLEDGED => Event::Acknowledged { producer: usize::try_from(id).unwrap(), request: offset },
            other => panic!("a record of kind {other}"),
        });
        bytes = &bytes[32 + length..];
    }
    events
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
enum Node {
    File(usize),
    Directory,
}

/// A change of the names in a directory.
#[derive(Debug, Clone)]
enum Change {
    Add(String, Node),
    Remove(String),
    Rename(String, String),
}

type Names = BTreeMap<String, Node>;

#[derive(Debug, Default)]
struct Directory {
    synced: Names,
    since: Vec<Change>,
}

#[derive(Debug)]
enum Edit {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Edit>,
}

/// A sync under way: how much of what it covers was there when it began.
enum Sync {
    OfFile(usize, usize),
    OfDirectory(PathBuf, usize),
}

/// Whether the disk does what a sync asks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    Kept,
    /// As if the program had never synced.
    Ignored,
}

/// The disk below the program.
pub(crate) struct Disk {
    syncs: Syncs,
    /// Whether of two new names in a directory the first is there where the second is; POSIX does not promise it.
    names_in_order: bool,
    directories: BTreeMap<PathBuf, Directory>,
    files: Vec<File>,
    /// The file of each id that is in use.
    ids: HashMap<u64, usize>,
    under_way: HashMap<u64, Sync>,
}

impl Disk {
    pub(crate) fn new(syncs: Syncs) -> Disk {
        let directories = BTreeMap::from([(PathBuf::new(), Directory::default())]);
        Disk { syncs, names_in_order: true, directories, files: Vec::new(), ids: HashMap::new(), under_way: HashMap::new() }
    }

    /// A file system that keeps the changes of names since a sync in no order.
    pub(crate) fn names_in_any_order(mut self) -> Disk {
        self.names_in_order = false;
        self
    }

    /// Does what the program did.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Created { file, path } => {
                self.files.push(File::default());
                let index = self.files.len() - 1;
                self.ids.insert(*file, index);
                self.change(path, |name| Change::Add(name, Node::File(index)));
            }
            Event::Written { file, offset, bytes } => self.file(*file).since.push(Edit::Write(*offset, bytes.clone())),
            Event::Truncated { file, length } => self.file(*file).since.push(Edit::Truncate(*length)),
            Event::SyncBegun { file, number } => {
                let edits = self.file(*file).since.len();
                self.under_way.insert(*number, Sync::OfFile(self.ids[file], edits));
            }
            Event::DirectorySyncBegun { path, number } => {
                let changes = self.directories[path].since.len();
                self.under_way.insert(*number, Sync::OfDirectory(path.clone(), changes));
            }
            Event::SyncEnded { number } => {
                let sync = self.under_way.remove(number).unwrap();
                if self.syncs == Syncs::Kept {
                    self.sync(sync);
                }
            }
            Event::Renamed { from, to } => {
                assert_eq!(from.parent(), to.parent(), "the program renames within a directory");
                let to = name_of(to);
                self.change(from, |from| Change::Rename(from, to));
            }
            Event::Removed { path } => self.change(path, Change::Remove),
            Event::DirectoryMade { path } => {
                self.directories.insert(path.clone(), Directory::default());
                self.change(path, |name| Change::Add(name, Node::Directory));
            }
            Event::Acknowledged { .. } => {}
        }
    }

    fn sync(&mut self, sync: Sync) {
        // What another sync made durable meanwhile is no longer among the edits: then less is left to do.
        match sync {
            Sync::OfFile(index, edits) => {
                let file = &mut self.files[index];
                let edits = edits.min(file.since.len());
                for edit in file.since.drain(..edits) {
                    edit.make(&mut file.synced, |_| true);
                }
            }
            Sync::OfDirectory(path, changes) => {
                let directory = self.directories.get_mut(&path).unwrap();
                let changes = changes.min(directory.since.len());
                for change in directory.since.drain(..changes) {
                    change.make(&mut directory.synced);
                }
            }
        }
    }

    fn file(&mut self, id: u64) -> &mut File {
        &mut self.files[self.ids[&id]]
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(String) -> Change) {
        let directory = self.directories.get_mut(path.parent().unwrap()).unwrap();
        directory.since.push(change(name_of(path)));
    }

    /// Writes into `home` what could be found after the power failed now.
    pub(crate) fn found_after_power_failure(&self, home: &Path, random: &mut Random) {
        self.write_directory(Path::new(""), home, random);
    }

    fn write_directory(&self, path: &Path, home: &Path, random: &mut Random) {
        let directory = &self.directories[path];
        let mut names = directory.synced.clone();
        let kept = usize::try_from(random.below(directory.since.len() as u64 + 1)).unwrap();
        for (number, change) in directory.since.iter().enumerate() {
            if if self.names_in_order { number < kept } else { random.percent(50) } {
                change.clone().make(&mut names);
            }
        }
        for (name, node) in names {
            let path = path.join(&name);
            match node {
                Node::File(index) => std::fs::write(home.join(&path), self.files[index].found(random)).unwrap(),
                Node::Directory => {
                    std::fs::create_dir(home.join(&path)).unwrap();
                    self.write_directory(&path, home, random);
                }
            }
        }
    }
}

impl File {
    fn found(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for edit in &self.since {
            match random.below(3) {
                0 => {}
                1 => edit.make(&mut bytes, |_| true),
                _ => edit.make(&mut bytes, |_| random.percent(50)),
            }
        }
        bytes
    }
}

impl Edit {
    /// Does it, as far as the sectors that it touches are `kept`.
    fn make(&self, bytes: &mut Vec<u8>, mut kept: impl FnMut(usize) -> bool) {
        match self {
            Edit::Truncate(length) => bytes.resize(*length, 0),
            Edit::Write(offset, new) => {
                let end = offset + new.len();
                let mut from = *offset;
                while from < end {
                    let to = ((from / SECTOR + 1) * SECTOR).min(end);
                    if kept(from / SECTOR) {
                        bytes.resize(bytes.len().max(to), 0);
                        bytes[from..to].copy_from_slice(&new[from - offset..to - offset]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl Change {
    fn make(self, names: &mut Names) {
        match self {
            Change::Add(name, node) => drop(names.insert(name, node)),
            Change::Remove(name) => drop(names.remove(&name)),
            Change::Rename(from, to) => {
                if let Some(node) = names.remove(&from) {
                    names.insert(to, node);
                }
            }
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
