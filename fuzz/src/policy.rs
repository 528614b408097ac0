//! Documents that people write: policies, and fleets of processes.

use std::time::Duration;

use loadline::edge::processes::{fleet_of, parse_documents};
use loadline::model::document::{Node, Problem, Severity, Span};
use loadline::model::policy::{Policy, ScalingRules, resolve_spec_json};
use loadline::wire::document::{ParsedPolicy, from_yaml, policies_in};

/// Beyond this no duration of a policy goes.
const DAY: Duration = Duration::from_secs(86_400);

/// Either a policy with bounds that hold, and the same after it went through the log; or problems, each with its place.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(nodes) = from_yaml(text) {
        for node in &nodes {
            let json = node.to_json();
            let again = Node::from_json(&json).unwrap_or_else(|problem| panic!("{json} is no JSON: {problem}"));
            assert_eq!(again.to_json(), json, "the canonical text of a canonical text is another");
        }
    }
    let file = policies_in(text, "a.yaml");
    let problems = file.all_problems();
    problems.iter().for_each(|problem| placed(problem, text));
    for document in &file.documents {
        let refused = document.problems.iter().any(|p| p.severity == Severity::Error);
        assert_eq!(document.policy.is_none(), refused, "a policy is in force where there is no error, and only there");
        if let Some(policy) = &document.policy {
            holds(policy);
            comes_through_the_log(document, policy);
            document.settings.iter().for_each(|setting| super::said(&setting.path));
        }
    }
    for other in &file.others {
        let (fleet, problems) = fleet_of(&other.node);
        problems.iter().for_each(|problem| placed(problem, text));
        assert!(fleet.is_some() || !problems.is_empty(), "a fleet is refused without a reason");
    }
    if let Err(problems) = parse_documents("a.yaml", text) {
        problems.lines().for_each(super::said);
    }
}

/// A problem says what and where; a place lies within the text.
fn placed(problem: &Problem, text: &str) {
    super::said(&problem.to_string());
    assert!(problem.span.is_some() || !problem.path.is_empty() || problem.code == "too-large", "nobody finds this: {problem:?}");
    if let Some(Span { line, column, length }) = problem.span {
        // A text that ends too early is wrong on the line after its last.
        let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count() + 1;
        assert!(line >= 1 && line as usize <= lines && column >= 1 && length >= 1, "{problem:?} is outside of {lines} lines");
    }
}

/// What a policy in force promises, whatever was written.
fn holds(policy: &Policy) {
    assert!(policy.min <= policy.max && policy.max >= 1, "{} to {}", policy.min, policy.max);
    assert!(!policy.metrics.is_empty());
    let mut names: Vec<&str> = policy.metrics.iter().map(|m| m.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), policy.metrics.len(), "two metrics of one name");
    for metric in &policy.metrics {
        assert!(metric.window > Duration::ZERO && metric.window <= metric.stale_after, "{metric:?}");
        assert!(metric.stale_after <= DAY, "{metric:?}");
    }
    for ScalingRules { stabilization, cooldown, policies, .. } in [&policy.scale_out, &policy.scale_in] {
        assert!(*stabilization <= DAY && *cooldown <= DAY);
        assert!(policies.iter().all(|rate| rate.period > Duration::ZERO && rate.period <= DAY), "{policies:?}");
    }
    assert!([policy.tolerance.out, policy.tolerance.r#in].iter().all(|t| t.is_finite() && *t >= 0.0), "{:?}", policy.tolerance);
}

/// What is checked is what is in force: the announced text gives the same policy.
fn comes_through_the_log(document: &ParsedPolicy, policy: &Policy) {
    let announced = resolve_spec_json(&document.spec_json, &policy.target);
    match announced {
        Ok(announced) => assert_eq!(&announced, policy, "{}", document.spec_json),
        Err(problems) => panic!("{} is refused once it is announced: {problems:?}", document.spec_json),
    }
}
