//! A claim that waits for its fleet's removals is served as soon as there is room again, not only when it is made anew.

use std::collections::{BTreeMap, BTreeSet};

use loadline::model::{Command, Grant, GrantLimit, Request, TargetId, Timestamp};
use loadline::stages::arbitrate::{Arbitrate, Pacing};

use super::super::scenario::Millis;
use super::{Violation, millis};

/// What the arbiter's clock, and the looks at the log, may take.
const SLACK: Millis = 3_000;
/// A claim waits no longer than this where there is room: far less than the minute after which decide makes it anew.
const SERVED_WITHIN: Millis = 15_000;

pub(super) struct Waiting {
    pacing: Arbitrate,
    /// From here on the arbiter is there.
    calm_at: Millis,
    /// The newest claim of each target.
    claims: BTreeMap<TargetId, Request>,
    /// Those that were told to wait.
    told: BTreeSet<TargetId>,
    /// What each fleet removed, and when that was read.
    removed: BTreeMap<String, Vec<(Millis, u64)>>,
    /// Since when a fleet for which somebody waits has had room.
    room_since: BTreeMap<String, Millis>,
}

impl Waiting {
    pub(super) fn new(pacing: &Arbitrate, calm_at: Millis) -> Self {
        let (claims, told, removed, room_since) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Waiting { pacing: pacing.clone(), calm_at, claims, told, removed, room_since }
    }

    pub(super) fn claim(&mut self, claim: &Request) {
        if self.claims.get(&claim.target).is_none_or(|known| known.epoch <= claim.epoch) {
            self.told.remove(&claim.target);
            self.claims.insert(claim.target.clone(), claim.clone());
        }
    }

    pub(super) fn grant(&mut self, grant: &Grant) {
        let waits = grant.limit == GrantLimit::Removals && grant.command.is_none();
        if waits && self.claims.get(&grant.target).is_some_and(|claim| claim.epoch == grant.epoch) {
            self.told.insert(grant.target.clone());
        } else {
            self.told.remove(&grant.target);
        }
    }

    pub(super) fn command(&mut self, command: &Command, now: Millis) {
        self.told.remove(&command.target);
        if let Some(claim) = self.claims.get(&command.target) {
            let removes = u64::from(command.from.saturating_sub(command.to));
            self.removed.entry(claim.fleet.as_str().to_owned()).or_default().push((now, removes));
        }
    }

    /// After all that was appended by `now`, when the log's clock showed `clock`.
    pub(super) fn look(&mut self, now: Millis, clock: Timestamp) -> Result<(), Violation> {
        let mut room_since = BTreeMap::new();
        for claim in self.told.iter().filter_map(|target| self.claims.get(target)).filter(|claim| clock < claim.expires_at) {
            let Pacing { at_least, period, .. } = self.pacing.fleets.get(&claim.fleet).copied().unwrap_or(self.pacing.pacing);
            let fleet = claim.fleet.as_str();
            let removed = self.removed.get(fleet).map_or(&[][..], Vec::as_slice);
            let spent: u64 = removed.iter().rev().take_while(|(at, _)| now - at <= millis(period) + SLACK).map(|(_, count)| count).sum();
            if spent >= u64::from(at_least) {
                continue;
            }
            let since = self.room_since.get(fleet).copied().unwrap_or(now).max(self.calm_at);
            if now - since > SERVED_WITHIN {
                let details = format!("{spent} were removed from {fleet} lately, {at_least} may always be, and {claim:?} waits since {since} ms");
                return Err(Violation::new("a claim that waits is served when there is room", details));
            }
            room_since.insert(fleet.to_owned(), since);
        }
        self.room_since = room_since;
        Ok(())
    }
}
