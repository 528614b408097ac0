//! Arbitrate: standing claims of a fleet become grants and commands.
//!
//! It grants growth, paces removals over a fleet, and removes nothing on its own. What a target needs is
//! decide's affair, what the world then does is actuate's; budgets, freezes and overrides come on top of this.
//!
//! # The protocol between decide and arbitrate
//!
//! - The newest claim (by epoch) of a target stands until it expires or is withdrawn; an older or equal epoch is
//!   ignored. A claim past its expiry is neither granted nor counted in the fleet's total.
//! - **One command a claim.** A claim that wants a change gets at most one command, with the claim's epoch and the
//!   id `target#epoch`. A paced claim whose command covers a part only is done with it: its outcome changes
//!   `current`, decide claims anew, and the rest is served on that claim. Where the limit leaves nothing, no command is
//!   issued; the claim waits, and is looked at again with each tick and each claim that could free something.
//! - **One answer a claim.** Each claim that wants a change gets a grant at once, and another one whenever its answer
//!   changes (a waiting claim gets its command), never one a tick. A claim with `desired` equal to `current`, such as
//!   the refresh of a target at rest, asks for nothing and gets no grant, unless a command in flight must be taken back.
//! - **One command in flight a target.** What is in flight is the open command that the claim names; or the last that was
//!   issued, where the claim says that decide had not heard of it, whatever count it shows: that count may be the one that
//!   the command is to bring back. Of another incarnation nothing is in flight. While it is in flight, a claim for the same
//!   count is answered with it; a claim that goes further out (wants more than the command sets) replaces it; any other
//!   waits until decide closes it, or until it expires. Where the world changes all the same, `from` no longer fits and the
//!   actuator refuses.
//! - A command expires 30 s after it was issued, never later than its claim.
//! - Claims that wait are served by priority, the larger first, then by name.
//!
//! # Pacing
//!
//! Over every sliding period no more replicas are removed from a fleet than its limit allows at that moment, counted
//! from commands as they are issued, whatever becomes of them. A command that replaces another sets a larger
//! count than that one, so it removes nothing that was not counted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::Topic;
use crate::model::{Audit, Command, FleetName, Grant, Message, OpenCommand, Request, RequestsEntry, Signal, TargetId, Tick};
use crate::stages::carried::NotCarried;
use crate::stages::{Effects, Input, Stage};

mod fleet;
mod removals;
mod serve;
mod state;

pub use state::{State, parts};

use fleet::{Answer, Fleet, Issued};
use serve::Service;

/// For how long a command may be carried out.
const COMMAND_LIFE: Duration = Duration::from_secs(30);

/// How fast replicas may be removed from a fleet: the larger of two limits, over a sliding period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// In whole percent of the fleet's replicas, rounded down.
    pub percent: u32,
    /// In replicas; what a small fleet may remove.
    pub at_least: u32,
    /// Over how long.
    pub period: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing { percent: 10, at_least: 5, period: Duration::from_secs(60) }
    }
}

impl Pacing {
    /// How many of `total` replicas may go in one period.
    fn limit(&self, total: u64) -> u64 {
        (total.saturating_mul(u64::from(self.percent)) / 100).max(u64::from(self.at_least))
    }
}

/// The stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arbitrate {
    /// The pacing of fleets that are not named in `fleets`.
    pub pacing: Pacing,
    /// The pacing of single fleets.
    pub fleets: BTreeMap<FleetName, Pacing>,
}

impl Stage for Arbitrate {
    type Record = RequestsEntry;
    type State = State;

    const NAME: &'static str = "arbitrate";
    const INPUT: Topic = Topic::Requests;
    const TICK: Option<fn() -> Message> = Some(|| Message::RequestsTick(Tick {}));

    fn needs_ticks(&self, state: &State) -> bool {
        !state.is_empty()
    }

    fn apply(&self, state: &mut State, input: Input<RequestsEntry>, effects: &mut Effects) {
        let Input::Record(located) = input else { return };
        match located.record {
            RequestsEntry::Carried(carried) => {
                let taken = NotCarried::check_version(carried.version, Arbitrate::VERSION).and_then(|()| state.carry(&carried));
                if let Err(refused) = taken {
                    refused.tell(Arbitrate::NAME, &carried.key, None, located.at, effects);
                }
            }
            RequestsEntry::Claim(claim) => {
                let name = claim.fleet.clone();
                let pacing = self.pacing_of(&name);
                state.with(&name, located.offset, |fleet| {
                    fleet.advance(located.at, pacing.period);
                    take(fleet, claim, pacing, effects);
                });
            }
            RequestsEntry::Tick(_) => {
                for name in state.names() {
                    let pacing = self.pacing_of(&name);
                    state.with(&name, located.offset, |fleet| {
                        fleet.advance(located.at, pacing.period);
                        serve_waiting(fleet, pacing, effects);
                    });
                }
            }
        }
    }
}

impl Arbitrate {
    fn pacing_of(&self, fleet: &FleetName) -> Pacing {
        self.fleets.get(fleet).copied().unwrap_or(self.pacing)
    }
}

/// Puts a claim in its place and serves it; where it competes for removals, those that waited longer go by rank.
fn take(fleet: &mut Fleet, claim: Request, pacing: Pacing, effects: &mut Effects) {
    let target = claim.target.clone();
    let competes = claim.paced && claim.desired < claim.current;
    if !fleet.put(claim) {
        return;
    }
    if competes && fleet.available(pacing) > 0 {
        serve_waiting(fleet, pacing, effects);
    } else {
        serve_one(fleet, &target, pacing, effects);
    }
}

fn serve_waiting(fleet: &mut Fleet, pacing: Pacing, effects: &mut Effects) {
    for target in fleet.waiting() {
        serve_one(fleet, &target, pacing, effects);
    }
}

/// Looks at one claim and does what it comes to.
fn serve_one(fleet: &mut Fleet, target: &TargetId, pacing: Pacing, effects: &mut Effects) {
    let Some(standing) = fleet.standing(target) else { return };
    match serve::serve(standing, fleet.now(), fleet.available(pacing)) {
        Service::Nothing => {}
        Service::Answer { granted, limit, command } => {
            let answer = Answer { granted, limit, command: command.as_ref().map(|c| c.id.clone()) };
            if standing.answered.as_ref() != Some(&answer) {
                let claim = &standing.claim;
                append_grant(Grant { target: target.clone(), epoch: claim.epoch, desired: claim.desired, granted, limit, command }, effects);
                fleet.answered(target, answer);
            }
        }
        Service::Issue { to, limit, replaces, removes } => {
            let claim = &standing.claim;
            let open = OpenCommand {
                id: format!("{target}#{}", claim.epoch),
                epoch: claim.epoch,
                from: claim.current,
                to,
                expires_at: (fleet.now() + COMMAND_LIFE).min(claim.expires_at),
            };
            let command = Command {
                id: open.id.clone(),
                target: target.clone(),
                uid: claim.uid.clone(),
                epoch: open.epoch,
                from: open.from,
                to,
                replaced_to: replaces.as_ref().map(|r| r.to),
                replaces: replaces.map(|r| r.id),
                expires_at: open.expires_at,
            };
            let grant = Grant { target: target.clone(), epoch: claim.epoch, desired: claim.desired, granted: to, limit, command: Some(open.clone()) };
            let issued = Issued { uid: claim.uid.clone(), command: open };
            effects.to_key(Topic::Commands, target.as_str(), Message::Command(command.clone()));
            effects.to_key(Topic::Audit, target.as_str(), Message::Audit(Audit::Command(command)));
            append_grant(grant, effects);
            fleet.issued(target, issued, removes);
        }
    }
}

fn append_grant(grant: Grant, effects: &mut Effects) {
    let key = grant.target.as_str().to_owned();
    effects.to_key(Topic::Signals, key.clone(), Message::Signal(Signal::Grant(grant.clone())));
    effects.to_key(Topic::Audit, key, Message::Audit(Audit::Grant(grant)));
}

#[cfg(test)]
mod tests;
