use super::*;

const MB: u64 = 1024 * 1024;
const MINUTE: i64 = 60_000;
const NOW: i64 = 1_000_000 * MINUTE;

/// Rows of ten records each, of so many minutes ago and so many bytes.
fn rows(rows: &[(i64, u64)]) -> Vec<RowExtent> {
    (1..).zip(rows).map(|(n, (ago, bytes))| RowExtent { end: n * 10, at: Timestamp::from_millis(NOW - ago * MINUTE), bytes: *bytes }).collect()
}

fn partition(topic: Topic, head: &[(i64, u64)], hold: Option<Hold>) -> PartitionFacts {
    let head = rows(head);
    PartitionFacts { topic, partition: 0, bytes: head.iter().map(|row| row.bytes).sum(), head, hold }
}

fn up_to(from: Offset) -> Hold {
    Hold { from, group: "a stage", why: Why::Unread }
}

/// A limit of 16 MB, so that records go by size above 15 MB.
fn limits() -> Limits {
    Limits { size: 16 * MB, ..Limits::default() }
}

fn planned(used: u64, partitions: Vec<PartitionFacts>) -> (Vec<(Topic, Offset)>, Pressure) {
    let plan = plan(&Facts { now: Timestamp::from_millis(NOW), used, partitions }, &limits());
    (plan.trims.into_iter().map(|trim| (trim.topic, trim.before)).collect(), plan.pressure)
}

#[test]
fn records_go_by_age_when_they_are_worth_a_commit() {
    let h = |hours: i64| hours * 60;
    let many = |ago: i64| vec![(ago, 100); STEP_ROWS as usize];
    for (what, topic, head, expected) in [
        ("young ones stay", Topic::Metrics, vec![(h(5), 100), (1, 100)], None),
        ("a few that are barely too old wait for more", Topic::Metrics, vec![(h(6) + 1, 100), (h(6) + 1, 100)], None),
        ("a whole step goes at once", Topic::Metrics, many(h(6) + 1), Some(640)),
        ("so does a large row", Topic::Metrics, vec![(h(6) + 1, 2 * MB), (h(6) + 1, 100)], Some(10)),
        ("what is a sixteenth too old goes, with what is too old beside it", Topic::Metrics, vec![(h(7), 100), (h(6) + 1, 100), (h(5), 100)], Some(20)),
        ("signals stay for three days", Topic::Signals, vec![(h(71), 100); STEP_ROWS as usize], None),
        ("and go then", Topic::Signals, vec![(h(73), 100); STEP_ROWS as usize], Some(640)),
        ("requests for one", Topic::Requests, many(h(25)), Some(640)),
        ("commands for one", Topic::Commands, many(h(25)), Some(640)),
        ("audit for ninety", Topic::Audit, many(h(89 * 24)), None),
        ("and goes then", Topic::Audit, many(h(91 * 24)), Some(640)),
        ("alerts for seven", Topic::Alerts, many(h(8 * 24)), Some(640)),
        ("dead letters for seven", Topic::DeadLetters, many(h(8 * 24)), Some(640)),
        ("control never", Topic::Control, many(h(1_000 * 24)), None),
        ("where the clock ran back, what seems younger goes with what came after it", Topic::Metrics, vec![(-h(9), 100), (h(7), 100), (1, 100)], Some(20)),
    ] {
        let hold = if topic == Topic::Control { hold(topic, &[]) } else { None };
        let (trims, pressure) = planned(0, vec![partition(topic, &head, hold)]);
        assert_eq!((trims, pressure), (expected.map(|before| (topic, before)).into_iter().collect(), Pressure::Roomy), "{what}");
    }
}

#[test]
fn what_is_needed_stays_however_old_or_large() {
    let old = [(600, MB), (600, MB), (600, MB)];
    for (what, hold, used, expected) in [
        ("nothing was read", up_to(0), 17 * MB, (vec![], Pressure::Full)),
        ("a row that was read in part", up_to(9), 17 * MB, (vec![], Pressure::Full)),
        ("near the limit", up_to(9), 15 * MB + 1, (vec![], Pressure::Held)),
        ("one row was read: it goes, and is not enough", up_to(10), 17 * MB, (vec![(Topic::Metrics, 10)], Pressure::Full)),
        ("two rows were read: the first by age, the second by size", up_to(25), 17 * MB, (vec![(Topic::Metrics, 20)], Pressure::Trimming)),
    ] {
        assert_eq!(planned(used, vec![partition(Topic::Metrics, &old, Some(hold))]), expected, "{what}");
    }
}

#[test]
fn by_size_topics_give_way_in_their_order() {
    let young = [(3, MB), (2, MB), (1, MB)];
    let full = |topic| partition(topic, &young, None);
    let held = |topic| partition(topic, &young, Some(up_to(0)));
    let all = |free: &dyn Fn(Topic) -> bool| Topic::ALL.into_iter().map(|topic| if free(topic) { full(topic) } else { held(topic) }).collect::<Vec<_>>();
    assert_eq!(planned(15 * MB, all(&|_| true)), (vec![], Pressure::Roomy));
    assert_eq!(planned(16 * MB, all(&|t| t != Topic::Control)), (vec![(Topic::Metrics, 10)], Pressure::Trimming));
    assert_eq!(planned(16 * MB, all(&|t| !matches!(t, Topic::Control | Topic::Metrics))), (vec![(Topic::Signals, 10)], Pressure::Trimming));
    let late = |t| !matches!(t, Topic::Control | Topic::Metrics | Topic::Signals);
    assert_eq!(planned(16 * MB, all(&late)), (vec![(Topic::Requests, 10)], Pressure::Trimming));
    let last = |t| matches!(t, Topic::Audit | Topic::Alerts | Topic::DeadLetters);
    assert_eq!(planned(16 * MB, all(&last)), (vec![(Topic::Audit, 10)], Pressure::Trimming));
    assert_eq!(planned(16 * MB, all(&|_| false)), (vec![], Pressure::Full));
    assert_eq!(
        planned(20 * MB, vec![full(Topic::Metrics), full(Topic::Signals)]),
        (vec![(Topic::Metrics, 10)], Pressure::Trimming),
        "one small step at a time"
    );
    assert_eq!(planned(15 * MB + 1, vec![full(Topic::Metrics)]), (vec![(Topic::Metrics, 10)], Pressure::Trimming), "and no more than there is too much");
}

#[test]
fn a_topic_gives_way_only_when_nothing_more_may_go_of_those_before_it() {
    let signals = || partition(Topic::Signals, &[(3, MB), (2, MB)], None);
    let small = partition(Topic::Metrics, &[(3, MB / 2)], None);
    assert_eq!(planned(17 * MB, vec![small, signals()]), (vec![(Topic::Metrics, 10), (Topic::Signals, 10)], Pressure::Trimming), "there are no more metrics");
    let many = partition(Topic::Metrics, &[(3, 100); STEP_ROWS as usize], None);
    assert_eq!(planned(17 * MB, vec![many, signals()]), (vec![(Topic::Metrics, 640)], Pressure::Trimming), "there may be more metrics");
    let read = partition(Topic::Metrics, &[(3, 100); STEP_ROWS as usize], Some(up_to(630)));
    assert_eq!(planned(17 * MB, vec![read, signals()]), (vec![(Topic::Metrics, 630), (Topic::Signals, 10)], Pressure::Trimming), "the others were not read");
}

#[test]
fn among_audit_and_alerts_the_oldest_go_first() {
    let kb = 1024;
    let audit = partition(Topic::Audit, &[(90, 400 * kb), (50, 400 * kb), (10, 400 * kb)], None);
    let alerts = partition(Topic::Alerts, &[(60, 200 * kb), (40, 200 * kb)], None);
    let letters = partition(Topic::DeadLetters, &[(20, 400 * kb)], None);
    let (trims, _) = planned(17 * MB, vec![audit, alerts, letters]);
    assert_eq!(trims, [(Topic::Audit, 20), (Topic::Alerts, 20)], "90, 60, 50 and 40 minutes ago come to a step");
}

#[test]
fn a_partition_is_held_by_whoever_needs_most_of_it() {
    let reader = |group, committed, restart| Progress { group, committed, restart };
    let held = |from, group, why| Some(Hold { from, group, why });
    for (what, topic, readers, expected) in [
        ("nobody known reads it", Topic::Metrics, vec![], held(0, "nobody", Why::Unstarted)),
        ("people read it", Topic::Audit, vec![], None),
        ("control", Topic::Control, vec![reader("admit", Some(7), None)], held(0, "admit", Why::Forever)),
        ("one that has not begun holds all", Topic::Metrics, vec![reader("aggregate", None, None)], held(0, "aggregate", Why::Unstarted)),
        ("what was not read", Topic::Metrics, vec![reader("aggregate", Some(7), None)], held(7, "aggregate", Why::Unread)),
        ("without a round, a restart reads all", Topic::Signals, vec![reader("decide", Some(7), Some(Restart::Earliest))], held(0, "decide", Why::Restart)),
        ("what a restart reads again", Topic::Signals, vec![reader("decide", Some(7), Some(Restart::From(3)))], held(3, "decide", Why::Restart)),
        ("a restart that reads nothing again", Topic::Signals, vec![reader("decide", Some(7), Some(Restart::From(9)))], held(7, "decide", Why::Unread)),
        (
            "the slowest of two",
            Topic::Signals,
            vec![reader("decide", Some(7), Some(Restart::From(5))), reader("forecast", Some(4), None)],
            held(4, "forecast", Why::Unread),
        ),
    ] {
        assert_eq!(hold(topic, &readers), expected, "{what}");
    }
}
