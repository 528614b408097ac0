//! Takes over the instances that an earlier process of Loadline left running.

use std::io;
use std::time::Duration;

use super::super::condition::Condition;
use super::super::group::{self, Running as Found};
use super::super::instance::{Instance, Leaving, Life, Moment, Running};
use super::super::notes::Note;
use super::super::procfs;
use super::{ENDPOINTS_WAIT, Supervisor};
use crate::edge::events::{Fleet, OfFleet};
use crate::model::{InstanceName, Timestamp};

/// How often, and after which wait, an instance is looked for that was being started when Loadline
/// ended: between fork and exec its environment is not its own yet, which lasts milliseconds.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Supervisor {
    /// Finds the instances of incarnation `uid`: by the notes, where pid *and* start time are those
    /// of a running process, else by the identity in the environment. What is noted but does not run
    /// is started again; what runs but is not noted is taken over.
    pub(super) fn adopt(&mut self, uid: &str, now: Timestamp) -> io::Result<()> {
        let boot = procfs::boot_id()?;
        let mut notes = self.notes.read();
        let known_before = notes.uid == uid;
        if !known_before {
            notes.instances.clear();
            notes.next = 0;
        }
        let same_boot = notes.boot == boot;
        let noted_process = |note: &Note| note.process().filter(|id| same_boot && procfs::is_running(*id));
        let mut found = group::find(self.target.as_str(), uid)?;
        for _ in 1..LOOKS {
            let between = |note: &Note| note.pid.is_none() && !note.draining && !found.leaders.contains_key(&note.name);
            if !same_boot || !notes.instances.iter().any(between) || !self.shared.bell.pause(LOOK_AGAIN) {
                break;
            }
            found = group::find(self.target.as_str(), uid)?;
        }
        let moment = self.since.elapsed();
        for note in &notes.instances {
            let leader = first_leader(&mut found, &note.name);
            let id = noted_process(note).or(leader.as_ref().map(|leader| leader.id));
            self.take_over(note, id, moment);
        }
        for (name, leaders) in found.leaders {
            let (Some(leader), Ok(known)) = (leaders.first(), name.parse::<InstanceName>()) else { continue };
            if self.instances.contains_key(&known) || notes.instances.iter().any(|note| note.name == name) {
                continue;
            }
            let note = Note {
                name,
                port: leader.port,
                pid: None,
                start_ticks: None,
                started_at: procfs::started_at(leader.id),
                ready: false,
                was_healthy: false,
                ready_changed_at: now,
                draining: false,
                restarts: 0,
                requests: self.spec.requests.clone(),
            };
            self.take_over(&note, Some(leader.id), moment);
        }
        self.next = self.instances.values().map(|instance| instance.number + 1).max().unwrap_or(1).max(notes.next).max(1);
        self.foreign = found.of_others;
        // What fired when Loadline ended may be over: what does not hold now is resolved in the first report.
        if known_before && !self.firing.is_known() {
            let unknown = || "it is not so; whether it was when Loadline ended is not known".to_owned();
            self.firing.add(&Condition::ALL.into_iter().map(|condition| (condition, unknown())).collect());
        }
        let before = self.firing.told().clone();
        self.firing.add(&before);
        self.conditions = before.into_iter().chain(std::mem::take(&mut self.conditions)).collect();
        self.boot = boot;
        self.uid = Some(uid.to_owned());
        let running = self.instances.values().filter(|instance| instance.running().is_some()).count();
        OfFleet { target: &self.target, what: Fleet::Supervised { uid, instances: self.instances.len(), running } }.emit();
        Ok(())
    }

    fn take_over(&mut self, note: &Note, id: Option<procfs::ProcessId>, moment: Moment) {
        // One that was leaving and has left is gone.
        let Ok(name) = note.name.parse::<InstanceName>() else { return };
        if note.draining && id.is_none() {
            return;
        }
        let number = note.name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let mut instance = Instance::new(name.clone(), number, note.port, note.requests.clone(), note.ready_changed_at);
        instance.restarts = note.restarts;
        instance.started_at = note.started_at;
        if let Some(id) = id {
            instance.started_at = note.started_at.or_else(|| procfs::started_at(id));
            // Its readiness stands until a probe says otherwise: a restart of Loadline takes nobody
            // out of the endpoints.
            instance.ready = note.ready;
            instance.life = Life::Running(Running {
                id,
                child: None,
                since: moment,
                was_healthy: note.was_healthy || note.ready,
                failed_probes: 0,
                next_probe: moment,
                probing: false,
                doomed: false,
            });
            instance.leaving = note.draining.then_some(Leaving::Endpoints { change: None, until: moment + ENDPOINTS_WAIT });
        } else if note.ready {
            instance.ready_changed_at = self.clock.now();
        }
        self.instances.insert(name, instance);
    }
}

/// The oldest leader of an instance: a younger one was started by it, and inherited its environment.
fn first_leader(found: &mut Found, name: &str) -> Option<group::Leader> {
    found.leaders.get(name)?.first().cloned()
}
