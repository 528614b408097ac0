//! What one claim comes to, given what is in flight and what the fleet may still remove.

use crate::model::{GrantLimit, OpenCommand, Timestamp};

use super::fleet::Standing;

/// What is to be done about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Service {
    /// It asks for nothing, or has its command.
    Nothing,
    /// No command; this is how it stands.
    Answer {
        /// The count that it has for now.
        granted: u32,
        /// What kept it from more.
        limit: GrantLimit,
        /// The command in flight that it waits for, or that serves it.
        command: Option<OpenCommand>,
    },
    /// A command.
    Issue {
        /// The count that it sets.
        to: u32,
        /// What kept it from going all the way.
        limit: GrantLimit,
        /// The command in flight that it replaces.
        replaces: Option<OpenCommand>,
        /// How many replicas it removes that count against the fleet's limit.
        removes: u32,
    },
}

/// Serves a claim; `available` is how many replicas the fleet may still remove now.
pub(super) fn serve(standing: &Standing, now: Timestamp, available: u64) -> Service {
    let claim = &standing.claim;
    if !standing.waits() {
        return Service::Nothing;
    }
    let flying = in_flight(standing, now);
    let further_out = flying.is_some_and(|flying| claim.desired > flying.to);
    if claim.desired == claim.current && !further_out {
        return Service::Nothing;
    }
    if let Some(flying) = flying
        && !further_out
    {
        return Service::Answer { granted: flying.to, limit: GrantLimit::None, command: Some(flying.clone()) };
    }
    // What the replaced command removes has been counted, and goes no further by replacing it.
    let counted = flying.map_or(0, |f| f.from.saturating_sub(f.to));
    let uncounted = claim.current.saturating_sub(claim.desired).saturating_sub(counted);
    if uncounted == 0 || !claim.paced {
        return Service::Issue { to: claim.desired, limit: GrantLimit::None, replaces: flying.cloned(), removes: uncounted };
    }
    let removes = uncounted.min(u32::try_from(available).unwrap_or(u32::MAX));
    let to = claim.desired + (uncounted - removes);
    let limit = if removes < uncounted { GrantLimit::Removals } else { GrantLimit::None };
    match flying {
        None if to == claim.current => Service::Answer { granted: to, limit, command: None },
        _ => Service::Issue { to, limit, replaces: flying.cloned(), removes },
    }
}

/// The command that may still be carried out, as far as claim and arbiter know (see the protocol).
fn in_flight(standing: &Standing, now: Timestamp) -> Option<&OpenCommand> {
    let claim = &standing.claim;
    let named = claim.open.as_ref().filter(|open| now < open.expires_at);
    let unheard = standing.issued.as_ref().filter(|own| now < own.command.expires_at && own.uid == claim.uid && own.command.epoch > claim.heard_of);
    unheard.map(|own| &own.command).or(named)
}
