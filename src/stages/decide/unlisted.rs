//! Instances that send samples and that the fleet does not list: mostly a name that whoever measures writes otherwise.
//!
//! How they count is `measure`'s; here it is told. An instance that was just removed is none of them: what it sent before it was
//! gone is no news.

use std::time::Duration;

use crate::model::policy::Measure;
use crate::model::spelling::shorten;
use crate::model::{InstanceName, Timestamp};

use super::memory::FleetSeen;
use super::panes::MetricPanes;

/// What is to be said of those whose newest sample is of the window `(since, through]`; `None` where there are none. A quantile is of all
/// observations, whoever they are of.
pub(super) fn note(panes: &MetricPanes, measure: &Measure, fleet: &FleetSeen, (since, through): (Timestamp, Timestamp), pane: Duration) -> Option<String> {
    let (mut counted, mut left_out) = (Found::default(), Found::default());
    for series in panes.series.iter().filter(|series| !series.instance.is_none() && series.place(fleet).is_none()) {
        let Some(newest) = series.newest_two(through).0.filter(|newest| newest.end > since) else { continue };
        let last = newest.reading.last_at;
        if last <= fleet.named_at + pane {
            continue; // it may have been listed then; clocks differ a little
        }
        let counts = matches!(measure, Measure::Quantile(_)) || last > fleet.at;
        let found = if counts { &mut counted } else { &mut left_out };
        found.add(&series.instance);
    }
    let said: Vec<String> = [left_out.told("do not count"), counted.told("count")].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// Instances: how many, and the first of them by name.
#[derive(Debug, Default)]
struct Found<'a> {
    count: usize,
    first: Option<&'a InstanceName>,
}

impl<'a> Found<'a> {
    fn add(&mut self, name: &'a InstanceName) {
        self.count += 1;
        self.first = Some(self.first.map_or(name, |first| first.min(name)));
    }

    fn told(&self, what: &str) -> Option<String> {
        let first = shorten(self.first?.as_str());
        Some(match self.count {
            1 => format!("the fleet does not list {first}, whose samples {what}"),
            n => format!("the fleet does not list {n} instances, {first} among them, whose samples {what}"),
        })
    }
}
