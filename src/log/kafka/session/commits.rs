//! The commits of a member: a batch is a transaction of its partition's producer, which is made anew where it died and the partition is still the member's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::super::reach::Reach;
use super::super::transaction::{Beginning, Commit, Done, Ended, Failure, Put, Transactions};
use super::super::{client, errors};
use super::{HEARS, Member, Owned, said_of};
use crate::log::{Batch, LogError, Polled};
use crate::runtime::clock::Stopwatch;

/// So long it is waited whether a member is still one: the group's other partitions wait meanwhile.
const ASKS_WITHIN: Duration = Duration::from_secs(5);

impl Member {
    /// Commits a batch, and notes what came of it. Where its records are not taken `soon` it goes on by itself; one that goes on is waited for so `long`.
    pub(super) fn commit_within(&mut self, batch: &Batch, soon: Duration, long: Duration) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let (group, partition) = (self.membership.group, batch.partition);
        let began = self.owned.get(&partition).and_then(Owned::late_since).unwrap_or_else(Stopwatch::start);
        shared.standing.note_ended(began, || said_of(group, partition), || self.try_commit(batch, soon, long))
    }

    /// Commits a batch, as often as the group changes meanwhile. Since when it has been done.
    fn try_commit(&mut self, batch: &Batch, soon: Duration, long: Duration) -> Result<Stopwatch, LogError> {
        self.shared.check_open()?;
        self.shared.partitions.check_appends(&batch.appends)?;
        let partition = batch.partition;
        // Where it was taken, and perhaps given back, while another one was committed: the next poll tells, and this batch is of the time before.
        if self.later.contains(&Polled::Revoked { partition }) {
            return Err(self.fenced(partition));
        }
        let started = Stopwatch::start();
        loop {
            let Some(owned) = self.owned.get(&partition) else { return Err(self.fenced(partition)) };
            if owned.transactions.is_none() {
                self.revive(partition, if owned.reviving.is_some() { long } else { soon })?;
            }
            match self.transact(batch, soon, long)? {
                Ok(Done { first_at, since }) => {
                    if let Some(at) = first_at {
                        self.shared.clock.heard(at);
                    }
                    return Ok(since);
                }
                Err(Failure::Nothing(error)) => return Err(error),
                Err(Failure::Outside(error)) => {
                    self.look_at_group(partition)?;
                    if started.elapsed() >= self.shared.options.patience {
                        return Err(LogError::Retry { reason: errors::words(&error) });
                    }
                }
                Err(Failure::Dead(error)) => {
                    self.after_death(partition)?;
                    return Err(LogError::Retry { reason: errors::words(&error) });
                }
                Err(Failure::Unknown(error)) => {
                    // Where it cannot be asked now, the next call asks.
                    return Err(match self.after_death(partition) {
                        Err(fenced @ LogError::Fenced { .. }) => fenced,
                        _ => LogError::Unknown { reason: errors::words(&error) },
                    });
                }
            }
        }
    }

    /// Makes a producer in place of one that died, where the partition is still this member's.
    fn revive(&mut self, partition: u32, wait: Duration) -> Result<(), LogError> {
        if self.owned.get(&partition).is_some_and(|owned| owned.reviving.is_none()) {
            self.after_death(partition)?;
            let (woken, id) = (Arc::clone(&self.woken), self.shared.names.transactions(self.membership.group, partition));
            let begins = Transactions::begins(&self.shared.options, &id, move || woken.store(true, Ordering::SeqCst));
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.reviving = Some(begins);
            }
        }
        let Some(owned) = self.owned.get_mut(&partition) else { return Err(self.fenced(partition)) };
        let Some(made) = owned.reviving.as_ref().and_then(|reviving| reviving.ended(wait)) else {
            return Err(LogError::UnderWay { reason: Beginning::WAITS_FOR.to_owned() });
        };
        owned.reviving = None;
        let revived = made?;
        // Again: a process that stood still since it asked has now shut out whoever took the partition meanwhile, and may write nothing. A batch
        // that moves no position is not held against the group.
        if !self.is_member(partition)? {
            self.lose(partition);
            return Err(self.fenced(partition));
        }
        if let Some(owned) = self.owned.get_mut(&partition) {
            (owned.transactions, owned.reach) = (Some(revived), Reach::new());
        }
        Ok(())
    }

    /// Lets the group go on with what it has begun, so that it tells what becomes of a partition: a commit does not wait for a poll to come.
    fn look_at_group(&mut self, partition: u32) -> Result<(), LogError> {
        let mut later = std::mem::take(&mut self.later);
        let looked = self.fetch(HEARS, &mut later);
        // What was taken and given back has begun anew: the batch is of the time before.
        let lost = later.contains(&Polled::Revoked { partition });
        self.later = later;
        if lost { Err(self.fenced(partition)) } else { looked }
    }

    /// Tries a batch once, or goes on with what is under way of it.
    fn transact(&mut self, batch: &Batch, soon: Duration, long: Duration) -> Result<Ended, LogError> {
        let lasting = self.owned.get_mut(&batch.partition).and_then(|owned| owned.lasting.take());
        let commit = match lasting {
            Some(lasting) => match lasting.ended(long) {
                Some(ended) => Commit::Ended(ended),
                None if self.is_lost(batch.partition) => Commit::Ended(lasting.give_up()),
                None => Commit::Lasts(lasting),
            },
            None => self.begin(batch, soon)?,
        };
        let lasting = match commit {
            Commit::Ended(ended) => {
                self.note(batch.partition, &ended);
                return Ok(ended);
            }
            Commit::Lasts(lasting) => lasting,
        };
        let reason = lasting.waits_for.clone();
        if let Some(owned) = self.owned.get_mut(&batch.partition) {
            owned.lasting = Some(lasting);
        }
        Err(LogError::UnderWay { reason })
    }

    /// Whether the producer of a partition has lost the cluster.
    fn is_lost(&mut self, partition: u32) -> bool {
        let owned = self.owned.get_mut(&partition);
        owned.is_some_and(|owned| owned.transactions.as_ref().is_some_and(|transactions| owned.reach.is_lost(transactions.is_lost())))
    }

    /// A producer that commits has not lost the cluster. One that has may fail in any way: another one is made in its place.
    fn note(&mut self, partition: u32, ended: &Ended) {
        let is_lost = ended.is_err() && self.is_lost(partition);
        if let Some(owned) = self.owned.get_mut(&partition) {
            match ended {
                Ok(_) => owned.reach.heard(),
                Err(_) if is_lost => owned.transactions = None,
                Err(_) => {}
            }
        }
    }

    fn begin(&self, batch: &Batch, soon: Duration) -> Result<Commit, LogError> {
        let partition = batch.partition;
        let Some(transactions) = self.owned.get(&partition).and_then(|owned| owned.transactions.as_ref()) else { return Err(self.fenced(partition)) };
        let names = &self.shared.names;
        let appends = batch.appends.iter().map(|append| Put {
            name: names.of(append.topic),
            topic: Some(append.topic),
            partition: append.partition,
            key: append.key.as_deref(),
            value: Some(&append.value),
            headers: self.shared.options.headers(names.of(append.topic), append),
        });
        let states = if batch.states.is_empty() { "" } else { names.states_of(self.membership.group)? };
        let states =
            batch.states.iter().map(|put| Put { name: states, topic: None, partition, key: Some(&put.key), value: put.value.as_deref(), headers: None });
        let puts: Vec<Put<'_>> = appends.chain(states).collect();
        let offsets = batch.position.map(|position| client::one(self.topic(), partition, client::at(position)));
        // As of the beginning of the transaction.
        let group = self.consumer.group_metadata();
        let position = match (offsets, group) {
            (Some(offsets), Some(group)) => Some((offsets, group)),
            (Some(_), None) => return Err(LogError::Retry { reason: "Kafka: the member is not in its group now".to_owned() }),
            (None, _) => None,
        };
        let woken = Arc::clone(&self.woken);
        Ok(transactions.commit(&puts, position, soon, move || woken.store(true, Ordering::SeqCst)))
    }

    /// Whether this member is still in its group: its coordinator is asked, by a transaction that would move a position and is aborted.
    fn is_member(&mut self, partition: u32) -> Result<bool, LogError> {
        let id = format!("{}.asks", self.shared.names.transactions(self.membership.group, partition));
        let asking = Transactions::begins(&self.shared.options, &id, || {}).ended(ASKS_WITHIN);
        let asking = asking.unwrap_or_else(|| Err(LogError::Retry { reason: "Kafka: the broker that keeps the group has not answered".to_owned() }))?;
        let started = Stopwatch::start();
        loop {
            let Some(owned) = self.owned.get(&partition) else { return Ok(false) };
            let offsets = client::one(self.topic(), partition, client::at(owned.next));
            let Some(group) = self.consumer.group_metadata() else { return Ok(false) };
            match asking.would_move(offsets, group, ASKS_WITHIN) {
                Ok(()) => return Ok(true),
                Err(Failure::Outside(error))
                    if error.rdkafka_error_code().is_some_and(errors::is_changing) && started.elapsed() < self.shared.options.patience =>
                {
                    self.look_at_group(partition)?;
                }
                // It may be a member of the next generation: what it has is lost where the group says so, and not before.
                Err(Failure::Outside(error)) if error.rdkafka_error_code().is_some_and(errors::is_changing) => {
                    return Err(LogError::Retry { reason: errors::words(&error) });
                }
                Err(Failure::Outside(_)) => return Ok(false),
                Err(Failure::Nothing(error)) => return Err(error),
                Err(Failure::Dead(error) | Failure::Unknown(error)) => return Err(errors::of_reading(&error)),
            }
        }
    }

    /// After a producer died: whether another one took its partition, or it was only too slow.
    fn after_death(&mut self, partition: u32) -> Result<(), LogError> {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.transactions = None;
        }
        if self.is_member(partition)? {
            return Ok(());
        }
        self.lose(partition);
        Err(self.fenced(partition))
    }
}
