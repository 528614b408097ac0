//! What a target's policy allows, for those who set a count by hand.

use super::facts::Facts;
use super::{Known, View};
use crate::model::{TargetId, Timestamp};

/// What the policy of a target allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// So many replicas.
    Within {
        /// Never fewer.
        min: u32,
        /// Never more.
        max: u32,
        /// The policy's mode.
        mode: String,
        /// Which policy: `source@generation`, as decisions name it.
        version: String,
    },
    /// Any count: there is no policy for it.
    NoPolicy,
    /// That is not known: what was announced has not been read yet, or cannot be read by this version.
    NotKnown,
}

impl View {
    /// What the policy of a target allows, as far as it is known at `now`.
    pub fn allowed(&self, target: &TargetId, now: Timestamp) -> Allowed {
        let known = self.targets.get(target).and_then(|known| known.allowed());
        known.unwrap_or_else(|| if self.policies_are_known(now) { Allowed::NoPolicy } else { Allowed::NotKnown })
    }
}

impl Known {
    /// By its policy; without its announcement an evaluation says at least that there is one. `None` where nothing is known of a policy.
    fn allowed(&self) -> Option<Allowed> {
        let Some((announced, _)) = &self.policy else { return self.latest.as_ref().map(|_| Allowed::NotKnown) };
        let within = |facts: &Facts| {
            let (mode, version) = (facts.mode.clone().unwrap_or_default(), facts.version.clone());
            Some(Allowed::Within { min: facts.min?, max: facts.max?, mode, version })
        };
        Some(match &announced.spec {
            None => Allowed::NoPolicy,
            Some(_) => self.in_force().and_then(within).unwrap_or(Allowed::NotKnown),
        })
    }
}
