//! Every acknowledged sample is in exactly one pane of each of its targets, and is there when a mark says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use loadline::model::{Amount, InstanceName, Kind, Mark, MetricName, Part, Sample, SampleBatch, Sketch, TargetId, Timestamp};

use super::super::scenario::Millis;
use super::Violation;

/// A sample further ahead of its record than this is refused.
const FUTURE: Duration = Duration::from_secs(30);

const INVARIANT: &str = "every acknowledged sample is in exactly one pane";
const MARKS: &str = "what a mark says is in the log is there";

type PaneOf = (TargetId, MetricName, InstanceName, Timestamp);

/// How many samples a pane holds (the repetition of a message that its producer numbered counts once), how many of them
/// must have been seen by the marks, how many were, and when the last of them was seen in the log; and what they are together.
#[derive(Default)]
struct Counts {
    expected: i64,
    due: i64,
    seen: i64,
    last: Millis,
    sent: Together,
    came: Together,
}

/// What samples are together. A mean, a rate, a peak: all that is measured comes of these.
#[derive(Debug, Default, PartialEq, Eq)]
struct Together {
    sum: Amount,
    /// `None` where there is none.
    max: Option<Amount>,
    /// The newest one's time, and the largest value of that time.
    last: Option<(Timestamp, Amount)>,
    /// The newest one's time and the counts of its buckets, of a histogram.
    buckets: Option<(Timestamp, Vec<i64>)>,
}

impl Together {
    fn add(&mut self, sum: Amount, max: Amount, last: (Timestamp, Amount)) {
        self.sum = self.sum + sum;
        self.max = self.max.max(Some(max));
        self.last = self.last.max(Some(last));
    }

    fn add_buckets(&mut self, at: Timestamp, counts: &[i64]) {
        self.buckets = self.buckets.take().max(Some((at, counts.to_vec())));
    }
}

/// How many observations are in each bin of a distribution, of all instances together: bin `i` ends at γ^i, with γ = 1.01 / 0.99.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bins(BTreeMap<i32, i64>);

impl Bins {
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm of what is measured is small")]
    fn add(&mut self, value: f64) {
        if value > 0.0 {
            *self.0.entry((value.ln() / (1.01_f64 / 0.99).ln()).ceil() as i32).or_default() += 1;
        }
    }

    /// Adds those of a pane, as they are written.
    fn add_written(&mut self, sketch: &Sketch) {
        let written = serde_json::to_value(sketch).unwrap_or_default();
        for bin in written["bins"].as_array().into_iter().flatten() {
            if let (Some(index), Some(count)) = (bin[0].as_i64().and_then(|index| i32::try_from(index).ok()), bin[1].as_i64()) {
                *self.0.entry(index).or_default() += count;
            }
        }
    }
}

pub(super) struct Panes {
    pane: Duration,
    /// Their places in `counts`.
    places: BTreeMap<PaneOf, usize>,
    counts: Vec<Counts>,
    /// Of each pane of a distribution, and when the last sample of it was seen: as it was sent, and as it came.
    bins: BTreeMap<(TargetId, MetricName, Timestamp), (Millis, Bins, Bins)>,
    messages: BTreeSet<MessageOf>,
    acknowledged: BTreeSet<MessageOf>,
    sources: BTreeMap<u32, Source>,
    /// Samples may have been lost, or times were set back: what a mark says is not held against it.
    unsure: bool,
}

/// A source partition.
#[derive(Default)]
struct Source {
    /// Up to when its marks say that all is in the log, as of the last look.
    marked: Option<Timestamp>,
    /// The same in each partition of signals, of which one may lie behind an open transaction; as of now.
    marks: BTreeMap<u32, Timestamp>,
    /// What came since: when, and into which panes.
    unmarked: VecDeque<(Timestamp, Vec<usize>)>,
}

impl Panes {
    pub(super) fn new(pane: Duration) -> Self {
        let (places, counts, sources) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Panes { pane, places, counts, bins: BTreeMap::new(), messages: BTreeSet::new(), acknowledged: BTreeSet::new(), sources, unsure: false }
    }

    /// From here on samples may be lost, or a time comes again.
    pub(super) fn unsure(&mut self) {
        self.unsure = true;
        self.sources.clear();
    }

    pub(super) fn acknowledged(&mut self, batch: &SampleBatch) {
        self.acknowledged.extend(message_of(batch));
    }

    /// A message that stands in partition `source` of `metrics`.
    pub(super) fn record(&mut self, batch: &SampleBatch, source: u32, at: Timestamp, now: Millis) -> Result<(), Violation> {
        if let Some(marked) = self.sources.get(&source).and_then(|source| source.marked).filter(|marked| *marked > at) {
            return Err(Violation::new(MARKS, format!("source {source} said that all up to {marked} is in, and a record of {at} could not be read yet")));
        }
        let mut panes = Vec::new();
        let first = message_of(batch).is_none_or(|message| self.messages.insert(message));
        for sample in batch.samples.iter().filter(|sample| is_taken(sample, at)) {
            for target in &sample.targets {
                let pane = (target.clone(), sample.metric.clone(), sample.instance.clone(), sample.time.window_start(self.pane));
                let place = *self.places.entry(pane).or_insert(self.counts.len());
                if place == self.counts.len() {
                    self.counts.push(Counts::default());
                }
                self.counts[place].last = now;
                if let (true, Ok(value)) = (first, Amount::from_f64(sample.value)) {
                    self.counts[place].expected += 1;
                    self.counts[place].sent.add(value, value, (sample.time, value));
                    if let Some(histogram) = &sample.histogram {
                        self.counts[place].sent.add_buckets(sample.time, &histogram.counts);
                    }
                    if sample.kind == Kind::Distribution {
                        let of = (target.clone(), sample.metric.clone(), sample.time.window_start(self.pane));
                        let (last, sent, _) = self.bins.entry(of).or_default();
                        *last = now;
                        sent.add(sample.value);
                    }
                }
                panes.push(place);
            }
        }
        if first && !self.unsure && !panes.is_empty() {
            self.sources.entry(source).or_default().unmarked.push_back((at, panes));
        }
        Ok(())
    }

    /// "All of this source up to then is in the log."
    pub(super) fn mark(&mut self, mark: &Mark, partition: u32, at: Timestamp) {
        if !self.unsure {
            let marked = self.sources.entry(mark.source).or_default().marks.entry(partition).or_insert(Timestamp::MIN);
            *marked = mark.through.min(at).max(*marked);
        }
    }

    /// What the marks say, which stand in all of so many partitions of signals, is so.
    pub(super) fn marked(&mut self, partitions: u32) -> Result<(), Violation> {
        for (number, source) in &mut self.sources {
            let all = (0..partitions).map(|partition| source.marks.get(&partition).copied()).min().flatten();
            let Some(through) = all.filter(|through| source.marked.is_none_or(|marked| marked < *through)) else { continue };
            source.marked = Some(through);
            let marked = source.unmarked.partition_point(|(at, _)| *at < through);
            let marked: Vec<usize> = source.unmarked.drain(..marked).flat_map(|(_, panes)| panes).collect();
            for place in &marked {
                self.counts[*place].due += 1;
            }
            if let Some(place) = marked.into_iter().find(|place| self.counts[*place].seen < self.counts[*place].due) {
                let of = self.places.iter().find(|(_, of)| **of == place).map(|(of, _)| of);
                let Counts { due, seen, .. } = self.counts[place];
                return Err(Violation::new(MARKS, format!("source {number} said that all up to {through} is in, and {of:?} has {seen} samples of {due}")));
            }
        }
        Ok(())
    }

    pub(super) fn part(&mut self, part: &Part) -> Result<(), Violation> {
        for pane in &part.panes {
            if let Some(sketch) = &pane.sketch {
                self.bins.entry((part.target.clone(), pane.metric.clone(), pane.start)).or_default().2.add_written(sketch);
            }
            for (instance, reading) in &pane.instances {
                let of = (part.target.clone(), pane.metric.clone(), instance.clone(), pane.start);
                let counts = self.places.get(&of).and_then(|place| self.counts.get_mut(*place));
                let (seen, expected) = counts.map_or((reading.count, 0), |counts| {
                    counts.seen += reading.count;
                    counts.came.add(reading.sum, reading.max, (reading.last_at, reading.last));
                    if let Some(histogram) = &reading.histogram {
                        counts.came.add_buckets(reading.last_at, &histogram.counts);
                    }
                    (counts.seen, counts.expected)
                });
                if seen > expected {
                    return Err(Violation::new(INVARIANT, format!("{of:?} has {seen} samples, and {expected} were sent")));
                }
            }
        }
        Ok(())
    }

    /// Nothing is missing.
    pub(super) fn all_there(&self, now: Millis) -> Result<(), Violation> {
        if let Some(message) = self.acknowledged.difference(&self.messages).next() {
            return Err(Violation::new(INVARIANT, format!("message {message:?} was acknowledged, and is not in the log")));
        }
        // What came last may still be held.
        let held = Millis::try_from(self.pane.as_millis()).unwrap_or(Millis::MAX) * 2 + 5_000;
        for (of, place) in &self.places {
            let Counts { expected, seen, last, sent, came, .. } = &self.counts[*place];
            if *last >= now - held {
                continue;
            }
            if seen != expected {
                return Err(Violation::new(INVARIANT, format!("{of:?} has {seen} samples, and {expected} were sent")));
            }
            if came != sent {
                return Err(Violation::new(INVARIANT, format!("the samples of {of:?} are together {came:?}, and {sent:?} as they were sent")));
            }
        }
        for (of, (last, sent, came)) in &self.bins {
            if *last < now - held && came != sent {
                return Err(Violation::new(INVARIANT, format!("the bins of {of:?} are {came:?}, and {sent:?} as they were sent")));
            }
        }
        Ok(())
    }
}

/// A producer, its number, and the part of it.
type MessageOf = (String, i64, i64);

fn message_of(batch: &SampleBatch) -> Option<MessageOf> {
    Some((batch.producer.clone()?, batch.sequence?, batch.part))
}

fn is_taken(sample: &Sample, at: Timestamp) -> bool {
    sample.value.is_finite() && sample.time <= at + FUTURE
}
