//! Members of a group whose process on this host was killed, and whose session runs on for a while.
//!
//! A group that changes waits for each of its members until that one's session is over, and who dies while it waits is missed only a whole session after that. So a process that
//! joined at once where one was killed would make the others wait, and gain nothing: the partitions of that one go to nobody before. It joins when the group has forgotten it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::groups::GroupInfo;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::Options;
use super::client::{self, own_name};
use crate::log::coordinator::lock;
use crate::runtime::clock::Stopwatch;

/// How often it is looked whether it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Who does not answer by then is asked again.
const ANSWER: Duration = Duration::from_secs(1);

/// A session that is over is seen so soon.
const MARGIN: Duration = Duration::from_secs(1);

/// The groups, on which brokers, that this process has joined: what bears its number there is itself, and no predecessor.
static JOINED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// What is waited for before a group is joined.
pub(super) struct Predecessor {
    since: Stopwatch,
    looked: Option<Stopwatch>,
    /// No session lasts longer.
    most: Duration,
}

impl Predecessor {
    /// Of a member with these options.
    pub(super) fn new(options: &Options) -> Predecessor {
        let set = options.settings.get("session.timeout.ms").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        Predecessor { since: Stopwatch::start(), looked: None, most: set.unwrap_or(options.session_timeout) + MARGIN }
    }

    /// Whether there is none, or none any more.
    pub(super) fn is_gone(&mut self, options: &Options, asker: &client::Consumer, group: &str) -> bool {
        if self.looked.as_ref().is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return false;
        }
        let this = (options.brokers.clone(), group.to_owned());
        let joined = lock(&JOINED).contains(&this);
        let is_gone = self.since.elapsed() >= self.most || !there_is_one(asker, group, joined);
        if is_gone {
            lock(&JOINED).insert(this);
        } else if self.looked.is_none() {
            tracing::debug!(event = "kafka", group, "joins the group when the session of the one before is over");
        }
        self.looked = Some(Stopwatch::start());
        is_gone
    }
}

/// Whether the group has a member of a process of this host that is there no more. Where nobody answers there may be one: it could not be joined now.
fn there_is_one(asker: &client::Consumer, group: &str, joined: bool) -> bool {
    let Ok(answer) = client::members(asker, group, ANSWER) else { return true };
    let mut members = answer.groups().iter().filter(|found| found.name() == group).flat_map(GroupInfo::members);
    members.any(|member| number_of(member.client_id()).is_some_and(|number| is_killed(number, joined)))
}

/// The number of a process of this host that bears the name which a member has by default.
fn number_of(client_id: &str) -> Option<u32> {
    client_id.strip_prefix(&own_name(""))?.parse().ok()
}

fn is_killed(number: u32, joined: bool) -> bool {
    // In a container the next one has the same number.
    if number == std::process::id() {
        return !joined;
    }
    i32::try_from(number).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_killed_is_told_by_the_number_in_its_name() {
        assert_eq!(number_of(&own_name("17")), Some(17));
        assert_eq!(number_of("loadline-another-host-17"), None);
        assert_eq!(number_of(&own_name("orders")), None, "one with a name of its own");
        let ended = std::process::Command::new("true").spawn().map(|mut child| (child.id(), child.wait())).unwrap();
        assert!(is_killed(ended.0, false));
        assert!(!is_killed(1, false) && !is_killed(std::os::unix::process::parent_id(), false));
        assert!(is_killed(std::process::id(), false), "another one had this number before");
        assert!(!is_killed(std::process::id(), true));
    }
}
