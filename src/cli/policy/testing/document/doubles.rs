//! Two series of one metric that say what the same instances show: which of the two is meant cannot be known, and their
//! mean is neither.

use super::{Case, Of, Series};
use crate::model::TargetId;
use crate::model::document::{Problem, Severity};

/// Each series of a test that measures once more what an earlier one does.
pub(in super::super) fn in_case(case: &Case, file: &str) -> Vec<Problem> {
    of_both(case, file, |series, earlier| match (&series.of, &earlier.of) {
        (Of::Target, Of::Target) => Some("the target as a whole".to_owned()),
        (Of::Each | Of::Split, Of::Each | Of::Split) => Some("every ready instance".to_owned()),
        (Of::Instance(name), Of::Instance(earlier)) if name == earlier => Some(format!("the instance {name}")),
        _ => None,
    })
}

/// The same where one is of every instance and the other of one that the fleet of `target` may have.
pub(in super::super) fn with_every_instance(case: &Case, target: &TargetId, file: &str) -> Vec<Problem> {
    let is_its_own = |name: &str| {
        let number = name.strip_prefix(target.name()).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    of_both(case, file, |series, earlier| match (&series.of, &earlier.of) {
        (Of::Each | Of::Split, Of::Instance(name)) | (Of::Instance(name), Of::Each | Of::Split) if is_its_own(name) => Some(format!("the instance {name}")),
        _ => None,
    })
}

/// A problem at each series that has something in common with an earlier one of its metric, as `common` says it.
fn of_both(case: &Case, file: &str, common: impl Fn(&Series, &Series) -> Option<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, series) in case.series.iter().enumerate() {
        let mut earlier = case.series[..i].iter().filter(|earlier| earlier.metric == series.metric);
        let Some((earlier, whose)) = earlier.find_map(|earlier| Some((earlier, common(series, earlier)?))) else { continue };
        let place = earlier.metric_span.map_or_else(|| file.to_owned(), |s| format!("{file}:{}:{}", s.line, s.column));
        problems.push(Problem {
            path: format!("{}.metric", series.path),
            span: series.metric_span,
            severity: Severity::Error,
            message: format!("`{}` of {whose} has a series already, at {place}; what is measured would be a mix of both", series.metric),
            mend: Some("write all values in one series, or name the instance of each, as in `instance: bots-1`".to_owned()),
            code: "duplicate-series",
        });
    }
    problems
}
