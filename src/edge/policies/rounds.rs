//! The source: what its files said when last read, and when its next round is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use super::directory::{self, Listed};
use super::{Parse, ParsedFile};
use crate::edge::events::PolicyFileUnusable;
use crate::log::Topic;
use crate::model::{ControlEntry, Message, PolicyEntry, PolicyRejected, RoundEnd, TargetId, Timestamp};
use crate::runtime::clock::Stopwatch;
use crate::stages::Effects;

/// A round without a change: it heals what was lost on the way. `control` keeps every round, so not more often than it must.
const ROUND_EVERY: Duration = Duration::from_secs(300);

/// The round after one in which a policy was missing: more than the 10 s after which admit takes it for gone.
const CONFIRM_AFTER: Duration = Duration::from_secs(11);

/// A file younger than this may change again without a new time of change.
const YOUNG: Duration = Duration::from_secs(2);

/// How long a look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Entries in one append: far below what a log takes at once.
const ENTRIES_AN_APPEND: usize = 256;

/// All watched paths are one, and a file is known by its absolute path: so a file that is named
/// otherwise is the same, and one that is not watched any more is gone from the next round.
const NAME: &str = RoundEnd::FILES;

/// The paths that are watched.
pub(super) struct Source {
    paths: Vec<PathBuf>,
    files: BTreeMap<String, Known>,
    last_round: i64,
    /// When the last round was announced, since the start; `None` before the first and after a change.
    announced: Option<Duration>,
    /// What the last round offered: file and target.
    offers: BTreeSet<(String, TargetId)>,
    /// When a round is due that says once more what an earlier one lacked, since the start; in order.
    confirm: VecDeque<Duration>,
    failure: Option<String>,
}

/// A file as it was when last read.
struct Known {
    listed: Listed,
    hash: u64,
    parsed: ParsedFile,
}

/// A round to append, in this order.
pub(super) struct Round {
    pub(super) number: i64,
    pub(super) effects: Vec<Effects>,
}

impl Source {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Source { paths, files: BTreeMap::new(), last_round: 0, announced: None, offers: BTreeSet::new(), confirm: VecDeque::new(), failure: None }
    }

    /// Looks at the files; the round to announce, where one is due.
    pub(super) fn look(&mut self, now: Timestamp, elapsed: Duration, parse: &Parse) -> Result<Option<Round>, String> {
        let is_unconfirmed = self.confirm.front().is_some_and(|due| elapsed >= *due);
        let due = is_unconfirmed || self.announced.is_none_or(|last| elapsed.saturating_sub(last) >= ROUND_EVERY);
        if self.read(now, due, parse)? {
            self.announced = None;
        }
        Ok((due || self.announced.is_none()).then(|| self.round(now)))
    }

    /// A round that was begun then was appended in full; from its end on the time runs until it is confirmed.
    pub(super) fn announced(&mut self, number: i64, begun: Duration, ended: Duration) {
        let is_first = self.last_round == 0;
        self.last_round = number;
        self.announced = Some(ended);
        self.failure = None;
        let of_file = |(name, file): (&String, &Known)| file.parsed.policies.iter().map(|(target, _)| (name.clone(), target.clone())).collect::<Vec<_>>();
        let offers: BTreeSet<(String, TargetId)> = self.files.iter().flat_map(of_file).collect();
        self.confirm.retain(|due| begun < *due);
        // What was removed while nobody watched is missing from the first round, without any before it to tell. Of what is removed
        // each is confirmed in its time, whatever else changes meanwhile; also where another file has the target now.
        if is_first || !self.offers.is_subset(&offers) {
            self.confirm.push_back(ended + CONFIRM_AFTER);
        }
        self.offers = offers;
    }

    /// Remembers why a look or a round failed; true where that is news.
    pub(super) fn note_failure(&mut self, failure: &str) -> bool {
        // The round that is due now stays due.
        self.announced = None;
        self.failure.replace(failure.to_owned()).as_deref() != Some(failure)
    }

    /// Reads what may have changed; true where something did. With an error, nothing is taken.
    fn read(&mut self, now: Timestamp, all: bool, parse: &Parse) -> Result<bool, String> {
        let watch = Stopwatch::start();
        let mut listed = BTreeMap::new();
        for path in &self.paths {
            let there = directory::list(path).map_err(|error| format!("{} cannot be listed: {error}", path.display()))?;
            for file in there.into_values() {
                let name = std::path::absolute(&file.path).map_err(|error| format!("{} has no absolute path: {error}", file.path.display()))?;
                listed.insert(name.display().to_string(), file);
            }
        }
        let mut read = Vec::new();
        for (name, file) in &listed {
            if watch.elapsed() > LOOK_DEADLINE {
                return Err(format!("looking at the policy files takes longer than {} s", LOOK_DEADLINE.as_secs()));
            }
            let known = self.files.get(name);
            if !all && known.is_some_and(|known| known.listed == *file) && !is_young(file, now) {
                continue;
            }
            let text = directory::read(file);
            let hash = hash_of(&text);
            if known.is_none_or(|known| known.hash != hash) {
                let parsed = match text {
                    Ok(text) => without_doubles(parse(&file.path, &text)),
                    Err(error) => ParsedFile { policies: Vec::new(), errors: vec![error] },
                };
                for problem in &parsed.errors {
                    PolicyFileUnusable { file: &file.path, problem }.emit();
                }
                read.push((name.clone(), Known { listed: file.clone(), hash, parsed }));
            }
        }
        let before = self.files.len();
        self.files.retain(|name, _| listed.contains_key(name));
        let changed = self.files.len() != before || !read.is_empty();
        self.files.extend(read);
        for (name, known) in &mut self.files {
            if let Some(file) = listed.get(name) {
                known.listed.clone_from(file);
            }
        }
        Ok(changed)
    }

    /// The round that says what the files say.
    fn round(&self, now: Timestamp) -> Round {
        let number = RoundEnd::next(self.last_round, now);
        let mut entries = Vec::new();
        for (origin, file) in &self.files {
            let (source, round) = (NAME.to_owned(), number);
            if file.parsed.errors.is_empty() {
                entries.extend(file.parsed.policies.iter().map(|(target, spec)| {
                    let (source, origin, target, spec) = (source.clone(), origin.clone(), target.clone(), spec.clone());
                    ControlEntry::Policy(PolicyEntry { source, round, origin, target, spec })
                }));
            } else {
                entries.extend(file.parsed.errors.iter().map(|error| {
                    let (source, origin, error) = (source.clone(), origin.clone(), error.clone());
                    ControlEntry::Rejected(PolicyRejected { source, round, origin, target: None, error })
                }));
            }
        }
        entries.push(ControlEntry::RoundEnd(RoundEnd { source: NAME.to_owned(), round: number }));
        // All entries of a source have its key, so that they stand in one partition, in order.
        let effects = entries.chunks(ENTRIES_AN_APPEND).map(|chunk| {
            let mut effects = Effects::new();
            for entry in chunk {
                effects.to_key(Topic::Control, NAME, Message::Control(entry.clone()));
            }
            effects
        });
        Round { number, effects: effects.collect() }
    }
}

/// Whether a file could have been written to again within the same time of change.
fn is_young(file: &Listed, now: Timestamp) -> bool {
    let Some(modified) = file.modified else { return true };
    let modified = modified.duration_since(std::time::UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(i64::MAX);
    now.since(Timestamp::from_millis(modified)) < YOUNG
}

/// A hash of the content, or of the reason why there is none; never leaves this process.
fn hash_of(text: &Result<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Two policies for one target in one file: which is meant cannot be known.
fn without_doubles(mut parsed: ParsedFile) -> ParsedFile {
    let mut seen = BTreeSet::new();
    for (target, _) in &parsed.policies {
        if !seen.insert(target) {
            parsed.errors.push(format!("has more than one policy for {target}: keep one of them"));
        }
    }
    parsed
}
