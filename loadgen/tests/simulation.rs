//! The simulation itself: the same seed is the same run, what it draws can be used, and a failing scenario is made smaller.
//! Many seeds run in `make test` with an optimised build (`loadgen simulate`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::time::Duration;

use loadgen::simulate::check::Violation;
use loadgen::simulate::run::{run, trace};
use loadgen::simulate::scenario::Scenario;
use loadgen::simulate::{All, shrink};

#[test]
fn what_must_hold_holds() {
    let all = All::run(0, 16, 2, 1, |_, _| {});
    assert!(all.failed.is_empty(), "{:?}", all.failed.iter().map(|(seed, violation, _)| format!("seed {seed}: {violation}")).collect::<Vec<_>>());
    for what in ["decisions", "commands that took effect", "records that nobody can read", "unknown, done"] {
        assert!(all.counts.contains_key(what), "{what} was met");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let scenario = Scenario::draw(7);
    assert_eq!(scenario.to_string(), Scenario::draw(7).to_string());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let traces = [trace(&scenario, &mut |line| first.push(line.to_owned())).trace, trace(&scenario, &mut |line| second.push(line.to_owned())).trace];
    assert_eq!((traces[0], &first), (traces[1], &second));
    assert!(!first.is_empty());
    assert_ne!(run(&Scenario::draw(8)).trace, traces[0]);
}

/// Each policy that is drawn is one that the program takes without an error.
#[test]
fn every_policy_that_is_drawn_can_be_used() {
    for seed in 0..500 {
        for target in Scenario::draw(seed).targets {
            let id = loadgen::simulate::world::target(target.number);
            let spec = target.policy.spec(target.number);
            loadline::model::policy::resolve_spec_json(&spec, &id).unwrap_or_else(|problems| panic!("seed {seed}: {problems:?} in {spec}"));
        }
    }
}

/// A load that never comes to rest: no fleet can follow it to the end.
fn restless(mut scenario: Scenario) -> Scenario {
    let (from, to) = (scenario.calm_at, scenario.end_at);
    for target in &mut scenario.targets {
        target.load.extend((0..).map(|n| (from + n * 7_000, if n % 2 == 0 { 0.5 } else { 30.0 })).take_while(|(at, _)| *at < to));
    }
    scenario
}

/// What is not needed for the failure is taken out: here all faults, and all targets but one.
#[test]
fn a_failing_scenario_is_made_smaller() {
    let mut large = (0..).map(Scenario::draw).filter(|scenario| scenario.faults.len() >= 3 && scenario.targets.len() >= 2).map(restless);
    let (scenario, violation) = large.find_map(|scenario| run(&scenario).violations.into_iter().next().map(|v: Violation| (scenario, v))).unwrap();
    let (smallest, found) = shrink::shrink(&scenario, &violation, Duration::from_secs(60));
    assert_eq!((found.invariant, smallest.faults.len(), smallest.targets.len()), (violation.invariant, 0, 1));
}
