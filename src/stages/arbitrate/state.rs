//! The fleets of a partition of `requests`, and their snapshots.
//!
//! A fleet is one key: pacing ties its targets together, so what is restored of them must be of one position.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::fleet::Fleet;
use crate::log::Offset;
use crate::model::json;
use crate::model::{CarriedState, FleetName, NameError};
use crate::stages::Snapshot;
use crate::stages::carried::NotCarried;

const KEY_PREFIX: &str = "fleet:";

/// What the arbiter remembers.
#[derive(Debug, Clone, Default)]
pub struct State {
    fleets: BTreeMap<FleetName, Held>,
    changed: BTreeSet<String>,
    /// Fleets of which nothing was left when the last round began. That round says so; the next one deletes them.
    emptied: BTreeSet<FleetName>,
    /// Fleets that the round under way deletes: the last one has said that nothing is left.
    deleted: BTreeSet<FleetName>,
}

/// A fleet and the first offset that its snapshot did not hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Held {
    through: Offset,
    fleet: Fleet,
}

/// The fleet that a key of the snapshots is of.
fn name_of(key: &str) -> Result<FleetName, String> {
    let name = key.strip_prefix(KEY_PREFIX).ok_or_else(|| format!("key \"{key}\" is not {KEY_PREFIX}NAME"))?;
    name.parse().map_err(|e: NameError| e.to_string())
}

impl State {
    /// Whether there is no fleet.
    pub(super) fn is_empty(&self) -> bool {
        self.fleets.is_empty()
    }

    /// The fleets that there are.
    pub(super) fn names(&self) -> Vec<FleetName> {
        self.fleets.keys().cloned().collect()
    }

    /// Applies the record at `offset` to a fleet, unless the fleet's snapshot already holds it.
    /// A fleet of which nothing is left is forgotten.
    pub(super) fn with(&mut self, name: &FleetName, offset: Offset, apply: impl FnOnce(&mut Fleet)) {
        let held = self.fleets.entry(name.clone()).or_default();
        if offset < held.through {
            return;
        }
        apply(&mut held.fleet);
        if held.fleet.is_empty() {
            self.fleets.remove(name);
        }
        self.changed.insert(format!("{KEY_PREFIX}{name}"));
    }
}

impl State {
    /// Goes on from what another installation remembered of a fleet, or a part of it, where nothing is known of that here.
    pub(super) fn carry(&mut self, carried: &CarriedState) -> Result<(), NotCarried> {
        let name = name_of(&carried.key).map_err(NotCarried::Unreadable)?;
        let saved = saved_of(&name, carried.state.as_bytes()).map_err(NotCarried::Unreadable)?;
        let all = self.fleets.entry(name).or_default().fleet.carry(saved.fleet);
        self.changed.insert(carried.key.clone());
        if all { Ok(()) } else { Err(NotCarried::Known) }
    }
}

/// So many claims go over in one record: 160 kB at rest, and less than a record may have with a command in flight for each.
const CLAIMS_CARRIED: usize = 500;

/// The snapshot of a fleet in parts, each of which a record can have.
///
/// # Errors
/// The reason, where it cannot be read.
pub fn parts(key: &str, state: &str) -> Result<Vec<String>, String> {
    let saved = saved_of(&name_of(key)?, state.as_bytes())?;
    let part = |fleet| serde_json::to_string(&Held { through: 0, fleet }).map_err(|error| error.to_string());
    Fleet::parts(saved.fleet, CLAIMS_CARRIED).into_iter().map(part).collect()
}

fn saved_of(name: &FleetName, bytes: &[u8]) -> Result<Held, String> {
    json::read_bytes(bytes).map_err(|e| format!("fleet {name} cannot be read: {e}"))
}

impl Snapshot for State {
    fn take_changed(&mut self) -> Vec<String> {
        let mut keys = std::mem::take(&mut self.changed);
        let name = |key: &String| key.strip_prefix(KEY_PREFIX)?.parse::<FleetName>().ok();
        let gone = |name: &FleetName| !self.fleets.contains_key(name);
        let emptied: BTreeSet<FleetName> = keys.iter().filter_map(name).filter(gone).collect();
        self.deleted = std::mem::take(&mut self.emptied).into_iter().filter(|name| gone(name) && !emptied.contains(name)).collect();
        keys.extend(self.deleted.iter().map(|name| format!("{KEY_PREFIX}{name}")));
        self.emptied = emptied;
        keys.into_iter().collect()
    }

    fn encode(&self, key: &str, next: Offset) -> Option<Vec<u8>> {
        let name = key.strip_prefix(KEY_PREFIX)?;
        let fleet = match self.fleets.get(name) {
            Some(held) => held.fleet.to_saved(),
            None if self.deleted.contains(name) => return None,
            // Were it deleted, a restore from a round that was torn would read its past again, on top of nothing.
            None => Fleet::default(),
        };
        serde_json::to_vec(&Held { through: next, fleet }).ok()
    }

    fn restore(&mut self, key: &str, bytes: &[u8]) -> Result<(), String> {
        let name = name_of(key)?;
        let saved = saved_of(&name, bytes)?;
        self.fleets.insert(name, Held { through: saved.through, fleet: Fleet::from_saved(saved.fleet) });
        Ok(())
    }

    fn held_until(&self) -> Offset {
        self.fleets.values().map(|held| held.through).max().unwrap_or(0)
    }

    fn replay_from(&self, next: Offset) -> Offset {
        next
    }
}
