//! What the fields of a `PolicyTest` mean, and the words that some of them take.

use crate::model::document::fields::Choice;
use crate::model::{MetricStatus, Reason, StepKind, Verdict};

/// What each field means, for those who write.
pub(super) const MEANINGS: [(&str, &str); 38] = [
    ("apiVersion", "the version of this kind of document"),
    ("kind", "PolicyTest: what policies must decide, for `loadline policy test`"),
    ("metadata.name", "yours; not read"),
    ("metadata.labels", "yours; not read"),
    ("metadata.annotations", "yours; not read"),
    ("spec.policies", "the files of the policies under test, and of their fleets; beside this file where they are relative"),
    ("spec.configuration", "a loadline.yaml, whose `pane` and `removals` hold in the tests"),
    ("spec.pane", "the length of a pane; 5s where neither this nor the configuration says so"),
    ("spec.tests", "the tests; each starts anew"),
    ("spec.tests[].name", "what must hold, in a few words"),
    ("spec.tests[].target", "namespace/Kind/name; needed where the files have several policies"),
    ("spec.tests[].every", "the time from one value of a series to the next; a pane where it is not written"),
    ("spec.tests[].fleet.replicas", "how many there are at the start, all ready; the fleet's own, or `min`, where it is not written"),
    ("spec.tests[].fleet.startUp", "how long one takes from its start until it is ready; 0 where it is not written"),
    ("spec.tests[].fleet.requests.cpu", "the cores that each asks for; the fleet's own where they are not written"),
    ("spec.tests[].fleet.requests.memory", "the bytes that each asks for; the fleet's own where they are not written"),
    ("spec.tests[].series", "what is measured"),
    ("spec.tests[].series[].metric", "the metric"),
    ("spec.tests[].series[].of", "whose values they are: Target (as a whole), Each (every ready instance shows them), Split (an even share of them)"),
    ("spec.tests[].series[].instance", "the one instance whose values they are; instances are NAME-1, NAME-2, …"),
    ("spec.tests[].series[].kind", "what the values mean; what the policy says, else Gauge"),
    ("spec.tests[].series[].values", "the values, the first at 0: 100 100+10x5 100x5 _ _x5 stale error idle NaN"),
    ("spec.tests[].events", "what else happens"),
    ("spec.tests[].events[].at", "when, from the start"),
    ("spec.tests[].events[].replicas", "somebody sets this count by hand"),
    ("spec.tests[].events[].policy", "from now on the policy is that of this file"),
    ("spec.tests[].expect", "what must be, and when"),
    ("spec.tests[].expect[].at", "when, from the start: after everything that happens at this moment"),
    ("spec.tests[].expect[].replicas", "the count that is asked for, once commands were carried out"),
    ("spec.tests[].expect[].ready", "the replicas that are ready"),
    ("spec.tests[].expect[].desired", "the count that the last decision came to"),
    ("spec.tests[].expect[].verdict", "what the last decision came to"),
    ("spec.tests[].expect[].binding", "the step that bound the last decision"),
    ("spec.tests[].expect[].reason", "why that step said what it said"),
    ("spec.tests[].expect[].metrics", "parts of the last decision, by metric"),
    ("spec.tests[].expect[].metrics.*.status", "what its value is worth"),
    ("spec.tests[].expect[].metrics.*.value", "its value, to a thousandth; a share of the request for `utilization`"),
    ("spec.tests[].expect[].metrics.*.proposal", "the count that it asks for"),
];

/// The words of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfWord {
    /// The target as a whole.
    Target,
    /// Every ready instance.
    Each,
    /// Every ready instance, an even share.
    Split,
}

impl Choice for OfWord {
    const WORDS: &'static [(&'static str, Self)] = &[("Target", OfWord::Target), ("Each", OfWord::Each), ("Split", OfWord::Split)];
}

/// The words of a type are the names of its variants.
macro_rules! words {
    ($type:ident: $($variant:ident)*) => {
        impl Choice for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$((stringify!($variant), $type::$variant)),*];
        }
    };
}

words!(Verdict: ScaleOut ScaleIn Hold Blind Disabled Faulted);
words!(StepKind: Combine Fallback Stabilize RateLimit Cooldown Bounds);
words!(MetricStatus: Ok Idle NoData Stale Error NonFinite);
words!(Reason: LargestProposal NoProposal BlindMetric FleetUnseen HoldWhileBlind FallbackIfHigher FallbackStatic IdleToMin ScaleOutWindow ScaleInWindow
    ScaleOutRate ScaleInRate ScaleOutDisabled ScaleInDisabled ScaleOutCooldown ScaleInCooldown BelowMin AboveMax AboveMaxPaced ScaledToZeroByHand OutOnly);
