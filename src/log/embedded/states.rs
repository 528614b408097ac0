//! Snapshots in their table. How many each group has of a partition is counted beside them when they are written: a row that
//! a damaged page or index hides is missed.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::checksum;
use super::failure::Failure;
use super::schema::{signed, unsigned};

/// A snapshot: group, partition, key, bytes.
pub type State = (String, u32, String, Vec<u8>);

/// The snapshots of a log, as far as they can be read.
#[derive(Debug, Default)]
pub struct States {
    /// Those that hold what was written.
    pub rows: Vec<State>,
    /// Each group and partition whose snapshots are not all there, and why: what is left of them holds one moment in parts.
    pub damaged: BTreeMap<(String, u32), String>,
    /// Why the table could not be read from its beginning to its end.
    pub error: Option<String>,
}

/// How many snapshots (group, partition) has, as counted when they were written.
pub(super) fn counted(connection: &Connection, group: &str, partition: u32) -> Result<u64, Failure> {
    let mut select = connection.prepare_cached("SELECT count, crc FROM entries WHERE group_name = ?1 AND partition = ?2")?;
    let found: Option<(i64, i64)> = select.query_row(params![group, partition], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((count, crc)) = found.map(|(count, crc)| (unsigned(count), crc)) else { return Ok(0) };
    checksum::holds(|| format!("the number of snapshots of {group}/{partition}"), crc, checksum::of_entries(group, partition, count))?;
    Ok(count)
}

/// Says how many there are now.
pub(super) fn put_count(connection: &Connection, group: &str, partition: u32, count: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO entries (group_name, partition, count, crc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![group, partition, signed(count), checksum::of_entries(group, partition, count)])
        .map(drop)
}

/// That all snapshots were found.
pub(super) fn all_found(group: &str, partition: u32, found: u64, counted: u64) -> Result<(), Failure> {
    if found == counted {
        return Ok(());
    }
    Err(Failure::Lasting(format!("the snapshots of {group}/{partition} are damaged: {found} are found, and {counted} were written")))
}

/// That a snapshot holds what was written.
pub(super) fn holds(group: &str, partition: u32, key: &str, value: &[u8], crc: i64) -> Result<(), Failure> {
    checksum::holds(|| format!("the snapshot of {group}/{partition}, key {key:?},"), crc, checksum::of_state(group, partition, key, value))
}

/// Reads what can be read: by the table, and not by an index, which may hide a row; where it is damaged, from both of its ends.
pub(super) fn read(connection: &Connection) -> States {
    let (mut found, mut damaged) = (BTreeMap::new(), BTreeMap::new());
    let mut error = None;
    for direction in ["ASC", "DESC"] {
        let read = read_table(connection, direction, &mut found, &mut damaged);
        error = error.or(read.err().map(|error| error.to_string()));
        if error.is_none() {
            break;
        }
    }
    let mut states = States { rows: found.into_values().collect(), damaged, error };
    let mut numbers: BTreeMap<(String, u32), u64> = places_counted(connection).into_iter().map(|place| (place, 0)).collect();
    for (group, partition, ..) in &states.rows {
        *numbers.entry((group.clone(), *partition)).or_default() += 1;
    }
    for ((group, partition), found) in numbers {
        if let Err(failure) = counted(connection, &group, partition).and_then(|counted| all_found(&group, partition, found, counted)) {
            // A row that has changed is said before that there is one less.
            states.damaged.entry((group, partition)).or_insert_with(|| failure.reason().to_owned());
        }
    }
    states
}

type Found = BTreeMap<i64, State>;

fn read_table(connection: &Connection, direction: &str, found: &mut Found, damaged: &mut BTreeMap<(String, u32), String>) -> rusqlite::Result<()> {
    let mut select = connection.prepare(&format!("SELECT rowid, group_name, partition, key, value, crc FROM states NOT INDEXED ORDER BY rowid {direction}"))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        // What is not of its column's type any more belongs to nobody: the group that it is of has one less.
        let fields = || -> rusqlite::Result<(i64, State, i64)> { Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?), row.get(5)?)) };
        let Ok((number, state, crc)) = fields() else { continue };
        let (group, partition, key, value) = &state;
        match holds(group, *partition, key, value, crc) {
            Ok(()) => drop(found.insert(number, state)),
            Err(failure) => drop(damaged.entry((group.clone(), *partition)).or_insert_with(|| failure.reason().to_owned())),
        }
    }
    Ok(())
}

/// Of what there is a number.
fn places_counted(connection: &Connection) -> Vec<(String, u32)> {
    let mut places = Vec::new();
    let mut read = || -> rusqlite::Result<()> {
        let mut select = connection.prepare("SELECT group_name, partition FROM entries")?;
        for place in select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            places.extend(place);
        }
        Ok(())
    };
    // What could not be read has no number: its snapshots are more than were written.
    drop(read());
    places
}
