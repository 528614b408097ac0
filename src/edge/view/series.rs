//! One target's evaluations over time, for charts: its counts, its bounds, and each metric against its target.
//!
//! Two rings: the last hour at 5 s, the last day at 5 min, both coarser where many targets share the memory. A point is an
//! evaluation that took place, never a mean of several and never one in between: of those that are closer together than the
//! ring's resolution the last stays, unless counts or statuses changed, which are kept all. Where no evaluation is known for
//! longer than any target goes without one, there is a gap.
//!
//! A restart begins with what the log's audit holds (what changed something, and one an hour) and what decide folds again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::edge::api::{MetricSeries, ReplicaSeries, Rule, Series as Answer};
use crate::model::policy::Unit;
use crate::model::{Amount, Decision, MetricName, MetricStatus, TargetId, Timestamp};

use super::facts::Facts;

/// What the two rings span.
const FINE_SPAN: Duration = Duration::from_secs(3_600);
const COARSE_SPAN: Duration = Duration::from_secs(86_400);
/// Their most points: 5 s and 5 min apart.
const FINE_POINTS: usize = 720;
const COARSE_POINTS: usize = 288;
/// The fewest points of a ring, however many targets there are.
const MIN_POINTS: usize = 16;
/// The most numbers that the rings of all targets hold together: at about 9 bytes each, 90 MB.
const MAX_NUMBERS: usize = 10_000_000;
/// A target is evaluated once a minute at least: two of those may be late before there is a gap.
const GAP: Duration = Duration::from_secs(150);
/// A decision that is earlier than the newest point by more than this comes from a clock that was set back.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);
/// The most changes of a target or bound that are remembered.
const MAX_CHANGES: usize = 256;

/// How many points each ring of a target keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    fine: usize,
    coarse: usize,
}

impl Room {
    /// The room of one of `targets`, with so many metrics.
    pub(super) fn of(targets: usize, metrics: usize) -> Room {
        let points = MAX_NUMBERS / targets.max(1) / (metrics + 3);
        let part = |most: usize| (points * most / (FINE_POINTS + COARSE_POINTS)).clamp(MIN_POINTS, most);
        Room { fine: part(FINE_POINTS), coarse: part(COARSE_POINTS) }
    }
}

/// A target's series.
#[derive(Debug, Default)]
pub(super) struct Series {
    fine: Ring,
    coarse: Ring,
    bounds: Changes<(Option<u32>, Option<u32>)>,
    aims: BTreeMap<MetricName, Aim>,
}

/// What a metric is held against, and how it is written.
#[derive(Debug, Default)]
struct Aim {
    unit: Unit,
    per_second: bool,
    /// Its target (of a threshold: above which it scales out), and below which it scales in.
    against: Changes<(Option<Amount>, Option<f64>)>,
}

impl Series {
    /// Takes an evaluation. What was observed of the replicas is known of one that is made now. Bounds are those of `facts`, where the decision was
    /// made under that policy.
    pub(super) fn take(&mut self, decision: &Decision, seen: Option<Seen>, facts: Option<&Facts>, room: Room) {
        let at = decision.at;
        if self.fine.at.back().is_some_and(|last| at + CLOCK_SET_BACK < *last) && seen.is_some() {
            // What was remembered of a time that has not come yet.
            self.fine.forget_after(at);
            self.coarse.forget_after(at);
        }
        let facts = facts.filter(|facts| facts.version == decision.policy_version);
        self.bounds.set(at, (facts.and_then(|f| f.min), facts.and_then(|f| f.max)));
        for report in &decision.metrics {
            let aim = self.aims.entry(report.name.clone()).or_default();
            aim.unit = report.unit;
            aim.per_second = report.per_second;
            // Without a value no limit of a threshold is told: the last ones stand.
            if report.threshold.is_some() || !facts.is_some_and(|f| f.rules.get(&report.name) == Some(&Rule::Threshold)) {
                let (out, below) = report.threshold.as_ref().map_or((report.target, None), |t| (t.scale_out_above, t.scale_in_below));
                aim.against.set(at, (out, below.map(Amount::as_f64)));
            }
        }
        self.fine.take(decision, seen, room.fine, FINE_SPAN);
        self.coarse.take(decision, seen, room.coarse, COARSE_SPAN);
        if self.aims.len() > self.coarse.metrics.len() {
            let Series { fine, coarse, aims, .. } = self;
            aims.retain(|name, _| coarse.metrics.contains_key(name) || fine.metrics.contains_key(name));
        }
    }

    /// What is known of `from..=to`: of up to an hour from the fine ring, else from the coarse one.
    pub(super) fn answer(&self, target: TargetId, from: Timestamp, to: Timestamp, facts: Option<&Facts>) -> Answer {
        let ring = if to.since(from) <= FINE_SPAN { &self.fine } else { &self.coarse };
        let rows = ring.rows(from, to);
        let at = |row: &Row| row.at();
        let point = |row: &Row| row.point();
        let counts = |row: &Row| point(row).map(|i| ring.counts[i]);
        let bounds = |row: &Row| point(row).and_then(|_| self.bounds.at(at(row)));
        let replicas = ReplicaSeries {
            current: rows.iter().map(|r| counts(r).and_then(|c| c.current)).collect(),
            desired: rows.iter().map(|r| counts(r).map(|c| c.desired)).collect(),
            ready: rows.iter().map(|r| counts(r).and_then(|c| c.ready)).collect(),
            min: rows.iter().map(|r| bounds(r).and_then(|b| b.0)).collect(),
            max: rows.iter().map(|r| bounds(r).and_then(|b| b.1)).collect(),
        };
        let metrics = ring.metrics.iter().map(|(name, column)| {
            let aim = self.aims.get(name);
            let against = |row: &Row| point(row).filter(|i| column.statuses[*i].is_some()).and_then(|_| aim.and_then(|a| a.against.at(at(row))));
            MetricSeries {
                name: name.clone(),
                unit: aim.map(|a| a.unit).unwrap_or_default(),
                rule: facts.and_then(|f| f.rules.get(name)).copied(),
                per_second: aim.is_some_and(|a| a.per_second),
                value: rows.iter().map(|r| point(r).map(|i| column.values[i]).filter(|v| !v.is_nan())).collect(),
                target: rows.iter().map(|r| against(r).and_then(|a| a.0)).map(|t| t.map(Amount::as_f64)).collect(),
                scale_in_below: rows.iter().map(|r| against(r).and_then(|a| a.1)).collect(),
                status: rows.iter().map(|r| point(r).and_then(|i| column.statuses[i])).collect(),
            }
        });
        let metrics = metrics.filter(|m| m.status.iter().any(Option::is_some)).collect();
        let resolution_ms = u64::try_from(ring.resolution.as_millis()).unwrap_or(u64::MAX);
        Answer { target, from, to, resolution_ms, times: rows.iter().map(at).collect(), replicas, metrics }
    }
}

/// A row of an answer: a point, or that nothing is known from here to the next.
enum Row {
    Point(Timestamp, usize),
    Gap(Timestamp),
}

impl Row {
    fn at(&self) -> Timestamp {
        match self {
            Row::Point(at, _) | Row::Gap(at) => *at,
        }
    }

    fn point(&self) -> Option<usize> {
        if let Row::Point(_, i) = self { Some(*i) } else { None }
    }
}

/// What was observed of a target's replicas when it was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The count that was asked for.
    pub(super) current: u32,
    /// How many were ready.
    pub(super) ready: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    current: Option<u32>,
    desired: u32,
    ready: Option<u32>,
}

/// Points in order of time, in columns.
#[derive(Debug, Default)]
struct Ring {
    resolution: Duration,
    at: VecDeque<Timestamp>,
    counts: VecDeque<Counts>,
    metrics: BTreeMap<MetricName, Column>,
}

/// One metric's part of each point; NaN and `None` where it has none.
#[derive(Debug, Default)]
struct Column {
    values: VecDeque<f64>,
    statuses: VecDeque<Option<MetricStatus>>,
    /// How many points it has a part in.
    known: usize,
}

impl Ring {
    fn take(&mut self, decision: &Decision, seen: Option<Seen>, most: usize, span: Duration) {
        self.resolution = span / u32::try_from(most).unwrap_or(u32::MAX).max(1);
        // Advice is decided against the count that would stand, had it been followed: what stands is what was observed.
        let current = if decision.advised { seen.map(|seen| seen.current) } else { Some(decision.current) };
        let counts = Counts { current, desired: decision.desired, ready: seen.map(|seen| seen.ready) };
        let place = self.at.partition_point(|at| *at < decision.at);
        if self.at.get(place) == Some(&decision.at) {
            // Written down and evaluated are the same decision; of several in one millisecond the last counts.
            let known = self.counts[place];
            self.put(place, decision, Counts { ready: counts.ready.or(known.ready), current: counts.current.or(known.current), ..counts });
            return;
        }
        let newest = place == self.at.len();
        self.grow(most);
        if newest && place >= 2 && !self.is_change(place - 1) && self.at[place - 1].since(self.at[place - 2]) < self.resolution {
            self.remove(place - 1);
            self.insert(place - 1, decision, counts);
        } else {
            self.insert(place, decision, counts);
        }
        while self.at.len() > most {
            self.remove(0);
        }
    }

    /// Makes room for one more point, and never for more than `most` and that one.
    fn grow(&mut self, most: usize) {
        grow(&mut self.at, most);
        grow(&mut self.counts, most);
        for column in self.metrics.values_mut() {
            grow(&mut column.values, most);
            grow(&mut column.statuses, most);
        }
    }

    /// Whether counts or statuses of this point differ from those of the one before.
    fn is_change(&self, i: usize) -> bool {
        self.counts[i] != self.counts[i - 1] || self.metrics.values().any(|column| column.statuses[i] != column.statuses[i - 1])
    }

    fn insert(&mut self, i: usize, decision: &Decision, counts: Counts) {
        self.at.insert(i, decision.at);
        self.counts.insert(i, counts);
        for column in self.metrics.values_mut() {
            column.values.insert(i, f64::NAN);
            column.statuses.insert(i, None);
        }
        self.put(i, decision, counts);
    }

    fn put(&mut self, i: usize, decision: &Decision, counts: Counts) {
        self.counts[i] = counts;
        let points = self.at.len();
        for report in &decision.metrics {
            let column = self.metrics.entry(report.name.clone()).or_default();
            column.values.resize(points, f64::NAN);
            column.statuses.resize(points, None);
            column.values[i] = report.value.map_or(f64::NAN, Amount::as_f64);
            column.known += usize::from(column.statuses[i].replace(report.status).is_none());
        }
    }

    fn remove(&mut self, i: usize) {
        self.at.remove(i);
        self.counts.remove(i);
        self.metrics.retain(|_, column| {
            column.values.remove(i);
            column.known -= usize::from(column.statuses.remove(i).flatten().is_some());
            column.known > 0
        });
    }

    fn forget_after(&mut self, at: Timestamp) {
        while self.at.back().is_some_and(|last| *last > at) {
            self.remove(self.at.len() - 1);
        }
    }

    fn rows(&self, from: Timestamp, to: Timestamp) -> Vec<Row> {
        let gap = GAP.max(self.resolution * 3);
        let mut rows: Vec<Row> = Vec::with_capacity(self.at.len());
        for (i, at) in self.at.iter().enumerate().filter(|(_, at)| (from..=to).contains(*at)) {
            if let Some(last) = rows.last().map(Row::at).filter(|last| at.since(*last) > gap) {
                rows.push(Row::Gap(last + Duration::from_millis(1)));
            }
            rows.push(Row::Point(*at, i));
        }
        rows
    }
}

/// As a queue grows by itself, but not beyond what it will hold: that would be a third of the memory.
fn grow<T>(queue: &mut VecDeque<T>, most: usize) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact(queue.len().max(4).min((most + 1).saturating_sub(queue.len())).max(1));
    }
}

/// What holds from one time to the next change.
#[derive(Debug)]
struct Changes<T>(VecDeque<(Timestamp, T)>);

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Changes(VecDeque::new())
    }
}

impl<T: Copy + PartialEq> Changes<T> {
    fn set(&mut self, at: Timestamp, value: T) {
        let place = self.0.partition_point(|(since, _)| *since <= at);
        if place > 0 && self.0[place - 1].1 == value {
            return;
        }
        self.0.insert(place, (at, value));
        if self.0.len() > MAX_CHANGES {
            self.0.pop_front();
        }
    }

    fn at(&self, at: Timestamp) -> Option<T> {
        let place = self.0.partition_point(|(since, _)| *since <= at);
        place.checked_sub(1).map(|before| self.0[before].1)
    }
}

#[cfg(test)]
mod tests;
