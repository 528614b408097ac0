//! One instance of a fleet: where it is in its life, and the rules that need no process to tell.
//!
//! Times on the supervisor's own clock (it never runs back) are [`Moment`]s; what is told to others
//! is in [`Timestamp`]s.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use super::document::Restart;
use super::notes::Note;
use super::procfs::ProcessId;
use crate::model::{self, Amount, InstanceName, Phase, Timestamp};

/// Time since the supervisor was started.
pub(crate) type Moment = Duration;

/// How many ends in a row, each before `restart.resetAfter`, make a crash loop. Three, as one or two
/// may have a cause outside.
pub(crate) const CRASH_LOOP: u32 = 3;

/// One replica.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: InstanceName,
    /// The number in its name: the larger, the newer.
    pub(crate) number: u64,
    pub(crate) port: Option<u16>,
    pub(crate) requests: BTreeMap<String, Amount>,
    /// When its first process was started.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ready: bool,
    pub(crate) ready_changed_at: Timestamp,
    /// How often a process of it was started again.
    pub(crate) restarts: u32,
    /// Ends and failed starts in a row, none of which came after `restart.resetAfter`.
    pub(crate) failures: u32,
    /// What ended it last, or keeps it from starting.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) life: Life,
    pub(crate) leaving: Option<Leaving>,
}

/// What an instance does now.
#[derive(Debug)]
pub(crate) enum Life {
    /// It has no process until then.
    Waiting {
        /// When it is started.
        until: Moment,
    },
    /// It has one.
    Running(Running),
}

/// The process of an instance.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: ProcessId,
    /// Set where this very process of Loadline started it, and so has to reap it.
    pub(crate) child: Option<Child>,
    pub(crate) since: Moment,
    /// Whether it has been healthy since it was started.
    pub(crate) was_healthy: bool,
    pub(crate) failed_probes: u32,
    pub(crate) next_probe: Moment,
    pub(crate) probing: bool,
    /// Whether it was ended by force since it was not healthy in time.
    pub(crate) doomed: bool,
}

/// How far the removal of an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It waits until nobody is sent to it any more.
    Endpoints {
        /// The change of the endpoints that has to be settled.
        change: Option<u64>,
        /// When it is ended all the same.
        until: Moment,
    },
    /// It was asked to end (SIGTERM).
    Asked {
        /// When it is ended by force.
        until: Moment,
    },
    /// It was ended by force (SIGKILL), and again when that has passed.
    Forced {
        /// When it is tried again.
        until: Moment,
    },
}

/// Why an instance is not running as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its process could not be started.
    CannotStart(String),
    /// It ended.
    Ended(String),
    /// It was never healthy within `startup.timeout`.
    NeverHealthy(String),
}

impl Trouble {
    pub(crate) fn words(&self) -> &str {
        match self {
            Trouble::CannotStart(words) | Trouble::Ended(words) | Trouble::NeverHealthy(words) => words,
        }
    }
}

impl Instance {
    /// One that has yet to be started.
    pub(crate) fn new(name: InstanceName, number: u64, port: Option<u16>, requests: BTreeMap<String, Amount>, now: Timestamp) -> Self {
        Instance {
            name,
            number,
            port,
            requests,
            started_at: None,
            ready: false,
            ready_changed_at: now,
            restarts: 0,
            failures: 0,
            trouble: None,
            life: Life::Waiting { until: Moment::ZERO },
            leaving: None,
        }
    }

    /// Its process, where it has one.
    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.life {
            Life::Running(running) => Some(running),
            Life::Waiting { .. } => None,
        }
    }

    /// As [`Instance::running`].
    pub(crate) fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.life {
            Life::Running(running) => Some(running),
            Life::Waiting { .. } => None,
        }
    }

    /// Whether others may be sent to it.
    pub(crate) fn serves(&self) -> bool {
        self.ready && self.leaving.is_none() && self.running().is_some()
    }

    pub(crate) fn set_ready(&mut self, ready: bool, now: Timestamp) {
        if self.ready != ready {
            self.ready = ready;
            self.ready_changed_at = now;
        }
    }

    /// Takes the answer of a probe.
    pub(crate) fn probed(&mut self, healthy: bool, failures: u32, now: Timestamp) {
        let Some(running) = self.running_mut() else { return };
        running.probing = false;
        if healthy {
            running.was_healthy = true;
            running.failed_probes = 0;
            if matches!(self.trouble, Some(Trouble::NeverHealthy(_))) {
                self.trouble = None;
            }
            self.set_ready(true, now);
        } else {
            running.failed_probes = running.failed_probes.saturating_add(1);
            if running.failed_probes >= failures {
                self.set_ready(false, now);
            }
        }
    }

    /// Its process is gone, or could not be started: it waits for the next start.
    pub(crate) fn failed(&mut self, trouble: Trouble, restart: Restart, moment: Moment, now: Timestamp) {
        if self.running().is_some_and(|running| moment.saturating_sub(running.since) >= restart.reset_after) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(trouble);
        self.life = Life::Waiting { until: moment + back_off(restart, self.failures) };
        self.set_ready(false, now);
    }

    /// One that has run long enough starts from the shortest wait again, and has no trouble.
    pub(crate) fn settle(&mut self, restart: Restart, moment: Moment) {
        if self.trouble.is_some() && self.running().is_some_and(|running| moment.saturating_sub(running.since) >= restart.reset_after) {
            self.failures = 0;
            self.trouble = None;
        }
    }

    /// As an observation shows it: one that ended and waits to be started again is Running and not
    /// ready, as a pod in a crash loop is; one that never ran is Pending.
    pub(crate) fn observed(&self) -> model::Instance {
        model::Instance {
            name: self.name.clone(),
            phase: if self.started_at.is_some() { Phase::Running } else { Phase::Pending },
            ready: Some(self.ready),
            deleting: self.leaving.is_some(),
            started_at: self.started_at,
            ready_changed_at: Some(self.ready_changed_at),
            requests: self.requests.clone(),
        }
    }

    /// What is written down about it.
    pub(crate) fn note(&self) -> Note {
        let id = self.running().map(|running| running.id);
        Note {
            name: self.name.as_str().to_owned(),
            port: self.port,
            pid: id.map(|id| id.pid),
            start_ticks: id.map(|id| id.start_ticks),
            started_at: self.started_at,
            ready: self.ready,
            was_healthy: self.running().is_some_and(|running| running.was_healthy),
            ready_changed_at: self.ready_changed_at,
            draining: self.leaving.is_some(),
            restarts: self.restarts,
            requests: self.requests.clone(),
        }
    }
}

/// The wait before the start that follows `failures` (at least 1) failures in a row.
pub(crate) fn back_off(restart: Restart, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    restart.initial.saturating_mul(1 << doublings).min(restart.max)
}

/// Which `count` instances go first: those without a process, then those that are not ready, then
/// the newest.
pub(crate) fn first_to_leave(instances: &BTreeMap<InstanceName, Instance>, count: usize) -> Vec<InstanceName> {
    let mut staying: Vec<&Instance> = instances.values().filter(|instance| instance.leaving.is_none()).collect();
    staying.sort_by_key(|instance| (instance.running().is_some(), instance.ready, std::cmp::Reverse(instance.number)));
    staying.into_iter().take(count).map(|instance| instance.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTART: Restart = Restart { initial: Duration::from_millis(500), max: Duration::from_secs(4), reset_after: Duration::from_secs(60) };
    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn instance(number: u64) -> Instance {
        Instance::new(format!("bots-{number}").parse().unwrap(), number, None, BTreeMap::new(), Timestamp::from_millis(0))
    }

    fn running(number: u64, ready: bool) -> Instance {
        let mut instance = instance(number);
        let id = ProcessId { pid: 1, start_ticks: 1 };
        let running =
            Running { id, child: None, since: Moment::ZERO, was_healthy: ready, failed_probes: 0, next_probe: Moment::ZERO, probing: false, doomed: false };
        instance.life = Life::Running(running);
        instance.started_at = Some(NOW);
        instance.ready = ready;
        instance
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u128> = [1, 2, 3, 4, 5, 40].map(|failures| back_off(RESTART, failures).as_millis()).to_vec();
        assert_eq!(waits, [500, 1000, 2000, 4000, 4000, 4000]);
    }

    #[test]
    fn what_is_not_ready_leaves_first_and_then_the_newest() {
        let all = [running(1, true), running(2, false), running(3, true), instance(4), running(10, true)];
        let all: BTreeMap<_, _> = all.into_iter().map(|instance| (instance.name.clone(), instance)).collect();
        let order: Vec<String> = first_to_leave(&all, 4).into_iter().map(|name| name.to_string()).collect();
        assert_eq!(order, ["bots-4", "bots-2", "bots-10", "bots-3"]);
    }

    #[test]
    fn one_failed_probe_says_nothing_and_so_many_as_allowed_make_it_unready() {
        let mut instance = running(1, false);
        instance.probed(true, 2, NOW);
        assert!(instance.serves());
        instance.probed(false, 2, NOW);
        assert!(instance.serves());
        instance.probed(false, 2, Timestamp::from_millis(2_000));
        assert_eq!((instance.serves(), instance.ready_changed_at), (false, Timestamp::from_millis(2_000)));
        assert!(instance.running().is_some(), "an instance that lost its readiness under load is never restarted for it");
    }

    #[test]
    fn a_crash_loop_is_running_and_not_ready_and_what_never_ran_is_pending() {
        let mut looping = running(1, true);
        looping.failed(Trouble::Ended("exit status: 1".to_owned()), RESTART, Duration::from_secs(1), NOW);
        assert_eq!((looping.observed().phase, looping.observed().ready), (Phase::Running, Some(false)));
        let mut absent = instance(2);
        absent.failed(Trouble::CannotStart("no such command".to_owned()), RESTART, Duration::from_secs(1), NOW);
        assert_eq!((absent.observed().phase, absent.observed().ready), (Phase::Pending, Some(false)));
    }

    #[test]
    fn an_instance_that_ran_long_starts_at_the_shortest_wait_again() {
        let mut instance = running(1, true);
        instance.failures = 9;
        instance.failed(Trouble::Ended("exit status: 1".to_owned()), RESTART, Duration::from_secs(61), NOW);
        assert_eq!(instance.failures, 1);
        assert!(matches!(instance.life, Life::Waiting { until } if until == Duration::from_millis(61_500)));
    }
}
