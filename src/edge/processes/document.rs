//! The document of a `ProcessFleet`: what a person writes, as types that cannot be wrong.
//!
//! A file may hold several YAML documents and other kinds among them; those are left to others. Every problem of a
//! document is found at once.
//! Relative paths in a document are taken from the directory in which Loadline runs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::document::shape::Outline;
use crate::model::document::{Node, Problem};
use crate::model::{Amount, TargetId};
use crate::wire::document::{Document, documents};

mod written;

pub(super) use self::written::is_path_name;

/// The kind of these documents, and of their targets.
pub const KIND: &str = "ProcessFleet";

/// The version of these documents.
pub const API_VERSION: &str = "loadline.dev/v1alpha1";

/// The most instances that one fleet may have. An observation carries all of them in one record of
/// at most 512 kB, at about 200 bytes each; a single machine runs fewer processes than this.
pub const MAX_REPLICAS: u32 = 1000;

/// One fleet of processes, as its document describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetDocument {
    /// The target that it is.
    pub target: TargetId,
    /// What its instances are.
    pub spec: FleetSpec,
}

/// What the instances of a fleet are, and how they are cared for.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetSpec {
    /// The program; looked up in `PATH` where it has no slash.
    pub command: String,
    /// Its arguments; `{port}` and `{instance}` are replaced.
    pub args: Vec<String>,
    /// Variables that it gets besides Loadline's own; `{port}` and `{instance}` are replaced.
    pub env: BTreeMap<String, String>,
    /// Where it runs; where Loadline runs, when absent.
    pub working_directory: Option<PathBuf>,
    /// The ports that instances get one each of.
    pub ports: Option<RangeInclusive<u16>>,
    /// How many there are when the fleet is first seen; never looked at again.
    pub replicas: u32,
    /// What each asks for, by resource, in base units (`cpu` in cores, `memory` in bytes).
    pub requests: BTreeMap<String, Amount>,
    /// How to see that one can serve; without it one can as soon as it runs.
    pub health: Option<Health>,
    /// How long one may take until it is first healthy; then it is restarted.
    pub startup_timeout: Duration,
    /// How long one may take to end after SIGTERM; then it gets SIGKILL.
    pub drain_grace: Duration,
    /// When one that ended is started again.
    pub restart: Restart,
    /// The file in Prometheus `file_sd` format that lists those that can serve.
    pub endpoints: Option<Endpoints>,
    /// A command that runs after each change of the endpoints, with the file's path in `LOADLINE_ENDPOINTS`.
    pub hook: Vec<String>,
    /// How much output is kept of each.
    pub output: Output,
    /// How often cpu and memory are measured.
    pub measure_every: Duration,
}

/// How to see that an instance can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked, where it is not the instance's own.
    pub port: Option<u16>,
    /// From one probe's start to the next.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many failures in a row make a ready instance unready.
    pub failures: u32,
}

/// What a probe asks of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET of this path is answered by a status of 200 to 399.
    Http {
        /// The path, with its leading slash.
        path: String,
    },
    /// A connection is accepted.
    Tcp,
}

/// When an instance that ended is started again: after `initial`, doubled with each end, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// One that ran this long starts again at `initial`.
    pub reset_after: Duration,
}

/// Where the instances that can serve are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The file, replaced atomically.
    pub file: PathBuf,
    /// Labels of the group.
    pub labels: BTreeMap<String, String>,
}

/// How much output is kept of each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The size at which the file is rotated.
    pub max_bytes: u64,
    /// How many rotated files are kept.
    pub files: u32,
}

/// Reads a document of kind `ProcessFleet`: the fleet, where nothing is wrong, and every problem.
pub fn fleet_of(node: &Node) -> (Option<FleetDocument>, Vec<Problem>) {
    written::read(node)
}

/// Every field of such a document, for schemas.
pub fn outline() -> Outline {
    written::outline()
}

/// The `ProcessFleet`s in the text of a file named `origin`; other kinds are passed over.
///
/// # Errors
/// Every problem of every such document, and of what is not YAML, one a line: `origin`, place, what is wrong and how to mend it.
pub fn parse_documents(origin: &str, text: &str) -> Result<Vec<FleetDocument>, String> {
    let (mut fleets, mut wrong) = (Vec::new(), Vec::new());
    for Document { node, problems } in documents(text) {
        wrong.extend(problems);
        if let Some(node) = node.filter(|node| node.get("kind").and_then(Node::as_text) == Some(KIND)) {
            let (fleet, problems) = fleet_of(&node);
            fleets.extend(fleet);
            wrong.extend(problems);
        }
    }
    let wrong: Vec<String> = wrong.iter().map(|problem| format!("{origin}: {problem}")).collect();
    if wrong.is_empty() { Ok(fleets) } else { Err(wrong.join("\n")) }
}

#[cfg(test)]
mod tests;
