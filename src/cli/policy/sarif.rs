//! What `check` found as SARIF 2.1.0 (OASIS), which code review shows beside the line.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Source;
use crate::edge::api::escape;
use crate::model::document::{Problem, Severity};
use crate::wire::document::PolicyFile;

/// Where the schema of the format is.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One run over all files.
pub(super) fn sarif(sources: &[Source], files: &[PolicyFile]) -> String {
    let found: Vec<(&Source, &Problem)> =
        sources.iter().zip(files).flat_map(|(source, file)| file.all_problems().into_iter().map(move |problem| (source, problem))).collect();
    let mut rules: BTreeMap<&str, Severity> = BTreeMap::new();
    for (_, problem) in &found {
        let severity = rules.entry(problem.code).or_insert(problem.severity);
        *severity = (*severity).min(problem.severity);
    }
    let index: BTreeMap<&str, usize> = rules.keys().enumerate().map(|(i, code)| (*code, i)).collect();
    let rules: Vec<Value> = rules
        .iter()
        .map(|(code, severity)| {
            json!({ "id": code, "shortDescription": { "text": code.replace('-', " ") }, "defaultConfiguration": { "level": severity.to_string() } })
        })
        .collect();
    let results: Vec<Value> = found.iter().map(|(source, problem)| result(source, problem, index.get(problem.code).copied())).collect();
    let unreadable: Vec<Value> = sources
        .iter()
        .filter_map(|source| {
            let why = source.text.as_ref().err()?;
            let location = json!({ "physicalLocation": { "artifactLocation": { "uri": uri(&source.name) } } });
            Some(json!({ "level": "error", "message": { "text": format!("failed to read {}: {why}", source.name) }, "locations": [location] }))
        })
        .collect();
    let run = json!({
        "tool": { "driver": { "name": "loadline", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
        "columnKind": "unicodeCodePoints",
        "invocations": [{ "executionSuccessful": unreadable.is_empty(), "toolExecutionNotifications": unreadable }],
        "results": results,
    });
    format!("{}\n", json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] }))
}

fn result(source: &Source, problem: &Problem, rule: Option<usize>) -> Value {
    let mut physical = json!({ "artifactLocation": { "uri": uri(&source.name) } });
    if let Some(span) = problem.span {
        physical["region"] = json!({ "startLine": span.line, "startColumn": span.column, "endColumn": span.column + span.length });
    }
    let mut location = json!({ "physicalLocation": physical });
    if !problem.path.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": problem.path }]);
    }
    let text = problem.mend.as_ref().map_or_else(|| problem.message.clone(), |mend| format!("{}; {mend}", problem.message));
    let mut result = json!({ "ruleId": problem.code, "level": problem.severity.to_string(), "message": { "text": text }, "locations": [location] });
    if let Some(rule) = rule {
        result["ruleIndex"] = json!(rule);
    }
    result
}

/// A path as a relative reference, or an absolute one with its scheme.
fn uri(name: &str) -> String {
    let encoded = name.trim_start_matches("./").split('/').map(escape).collect::<Vec<_>>().join("/");
    if encoded.starts_with('/') { format!("file://{encoded}") } else { encoded }
}
