//! Decisions told as stories: what was seen, what was decided, to the digit.
//!
//! Each story is played through `loadline replay --follow`, whose commands it carries out. The lines that
//! went in, each with what it caused below it, stand in `tests/golden/<story>.jsonl`. Where a decision is meant to change,
//! `GOLDEN=write cargo test --test golden_traces` writes the files again; the difference is then read as code is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]
#![allow(clippy::needless_pass_by_value, reason = "a story reads better so")]

#[path = "golden/story.rs"]
mod golden;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use golden::{Seen, Story};
use loadline::model::OutcomeResult;

/// All five metrics, as an API server has them.
const FIVE: &str = r#""replicas":{"min":2,"max":20},"metrics":[
    {"name":"cpu","track":{"utilization":"70%"},"window":"5s"},
    {"name":"memory","track":{"utilization":"80%"},"window":"5s"},
    {"name":"response_time","measure":{"quantile":"95%"},"window":"5s",
     "threshold":{"scaleOutAbove":"300ms","scaleInBelow":"120ms","for":"10s","step":{"out":"20%","in":1}}},
    {"name":"connections","track":{"perReplica":50},"window":"5s"},
    {"name":"queue_depth","track":{"perReplica":100},"window":"5s"}],
    "behavior":{"scaleOut":{"policies":[{"replicas":4,"period":"15s"}]},"scaleIn":{"stabilization":"10s","policies":[{"replicas":1,"period":"10s"}]}}"#;

/// One metric, and nothing that waits.
fn queue(rest: &str) -> String {
    let spec = r#""replicas":{"min":1,"max":10},"metrics":[{"name":"queue_depth","track":{"perReplica":10},"window":"5s","staleAfter":"20s"}]"#;
    format!("{spec},{rest}")
}

const AT_ONCE: &str =
    r#""behavior":{"scaleOut":{"policies":[{"replicas":10,"period":"5s"}]},"scaleIn":{"stabilization":"0s","policies":[{"percent":100,"period":"5s"}]}}"#;

/// What the five metrics show: all calm for three replicas, or as said.
fn five(replicas: u32, named: &str, seen: Seen) -> Vec<(&'static str, Seen)> {
    let calm = [
        ("cpu", Seen::Each(0.7)),
        ("memory", Seen::Each(0.8 * 1_073_741_824.0)),
        ("response_time", Seen::Times(vec![0.2; 20])),
        ("connections", Seen::Each(50.0)),
        ("queue_depth", Seen::Total(100.0 * f64::from(replicas))),
    ];
    calm.into_iter().map(|(name, usual)| (name, if name == named { seen.clone() } else { usual })).collect()
}

/// Grows by the metric, and is held up by it alone when all others ask for less.
fn binds(story: &'static str, metric: &str, high: Seen, grown: u32) {
    let mut story = Story::new(story, FIVE);
    story.fleet(3);
    story.panes(&five(3, "", Seen::None), 2);
    story.decided("Hold 3 -> 3: LargestProposal");
    // Until it acts: a threshold holds for 10 s first.
    while story.commands() == 0 {
        story.panes(&five(3, metric, high.clone()), 1);
    }
    story.moved(&format!("ScaleOut 3 -> {grown}: LargestProposal {metric}"));
    // Everything but the metric would do with the two replicas of `min`.
    let low = [
        ("cpu", Seen::Each(0.1)),
        ("memory", Seen::Each(100_000_000.0)),
        ("response_time", Seen::Times(vec![0.05; 20])),
        ("connections", Seen::Each(5.0)),
        ("queue_depth", Seen::Total(10.0)),
    ];
    let calm = five(grown, "", Seen::None);
    let kept = low.iter().zip(&calm).map(|(low, calm)| if low.0 == metric { calm.clone() } else { low.clone() }).collect::<Vec<_>>();
    story.panes(&kept, 5);
    story.decided(&format!("Hold {grown} -> {grown}: LargestProposal {metric}"));
    story.panes(&low, 4);
    story.moved(&format!("ScaleIn {grown} -> {}: ", grown - 1));
    story.ends();
}

#[test]
fn cpu_binds() {
    binds("cpu-binds", "cpu", Seen::Each(1.4), 6);
}

#[test]
fn memory_binds() {
    binds("memory-binds", "memory", Seen::Each(0.8 * 1_610_612_736.0), 5);
}

#[test]
fn response_time_binds() {
    binds("response-time-binds", "response_time", Seen::Times(vec![0.45; 20]), 4);
}

#[test]
fn connections_bind() {
    binds("connections-bind", "connections", Seen::Each(100.0), 6);
}

#[test]
fn queue_depth_binds() {
    binds("queue-depth-binds", "queue_depth", Seen::Total(700.0), 7);
}

#[test]
fn growth_waits_for_its_cooldown_but_may_be_larger() {
    let mut story = Story::new(
        "cooldown",
        &queue(
            r#""behavior":{"scaleOut":{"cooldown":"30s","policies":[{"replicas":10,"period":"5s"}]},
               "scaleIn":{"stabilization":"0s","cooldown":"40s","policies":[{"percent":100,"period":"5s"}]}}"#,
        ),
    );
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.moved("ScaleOut 2 -> 4");
    story.panes(&[("queue_depth", Seen::Total(60.0))], 1);
    story.moved("ScaleOut 4 -> 6: LargestProposal queue_depth");
    story.panes(&[("queue_depth", Seen::Total(10.0))], 1);
    story.decided("Hold 6 -> 6: ScaleInCooldown");
    story.panes(&[("queue_depth", Seen::Total(10.0))], 8);
    story.decided("Hold 1 -> 1");
    story.ends();
}

#[test]
fn shrinking_waits_for_its_window_and_keeps_to_its_rate() {
    let mut story = Story::new("stabilized-and-paced", &queue(r#""behavior":{"scaleIn":{"stabilization":"20s","policies":[{"replicas":2,"period":"15s"}]}}"#));
    story.fleet(8);
    story.panes(&[("queue_depth", Seen::Total(80.0))], 1);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.decided("Hold 8 -> 8: ScaleInWindow");
    story.panes(&[("queue_depth", Seen::Total(20.0))], 16);
    story.decided("Hold 2 -> 2");
    story.ends();
}

#[test]
fn one_blind_metric_forbids_to_shrink_and_the_others_may_grow() {
    let mut story = Story::new(
        "one-metric-blind",
        &format!(
            r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"queue_depth","track":{{"perReplica":10}},"window":"5s","staleAfter":"10s"}},
               {{"name":"cpu","track":{{"utilization":"50%"}},"window":"5s","staleAfter":"10s"}}],{AT_ONCE}"#
        ),
    );
    story.fleet(4);
    story.panes(&[("queue_depth", Seen::Total(40.0)), ("cpu", Seen::Each(0.5))], 2);
    story.panes(&[("queue_depth", Seen::Total(10.0))], 4);
    story.decided("Hold 4 -> 4: BlindMetric cpu");
    story.panes(&[("queue_depth", Seen::Total(60.0))], 1);
    story.moved("ScaleOut 4 -> 6: LargestProposal queue_depth");
    story.ends();
}

#[test]
fn when_all_is_blind_the_fallback_acts_after_its_time() {
    let mut story = Story::new("all-blind", &queue(&format!(r#""fallback":{{"after":"30s","replicas":5,"behavior":"IfHigher"}},{AT_ONCE}"#)));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.panes(&[], 5);
    story.decided("Blind 2 -> 2: HoldWhileBlind");
    story.panes(&[], 7);
    story.moved("ScaleOut 2 -> 5: FallbackIfHigher");
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.moved("ScaleIn 5 -> 2: LargestProposal queue_depth");
    // The target has a policy before it has any sample.
    assert_eq!(story.alerts(), ["AllMetricsBlind Firing", "AllMetricsBlind Resolved"]);
    story.ends();
}

#[test]
fn a_failed_source_is_an_error_and_not_a_zero() {
    let mut story = Story::new("source-fails", &queue(AT_ONCE));
    story.fleet(3);
    story.panes(&[("queue_depth", Seen::Total(30.0))], 1);
    story.source_fails("queue_depth", "the broker cannot be reached");
    story.decided("Blind 3 -> 3: HoldWhileBlind");
    assert_eq!(story.status_of("queue_depth"), "Error");
    story.panes(&[("queue_depth", Seen::Total(10.0))], 1);
    story.moved("ScaleIn 3 -> 1: LargestProposal queue_depth");
    story.ends();
}

#[test]
fn idle_for_long_enough_goes_to_min() {
    let spec = r#""replicas":{"min":2,"max":10},"metrics":[{"name":"response_time","kind":"Histogram","measure":{"quantile":"90%"},"window":"10s",
        "threshold":{"scaleOutAbove":"900ms","for":"5s","step":{"out":2,"in":1}}}],
        "behavior":{"scaleOut":{"policies":[{"replicas":10,"period":"5s"}]},"scaleIn":{"stabilization":"20s","policies":[{"percent":100,"period":"5s"}]}}"#;
    let mut story = Story::new("idle", spec);
    story.fleet(2);
    // Of 100 observations a pane 20 take longer than a second.
    for pane in 1..=3 {
        story.panes(&[("response_time", Seen::Buckets([80 * pane, 0, 20 * pane]))], 1);
    }
    story.moved("ScaleOut 2 -> 4: LargestProposal response_time");
    story.panes(&[("response_time", Seen::Buckets([240, 0, 60]))], 4);
    assert_eq!(story.status_of("response_time"), "Idle");
    story.decided("Hold 4 -> 4: NoProposal");
    story.panes(&[("response_time", Seen::Buckets([240, 0, 60]))], 4);
    story.decided("Hold 2 -> 2");
    story.ends();
}

#[test]
fn a_counter_that_starts_again_is_no_negative_rate() {
    let spec =
        format!(r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"requests","kind":"Counter","track":{{"perReplica":100}},"window":"5s"}}],{AT_ONCE}"#);
    let mut story = Story::new("counter-reset", &spec);
    story.fleet(2);
    for total in [1_000.0, 2_000.0, 3_000.0] {
        story.panes(&[("requests", Seen::Count(total))], 1);
    }
    story.moved("ScaleOut 2 -> 4: LargestProposal requests");
    // Both start again: what they counted since is what counts.
    for total in [500.0, 1_000.0, 1_500.0] {
        story.panes(&[("requests", Seen::Count(total))], 1);
    }
    story.decided("Hold 4 -> 4: LargestProposal requests");
    story.ends();
}

#[test]
fn advice_is_counted_and_commands_nothing() {
    let mut story = Story::new("advise", &queue(&format!(r#""mode":"Advise",{AT_ONCE}"#)));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.decided("ScaleOut 2 -> 5: LargestProposal queue_depth");
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.decided("Hold 5 -> 5: LargestProposal queue_depth");
    assert_eq!(story.commands(), 0);
    story.ends();
}

#[test]
fn out_only_does_not_shrink() {
    let mut story = Story::new("out-only", &queue(&format!(r#""mode":"OutOnly",{AT_ONCE}"#)));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.moved("ScaleOut 2 -> 5: LargestProposal queue_depth");
    story.panes(&[("queue_depth", Seen::Total(10.0))], 1);
    story.decided("Hold 5 -> 5: OutOnly");
    story.ends();
}

#[test]
fn off_decides_nothing_and_comes_back() {
    let mut story = Story::new("off", &queue(&format!(r#""mode":"Off",{AT_ONCE}"#)));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 2);
    assert_eq!(story.decisions(), 0);
    story.policy(&queue(AT_ONCE));
    story.moved("ScaleOut 2 -> 5: LargestProposal queue_depth");
    story.ends();
}

#[test]
fn zero_by_hand_is_left_alone() {
    let mut story = Story::new("zero-by-hand", &queue(AT_ONCE));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.fleet(0);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 2);
    story.decided("Disabled 0 -> 0: ScaledToZeroByHand");
    story.fleet(1);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.decided("Hold 5 -> 5: LargestProposal queue_depth");
    story.ends();
}

#[test]
fn a_change_by_hand_counts_as_a_change() {
    let cooldown = r#""behavior":{"scaleOut":{"policies":[{"replicas":10,"period":"5s"}]},"scaleIn":{"stabilization":"0s","cooldown":"20s","policies":[{"percent":100,"period":"5s"}]}}"#;
    let mut story = Story::new("changed-by-hand", &queue(cooldown));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.fleet(6);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.decided("Hold 6 -> 6: ScaleInCooldown");
    story.panes(&[("queue_depth", Seen::Total(20.0))], 4);
    story.decided("Hold 2 -> 2");
    assert_eq!(story.alerts(), ["ChangedFromOutside Event"]);
    story.ends();
}

#[test]
fn a_lowered_max_is_reached_by_the_rate_of_shrinking() {
    let paced = r#""behavior":{"scaleIn":{"stabilization":"300s","policies":[{"replicas":1,"period":"10s"}]}}"#;
    let mut story = Story::new("max-lowered", &queue(paced));
    story.fleet(8);
    story.panes(&[("queue_depth", Seen::Total(80.0))], 1);
    story.policy(&queue(paced).replace(r#""max":10"#, r#""max":6"#));
    story.moved("ScaleIn 8 -> 7: ScaleInRate");
    story.panes(&[("queue_depth", Seen::Total(80.0))], 4);
    story.decided("Hold 6 -> 6: AboveMax");
    story.ends();
}

#[test]
fn below_min_goes_to_min_at_once() {
    let mut story = Story::new("below-min", &queue(AT_ONCE).replace(r#""min":1"#, r#""min":4"#));
    story.fleet(2);
    story.moved("ScaleOut 2 -> 4: BelowMin");
    story.ends();
}

#[test]
fn a_command_that_failed_or_was_lost_is_tried_again() {
    let mut story = Story::new("command-fails", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(Some(OutcomeResult::Failed));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.decided("ScaleOut 2 -> 5");
    story.actuator(None);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 4);
    assert_eq!(story.commands(), 2, "a failed command is tried again after a while");
    // Nothing is heard of the second one: it expires after 30 s, and is given up 5 s later.
    story.panes(&[("queue_depth", Seen::Total(50.0))], 6);
    story.actuator(Some(OutcomeResult::Applied));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 4);
    story.decided("Hold 5 -> 5");
    assert_eq!(story.commands(), 3);
    story.ends();
}

#[test]
fn a_command_in_conflict_is_decided_again_from_what_is_there() {
    let mut story = Story::new("command-in-conflict", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(Some(OutcomeResult::Conflict));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.actuator(Some(OutcomeResult::Applied));
    story.fleet(3);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 2);
    story.decided("Hold 5 -> 5");
    story.ends();
}

#[test]
fn more_load_replaces_a_command_under_way() {
    let mut story = Story::new("command-replaced", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(None);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.panes(&[("queue_depth", Seen::Total(80.0))], 1);
    story.decided("ScaleOut 2 -> 8");
    assert_eq!(story.commands(), 2);
    story.ends();
}

#[test]
fn a_fleet_that_is_not_seen_does_not_shrink() {
    let mut story = Story::new("fleet-unseen", &queue(&format!(r#""evaluateEvery":"60s",{AT_ONCE}"#)));
    story.fleet(4);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.pass(Duration::from_secs(180));
    story.panes(&[("queue_depth", Seen::Total(10.0))], 1);
    story.decided("Hold 4 -> 4: FleetUnseen");
    story.fleet(4);
    story.panes(&[("queue_depth", Seen::Total(10.0))], 13);
    story.decided("Hold 1 -> 1");
    assert!(
        story.alerts().ends_with(&["FleetUnseen Firing", "FleetUnseen Resolved"]) || story.alerts().contains(&"FleetUnseen Resolved"),
        "{:?}",
        story.alerts()
    );
    story.ends();
}

#[test]
fn a_silent_source_holds_nobody_up_and_makes_what_it_fed_blind() {
    let mut story = Story::new(
        "source-silent",
        &format!(
            r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"queue_depth","track":{{"perReplica":10}},"window":"5s","staleAfter":"60s"}},
               {{"name":"backlog","track":{{"perReplica":10}},"window":"5s","staleAfter":"60s"}}],{AT_ONCE}"#
        ),
    );
    story.sources(2);
    story.fleet(4);
    story.part_of(1, "backlog", Seen::Total(40.0));
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.decided("Hold 4 -> 4");
    // Source 1 says nothing more, not even a mark.
    story.marks_only(0);
    story.panes(&[("queue_depth", Seen::Total(10.0))], 5);
    story.decided("Hold 4 -> 4: BlindMetric backlog");
    assert_eq!(story.status_of("backlog"), "Stale");
    story.panes(&[("queue_depth", Seen::Total(60.0))], 1);
    story.moved("ScaleOut 4 -> 6: LargestProposal queue_depth");
    story.ends();
}

#[test]
fn a_late_part_amends_its_pane() {
    let spec = format!(
        r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"queue_depth","measure":{{"over":"Max"}},"track":{{"perReplica":10}},"window":"20s"}}],{AT_ONCE}"#
    );
    let mut story = Story::new("late-part", &spec);
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 2);
    story.late("queue_depth", Seen::Total(50.0), 1);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.moved("ScaleOut 2 -> 5: LargestProposal queue_depth");
    story.ends();
}

#[test]
fn a_replaced_command_that_is_applied_after_all_ends_no_other() {
    let mut story = Story::new("replaced-command-applied", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(None);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.panes(&[("queue_depth", Seen::Total(80.0))], 1);
    assert_eq!((story.commands(), story.commanded()), (2, Some(8)));
    story.outcome(0, OutcomeResult::Applied, Some(4), 7);
    story.decided("ScaleOut 4 -> 8");
    assert_eq!(story.commands(), 2, "the second one is still in flight");
    assert!(!story.says("ChangedFromOutside"));
    story.outcome(1, OutcomeResult::Applied, Some(8), 8);
    story.decided("Hold 8 -> 8");
    story.ends();
}

#[test]
fn a_late_word_on_an_earlier_incarnation_says_nothing_of_this_one() {
    let mut story = Story::new("outcome-of-another-incarnation", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(None);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.recreated(3);
    story.outcome(0, OutcomeResult::Applied, Some(4), 9);
    story.panes(&[("queue_depth", Seen::Total(30.0))], 1);
    story.decided("Hold 3 -> 3");
    assert!(!story.says("ChangedFromOutside"));
    story.ends();
}

#[test]
fn an_answer_that_crosses_an_outcome_opens_nothing() {
    let mut story = Story::new("answer-crosses-outcome", &queue(AT_ONCE));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.moved("ScaleOut 2 -> 4");
    story.grant_again(0);
    story.panes(&[("queue_depth", Seen::Total(10.0))], 1);
    story.moved("ScaleIn 4 -> 1");
    assert_eq!(story.commands(), 2, "nothing was in flight that it had to wait for");
    story.ends();
}

#[test]
fn a_removal_under_way_is_taken_back_when_the_load_returns() {
    let mut story = Story::new("removal-taken-back", &queue(AT_ONCE));
    story.fleet(5);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.actuator(None);
    story.panes(&[("queue_depth", Seen::Total(10.0))], 1);
    assert_eq!((story.commands(), story.commanded()), (1, Some(1)));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.decided("Hold 5 -> 5");
    assert_eq!((story.commands(), story.commanded()), (2, Some(5)));
    story.ends();
}

#[test]
fn a_fleet_that_is_not_seen_is_shrunk_by_nothing() {
    let fallback = r#""fallback":{"after":"5s","replicas":1,"behavior":"Static"}"#;
    let mut story = Story::new("fleet-unseen-and-blind", &queue(&format!("{fallback},{AT_ONCE}")));
    story.fleet(4);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 1);
    story.pass(Duration::from_secs(10));
    story.pass(Duration::from_secs(175));
    story.decided("Blind 4 -> 4: FleetUnseen");
    story.policy(&queue(&format!("{fallback},{AT_ONCE}")).replace(r#""max":10"#, r#""max":2"#));
    story.decided("Hold 4 -> 4: FleetUnseen");
    assert_eq!(story.commands(), 0);
    story.ends();
}

#[test]
fn a_policy_that_changes_its_fleet_takes_its_claim_along() {
    let mut story = Story::new("fleet-changed", &queue(AT_ONCE));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    story.policy(&queue(&format!(r#""fleet":"night",{AT_ONCE}"#)));
    assert!(story.says(r#""request":{"fleet":"default","#) && story.says(r#""withdrawn":true"#) && story.says(r#""request":{"fleet":"night","#));
    story.ends();
}

#[test]
fn a_clock_that_is_set_back_is_followed() {
    let cooldown = r#""behavior":{"scaleOut":{"cooldown":"60s","policies":[{"replicas":10,"period":"5s"}]}}"#;
    let mut story = Story::new("clock-set-back", &queue(cooldown));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(40.0))], 2);
    story.moved("ScaleOut 2 -> 4");
    story.clock_back(Duration::from_secs(3_600));
    story.panes(&[("queue_depth", Seen::Total(80.0))], 2);
    story.moved("ScaleOut 4 -> 8");
    assert_eq!(story.alerts(), ["ClockRanBack Event"]);
    story.ends();
}

#[test]
fn what_was_only_advised_limits_nothing() {
    let paced = r#""behavior":{"scaleOut":{"cooldown":"60s","policies":[{"replicas":3,"period":"60s"}]}}"#;
    let mut story = Story::new("advise-to-active", &queue(&format!(r#""mode":"Advise",{paced}"#)));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 1);
    story.policy(&queue(paced));
    story.moved("ScaleOut 2 -> 5");
    story.ends();
}

#[test]
fn a_pane_of_increments_that_was_seen_in_part_is_not_a_small_one() {
    let spec = format!(r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"jobs","kind":"Delta","track":{{"perReplica":10}},"window":"60s"}}],{AT_ONCE}"#);
    let mut story = Story::new("delta-begins", &spec);
    story.fleet(2);
    // 20 a second, from long before the policy came.
    story.panes(&[("jobs", Seen::More(100.0))], 1);
    story.decided("Blind 2 -> 2: HoldWhileBlind");
    story.panes(&[("jobs", Seen::More(100.0))], 5);
    story.decided("Hold 2 -> 2: LargestProposal jobs");
    assert_eq!(story.commands(), 0);
    story.ends();
}

#[test]
fn a_histogram_that_comes_seldom_is_not_idle_in_between() {
    // Pushed every 20 s, into windows of 10 s: its newest readings count until they are stale.
    let spec = format!(
        r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"queue_depth","track":{{"perReplica":10}},"window":"5s"}},
           {{"name":"response_time","kind":"Histogram","measure":{{"quantile":"90%"}},"window":"10s","staleAfter":"60s",
             "threshold":{{"scaleOutAbove":"2s","scaleInBelow":"100ms","for":"5s","step":{{"out":2,"in":1}}}}}}],{AT_ONCE}"#
    );
    let mut story = Story::new("histogram-seldom", &spec);
    story.fleet(6);
    let low = || ("queue_depth", Seen::Total(10.0));
    // The first reading says nothing yet.
    story.panes(&[low(), ("response_time", Seen::Buckets([100, 50, 50]))], 1);
    story.decided("Hold 6 -> 6: BlindMetric response_time");
    assert_eq!(story.status_of("response_time"), "NoData");
    story.panes(&[low()], 3);
    story.panes(&[low(), ("response_time", Seen::Buckets([110, 60, 70]))], 1);
    story.decided("Hold 6 -> 6: LargestProposal response_time");
    story.panes(&[low()], 4);
    assert_eq!(story.status_of("response_time"), "Ok");
    story.decided("Hold 6 -> 6: LargestProposal response_time");
    assert_eq!(story.commands(), 0);
    story.ends();
}

#[test]
fn the_last_increment_is_one_of_its_pane() {
    let spec = format!(
        r#""replicas":{{"min":1,"max":10}},"metrics":[{{"name":"jobs","kind":"Delta","measure":{{"over":"Last"}},"track":{{"perReplica":2}},"window":"30s"}}],{AT_ONCE}"#
    );
    let mut story = Story::new("delta-last", &spec);
    story.fleet(5);
    story.panes(&[], 1);
    // 50 in five seconds are ten a second, however few panes there are.
    story.panes(&[("jobs", Seen::More(50.0))], 1);
    story.decided("Hold 5 -> 5: LargestProposal jobs");
    story.panes(&[], 2);
    story.panes(&[("jobs", Seen::More(50.0))], 1);
    story.decided("Hold 5 -> 5: LargestProposal jobs");
    story.ends();
}

#[test]
fn a_policy_for_a_target_that_is_not_there_is_told() {
    let mut story = Story::new("target-not-seen", &queue(AT_ONCE));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 4);
    assert_eq!((story.decisions(), story.alerts()), (0, vec!["TargetNotSeen Firing"]));
    story.fleet(2);
    assert_eq!(story.alerts(), ["TargetNotSeen Firing", "TargetNotSeen Resolved"]);
    story.moved("ScaleOut 2 -> 5");
    story.ends();
}

#[test]
fn commands_that_fail_are_told_after_the_third() {
    let mut story = Story::new("commands-fail", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(Some(OutcomeResult::Failed));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 2);
    assert!(story.alerts().is_empty());
    story.panes(&[("queue_depth", Seen::Total(50.0))], 3);
    assert!(story.commands() >= 3);
    assert_eq!(story.alerts(), ["CommandsFail Firing"]);
    story.actuator(Some(OutcomeResult::Applied));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 4);
    assert_eq!(story.alerts(), ["CommandsFail Firing", "CommandsFail Resolved"]);
    story.ends();
}

/// An emergency stop is no failure, and is tried again soon.
#[test]
fn a_freeze_is_no_failure() {
    let mut story = Story::new("frozen", &queue(AT_ONCE));
    story.fleet(2);
    story.actuator(Some(OutcomeResult::Frozen));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 6);
    assert!(story.commands() > 3 && story.alerts().is_empty(), "{} {:?}", story.commands(), story.alerts());
    story.actuator(Some(OutcomeResult::Applied));
    story.panes(&[("queue_depth", Seen::Total(50.0))], 2);
    story.decided("Hold 5 -> 5");
    story.ends();
}

#[test]
fn an_arbiter_that_does_not_answer_is_told() {
    let mut story = Story::new("arbiter-silent", &queue(AT_ONCE));
    story.fleet(2);
    story.no_arbiter();
    story.actuator(None);
    story.panes(&[("queue_depth", Seen::Total(50.0))], 3);
    assert_eq!(story.alerts(), ["ClaimUnanswered Firing"]);
    story.ends();
}

/// A target at rest repeats its claim each minute, and writes down a decision an hour.
#[test]
fn a_target_at_rest_says_little() {
    let mut story = Story::new("at-rest", &queue(&format!(r#""evaluateEvery":"60s",{AT_ONCE}"#)));
    story.fleet(2);
    story.panes(&[("queue_depth", Seen::Total(20.0))], 1);
    let (sent, written) = story.sent_and_written();
    story.panes(&[("queue_depth", Seen::Total(20.0))], 5 * 12);
    let (later, still) = story.sent_and_written();
    assert!((4..=6).contains(&(later - sent)) && still == written, "{} claims, {} decisions in five minutes", later - sent, still - written);
    story.ends();
}

/// The program says of each story's signals what is written down, line by line.
#[test]
fn the_program_replays_every_story() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut stories = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        stories += 1;
        let golden = std::fs::read_to_string(&path).unwrap();
        let (mut signals, mut expected) = (String::new(), String::new());
        // Each block is a signal, and below it what it causes.
        for (number, block) in (1..).zip(golden.split("\n\n")) {
            let (signal, caused) = block.trim_end().split_once('\n').unwrap_or((block.trim_end(), ""));
            writeln!(signals, "{signal}").unwrap();
            caused.lines().for_each(|line| writeln!(expected, "{line}").unwrap());
            writeln!(expected, r#"{{"done":{number}}}"#).unwrap();
        }
        let input = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(input.path(), signals).unwrap();
        let replayed = Command::new(env!("CARGO_BIN_EXE_loadline")).args(["replay", "--follow"]).arg(input.path()).output().unwrap();
        assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
        assert_eq!(String::from_utf8(replayed.stdout).unwrap(), expected, "{}", path.display());
    }
    assert!(stories >= 25, "only {stories} stories were found");
}
