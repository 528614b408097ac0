//! Who has which partition as a member of a group, as the broker that keeps the group tells it.

use std::time::Duration;

use rdkafka::groups::GroupInfo;

use super::{client, errors};
use crate::log::{LogError, Owners};

/// The owners of `topic`'s partitions, by the names that their clients gave, and where they are. A partition that is being handed over has none.
pub(super) fn owners(asker: &client::Consumer, group: &str, topic: &str, patience: Duration) -> Result<Owners, LogError> {
    let answer = client::members(asker, group, patience).map_err(|error| errors::of_reading(&error))?;
    let mut owners = Owners::new();
    for member in answer.groups().iter().filter(|found| found.name() == group).flat_map(GroupInfo::members) {
        let who = format!("{} at {}", member.client_id(), member.client_host().trim_start_matches('/'));
        let assigned = member.assignment().and_then(|bytes| partitions_of(bytes, topic)).unwrap_or_default();
        owners.extend(assigned.into_iter().map(|partition| (partition, who.clone())));
    }
    Ok(owners)
}

/// The partitions of `topic` in an assignment of Kafka's consumer protocol: a version, then each topic with its partitions. `None` where it is none.
fn partitions_of(assignment: &[u8], topic: &str) -> Option<Vec<u32>> {
    let mut rest = assignment;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let mut number = |bytes: usize| Some(take(bytes)?.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte)));
    let _version = number(2)?;
    let mut found = Vec::new();
    for _ in 0..number(4)? {
        let length = number(2)?;
        let name = (0..length).map(|_| number(1)).collect::<Option<Vec<usize>>>()?;
        let partitions = (0..number(4)?).map(|_| number(4)).collect::<Option<Vec<usize>>>()?;
        if name.iter().copied().eq(topic.bytes().map(usize::from)) {
            found.extend(partitions.into_iter().filter_map(|partition| u32::try_from(partition).ok()));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_of_one_topic_are_read() {
        let assignment =
            [&[0, 1, 0, 0, 0, 2][..], &[0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 9], &[0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 4], &[0, 0, 0, 0]];
        let assignment = assignment.concat();
        assert_eq!(partitions_of(&assignment, "ab"), Some(vec![0, 260]));
        assert_eq!(partitions_of(&assignment, "a"), Some(vec![9]));
        assert_eq!(partitions_of(&assignment, "b"), Some(Vec::new()));
        // What ends early, or counts more than there is, is nothing that could be told.
        for length in 0..assignment.len() - 4 {
            assert_eq!(partitions_of(&assignment[..length], "ab"), None, "{length}");
        }
        assert_eq!(partitions_of(&[0, 1, 255, 255, 255, 255, 0], "ab"), None);
    }
}
