//! How far each group is: written twice, into two tables that share no page.
//!
//! A check sum tells a row that has changed. It does not tell one that is gone (a damaged page hides rows) or one that is
//! older (a page that was not written, or written back): a group whose position is missing or older would do again what
//! it has done. So both tables are compared where the log is opened. A position never goes back, so where they differ the
//! later one is what was written last.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use rusqlite::{Connection, params};

use super::checksum;
use super::failure::Failure;
use super::inspect::topic_of;
use super::schema::{SetUpError, signed, unsigned};
use crate::log::{Offset, Topic};

/// The table that is read from, and the one that it is compared with.
pub(super) const TABLES: [&str; 2] = ["positions", "positions_copy"];

/// A group and a partition of what it reads.
pub type PositionKey = (String, Topic, u32);

/// The earliest and the next offset of each partition.
pub type Ranges = BTreeMap<(Topic, u32), Range<Offset>>;

/// The positions of a log, as far as they can be read.
#[derive(Debug, Default)]
pub struct Positions {
    /// How far each group is: the later one, where the two tables differ.
    pub next: BTreeMap<PositionKey, Offset>,
    /// Where the two tables differ.
    pub differences: Vec<Difference>,
    /// Why a table cannot be read whole: of each, what was met first.
    pub errors: Vec<String>,
}

/// A position that is not the same in both tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose it is.
    pub key: PositionKey,
    /// The next offset, as each of the two tables says it.
    pub said: [Option<Offset>; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, topic, partition) = &self.key;
        let said = |next: Option<Offset>| next.map_or_else(|| "is missing".to_owned(), |next| format!("is {next}"));
        let [first, copy] = self.said;
        write!(f, "the position of {group} in {topic}/{partition} {}, and its copy {}", said(first), said(copy))
    }
}

impl Positions {
    /// Whether both tables could be read whole, and say the same: then a position that is not there was never written.
    pub fn are_sound(&self) -> bool {
        self.differences.is_empty() && self.errors.is_empty()
    }

    /// The positions of `groups` (each with what it reads) that are in neither table, of what has records.
    pub fn missing(&self, groups: &[(&str, Topic)], ranges: &Ranges) -> Vec<PositionKey> {
        let keys = ranges.iter().filter(|(_, range)| range.end > 0).flat_map(|((topic, partition), _)| {
            let readers = groups.iter().filter(move |(_, reads)| reads == topic);
            readers.map(|(group, _)| ((*group).to_owned(), *topic, *partition))
        });
        keys.filter(|key| !self.next.contains_key(key)).collect()
    }

    /// From where each group goes on, so that it does nothing twice: from its position, where that is within its input;
    /// from the end where it may have been lost, or where all `are_older` than what was done.
    pub fn settled(&self, groups: &[(&str, Topic)], ranges: &Ranges, are_older: bool) -> BTreeMap<PositionKey, Offset> {
        let mut settled = self.next.clone();
        if are_older || !self.are_sound() {
            settled.extend(self.missing(groups, ranges).into_iter().map(|key| (key, Offset::MAX)));
        }
        for ((_, topic, partition), next) in &mut settled {
            let end = ranges.get(&(*topic, *partition)).map_or(0, |range| range.end);
            *next = if are_older { end } else { end.min(*next) };
        }
        settled
    }

    fn of(tables: [&BTreeMap<PositionKey, Offset>; 2]) -> Self {
        let mut said: BTreeMap<&PositionKey, [Option<Offset>; 2]> = BTreeMap::new();
        for (number, table) in tables.into_iter().enumerate() {
            for (key, next) in table {
                said.entry(key).or_default()[number] = Some(*next);
            }
        }
        let mut positions = Positions::default();
        for (key, said @ [first, copy]) in said {
            positions.next.extend(first.max(copy).map(|next| (key.clone(), next)));
            if first != copy {
                positions.differences.push(Difference { key: key.clone(), said });
            }
        }
        positions
    }
}

/// Reads what can be read.
pub(super) fn read(connection: &Connection) -> Positions {
    let [(first, error), (copy, of_copy)] = TABLES.map(|table| read_table(connection, table));
    let errors = [error, of_copy].into_iter().zip(TABLES).filter_map(|(error, table)| Some(format!("{table}: {}", error?)));
    Positions { errors: errors.collect(), ..Positions::of([&first, &copy]) }
}

/// Reads all, where both tables are whole and say the same.
pub(super) fn read_whole(connection: &Connection) -> Result<BTreeMap<PositionKey, Offset>, SetUpError> {
    let [(first, error), (copy, of_copy)] = TABLES.map(|table| read_table(connection, table));
    if let Some(error) = error.or(of_copy) {
        return Err(error);
    }
    let positions = Positions::of([&first, &copy]);
    match positions.differences.first() {
        Some(difference) => Err(SetUpError::Damaged(Failure::Lasting(difference.to_string()))),
        None => Ok(positions.next),
    }
}

/// The rows of a table that hold what was written, and the first thing that is wrong with others.
fn read_table(connection: &Connection, table: &str) -> (BTreeMap<PositionKey, Offset>, Option<SetUpError>) {
    let (mut found, mut damaged) = (BTreeMap::new(), None);
    let mut read = || -> rusqlite::Result<()> {
        let mut select = connection.prepare(&format!("SELECT group_name, topic, partition, next, crc FROM {table}"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            match position(table, row) {
                Ok((key, next)) => drop(found.insert(key, next)),
                Err(failure) => damaged = damaged.take().or(Some(failure)),
            }
        }
        Ok(())
    };
    let error = read().err().map(SetUpError::Database).or(damaged.map(SetUpError::Damaged));
    (found, error)
}

fn position(table: &str, row: &rusqlite::Row<'_>) -> Result<(PositionKey, Offset), Failure> {
    let (group, name): (String, String) = (row.get(0)?, row.get(1)?);
    let (partition, next) = (row.get(2)?, unsigned(row.get(3)?));
    let sum = checksum::of_position(table, &group, &name, partition, next);
    // Also of a name that nobody asks for: it was another one.
    checksum::holds(|| format!("the position of {group} in {name}/{partition}"), row.get(4)?, sum)?;
    let topic = topic_of(&name).ok_or_else(|| Failure::Lasting(format!("the position of {group} is in {name}, which is no topic")))?;
    Ok(((group, topic, partition), next))
}

/// One position, from the table that is read from.
pub(super) fn of(connection: &Connection, group: &str, topic: Topic, partition: u32) -> Result<Option<Offset>, Failure> {
    let [table, _] = TABLES;
    let mut select = connection
        .prepare_cached(&format!("SELECT group_name, topic, partition, next, crc FROM {table} WHERE group_name = ?1 AND topic = ?2 AND partition = ?3"))?;
    let mut rows = select.query(params![group, topic.name(), partition])?;
    rows.next()?.map(|row| position(table, row).map(|(_, next)| next)).transpose()
}

/// Writes a position into both tables.
pub(super) fn put(connection: &Connection, group: &str, topic: Topic, partition: u32, next: Offset) -> rusqlite::Result<()> {
    for table in TABLES {
        let crc = checksum::of_position(table, group, topic.name(), partition, next);
        connection
            .prepare_cached(&format!(
                "INSERT INTO {table} (group_name, topic, partition, next, crc) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (group_name, topic, partition) DO UPDATE SET next = excluded.next, crc = excluded.crc"
            ))?
            .execute(params![group, topic.name(), partition, signed(next), crc])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, Offset)]) -> BTreeMap<PositionKey, Offset> {
        rows.iter().map(|(group, next)| (((*group).to_owned(), Topic::Signals, 0), *next)).collect()
    }

    #[test]
    fn of_two_that_differ_the_later_is_what_was_written_last() {
        let positions = Positions::of([&table(&[("a", 5), ("b", 6), ("c", 7)]), &table(&[("a", 5), ("b", 8), ("d", 9)])]);
        assert_eq!(positions.next, table(&[("a", 5), ("b", 8), ("c", 7), ("d", 9)]));
        let said: Vec<String> = positions.differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "the position of b in signals/0 is 6, and its copy is 8",
                "the position of c in signals/0 is 7, and its copy is missing",
                "the position of d in signals/0 is missing, and its copy is 9"
            ]
        );
    }

    /// A group that has not committed yet has no position: it begins at the beginning, if nothing says that one was lost.
    #[test]
    fn who_may_have_lost_its_position_goes_on_at_the_end_and_who_never_had_one_at_the_beginning() {
        let groups = [("a", Topic::Signals), ("never", Topic::Signals), ("idle", Topic::Commands)];
        let ranges = Ranges::from([((Topic::Signals, 0), 3..10), ((Topic::Commands, 0), 0..0)]);
        let sound = Positions { next: table(&[("a", 5), ("beyond", 12)]), ..Positions::default() };
        assert_eq!(sound.settled(&groups, &ranges, false), table(&[("a", 5), ("beyond", 10)]));
        let torn = Positions { errors: vec!["positions: malformed".to_owned()], next: sound.next.clone(), ..Positions::default() };
        assert_eq!(torn.settled(&groups, &ranges, false), table(&[("a", 5), ("beyond", 10), ("never", 10)]));
        assert_eq!(sound.settled(&groups, &ranges, true), table(&[("a", 10), ("beyond", 10), ("never", 10)]));
    }
}
