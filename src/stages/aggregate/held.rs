//! What is held between two flushes: flat tables, one for each kind of thing, linked by index.
//!
//! A reading is 64 bytes beside its key, and an entry of one table, whatever the shape of the installation:
//! many instances of one target, or many targets without instances. Names are interned; each is
//! held once. Hashing has no random state, and no order of a table reaches an output: a flush sorts.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::Hash;
use std::time::Duration;

use indexmap::map::Entry;
use indexmap::{Equivalent, IndexMap};
use rustc_hash::FxBuildHasher;

use super::Limits;
use super::check::{Measurement, Refusal};
use super::parts::Parts;
use crate::model::{Amount, HistogramReading, InstanceName, Kind, MetricName, Pane, Part, Reading, Sketch, TargetId, Timestamp};

type Table<K, V> = IndexMap<K, V, FxBuildHasher>;

/// Where a measurement belongs.
pub(super) struct Place<'a> {
    pub(super) target: &'a TargetId,
    pub(super) metric: &'a MetricName,
    pub(super) instance: &'a InstanceName,
    pub(super) kind: Kind,
    /// The start of its pane.
    pub(super) start: Timestamp,
    /// When it was measured.
    pub(super) time: Timestamp,
}

/// The panes since the last flush.
#[derive(Debug, Default)]
pub(super) struct Held {
    targets: Table<TargetId, Extent>,
    metrics: Table<OfTarget<MetricName>, ()>,
    instances: Table<OfTarget<InstanceName>, ()>,
    panes: Table<PaneKey, HeldPane>,
    readings: Table<ReadingKey, Numbers>,
    /// By the index of the reading.
    histograms: Table<u32, Box<HistogramReading>>,
    /// Where the last measurement went: samples of one thing mostly follow each other.
    recent: Recent,
    bytes: usize,
}

/// How many names a target has.
#[derive(Debug, Default)]
struct Extent {
    metrics: u32,
    instances: u32,
}

/// A name within a target.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfTarget<N> {
    target: u32,
    name: N,
}

/// The same, borrowed, for a look-up that clones nothing. Hashes as [`OfTarget`] does.
#[derive(Clone, Copy, Hash)]
struct Named<'a> {
    target: u32,
    name: &'a str,
}

impl<N: Borrow<str>> Equivalent<OfTarget<N>> for Named<'_> {
    fn equivalent(&self, key: &OfTarget<N>) -> bool {
        self.target == key.target && self.name == key.name.borrow()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PaneKey {
    metric: u32,
    start: Timestamp,
}

#[derive(Debug)]
struct HeldPane {
    kind: Kind,
    sketch: Option<Box<Sketch>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ReadingKey {
    pane: u32,
    instance: u32,
}

/// A [`Reading`] without its histogram.
#[derive(Debug)]
struct Numbers {
    count: i64,
    last_at: Timestamp,
    sum: Amount,
    max: Amount,
    last: Amount,
}

#[derive(Debug, Default, Clone, Copy)]
struct Recent {
    target: u32,
    metric: u32,
    instance: u32,
    pane: u32,
    reading: u32,
}

/// From this length on a table grows by an eighth, not to twice its length: beside 64-byte readings, slack
/// is what costs. Each entry is then moved some eight times instead of once, in large blocks.
const GROWS_GENTLY: usize = 1_024;

/// Makes room for one more entry.
fn make_room<K, V>(table: &mut Table<K, V>) {
    if table.len() >= GROWS_GENTLY && table.len() == table.capacity() {
        table.reserve_exact(table.len() / 8);
    }
}

/// What an entry of a table takes at the worst moment of its growth: key, value and hash, an eighth more,
/// and the index (8 bytes and a control byte a slot, at least 7 slots of 16 used after doubling).
const fn entry_bytes<K, V>() -> usize {
    (size_of::<K>() + size_of::<V>() + size_of::<u64>()) * 9 / 8 + 21
}

/// The counts in front of a name on the heap.
const NAME_HEAD: usize = 16;

/// The place of an entry in its table.
#[expect(clippy::cast_possible_truncation, reason = "2^32 entries would not fit into the memory that a flush is due at")]
fn index(place: usize) -> u32 {
    place as u32
}

impl Held {
    /// An estimate, rather above than below, of the memory that is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Folds one measurement into its reading. A refused one leaves no trace.
    pub(super) fn add(&mut self, limits: &Limits, place: &Place<'_>, measurement: &Measurement) -> Result<(), Refusal> {
        let target = self.find_target(place.target);
        let metric = target.and_then(|target| self.find_metric(target, place.metric));
        let instance = target.and_then(|target| self.find_instance(target, place.instance));
        if metric.is_none() || instance.is_none() {
            self.check_limits(limits, target, metric, instance)?;
        }
        let pane = metric.and_then(|metric| self.find_pane(PaneKey { metric, start: place.start }));
        if let Some((_, kind)) = pane
            && kind != place.kind
        {
            return Err(Refusal::KindConflict { metric: place.metric.clone(), kind: place.kind, first: kind });
        }

        let target = target.unwrap_or_else(|| self.insert_target(place.target));
        let metric = metric.unwrap_or_else(|| self.insert_metric(target, place.metric));
        let instance = instance.unwrap_or_else(|| self.insert_instance(target, place.instance));
        let pane = pane.map_or_else(|| self.insert_pane(PaneKey { metric, start: place.start }, place.kind), |(pane, _)| pane);
        self.recent = Recent { target, metric, instance, pane, ..self.recent };
        self.fold(ReadingKey { pane, instance }, place.time, measurement);
        Ok(())
    }

    fn check_limits(&self, limits: &Limits, target: Option<u32>, metric: Option<u32>, instance: Option<u32>) -> Result<(), Refusal> {
        let Some(target) = target else {
            let full = self.targets.len() >= limits.targets as usize;
            return if full { Err(Refusal::TooManyTargets { limit: limits.targets }) } else { Ok(()) };
        };
        let Some((_, extent)) = self.targets.get_index(target as usize) else { return Ok(()) };
        if metric.is_none() && extent.metrics >= limits.metrics {
            return Err(Refusal::TooManyMetrics { limit: limits.metrics });
        }
        if instance.is_none() && extent.instances >= limits.instances {
            return Err(Refusal::TooManyInstances { limit: limits.instances });
        }
        Ok(())
    }

    fn find_target(&self, name: &TargetId) -> Option<u32> {
        near(&self.targets, self.recent.target, |held| held == name).or_else(|| self.targets.get_index_of(name).map(index))
    }

    fn find_metric(&self, target: u32, name: &MetricName) -> Option<u32> {
        find_name(&self.metrics, self.recent.metric, Named { target, name: name.as_str() })
    }

    fn find_instance(&self, target: u32, name: &InstanceName) -> Option<u32> {
        find_name(&self.instances, self.recent.instance, Named { target, name: name.as_str() })
    }

    fn find_pane(&self, key: PaneKey) -> Option<(u32, Kind)> {
        let near = near(&self.panes, self.recent.pane, |held| *held == key);
        let place = near.or_else(|| self.panes.get_index_of(&key).map(index))?;
        self.panes.get_index(place as usize).map(|(_, pane)| (place, pane.kind))
    }

    fn insert_target(&mut self, name: &TargetId) -> u32 {
        make_room(&mut self.targets);
        self.bytes += entry_bytes::<TargetId, Extent>() + NAME_HEAD + name.as_str().len();
        index(self.targets.insert_full(name.clone(), Extent::default()).0)
    }

    fn insert_metric(&mut self, target: u32, name: &MetricName) -> u32 {
        make_room(&mut self.metrics);
        self.bytes += entry_bytes::<OfTarget<MetricName>, ()>() + NAME_HEAD + name.as_str().len();
        if let Some((_, extent)) = self.targets.get_index_mut(target as usize) {
            extent.metrics += 1;
        }
        index(self.metrics.insert_full(OfTarget { target, name: name.clone() }, ()).0)
    }

    fn insert_instance(&mut self, target: u32, name: &InstanceName) -> u32 {
        make_room(&mut self.instances);
        self.bytes += entry_bytes::<OfTarget<InstanceName>, ()>() + NAME_HEAD + name.as_str().len();
        if let Some((_, extent)) = self.targets.get_index_mut(target as usize) {
            extent.instances += 1;
        }
        index(self.instances.insert_full(OfTarget { target, name: name.clone() }, ()).0)
    }

    fn insert_pane(&mut self, key: PaneKey, kind: Kind) -> u32 {
        make_room(&mut self.panes);
        self.bytes += entry_bytes::<PaneKey, HeldPane>();
        index(self.panes.insert_full(key, HeldPane { kind, sketch: None }).0)
    }

    fn fold(&mut self, key: ReadingKey, time: Timestamp, measurement: &Measurement) {
        let amount = match measurement {
            Measurement::Number(amount) | Measurement::Observation(amount, _) => *amount,
            Measurement::Histogram(_) => Amount::ZERO,
        };
        let (reading, newer) = self.fold_amount(key, amount, time);
        self.recent.reading = reading;
        match measurement {
            Measurement::Number(_) => {}
            Measurement::Observation(_, value) => self.observe(key.pane, *value),
            Measurement::Histogram(histogram) => self.keep_newest(reading, newer, histogram),
        }
    }

    /// Adds an amount to its reading; the reading's place, and how the sample compares with its newest.
    fn fold_amount(&mut self, key: ReadingKey, amount: Amount, time: Timestamp) -> (u32, Ordering) {
        if let Some(place) = near(&self.readings, self.recent.reading, |held| *held == key)
            && let Some((_, numbers)) = self.readings.get_index_mut(place as usize)
        {
            return (place, numbers.add(amount, time));
        }
        make_room(&mut self.readings);
        match self.readings.entry(key) {
            Entry::Occupied(mut entry) => (index(entry.index()), entry.get_mut().add(amount, time)),
            Entry::Vacant(entry) => {
                self.bytes += entry_bytes::<ReadingKey, Numbers>();
                let place = index(entry.index());
                entry.insert(Numbers { count: 1, last_at: time, sum: amount, max: amount, last: amount });
                (place, Ordering::Greater)
            }
        }
    }

    fn observe(&mut self, pane: u32, value: f64) {
        /// A bin of a sketch, doubled for its growth; an observation needs at most one more.
        const BIN_BYTES: usize = 32;
        if let Some((_, pane)) = self.panes.get_index_mut(pane as usize) {
            self.bytes += BIN_BYTES;
            pane.sketch.get_or_insert_default().add(value);
        }
    }

    /// Keeps the newest histogram of a reading; of two at the same time the larger in their order.
    fn keep_newest(&mut self, reading: u32, newer: Ordering, histogram: &HistogramReading) {
        let own = self.histograms.get_mut(&reading);
        let replaces = match (newer, &own) {
            (Ordering::Greater, _) | (Ordering::Equal, None) => true,
            (Ordering::Equal, Some(own)) => histogram.order(own) == Ordering::Greater,
            (Ordering::Less, _) => false,
        };
        if !replaces {
            return;
        }
        if let Some(own) = own {
            **own = histogram.clone();
        } else {
            self.bytes += entry_bytes::<u32, Box<HistogramReading>>() + size_of::<HistogramReading>() + 16 * histogram.counts.len();
            self.histograms.insert(reading, Box::new(histogram.clone()));
        }
    }

    /// Everything as parts, sorted by target, metric, start and instance.
    pub(super) fn into_parts(self, source: u32, length: Duration) -> Vec<Part> {
        let Held { targets, metrics, instances, panes, readings, mut histograms, .. } = self;
        let metric = |pane: &PaneKey| metrics.get_index(pane.metric as usize).map(|(metric, ())| metric);
        let target = |of: u32| targets.get_index(of as usize).map(|(target, _)| target);

        let pane_places = sorted(panes.len(), |place| {
            let key = panes.get_index(place as usize).map(|(key, _)| key);
            key.and_then(|key| metric(key).map(|metric| (target(metric.target), &metric.name, key.start)))
        });
        let pane_ranks = ranks(&pane_places);
        let instance_ranks = ranks(&sorted(instances.len(), |place| instances.get_index(place as usize).map(|(key, ())| &key.name)));

        let mut readings: Vec<(u32, ReadingKey, Numbers)> = (0..).zip(readings).map(|(place, (key, numbers))| (place, key, numbers)).collect();
        readings.sort_unstable_by_key(|(_, key, _)| (pane_ranks[key.pane as usize], instance_ranks[key.instance as usize]));

        let mut parts = Parts::new(source);
        let mut readings = readings.into_iter().peekable();
        for place in pane_places {
            let Some((key, held)) = panes.get_index(place as usize) else { continue };
            let Some(metric) = metric(key) else { continue };
            let Some(target) = target(metric.target) else { continue };
            parts.begin(
                target,
                Pane {
                    metric: metric.name.clone(),
                    kind: held.kind,
                    start: key.start,
                    end: key.start + length,
                    instances: std::collections::BTreeMap::new(),
                    sketch: held.sketch.as_deref().cloned(),
                },
            );
            while let Some((reading, key, numbers)) = readings.next_if(|(_, key, _)| key.pane == place) {
                let Some((instance, ())) = instances.get_index(key.instance as usize) else { continue };
                parts.add(instance.name.clone(), numbers.into_reading(histograms.swap_remove(&reading)));
            }
        }
        parts.finish()
    }
}

/// The place of the key that `is` the one looked for, where that is `recent` or follows it: producers
/// repeat their samples in one order, so the next series is mostly the next entry, and no hash is needed.
fn near<K, V>(table: &Table<K, V>, recent: u32, is: impl Fn(&K) -> bool) -> Option<u32> {
    [recent, recent.saturating_add(1)].into_iter().find(|place| table.get_index(*place as usize).is_some_and(|(held, _)| is(held)))
}

fn find_name<N: Borrow<str> + Eq + Hash>(table: &Table<OfTarget<N>, ()>, recent: u32, name: Named<'_>) -> Option<u32> {
    near(table, recent, |held| name.equivalent(held)).or_else(|| table.get_index_of(&name).map(index))
}

/// The places `0..len` in the order of their keys.
fn sorted<K: Ord>(len: usize, key: impl Fn(u32) -> K) -> Vec<u32> {
    let mut places: Vec<u32> = (0..index(len)).collect();
    places.sort_by_key(|place| key(*place));
    places
}

/// For each place, where it stands among the sorted.
fn ranks(sorted: &[u32]) -> Vec<u32> {
    let mut ranks = vec![0; sorted.len()];
    for (rank, place) in (0..).zip(sorted) {
        ranks[*place as usize] = rank;
    }
    ranks
}

impl Numbers {
    /// Adds a sample; how its (time, amount) compares with the newest before it.
    fn add(&mut self, amount: Amount, time: Timestamp) -> Ordering {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum + amount;
        self.max = self.max.max(amount);
        let newer = (time, amount).cmp(&(self.last_at, self.last));
        if newer == Ordering::Greater {
            self.last_at = time;
            self.last = amount;
        }
        newer
    }

    fn into_reading(self, histogram: Option<Box<HistogramReading>>) -> Reading {
        Reading { count: self.count, sum: self.sum, max: self.max, last: self.last, last_at: self.last_at, histogram }
    }
}
