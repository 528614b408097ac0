//! Panes into parts that fit into a record: one a target, more where one would be too large.

use std::collections::BTreeMap;

use crate::model::{InstanceName, Pane, Part, Reading, Sketch, TargetId};

/// The size at which a part is closed. Sizes are estimates from above, and a record may have 524,288 bytes.
const PART_BYTES: usize = 400_000;

/// The most bins that a sketch can need (see [`Sketch`]).
const MOST_BINS: usize = 3_110;

/// Parts that are being written, the last one open.
pub(super) struct Parts {
    source: u32,
    written: Vec<Part>,
    /// The size of the open part.
    bytes: usize,
}

impl Parts {
    pub(super) fn new(source: u32) -> Self {
        Parts { source, written: Vec::new(), bytes: 0 }
    }

    /// Begins a pane; its readings follow. The panes of a target come one after the other.
    pub(super) fn begin(&mut self, target: &TargetId, pane: Pane) {
        let bytes = pane_bytes(&pane);
        if self.written.last().is_none_or(|part| part.target != *target) || self.bytes + bytes > PART_BYTES {
            self.open(target.clone());
        }
        self.push(pane, bytes);
    }

    /// Adds a reading to the pane that was begun; where the part is full, the pane goes on in a new one.
    pub(super) fn add(&mut self, instance: InstanceName, reading: Reading) {
        let bytes = reading_bytes(&instance, &reading);
        if self.bytes + bytes > PART_BYTES
            && let Some(part) = self.written.last()
            && let Some(pane) = part.panes.last()
        {
            let target = part.target.clone();
            let rest = Pane { metric: pane.metric.clone(), instances: BTreeMap::new(), sketch: None, ..*pane };
            let head = pane_bytes(&rest);
            self.open(target);
            self.push(rest, head);
        }
        if let Some(pane) = self.written.last_mut().and_then(|part| part.panes.last_mut()) {
            pane.instances.insert(instance, reading);
            self.bytes += bytes;
        }
    }

    pub(super) fn finish(self) -> Vec<Part> {
        self.written
    }

    fn open(&mut self, target: TargetId) {
        self.bytes = 2 * target.as_str().len() + 64;
        self.written.push(Part { target, source: self.source, panes: Vec::new() });
    }

    fn push(&mut self, pane: Pane, bytes: usize) {
        if let Some(part) = self.written.last_mut() {
            part.panes.push(pane);
            self.bytes += bytes;
        }
    }
}

/// A pane's bytes on the log without its readings: name, kind, two times, block ends, sketch.
fn pane_bytes(pane: &Pane) -> usize {
    pane.metric.as_str().len() + 64 + pane.sketch.as_ref().map_or(0, sketch_bytes)
}

/// A bin is two variable-length numbers: at most 3 and 10 bytes, and 2 for the block of few.
fn sketch_bytes(sketch: &Sketch) -> usize {
    15 * usize::try_from(sketch.count()).unwrap_or(MOST_BINS).min(MOST_BINS) + 20
}

/// A reading's bytes on the log: name, count, three amounts of at most 16 bytes, time, histogram.
fn reading_bytes(instance: &InstanceName, reading: &Reading) -> usize {
    let histogram = reading.histogram.as_ref().map_or(0, |histogram| 48 + 8 * histogram.bounds.len() + 10 * histogram.counts.len());
    instance.as_str().len() + 2 + 10 + 3 * 17 + 10 + 1 + histogram
}
