//! The shortest form of a failing scenario: faults, then targets, then metrics are taken out one after the other, as long
//! as the same invariant still fails.

use std::fmt::Write as _;
use std::time::Duration;

use loadline::runtime::clock::Stopwatch;

use super::check::Violation;
use super::run::trace;
use super::scenario::{Kinds, Scenario};

/// A scenario in which the same invariant fails, and from which nothing can be taken (or the time was up).
pub fn shrink(scenario: &Scenario, violation: &Violation, most: Duration) -> (Scenario, Violation) {
    let watch = Stopwatch::start();
    let fails = |scenario: &Scenario| super::judge(scenario).violation.filter(|found| found.invariant == violation.invariant);
    let (mut smallest, mut found) = (scenario.clone(), violation.clone());
    loop {
        let smaller = candidates(&smallest).take_while(|_| watch.elapsed() < most).find_map(|candidate| Some((fails(&candidate)?, candidate)));
        match smaller {
            Some((violation, scenario)) => (smallest, found) = (scenario, violation),
            None => return (smallest, found),
        }
    }
}

fn candidates(scenario: &Scenario) -> impl Iterator<Item = Scenario> {
    let faults = (0..scenario.faults.len()).rev().map(|place| {
        let mut smaller = scenario.clone();
        smaller.faults.remove(place);
        smaller
    });
    // Faults name targets by their number, so those of a target that is gone meet nobody.
    let targets = (0..scenario.targets.len()).rev().filter(|_| scenario.targets.len() > 1).map(|place| {
        let mut smaller = scenario.clone();
        smaller.targets.remove(place);
        smaller
    });
    let metrics = scenario.targets.iter().enumerate().filter(|(_, target)| target.policy.metrics.len() > 1).flat_map(move |(place, target)| {
        (0..target.policy.metrics.len()).map(move |metric| {
            let mut smaller = scenario.clone();
            smaller.targets[place].policy.metrics.remove(metric);
            smaller
        })
    });
    let simpler = std::iter::once_with(|| {
        let mut smaller = scenario.clone();
        smaller.setup.partitions = [1, 1, 1, 1];
        smaller
    });
    let processes = std::iter::once_with(|| {
        let mut smaller = scenario.clone();
        smaller.setup.processes = 1;
        smaller.setup.skew_ms.truncate(1);
        smaller.faults.retain(|planned| !planned.fault.names_a_process_beyond(1));
        smaller
    });
    faults
        .chain(targets)
        .chain(metrics)
        .chain(simpler.filter(|_| scenario.setup.partitions != [1, 1, 1, 1] && scenario.faults.iter().all(|planned| !planned.fault.names_a_partition())))
        .chain(processes.filter(|_| scenario.setup.processes > 1))
}

/// A failing scenario in its shortest form, with what happened in it up to the violation.
pub fn report(scenario: &Scenario, violation: &Violation, most: Duration) -> String {
    let (smallest, found) = shrink(scenario, violation, most);
    let mut lines = Vec::new();
    trace(&smallest, &mut |line| lines.push(line.to_owned()));
    let skipped = lines.len().saturating_sub(60);
    let mut report = format!(
        "in its shortest form ({} of {} faults, {} of {} targets):\n{smallest}\n",
        smallest.faults.len(),
        scenario.faults.len(),
        smallest.targets.len(),
        scenario.targets.len()
    );
    if skipped > 0 {
        let _ = writeln!(report, "  … {skipped} lines");
    }
    for line in &lines[skipped..] {
        let _ = writeln!(report, "{line}");
    }
    let _ = writeln!(report, "{found}");
    let faults = if scenario.kinds == Kinds::default() { String::new() } else { format!(" --faults {}", scenario.kinds) };
    let _ = write!(report, "all lines: loadgen simulate --from {}{faults} --trace --shortest --shrink-for {}", scenario.seed, most.as_secs());
    report
}
