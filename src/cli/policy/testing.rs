//! `loadline policy test`: unit tests of policies, played through the stages that decide.
//!
//! A file of tests names policies, and for each test a fleet, series of what is measured, and what must be decided when.
//! `document` reads it, `bind` joins it with the policies, `world` plays it, and this compares and tells.

mod bind;
pub(in crate::cli) mod document;
mod notation;
mod report;
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::documents::nothing_in;
use super::{Answer, FAULTY, FINE, Source, UNREADABLE, read};
use crate::model::document::{Node, Problem, Span, Value, is_within};
use crate::model::policy::Policy;
use crate::model::spelling::nearest;
use crate::wire::document::{Document, PolicyFile, documents};
use bind::{Bound, bind, unit_of};
use document::{Case, Expectation, KIND, Written};
use world::{Look, Plan, Played, play};

/// The format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TestFormat {
    /// For people
    Text,
    /// XML as of `JUnit`, for the report of a build
    Junit,
}

/// A file of tests, and what came of it.
struct Ran {
    source: Source,
    /// What is wrong with the file itself.
    problems: Vec<Problem>,
    /// What is wrong with the files that it names.
    others: Vec<(Source, PolicyFile)>,
    /// Its tests, in their order.
    tests: Vec<Tested>,
}

/// A test, and what came of it.
struct Tested {
    case: Case,
    plan: Plan,
    policy: Policy,
    played: Played,
    failures: Vec<Failure>,
}

/// An expectation that was not met.
struct Failure {
    at: Duration,
    span: Option<Span>,
    /// The field: `desired`, `metrics.cpu.status`.
    field: String,
    expected: String,
    actual: String,
}

/// Plays the tests of the files whose names hold `only`.
pub(super) fn run(files: &[PathBuf], only: Option<&str>, format: TestFormat, colours: bool) -> Answer {
    let ran: Vec<Ran> = files.iter().map(|file| of_file(file, only)).collect();
    let unreadable = ran.iter().any(|ran| ran.source.text.is_err());
    let wrong = ran.iter().any(|ran| !ran.problems.is_empty() || ran.tests.iter().any(Tested::is_failed));
    let none = only.is_some() && !wrong && ran.iter().all(|ran| ran.tests.is_empty());
    let code = match (unreadable, wrong || none) {
        (true, _) => UNREADABLE,
        (false, true) => FAULTY,
        (false, false) => FINE,
    };
    let text = match format {
        TestFormat::Text => {
            let without = only.filter(|_| none).map(|only| format!("no test has a name that contains \"{only}\"\n"));
            report::text(&ran, colours) + &without.unwrap_or_default()
        }
        TestFormat::Junit => report::junit(&ran),
    };
    Answer { text, code }
}

/// What is wrong with a document of tests of the file `file`, apart from its policies.
pub(in crate::cli) fn problems_of(node: &Node, file: &str) -> Vec<Problem> {
    document::read(node, file).problems
}

/// Whether a document is one of tests.
pub(in crate::cli) fn is_test(kind: &str) -> bool {
    kind == KIND
}

fn of_file(file: &Path, only: Option<&str>) -> Ran {
    let source = read(file);
    let mut ran = Ran { source, problems: Vec::new(), others: Vec::new(), tests: Vec::new() };
    let Ok(text) = &ran.source.text else { return ran };
    let (mut nodes, mut all_read) = (Vec::new(), true);
    for Document { node, problems } in documents(text) {
        // A test that may be another than was meant is not played.
        all_read &= problems.is_empty();
        nodes.extend(node.filter(|node| node.value != Value::Null && problems.is_empty()));
        ran.problems.extend(problems);
    }
    let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
    if nodes.is_empty() && all_read {
        let none = not_a_test(None);
        ran.problems.push(Problem { message: format!("{}: {}", nothing_in(text), none.message), ..none });
    }
    for node in nodes {
        if node.get("kind").and_then(Node::as_text).is_some_and(|kind| kind != KIND) {
            ran.problems.push(not_a_test(Some(&node)));
            continue;
        }
        let Written { suite, is_whole, problems: faults } = document::read(&node, &ran.source.name);
        let Bound { plans, problems, others } = bind(&suite, &folder, &ran.source.name);
        // Also of a document that can be read in part only, but for what hangs on what is missing of it.
        ran.problems.extend(document::placed(problems, &node).into_iter().filter(|problem| !hangs_on(problem, &faults)));
        ran.problems.extend(faults);
        ran.others.extend(others);
        if !is_whole {
            continue;
        }
        for (case, plan, policy) in plans.into_iter().filter(|(case, ..)| only.is_none_or(|only| case.name.contains(only))) {
            let played = play(&plan);
            ran.problems.extend(strangers(&case, &plan, &played));
            let failures = case.expect.iter().flat_map(|expected| failures(expected, &played, &policy)).collect();
            ran.tests.push(Tested { case, plan, policy, played, failures });
        }
    }
    ran.problems.sort_by_key(|problem| problem.span);
    ran
}

/// Whether a problem of the files that a document names may come from a fault of the document itself.
fn hangs_on(problem: &Problem, faults: &[Problem]) -> bool {
    faults
        .iter()
        .filter(|fault| !fault.path.is_empty() && fault.code != "duplicate-series")
        .any(|fault| is_within(&fault.path, &problem.path) || (fault.code != "missing-field" && is_within(&problem.path, &fault.path)))
}

/// The series of instances that the fleet of the test never had: they would count all the same, as those of an instance that is not seen yet.
fn strangers(case: &Case, plan: &Plan, played: &Played) -> Vec<Problem> {
    let had: Vec<String> = (1..=played.instances).map(|number| world::instance(&plan.target, number)).collect();
    let problem = |series: &document::Series| {
        let document::Of::Instance(name) = &series.of else { return None };
        if had.contains(name) {
            return None;
        }
        let all = match had.as_slice() {
            [] => "none".to_owned(),
            [one] => format!("`{one}`"),
            [first, .., last] => format!("`{first}` to `{last}`"),
        };
        let near = nearest(name, had.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        Some(Problem {
            path: format!("{}.instance", series.path).trim_start_matches('.').to_owned(),
            span: series.metric_span,
            severity: crate::model::document::Severity::Error,
            message: format!("the fleet of this test never has an instance `{}`; it has {all}", crate::model::document::shorten(name)),
            mend: Some(near.unwrap_or_else(|| "name one of them, or write `of: Each`".to_owned())),
            code: "instance",
        })
    };
    case.series.iter().filter_map(problem).collect()
}

fn not_a_test(node: Option<&Node>) -> Problem {
    let kind = node.and_then(|node| node.get("kind"));
    let message = match kind.and_then(Node::as_text) {
        Some(kind) => format!("this is a {}, not a {KIND}", crate::model::document::shorten(kind)),
        None => format!("there is no {KIND} in this file"),
    };
    Problem {
        path: "kind".to_owned(),
        span: kind.and_then(|kind| kind.span),
        severity: crate::model::document::Severity::Error,
        message,
        mend: Some(format!("name a file with `kind: {KIND}`; policies are checked by `loadline policy check`")),
        code: "kind",
    }
}

impl Tested {
    fn is_failed(&self) -> bool {
        !self.failures.is_empty() || !self.played.troubles.is_empty()
    }
}

/// What of an expectation was not met.
fn failures(expected: &Expectation, played: &Played, policy: &Policy) -> Vec<Failure> {
    let look = played.looks.iter().find(|look| look.at == expected.at);
    let decision = look.and_then(|look| look.decision.as_ref()).map(|(_, decision)| decision);
    let none = || "no decision yet".to_owned();
    let mut failures = Vec::new();
    let mut compare = |field: &str, span: Option<Span>, wanted: Option<String>, actual: String| {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != actual) {
            let span = span.or_else(|| expected.places.get(field).copied()).or(expected.span);
            failures.push(Failure { at: expected.at, span, field: field.to_owned(), expected: wanted, actual });
        }
    };
    let of_look = |value: fn(&Look) -> u32| look.map_or_else(none, |look| value(look).to_string());
    compare("replicas", None, expected.replicas.map(|n| n.to_string()), of_look(|look| look.replicas));
    compare("ready", None, expected.ready.map(|n| n.to_string()), of_look(|look| look.ready));
    compare("desired", None, expected.desired.map(|n| n.to_string()), decision.map_or_else(none, |d| d.desired.to_string()));
    compare("verdict", None, expected.verdict.map(|v| format!("{v:?}")), decision.map_or_else(none, |d| format!("{:?}", d.verdict)));
    compare("binding", None, expected.binding.map(|b| format!("{b:?}")), decision.map_or_else(none, |d| format!("{:?}", d.binding)));
    let reason = decision.and_then(report::binding_step).map_or_else(none, |step| format!("{:?}", step.reason));
    compare("reason", None, expected.reason.map(|r| format!("{r:?}")), reason);
    for metric in &expected.metrics {
        let part = decision.and_then(|d| d.metrics.iter().find(|m| m.name.as_str() == metric.name));
        let field = |name: &str| format!("metrics.{}.{name}", metric.name);
        let status = part.map_or_else(none, |p| format!("{:?}", p.status));
        compare(&field("status"), metric.span, metric.status.map(|s| format!("{s:?}")), status);
        let proposal = part.map_or_else(none, |p| p.proposal.map_or_else(|| "none".to_owned(), |n| n.to_string()));
        compare(&field("proposal"), metric.span, metric.proposal.map(|n| n.to_string()), proposal);
        if let Some(node) = &metric.value {
            let unit = part.map(|p| p.unit).or_else(|| policy.metrics.iter().find(|m| m.name.as_str() == metric.name).map(unit_of)).unwrap_or_default();
            let wanted = bind::amount(node, unit);
            let actual = part.and_then(|p| p.value);
            let same = wanted.zip(actual).is_some_and(|(wanted, actual)| {
                // A thousandth: what is measured is rounded up to thousandths.
                (wanted.as_f64() - actual.as_f64()).abs() <= 0.001 * wanted.as_f64().abs().max(1.0)
            });
            if !same {
                let show = |amount: Option<_>| amount.map_or_else(|| "none".to_owned(), |amount| crate::wire::words::amount(amount, unit));
                compare(&field("value"), node.span, Some(show(wanted)), show(actual));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests;
