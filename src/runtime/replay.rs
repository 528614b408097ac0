//! Replays signals through decide (and, closed, through arbitrate): the same fold that runs live.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::{Offset, Topic};
use crate::model::{Alert, AlertState, Audit, Command, Decision, Grant, Message, Request, RequestsEntry, Signal, TargetId, Tick, Timestamp};
use crate::stages::arbitrate::{self, Arbitrate};
use crate::stages::decide::{self, AuditWhen, Decide};
use crate::stages::{Effects, Input, Located, Stage};

/// What a signal caused.
#[derive(Debug, Clone, PartialEq)]
pub enum Caused {
    /// A target was evaluated.
    Decision(Decision),
    /// A claim was made.
    Request(Request),
    /// The arbiter answered (closed replays only).
    Grant(Grant),
    /// A command was issued (closed replays only).
    Command(Command),
    /// A policy that cannot be used, or a fault in the program.
    Trouble(Alert),
}

/// A target's history: earlier proposals and applied changes, with their ages at its first evaluation.
type Start = (TargetId, Vec<(Duration, u32)>, Vec<(Duration, i64)>);

/// A replay.
pub struct Replay {
    decide: Decide,
    partitions: BTreeMap<u32, Partition>,
    starts: Vec<Start>,
    arbitrate: Option<(Arbitrate, arbitrate::State, Offset)>,
}

#[derive(Default)]
struct Partition {
    state: decide::State,
    next: Offset,
}

impl Replay {
    /// A replay of signals that were recorded: grants are among them.
    pub fn open() -> Self {
        Replay { decide: Decide { audit: AuditWhen::Always, probe: None }, partitions: BTreeMap::new(), starts: Vec::new(), arbitrate: None }
    }

    /// A replay whose claims are answered by `arbitrate`, so that a simulator outside can close the loop.
    pub fn closed(arbitrate: Arbitrate) -> Self {
        Replay { arbitrate: Some((arbitrate, arbitrate::State::default(), 0)), ..Replay::open() }
    }

    /// A replay whose fold calls `probe` before each piece of work on a target.
    #[must_use]
    pub fn with_probe(mut self, probe: fn(&TargetId, Offset)) -> Self {
        self.decide.probe = Some(probe);
        self
    }

    /// Gives a target a history: earlier proposals and applied changes, with their ages at its first
    /// evaluation.
    pub fn start(&mut self, target: TargetId, proposals: Vec<(Duration, u32)>, events: Vec<(Duration, i64)>) {
        self.starts.push((target, proposals, events));
    }

    /// Folds one signal; what it caused, in order.
    pub fn signal(&mut self, at: Timestamp, partition: u32, signal: Signal) -> Vec<Caused> {
        let mut caused = Vec::new();
        let tick = matches!(signal, Signal::Tick(_));
        self.fold(at, partition, signal, &mut caused);
        if tick {
            self.arbitrate(at, partition, RequestsEntry::Tick(Tick {}), &mut caused);
        }
        caused
    }

    fn fold(&mut self, at: Timestamp, partition: u32, record: Signal, caused: &mut Vec<Caused>) {
        let starts = &self.starts;
        let held = self.partitions.entry(partition).or_insert_with(|| {
            let mut held = Partition::default();
            for (target, proposals, events) in starts {
                held.state.start(target.clone(), proposals.clone(), events.clone());
            }
            held
        });
        let offset = held.next;
        held.next += 1;
        let mut effects = Effects::new();
        self.decide.apply(&mut held.state, Input::Record(Located { partition, offset, at, record }), &mut effects);
        for effect in effects.take() {
            match effect.message {
                Message::Audit(Audit::Decision(decision)) => caused.push(Caused::Decision(decision)),
                Message::Request(request) => {
                    caused.push(Caused::Request(request.clone()));
                    self.arbitrate(at, partition, RequestsEntry::Claim(request), caused);
                }
                Message::Alert(alert) if alert.state == AlertState::Firing && ["PolicyUnusable", "Faulted"].contains(&alert.name.as_str()) => {
                    caused.push(Caused::Trouble(alert));
                }
                _ => {}
            }
        }
    }

    fn arbitrate(&mut self, at: Timestamp, partition: u32, record: RequestsEntry, caused: &mut Vec<Caused>) {
        let Some((stage, state, next)) = &mut self.arbitrate else { return };
        let offset = *next;
        *next += 1;
        let mut effects = Effects::new();
        stage.apply(state, Input::Record(Located { partition: 0, offset, at, record }), &mut effects);
        for effect in effects.take() {
            match effect.message {
                Message::Command(command) => caused.push(Caused::Command(command)),
                Message::Signal(Signal::Grant(grant)) if effect.topic == Topic::Signals => {
                    caused.push(Caused::Grant(grant.clone()));
                    self.fold(at, partition, Signal::Grant(grant), caused);
                }
                _ => {}
            }
        }
    }
}
