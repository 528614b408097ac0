//! How far the stages are, and what they remember: positions and snapshots, which belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::checks::GROUPS;
use super::{Report, State};
use crate::log::embedded::{Inspection, PartitionReport, PositionKey, Positions, Ranges, States};
use crate::log::{Offset, Topic};
use crate::runtime::snapshots::{self, Restored, Unusable};
use crate::stages::Stage;
use crate::stages::admit::Admit;
use crate::stages::aggregate::Aggregate;
use crate::stages::arbitrate::Arbitrate;
use crate::stages::decide::Decide;

/// The snapshots of one group and partition: keys and bytes.
type Rows = Vec<(String, Vec<u8>)>;

/// Checks both.
pub(super) fn check(inspection: &Inspection, partitions: &[PartitionReport], report: &mut Report) {
    let ranges: Ranges = partitions.iter().map(|p| ((p.topic, p.partition), p.range.clone())).collect();
    let positions = inspection.positions();
    let known = positions_are_known(&positions, &ranges, report);
    let progress = Progress { partitions, settled: positions.settled(&GROUPS, &ranges, false), ranges };
    let behind = snapshots_are_usable(inspection.states(), &progress, report);
    if !behind.is_empty() {
        positions_are_older(&behind, &progress, report);
    } else if known {
        report.say("positions", State::Ok, format!("{}, the same in both tables that have them, and none behind the snapshots", positions.next.len()));
    }
}

/// What is known of the stages' input.
struct Progress<'a> {
    partitions: &'a [PartitionReport],
    ranges: Ranges,
    /// The positions, as a mend leaves them.
    settled: BTreeMap<PositionKey, Offset>,
}

impl Progress<'_> {
    fn range(&self, topic: Topic, partition: u32) -> Range<Offset> {
        self.ranges.get(&(topic, partition)).cloned().unwrap_or_default()
    }

    /// From where a group goes on: one without a position at the earliest record.
    fn position(&self, group: &str, topic: Topic, partition: u32) -> Offset {
        let key = (group.to_owned(), topic, partition);
        self.settled.get(&key).copied().unwrap_or_else(|| self.range(topic, partition).start)
    }
}

/// A group whose snapshots hold more than it has read, by its position.
struct Behind {
    key: PositionKey,
    position: Offset,
    /// The first offset that its snapshots do not hold.
    until: Offset,
}

/// Whether all positions can be read, and each is within what its group reads.
fn positions_are_known(positions: &Positions, ranges: &Ranges, report: &mut Report) -> bool {
    let before = report.findings.len();
    for error in &positions.errors {
        report.mendable("positions", format!("they cannot all be read: {error}"), "--mend takes what either table still says");
    }
    for difference in &positions.differences {
        let (group, ..) = &difference.key;
        report.mendable(
            "positions",
            format!("{difference}: with the earlier one {group} would do again what it has done"),
            "--mend takes the later one, which was written last: nothing is lost, nothing done twice",
        );
    }
    let lost = if positions.are_sound() { Vec::new() } else { positions.missing(&GROUPS, ranges) };
    for (group, topic, partition) in lost {
        let Range { start, end } = ranges.get(&(topic, partition)).cloned().unwrap_or_default();
        report.mendable(
            "positions",
            format!("{group} has none in {topic}/{partition}, or it was lost"),
            format!("--mend sets it to the end, so that {group} does nothing twice; what it had not done yet is left out: at most {start}..{end}"),
        );
    }
    for ((group, topic, partition), next) in &positions.next {
        let end = ranges.get(&(*topic, *partition)).map_or(0, |range| range.end);
        if *next > end {
            report.mendable(
                "positions",
                format!("{group} stands at {next} of {topic}/{partition}, which ends at {end}: it would skip what is appended next"),
                "--mend sets it to the end",
            );
        }
    }
    report.findings.len() == before
}

/// The positions and the snapshots are committed together: if one is behind, what was written last is gone, of all of them.
fn positions_are_older(behind: &[Behind], progress: &Progress<'_>, report: &mut Report) {
    report.positions_are_older = true;
    let held = |Behind { key: (group, topic, partition), position, until }: &Behind| {
        format!("{group} stands at {position} of {topic}/{partition}, and its snapshots hold it up to {until}")
    };
    let said: Vec<String> = behind.iter().map(held).collect();
    let mut left_out = Vec::new();
    for ((topic, partition), range) in &progress.ranges {
        for (group, _) in GROUPS.iter().filter(|(_, reads)| reads == topic) {
            let until = behind.iter().find(|behind| (behind.key.0.as_str(), behind.key.1, behind.key.2) == (*group, *topic, *partition));
            let from = until.map_or(0, |behind| behind.until).max(progress.position(group, *topic, *partition));
            if from < range.end {
                left_out.push(format!("{group} {topic}/{partition} {from}..{}", range.end));
            }
        }
    }
    let left_out = if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") };
    report.mendable(
        "positions",
        format!("they are older than the snapshots: {}; what lies between would be done twice, also by the stages without snapshots", said.join("; ")),
        format!(
            "--mend sets every stage to the end of what it reads, so that nothing is done twice, and keeps the snapshots; what was not done yet is left out, at \
             most: {left_out}"
        ),
    );
}

/// Which of the groups are behind their snapshots.
fn snapshots_are_usable(states: States, progress: &Progress<'_>, report: &mut Report) -> Vec<Behind> {
    if let Some(error) = &states.error {
        let mend = if states.damaged.is_empty() { "--mend writes them anew: as many as were written are found" } else { "--mend keeps all but the following" };
        report.mendable("snapshots", format!("their table cannot be read from end to end: {error}"), mend);
    }
    for ((group, partition), reason) in &states.damaged {
        report.mendable("snapshots", reason.clone(), progress.rebuilt(group, *partition));
    }
    let mut of: BTreeMap<(String, u32), Rows> = BTreeMap::new();
    for (group, partition, key, value) in states.rows {
        of.entry((group, partition)).or_default().push((key, value));
    }
    of.retain(|place, _| !states.damaged.contains_key(place));
    let mut behind = Vec::new();
    for ((group, partition), mut rows) in of {
        rows.sort();
        let (restored, topic) = match group.as_str() {
            Aggregate::NAME => progress.restored::<Aggregate>(&rows, partition),
            Admit::NAME => progress.restored::<Admit>(&rows, partition),
            Decide::NAME => progress.restored::<Decide>(&rows, partition),
            Arbitrate::NAME => progress.restored::<Arbitrate>(&rows, partition),
            _ => {
                let known: BTreeSet<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
                (Err(format!("no stage of this name is known; known are {known:?}").into()), Topic::Signals)
            }
        };
        let end = progress.range(topic, partition).end;
        let unusable = match restored {
            Ok(says) => {
                report.say("snapshots", State::Ok, format!("{group}/{partition}: {says}"));
                continue;
            }
            Err(Unusable::Ahead { until, position }) if position < end => {
                behind.push(Behind { key: (group.clone(), topic, partition), position, until });
                if until <= end {
                    continue;
                }
                format!("they hold the input up to {until}, which ends at {end}")
            }
            Err(unusable) => unusable.to_string(),
        };
        report.mendable("snapshots", format!("{group}/{partition}: {unusable}"), progress.rebuilt(&group, partition));
        report.unusable_states.push((group, partition));
    }
    behind
}

impl Progress<'_> {
    /// What the snapshots of a stage hold, and what it reads.
    fn restored<S: Stage>(&self, rows: &[(String, Vec<u8>)], partition: u32) -> (Result<String, Unusable>, Topic) {
        let restored = snapshots::restore::<S>(rows, self.position(S::NAME, S::INPUT, partition));
        let says = |Restored { round, keys, .. }: Restored<S::State>| match round {
            _ if S::FLUSHES => format!("{keys} that can be restored"),
            Some(round) => format!("{keys} that can be restored; the input is read again from {}", round.replay_from),
            None => format!("{keys} of a round that did not come to its end: the input is read again from its beginning"),
        };
        (restored.map(says), S::INPUT)
    }

    /// What a state that is rebuilt from the records knows, and what not.
    fn rebuilt(&self, group: &str, partition: u32) -> String {
        if group == Aggregate::NAME {
            return "--mend drops them; aggregate forgets which messages it has taken: a request that was taken before counts once more where it is sent again"
                .to_owned();
        }
        let Some((_, input)) = GROUPS.iter().find(|(name, _)| *name == group) else {
            return "--mend drops them: no stage has this name".to_owned();
        };
        let found = self.partitions.iter().find(|p| (p.topic, p.partition) == (*input, partition));
        let since = match found.and_then(|p| Some((p.range.start, p.times?.0))) {
            // It is told with the records which those are.
            _ if found.is_some_and(|p| !p.lost.is_empty()) => {
                format!("what is left of {input}/{partition}; what is lost of it, as said above, is not known then")
            }
            Some((0, first)) => format!("the whole of {input}/{partition}, which begins at {first}: nothing is missing then"),
            Some((start, first)) => format!(
                "{input}/{partition} from offset {start} on, appended at {first}; what came before is not known then: cooldowns and windows that began earlier, \
                 policies announced earlier (they come again within a day)"
            ),
            None => format!("{input}/{partition}, which is empty"),
        };
        format!("--mend drops them; {group} rebuilds its state from {since}")
    }
}
