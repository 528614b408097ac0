//! Watches the files that may hold `ProcessFleet` documents, and gives what they say to the fleets.
//!
//! A file that cannot be read or parsed keeps the fleets that it named last, and says so once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;

use super::{FleetDocument, ProcessFleets, parse_documents};
use crate::edge::events::DocumentUnusable;
use crate::edge::policies::directory::{Listed, list, read};
use crate::edge::stop::Bell;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches until it is dropped.
pub struct FleetFiles {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// A file as it was last read.
struct Known {
    listed: Listed,
    documents: Vec<FleetDocument>,
}

impl FleetFiles {
    /// Reads the files once, then watches them on a thread of its own.
    ///
    /// # Errors
    /// Every document that cannot be used now, one a line: at the start nothing is guessed. Later,
    /// such a file keeps what it said last.
    pub fn start(paths: Vec<PathBuf>, fleets: Arc<ProcessFleets>) -> Result<FleetFiles, String> {
        let mut known = BTreeMap::new();
        let problems = look(&paths, &mut known);
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        fleets.set_documents(documents(&known)).map_err(|e| format!("a fleet cannot be supervised: {e}"))?;
        let bell = Arc::new(Bell::default());
        let watching = Arc::clone(&bell);
        let thread = std::thread::Builder::new()
            .name("fleet-files".to_owned())
            .spawn(move || {
                while watching.wait(LOOK_EVERY) {
                    let before = documents(&known);
                    for problem in look(&paths, &mut known) {
                        DocumentUnusable(&problem).emit();
                    }
                    let now = documents(&known);
                    if now != before {
                        tracing::debug!(event = "documents-changed", fleets = now.len(), "fleet documents changed");
                        if let Err(error) = fleets.set_documents(now) {
                            error!(event = "part-failed", %error, "a fleet cannot be supervised: {error}");
                        }
                    }
                }
            })
            .map_err(|e| format!("cannot start the thread that watches fleet documents: {e}"))?;
        Ok(FleetFiles { bell, thread: Some(thread) })
    }
}

impl Drop for FleetFiles {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(event = "part-failed", "the thread that watches fleet documents ended by a fault in the program");
        }
    }
}

fn documents(known: &BTreeMap<PathBuf, Known>) -> Vec<FleetDocument> {
    known.values().flat_map(|k| k.documents.clone()).collect()
}

/// Reads what changed. What cannot be read keeps its documents; a file that is gone loses them.
fn look(paths: &[PathBuf], known: &mut BTreeMap<PathBuf, Known>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut there = Vec::new();
    for path in paths {
        if known.is_empty() && std::fs::metadata(path).is_err() {
            problems.push(format!("{}: there is no such file", path.display()));
            return problems;
        }
        match list(path) {
            Ok(files) => there.extend(files.into_values()),
            // A directory that cannot be listed says nothing about its files.
            Err(error) => {
                problems.push(format!("{}: {error}", path.display()));
                return problems;
            }
        }
    }
    known.retain(|path, _| there.iter().any(|listed| listed.path == *path));
    for listed in there {
        if known.get(&listed.path).is_some_and(|k| k.listed == listed) {
            continue;
        }
        let name = listed.path.display().to_string();
        let parsed = read(&listed).map_err(|error| format!("{name}: {error}")).and_then(|text| parse_documents(&name, &text));
        let held = known.get(&listed.path).map(|k| k.documents.clone()).unwrap_or_default();
        let documents = parsed.unwrap_or_else(|problem| {
            problems.push(problem);
            held
        });
        known.insert(listed.path.clone(), Known { listed, documents });
    }
    problems
}
