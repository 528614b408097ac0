//! `Measure`: from panes to a metric's figures, each with a typed status.
//!
//! For each instance the samples of the window are reduced over time; what is then done across
//! instances depends on the rule that asks (`propose`). Where the window holds no sample, the newest
//! one younger than `staleAfter` counts, but only for an instance of the newest observation.

use std::borrow::Cow;

use crate::model::policy::{Across, Measure, MetricPolicy, MetricRule, Over};
use crate::model::{Amount, HistogramReading, Kind, MetricStatus, Timestamp};

use super::evaluate::Surroundings;
use super::memory::{FleetSeen, MetricMemory};
use super::panes::{Cell, MetricPanes, Series};

/// What was measured of one metric.
#[derive(Debug)]
pub(super) enum Measured {
    /// One figure for each instance that counts, by name.
    Instances(Vec<Figure>),
    /// One figure for the target as a whole.
    Whole(Amount),
    /// Nothing to act on.
    Nothing {
        /// What it is worth.
        status: MetricStatus,
        /// Why, where words are needed.
        note: Option<Cow<'static, str>>,
    },
}

/// One instance's figure.
#[derive(Debug)]
pub(super) struct Figure {
    /// Its value.
    pub(super) value: Amount,
    /// The end of its newest pane: the sample's time, as an HPA sees it.
    pub(super) at: Timestamp,
    /// Its place among the fleet's instances, where the fleet has it.
    pub(super) place: Option<usize>,
}

/// The window of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Panes that end after this.
    pub(super) since: Timestamp,
    /// Panes that end by this.
    pub(super) through: Timestamp,
    /// The length of a pane.
    pane_ms: i64,
}

impl Window {
    fn seconds_ms(self) -> i64 {
        self.through.as_millis().saturating_sub(self.since.as_millis()).max(1)
    }
}

const NOTHING: Measured = Measured::Nothing { status: MetricStatus::NoData, note: None };

/// Measures one metric at `around.through` (event time), as of `now`.
pub(super) fn measure(
    policy: &MetricPolicy,
    panes: Option<&MetricPanes>,
    memory: &MetricMemory,
    fleet: &FleetSeen,
    around: Surroundings<'_>,
    now: Timestamp,
) -> Measured {
    let Surroundings { through, pane, silent, unheard } = around;
    if memory.source_error.is_some() {
        return Measured::Nothing { status: MetricStatus::Error, note: Some(Cow::Borrowed("its source failed")) };
    }
    let Some(newest) = memory.newest else { return NOTHING };
    if through == Timestamp::MIN {
        return NOTHING; // nothing is complete yet
    }
    // What ended after `through` is not complete and does not count yet.
    if now.since(newest.min(through)) > policy.stale_after {
        return Measured::Nothing { status: MetricStatus::Stale, note: None };
    }
    let Some(panes) = panes else { return NOTHING };
    let since = super::panes::complete_since(through, policy.window);
    let pane_ms = i64::try_from(pane.as_millis()).unwrap_or(i64::MAX).max(1);
    let window = Window { since: memory.complete_since.map_or(since, |c| c.max(since)), through, pane_ms };
    // A sum with a part missing is not a smaller sum, however long it has been missing: what counted when its source fell silent would count now.
    let counted = |fed: Timestamp, through: Timestamp| fed > through - policy.window.max(policy.stale_after);
    if let Some((source, _)) = memory.fed.iter().find(|(source, fed)| silent(**source).is_some_and(|through| counted(**fed, through))) {
        let note = format!("partition {source} of the metrics, which feeds it, is silent");
        return Measured::Nothing { status: MetricStatus::Stale, note: Some(Cow::Owned(note)) };
    }
    if let Some(source) = unheard {
        let note = format!("partition {source} of the metrics has been silent since signals were lost, and may feed it");
        return Measured::Nothing { status: MetricStatus::Stale, note: Some(Cow::Owned(note)) };
    }
    if policy.kind.is_some_and(|kind| kind != panes.kind) {
        return Measured::Nothing { status: MetricStatus::Error, note: Some(Cow::Borrowed("its samples are of another kind than the policy says")) };
    }
    // The increments of a pane that was only seen in part are too few.
    let partial = if panes.kind == Kind::Delta { memory.partial_through(pane) } else { Timestamp::MIN };
    if partial >= window.through {
        return Measured::Nothing { status: MetricStatus::NoData, note: Some(Cow::Borrowed("its first whole pane is not over yet")) };
    }
    let window = Window { since: window.since.max(partial), ..window };
    match policy.measure {
        Measure::Quantile(quantile) => measure_quantile(quantile, policy, panes, window, now),
        Measure::Reduce { over, across } => reduce(over, across, policy, panes, fleet, window, now),
    }
}

fn reduce(over: Over, across: Option<Across>, policy: &MetricPolicy, panes: &MetricPanes, fleet: &FleetSeen, window: Window, now: Timestamp) -> Measured {
    let mut figures = Vec::with_capacity(panes.series.len());
    let mut idle = false;
    let mut whole = None;
    for series in &panes.series {
        let place = series.place(fleet);
        let (Some(newest), before) = series.newest_two(window.through) else { continue };
        if now.since(newest.end) > policy.stale_after {
            continue;
        }
        let listed = series.instance.is_none() || place.is_some();
        if !listed && newest.reading.last_at <= fleet.at {
            continue; // it was removed
        }
        let value = if newest.end > window.since {
            over_time(over, panes.kind, series, window, policy)
        } else if listed {
            newest_alone(panes.kind, newest, before, policy)
        } else {
            continue;
        };
        match value {
            Some(value) if series.instance.is_none() => whole = Some(value),
            Some(value) => figures.push(Figure { value, at: newest.end, place }),
            None => idle |= compared(panes.kind, series, window, policy, newest, before),
        }
    }
    if figures.is_empty() {
        return match whole {
            Some(value) => Measured::Whole(value),
            None if idle => Measured::Nothing { status: MetricStatus::Idle, note: None },
            None => Measured::Nothing { status: MetricStatus::NoData, note: Some(Cow::Borrowed("no instance that counts has a sample")) },
        };
    }
    match (&policy.rule, across) {
        (MetricRule::Utilization { .. } | MetricRule::PerReplica { .. }, _) => Measured::Instances(figures),
        (MetricRule::Value { .. }, None) => {
            Measured::Nothing { status: MetricStatus::Error, note: Some(Cow::Borrowed("track.value of a metric of instances needs measure.across")) }
        }
        (_, across) => Measured::Whole(across_instances(across.unwrap_or(Across::Mean), &figures)),
    }
}

/// Whether there was something to measure and nothing was observed: two readings of a cumulative histogram that do not
/// differ. Before the second one nothing is known.
fn compared(kind: Kind, series: &Series, window: Window, policy: &MetricPolicy, newest: &Cell, before: Option<&Cell>) -> bool {
    let inside = series.window(window.since, window.through).count();
    kind == Kind::Histogram && (inside > 1 || before.is_some_and(|c| within(c, Some(newest), policy)))
}

fn across_instances(across: Across, figures: &[Figure]) -> Amount {
    let sum: Amount = figures.iter().map(|f| f.value).sum();
    match across {
        Across::Sum => sum,
        Across::Mean => sum.mean(figures.len() as u64).unwrap_or_default(),
        Across::Max => figures.iter().map(|f| f.value).max().unwrap_or_default(),
    }
}

/// One instance's samples of the window as one number; `None` where there is nothing to measure yet.
fn over_time(over: Over, kind: Kind, series: &Series, window: Window, policy: &MetricPolicy) -> Option<Amount> {
    let cells = || series.window(window.since, window.through);
    let last = cells().next_back()?;
    match kind {
        Kind::Gauge | Kind::Distribution => match over {
            Over::Mean => {
                let (sum, count) = series.summed(window.since, window.through);
                sum.mean(count.unsigned_abs())
            }
            Over::Max => cells().map(|c| c.reading.max).max(),
            Over::Last => Some(last.reading.last),
        },
        Kind::Delta => match over {
            Over::Mean => Some(series.summed(window.since, window.through).0.per_second(window.seconds_ms())),
            Over::Max => cells().map(|c| c.reading.sum).max().map(|sum| sum.per_second(window.pane_ms)),
            Over::Last => Some(last.reading.sum.per_second(window.pane_ms)),
        },
        Kind::Counter => {
            let mut before = series.before(window.since).filter(|c| within(c, cells().next(), policy));
            let first_at = before.or_else(|| cells().next())?.reading.last_at;
            let (mut grown, mut largest, mut newest, mut pairs) = (Amount::ZERO, None::<Amount>, Amount::ZERO, 0);
            for cell in cells() {
                if let Some(earlier) = before {
                    let growth = growth(earlier.reading.last, cell.reading.last);
                    grown = grown + growth;
                    newest = growth.per_second(elapsed_ms(earlier, cell));
                    largest = largest.max(Some(newest));
                    pairs += 1;
                }
                before = Some(cell);
            }
            if pairs == 0 {
                return None;
            }
            match over {
                Over::Mean => Some(grown.per_second(last.reading.last_at.as_millis().saturating_sub(first_at.as_millis()))),
                Over::Max => largest,
                Over::Last => Some(newest),
            }
        }
        Kind::Histogram => {
            let mut before = series.before(window.since).filter(|c| within(c, cells().next(), policy));
            let (mut sum, mut count) = (Amount::ZERO, 0_i64);
            for cell in cells() {
                if let (Some(earlier), Some(newer)) = (before.and_then(|c| c.reading.histogram.as_deref()), cell.reading.histogram.as_deref()) {
                    let (s, n) = observed(earlier, newer);
                    sum = sum + s;
                    count = count.saturating_add(n);
                }
                before = Some(cell);
            }
            sum.mean(count.unsigned_abs())
        }
    }
}

/// The value of an instance whose newest pane lies before the window.
fn newest_alone(kind: Kind, newest: &Cell, before: Option<&Cell>, policy: &MetricPolicy) -> Option<Amount> {
    match kind {
        Kind::Gauge => Some(newest.reading.last),
        Kind::Distribution => newest.reading.sum.mean(newest.reading.count.unsigned_abs()),
        // An increment says nothing about the time after it.
        Kind::Delta => None,
        Kind::Counter => {
            let before = before.filter(|c| within(c, Some(newest), policy))?;
            Some(growth(before.reading.last, newest.reading.last).per_second(elapsed_ms(before, newest)))
        }
        Kind::Histogram => {
            let before = before.filter(|c| within(c, Some(newest), policy))?;
            let (sum, count) = observed(before.reading.histogram.as_deref()?, newest.reading.histogram.as_deref()?);
            sum.mean(count.unsigned_abs())
        }
    }
}

/// Whether a rate may start from `earlier`: it is not older than `staleAfter` before the next reading.
fn within(earlier: &Cell, next: Option<&Cell>, policy: &MetricPolicy) -> bool {
    next.is_some_and(|next| next.end.since(earlier.end) <= policy.stale_after)
}

/// By how much a total grew; a drop is a restart, and all that it shows since then is growth.
fn growth(earlier: Amount, later: Amount) -> Amount {
    if later >= earlier { later - earlier } else { later }
}

fn elapsed_ms(earlier: &Cell, later: &Cell) -> i64 {
    later.reading.last_at.as_millis().saturating_sub(earlier.reading.last_at.as_millis()).max(1)
}

/// The sum and number of observations between two readings of a cumulative histogram.
fn observed(earlier: &HistogramReading, later: &HistogramReading) -> (Amount, i64) {
    if later.count < earlier.count || earlier.bounds != later.bounds {
        (later.sum, later.count)
    } else {
        (later.sum - earlier.sum, later.count.saturating_sub(earlier.count))
    }
}

fn measure_quantile(quantile: f64, policy: &MetricPolicy, panes: &MetricPanes, window: Window, now: Timestamp) -> Measured {
    match panes.kind {
        Kind::Distribution => {
            let fresh = |end: &Timestamp| now.since(*end) <= policy.stale_after;
            if let Some(value) = panes.quantile(window.since, window.through, quantile) {
                return quantity(value);
            }
            // The window holds nothing: the newest observations count while they are fresh.
            match panes.sketches.iter().rev().find(|s| s.end <= window.through).filter(|s| fresh(&s.end)) {
                Some(newest) => quantity(newest.sketch.quantile(quantile)),
                None => NOTHING,
            }
        }
        Kind::Histogram => match histogram_quantile(quantile, policy, panes, window, now) {
            Some(value) => quantity(value),
            None => NOTHING,
        },
        Kind::Gauge | Kind::Counter | Kind::Delta => {
            Measured::Nothing { status: MetricStatus::Error, note: Some(Cow::Borrowed("a quantile needs a Distribution or a Histogram")) }
        }
    }
}

fn quantity(value: Option<f64>) -> Measured {
    match value {
        None => Measured::Nothing { status: MetricStatus::Idle, note: None },
        Some(value) => match Amount::from_f64(value) {
            Ok(value) => Measured::Whole(value),
            Err(_) => Measured::Nothing { status: MetricStatus::NonFinite, note: None },
        },
    }
}

/// The quantile of all observations of the window, interpolated inside its bucket, as Prometheus'
/// `histogram_quantile` does: the last bucket counts as its lower bound. An instance without a reading in the window
/// counts with its newest ones while they are fresh. `None` where no two readings could be compared;
/// `Some(None)` where they could, and nothing was observed between them.
fn histogram_quantile(quantile: f64, policy: &MetricPolicy, panes: &MetricPanes, window: Window, now: Timestamp) -> Option<Option<f64>> {
    let mut counts: Vec<i64> = Vec::new();
    let mut add = |earlier: Option<&Cell>, later: &'_ HistogramReading, bounds: &mut Option<Vec<f64>>| {
        let Some(earlier) = earlier.and_then(|c| c.reading.histogram.as_deref()) else { return };
        // Other buckets cannot be added up; the first instance's are taken.
        if *bounds.get_or_insert_with(|| later.bounds.clone()) != later.bounds {
            return;
        }
        counts.resize(later.counts.len(), 0);
        let reset = later.count < earlier.count || earlier.bounds != later.bounds;
        for (i, count) in counts.iter_mut().enumerate() {
            let start = if reset { 0 } else { earlier.counts.get(i).copied().unwrap_or(0) };
            *count = count.saturating_add(later.counts[i].saturating_sub(start).max(0));
        }
    };
    let mut compared: Option<Vec<f64>> = None;
    for series in &panes.series {
        let mut inside = series.window(window.since, window.through).peekable();
        if inside.peek().is_none() {
            if let (Some(newest), before) = series.newest_two(window.through)
                && now.since(newest.end) <= policy.stale_after
                && let Some(later) = newest.reading.histogram.as_deref()
            {
                add(before.filter(|c| within(c, Some(newest), policy)), later, &mut compared);
            }
            continue;
        }
        let mut before = series.before(window.since).filter(|c| within(c, inside.peek().copied(), policy));
        for cell in inside {
            if let Some(later) = cell.reading.histogram.as_deref() {
                add(before, later, &mut compared);
            }
            before = Some(cell);
        }
    }
    let bounds = compared?;
    let total: i64 = counts.iter().fold(0_i64, |n, c| n.saturating_add(*c));
    if total == 0 {
        return Some(None);
    }
    let rank = quantile * total as f64;
    let mut seen = 0.0;
    for (i, count) in counts.iter().enumerate() {
        let count = *count as f64;
        if seen + count >= rank && count > 0.0 {
            let Some(upper) = bounds.get(i) else { return Some(bounds.last().copied()) };
            let lower = if i == 0 { upper.min(0.0) } else { bounds[i - 1] };
            return Some(Some(lower + (upper - lower) * ((rank - seen) / count).clamp(0.0, 1.0)));
        }
        seen += count;
    }
    Some(bounds.last().copied())
}
