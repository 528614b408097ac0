use super::*;
use crate::edge::view::tests::{api, at, decision};

const ROOM: Room = Room { fine: FINE_POINTS, coarse: COARSE_POINTS };

#[expect(clippy::unnecessary_wraps, reason = "as it is taken")]
fn seen(current: u32, ready: u32) -> Option<Seen> {
    Some(Seen { current, ready })
}

fn take(series: &mut Series, seconds: i64, current: u32, desired: u32) {
    series.take(&decision(seconds, current, desired), seen(current, current), None, ROOM);
}

fn seconds(answer: &Answer) -> Vec<i64> {
    answer.times.iter().map(|time| (time.as_millis() - at(0).as_millis()) / 1000).collect()
}

fn hour(series: &Series, until: i64) -> Answer {
    series.answer(api(), at(until - 3_600), at(until), None)
}

#[test]
fn evaluations_that_change_nothing_are_thinned_and_changes_are_all_kept() {
    let mut series = Series::default();
    for second in 0..100 {
        take(&mut series, second, 3, if (50..53).contains(&second) { 4 } else { 3 });
    }
    let answer = hour(&series, 100);
    let kept = seconds(&answer);
    assert!([50, 53, 99].iter().all(|change| kept.contains(change)), "the changes and the newest are kept: {kept:?}");
    assert!(kept.len() < 30, "{kept:?}");
    assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= 6), "{kept:?}");
    for (second, desired) in kept.iter().zip(&answer.replicas.desired) {
        assert_eq!(*desired, Some(if (50..53).contains(second) { 4 } else { 3 }), "each point is an evaluation that took place");
    }
}

/// A count holds until the next point: one that changed in between would be shown wrong for minutes.
#[test]
fn in_a_day_too_every_change_of_a_count_is_kept() {
    let mut series = Series::default();
    for second in 0..600 {
        series.take(&decision(second, 20, 20), seen(20, if second < 100 { 13 } else { 20 }), None, ROOM);
    }
    let day = series.answer(api(), at(600 - 86_400), at(600), None);
    let ready: Vec<(i64, u32)> = seconds(&day).into_iter().zip(day.replicas.ready.iter().flatten().copied()).collect();
    assert!(ready.contains(&(100, 20)), "{ready:?}");
}

#[test]
fn where_no_evaluation_is_known_there_is_a_gap_and_no_point() {
    let mut series = Series::default();
    for second in [0, 60, 120, 600, 660] {
        take(&mut series, second, 3, 5);
    }
    let answer = hour(&series, 700);
    assert_eq!(seconds(&answer), [0, 60, 120, 120, 600, 660], "from a millisecond after the last known one on");
    assert_eq!(answer.replicas.desired, [Some(5), Some(5), Some(5), None, Some(5), Some(5)]);
    assert_eq!(answer.metrics[0].value[3], None);
    assert_eq!(answer.metrics[0].target[3], None);
}

#[test]
fn what_has_no_value_has_none_whatever_stood_before() {
    let mut series = Series::default();
    take(&mut series, 0, 3, 5);
    let answer = hour(&series, 10);
    let queue = answer.metrics.iter().find(|metric| metric.name.as_str() == "queue_depth").unwrap();
    assert_eq!((queue.value[0], queue.target[0], queue.status[0]), (None, Some(100.0), Some(MetricStatus::Stale)), "stale is not zero");
}

#[test]
fn the_same_decision_by_two_ways_is_one_point_in_any_order() {
    let mut series = Series::default();
    for (second, live) in [(60, true), (0, false), (60, false), (30, false), (0, false)] {
        series.take(&decision(second, 3, 5), seen(3, 3).filter(|_| live), None, ROOM);
    }
    let answer = hour(&series, 100);
    assert_eq!(seconds(&answer), [0, 30, 60]);
    assert_eq!(answer.replicas.ready, [None, None, Some(3)], "of what was written down it is not known who was ready");
}

/// Advice is decided against the count that would stand: the chart's current is what stands.
#[test]
fn of_advice_the_current_count_is_the_observed_one() {
    let mut series = Series::default();
    let advice = |second| {
        let mut decision = decision(second, 12, 14);
        decision.advised = true;
        decision
    };
    series.take(&advice(0), None, None, ROOM);
    series.take(&advice(60), seen(3, 3), None, ROOM);
    // The same one as it was written down.
    series.take(&advice(60), None, None, ROOM);
    let replicas = hour(&series, 100).replicas;
    assert_eq!(replicas.current, [None, Some(3)], "of what was written down it is not known what was observed");
    assert_eq!(replicas.desired, [Some(14), Some(14)]);
}

#[test]
fn memory_is_bounded_and_a_metric_that_is_gone_goes() {
    let room = Room { fine: 20, coarse: 20 };
    let mut series = Series::default();
    for second in 0..200 {
        let mut decision = decision(second * 10, 3, 3 + u32::try_from(second % 2).unwrap());
        if second > 100 {
            decision.metrics.truncate(1);
        }
        series.take(&decision, seen(3, 3), None, room);
    }
    let answer = hour(&series, 2_000);
    assert_eq!((answer.times.len(), answer.metrics.len()), (20, 1));
    assert_eq!(series.aims.len(), 1);
    assert!(Room::of(1, 5) == ROOM && Room::of(1_000, 5) == ROOM, "a thousand targets have an hour at 5 s and a day at 5 min");
    let crowd = Room::of(100_000, 5);
    assert!((MIN_POINTS..30).contains(&crowd.fine) && crowd.coarse >= MIN_POINTS, "{crowd:?}");
}

#[test]
fn a_clock_that_was_set_back_takes_what_was_remembered_as_later_with_it() {
    let mut series = Series::default();
    for second in [0, 60, 3_000, 3_060, 100] {
        take(&mut series, second, 3, 5);
    }
    assert_eq!(seconds(&hour(&series, 3_100)), [0, 60, 100]);
}

#[test]
fn a_day_comes_from_the_coarse_ring() {
    let mut series = Series::default();
    for minute in 0..3_000 {
        take(&mut series, minute * 60, 3, 3);
    }
    let day = series.answer(api(), at(3_000 * 60 - 86_400), at(3_000 * 60), None);
    assert_eq!(day.resolution_ms, 300_000);
    assert!((200..=COARSE_POINTS).contains(&day.times.len()), "{}", day.times.len());
    assert!(day.replicas.desired.iter().all(Option::is_some), "5 min between points are no gap there");
}
