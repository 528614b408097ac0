//! Who is a member of which group, and who owns which partition: the rules alone, without waiting
//! and without a store.
//!
//! Members, sorted by name, share the partitions in turn. The hand-over is cooperative: a partition
//! that is to move stays with its owner until that one is told so at its next turn; only then may
//! the new owner take it. A member that joins again under its name takes over: the earlier session
//! is fenced and what it held is free.
//!
//! Invariants: a partition of a group has at most one owner; it changes hands only while no commit
//! for it is under way, so that the new owner reads a position that no earlier commit can change.

use std::collections::{BTreeMap, BTreeSet};

use super::{LogError, Membership, Topic};

/// A session, unique in the life of a log.
pub(super) type SessionId = u64;

/// What a session learns at its turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Partitions that it owns no more.
    pub(super) revoked: Vec<u32>,
    /// Partitions that it owns from now on.
    pub(super) assigned: Vec<u32>,
}

/// All groups of a log.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_name: BTreeMap<&'static str, Group>,
    /// Every session that has not left, fenced ones too.
    sessions: BTreeMap<SessionId, (&'static str, String)>,
    newest: SessionId,
}

#[derive(Debug)]
struct Group {
    topic: Topic,
    partitions: u32,
    members: BTreeMap<String, SessionId>,
    owners: BTreeMap<u32, SessionId>,
    /// Partitions for which a commit is under way.
    committing: BTreeSet<u32>,
}

impl Group {
    /// Who should own `partition`.
    fn heir(&self, partition: u32) -> Option<SessionId> {
        let count = self.members.len();
        if count == 0 {
            return None;
        }
        self.members.values().nth(partition as usize % count).copied()
    }
}

impl Groups {
    /// Adds a session; an earlier one of the same name is fenced.
    pub(super) fn join(&mut self, membership: &Membership, partitions: u32) -> Result<SessionId, LogError> {
        let session = self.new_session();
        let Membership { group: name, member, topic } = membership;
        let group = self.by_name.entry(name).or_insert_with(|| Group {
            topic: *topic,
            partitions,
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            committing: BTreeSet::new(),
        });
        if group.topic != *topic {
            return Err(LogError::Fatal { reason: format!("group {name} consumes {}, so its member {member} cannot consume {topic}", group.topic) });
        }
        if let Some(earlier) = group.members.insert(member.clone(), session) {
            group.owners.retain(|_, owner| *owner != earlier);
        }
        self.sessions.insert(session, (name, member.clone()));
        Ok(session)
    }

    /// A number for a session; of no group yet.
    pub(super) fn new_session(&mut self) -> SessionId {
        self.newest += 1;
        self.newest
    }

    /// Takes a session out; what it owned is free. Nothing else happens to a fenced one.
    pub(super) fn leave(&mut self, session: SessionId) {
        let Some((name, member)) = self.sessions.remove(&session) else { return };
        let Some(group) = self.by_name.get_mut(name) else { return };
        if group.members.get(&member) == Some(&session) {
            group.members.remove(&member);
        }
        group.owners.retain(|_, owner| *owner != session);
    }

    /// Gives up what `session` should own no more, and takes what is free and should be its own.
    pub(super) fn turn(&mut self, session: SessionId) -> Result<Changes, LogError> {
        let group = self.live(session, 0)?;
        let mut changes = Changes::default();
        for partition in 0..group.partitions {
            let heir = group.heir(partition);
            match group.owners.get(&partition) {
                Some(&owner) if owner == session && heir != Some(session) => {
                    group.owners.remove(&partition);
                    changes.revoked.push(partition);
                }
                None if heir == Some(session) && !group.committing.contains(&partition) => {
                    group.owners.insert(partition, session);
                    changes.assigned.push(partition);
                }
                _ => {}
            }
        }
        Ok(changes)
    }

    /// Begins a commit for a partition that `session` must own; [`Groups::end`] must follow.
    pub(super) fn begin(&mut self, session: SessionId, partition: u32) -> Result<(), LogError> {
        let fenced = |group: &str| LogError::Fenced { group: group.to_owned(), partition };
        let name = self.sessions.get(&session).map_or("", |(name, _)| name);
        let group = self.live(session, partition)?;
        if group.owners.get(&partition) != Some(&session) {
            return Err(fenced(name));
        }
        group.committing.insert(partition);
        Ok(())
    }

    /// Ends a commit, whatever came of it. The session that may take the partition now, where the
    /// one that committed lost it in the meantime.
    pub(super) fn end(&mut self, group: &str, partition: u32) -> Option<SessionId> {
        let group = self.by_name.get_mut(group)?;
        group.committing.remove(&partition);
        if group.owners.contains_key(&partition) { None } else { group.heir(partition) }
    }

    /// The members of the group that `session` is or was in, itself included.
    pub(super) fn peers(&self, session: SessionId) -> Vec<SessionId> {
        let group = self.sessions.get(&session).and_then(|(name, _)| self.by_name.get(name));
        group.map_or_else(Vec::new, |group| group.members.values().copied().collect())
    }

    /// The sessions that read `partition` of `topic`.
    pub(super) fn readers(&self, topic: Topic, partition: u32) -> impl Iterator<Item = SessionId> {
        self.by_name.values().filter(move |group| group.topic == topic).filter_map(move |group| group.owners.get(&partition).copied())
    }

    /// The session of this name that `member` of `group` has now.
    pub(super) fn session_of(&self, group: &str, member: &str) -> Option<SessionId> {
        self.by_name.get(group)?.members.get(member).copied()
    }

    /// The group of a session that is not fenced.
    fn live(&mut self, session: SessionId, partition: u32) -> Result<&mut Group, LogError> {
        let (name, member) =
            self.sessions.get(&session).ok_or_else(|| LogError::Fatal { reason: "a session was used after it had left its group".to_owned() })?;
        match self.by_name.get_mut(name) {
            Some(group) if group.members.get(member) == Some(&session) => Ok(group),
            _ => Err(LogError::Fenced { group: (*name).to_owned(), partition }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Membership {
        Membership { group: "decide", member: name.to_owned(), topic: Topic::Signals }
    }

    fn changes(revoked: &[u32], assigned: &[u32]) -> Changes {
        Changes { revoked: revoked.to_vec(), assigned: assigned.to_vec() }
    }

    #[test]
    fn a_partition_moves_only_after_its_owner_was_told() {
        let mut groups = Groups::default();
        let a = groups.join(&member("a"), 4).unwrap();
        assert_eq!(groups.turn(a).unwrap(), changes(&[], &[0, 1, 2, 3]));
        let b = groups.join(&member("b"), 4).unwrap();
        assert_eq!(groups.turn(b).unwrap(), changes(&[], &[]), "a still owns them");
        assert_eq!(groups.turn(a).unwrap(), changes(&[1, 3], &[]));
        assert_eq!(groups.turn(b).unwrap(), changes(&[], &[1, 3]));
        groups.leave(a);
        assert_eq!(groups.turn(b).unwrap(), changes(&[], &[0, 2]));
    }

    #[test]
    fn a_partition_does_not_change_hands_while_a_commit_for_it_is_under_way() {
        let mut groups = Groups::default();
        let first = groups.join(&member("a"), 2).unwrap();
        groups.turn(first).unwrap();
        groups.begin(first, 1).unwrap();
        let second = groups.join(&member("a"), 2).unwrap();
        assert_eq!(groups.turn(second).unwrap(), changes(&[], &[0]));
        assert_eq!(groups.end("decide", 1), Some(second), "who waits for it is named");
        assert_eq!(groups.turn(second).unwrap(), changes(&[], &[1]));
        assert!(matches!(groups.begin(first, 1), Err(LogError::Fenced { partition: 1, .. })));
        assert!(matches!(groups.turn(first), Err(LogError::Fenced { .. })));
    }

    #[test]
    fn a_fenced_session_that_leaves_takes_nothing_with_it() {
        let mut groups = Groups::default();
        let first = groups.join(&member("a"), 1).unwrap();
        groups.turn(first).unwrap();
        let second = groups.join(&member("a"), 1).unwrap();
        groups.turn(second).unwrap();
        groups.leave(first);
        groups.begin(second, 0).unwrap();
    }

    #[test]
    fn a_group_consumes_one_topic() {
        let mut groups = Groups::default();
        groups.join(&member("a"), 1).unwrap();
        let other = Membership { topic: Topic::Audit, ..member("b") };
        let refused = groups.join(&other, 1).unwrap_err();
        assert_eq!(refused.to_string(), "group decide consumes signals, so its member b cannot consume audit");
    }
}
