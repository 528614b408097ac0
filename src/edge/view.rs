//! What is known now, in memory: for every target its policy, its replicas, its last decisions and what
//! came of them, its evaluations over time, and its alerts.
//!
//! Fed by [`Tail`] from the topics audit, signals and alerts, and by decide with each evaluation (most change nothing, and are
//! in no topic); asked by the HTTP server, which must answer
//! while the log is busy: no question here touches the log or waits for anything but a map's shard. What
//! is older than the memory is read from the audit topic by [`older`].
//!
//! Invariants: no guard of the map leaves this module (clones do); memory is bounded by
//! [`MAX_STORIES_PER_TARGET`], [`MAX_STORIES`], [`MAX_TARGETS`] and the rooms of `series`; order in answers is by name, never
//! the map's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use crate::edge::api::{Dated, Lag, Series as SeriesAnswer, Story, TargetDetail, TargetStatus};
use crate::model::{
    Alert, AlertState, Audit, Decision, FleetObservation, ManualChange, MetricName, MetricReport, PolicyAnnouncement, Severity, Signal, TargetId, Timestamp,
    WhileBlind,
};
use crate::runtime::clock::Stopwatch;

mod allowed;
mod asked;
mod facts;
mod history;
mod lags;
mod measured;
mod pane_lengths;
mod series;
mod signals;
mod stories;
mod tail;
#[cfg(test)]
pub(crate) mod tests;

pub use allowed::Allowed;
pub use asked::Asked;
use facts::Facts;
pub use history::{gone, latest, next_page, older};
pub use lags::Followed;
use measured::Measured;
use pane_lengths::PaneLengths;
use series::{Room, Seen, Series};
pub use signals::{From as SignalsFrom, SignalsFound, signals_before};
use stories::Stories;
pub use stories::Until;
pub use tail::Tail;

/// The most decisions of a target that are kept: about an hour of one that changes every 20 s.
const MAX_STORIES_PER_TARGET: usize = 200;

/// The most decisions that are kept in all: at about 1.5 kB each, 150 MB.
const MAX_STORIES: usize = 100_000;

/// The fewest decisions of a target that are kept, however many targets there are.
const MIN_STORIES_PER_TARGET: usize = 4;

/// The most targets that are taken; further ones are counted and not shown.
const MAX_TARGETS: usize = 100_000;

/// What is known of one target.
#[derive(Debug, Default)]
struct Known {
    stories: Stories,
    /// The last evaluation, also where it was not written down.
    latest: Option<Decision>,
    series: Series,
    /// What was announced last.
    policy: Option<(PolicyAnnouncement, Facts)>,
    /// The policy before it that could be used, where that one cannot be.
    usable: Option<Facts>,
    fleet: Option<(Timestamp, FleetObservation)>,
    alerts: BTreeMap<(String, String), Alert>,
}

/// For how long what was seen of the stages is shown: longer than a look takes, also where it waits for a broker that moved.
const LAG_HOLDS: Duration = Duration::from_secs(10);

/// How far behind each stage was when it was seen last.
#[derive(Debug, Default)]
struct KnownLag {
    /// By stage; empty until it was seen once.
    of_each: BTreeMap<&'static str, SeenLag>,
    /// The stages that are looked at, and since when.
    looks_at: Option<(Vec<&'static str>, Timestamp, Stopwatch)>,
    /// Why a stage was not seen when it was looked last.
    reason: Option<String>,
}

#[derive(Debug)]
struct SeenLag {
    lag: Vec<Lag>,
    at: Timestamp,
    age: Stopwatch,
}

/// What is known now.
#[derive(Debug, Default)]
pub struct View {
    targets: DashMap<TargetId, Known>,
    measured: Measured,
    /// How many targets there are: counting the map would take every shard.
    count: AtomicUsize,
    beyond: AtomicU64,
    general: Mutex<BTreeMap<(String, String), Alert>>,
    lag: Mutex<KnownLag>,
    pane_lengths: Mutex<PaneLengths>,
    /// How many of the followed topics have been read to their end once.
    caught_up: AtomicUsize,
    /// When the last of them was.
    caught_up_at: OnceLock<Timestamp>,
    /// Whether audit reaches further back than it was read.
    audit_is_cut: AtomicBool,
}

impl View {
    /// Nothing known yet.
    pub fn new() -> Self {
        View::default()
    }

    /// Takes an entry of audit that the log appended at `at`.
    pub fn audit(&self, at: Timestamp, audit: Audit) {
        let kept = self.stories_per_target();
        match audit {
            Audit::Decision(decision) => {
                let room = self.room(&decision);
                self.change(&decision.target.clone(), |known| {
                    known.evaluated(&decision, room, false);
                    known.stories.decision(decision, kept);
                });
            }
            Audit::Grant(grant) => self.change(&grant.target.clone(), |known| known.stories.grant(at, grant)),
            Audit::Command(command) => self.change(&command.target.clone(), |known| known.stories.command(at, command)),
            Audit::Outcome(outcome) => self.change(&outcome.target.clone(), |known| known.stories.outcome(at, outcome)),
            Audit::ByHand(change) => self.change(&change.target.clone(), |known| known.stories.by_hand(at, change)),
            Audit::Policy(policy) => self.policy(policy),
            // A refused document is an alert, which comes by its own topic.
            Audit::Rejected(_) => {}
        }
    }

    /// Takes an evaluation that decide has just made, or made again after a restart.
    pub fn evaluated(&self, decision: &Decision) {
        self.measured.evaluated(decision);
        let room = self.room(decision);
        self.change(&decision.target, |known| known.evaluated(decision, room, true));
    }

    /// When each metric of a target's policy was last measured, as far as that was seen since the start.
    pub fn measured(&self, target: &TargetId) -> BTreeMap<MetricName, Timestamp> {
        self.measured.of(target)
    }

    /// Takes a signal that the log appended at `at`.
    pub fn signal(&self, at: Timestamp, signal: Signal) {
        match signal {
            Signal::Fleet(fleet) => self.change(&fleet.target.clone(), |known| {
                let older = known.fleet.as_ref().is_some_and(|(_, f)| f.uid == fleet.uid && (f.term, f.sequence) > (fleet.term, fleet.sequence));
                if !older {
                    known.fleet = Some((at, fleet));
                }
            }),
            Signal::Policy(policy) => self.policy(policy),
            Signal::Part(part) => self.measured.part(&part),
            Signal::Mark(mark) => self.pane_lengths.lock().unwrap_or_else(PoisonError::into_inner).mark(at, &mark),
            // Grants and outcomes come by audit, in order with their decision.
            Signal::Tick(_) | Signal::Outcome(_) | Signal::Grant(_) | Signal::SourceError(_) | Signal::Carried(_) => {}
        }
    }

    /// Takes an alert.
    pub fn alert(&self, alert: Alert) {
        let put = |alerts: &mut BTreeMap<(String, String), Alert>, alert: Alert| {
            let key = (alert.name.clone(), alert.subject.clone());
            match alert.state {
                // An event is kept until the same happens again; whoever shows it looks at its age.
                AlertState::Firing | AlertState::Event => drop(alerts.insert(key, alert)),
                AlertState::Resolved => drop(alerts.remove(&key)),
            }
        };
        match alert.target.clone() {
            Some(target) => self.change(&target, |known| put(&mut known.alerts, alert)),
            None => put(&mut self.general.lock().unwrap_or_else(PoisonError::into_inner), alert),
        }
    }

    /// Every target's status, by name.
    pub fn statuses(&self) -> Vec<TargetStatus> {
        let mut all: Vec<TargetStatus> =
            self.targets.iter().filter(|entry| entry.value().is_shown()).map(|entry| entry.value().status(entry.key(), self.is_caught_up())).collect();
        all.sort_by(|a, b| a.target.cmp(&b.target));
        all
    }

    /// The alerts that concern no target.
    pub fn general_alerts(&self) -> Vec<Alert> {
        self.general.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One target in detail; `None` where it is not known.
    pub fn detail(&self, target: &TargetId) -> Option<TargetDetail> {
        let known = self.targets.get(target)?;
        Some(TargetDetail {
            status: known.status(target, self.is_caught_up()),
            fleet: known.fleet.as_ref().map(|(_, fleet)| fleet.clone()),
            policy: known.policy.as_ref().and_then(|(p, _)| p.spec.clone()),
            last: known.stories.newest(1, None).and_then(|mut stories| stories.pop()),
        })
    }

    /// The last `limit` decisions of a target that were made by `until`, the newest last.
    /// `None` where memory does not reach back far enough to say; [`older`] does then.
    pub fn decisions(&self, target: &TargetId, limit: usize, until: Option<Until>) -> Option<Vec<Story>> {
        self.targets.get(target)?.stories.newest(limit, until)
    }

    /// A target's evaluations of `from..=to`, as far as memory goes; `None` where it is not known.
    pub fn series(&self, target: &TargetId, from: Timestamp, to: Timestamp) -> Option<SeriesAnswer> {
        let known = self.targets.get(target)?;
        Some(known.series.answer(target.clone(), from, to, known.in_force()))
    }

    /// What people set by hand since the last decision about a target.
    pub fn by_hand(&self, target: &TargetId) -> Vec<Dated<ManualChange>> {
        self.targets.get(target).map(|known| known.stories.since().to_vec()).unwrap_or_default()
    }

    /// Whether the target is known.
    pub fn knows(&self, target: &TargetId) -> bool {
        self.targets.contains_key(target)
    }

    /// The names of all targets, in order.
    pub fn names(&self) -> Vec<TargetId> {
        let mut names: Vec<TargetId> = self.targets.iter().map(|entry| entry.key().clone()).collect();
        names.sort();
        names
    }

    /// How far behind each stage was when it was last looked at, at most 10 s ago; not those of which nothing was seen for so long.
    pub fn lag(&self) -> Vec<Lag> {
        let known = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        known.of_each.values().filter(|seen| seen.age.elapsed() < LAG_HOLDS).flat_map(|seen| seen.lag.clone()).collect()
    }

    /// That this is not known of a stage, where it has not been for so long.
    pub fn lag_unknown(&self) -> Option<Alert> {
        let known = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        let (stages, began, looking) = known.looks_at.as_ref()?;
        let unseen = |stage: &&str| match known.of_each.get(stage) {
            Some(seen) => (seen.age.elapsed() >= LAG_HOLDS).then_some(seen.at),
            None => (looking.elapsed() >= LAG_HOLDS).then_some(*began),
        };
        let at = stages.iter().filter_map(unseen).min()?;
        let unseen: Vec<&str> = stages.iter().filter(|stage| unseen(stage).is_some()).copied().collect();
        let unseen = unseen.join(", ");
        let reason = known.reason.as_deref().unwrap_or("the log does not answer");
        let message = format!("how far {unseen} has come, and who has its partitions, is not known since {at}: {reason}");
        let (name, subject) = ("StagesUnseen".to_owned(), "view".to_owned());
        Some(Alert { target: None, name, subject, severity: Severity::Warning, state: AlertState::Firing, message, at })
    }

    /// That `metrics` is aggregated in panes of several lengths, where it is.
    pub fn panes_differ(&self) -> Option<Alert> {
        self.pane_lengths.lock().unwrap_or_else(PoisonError::into_inner).alert()
    }

    /// How many changes concerned targets beyond the limit of [`MAX_TARGETS`].
    pub fn beyond_limit(&self) -> u64 {
        self.beyond.load(Ordering::Relaxed)
    }

    /// Whether everything that was in the log at the start has been read.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up_at.get().is_some()
    }

    fn policy(&self, policy: PolicyAnnouncement) {
        if policy.spec.is_none() {
            self.measured.remove(&policy.target);
        }
        self.change(&policy.target.clone(), |known| {
            // Audit and signals both carry announcements, each in order: the older of the two is no news. Where a removed target was forgotten, another
            // source counts anew.
            let same = |p: &PolicyAnnouncement| p.spec.is_some() || p.order.source == policy.order.source;
            let stale = |p: &PolicyAnnouncement| same(p) && p.order.generation > policy.order.generation;
            if !known.policy.as_ref().is_some_and(|(p, _)| *p == policy || stale(p)) {
                let facts = Facts::of(&policy.target, &policy);
                let before = known.policy.take().map(|(_, before)| before).filter(|before| before.usable).or(known.usable.take());
                known.usable = before.filter(|_| policy.spec.is_some() && !facts.usable);
                known.policy = Some((policy, facts));
            }
        });
    }

    fn room(&self, decision: &Decision) -> Room {
        Room::of(self.count.load(Ordering::Relaxed), decision.metrics.len())
    }

    fn change(&self, target: &TargetId, change: impl FnOnce(&mut Known)) {
        if let Some(mut known) = self.targets.get_mut(target) {
            return change(&mut known);
        }
        if self.count.load(Ordering::Relaxed) >= MAX_TARGETS {
            self.beyond.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut known = self.targets.entry(target.clone()).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            Known::default()
        });
        change(&mut known);
    }

    fn stories_per_target(&self) -> usize {
        (MAX_STORIES / self.count.load(Ordering::Relaxed).max(1)).clamp(MIN_STORIES_PER_TARGET, MAX_STORIES_PER_TARGET)
    }

    /// From `now` on it is looked how far these stages are.
    fn looks_at_lag(&self, stages: Vec<&'static str>, now: Timestamp) {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner).looks_at = Some((stages, now, Stopwatch::start()));
    }

    /// What was seen of a stage at `now`.
    fn set_lag(&self, stage: &'static str, lag: Vec<Lag>, now: Timestamp) {
        let mut known = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        known.of_each.insert(stage, SeenLag { lag, at: now, age: Stopwatch::start() });
    }

    /// Why a stage was not seen in this look, where one was not.
    fn lag_not_seen(&self, reason: Option<String>) {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner).reason = reason;
    }

    fn one_caught_up(&self, now: Timestamp) {
        if self.caught_up.fetch_add(1, Ordering::AcqRel) + 1 == tail::FOLLOWED_TOPICS {
            self.caught_up_at.get_or_init(|| now);
        }
    }

    fn audit_is_cut(&self) {
        self.audit_is_cut.store(true, Ordering::Relaxed);
    }
}

/// The names of metrics without a usable value that mean this.
fn blind(metrics: &[MetricReport], means: impl Fn(WhileBlind) -> bool) -> Vec<String> {
    metrics.iter().filter(|m| m.status.is_blind() && means(m.while_blind)).map(|m| m.name.to_string()).collect()
}

fn ready(fleet: &FleetObservation) -> u32 {
    u32::try_from(fleet.instances.iter().filter(|i| i.ready == Some(true) && !i.deleting).count()).unwrap_or(u32::MAX)
}

/// What cannot be used here is in force where it was decided by: by a newer release. Else the one before it holds on.
fn in_force<'a>(announced: Option<&'a (PolicyAnnouncement, Facts)>, before: Option<&'a Facts>, latest: Option<&Decision>) -> Option<&'a Facts> {
    let (policy, facts) = announced?;
    let is_used = || latest.is_some_and(|latest| latest.policy_version == facts.version);
    if policy.spec.is_none() || facts.usable || is_used() { Some(facts) } else { before }
}

impl Known {
    /// Takes an evaluation: the last one is what the status says. A clock that was set back counts on from there.
    fn evaluated(&mut self, decision: &Decision, room: Room, live: bool) {
        let seen = self.fleet.as_ref().filter(|_| live).map(|(_, fleet)| Seen { current: fleet.desired, ready: ready(fleet) });
        let in_force = in_force(self.policy.as_ref(), self.usable.as_ref(), Some(decision));
        self.series.take(decision, seen, in_force, room);
        if live || self.latest.as_ref().is_none_or(|latest| (latest.at, latest.sequence) <= (decision.at, decision.sequence)) {
            self.latest = Some(decision.clone());
        }
    }

    /// How many instances were ready when the replicas were last observed.
    fn ready(&self) -> Option<u32> {
        self.fleet.as_ref().map(|(_, fleet)| ready(fleet))
    }

    /// A target whose policy was removed and whose replicas nobody sees any more is history.
    fn is_shown(&self) -> bool {
        let removed = self.policy.as_ref().is_some_and(|(p, _)| p.spec.is_none());
        !removed || self.fleet.is_some() || !self.alerts.is_empty()
    }

    /// The facts of the policy that is decided by, as far as it is known.
    fn in_force(&self) -> Option<&Facts> {
        in_force(self.policy.as_ref(), self.usable.as_ref(), self.latest.as_ref())
    }

    /// Where all was read that was there at the start (`is_read`), what is not known is not there.
    fn status(&self, target: &TargetId, is_read: bool) -> TargetStatus {
        let facts = self.in_force();
        let off = facts.is_some_and(|facts| facts.off);
        // Nothing stands of a policy that is off, or gone.
        let removed = self.policy.as_ref().is_some_and(|(p, _)| p.spec.is_none());
        let decision = self.latest.as_ref().filter(|_| !off && !removed);
        let metrics: Vec<MetricReport> = decision.map(|d| d.metrics.clone()).unwrap_or_default();
        let advised = decision.is_some_and(|d| d.advised);
        let observed = self.fleet.as_ref().map(|(_, fleet)| fleet);
        TargetStatus {
            target: target.clone(),
            role: facts.and_then(|facts| facts.role.clone()),
            mode: facts.and_then(|facts| facts.mode.clone()),
            min: facts.and_then(|facts| facts.min),
            max: facts.and_then(|facts| facts.max),
            current: observed.map(|f| f.desired).or_else(|| decision.filter(|_| !advised).map(|d| d.current)),
            desired: decision.map(|d| d.desired),
            ready: self.ready(),
            seen_at: self.fleet.as_ref().map(|(at, _)| *at),
            verdict: decision.map(|d| d.verdict),
            binding: decision.map(|d| d.binding),
            reason: match decision {
                _ if off => "its policy's mode is Off: nothing is decided".to_owned(),
                Some(decision) => crate::wire::words::sentence(decision),
                None => self.without_decision(is_read).to_owned(),
            },
            at: decision.map(|d| d.at),
            through: decision.and_then(Decision::measured_through),
            blind: blind(&metrics, |effect| matches!(effect, WhileBlind::HoldIn | WhileBlind::Other)),
            blind_ignored: blind(&metrics, |effect| matches!(effect, WhileBlind::Ignore | WhileBlind::Observe)),
            metrics,
            alerts: self.alerts.values().cloned().collect(),
            frozen: None,
        }
    }

    /// Why there is no decision yet.
    fn without_decision(&self, is_read: bool) -> &'static str {
        match (&self.policy, &self.fleet) {
            (Some((policy, _)), _) if policy.spec.is_none() => "its policy was removed: its replicas stay as they are",
            (Some(_), _) if self.in_force().is_none() => "the policy that was announced for it cannot be used, and there was none before: nothing is decided",
            (Some(_), None) => "its replicas have not been seen yet: is there such a target?",
            (Some(_), Some(_)) => "no decision yet",
            (None, _) if !is_read => "what policy it has is not known yet: the log is still being read",
            (None, _) => "no policy names it",
        }
    }
}
