//! Admit: what sources say about policies becomes the one policy in force of each target.
//!
//! Whether a policy makes sense is settled before (a source refuses what it cannot resolve) and by decide; admit
//! decides *which* policy a target has, and numbers its changes.
//!
//! # Rules
//!
//! - A source announces its full set in numbered rounds that a `RoundEnd` ends. Only a complete round says anything;
//!   a round that is not newer than the source's last complete one is ignored, and so is one whose number is more than 10 minutes ahead of the
//!   time in milliseconds. While rounds are ignored that are no copies, `PolicyRoundIgnored` fires.
//! - A policy whose content changed, or that comes from another file now, gets the target's next generation and is announced, under the
//!   name of its file. Content is compared as JSON: spaces and the order of fields are no change.
//! - An origin that was refused in a round keeps all of its policies as they were, and fires `PolicyInvalid` until a round
//!   finds it in order (or gone). A source refuses an origin after whatever else it says about it in that round.
//! - A policy that complete rounds lack for 10 s (the first and the last of them at least so far apart) is gone. Removing a
//!   policy by hand (`PolicyRemoved`) acts at once.
//! - Of several policies for one target the oldest is in force; the others are refused with the alert `PolicyConflict`
//!   until they or it are gone, and then the oldest of them follows. A file that was renamed is no conflict: the same content
//!   takes the place of the same source's missing one at once.
//! - Generations of a target only grow, over removals and sources. A removed target is remembered for 7 days, longer
//!   than any signal is kept.
//! - A stage that lost signals asks for all policies (`AnnounceAgain`): each one in force is announced again at once.
//! - Each policy in force is announced again once a day, at a time of the day that the target's name gives, with the next
//!   `RoundEnd` of any source. So nothing depends on a signal that is older than the log keeps.
//!
//! # State
//!
//! A target decides by its own state and the record alone, a source by its own (and remembers its last rounds by
//! offset), so that snapshots of different positions may be restored together.

use crate::log::Topic;
use crate::model::{ControlEntry, PolicyEntry, PolicyRejected, PolicyRemoved, RoundEnd, TargetId, Timestamp};
use crate::stages::carried::NotCarried;
use crate::stages::{Effects, Input, Located, Stage};

mod announce;
mod canonical;
mod source;
mod state;
mod target;

pub use state::State;

use target::Target;

/// The stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admit;

impl Stage for Admit {
    type Record = ControlEntry;
    type State = State;

    const NAME: &'static str = "admit";
    const INPUT: Topic = Topic::Control;

    fn apply(&self, state: &mut State, input: Input<ControlEntry>, effects: &mut Effects) {
        let Input::Record(Located { offset, at, record, .. }) = input else { return };
        let place = Place { offset, at };
        match record {
            ControlEntry::Policy(entry) => offer(state, entry, place),
            ControlEntry::Rejected(rejected) => refuse(state, rejected, place),
            ControlEntry::RoundEnd(end) => complete(state, &end, place, effects),
            ControlEntry::Removed(removed) => remove(state, &removed, place, effects),
            ControlEntry::AnnounceAgain(_) => announce_all(state, place, effects),
            ControlEntry::Carried(carried) => {
                let taken = NotCarried::check_version(carried.version, Admit::VERSION).and_then(|()| state.carry(&carried, offset));
                match (taken, state::target_of(&carried.key)) {
                    (Ok(()), Some(target)) => introduce(state, &target, place, effects),
                    (Ok(()), None) => {}
                    (Err(refused), target) => refused.tell(Admit::NAME, &carried.key, target, at, effects),
                }
            }
        }
    }
}

/// Where and when a record stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    at: Timestamp,
}

/// A source has a policy: it waits for the end of the round.
fn offer(state: &mut State, entry: PolicyEntry, place: Place) {
    if !state.counts(&entry.source, entry.round, place) {
        return;
    }
    let target = entry.target.clone();
    state.with_target(&target, place.offset, |held| {
        held.offer(entry, place.offset);
        false
    });
}

/// A source cannot use one of its origins: what that origin said before stays.
fn refuse(state: &mut State, rejected: PolicyRejected, place: Place) {
    if !state.counts(&rejected.source, rejected.round, place) {
        return;
    }
    for target in state.targets_of(&rejected.source) {
        state.with_target(&target, place.offset, |held| {
            held.keep(&rejected.source, &rejected.origin, rejected.round);
            false
        });
    }
    let name = rejected.source.clone();
    state.with_source(&name, place.offset, |source| source.refuse(rejected));
}

/// A round is complete: what it says takes effect.
fn complete(state: &mut State, end: &RoundEnd, place: Place, effects: &mut Effects) {
    if state.counts(&end.source, end.round, place) {
        for target in state.targets_of(&end.source) {
            state.with_target(&target, place.offset, |held| {
                let before = held.clone();
                held.complete(&target, &end.source, end.round, place, effects);
                differs(&before, held)
            });
        }
        state.with_source(&end.source, place.offset, |source| source.complete(end, place, effects));
    } else {
        state.with_source(&end.source, place.offset, |source| source.ignore(end, place, effects));
    }
    let due = state.due(place.at);
    announce(state, due, place, effects);
}

/// Signals were lost, and policies perhaps with them.
fn announce_all(state: &mut State, place: Place, effects: &mut Effects) {
    let all = state.in_force();
    announce(state, all, place, effects);
}

fn announce(state: &mut State, targets: Vec<TargetId>, place: Place, effects: &mut Effects) {
    for target in targets {
        state.with_target(&target, place.offset, |held| {
            held.announce_again(&target, place.at, effects);
            true
        });
    }
}

/// A policy came from another installation: whoever shows policies here has not heard of it.
fn introduce(state: &mut State, target: &TargetId, place: Place, effects: &mut Effects) {
    state.with_target(target, place.offset, |held| {
        if held.has_policy() {
            held.introduce(target, place.at, effects);
        }
        true
    });
}

/// A person or a tool takes a policy back.
fn remove(state: &mut State, removed: &PolicyRemoved, place: Place, effects: &mut Effects) {
    state.with_target(&removed.target, place.offset, |held| {
        let before = held.clone();
        held.withdraw(&removed.target, &removed.source, place, effects);
        differs(&before, held)
    });
}

/// Whether a target is another one than it was, apart from the marks of rounds under way.
fn differs(before: &Target, after: &Target) -> bool {
    before.without_marks() != after.without_marks()
}

#[cfg(test)]
mod tests;
