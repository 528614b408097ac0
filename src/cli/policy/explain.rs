//! The effective document of a policy: YAML that says the same with every default written out, each value
//! with where it comes from and what it means.

use std::fmt::Write;

use serde_json::{Value, json};

use super::render::problem_json;
use crate::model::policy::{Origin, Setting};
use crate::wire::document::{API_VERSION, ParsedPolicy, PolicyFile};

/// The column of the remarks, where the values leave room.
const REMARKS_AT: usize = 46;

/// Every policy of the file that has no errors, as YAML with remarks.
pub(super) fn text(file: &PolicyFile) -> String {
    let documents: Vec<String> = file.documents.iter().filter(|d| d.policy.is_some()).map(document).collect();
    documents.join("---\n")
}

fn document(parsed: &ParsedPolicy) -> String {
    let mut out = format!("apiVersion: {API_VERSION}\nkind: ScalingPolicy\n");
    let quote = |text: &str| Value::from(text).to_string();
    if let (Some(name), Some(target)) = (&parsed.name, &parsed.target) {
        let _ = writeln!(out, "metadata: {{ namespace: {}, name: {} }}", quote(target.namespace()), quote(name));
    }
    let mut before: Vec<&str> = Vec::new();
    for setting in &parsed.settings {
        let path = segments(&setting.path);
        let shared = path.iter().zip(&before).take_while(|(a, b)| a == b).count();
        let mut dash = false;
        for (depth, segment) in path.iter().enumerate().skip(shared) {
            if segment.starts_with('[') {
                dash = true;
                continue;
            }
            let indent = if dash { format!("{}- ", "  ".repeat(depth - 1)) } else { "  ".repeat(depth) };
            dash = false;
            if depth + 1 < path.len() {
                let _ = writeln!(out, "{indent}{segment}:");
            } else {
                let _ = writeln!(out, "{}", line(&format!("{indent}{segment}: {}", setting.value), setting));
            }
        }
        before = path;
    }
    out
}

/// `spec.metrics[0].window` as `spec`, `metrics`, `[0]`, `window`.
fn segments(path: &str) -> Vec<&str> {
    path.split('.').flat_map(|part| part.find('[').map_or_else(|| vec![part], |at| vec![&part[..at], &part[at..]])).collect()
}

fn line(value: &str, setting: &Setting) -> String {
    let origin = origin(setting.origin);
    format!("{value:REMARKS_AT$}  # {origin:7}  {}", setting.meaning)
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Written => "written",
        Origin::Role => "role",
        Origin::Default => "default",
    }
}

/// Every policy of the file, as one JSON object.
pub(super) fn json(file: &PolicyFile) -> String {
    let policies: Vec<Value> = file
        .documents
        .iter()
        .map(|d| {
            let settings: Vec<Value> =
                d.settings.iter().map(|s| json!({ "path": s.path, "value": s.value, "origin": origin(s.origin), "meaning": s.meaning })).collect();
            json!({ "name": d.name, "target": d.target, "settings": settings })
        })
        .collect();
    let problems: Vec<Value> = file.all_problems().into_iter().map(|p| problem_json(&file.file, p)).collect();
    format!("{}\n", json!({ "file": file.file, "policies": policies, "problems": problems }))
}
