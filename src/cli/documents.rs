//! The documents of a file, of every kind that Loadline reads, with everything that is wrong with them.

use std::time::Duration;

use crate::edge::processes::fleet_of;
use crate::model::TargetId;
use crate::model::document::{Problem, Severity, Span};
use crate::model::policy::DEFAULT_PANE;
use crate::wire::document::{API_VERSION, OtherDocument, PolicyFile, policies_for};

use super::policy::testing::{is_test, problems_of};

/// Reads the documents of the file `name`: its policies, and the problems of every document.
pub(super) fn documents_in(text: &str, name: &str) -> PolicyFile {
    documents_for(text, name, DEFAULT_PANE)
}

/// As [`documents_in`], with the warnings of an installation whose panes have this length.
pub(super) fn documents_for(text: &str, name: &str, pane: Duration) -> PolicyFile {
    let mut file = policies_for(text, name, pane);
    let of = |other: &OtherDocument| if is_test(&other.kind) { problems_of(&other.node, name) } else { fleet_of(&other.node).1 };
    let problems: Vec<Problem> = file.others.iter().flat_map(of).collect();
    file.problems.extend(problems);
    if file.documents.is_empty() && file.others.is_empty() && file.problems.is_empty() {
        file.problems.push(Problem {
            path: String::new(),
            span: None,
            severity: Severity::Warning,
            message: format!("{}: there is no document in it", nothing_in(text)),
            mend: Some(format!("begin with `apiVersion: {API_VERSION}` and `kind: ScalingPolicy`")),
            code: "no-document",
        });
    }
    file
}

/// What a text without a document is.
pub(super) fn nothing_in(text: &str) -> &'static str {
    if text.trim_start_matches('\u{feff}').trim().is_empty() { "the file is empty" } else { "the file has only comments" }
}

/// The fleets of a file, with the place of each one's name.
pub(super) fn fleets_of(file: &PolicyFile) -> Vec<(TargetId, Option<Span>)> {
    let named = |other: &OtherDocument| {
        let (fleet, _) = fleet_of(&other.node);
        let span = other.node.get("metadata").and_then(|m| m.get("name")).and_then(|n| n.span);
        fleet.map(|fleet| (fleet.target, span))
    };
    file.others.iter().filter(|other| !is_test(&other.kind)).filter_map(named).collect()
}
