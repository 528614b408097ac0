//! Strategies for every message, for the properties of this module and of others.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::model::policy::Unit;
use crate::model::*;

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,12}|[äß€😀]{1,4}"
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,30}"]
}

/// Policy documents: JSON on one line, as it is read back from a line.
fn spec() -> impl Strategy<Value = String> {
    (any::<u32>(), text()).prop_map(|(n, s)| serde_json::json!({ "replicas": { "min": n }, "note": s }).to_string())
}

/// Any target.
pub(crate) fn target() -> impl Strategy<Value = TargetId> {
    (word(), word(), word()).prop_map(|(a, b, c)| TargetId::new(&a, &b, &c).unwrap())
}

fn metric() -> impl Strategy<Value = MetricName> {
    word().prop_map(|w| w.parse().unwrap())
}

fn instance_name() -> impl Strategy<Value = InstanceName> {
    prop_oneof![1 => Just(InstanceName::none()), 5 => word().prop_map(|w| w.parse().unwrap())]
}

fn fleet_name() -> impl Strategy<Value = FleetName> {
    word().prop_map(|w| w.parse().unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

/// Any amount: all 128 bits, and near zero.
pub(crate) fn amount() -> impl Strategy<Value = Amount> {
    // JSON's reader takes the sign apart, so the one number without a positive twin is left out.
    prop_oneof![((i128::MIN + 1)..=i128::MAX).prop_map(Amount::from_nanos), any::<i32>().prop_map(|n| Amount::from_nanos(i128::from(n)))]
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("finite", |v| v.is_finite())
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Gauge), Just(Kind::Counter), Just(Kind::Delta), Just(Kind::Distribution), Just(Kind::Histogram)]
}

fn histogram_value() -> impl Strategy<Value = HistogramValue> {
    (vec(any::<f64>(), 0..5), vec(any::<i64>(), 0..6), any::<i64>(), finite()).prop_map(|(bounds, counts, count, sum)| HistogramValue {
        bounds: bounds.into_iter().filter(|b| b.is_finite()).collect(),
        counts,
        count,
        sum,
    })
}

/// A sample with every field as it comes, valid or not for its kind.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    (vec(target(), 0..3), metric(), instance_name(), time(), kind(), finite(), option::of(histogram_value()))
        .prop_map(|(targets, metric, instance, time, kind, value, histogram)| Sample { targets, metric, instance, time, kind, value, histogram })
}

/// A sample that ingest takes.
pub(crate) fn valid_sample() -> impl Strategy<Value = Sample> {
    (sample(), vec(target(), 1..3), vec(0_u32..1000, 0..4), vec(0_i64..i64::MAX, 5)).prop_map(|(mut sample, targets, mut steps, counts)| {
        sample.targets = targets;
        sample.histogram = None;
        if sample.kind == Kind::Histogram {
            steps.sort_unstable();
            steps.dedup();
            let bounds: Vec<f64> = steps.into_iter().map(|s| f64::from(s) / 8.0).collect();
            let counts = counts[..=bounds.len()].to_vec();
            sample.histogram = Some(HistogramValue { bounds, counts, count: 7, sum: sample.value });
            sample.value = 0.0;
        }
        sample
    })
}

/// A batch of samples.
pub(crate) fn batch() -> impl Strategy<Value = SampleBatch> {
    (option::of(text()), option::of(any::<i64>()), any::<i64>(), vec(sample(), 0..5)).prop_map(|(producer, sequence, part, samples)| SampleBatch {
        producer,
        sequence,
        part,
        samples,
        unread: 0,
    })
}

fn sketch() -> impl Strategy<Value = Sketch> {
    vec(0.0_f64..1e15, 0..20).prop_map(|values| {
        let mut sketch = Sketch::default();
        for value in values {
            sketch.add(value);
        }
        sketch
    })
}

fn histogram_reading() -> impl Strategy<Value = HistogramReading> {
    (vec(finite(), 0..5), any::<i64>(), amount()).prop_map(|(bounds, count, sum)| HistogramReading {
        counts: (0..=i64::try_from(bounds.len()).unwrap()).collect(),
        bounds,
        count,
        sum,
    })
}

fn reading(kind: Kind) -> BoxedStrategy<Reading> {
    if kind == Kind::Histogram {
        // Only what a line carries of a Histogram.
        return (time(), histogram_reading())
            .prop_map(|(last_at, histogram)| Reading { count: 1, last_at, histogram: Some(Box::new(histogram)), ..Reading::default() })
            .boxed();
    }
    (any::<i64>(), amount(), amount(), amount(), time())
        .prop_map(|(count, sum, max, last, last_at)| Reading { count, sum, max, last, last_at, histogram: None })
        .boxed()
}

fn pane() -> impl Strategy<Value = Pane> {
    kind().prop_flat_map(|kind| {
        (metric(), time(), time(), btree_map(instance_name(), reading(kind), 0..4), option::of(sketch()))
            .prop_map(move |(metric, start, end, instances, sketch)| Pane { metric, kind, start, end, instances, sketch })
    })
}

fn part() -> impl Strategy<Value = Part> {
    (target(), any::<u32>(), vec(pane(), 0..3)).prop_map(|(target, source, panes)| Part { target, source, panes })
}

fn mark() -> impl Strategy<Value = Mark> {
    (any::<u32>(), any::<u32>(), time(), any::<[i64; 5]>()).prop_map(|(source, of, through, [pane_ms, records, late, rejected, repeated])| Mark {
        source,
        of,
        through,
        pane_ms,
        records,
        late,
        rejected,
        repeated,
    })
}

fn instance() -> impl Strategy<Value = Instance> {
    let phase = prop_oneof![Just(Phase::Pending), Just(Phase::Running), Just(Phase::Succeeded), Just(Phase::Failed), Just(Phase::Unknown)];
    (instance_name(), phase, option::of(any::<bool>()), any::<bool>(), option::of(time()), option::of(time()), btree_map(text(), amount(), 0..3)).prop_map(
        |(name, phase, ready, deleting, started_at, ready_changed_at, requests)| Instance {
            name,
            phase,
            ready,
            deleting,
            started_at,
            ready_changed_at,
            requests,
        },
    )
}

fn fleet() -> impl Strategy<Value = FleetObservation> {
    (target(), text(), any::<[i64; 2]>(), option::of(any::<i64>()), any::<[u32; 2]>(), any::<bool>(), vec(instance(), 0..4)).prop_map(
        |(target, uid, [term, sequence], revision, [desired, status_replicas], updating, instances)| FleetObservation {
            target,
            uid,
            term,
            sequence,
            revision,
            desired,
            status_replicas,
            updating,
            instances,
        },
    )
}

fn policy() -> impl Strategy<Value = PolicyAnnouncement> {
    (target(), option::of(spec()), text(), any::<i64>()).prop_map(|(target, spec, source, generation)| PolicyAnnouncement {
        target,
        spec,
        order: Order { source, generation },
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    use OutcomeResult as R;
    let results = [R::Applied, R::Conflict, R::Expired, R::Stale, R::Superseded, R::Rejected, R::Failed, R::Frozen, R::Lost, R::Other];
    (target(), text(), option::of(text()), prop::sample::select(results.to_vec()), option::of(any::<u32>()), option::of(any::<i64>()), option::of(text()))
        .prop_map(|(target, command, uid, result, replicas, revision, error)| Outcome { target, command, uid, result, replicas, revision, error })
}

fn open() -> impl Strategy<Value = OpenCommand> {
    (text(), any::<i64>(), any::<[u32; 2]>(), time()).prop_map(|(id, epoch, [from, to], expires_at)| OpenCommand { id, epoch, from, to, expires_at })
}

fn grant() -> impl Strategy<Value = Grant> {
    let limit = prop::sample::select(vec![GrantLimit::None, GrantLimit::Removals, GrantLimit::Freeze, GrantLimit::Other]);
    (target(), any::<i64>(), any::<[u32; 2]>(), limit, option::of(open())).prop_map(|(target, epoch, [desired, granted], limit, command)| Grant {
        target,
        epoch,
        desired,
        granted,
        limit,
        command,
    })
}

fn source_error() -> impl Strategy<Value = SourceError> {
    (target(), metric(), text()).prop_map(|(target, metric, error)| SourceError { target, metric, error })
}

fn request() -> impl Strategy<Value = Request> {
    let ids = (target(), fleet_name(), any::<i64>(), text());
    (ids, any::<[u32; 3]>(), any::<i32>(), any::<bool>(), option::of(open()), any::<i64>(), time(), any::<bool>()).prop_map(
        |((target, fleet, epoch, uid), [current, desired, min], priority, paced, open, heard_of, expires_at, withdrawn)| Request {
            target,
            fleet,
            epoch,
            uid,
            current,
            desired,
            min,
            priority,
            paced,
            open,
            heard_of,
            expires_at,
            withdrawn,
        },
    )
}

/// Any command.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    (text(), target(), text(), any::<i64>(), any::<[u32; 2]>(), option::of(text()), option::of(any::<u32>()), time()).prop_map(
        |(id, target, uid, epoch, [from, to], replaces, replaced_to, expires_at)| Command {
            id,
            target,
            uid,
            epoch,
            from,
            to,
            replaces,
            replaced_to,
            expires_at,
        },
    )
}

fn metric_report() -> impl Strategy<Value = MetricReport> {
    use MetricStatus as S;
    let status = prop::sample::select(vec![S::Ok, S::Idle, S::NoData, S::Stale, S::Error, S::NonFinite, S::Other]);
    let unit = prop::sample::select(vec![Unit::Seconds, Unit::Bytes, Unit::Cores, Unit::Ratio, Unit::Count]);
    let while_blind = prop::sample::select(vec![WhileBlind::HoldIn, WhileBlind::Ignore, WhileBlind::Observe, WhileBlind::Other]);
    let figures = (option::of(amount()), option::of(amount()), option::of(any::<u32>()), option::of(threshold_report()), any::<bool>());
    (metric(), status, unit, figures, option::of(text()), while_blind).prop_map(|(name, status, unit, figures, note, while_blind)| {
        let (value, target, proposal, threshold, per_second) = figures;
        MetricReport { name, status, unit, value, target, proposal, note, threshold, while_blind, per_second }
    })
}

fn threshold_report() -> impl Strategy<Value = ThresholdReport> {
    use {ThresholdSide as Side, ThresholdWait as Wait};
    let side = prop::sample::select(vec![Side::Above, Side::Between, Side::Below, Side::Other]);
    let waits = prop::sample::select(vec![None, Some(Wait::For), Some(Wait::StartUp), Some(Wait::Other)]);
    (side, option::of(amount()), option::of(amount()), waits, option::of(time()))
        .prop_map(|(side, scale_out_above, scale_in_below, waits, until)| ThresholdReport { side, scale_out_above, scale_in_below, waits, until })
}

/// Every reason there is.
pub(crate) const REASONS: [Reason; 22] = [
    Reason::LargestProposal,
    Reason::NoProposal,
    Reason::BlindMetric,
    Reason::FleetUnseen,
    Reason::HoldWhileBlind,
    Reason::FallbackIfHigher,
    Reason::FallbackStatic,
    Reason::IdleToMin,
    Reason::ScaleOutWindow,
    Reason::ScaleInWindow,
    Reason::ScaleOutRate,
    Reason::ScaleInRate,
    Reason::ScaleOutDisabled,
    Reason::ScaleInDisabled,
    Reason::ScaleOutCooldown,
    Reason::ScaleInCooldown,
    Reason::BelowMin,
    Reason::AboveMax,
    Reason::AboveMaxPaced,
    Reason::ScaledToZeroByHand,
    Reason::OutOnly,
    Reason::Other,
];

fn step_kind() -> impl Strategy<Value = StepKind> {
    use StepKind as K;
    prop::sample::select(vec![K::Combine, K::Fallback, K::Stabilize, K::RateLimit, K::Cooldown, K::Bounds, K::Other])
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop::sample::select(REASONS.to_vec());
    (step_kind(), any::<[u32; 2]>(), reason, option::of(metric()), option::of(any::<u32>()), option::of(time()))
        .prop_map(|(step, [before, after], reason, metric, limit, until)| Step { step, before, after, reason, metric, limit, until })
}

/// Any decision, sensible or not.
pub(crate) fn decision() -> impl Strategy<Value = Decision> {
    use Verdict as V;
    let verdict = prop::sample::select(vec![V::ScaleOut, V::ScaleIn, V::Hold, V::Blind, V::Disabled, V::Faulted, V::Other]);
    let head = (target(), any::<i64>(), time(), time(), any::<[u32; 3]>(), verdict, step_kind());
    (head, vec(metric_report(), 0..4), vec(step(), 0..5), text(), any::<bool>()).prop_map(
        |((target, sequence, at, through, [current, desired, fold_version], verdict, binding), metrics, steps, policy_version, advised)| Decision {
            target,
            sequence,
            at,
            through,
            current,
            desired,
            verdict,
            binding,
            metrics,
            steps,
            policy_version,
            fold_version,
            advised,
        },
    )
}

fn alert() -> impl Strategy<Value = Alert> {
    let severity = prop::sample::select(vec![Severity::Info, Severity::Warning, Severity::Critical]);
    let state = prop::sample::select(vec![AlertState::Firing, AlertState::Resolved, AlertState::Event]);
    (option::of(target()), text(), text(), severity, state, text(), time()).prop_map(|(target, name, subject, severity, state, message, at)| Alert {
        target,
        name,
        subject,
        severity,
        state,
        message,
        at,
    })
}

fn dead_letter() -> impl Strategy<Value = DeadLetter> {
    (text(), any::<u32>(), any::<i64>(), text(), vec(any::<u8>(), 0..200)).prop_map(|(topic, partition, offset, reason, record)| DeadLetter {
        topic,
        partition,
        offset,
        reason,
        record,
    })
}

/// What was migrated of any of these keys.
fn carried<K: std::fmt::Debug>(key: impl Strategy<Value = K>) -> impl Strategy<Value = CarriedState<K>> {
    (key, text(), any::<i64>(), spec()).prop_map(|(key, migration, version, state)| CarriedState { key, migration, version, state })
}

/// Any signal.
pub(crate) fn signal() -> impl Strategy<Value = Signal> {
    prop_oneof![
        part().prop_map(Signal::Part),
        mark().prop_map(Signal::Mark),
        Just(Signal::Tick(Tick {})),
        fleet().prop_map(Signal::Fleet),
        policy().prop_map(Signal::Policy),
        outcome().prop_map(Signal::Outcome),
        grant().prop_map(Signal::Grant),
        source_error().prop_map(Signal::SourceError),
        carried(target()).prop_map(Signal::Carried),
    ]
}

fn rejected() -> impl Strategy<Value = PolicyRejected> {
    (text(), any::<i64>(), text(), option::of(target()), text()).prop_map(|(source, round, origin, target, error)| PolicyRejected {
        source,
        round,
        origin,
        target,
        error,
    })
}

fn control() -> impl Strategy<Value = ControlEntry> {
    let entry = (text(), any::<i64>(), text(), target(), spec())
        .prop_map(|(source, round, origin, target, spec)| ControlEntry::Policy(PolicyEntry { source, round, origin, target, spec }));
    prop_oneof![
        entry,
        rejected().prop_map(ControlEntry::Rejected),
        (text(), any::<i64>()).prop_map(|(source, round)| ControlEntry::RoundEnd(RoundEnd { source, round })),
        (text(), target()).prop_map(|(source, target)| ControlEntry::Removed(PolicyRemoved { source, target })),
        (text(), text()).prop_map(|(asker, reason)| ControlEntry::AnnounceAgain(AnnounceAgain { asker, reason })),
        carried(target().prop_map(|key| key.to_string())).prop_map(ControlEntry::Carried),
    ]
}

fn audit() -> impl Strategy<Value = Audit> {
    prop_oneof![
        decision().prop_map(Audit::Decision),
        grant().prop_map(Audit::Grant),
        command().prop_map(Audit::Command),
        outcome().prop_map(Audit::Outcome),
        policy().prop_map(Audit::Policy),
        rejected().prop_map(Audit::Rejected),
        (target(), any::<u32>(), any::<u32>(), text(), option::of(text()), any::<bool>())
            .prop_map(|(target, from, to, actor, reason, forced)| Audit::ByHand(ManualChange { target, from, to, actor, reason, forced })),
    ]
}

/// Any message.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        1 => batch().prop_map(Message::Samples),
        2 => control().prop_map(Message::Control),
        4 => signal().prop_map(Message::Signal),
        1 => request().prop_map(Message::Request),
        1 => Just(Message::RequestsTick(Tick {})),
        1 => carried(target().prop_map(|key| key.to_string())).prop_map(Message::RequestsCarried),
        1 => command().prop_map(Message::Command),
        3 => audit().prop_map(Message::Audit),
        1 => alert().prop_map(Message::Alert),
        1 => dead_letter().prop_map(Message::DeadLetter),
        1 => (text(), text(), option::of(any::<i64>())).prop_map(|(release, schema, id)| Message::Schema(SchemaEntry { release, schema, id })),
    ]
}
