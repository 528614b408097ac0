//! The sentence of every reason, word by word.

use super::*;
use crate::model::Amount;
use crate::model::policy::Unit;

/// 2025-11-24 12:00:00 UTC.
const NOON: i64 = 1_763_985_600_000;

fn report(name: &str, unit: Unit, status: MetricStatus, value: Option<&str>, target: Option<&str>, proposal: Option<u32>) -> MetricReport {
    let amount = |text: &str| text.parse::<Amount>().unwrap();
    MetricReport {
        name: name.parse().unwrap(),
        status,
        unit,
        value: value.map(amount),
        target: target.map(amount),
        proposal,
        note: None,
        threshold: None,
        while_blind: WhileBlind::HoldIn,
        per_second: false,
    }
}

fn cpu() -> MetricReport {
    report("cpu", Unit::Ratio, MetricStatus::Ok, Some("0.84"), Some("0.7"), Some(8))
}

fn memory() -> MetricReport {
    let note = Some("newest sample 2m 10s old".to_owned());
    MetricReport { note, ..report("memory", Unit::Bytes, MetricStatus::Stale, None, Some("536870912"), None) }
}

fn step(kind: StepKind, before: u32, after: u32, reason: Reason) -> Step {
    Step { step: kind, before, after, reason, metric: None, limit: None, until: None }
}

fn combine(after: u32) -> Step {
    Step { metric: Some("cpu".parse().unwrap()), ..step(StepKind::Combine, 3, after, Reason::LargestProposal) }
}

/// A decision of a target with 3 replicas, whose last step binds.
fn decision(metrics: Vec<MetricReport>, steps: Vec<Step>) -> Decision {
    let (binding, desired) = steps.last().map_or((StepKind::Combine, 3), |s| (s.step, s.after));
    let verdict = match desired.cmp(&3) {
        std::cmp::Ordering::Greater => Verdict::ScaleOut,
        std::cmp::Ordering::Equal => Verdict::Hold,
        std::cmp::Ordering::Less => Verdict::ScaleIn,
    };
    Decision {
        target: "prod/Deployment/api".parse().unwrap(),
        sequence: 17,
        at: Timestamp::from_millis(NOON),
        through: Timestamp::from_millis(NOON - 1000),
        current: 3,
        desired,
        verdict,
        binding,
        metrics,
        steps,
        policy_version: "/etc/loadline/policies/api.yaml@3".to_owned(),
        fold_version: 1,
        advised: false,
    }
}

/// The sentence of a decision in which `step` follows cpu's proposal of 8.
fn after_cpu(step: Step) -> String {
    sentence(&decision(vec![cpu(), memory()], vec![combine(8), step]))
}

#[test]
fn the_largest_proposal_names_value_target_and_count() {
    let decided = decision(vec![cpu(), memory()], vec![combine(8)]);
    assert_eq!(sentence(&decided), "cpu 84 % against 70 % asks for 8");
    let mut calm = decision(vec![report("cpu", Unit::Ratio, MetricStatus::Ok, Some("0.68"), Some("0.7"), Some(3))], vec![combine(3)]);
    assert_eq!(sentence(&calm), "cpu 68 % against 70 % asks for 3, as it is");
    calm.metrics.push(report("queue_depth", Unit::Count, MetricStatus::Ok, Some("240"), Some("100"), Some(3)));
    assert_eq!(why(&calm, &calm.steps[0]), "cpu 68 % against 70 % asks for 3, as it is, the largest of 2 proposals");
}

#[test]
fn a_binding_step_follows_what_was_asked_for() {
    let until = Some(Timestamp::from_millis(NOON + 200_000));
    let tomorrow = Some(Timestamp::from_millis(NOON + 86_400_000));
    let rows = [
        (
            Step { limit: Some(5), until, ..step(StepKind::RateLimit, 8, 5, Reason::ScaleOutRate) },
            "cpu 84 % against 70 % asks for 8; the scale-out rate allows 5 until 12:03:20 UTC",
        ),
        (Step { limit: Some(5), ..step(StepKind::RateLimit, 8, 5, Reason::ScaleOutRate) }, "cpu 84 % against 70 % asks for 8; the scale-out rate allows 5"),
        (
            Step { limit: Some(2), until, ..step(StepKind::RateLimit, 1, 2, Reason::ScaleInRate) },
            "cpu 84 % against 70 % asks for 8; the scale-in rate allows no fewer than 2 until 12:03:20 UTC",
        ),
        (step(StepKind::RateLimit, 8, 3, Reason::ScaleOutDisabled), "cpu 84 % against 70 % asks for 8; the policy disables scale-out, so 3 replicas stay"),
        (step(StepKind::RateLimit, 1, 3, Reason::ScaleInDisabled), "cpu 84 % against 70 % asks for 8; the policy disables scale-in, so 3 replicas stay"),
        (
            Step { limit: Some(5), until, ..step(StepKind::Stabilize, 8, 5, Reason::ScaleOutWindow) },
            "cpu 84 % against 70 % asks for 8; a lower recommendation of 5 is inside the scale-out window and counts until 12:03:20 UTC",
        ),
        (
            Step { limit: Some(9), until: tomorrow, ..step(StepKind::Stabilize, 8, 9, Reason::ScaleInWindow) },
            "cpu 84 % against 70 % asks for 8; a higher recommendation of 9 is inside the scale-in window and counts until 2025-11-25 12:00:00 UTC",
        ),
        (
            Step { until, ..step(StepKind::Cooldown, 8, 3, Reason::ScaleOutCooldown) },
            "cpu 84 % against 70 % asks for 8; the last change is too recent to grow further, so 3 replicas stay until 12:03:20 UTC",
        ),
        (
            Step { until, ..step(StepKind::Cooldown, 0, 1, Reason::ScaleInCooldown) },
            "cpu 84 % against 70 % asks for 8; the last change is too recent to shrink, so 1 replica stays until 12:03:20 UTC",
        ),
        (Step { limit: Some(4), ..step(StepKind::Bounds, 1, 4, Reason::BelowMin) }, "cpu 84 % against 70 % asks for 8; the policy's minimum is 4"),
        (Step { limit: Some(6), ..step(StepKind::Bounds, 8, 6, Reason::AboveMax) }, "cpu 84 % against 70 % asks for 8; the policy's maximum is 6"),
        (
            Step { limit: Some(2), ..step(StepKind::Bounds, 8, 7, Reason::AboveMaxPaced) },
            "cpu 84 % against 70 % asks for 8; the count is above the policy's maximum of 2 and comes down by the scale-in rate, to 7 for now",
        ),
        (step(StepKind::Bounds, 1, 3, Reason::OutOnly), "cpu 84 % against 70 % asks for 8; mode OutOnly removes nothing, so 3 replicas stay"),
        (
            step(StepKind::Combine, 8, 3, Reason::FleetUnseen),
            "cpu 84 % against 70 % asks for 8; the replicas have not been seen for too long, so nothing is removed and 3 replicas stay",
        ),
        (
            step(StepKind::Other, 8, 4, Reason::Other),
            "cpu 84 % against 70 % asks for 8; a step of a newer version, which this one cannot put into words, made it 4",
        ),
    ];
    for (step, words) in rows {
        assert_eq!(after_cpu(step), words);
    }
}

#[test]
fn a_blind_metric_is_named_with_what_is_known_of_it() {
    let low = report("cpu", Unit::Ratio, MetricStatus::Ok, Some("0.4"), Some("0.7"), Some(2));
    let blind = Step { metric: Some("memory".parse().unwrap()), ..step(StepKind::Combine, 2, 3, Reason::BlindMetric) };
    assert_eq!(
        sentence(&decision(vec![low, memory()], vec![blind])),
        "cpu 40 % against 70 % asks for 2; memory is stale (newest sample 2m 10s old), so nothing is removed and 3 replicas stay"
    );
}

#[test]
fn where_nothing_is_known_all_that_is_missing_is_listed() {
    let dark = || vec![report("cpu", Unit::Ratio, MetricStatus::NoData, None, None, None), memory()];
    let say = |step| sentence(&decision(dark(), vec![step]));
    let list = "(cpu has no data, memory is stale (newest sample 2m 10s old))";
    let until = Some(Timestamp::from_millis(NOON + 60_000));
    assert_eq!(
        say(Step { until, ..step(StepKind::Fallback, 3, 3, Reason::HoldWhileBlind) }),
        format!("no metric has a usable value {list}, so 3 replicas stay until 12:01:00 UTC")
    );
    assert_eq!(
        say(step(StepKind::Fallback, 3, 10, Reason::FallbackIfHigher)),
        format!("no metric has had a usable value for too long {list}, so the fallback raises 3 to 10")
    );
    assert_eq!(
        say(Step { limit: Some(2), ..step(StepKind::Fallback, 3, 3, Reason::FallbackIfHigher) }),
        format!("no metric has had a usable value for too long {list}; the fallback of 2 is not higher, so 3 replicas stay")
    );
    assert_eq!(
        say(step(StepKind::Fallback, 3, 2, Reason::FallbackStatic)),
        format!("no metric has had a usable value for too long {list}, so the fallback asks for 2")
    );
}

#[test]
fn the_quiet_reasons() {
    let say = |step| sentence(&decision(vec![], vec![step]));
    assert_eq!(say(step(StepKind::Combine, 3, 3, Reason::NoProposal)), "no metric asks for a count, so 3 replicas stay");
    assert_eq!(
        say(Step { limit: Some(1), ..step(StepKind::Fallback, 3, 1, Reason::IdleToMin) }),
        "all metrics have been idle for the scale-in window, so the minimum of 1 is asked for"
    );
    assert_eq!(
        say(step(StepKind::Combine, 0, 0, Reason::ScaledToZeroByHand)),
        "it was scaled to zero by hand and is left alone until someone sets it above zero"
    );
}

#[test]
fn advice_says_that_it_is_advice_and_a_fault_what_ends_it() {
    let mut decided = decision(vec![cpu()], vec![combine(8)]);
    decided.advised = true;
    assert_eq!(sentence(&decided), "advice only: cpu 84 % against 70 % asks for 8");
    assert_eq!(verdict(&decided), "would scale out from 3 to 8 replicas (advises)");
    let mut followed = decision(vec![cpu()], vec![Step { before: 8, ..combine(8) }]);
    (followed.advised, followed.current) = (true, 8);
    assert_eq!(sentence(&followed), "advice only: cpu 84 % against 70 % asks for 8, as advised before");
    let fault = Decision { verdict: Verdict::Faulted, ..decision(vec![], vec![]) };
    assert_eq!(sentence(&fault), "a fault in the program holds this target: its replicas stay until its policy changes or an operator orders otherwise");
    assert_eq!(verdict(&fault), "is held at 3 replicas by a fault in the program");
}

#[test]
fn grants_and_outcomes_say_what_became_of_the_wish() {
    let granted = |limit, granted| Grant { target: "a/b/c".parse().unwrap(), epoch: 1, desired: 2, granted, limit, command: None };
    assert_eq!(grant(&granted(GrantLimit::None, 2)), "2 replicas granted, as asked for");
    assert_eq!(grant(&granted(GrantLimit::Removals, 7)), "7 replicas granted for now, 2 asked for: removals are paced over the fleet");
    let outcome_of = |result, replicas, error: Option<&str>| Outcome {
        target: "a/b/c".parse().unwrap(),
        command: "c-1".to_owned(),
        uid: None,
        result,
        replicas,
        revision: None,
        error: error.map(str::to_owned),
    };
    assert_eq!(outcome(&outcome_of(OutcomeResult::Applied, Some(5), None)), "applied; 5 replicas now");
    assert_eq!(outcome(&outcome_of(OutcomeResult::Failed, None, Some("503 Service Unavailable"))), "not applied: the call failed (503 Service Unavailable)");
}

/// A threshold at a value, with what it waits for until a minute after noon.
fn latency(value: &str, side: ThresholdSide, waits: Option<ThresholdWait>, limits: (Option<&str>, Option<&str>), proposal: Option<u32>) -> MetricReport {
    let limit = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    let until = waits.map(|_| Timestamp::from_millis(NOON + 60_000));
    let threshold = Some(ThresholdReport { side, scale_out_above: limit(limits.0), scale_in_below: limit(limits.1), waits, until });
    MetricReport { threshold, ..report("latency", Unit::Seconds, MetricStatus::Ok, Some(value), None, proposal) }
}

/// Above one limit, below another, between them: the words name the one that applies, and what is waited for.
#[test]
fn a_threshold_names_the_limit_that_applied_and_what_it_waits_for() {
    use {ThresholdSide as Side, ThresholdWait as Wait};
    let (both, out, r#in) = ((Some("0.3"), Some("0.12")), (Some("0.3"), None), (None, Some("0.12")));
    let rows = [
        ("0.45", Side::Above, None, both, Some(4), "latency 450 ms above 300 ms asks for 4"),
        ("0.1", Side::Below, None, both, Some(2), "latency 100 ms below 120 ms asks for 2"),
        ("0.2", Side::Between, None, both, Some(3), "latency 200 ms between 120 ms and 300 ms asks for 3, as it is"),
        ("0.45", Side::Above, Some(Wait::For), both, Some(3), "latency 450 ms above 300 ms asks for 3, as it is: it has to stay so until 12:01:00 UTC"),
        ("0.1", Side::Below, Some(Wait::For), r#in, Some(3), "latency 100 ms below 120 ms asks for 3, as it is: it has to stay so until 12:01:00 UTC"),
        (
            "0.45",
            Side::Above,
            Some(Wait::StartUp),
            out,
            Some(3),
            "latency 450 ms above 300 ms asks for 3, as it is: the instances of the last scale-out are still starting, waited for until 12:01:00 UTC at the latest",
        ),
        ("0.2", Side::Between, None, r#in, Some(3), "latency 200 ms not below 120 ms asks for 3, as it is"),
    ];
    for (value, side, waits, limits, proposal, words) in rows {
        let report = latency(value, side, waits, limits, proposal);
        let asks = Step { metric: Some("latency".parse().unwrap()), ..step(StepKind::Combine, 3, proposal.unwrap(), Reason::LargestProposal) };
        assert_eq!(sentence(&decision(vec![report], vec![asks])), words);
    }
    // What speaks for the decision is another metric: what is waited for is said all the same.
    let waits = latency("0.45", Side::Above, Some(Wait::For), both, Some(3));
    let calm = report("cpu", Unit::Ratio, MetricStatus::Ok, Some("0.68"), Some("0.7"), Some(3));
    let asks = Step { metric: Some("cpu".parse().unwrap()), ..step(StepKind::Combine, 3, 3, Reason::LargestProposal) };
    assert_eq!(
        sentence(&decision(vec![calm, waits], vec![asks])),
        "cpu 68 % against 70 % asks for 3, as it is; latency 450 ms above 300 ms: it has to stay so until 12:01:00 UTC"
    );
    let silent = latency("0.2", Side::Between, None, out, None);
    assert_eq!(metric(&silent, Timestamp::from_millis(NOON)), "latency 200 ms not above 300 ms asks for nothing");
}

/// What a metric without a value means depends on what its policy says of it.
#[test]
fn a_blind_metric_is_said_to_hold_only_where_it_does() {
    let near = Timestamp::from_millis(NOON);
    let said = |while_blind| remarks(&MetricReport { while_blind, ..memory() }, near).unwrap();
    assert_eq!(said(WhileBlind::HoldIn), "newest sample 2m 10s old; nothing is removed meanwhile");
    assert_eq!(said(WhileBlind::Ignore), "newest sample 2m 10s old; the other metrics decide without it (whenBlind: Ignore)");
    assert_eq!(said(WhileBlind::Observe), "newest sample 2m 10s old; it is observed only: no decision waits for it");
    assert_eq!(remarks(&cpu(), near), None);
}

#[test]
fn a_rate_is_written_as_one() {
    let rate = MetricReport { per_second: true, ..report("requests", Unit::Count, MetricStatus::Ok, Some("1240"), Some("500"), Some(3)) };
    assert_eq!(metric(&rate, Timestamp::from_millis(NOON)), "requests 1,240/s against 500/s asks for 3");
}

/// A sentence stays one that is read: of many metrics without a value the first are named.
#[test]
fn of_many_blind_metrics_the_first_are_named() {
    let dark = (0..8).map(|n| report(&format!("m{n}"), Unit::Count, MetricStatus::NoData, None, None, None)).collect();
    assert_eq!(
        sentence(&decision(dark, vec![step(StepKind::Combine, 3, 3, Reason::HoldWhileBlind)])),
        "no metric has a usable value (m0 has no data, m1 has no data, m2 has no data, m3 has no data and 4 more), so 3 replicas stay"
    );
}
