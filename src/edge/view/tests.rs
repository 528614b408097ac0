use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::log::memory::MemoryLog;
use crate::log::{Batch, Log, Membership, Partitions, Topic};
use crate::model::{
    Amount, Command, Decision, Grant, GrantLimit, Instance, Message, MetricReport, MetricStatus, OpenCommand, Order, Outcome, OutcomeResult, Phase, Reason,
    Severity, Step, StepKind, Verdict, WhileBlind,
};
use crate::runtime::clock::{Clock, ManualClock};
use crate::runtime::publish;
use crate::stages::Effects;

const START: i64 = 1_764_000_000_000;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START + seconds * 1000)
}

pub(crate) fn api() -> TargetId {
    "prod/Deployment/api".parse().unwrap()
}

/// All that was in the log has been read.
pub(crate) fn caught_up(view: &View, now: Timestamp) {
    (0..tail::FOLLOWED_TOPICS).for_each(|_| view.one_caught_up(now));
}

/// A decision of `prod/Deployment/api` at `seconds`, from `current` to `desired`.
pub(crate) fn decision(seconds: i64, current: u32, desired: u32) -> Decision {
    let verdict = match desired.cmp(&current) {
        std::cmp::Ordering::Less => Verdict::ScaleIn,
        std::cmp::Ordering::Equal => Verdict::Hold,
        std::cmp::Ordering::Greater => Verdict::ScaleOut,
    };
    let step = |step, before, after, reason, until| Step { step, before, after, reason, metric: Some("cpu".parse().unwrap()), limit: Some(after), until };
    Decision {
        target: api(),
        sequence: seconds,
        at: at(seconds),
        through: at(seconds - 1),
        current,
        desired,
        verdict,
        binding: StepKind::RateLimit,
        metrics: vec![
            MetricReport {
                name: "cpu".parse().unwrap(),
                status: MetricStatus::Ok,
                unit: crate::model::policy::Unit::Ratio,
                value: Some(Amount::from_millis(840)),
                target: Some(Amount::from_millis(700)),
                proposal: Some(desired + 3),
                note: None,
                threshold: None,
                while_blind: WhileBlind::HoldIn,
                per_second: false,
            },
            MetricReport {
                name: "queue_depth".parse().unwrap(),
                status: MetricStatus::Stale,
                unit: crate::model::policy::Unit::Count,
                value: None,
                target: Some(Amount::from_units(100)),
                proposal: None,
                note: Some("newest sample 95 s old".to_owned()),
                threshold: None,
                while_blind: WhileBlind::HoldIn,
                per_second: false,
            },
        ],
        steps: vec![
            step(StepKind::Combine, current, desired + 3, Reason::LargestProposal, None),
            step(StepKind::RateLimit, desired + 3, desired, Reason::ScaleOutRate, Some(at(seconds + 15))),
        ],
        policy_version: "/etc/loadline/policies/api.yaml@3".to_owned(),
        fold_version: 1,
        advised: false,
    }
}

fn open(seconds: i64, from: u32, to: u32) -> OpenCommand {
    OpenCommand { id: format!("c{seconds}"), epoch: at(seconds).as_millis(), from, to, expires_at: at(seconds + 30) }
}

pub(crate) fn grant(seconds: i64, from: u32, to: u32) -> Audit {
    let limit = GrantLimit::None;
    Audit::Grant(Grant { target: api(), epoch: at(seconds).as_millis(), desired: to, granted: to, limit, command: Some(open(seconds, from, to)) })
}

pub(crate) fn command(seconds: i64, from: u32, to: u32) -> Audit {
    let OpenCommand { id, epoch, expires_at, .. } = open(seconds, from, to);
    Audit::Command(Command { id, target: api(), uid: "u".to_owned(), epoch, from, to, replaces: None, replaced_to: None, expires_at })
}

pub(crate) fn outcome(seconds: i64, to: u32) -> Audit {
    Audit::Outcome(Outcome {
        target: api(),
        command: format!("c{seconds}"),
        uid: None,
        result: OutcomeResult::Applied,
        replicas: Some(to),
        revision: None,
        error: None,
    })
}

pub(crate) fn fleet(sequence: i64, desired: u32, ready: usize) -> FleetObservation {
    let instance = |n: usize| Instance { name: format!("api-{n}").parse().unwrap(), phase: Phase::Running, ready: Some(n < ready), ..Instance::default() };
    let instances = (0..desired as usize).map(instance).collect();
    FleetObservation { target: api(), uid: "u".to_owned(), term: 1, sequence, revision: None, desired, status_replicas: desired, updating: false, instances }
}

pub(crate) fn policy(generation: i64, spec: Option<&str>) -> PolicyAnnouncement {
    PolicyAnnouncement { target: api(), spec: spec.map(str::to_owned), order: Order { source: "/etc/loadline/policies/api.yaml".to_owned(), generation } }
}

pub(crate) fn alert(state: AlertState) -> Alert {
    let message = "cpu has no data since 12:00; is it pushed?".to_owned();
    Alert { target: Some(api()), name: "MetricBlind".to_owned(), subject: "cpu".to_owned(), severity: Severity::Warning, state, message, at: at(0) }
}

#[test]
fn a_decision_is_joined_with_its_grant_command_and_outcome() {
    let view = View::new();
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    view.audit(at(11), grant(10, 3, 5));
    view.audit(at(11), command(10, 3, 5));
    view.audit(at(20), Audit::Decision(decision(20, 5, 7)));
    view.audit(at(21), outcome(10, 5));
    view.audit(at(21), grant(20, 5, 7));
    view.audit(at(22), grant(20, 5, 7));
    let stories = view.decisions(&api(), 10, None).unwrap();
    let parts: Vec<_> = stories.iter().map(|s| (s.decision.desired, s.grants.len(), s.commands.len(), s.outcomes.len())).collect();
    assert_eq!(parts, [(5, 1, 1, 1), (7, 1, 0, 0)], "an outcome that comes late belongs to its command; a repeated grant counts once");
    assert_eq!(stories[0].outcomes[0].at, at(21));
}

#[test]
fn a_claim_that_is_made_again_belongs_to_the_decision_that_stands() {
    let view = View::new();
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    view.audit(at(71), grant(70, 3, 4));
    assert_eq!(view.decisions(&api(), 1, None).unwrap()[0].grants.len(), 1);
}

#[test]
fn the_decision_of_a_time_is_the_last_at_or_before_it() {
    let view = View::new();
    for seconds in [10, 20, 30] {
        view.audit(at(seconds), Audit::Decision(decision(seconds, 3, 5)));
    }
    let found = |until: i64| view.decisions(&api(), 1, Some(Until::At(at(until)))).map(|s| s[0].decision.sequence);
    assert_eq!([found(9), found(10), found(19), found(99)], [None, Some(10), Some(10), Some(30)], "before the first, memory does not say");
}

#[test]
fn memory_is_bounded_and_says_where_it_ends() {
    let view = View::new();
    for seconds in 0..300 {
        view.audit(at(seconds), Audit::Decision(decision(seconds, 3, 5)));
    }
    let kept = view.decisions(&api(), 1_000, None).unwrap();
    assert_eq!((kept.len(), kept[0].decision.sequence), (MAX_STORIES_PER_TARGET, 100));
    assert_eq!(view.decisions(&api(), 1, Some(Until::At(at(99)))), None);
}

#[test]
fn status_shows_policy_replicas_and_decision() {
    let view = View::new();
    view.audit(at(0), Audit::Policy(policy(2, Some(r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"api"},"role":"ApiServer","replicas":{"min":3,"max":60},"metrics":[{"name":"cpu","track":{"utilization":"70%"}}]}"#))));
    view.signal(at(1), Signal::Policy(policy(1, None)));
    view.signal(at(2), Signal::Fleet(fleet(2, 4, 3)));
    view.signal(at(2), Signal::Fleet(fleet(1, 9, 9)));
    assert_eq!(view.statuses()[0].reason, "no decision yet");
    view.audit(at(10), Audit::Decision(decision(10, 4, 5)));
    view.alert(alert(AlertState::Firing));
    let status = view.statuses().pop().unwrap();
    assert_eq!((status.role.as_deref(), status.mode.as_deref()), (Some("ApiServer"), Some("Active")));
    assert_eq!((status.min, status.max, status.current, status.desired, status.ready), (Some(3), Some(60), Some(4), Some(5), Some(3)));
    assert_eq!((status.blind.as_slice(), status.alerts.len()), (["queue_depth".to_owned()].as_slice(), 1));
    view.alert(alert(AlertState::Resolved));
    assert!(view.statuses()[0].alerts.is_empty(), "a resolved alert is gone");
}

/// Most evaluations change nothing and are written nowhere: the status has their numbers all the same.
#[test]
fn status_and_series_are_of_the_last_evaluation_and_decisions_of_what_was_written_down() {
    let view = View::new();
    view.audit(at(10), Audit::Decision(decision(10, 3, 5)));
    view.evaluated(&decision(40, 5, 5));
    view.audit(at(11), Audit::Decision(decision(10, 3, 5)));
    let status = view.statuses().pop().unwrap();
    assert_eq!((status.at, status.through, status.desired), (Some(at(40)), Some(at(39)), Some(5)));
    assert_eq!(view.decisions(&api(), 10, None).unwrap().len(), 1);
    assert_eq!(view.series(&api(), at(0), at(60)).unwrap().times, [at(10), at(40)]);
}

/// The bounds of a chart are those of the policy of then.
#[test]
fn bounds_are_known_of_decisions_under_the_policy_that_is_known() {
    let view = View::new();
    let spec = r#"{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"api"},"replicas":{"min":3,"max":60},"metrics":[{"name":"cpu","track":{"utilization":"70%"}}]}"#;
    view.audit(at(0), Audit::Policy(policy(3, Some(spec))));
    view.evaluated(&decision(10, 3, 5));
    view.evaluated(&Decision { policy_version: "/etc/loadline/policies/api.yaml@4".to_owned(), ..decision(20, 3, 5) });
    let series = view.series(&api(), at(0), at(60)).unwrap();
    assert_eq!((series.replicas.min, series.replicas.max), (vec![Some(3), None], vec![Some(60), None]));
}

/// Audit and signals both tell of a policy: what one of them tells late is no news, also where the policy moved to another file meanwhile.
#[test]
fn an_older_policy_is_no_news() {
    let view = View::new();
    let (older, newer) = (policy(1, Some("{}")), policy(2, Some(r#"{"role":"ApiServer"}"#)));
    let newer = PolicyAnnouncement { order: Order { source: "/etc/loadline/policies/other.yaml".to_owned(), generation: 2 }, ..newer };
    view.audit(at(0), Audit::Policy(older.clone()));
    view.audit(at(1), Audit::Policy(newer));
    view.signal(at(0), Signal::Policy(older));
    assert_eq!(view.detail(&api()).unwrap().policy.as_deref(), Some(r#"{"role":"ApiServer"}"#));
}

/// A policy, as it is written.
fn spec(mode: &str, max: u32) -> String {
    format!(
        r#"{{"target":{{"apiVersion":"apps/v1","kind":"Deployment","name":"api"}},"mode":"{mode}","replicas":{{"min":3,"max":{max}}},"metrics":[{{"name":"cpu","track":{{"utilization":"70%"}}}}]}}"#
    )
}

/// A policy that cannot be used changes nothing: the one before it is shown, and where there is none, that nothing is decided. Where it was decided by, a
/// newer release can use it.
#[test]
fn the_policy_that_is_shown_is_the_one_in_force() {
    let view = View::new();
    let unusable = r#"{"role":"ApiServer","mode":"Active"}"#;
    let shown = || {
        let status = view.statuses().pop().unwrap();
        (status.mode, status.max, status.reason)
    };
    view.signal(at(0), Signal::Policy(policy(1, Some(unusable))));
    view.signal(at(0), Signal::Fleet(fleet(0, 4, 3)));
    let (mode, max, reason) = shown();
    assert_eq!((mode, max), (None, None));
    assert!(reason.contains("cannot be used, and there was none before: nothing is decided"), "{reason}");
    assert_eq!(view.allowed(&api(), at(9)), Allowed::NotKnown);
    view.signal(at(1), Signal::Policy(policy(2, Some(&spec("Advise", 60)))));
    assert_eq!(shown(), (Some("Advise".to_owned()), Some(60), "no decision yet".to_owned()));
    for generation in [3, 4] {
        view.signal(at(2), Signal::Policy(policy(generation, Some(unusable))));
        assert_eq!(shown(), (Some("Advise".to_owned()), Some(60), "no decision yet".to_owned()), "of {generation}");
    }
    assert!(matches!(view.allowed(&api(), at(9)), Allowed::Within { min: 3, max: 60, .. }));
    view.signal(at(4), Signal::Policy(policy(5, None)));
    view.signal(at(5), Signal::Policy(policy(6, Some(unusable))));
    assert_eq!(shown().0, None, "what was removed comes not back");
    let by_newer = Decision { policy_version: policy(6, None).order.to_string(), ..decision(10, 4, 5) };
    view.audit(at(10), Audit::Decision(by_newer));
    assert_eq!(shown().0.as_deref(), Some("Active"), "as it is written");
}

#[test]
fn what_a_target_waits_for_is_said() {
    let view = View::new();
    view.audit(at(0), Audit::Policy(policy(1, Some(&spec("Active", 60)))));
    assert!(view.statuses()[0].reason.starts_with("its replicas have not been seen yet"));
    view.audit(at(0), Audit::Policy(policy(2, None)));
    assert!(view.statuses().is_empty(), "a target without policy and replicas is history");
}

fn append(log: &dyn Log, audits: impl IntoIterator<Item = Audit>) {
    let mut effects = Effects::new();
    audits.into_iter().for_each(|audit| effects.to_key(Topic::Audit, "prod/Deployment/api", Message::Audit(audit)));
    publish(log, effects).unwrap();
}

/// Waits until `there` says so.
fn wait_for(what: &str, there: impl Fn() -> bool) {
    let waited = crate::runtime::clock::Stopwatch::start();
    while !there() {
        assert!(waited.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn the_tail_reads_what_was_there_and_follows_what_comes() {
    let clock = Arc::new(ManualClock::new(at(0)));
    let log = Arc::new(MemoryLog::new(Partitions::default(), clock.clone()));
    let as_log: Arc<dyn Log> = log.clone();
    let as_clock: Arc<dyn Clock> = clock.clone();
    append(log.as_ref(), [Audit::Decision(decision(1, 3, 5)), grant(1, 3, 5)]);
    let stages = [Followed { group: "decide", input: Topic::Signals, holds: Duration::from_secs(5) }];
    // Twice: the second time the group's position is where the first one put it.
    for round in 0..2 {
        let view = Arc::new(View::new());
        let tail = Tail::start(&view, &as_log, &as_clock, &stages, |reason| panic!("{reason}")).unwrap();
        wait_for("the end of the log", || view.is_caught_up());
        assert_eq!(view.decisions(&api(), 10, None).unwrap().len(), 1 + round);
        assert_eq!(view.decisions(&api(), 10, None).unwrap()[0].grants.len(), 1);
        let seconds = 10 + i64::try_from(round).unwrap();
        append(log.as_ref(), [Audit::Decision(decision(seconds, 5, 6))]);
        wait_for("the new decision", || view.decisions(&api(), 1, None).is_some_and(|s| s[0].decision.sequence == seconds));
        wait_for("the lag", || view.lag().iter().any(|lag| lag.stage == "decide"));
        tail.stop();
    }
}

/// What a stage lets wait by itself is not late.
#[test]
fn a_stage_is_late_whose_record_waits_for_longer_than_it_holds_records() {
    let clock = Arc::new(ManualClock::new(at(0)));
    let log = Arc::new(MemoryLog::new(Partitions::default(), clock.clone()));
    let as_log: Arc<dyn Log> = log.clone();
    let as_clock: Arc<dyn Clock> = clock.clone();
    append(log.as_ref(), [Audit::Decision(decision(1, 3, 5))]);
    let stages = [("holds", 60), ("does-not", 0)].map(|(group, holds)| Followed { group, input: Topic::Audit, holds: Duration::from_secs(holds) });
    let view = Arc::new(View::new());
    let tail = Tail::start(&view, &as_log, &as_clock, &stages, |reason| panic!("{reason}")).unwrap();
    let late = |group: &str| view.lag().into_iter().find(|lag| lag.stage == group).map(|lag| (lag.records, lag.late, lag.owner));
    wait_for("both to be behind", || late("holds").is_some() && late("holds") == Some((1, false, None)) && late("does-not") == Some((1, false, None)));
    clock.set(at(11));
    wait_for("one to be late", || late("does-not") == Some((1, true, None)));
    assert_eq!(late("holds"), Some((1, false, None)));
    clock.set(at(71));
    wait_for("both to be late", || late("holds") == Some((1, true, None)));
    tail.stop();
}

/// What lies behind the last record may be none, as a transaction's marker is: nothing waits there.
#[test]
fn a_stage_that_has_read_all_records_is_behind_by_none() {
    let clock = Arc::new(ManualClock::new(at(0)));
    let log = Arc::new(MemoryLog::new(Partitions::default(), clock.clone()).with_markers());
    let (as_log, as_clock): (Arc<dyn Log>, Arc<dyn Clock>) = (log.clone(), clock.clone());
    append(log.as_ref(), [Audit::Decision(decision(1, 3, 5))]);
    let range = log.range(Topic::Audit, 0).unwrap();
    let stages = [Followed { group: "reads", input: Topic::Audit, holds: Duration::ZERO }];
    let view = Arc::new(View::new());
    let tail = Tail::start(&view, &as_log, &as_clock, &stages, |reason| panic!("{reason}")).unwrap();
    let behind = || view.lag().first().map(|lag| (lag.records, lag.waiting_since));
    wait_for("it to be behind", || behind().is_some_and(|(records, since)| records > 0 && since == Some(at(0))));
    let mut session = log.join(Membership { group: "reads", member: "one".to_owned(), topic: Topic::Audit }).unwrap();
    session.poll(10, Duration::ZERO).unwrap();
    let read = log.scan(Topic::Audit, 0, range.start, 10).unwrap();
    let position = read.last().unwrap().offset + 1;
    assert!(position < range.end, "a marker follows");
    session.commit(&Batch { position: Some(position), ..Batch::default() }).unwrap();
    wait_for("nothing to wait", || behind() == Some((0, None)));
    tail.stop();
}

#[test]
fn a_tail_that_ends_by_itself_says_why() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(at(0)));
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Partitions::default(), Arc::clone(&clock)));
    let view = Arc::new(View::new());
    let (sender, ended) = mpsc::channel();
    let _tail = Tail::start(&view, &log, &clock, &[], move |reason| sender.send(reason).unwrap()).unwrap();
    wait_for("the end of the log", || view.is_caught_up());
    log.close();
    assert!(ended.recv_timeout(Duration::from_secs(20)).unwrap().starts_with("the view of "));
}

#[test]
fn decisions_beyond_the_memory_are_read_from_the_log() {
    let clock = Arc::new(ManualClock::new(at(0)));
    let log = MemoryLog::new(Partitions::default(), clock.clone());
    for seconds in 0..3_000 {
        clock.set(at(seconds));
        append(&log, [Audit::Decision(decision(seconds, 3, 5)), grant(seconds, 3, 5), command(seconds, 3, 5)]);
        if seconds % 100 == 0 {
            append(&log, [outcome(seconds, 5)]);
        }
    }
    let found = older(&log, &api(), 2, Until::At(at(1_000))).unwrap();
    let parts: Vec<_> = found.iter().map(|s| (s.decision.sequence, s.grants.len(), s.commands.len(), s.outcomes.len())).collect();
    assert_eq!(parts, [(999, 1, 1, 0), (1_000, 1, 1, 1)]);
    assert!(older(&log, &api(), 1, Until::At(at(-1))).unwrap().is_empty(), "before the first there is none");
    assert!(older(&log, &"prod/Deployment/web".parse().unwrap(), 1, Until::At(at(1_000))).unwrap().is_empty());
}

/// Where retention has removed the beginning of audit, a policy may have been announced there: it takes an evaluation of every target until it is
/// known what the policies ask for.
#[test]
fn policies_are_known_when_none_can_be_on_its_way_any_more() {
    for (cut, not_yet, known) in [(false, 9, 10), (true, 199, 200)] {
        let clock = Arc::new(ManualClock::new(at(0)));
        let log = MemoryLog::new(Partitions::default(), clock.clone());
        append(&log, [Audit::Decision(decision(1, 3, 5)), grant(1, 3, 5)]);
        if cut {
            log.trim(Topic::Audit, 0, 1).unwrap();
        }
        let view = Arc::new(View::new());
        assert!(!view.policies_are_known(at(1_000)), "nothing has been read");
        let tail = Tail::start(&view, &(Arc::new(log) as Arc<dyn Log>), &(clock as Arc<dyn Clock>), &[], |reason| panic!("{reason}")).unwrap();
        wait_for("the end of the log", || view.is_caught_up());
        assert_eq!([not_yet, known].map(|seconds| view.policies_are_known(at(seconds))), [false, true], "cut: {cut}");
        tail.stop();
    }
}
