//! What the view remembers of each target for its charts, in bytes: an hour at 5 s and a day at 5 min, and no more.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use loadline::edge::view::View;
use loadline::model::policy::Unit;
use loadline::model::{Amount, Decision, MetricReport, MetricStatus, StepKind, Timestamp, Verdict, WhileBlind};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const TARGETS: usize = 10;
const METRICS: usize = 5;

/// 1,008 points of 28 bytes and 9 for each metric are 74 kB; beside them the last evaluation and the names.
const MOST: usize = 84_000;

fn evaluate_all(view: &View, second: i64) {
    for target in 0..TARGETS {
        let metric = |n: usize| MetricReport {
            name: format!("metric_{n}").parse().unwrap(),
            status: MetricStatus::Ok,
            unit: Unit::Count,
            value: Some(Amount::from_millis(second * 7 % 1_000)),
            target: Some(Amount::from_units(1)),
            proposal: Some(3),
            note: None,
            threshold: None,
            while_blind: WhileBlind::HoldIn,
            per_second: false,
        };
        let at = Timestamp::from_millis(1_764_000_000_000 + second * 1_000);
        view.evaluated(&Decision {
            target: format!("prod/Deployment/service-{target}").parse().unwrap(),
            sequence: second,
            at,
            through: at,
            current: 3,
            desired: 3,
            verdict: Verdict::Hold,
            binding: StepKind::Combine,
            metrics: (0..METRICS).map(metric).collect(),
            steps: Vec::new(),
            policy_version: "file:all.yaml@1".to_owned(),
            fold_version: 1,
            advised: false,
        });
    }
}

#[test]
fn a_day_of_evaluations_takes_so_much_and_the_next_day_no_more() {
    let view = View::new();
    let before = MEMORY.current_usage();
    let a_target = |days: i64| {
        for second in (days * 86_400..(days + 1) * 86_400).step_by(5) {
            evaluate_all(&view, second);
        }
        (MEMORY.current_usage() - before) / TARGETS
    };
    let (first, second) = (a_target(0), a_target(1));
    println!("{first} bytes a target with {METRICS} metrics after a day, {second} after two");
    assert!(first < MOST, "{first} bytes a target");
    assert!(second <= first + first / 10, "{second} bytes a target after a second day, {first} after the first");
}
