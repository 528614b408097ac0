//! Which warnings are in doubt where a document has errors: those that hang on a field whose value is not known.
//!
//! A faulty field stands at its default while the rest is read, so that errors do not hide warnings. A warning
//! that such a stand-in could have caused is withheld: it comes, or does not, once the error is mended.

use super::super::Policy;
use super::Origin;
use crate::model::document::fields::Report;
use crate::model::document::{Problem, Severity, is_within};

const METRICS: &str = "spec.metrics";

/// Takes the warnings out of the report that hang on a field which an error makes unknown; the role is known where a slip in
/// it leaves no doubt.
pub(super) fn withhold(draft: &Policy, role_is_known: bool, report: &mut Report) {
    let in_doubt = |p: &&Problem| p.severity == Severity::Error && !(role_is_known && p.path == "spec.role");
    let errors: Vec<Problem> = report.problems.iter().filter(in_doubt).cloned().collect();
    if errors.is_empty() {
        return;
    }
    let written: Vec<String> = report.settings.iter().filter(|s| s.origin == Origin::Written).map(|s| s.path.clone()).collect();
    let is_written = |path: &str| if path == METRICS { !draft.metrics.is_empty() } else { written.iter().any(|w| is_within(w, path)) };
    let is_unknown = |path: &str| errors.iter().any(|error| obscures(error, path, is_written(path)));
    report.problems.retain(|problem| problem.severity == Severity::Error || !hangs_on(problem).iter().any(|path| is_unknown(path)));
}

/// Whether the written field at `path` says what it means, whatever else is wrong with the document.
pub fn is_sound(path: &str, problems: &[Problem]) -> bool {
    !problems.iter().any(|problem| problem.severity == Severity::Error && obscures(problem, path, true))
}

/// Whether the value of the field at `path` is unknown because of `error`.
fn obscures(error: &Problem, path: &str, is_written: bool) -> bool {
    match error.code {
        _ if is_within(&error.path, path) => true,
        // Whatever is not written around it may be what is meant by it.
        "unknown-field" => !is_written && is_within(path, error.path.rsplit_once('.').map_or("", |(around, _)| around)),
        "missing-field" => !is_written && is_within(path, &error.path),
        // A role is the default of everything.
        _ if error.path == "spec.role" => !is_written || path == "spec.role",
        _ => is_within(path, &error.path),
    }
}

/// The fields that decide whether there is such a warning.
fn hangs_on(warning: &Problem) -> Vec<&str> {
    // A name that is nearly a known one is that, whatever else is wrong with its metric; without it the unit of its amounts is not known.
    if warning.code == "metric-name" {
        return vec![&warning.path];
    }
    let metric = warning.path.strip_prefix(METRICS).and_then(|rest| rest.find(']')).map(|end| &warning.path[..=METRICS.len() + end]);
    let mut paths: Vec<&str> = metric.into_iter().collect();
    paths.extend_from_slice(match warning.code {
        "never-scales" => &["spec.mode", "spec.behavior.scaleOut.select", "spec.behavior.scaleIn.select"],
        "fixed-count" | "narrow-band" => &["spec.replicas.min", "spec.replicas.max"],
        "single-replica" => &["spec.replicas.min", "spec.role"],
        "no-proposing-metric" | "blindness-ignored" => &[METRICS, "spec.mode"],
        "never-grows" | "never-shrinks" => {
            &[METRICS, "spec.mode", "spec.replicas.min", "spec.replicas.max", "spec.behavior.scaleOut.select", "spec.behavior.scaleIn.select"]
        }
        "window-below-interval" => &["spec.evaluateEvery"],
        "hunting" => &[METRICS, "spec.mode", "spec.tolerance.out", "spec.tolerance.in", "spec.behavior.scaleIn.select", "spec.behavior.scaleIn.stabilization"],
        "tolerance-blocks-scale-in" => &[METRICS, "spec.mode", "spec.tolerance.in", "spec.behavior.scaleIn.select"],
        "scale-in-without-limit" => &["spec.role", "spec.mode", "spec.replicas.min", "spec.behavior.scaleIn.select", "spec.behavior.scaleIn.policies"],
        "scale-in-within-start-up" => &[
            "spec.mode",
            "spec.startup.cpuInitialization",
            "spec.startup.readinessDelay",
            "spec.behavior.scaleIn.select",
            "spec.behavior.scaleIn.stabilization",
        ],
        "cooldown-beyond-stabilization" => {
            &["spec.mode", "spec.behavior.scaleIn.select", "spec.behavior.scaleIn.cooldown", "spec.behavior.scaleIn.stabilization"]
        }
        code if code.starts_with("fallback-") => &["spec.replicas.min", "spec.replicas.max", "spec.fallback.behavior", "spec.fallback.replicas"],
        _ => &[],
    });
    paths
}
