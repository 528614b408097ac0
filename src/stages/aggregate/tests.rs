//! The promises one by one, and every refusal.

use super::*;
use crate::model::{Alert, AlertState, Amount, DeadLetter, HistogramValue, Kind, Part};
use crate::stages::{Effect, Route};

pub(super) fn stage() -> Aggregate {
    Aggregate { pane: Duration::from_secs(5), grace: Duration::from_millis(500), sources: 3, limits: Limits::default() }
}

/// Applies a record of partition 2 that was appended at `at`; it has no effect before a flush.
pub(super) fn read(stage: &Aggregate, state: &mut State, at: i64, samples: Vec<Sample>) {
    read_batch(stage, state, at, SampleBatch { samples, ..SampleBatch::default() });
}

fn read_batch(stage: &Aggregate, state: &mut State, at: i64, record: SampleBatch) {
    let mut effects = Effects::new();
    stage.apply(state, Input::Record(Located { partition: 2, offset: 7, at: time(at), record }), &mut effects);
    assert!(effects.is_empty());
}

pub(super) fn flush(stage: &Aggregate, state: &mut State, now: i64) -> Vec<Effect> {
    let mut effects = Effects::new();
    stage.apply(state, Input::Flush { partition: 2, now: time(now), read_through: time(now) }, &mut effects);
    effects.take()
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn gauge(target: &str, metric: &str, instance: &str, at: i64, value: f64) -> Sample {
    Sample {
        targets: vec![target.parse().unwrap()],
        metric: metric.parse().unwrap(),
        instance: instance.parse().unwrap(),
        time: time(at),
        kind: Kind::Gauge,
        value,
        histogram: None,
    }
}

fn of_kind(kind: Kind, value: f64) -> Sample {
    Sample { kind, ..gauge("a/D/x", "m", "i", 1_000, value) }
}

fn histogram(bounds: &[f64], counts: &[i64], count: i64, sum: f64) -> Sample {
    let histogram = Some(HistogramValue { bounds: bounds.to_vec(), counts: counts.to_vec(), count, sum });
    Sample { histogram, ..of_kind(Kind::Histogram, 0.0) }
}

/// What a flush had to say, by type.
#[derive(Default)]
struct Said {
    parts: Vec<Part>,
    marks: Vec<Mark>,
    letters: Vec<DeadLetter>,
    alerts: Vec<Alert>,
}

fn said(effects: Vec<Effect>) -> Said {
    let mut said = Said::default();
    for effect in effects {
        match effect.message {
            Message::Signal(Signal::Part(part)) => {
                assert_eq!(effect.route, Route::Key(part.target.to_string()));
                assert_eq!(said.marks, [], "a mark follows all parts");
                said.parts.push(part);
            }
            Message::Signal(Signal::Mark(mark)) => {
                assert_eq!(effect.route, Route::EveryPartition);
                said.marks.push(mark);
            }
            Message::DeadLetter(letter) => said.letters.push(letter),
            Message::Alert(alert) => said.alerts.push(alert),
            other => panic!("{other:?}"),
        }
    }
    said
}

#[test]
fn a_flush_appends_one_part_a_target_and_then_the_mark() {
    let (stage, mut state) = (stage(), State::default());
    let samples = vec![
        gauge("b/D/y", "cpu", "", 4_000, 1.0),
        gauge("a/D/x", "rps", "i", 5_000, 2.0),
        gauge("a/D/x", "cpu", "i", 9_999, 3.0),
        gauge("a/D/x", "cpu", "i", 1, 4.0),
    ];
    read(&stage, &mut state, 9_999, samples);
    let said = said(flush(&stage, &mut state, 10_500));
    let shape: Vec<_> = said
        .parts
        .iter()
        .map(|p| (p.target.as_str(), p.source, p.panes.iter().map(|p| (p.metric.as_str(), p.start.as_millis(), p.end.as_millis())).collect::<Vec<_>>()))
        .collect();
    assert_eq!(shape, [("a/D/x", 2, vec![("cpu", 0, 5_000), ("cpu", 5_000, 10_000), ("rps", 5_000, 10_000)]), ("b/D/y", 2, vec![("cpu", 0, 5_000)])]);
    assert_eq!(said.marks, [Mark { source: 2, of: 3, through: time(10_000), pane_ms: 5_000, records: 1, late: 0, rejected: 0, repeated: 0 }]);
}

#[test]
fn a_flush_without_samples_marks_all_the_same() {
    let said = said(flush(&stage(), &mut State::default(), 10_500));
    assert!(said.parts.is_empty());
    assert_eq!(said.marks[0].through, time(10_000));
}

/// Records of later times may still come, whatever this process's clock says.
#[test]
fn a_clock_that_is_ahead_of_the_logs_marks_no_more_than_was_read() {
    let (stage, mut state) = (stage(), State::default());
    let mut through = |now: i64, read_through: i64| {
        let mut effects = Effects::new();
        stage.apply(&mut state, Input::Flush { partition: 2, now: time(now), read_through: time(read_through) }, &mut effects);
        said(effects.take()).marks[0].through
    };
    assert_eq!(through(14_500, 10_500), time(10_500));
    assert_eq!(through(20_000, 19_700), time(19_500), "a clock that is ahead by less than the grace costs nothing");
}

#[test]
fn a_flush_empties_the_state() {
    let (stage, mut state) = (stage(), State::default());
    read(&stage, &mut state, 2_000, vec![gauge("a/D/x", "cpu", "i", 1_000, f64::NAN), gauge("a/D/x", "cpu", "i", 1_000, 1.0)]);
    flush(&stage, &mut state, 5_500);
    let said = said(flush(&stage, &mut state, 5_600));
    assert!(said.parts.is_empty() && said.letters.is_empty());
    assert_eq!(said.marks, [Mark { source: 2, of: 3, through: time(5_100), pane_ms: 5_000, records: 0, late: 0, rejected: 0, repeated: 0 }]);
}

#[test]
fn a_sample_counts_for_each_of_its_targets_once() {
    let (stage, mut state) = (stage(), State::default());
    let targets = ["a/D/x", "b/D/y", "a/D/x"].map(|t| t.parse().unwrap()).to_vec();
    read(&stage, &mut state, 1_000, vec![Sample { targets, ..gauge("a/D/x", "depth", "", 1_000, 7.0) }]);
    let said = said(flush(&stage, &mut state, 5_500));
    let counts: Vec<_> = said.parts.iter().map(|p| (p.target.as_str(), p.panes[0].instances[""].count)).collect();
    assert_eq!(counts, [("a/D/x", 1), ("b/D/y", 1)]);
}

#[test]
fn a_late_sample_is_a_part_of_its_own_pane_and_is_counted() {
    let (stage, mut state) = (stage(), State::default());
    flush(&stage, &mut state, 10_500);
    let samples = vec![gauge("a/D/x", "cpu", "i", 4_999, 1.0), gauge("a/D/x", "cpu", "i", 9_999, 1.0), gauge("a/D/x", "cpu", "i", 10_000, 1.0)];
    read(&stage, &mut state, 10_600, samples);
    let said = said(flush(&stage, &mut state, 15_500));
    assert_eq!(said.parts[0].panes.iter().map(|p| p.start.as_millis()).collect::<Vec<_>>(), [0, 5_000, 10_000]);
    assert_eq!((said.marks[0].late, said.marks[0].rejected), (2, 0));
}

#[test]
fn a_restart_begins_through_anew() {
    let stage = stage();
    let mut state = State::default();
    flush(&stage, &mut state, 20_500);
    assert_eq!(said(flush(&stage, &mut State::default(), 10_500)).marks[0].through, time(10_000));
    assert_eq!(said(flush(&stage, &mut state, 10_500)).marks[0].through, time(20_000));
}

#[test]
fn a_repeated_message_is_dropped_within_a_flush_and_after_it_and_after_a_restart() {
    let (stage, mut state) = (stage(), State::default());
    let batch = |producer: Option<&str>, sequence| SampleBatch {
        producer: producer.map(str::to_owned),
        sequence,
        part: 0,
        samples: vec![Sample { kind: Kind::Delta, ..gauge("a/D/x", "sold", "", 1_000, 1.0) }],
        unread: 0,
    };
    let deliveries = [
        (Some("p"), Some(5)),
        (Some("p"), Some(5)),
        (Some("p"), Some(4)),
        (Some("p"), Some(6)),
        (Some("q"), Some(5)),
        (Some("p"), None),
        (None, Some(5)),
        (None, Some(5)),
    ];
    for (producer, sequence) in deliveries {
        read_batch(&stage, &mut state, 1_000, batch(producer, sequence));
    }
    let first = said(flush(&stage, &mut state, 5_500));
    assert_eq!(first.parts[0].panes[0].instances[""].sum, Amount::from_units(6));
    assert_eq!((first.marks[0].records, first.marks[0].rejected, first.marks[0].repeated), (8, 0, 2));
    let mut restarted = State::default();
    for key in crate::stages::Snapshot::take_changed(&mut state) {
        let bytes = crate::stages::Snapshot::encode(&state, &key, 8).unwrap();
        crate::stages::Snapshot::restore(&mut restarted, &key, &bytes).unwrap();
    }
    for state in [&mut state, &mut restarted] {
        read_batch(&stage, state, 6_000, batch(Some("p"), Some(6)));
        let again = said(flush(&stage, state, 10_500));
        assert_eq!((again.parts.len(), again.marks[0].repeated), (0, 1));
        read_batch(&stage, state, 11_000, batch(Some("p"), Some(7)));
        assert_eq!(said(flush(&stage, state, 15_500)).parts.len(), 1);
    }
}

/// A producer that begins at 1 again, or numbers in parallel, loses what it sends; people are told of which, once in a while.
#[test]
fn a_sequence_that_runs_back_is_told_and_a_plain_repetition_is_not() {
    let (stage, mut state) = (stage(), State::default());
    let mut send = |at, producer: &str, sequence, samples| {
        let samples = vec![gauge("a/D/x", "m", "i", at, 1.0); samples];
        read_batch(&stage, &mut state, at, SampleBatch { producer: Some(producer.to_owned()), sequence: Some(sequence), part: 0, samples, unread: 0 });
        said(flush(&stage, &mut state, at + 1))
    };
    assert!([(17, 1), (17, 2)].into_iter().all(|(sequence, samples)| send(1_000, "shop\n1", sequence, samples).alerts.is_empty()));
    let [alert] = &send(2_000, "shop\n1", 3, 2).alerts[..] else { panic!("it is told") };
    assert_eq!((alert.name.as_str(), alert.subject.as_str(), alert.state), ("SequenceRanBack", "metrics/2", AlertState::Event));
    assert_eq!(
        alert.message,
        "producer \"shop\u{fffd}1\" sent sequence 3 after 17: their 2 samples are dropped as repetitions, which is right where it was a copy that came \
         late; else a producer sends one request after the other, and after its restart counts on or takes a new name"
    );
    for at in [3_000, 301_000] {
        let again = send(at, "shop\n1", 4, 5);
        assert_eq!((again.alerts.len(), again.marks[0].repeated), (0, 5));
    }
    let [alert] = &send(302_001, "other", 1, 1).alerts[..] else { panic!("it is told again, of those that came since") };
    assert!(alert.message.contains("sent sequence 4 after 17, and 1 more messages were such: their 10 samples"), "{}", alert.message);
}

/// Nothing is known of them but that they were there.
#[test]
fn samples_that_could_not_be_read_are_counted_with_those_that_were_not_taken() {
    let (stage, mut state) = (stage(), State::default());
    let samples = vec![gauge("a/D/x", "m", "i", 1_000, 1.0), of_kind(Kind::Gauge, f64::NAN)];
    read_batch(&stage, &mut state, 1_000, SampleBatch { samples, unread: 3, ..SampleBatch::default() });
    let said = said(flush(&stage, &mut state, 5_500));
    assert_eq!((said.parts.len(), said.marks[0].rejected), (1, 4));
}

#[test]
fn what_cannot_be_taken_is_counted_and_kept_with_its_reason() {
    let cases = [
        (of_kind(Kind::Gauge, f64::NAN), "value NaN is not a finite number"),
        (of_kind(Kind::Counter, f64::INFINITY), "value inf is not a finite number"),
        (of_kind(Kind::Distribution, f64::NEG_INFINITY), "value -inf is not a finite number"),
        (of_kind(Kind::Gauge, 1.1e18), "value 1100000000000000000 is beyond ±10^18 base units"),
        (of_kind(Kind::Delta, -1.1e18), "value -1100000000000000000 is beyond ±10^18 base units"),
        (Sample { time: time(32_001), ..of_kind(Kind::Gauge, 1.0) }, "time 1970-01-01T00:00:32.001Z is more than 30 s after 1970-01-01T00:00:02.000Z"),
        (Sample { targets: vec![], ..of_kind(Kind::Gauge, 1.0) }, "targets is empty"),
        (of_kind(Kind::Distribution, -0.1), "value -0.1 of a Distribution is negative"),
        (of_kind(Kind::Histogram, 1.0), "histogram is missing"),
        (histogram(&[1.0, 1.0], &[0, 0, 0], 0, 0.0), "histogram bounds 1 and 1 do not ascend"),
        (histogram(&[2.0, 1.0], &[0, 0, 0], 0, 0.0), "histogram bounds 2 and 1 do not ascend"),
        (histogram(&[f64::INFINITY], &[0, 0], 0, 0.0), "histogram bound inf is not finite"),
        (histogram(&[1.0], &[0], 0, 0.0), "histogram has 1 counts for 1 bounds"),
        (histogram(&[1.0], &[0, 0, 0], 0, 0.0), "histogram has 3 counts for 1 bounds"),
        (histogram(&[1.0], &[1, -1], 0, 0.0), "histogram count -1 is negative"),
        (histogram(&[1.0], &[1, 1], -2, 0.0), "histogram count -2 is negative"),
        (histogram(&[1.0], &[1, 1], 2, f64::NAN), "histogram sum NaN is not a finite number"),
        (histogram(&[1.0], &[1, 1], 2, 2e18), "histogram sum 2000000000000000000 is beyond"),
        (histogram(&(0..512).map(f64::from).collect::<Vec<_>>(), &[0; 513], 0, 0.0), "histogram has 513 buckets; at most 512 are taken"),
    ];
    for (sample, reason) in cases {
        let (stage, mut state) = (stage(), State::default());
        read(&stage, &mut state, 2_000, vec![sample]);
        let said = said(flush(&stage, &mut state, 5_500));
        assert!(said.parts.is_empty(), "{reason}");
        assert_eq!((said.marks[0].rejected, said.marks[0].records), (1, 1), "{reason}");
        let [letter] = said.letters.as_slice() else { panic!("{reason}: {:?}", said.letters) };
        assert!(letter.reason.contains(reason), "{} lacks {reason}", letter.reason);
        assert_eq!((letter.topic.as_str(), letter.partition, letter.offset), ("metrics", 2, 7));
        assert!(letter.record.starts_with(b"metric=m instance=i time="));
    }
}

#[test]
fn the_edges_of_what_can_be_taken_are_taken() {
    let samples = [
        of_kind(Kind::Gauge, 1e18),
        of_kind(Kind::Gauge, -1e18),
        Sample { time: time(32_000), ..of_kind(Kind::Gauge, 1.0) },
        Sample { time: Timestamp::MIN, ..of_kind(Kind::Gauge, 1.0) },
        of_kind(Kind::Distribution, 0.0),
        of_kind(Kind::Distribution, -0.0),
        histogram(&[], &[3], 3, -1.0),
        histogram(&[-1.0, 0.0, 1.0], &[0, 0, 0, 0], 0, 0.0),
    ];
    for sample in samples {
        let (stage, mut state) = (stage(), State::default());
        read(&stage, &mut state, 2_000, vec![sample.clone()]);
        let said = said(flush(&stage, &mut state, 5_500));
        assert_eq!((said.parts.len(), said.marks[0].rejected), (1, 0), "{sample:?}");
    }
}

#[test]
fn the_first_kind_of_a_metric_in_a_pane_stays() {
    let (stage, mut state) = (stage(), State::default());
    read(&stage, &mut state, 6_000, vec![of_kind(Kind::Gauge, 1.0), of_kind(Kind::Delta, 2.0), Sample { time: time(5_000), ..of_kind(Kind::Delta, 4.0) }]);
    let said = said(flush(&stage, &mut state, 10_500));
    let panes: Vec<_> = said.parts[0].panes.iter().map(|p| (p.kind, p.instances["i"].sum)).collect();
    assert_eq!(panes, [(Kind::Gauge, Amount::from_units(1)), (Kind::Delta, Amount::from_units(4))]);
    assert_eq!(said.marks[0].rejected, 1);
    assert!(said.letters[0].reason.contains("kind Delta of metric m differs from Gauge"), "{}", said.letters[0].reason);
}

#[test]
fn beyond_a_limit_samples_are_counted_and_one_alert_fires_until_it_holds_again() {
    let cases: [(&str, Limits, [Sample; 2]); 3] = [
        ("TooManyTargets", Limits { targets: 1, ..Limits::default() }, [gauge("a/D/x", "m", "i", 0, 1.0), gauge("a/D/y", "m", "i", 0, 1.0)]),
        ("TooManyMetrics", Limits { metrics: 1, ..Limits::default() }, [gauge("a/D/x", "m", "i", 0, 1.0), gauge("a/D/x", "n", "i", 0, 1.0)]),
        ("TooManyInstances", Limits { instances: 1, ..Limits::default() }, [gauge("a/D/x", "m", "i", 0, 1.0), gauge("a/D/x", "m", "j", 0, 1.0)]),
    ];
    for (name, limits, [within, beyond]) in cases {
        let (stage, mut state) = (Aggregate { limits, ..stage() }, State::default());
        let of = beyond.targets[0].clone();
        read(&stage, &mut state, 1_000, vec![within.clone(), beyond.clone(), beyond.clone(), within]);
        let first = said(flush(&stage, &mut state, 5_500));
        assert_eq!(first.marks[0].rejected, 2, "{name}");
        assert_eq!(first.parts.iter().flat_map(|p| &p.panes).map(|p| p.instances["i"].count).collect::<Vec<_>>(), [2], "{name}");
        let [alert] = first.alerts.as_slice() else { panic!("{name}: {:?}", first.alerts) };
        assert_eq!((alert.name.as_str(), alert.state, alert.target.clone()), (name, AlertState::Firing, (name != "TooManyTargets").then_some(of)));
        assert!(alert.message.contains("more than 1 "), "{}", alert.message);

        assert!(said(flush(&stage, &mut state, 60_000)).alerts.is_empty(), "{name}: told once");
        let resolved = said(flush(&stage, &mut state, 301_000)).alerts;
        assert_eq!(resolved.iter().map(|a| (a.name.as_str(), a.state)).collect::<Vec<_>>(), [(name, AlertState::Resolved)]);
    }
}

#[test]
fn ten_letters_a_second_are_written_for_each_reason() {
    let (stage, mut state) = (stage(), State::default());
    let bad = |n| std::iter::repeat_with(|| of_kind(Kind::Gauge, f64::NAN)).take(n).chain([of_kind(Kind::Gauge, 2e18)]).collect::<Vec<_>>();
    read(&stage, &mut state, 1_000, bad(8));
    assert_eq!(said(flush(&stage, &mut state, 1_500)).letters.len(), 9);
    read(&stage, &mut state, 1_999, bad(8));
    read(&stage, &mut state, 2_000, bad(12));
    let said = said(flush(&stage, &mut state, 5_500));
    assert_eq!(said.letters.len(), (2 + 1) + (10 + 1));
    assert_eq!(said.marks[0].rejected, 9 + 13);
}

#[test]
fn a_part_too_large_for_a_record_is_split_by_instance_and_loses_nothing() {
    let (stage, mut state) = (stage(), State::default());
    let name = |n: usize| format!("{n:0>250}");
    for metric in ["cpu", "latency", "memory"] {
        let samples = (0..2_000)
            .map(|n| {
                let kind = if metric == "latency" { Kind::Distribution } else { Kind::Gauge };
                Sample { kind, ..gauge("a/D/x", metric, &name(n), 1_000, n as f64) }
            })
            .collect();
        read(&stage, &mut state, 1_000, samples);
    }
    let said = said(flush(&stage, &mut state, 5_500));
    assert!(said.parts.len() >= 4, "{} parts", said.parts.len());
    for part in &said.parts {
        let bytes = serde_json::to_vec(part).unwrap().len();
        assert!(bytes < crate::log::MAX_RECORD_BYTES, "{bytes} bytes");
        assert!(part.panes.iter().all(|p| !p.instances.is_empty()));
    }
    let panes = || said.parts.iter().flat_map(|p| &p.panes);
    assert_eq!(panes().map(|p| p.instances.len()).sum::<usize>(), 6_000);
    assert_eq!(panes().filter_map(|p| p.sketch.as_ref()).map(crate::model::Sketch::count).collect::<Vec<_>>(), [2_000]);
}

#[test]
fn a_flush_is_due_at_a_panes_end_plus_grace() {
    let (stage, mut state) = (stage(), State::default());
    assert_eq!(stage.flush_at(&state, time(12_345)), Some(time(12_345)), "none has been");
    for (last, next) in [(12_345, 15_500), (15_499, 15_500), (15_500, 20_500), (15_501, 20_500)] {
        flush(&stage, &mut state, last);
        assert_eq!(stage.flush_at(&state, time(last)), Some(time(next)), "after {last}");
        assert_eq!(stage.flush_at(&state, time(99_999)), Some(time(next)), "the longer it waits, the more it is due");
    }
    assert_eq!(stage.flush_at(&state, time(9_000)), Some(time(9_000)), "the clock ran back");
}

#[test]
fn a_flush_is_wanted_behind_the_end_after_so_many_records_or_so_much_time() {
    let (stage, mut state) = (stage(), State::default());
    read(&stage, &mut state, 1_000, vec![]);
    read(&stage, &mut state, 1_999, vec![]);
    assert!(!stage.flushes_behind(&state));
    read(&stage, &mut state, 2_000, vec![]);
    assert!(stage.flushes_behind(&state) && !stage.is_full(&state));
    flush(&stage, &mut state, 2_000);
    (0..19_999).for_each(|_| read(&stage, &mut state, 2_000, vec![]));
    assert!(!stage.flushes_behind(&state));
    read(&stage, &mut state, 2_000, vec![]);
    assert!(stage.flushes_behind(&state));
}

#[test]
fn what_is_held_is_bounded_by_asking_for_a_flush() {
    let (stage, mut state) = (stage(), State::default());
    let mut panes = 0;
    // A producer that invents a new pane with every sample.
    while !stage.is_full(&state) && panes < 1_000_000 {
        read(&stage, &mut state, 1_000, vec![gauge("a/D/x", "m", "i", -5_000 * panes, 1.0)]);
        panes += 1;
    }
    assert!((100_000..1_000_000).contains(&panes), "{panes}");
    flush(&stage, &mut state, 5_500);
    assert!(!stage.is_full(&state));
}
