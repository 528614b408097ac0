//! Any order, any split, any restart: the merged parts are what a naive reading of the samples gives.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{flush, read, stage};
use super::*;
use crate::model::{Amount, HistogramReading, HistogramValue, Kind, Pane, Part, Reading, Sketch};

type Panes = BTreeMap<(String, String, Timestamp), Pane>;

const KINDS: [(&str, Kind); 5] =
    [("cpu", Kind::Gauge), ("requests", Kind::Counter), ("errors", Kind::Delta), ("latency", Kind::Distribution), ("sizes", Kind::Histogram)];

/// Few names, times and values, so that everything meets everything.
fn any_sample() -> impl Strategy<Value = Sample> {
    let targets = prop::sample::subsequence(vec!["a/D/x", "a/D/y", "b/D/x"], 1..=3);
    (targets, 0..KINDS.len(), 0..3_u8, 0..12_i64, -3..4_i64, prop::collection::vec(0..4_i64, 3)).prop_map(|(targets, kind, instance, time, value, counts)| {
        let (metric, kind) = KINDS[kind];
        let value = if kind == Kind::Distribution { value.unsigned_abs() as f64 } else { value as f64 / 10.0 };
        Sample {
            targets: targets.into_iter().map(|t| t.parse().unwrap()).collect(),
            metric: metric.parse().unwrap(),
            instance: if instance == 0 { String::new() } else { format!("i-{instance}") }.parse().unwrap(),
            time: Timestamp::from_millis(time * 1_700),
            kind,
            value,
            histogram: (kind == Kind::Histogram).then(|| HistogramValue {
                bounds: vec![0.1, 1.0],
                count: counts.iter().sum(),
                sum: counts.iter().sum::<i64>() as f64 / 4.0,
                counts,
            }),
        }
    })
}

/// What becomes of the records before the next sample.
#[derive(Debug, Clone, Copy)]
enum Cut {
    None,
    Record,
    Flush,
    Restart,
}

fn any_cut() -> impl Strategy<Value = Cut> {
    prop_oneof![4 => Just(Cut::None), 2 => Just(Cut::Record), 1 => Just(Cut::Flush), 1 => Just(Cut::Restart)]
}

/// Samples, the same in another order, and where to cut them.
fn any_delivery() -> impl Strategy<Value = (Vec<Sample>, Vec<Sample>, Vec<Cut>)> {
    prop::collection::vec(any_sample(), 0..40).prop_flat_map(|samples| {
        let cuts = prop::collection::vec(any_cut(), samples.len());
        (Just(samples.clone()), Just(samples).prop_shuffle(), cuts)
    })
}

fn parts(effects: Vec<crate::stages::Effect>) -> impl Iterator<Item = Part> {
    effects.into_iter().filter_map(|effect| if let Message::Signal(Signal::Part(part)) = effect.message { Some(part) } else { None })
}

/// Delivers samples cut as told, and merges all parts.
fn deliver(samples: &[Sample], cuts: &[Cut]) -> Panes {
    let stage = stage();
    let (mut state, mut batch, mut all) = (State::default(), Vec::new(), Vec::new());
    for (sample, cut) in samples.iter().zip(cuts) {
        batch.push(sample.clone());
        if !matches!(cut, Cut::None) {
            read(&stage, &mut state, 60_000, std::mem::take(&mut batch));
        }
        if matches!(cut, Cut::Flush | Cut::Restart) {
            all.extend(parts(flush(&stage, &mut state, 60_000)));
        }
        if matches!(cut, Cut::Restart) {
            state = State::default();
        }
    }
    read(&stage, &mut state, 60_000, batch);
    all.extend(parts(flush(&stage, &mut state, 60_000)));
    let mut panes = Panes::new();
    for part in all {
        for pane in part.panes {
            let key = (part.target.to_string(), pane.metric.to_string(), pane.start);
            match panes.get_mut(&key) {
                Some(held) => held.merge(pane),
                None => drop(panes.insert(key, pane)),
            }
        }
    }
    panes
}

/// The panes as their definition says, sample lists first.
fn reference(samples: &[Sample]) -> Panes {
    let mut lists: BTreeMap<(String, String, Timestamp), Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        let start = Timestamp::from_millis(sample.time.as_millis() / 5_000 * 5_000);
        for target in &sample.targets {
            lists.entry((target.to_string(), sample.metric.to_string(), start)).or_default().push(sample);
        }
    }
    lists.into_iter().map(|(key, list)| (key.clone(), reference_pane(key.2, &list))).collect()
}

fn reference_pane(start: Timestamp, samples: &[&Sample]) -> Pane {
    let kind = samples[0].kind;
    let mut instances: BTreeMap<_, Vec<&Sample>> = BTreeMap::new();
    let mut sketch = Sketch::default();
    for sample in samples {
        instances.entry(sample.instance.clone()).or_default().push(sample);
        sketch.add(sample.value);
    }
    Pane {
        metric: samples[0].metric.clone(),
        kind,
        start,
        end: start + Duration::from_secs(5),
        instances: instances.into_iter().map(|(name, list)| (name, reference_reading(kind, &list))).collect(),
        sketch: (kind == Kind::Distribution).then_some(sketch),
    }
}

fn reference_reading(kind: Kind, samples: &[&Sample]) -> Reading {
    let count = i64::try_from(samples.len()).unwrap();
    if kind == Kind::Histogram {
        let newest = samples.iter().map(|s| (s.time, reference_histogram(s))).max_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.order(&b.1))).unwrap();
        return Reading { count, last_at: newest.0, histogram: Some(Box::new(newest.1)), ..Reading::default() };
    }
    let amount = |s: &&Sample| Amount::from_f64(s.value).unwrap();
    let (last_at, last) = samples.iter().map(|s| (s.time, amount(s))).max().unwrap();
    Reading { count, sum: samples.iter().map(amount).sum(), max: samples.iter().map(amount).max().unwrap(), last, last_at, histogram: None }
}

fn reference_histogram(sample: &Sample) -> HistogramReading {
    let HistogramValue { bounds, counts, count, sum } = sample.histogram.clone().unwrap();
    HistogramReading { bounds, counts, count, sum: Amount::from_f64(sum).unwrap() }
}

proptest! {
    #[test]
    fn any_order_split_and_restart_give_the_same_panes((samples, shuffled, cuts) in any_delivery()) {
        prop_assert_eq!(deliver(&shuffled, &cuts), reference(&samples));
    }

    #[test]
    fn every_sample_that_can_be_taken_is_in_exactly_one_pane_of_each_of_its_targets(
        mut samples in prop::collection::vec(any_sample(), 0..40), broken in prop::collection::vec(any::<bool>(), 40), through in prop::option::of(0..30_000_i64),
    ) {
        let mut taken = 0;
        for (sample, broken) in samples.iter_mut().zip(broken) {
            if broken {
                sample.value = f64::NAN;
                sample.histogram = None;
            } else {
                taken += i64::try_from(sample.targets.len()).unwrap();
            }
        }
        let all: i64 = samples.iter().map(|s| i64::try_from(s.targets.len()).unwrap()).sum();
        let (stage, mut state) = (stage(), State::default());
        if let Some(through) = through {
            flush(&stage, &mut state, through);
        }
        read(&stage, &mut state, 60_000, samples);
        let effects = flush(&stage, &mut state, 60_000);
        let rejected: i64 = effects.iter().filter_map(|e| if let Message::Signal(Signal::Mark(mark)) = &e.message { Some(mark.rejected) } else { None }).sum();
        let counted: i64 = parts(effects).flat_map(|p| p.panes).flat_map(|p| p.instances.into_values()).map(|r| r.count).sum();
        prop_assert_eq!(counted, taken);
        prop_assert_eq!(rejected, all - taken);
    }

    #[test]
    fn through_runs_back_only_with_a_clock_that_is_set_back(nows in prop::collection::vec(0..200_000_i64, 1..20)) {
        let (stage, mut state) = (stage(), State::default());
        let mut last = Timestamp::MIN;
        for now in nows {
            for effect in flush(&stage, &mut state, now) {
                if let Message::Signal(Signal::Mark(mark)) = effect.message {
                    let complete = Timestamp::from_millis(now - 500);
                    let set_back = last > complete + Duration::from_secs(60);
                    prop_assert_eq!(mark.through, if set_back { complete } else { complete.max(last) });
                    last = mark.through;
                }
            }
        }
    }
}
