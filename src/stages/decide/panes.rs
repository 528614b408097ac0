//! The panes of one target: what its windows are measured from.
//!
//! Panes are not part of a snapshot; they are merged again from the log. So what is measured may
//! depend only on panes that an undisturbed run and a restored one both hold: those that end after
//! `complete_since`, the newest one of each instance, and the one before it; and of all these none
//! that ends by `forgotten_through`. Both bounds are remembered (in the snapshot) and never run back, whatever
//! the policy does to the window.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::MOST_INSTANCES;
use super::memory::FleetSeen;
use crate::log::Offset;
use crate::model::{Amount, InstanceName, Kind, MetricName, Part, Reading, Sketch, Timestamp};

/// The panes of one target, by metric.
#[derive(Debug, Default)]
pub(super) struct Panes {
    metrics: BTreeMap<MetricName, MetricPanes>,
    /// Readings of instances beyond the limit since the last look.
    dropped: u64,
}

/// The panes of one metric.
#[derive(Debug)]
pub(super) struct MetricPanes {
    /// What its samples mean.
    pub(super) kind: Kind,
    /// Each instance's panes, by name.
    pub(super) series: Vec<Series>,
    /// The observations of each pane, of a Distribution; ascending by end.
    pub(super) sketches: VecDeque<Sketched>,
    /// Those of the last window that was asked for, together.
    merged: RefCell<Option<Merged>>,
    /// The end of the newest pane.
    pub(super) newest: Timestamp,
    /// The end of the newest pane of any other kind: earlier ones do not count.
    other_kind: Timestamp,
}

/// The observations of one pane of a Distribution.
#[derive(Debug)]
pub(super) struct Sketched {
    /// Where the pane ends.
    pub(super) end: Timestamp,
    /// The offset of the first part that fed it.
    offset: Offset,
    /// The observations.
    pub(super) sketch: Sketch,
}

/// The observations of a window, together: the next window takes out what left it and adds what came.
#[derive(Debug)]
struct Merged {
    since: Timestamp,
    through: Timestamp,
    panes: usize,
    sketch: Sketch,
}

/// The sum of a window, likewise.
#[derive(Debug, Clone, Copy)]
struct Summed {
    since: Timestamp,
    through: Timestamp,
    sum: Amount,
    count: i64,
}

/// One instance's panes.
#[derive(Debug)]
pub(super) struct Series {
    /// The instance.
    pub(super) instance: InstanceName,
    /// Ascending by end.
    pub(super) cells: VecDeque<Cell>,
    /// The sum of the last window that was asked for.
    summed: std::cell::Cell<Option<Summed>>,
    /// The place of its instance among those of the fleet, for the names that [`FleetSeen::names`] counts.
    ///
    /// [`FleetSeen::names`]: super::memory::FleetSeen::names
    place: std::cell::Cell<(u64, Option<u32>)>,
}

/// One instance's share of a pane.
#[derive(Debug)]
pub(super) struct Cell {
    /// Where the pane ends.
    pub(super) end: Timestamp,
    /// The offset of the first part that fed it.
    pub(super) offset: Offset,
    /// What was measured.
    pub(super) reading: Reading,
}

impl Panes {
    /// Merges a part.
    pub(super) fn merge(&mut self, part: Part, offset: Offset) {
        for pane in part.panes {
            let metric = self.metrics.entry(pane.metric).or_insert_with(|| MetricPanes {
                kind: pane.kind,
                series: Vec::new(),
                sketches: VecDeque::new(),
                merged: RefCell::new(None),
                newest: Timestamp::MIN,
                other_kind: Timestamp::MIN,
            });
            // One name, two meanings: the newest pane says which one holds, and what is older than any pane of another
            // kind does not count, whatever the order.
            if metric.kind != pane.kind {
                if (pane.end, pane.kind) < (metric.newest, metric.kind) {
                    metric.forget_before(pane.end);
                    continue;
                }
                metric.forget_before(metric.newest);
                metric.kind = pane.kind;
                metric.series.clear();
                metric.sketches.clear();
                *metric.merged.get_mut() = None;
            }
            if pane.end < metric.other_kind {
                continue;
            }
            metric.newest = metric.newest.max(pane.end);
            let kind = metric.kind;
            for (instance, reading) in pane.instances {
                match metric.series_of(instance) {
                    Some(series) => series.merge(pane.end, offset, reading, kind),
                    None => self.dropped += 1,
                }
            }
            if let Some(sketch) = pane.sketch {
                if metric.merged.get_mut().as_ref().is_some_and(|m| pane.end > m.since && pane.end <= m.through) {
                    *metric.merged.get_mut() = None; // it came late
                }
                let at = metric.sketches.partition_point(|s| s.end < pane.end);
                match metric.sketches.get_mut(at) {
                    Some(held) if held.end == pane.end => {
                        held.offset = held.offset.min(offset);
                        held.sketch.merge(&sketch);
                    }
                    _ => metric.sketches.insert(at, Sketched { end: pane.end, offset, sketch }),
                }
            }
        }
    }

    /// How many readings of instances beyond the limit came since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The panes of a metric.
    pub(super) fn metric(&self, name: &MetricName) -> Option<&MetricPanes> {
        self.metrics.get(name)
    }

    /// Every metric's name and panes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&MetricName, &MetricPanes)> {
        self.metrics.iter()
    }

    /// Forgets what no window of a metric needs: all that ends by `forgotten`, and all but the last two
    /// panes of an instance (the last sketch) that end by `complete_since`.
    pub(super) fn prune(&mut self, name: &MetricName, complete_since: Timestamp, forgotten: Timestamp) {
        let Some(metric) = self.metrics.get_mut(name) else { return };
        metric.series.retain_mut(|series| {
            // Nearly always there is one at most to forget, and often none.
            let kept = |at: usize| series.cells.get(at).is_none_or(|c| c.end > complete_since);
            if kept(2) && series.cells.front().is_some_and(|c| c.end > forgotten) {
                return true;
            }
            let old = series.cells.partition_point(|c| c.end <= complete_since).saturating_sub(2);
            let gone = series.cells.partition_point(|c| c.end <= forgotten).max(old);
            let last = gone.checked_sub(1).and_then(|last| series.cells.get(last));
            if last.is_some_and(|last| series.summed.get().is_some_and(|s| last.end > s.since)) {
                series.summed.set(None); // not taken out of it yet
            }
            series.cells.drain(..gone);
            !series.cells.is_empty()
        });
        let old = metric.sketches.partition_point(|s| s.end <= complete_since).saturating_sub(1);
        let gone = metric.sketches.partition_point(|s| s.end <= forgotten).max(old);
        let last = gone.checked_sub(1).and_then(|last| metric.sketches.get(last));
        if last.is_some_and(|last| metric.merged.get_mut().as_ref().is_some_and(|m| last.end > m.since)) {
            *metric.merged.get_mut() = None;
        }
        metric.sketches.drain(..gone);
        if metric.series.is_empty() && metric.sketches.is_empty() {
            // As if none had ever come: a restored fold does not know better.
            self.metrics.remove(name);
        }
    }

    /// Forgets the metrics that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&MetricName) -> bool) {
        self.metrics.retain(|name, _| keep(name));
    }

    /// The earliest offset that a held pane came from.
    pub(super) fn earliest_offset(&self) -> Option<Offset> {
        let of = |m: &MetricPanes| {
            let cells = m.series.iter().flat_map(|s| &s.cells).map(|c| c.offset);
            cells.chain(m.sketches.iter().map(|s| s.offset)).min()
        };
        self.metrics.values().filter_map(of).min()
    }
}

impl MetricPanes {
    /// Whether a pane ends after `since` and by `through`.
    pub(super) fn has_end_in(&self, since: Option<Timestamp>, through: Timestamp) -> bool {
        let after = |end: Timestamp| since.is_none_or(|s| end > s) && end <= through;
        // The newest pane of nearly every series is the newest of the metric.
        after(self.newest) || self.series.iter().any(|s| s.cells.iter().rev().any(|c| after(c.end)))
    }

    /// The value at `quantile` of all observations of the window `(since, through]`; `None` where it has no pane.
    pub(super) fn quantile(&self, since: Timestamp, through: Timestamp, quantile: f64) -> Option<Option<f64>> {
        let mut held = self.merged.borrow_mut();
        let merged = match held.take() {
            Some(mut merged) if merged.since <= since && since < merged.through && merged.through <= through => {
                for left in self.sketches.iter().skip_while(|s| s.end <= merged.since).take_while(|s| s.end <= since) {
                    merged.sketch.take_out(&left.sketch);
                    merged.panes -= 1;
                }
                for new in self.sketches.iter().rev().skip_while(|s| s.end > through).take_while(|s| s.end > merged.through) {
                    merged.sketch.merge(&new.sketch);
                    merged.panes += 1;
                }
                (merged.since, merged.through) = (since, through);
                merged
            }
            _ => {
                let mut merged = Merged { since, through, panes: 0, sketch: Sketch::default() };
                for inside in self.sketches.iter().filter(|s| s.end > since && s.end <= through) {
                    merged.sketch.merge(&inside.sketch);
                    merged.panes += 1;
                }
                merged
            }
        };
        let value = (merged.panes > 0).then(|| merged.sketch.quantile(quantile));
        *held = Some(merged);
        value
    }

    /// There was a pane of another kind that ends at `end`.
    fn forget_before(&mut self, end: Timestamp) {
        self.other_kind = self.other_kind.max(end);
        self.series.retain_mut(|series| {
            series.cells.retain(|cell| cell.end >= end);
            series.summed.set(None);
            !series.cells.is_empty()
        });
        *self.merged.get_mut() = None;
        self.sketches.retain(|sketch| sketch.end >= end);
    }

    /// The series of an instance; `None` where there are too many.
    fn series_of(&mut self, instance: InstanceName) -> Option<&mut Series> {
        let at = match self.series.binary_search_by(|s| s.instance.cmp(&instance)) {
            Ok(at) => at,
            Err(_) if self.series.len() >= MOST_INSTANCES => return None,
            Err(at) => {
                self.series.insert(at, Series { instance, cells: VecDeque::new(), summed: std::cell::Cell::new(None), place: std::cell::Cell::default() });
                at
            }
        };
        self.series.get_mut(at)
    }
}

impl Series {
    fn merge(&mut self, end: Timestamp, offset: Offset, reading: Reading, kind: Kind) {
        if self.summed.get().is_some_and(|s| end > s.since && end <= s.through) {
            self.summed.set(None); // it came late
        }
        // Nearly always the newest pane, or the one before it.
        let at = match self.cells.back() {
            None => 0,
            Some(last) if last.end < end => self.cells.len(),
            Some(_) => self.cells.partition_point(|c| c.end < end),
        };
        match self.cells.get_mut(at) {
            Some(cell) if cell.end == end => {
                cell.offset = cell.offset.min(offset);
                cell.reading.merge(&reading, kind);
            }
            _ => self.cells.insert(at, Cell { end, offset, reading }),
        }
    }

    /// The cells of the window `(since, through]`.
    pub(super) fn window(&self, since: Timestamp, through: Timestamp) -> impl DoubleEndedIterator<Item = &Cell> {
        let (from, to) = (self.cells.partition_point(|c| c.end <= since), self.cells.partition_point(|c| c.end <= through));
        self.cells.range(from..to.max(from))
    }

    /// The place of its instance among those of the fleet; `None` where it is not listed.
    pub(super) fn place(&self, fleet: &FleetSeen) -> Option<usize> {
        let (names, place) = self.place.get();
        if names == fleet.names && names != 0 {
            return place.map(|place| place as usize);
        }
        let found = fleet.seen.instances.binary_search_by(|i| i.name.cmp(&self.instance)).ok();
        self.place.set((fleet.names, found.and_then(|place| u32::try_from(place).ok())));
        found
    }

    /// The sum and the number of the samples of the window `(since, through]`.
    pub(super) fn summed(&self, since: Timestamp, through: Timestamp) -> (Amount, i64) {
        let (mut sum, mut count) = (Amount::ZERO, 0_i64);
        match self.summed.get().filter(|s| s.since <= since && since < s.through && s.through <= through) {
            Some(last) => {
                (sum, count) = (last.sum, last.count);
                // Two that ended before are kept: look beyond them first.
                let kept = if self.cells.get(1).is_some_and(|c| c.end <= last.since) { 2 } else { 0 };
                for left in self.cells.range(kept..).skip_while(|c| c.end <= last.since).take_while(|c| c.end <= since) {
                    (sum, count) = (sum - left.reading.sum, count.saturating_sub(left.reading.count));
                }
                for new in self.cells.iter().rev().skip_while(|c| c.end > through).take_while(|c| c.end > last.through) {
                    (sum, count) = (sum + new.reading.sum, count.saturating_add(new.reading.count));
                }
            }
            None => {
                for inside in self.window(since, through) {
                    (sum, count) = (sum + inside.reading.sum, count.saturating_add(inside.reading.count));
                }
            }
        }
        // What saturated cannot be taken out again.
        let kept = Summed { since, through, sum, count };
        self.summed.set(Some(kept).filter(|kept| kept.count.unsigned_abs() < 1 << 62));
        (sum, count)
    }

    /// The newest cell that ends by `through`, and the one before it.
    pub(super) fn newest_two(&self, through: Timestamp) -> (Option<&Cell>, Option<&Cell>) {
        let to = match self.cells.back() {
            Some(last) if last.end <= through => self.cells.len(),
            _ => self.cells.partition_point(|c| c.end <= through),
        };
        let nth = |back: usize| to.checked_sub(back).and_then(|i| self.cells.get(i));
        (nth(1), nth(2))
    }

    /// The newest cell that ends by `since`: what a rate over the window after it starts from.
    pub(super) fn before(&self, since: Timestamp) -> Option<&Cell> {
        self.cells.partition_point(|c| c.end <= since).checked_sub(1).and_then(|i| self.cells.get(i))
    }
}

/// Since when a metric's panes are all held, after an evaluation at `through`.
pub(super) fn complete_since(through: Timestamp, window: Duration) -> Timestamp {
    through - window
}

/// By when panes are of no use any more, after an evaluation at `through`: a rate starts at most
/// `stale_after` before the first pane of the window, or before the newest one that is not stale.
pub(super) fn forgotten_through(through: Timestamp, window: Duration, stale_after: Duration) -> Timestamp {
    through - window.max(stale_after) - stale_after
}
