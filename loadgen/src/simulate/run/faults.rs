//! How each fault begins and ends in a run.

use loadline::log::{Log, Offset, RawAppend, Topic};
use loadline::model::Timestamp;
use loadline::runtime::clock::Clock;
use loadline::runtime::snapshots::replays_from;

use super::super::faulty::{Fetched, Slow};
use super::super::scenario::{Fault, Millis, TOPICS};
use super::super::world::{Fleet, Shared};
use super::{Going, Run, Told};

impl Run<'_> {
    fn later(&mut self, lasts: Millis, fault: &Fault) {
        self.ends.push((self.now + lasts, fault.clone()));
    }

    #[allow(clippy::enum_glob_use, reason = "each of its variants is named here")]
    pub(super) fn begin(&mut self, fault: &Fault) {
        use Fault::*;
        let fleet = |world: &Shared, target: usize, change: &dyn Fn(&mut Fleet)| {
            if let Some(fleet) = world.lock().fleets.get_mut(&target) {
                change(fleet);
            }
        };
        match fault {
            Kill { process, after, down, zombie } => {
                if !self.down.contains_key(process) && self.going.is_none() {
                    self.going = Some((*process, *after, *down, Going::Dies(*zombie)));
                }
            }
            Stall { process, part, lasts } => drop(self.stalled.insert((*process, *part), self.now + lasts)),
            KillPart { process, part, down, zombie } => {
                let left = self.processes[*process].kill_part(*part, self.clock.now());
                self.checker.count("parts that died alone");
                self.stalled.insert((*process, *part), self.now + down);
                if let (Some(zombie), Some(late)) = (left, zombie) {
                    self.zombies.push((self.now + late, zombie));
                }
            }
            Leave { process, after, down, cut } => {
                if !self.down.contains_key(process) && self.going.is_none() {
                    self.going = Some((*process, *after, *down, Going::Leaves(*cut)));
                }
            }
            StatesLost { part, partition, lasts } => {
                self.log.faults().lost_states.insert((part.group(), *partition));
                self.later(*lasts, fault);
            }
            CommitsTakeLong { part, looks, how, count, lasts } => {
                self.log.faults().slow.insert(part.group(), Slow { looks: *looks, how: *how, count: *count });
                self.later(*lasts, fault);
            }
            Commits { part, how, count } => self.log.faults().commits.entry(part.group()).or_default().extend(std::iter::repeat_n(*how, *count)),
            Fetches { part, most, lasts } => {
                self.log.faults().fetches.insert(part.group(), Fetched { a_look: *most, left: 0 });
                self.later(*lasts, fault);
            }
            Polls { part, count } => *self.log.faults().polls.entry(part.group()).or_default() += count,
            Headless { topic, partition, lasts } => {
                self.log.faults().last_words.insert((TOPICS[*topic], *partition));
                self.later(*lasts, fault);
            }
            Unreadable { lasts } => {
                self.log.faults().unreadable = true;
                self.later(*lasts, fault);
            }
            Full { lasts } => {
                self.log.faults().full = true;
                self.later(*lasts, fault);
            }
            OpenTransaction { topic, partition, lasts } => {
                drop(self.memory.hold(TOPICS[*topic], *partition));
                self.held_at.insert((*topic, *partition), self.memory.range(TOPICS[*topic], *partition).map_or(0, |range| range.end));
                self.later(*lasts, fault);
            }
            ClockSet { by } => {
                let now = self.clock.now().as_millis() + by;
                self.clock.set(Timestamp::from_millis(now));
                self.checker.count("the clock was set");
                self.checker.clock_set(*by, self.clock.now());
            }
            Appends { how, count } => self.log.faults().appends.extend(std::iter::repeat_n(*how, *count)),
            Retention { topic, partition, unread } => self.trim(TOPICS[*topic], *partition, *unread),
            SizeLimit { bytes, lasts } => {
                self.log.faults().most_bytes = Some(*bytes);
                self.checker.size_limited(*bytes, self.now + lasts);
                self.later(*lasts, fault);
            }
            Poison { topic, partition } => {
                let append = RawAppend { topic: TOPICS[*topic], partition: *partition, key: None, value: vec![0xC3, 0x01, 7, 7, 7] };
                drop(self.memory.append(vec![append]));
            }
            Silent { target, metric, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.silent.push(*metric));
                self.later(*lasts, fault);
            }
            FewTell { target, metric, one_in, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.few.push((*metric, *one_in)));
                self.later(*lasts, fault);
            }
            Late { target, late, lasts, twice } => {
                self.late.insert(*target, (*late, *twice));
                self.later(*lasts, fault);
            }
            Nonsense { target, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.nonsense = true);
                self.later(*lasts, fault);
            }
            Unseen { target, lasts } => {
                self.observing.lost.push(*target);
                self.later(*lasts, fault);
            }
            SeenLate { target, late, lasts } => {
                self.observing.late.insert(*target, *late);
                self.later(*lasts, fault);
            }
            NewTerm { echo } => self.observing.new_term(self.now, *echo),
            ByHand { target, to } => self.world.lock().by_hand(*target, *to),
            Recreated { target, replicas } => {
                self.world.lock().recreate(*target, *replicas);
                self.checker.count("targets that were made anew");
            }
            ActuationFails { target, done, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.failing = Some(*done));
                self.later(*lasts, fault);
            }
            ActuationSlow { target, late, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.slow = Some(*late));
                self.later(*lasts, fault);
            }
            Raced { target, to } => fleet(&self.world, *target, &|fleet| fleet.race = Some(*to)),
            NeverReady { target, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.never_ready = true);
                self.later(*lasts, fault);
            }
            Frozen { target, lasts } => {
                fleet(&self.world, *target, &|fleet| fleet.frozen = true);
                self.later(*lasts, fault);
            }
            PolicyEdited { target, policy } => {
                if self.scenario.targets.iter().any(|t| t.number == *target) {
                    self.policies.specs.insert(*target, Some(policy.spec(*target)));
                    self.checker.policy_edited(*target, policy.as_ref().clone());
                    self.checker.count("policies that were written anew");
                }
                self.policies.due = self.now;
            }
            PolicyBroken { target, lasts } => {
                self.policies.broken.push(*target);
                self.policies.due = self.now;
                self.later(*lasts, fault);
            }
            PolicyGone { target, lasts } => {
                self.policies.specs.entry(*target).and_modify(|spec| *spec = None);
                self.policies.due = self.now;
                self.later(*lasts, fault);
            }
        }
    }

    pub(super) fn end_faults(&mut self, told: &mut Told<'_>) {
        let now = self.now;
        self.down.retain(|_, until| *until > now);
        self.stalled.retain(|_, until| *until > now);
        let (over, lasting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ends).into_iter().partition(|(at, _)| *at <= now);
        self.ends = lasting;
        for (_, fault) in over {
            told.say(|| Some(format!("{now:>7} ms  ends:   {fault:?}")));
            self.over(&fault);
        }
    }

    #[allow(clippy::enum_glob_use, reason = "most of its variants are named here")]
    fn over(&mut self, fault: &Fault) {
        use Fault::*;
        let again = |ends: &[(Millis, Fault)], same: &dyn Fn(&Fault) -> bool| ends.iter().any(|(_, fault)| same(fault));
        let mut hidden = false;
        let mut world = self.world.lock();
        match fault {
            Unreadable { .. } => self.log.faults().unreadable = again(&self.ends, &|f| matches!(f, Unreadable { .. })),
            StatesLost { part, partition, .. } => drop(self.log.faults().lost_states.remove(&(part.group(), *partition))),
            CommitsTakeLong { part, .. } => drop(self.log.faults().slow.remove(part.group())),
            Fetches { part, .. } => drop(self.log.faults().fetches.remove(part.group())),
            Headless { topic, partition, .. } => {
                let lasts = again(&self.ends, &|f| matches!(f, Headless { topic: t, partition: p, .. } if (t, p) == (topic, partition)));
                self.log.faults().headless.retain(|place| lasts || *place != (TOPICS[*topic], *partition));
            }
            Full { .. } => self.log.faults().full = again(&self.ends, &|f| matches!(f, Full { .. })),
            SizeLimit { .. } => self.log.faults().most_bytes = None,
            OpenTransaction { topic, partition, .. } => {
                self.memory.release(TOPICS[*topic], *partition);
                let end = self.memory.range(TOPICS[*topic], *partition).map_or(0, |range| range.end);
                if self.held_at.remove(&(*topic, *partition)).is_some_and(|held_at| end > held_at + 1) {
                    hidden = true;
                }
            }
            Silent { target, metric, .. } => {
                if let Some(fleet) = world.fleets.get_mut(target) {
                    fleet.silent.retain(|place| place != metric);
                }
            }
            FewTell { target, metric, one_in, .. } => {
                if let Some(fleet) = world.fleets.get_mut(target)
                    && let Some(place) = fleet.few.iter().position(|few| few == &(*metric, *one_in))
                {
                    fleet.few.remove(place);
                }
            }
            Late { target, .. } => drop(self.late.remove(target)),
            Unseen { target, .. } => self.observing.lost.retain(|lost| lost != target),
            SeenLate { target, .. } => drop(self.observing.late.remove(target)),
            Nonsense { target, .. } | ActuationFails { target, .. } | ActuationSlow { target, .. } | NeverReady { target, .. } | Frozen { target, .. } => {
                if let Some(fleet) = world.fleets.get_mut(target) {
                    match fault {
                        Nonsense { .. } => fleet.nonsense = false,
                        ActuationFails { .. } => fleet.failing = None,
                        ActuationSlow { .. } => fleet.slow = None,
                        NeverReady { .. } => fleet.never_ready = false,
                        _ => fleet.frozen = false,
                    }
                }
            }
            PolicyBroken { target, .. } => {
                self.policies.broken.retain(|broken| broken != target);
                self.policies.due = self.now;
            }
            PolicyGone { target, .. } => {
                if let Some(policy) = self.checker.policy_of(*target) {
                    self.policies.specs.insert(*target, Some(policy.spec(*target)));
                }
                self.policies.due = self.now;
            }
            _ => {}
        }
        drop(world);
        if hidden {
            self.checker.count("hidden behind an open transaction");
        }
    }

    /// From where a group reads its input again after a restart: what its last complete round says.
    fn read_again_from(&self, group: &str, partition: u32) -> Option<Offset> {
        let states = self.memory.states(group, partition).ok()?;
        let find = |key: &str| Ok(states.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()));
        replays_from(find).ok().flatten()
    }

    /// Retention: what all have read, or with `unread` nearly all.
    fn trim(&mut self, topic: Topic, partition: u32, unread: bool) {
        let group = ["aggregate", "decide", "arbitrate", "actuate", "admit"][TOPICS.iter().position(|t| *t == topic).unwrap_or(0)];
        let Ok(range) = self.memory.range(topic, partition) else { return };
        let read = self.memory.committed(group, topic, partition).ok().flatten().unwrap_or(range.start);
        // What a restart reads again lies before what was read; that belongs to what nobody may remove.
        let needed = if matches!(topic, Topic::Metrics | Topic::Commands) { read } else { self.read_again_from(group, partition).unwrap_or(range.start) };
        let before = if unread { range.end.saturating_sub(2) } else { needed };
        if before > range.start {
            self.checker.count(if before > needed { "retention took what somebody needed" } else { "retention took what nobody needed" });
        }
        // Behind the position that is committed more may have been read.
        let handed = self.log.faults().handed.get(&(group, partition)).copied().unwrap_or(read).max(read);
        // Lost is what somebody has not read, or will have to read again.
        self.checker.trimmed(topic, partition, before, (before > needed).then_some((read, handed)));
        drop(self.memory.trim(topic, partition, before));
    }
}
